"""One accumulate-only processing element."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from spikeloom.arch.config import AcceleratorConfig

from ..layouts import TILE_WIDTH, WEIGHT_WIDTH

#: Bits of an accumulator's address: tile, then bank.
SLOT_WIDTH = TILE_WIDTH + 1
#: A level as two terms: `shift` picks weight << 0..3 or, with `zero`, nothing; then the weight is added `once`, `twice`, or
#: taken away (`minus`). What comes of it is taken from the sum (`negative`) or added to it.
terms_layout = data.StructLayout({"zero": 1, "shift": 2, "once": 1, "twice": 1, "minus": 1, "negative": 1})


def level_terms(level: int) -> dict:
    """The two terms of a level -8..8."""
    size = abs(level)
    shift = (0, 0, 1, 1, 2, 2, 2, 3, 3)[size]
    return {"zero": int(size == 0), "shift": shift, "once": int(size in (3, 5)), "twice": int(size == 6), "minus": int(size == 7),
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
        product, negative = self._build_product(m, self.weight, self.terms)
        if self.cfg.events == 2:
            # Signs meet where sums are made: one here, that of both below.
            other, other_negative = self._build_product(m, self.weight_b, self.terms_b)
            both, both_negative = Signal(signed(len(product) + 1)), Signal()
            m.d.sync += [both.eq(self._sum(product, other, negative ^ other_negative)), both_negative.eq(negative)]
            product, negative = both, both_negative

        m.submodules.sums = sums = memory.Memory(shape=signed(self.cfg.acc_width), depth=1 << SLOT_WIDTH, init=[])
        old, read, write = sums.read_port(domain="comb"), sums.read_port(domain="comb"), sums.write_port()
        m.d.comb += [
            old.addr.eq(self.slot),
            write.addr.eq(self.slot),
            write.en.eq(self.add),
            write.data.eq(self._sum(Mux(self.first, 0, old.data), product, negative)),
            read.addr.eq(self.r_slot),
            self.r_sum.eq(read.data),
        ]
        return m

    @staticmethod
    def _sum(a, b, minus):
        """a + b or, with `minus`, a - b: one adder, a place below whose lowest completes the negation."""
        a, b = (Value.cast(value).as_signed() for value in (a, b))
        width = max(len(a), len(b)) + 1
        b = Cat(b, b[-1].replicate(width - len(b)))
        return (Cat(Const(1, 1), a).as_signed() + Cat(minus, b ^ minus.replicate(width)).as_signed())[1:].as_signed()

    def _build_product(self, m, weight, terms):
        """Weight times the level's magnitude, and whether the level is below zero; a cycle later."""
        width = WEIGHT_WIDTH + 4
        large, small, product = Signal(signed(width)), Signal(signed(width)), Signal(signed(width))
        with m.If(~terms.zero):
            with m.Switch(terms.shift):
                for shift in range(4):
                    with m.Case(shift):
                        m.d.comb += large.eq(weight << shift)
        with m.If(terms.twice):
            m.d.comb += small.eq(weight << 1)
        with m.Elif(terms.once):
            m.d.comb += small.eq(weight)
        with m.Elif(terms.minus):
            m.d.comb += small.eq(~weight)
        # One adder: a place below the lowest carries the one that completes the negation.
        total = Cat(Const(1, 1), large).as_signed() + Cat(terms.minus, small).as_signed()
        negative = Signal()
        m.d.sync += [product.eq(total[1:].as_signed()), negative.eq(terms.negative)]
        return product, negative
