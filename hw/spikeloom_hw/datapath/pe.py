"""One accumulate-only processing element."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from spikeloom.arch.config import AcceleratorConfig

from ..layouts import TILE_WIDTH, WEIGHT_WIDTH

#: Bits of an accumulator's address: tile, then bank.
SLOT_WIDTH = TILE_WIDTH + 1
#: A level as two terms. Of the weight, `four` and `eight` times; then `once`, `twice`, or, with both, taken away. `negative`: all of it.
terms_layout = data.StructLayout({"four": 1, "eight": 1, "once": 1, "twice": 1, "negative": 1})


def level_terms(level: int) -> dict:
    """The two terms of a level -8..8."""
    large, small = ((0, 0), (0, 1), (0, 2), (4, -1), (4, 0), (4, 1), (4, 2), (8, -1), (8, 0))[abs(level)]
    return {"four": int(large == 4), "eight": int(large == 8), "once": int(small in (1, -1)), "twice": int(small in (2, -1)),
            "negative": int(level < 0)}


class ProcessingElement(wiring.Component):
    """Multiplies a weight by a level with one adder (two terms), and adds it to one of its accumulators with another.

    With `cfg.events` of 2 it does so with two weights, and adds their products first.

    The accumulators (two banks of tiles) are LUT RAM, read and written in the same cycle. They are never cleared: `first`
    overwrites.

    Parameters
    ----------
    cfg : AcceleratorConfig
        `acc_width`, `events`.

    Members
    -------
    weight, weight_b : In(signed(8))
        The weights; registers outside. What is named `_b` is there for two events per cycle.
    terms, terms_b : In(terms_layout)
        The levels of the same cycle.
    add : In(1)
        `latency` - 1 cycles later: add the product to accumulator `slot`.
    first : In(1)
        With `add`: the accumulator counts as zero.
    slot : In(5)
        With `add`: tile, then bank.
    r_slot : In(5)
        Accumulator read.
    r_sum : Out(signed(acc_width))
        Its value.

    Latency
    -------
    `latency_of(cfg)` cycles from `weight` to an accumulator that shows it: two, or three where products are added first; reads are
    asynchronous.

    Reference
    ---------
    ``acc[slot] += level * weight``.
    """

    @staticmethod
    def latency_of(cfg: AcceleratorConfig) -> int:
        """Cycles from a weight to an accumulator that shows it."""
        return 1 + cfg.events

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        self.latency = self.latency_of(cfg)
        second = {"weight_b": In(signed(WEIGHT_WIDTH)), "terms_b": In(terms_layout)} if cfg.events == 2 else {}
        super().__init__({
            "weight": In(signed(WEIGHT_WIDTH)), "terms": In(terms_layout), **second,
            "add": In(1), "first": In(1), "slot": In(SLOT_WIDTH),
            "r_slot": In(SLOT_WIDTH), "r_sum": Out(signed(cfg.acc_width)),
        })

    def elaborate(self, platform):
        m = Module()
        product, carry = self._build_product(m, self.weight, self.terms)
        if self.cfg.events == 2:
            other, later = self._build_product(m, self.weight_b, self.terms_b)
            both, both_later = Signal(signed(len(product) + 1)), Signal()
            m.d.sync += [both.eq(self._sum(other, product, carry)), both_later.eq(later)]
            product, carry = both, both_later

        m.submodules.sums = sums = memory.Memory(shape=signed(self.cfg.acc_width), depth=1 << SLOT_WIDTH, init=[])
        old, read, write = sums.read_port(domain="comb"), sums.read_port(domain="comb"), sums.write_port()
        m.d.comb += [
            old.addr.eq(self.slot),
            write.addr.eq(self.slot),
            write.en.eq(self.add),
            write.data.eq(self._sum(Mux(self.first, 0, old.data), product, carry)),
            read.addr.eq(self.r_slot),
            self.r_sum.eq(read.data),
        ]
        return m

    @staticmethod
    def _sum(a, b, carry):
        """a + b + carry, in one adder: a place below the lowest makes the carry."""
        return (Cat(Const(1, 1), a).as_signed() + Cat(carry, b).as_signed())[1:].as_signed()

    def _build_product(self, m, weight, terms):
        """Weight times level, a cycle later: (product, what has yet to be added to it).

        Of a level below zero it is the complement, one less than the product; the next adder has a carry to spare for that.
        """
        width = WEIGHT_WIDTH + 4
        large, small, product, carry = Signal(signed(width)), Signal(signed(width)), Signal(signed(width)), Signal()
        less = terms.once & terms.twice
        with m.If(terms.four):
            m.d.comb += large.eq(weight << 2)
        with m.Elif(terms.eight):
            m.d.comb += large.eq(weight << 3)
        with m.If(less):
            m.d.comb += small.eq(~weight)
        with m.Elif(terms.once):
            m.d.comb += small.eq(weight)
        with m.Elif(terms.twice):
            m.d.comb += small.eq(weight << 1)
        # Complements of both terms make that of their sum, with one carry less.
        turned = terms.negative.replicate(width)
        m.d.sync += [product.eq(self._sum(large ^ turned, small ^ turned, less ^ terms.negative)), carry.eq(terms.negative)]
        return product, carry
