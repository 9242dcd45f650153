"""Soft reset: drains the bus, then clears the core."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class ResetController(wiring.Component):
    """Holds the core in reset until the bus managers have nothing outstanding.

    Lives outside the reset that it makes. Does not cure a dead bus: then it lets go after the managers' own timeout, and
    the core refuses work.

    Members
    -------
    request : In(1)
        One-cycle pulse of the host.
    drained : In(1)
        All managers have drained.
    bus_dead : In(1)
        A manager gave up.
    core_reset, drain : Out(1)
        Reset of the core; drain of the managers.

    Latency
    -------
    At least three cycles.

    Reference
    ---------
    None.
    """

    def __init__(self):
        super().__init__({"request": In(1), "drained": In(1), "bus_dead": In(1), "core_reset": Out(1), "drain": Out(1)})

    def elaborate(self, platform):
        m = Module()
        settle = Signal(2)
        m.d.comb += self.core_reset.eq(self.drain)
        with m.If(self.request):
            m.d.sync += [self.drain.eq(1), settle.eq(0)]
        with m.Elif(self.drain):
            m.d.sync += settle.eq(settle + (settle != 3))
            with m.If((settle == 3) & (self.drained | self.bus_dead)):
                m.d.sync += self.drain.eq(0)
        return m
