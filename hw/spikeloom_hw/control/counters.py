"""Event counters that the host reads."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from spikeloom.arch.registers import COUNTERS

#: Widest increment of a counter in one cycle.
INCREMENT_WIDTH = 24


class Counters(wiring.Component):
    """One 64-bit counter per entry of `arch.registers.COUNTERS`; survives a soft reset.

    Members
    -------
    clear : In(1)
        Zero all.
    add_<name> : In(24)
        Increment of this cycle.
    <name> : Out(64)

    Latency
    -------
    Two cycles from increment to value (the increment is registered first).
    """

    latency = 2

    def __init__(self):
        super().__init__({"clear": In(1), **{f"add_{n}": In(INCREMENT_WIDTH) for n in COUNTERS}, **{n: Out(64) for n in COUNTERS}})

    def elaborate(self, platform):
        m = Module()
        for name in COUNTERS:
            value, step = getattr(self, name), Signal(INCREMENT_WIDTH, name=f"step_{name}")
            m.d.sync += [step.eq(getattr(self, f"add_{name}")), value.eq(value + step)]
            with m.If(self.clear):
                m.d.sync += [value.eq(0), step.eq(0)]
        return m
