"""One accumulate-only processing element."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from spikeloom.arch.config import AcceleratorConfig

from ..layouts import TILE_WIDTH, WEIGHT_WIDTH

#: Bits of an accumulator's address: tile, then bank.
SLOT_WIDTH = TILE_WIDTH + 1
#: A level as two terms: `shift` picks weight << 0..3 or, with `zero`, nothing; then the weight is added `once`, `twice`, or
#: taken away (`minus`).
terms_layout = data.StructLayout({"zero": 1, "shift": 2, "once": 1, "twice": 1, "minus": 1})


def level_terms(level: int) -> dict:
    """The two terms of a level -1..8."""
    shift = {-1: 0, 0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 5: 2, 6: 2, 7: 3, 8: 3}[level]
    return {"zero": int(level <= 0), "shift": shift, "once": int(level in (3, 5)), "twice": int(level == 6),
            "minus": int(level in (-1, 7))}


class ProcessingElement(wiring.Component):
    """Multiplies a weight by a level with one adder (two terms), and adds it to one of its accumulators with another.

    The accumulators (two banks of tiles) are LUT RAM, read and written in the same cycle. They are never cleared: `first`
    overwrites.

    Parameters
    ----------
    cfg : AcceleratorConfig
        `acc_width`.

    Members
    -------
    weight : In(signed(8))
        The weight; a register outside.
    terms : In(terms_layout)
        The level of the same cycle.
    add : In(1)
        One cycle later: add the product to accumulator `slot`.
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
    Two cycles from `weight` to an accumulator that shows it; reads are asynchronous.

    Reference
    ---------
    ``acc[slot] += level * weight``.
    """

    latency = 2

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        super().__init__({
            "weight": In(signed(WEIGHT_WIDTH)), "terms": In(terms_layout),
            "add": In(1), "first": In(1), "slot": In(SLOT_WIDTH),
            "r_slot": In(SLOT_WIDTH), "r_sum": Out(signed(cfg.acc_width)),
        })

    def elaborate(self, platform):
        m = Module()
        width = WEIGHT_WIDTH + 4
        terms = self.terms
        large, small, product = Signal(signed(width)), Signal(signed(width)), Signal(signed(width))
        with m.If(~terms.zero):
            with m.Switch(terms.shift):
                for shift in range(4):
                    with m.Case(shift):
                        m.d.comb += large.eq(self.weight << shift)
        with m.If(terms.twice):
            m.d.comb += small.eq(self.weight << 1)
        with m.Elif(terms.once):
            m.d.comb += small.eq(self.weight)
        with m.Elif(terms.minus):
            m.d.comb += small.eq(~self.weight)
        # One adder: a place below the lowest carries the one that completes the negation.
        total = Cat(Const(1, 1), large).as_signed() + Cat(terms.minus, small).as_signed()
        m.d.sync += product.eq(total[1:].as_signed())

        m.submodules.sums = sums = memory.Memory(shape=signed(self.cfg.acc_width), depth=1 << SLOT_WIDTH, init=[])
        old, read, write = sums.read_port(domain="comb"), sums.read_port(domain="comb"), sums.write_port()
        m.d.comb += [
            old.addr.eq(self.slot),
            write.addr.eq(self.slot),
            write.en.eq(self.add),
            write.data.eq(Mux(self.first, 0, old.data) + product),
            read.addr.eq(self.r_slot),
            self.r_sum.eq(read.data),
        ]
        return m
