"""The shell around a core: clock and reset as Vivado names them, and flat port names."""

from amaranth.hdl import ClockDomain, ClockSignal, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, connect, flipped


class Shell(wiring.Component):
    """Wraps a core in a clock domain driven by ``aclk`` and ``aresetn``, and passes its ports through.

    ``aresetn`` is used synchronously and must be low for at least one rising edge of ``aclk``; it is registered twice
    before it reaches the core, so that its fan-out starts at a register. Deassert and assert arrive two cycles later.

    Parameters
    ----------
    core : wiring.Component
        What to wrap; uses the domain ``sync`` only.

    Members
    -------
    aclk, aresetn : In(1)
        Clock; reset, active low.
    ... :
        All members of the core, under their names.

    Latency
    -------
    None between core and ports.

    Reference
    ---------
    The core.
    """

    def __init__(self, core: wiring.Component):
        self.core = core
        members = dict(core.signature.members)
        clash = {"aclk", "aresetn"} & set(members)
        if clash:
            raise ValueError(f"The core already has a port named {', '.join(sorted(clash))}.")
        super().__init__({"aclk": In(1), "aresetn": In(1), **members})

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain("sync")
        m.domains.raw = ClockDomain("raw", reset_less=True)
        m.submodules.core = self.core
        # Starts asserted, so that the core is in reset from the first edge after configuration.
        synchronizer = Signal(2, init=0b11)
        m.d.comb += [
            ClockSignal("raw").eq(self.aclk),
            ClockSignal("sync").eq(self.aclk),
            ResetSignal("sync").eq(synchronizer[1]),
        ]
        m.d.raw += synchronizer.eq((synchronizer << 1) | ~self.aresetn)
        for name, member in self.core.signature.members.items():
            outer, inner = getattr(self, name), getattr(self.core, name)
            if member.is_signature:
                connect(m, flipped(outer), inner)
            elif member.flow is In:
                m.d.comb += inner.eq(outer)
            else:
                m.d.comb += outer.eq(inner)
        return m
