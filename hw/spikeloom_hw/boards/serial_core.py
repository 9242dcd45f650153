"""The core behind a serial line: for boards that lend it no memory and no bus."""

from amaranth.hdl import Cat, Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from spikeloom.arch.config import AcceleratorConfig
from spikeloom.arch.serial_link import BEAT_BYTES

from ..bus.uart import clocks_per_bit
from ..bus.uart_link import UartLink
from ..top import Top

#: Seconds that the board waits for memory's answer before it asks again, and the times it asks.
PATIENCE_S, ATTEMPTS = 0.25, 16
#: A lamp that tells of an event is lit for so many seconds.
BLINK_S = 0.05


class SerialCore(wiring.Component):
    """`Top` with a `UartLink`: registers and memory lie on the host.

    Parameters
    ----------
    cfg : AcceleratorConfig
        Of a machine with a bus of 64 bits and addresses of at most 32.
    clock_hz : float
        Clock that this core runs from.
    baud : int
        Rate of the line.
    patience_s : float
        Seconds until a question to memory is asked again.

    Members
    -------
    rx : In(1)
    tx : Out(1)
        The line.
    lamps : Out(8)
        0 blinks while the clock runs; 1 a frame came; 2 memory is waited for; 3 a burst failed since the last reset; 4 a
        frame was dropped; 5 the interrupt; 6 the core is held in reset; 7 off.

    Latency
    -------
    That of the line.

    Reference
    ---------
    `spikeloom.model.emulator`.
    """

    def __init__(self, cfg: AcceleratorConfig, *, clock_hz: float, baud: int, patience_s: float = PATIENCE_S):
        if cfg.data_width != 8 * BEAT_BYTES or cfg.axi3:
            raise ValueError(f"The serial link carries AXI4 beats of {8 * BEAT_BYTES} bits; machine {cfg.name!r} has "
                             f"{'AXI3' if cfg.axi3 else 'AXI4'} of {cfg.data_width}: choose a machine made for it, such as ulx3s.")
        self.cfg = cfg
        self.clock_hz = clock_hz
        self.link = UartLink(address_width=cfg.address_width, clocks_per_bit=clocks_per_bit(clock_hz, baud),
                             patience=round(patience_s * clock_hz), attempts=ATTEMPTS)
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "lamps": Out(8)})

    def elaborate(self, platform):
        m = Module()
        core = Top(self.cfg)
        m.submodules.link = link = self.link
        m.submodules.core = ResetInserter(link.core_reset)(core)
        connect(m, link.m_axil, core.s_axil)
        connect(m, core.m_axi, link.s_axi)
        m.d.comb += [link.rx.eq(self.rx), self.tx.eq(link.tx), link.irq.eq(core.irq)]
        heartbeat = Signal(range(round(self.clock_hz)))
        failed = Signal()
        m.d.sync += heartbeat.eq(heartbeat + 1)
        with m.If(link.core_reset):
            m.d.sync += failed.eq(0)
        with m.Elif(link.failed):
            m.d.sync += failed.eq(1)
        m.d.comb += self.lamps.eq(Cat(heartbeat[-1], self._stretched(m, link.heard), self._stretched(m, link.asking), failed,
                                      self._stretched(m, link.dropped), core.irq, link.core_reset))
        return m

    def _stretched(self, m, event) -> Signal:
        """The event, long enough to be seen."""
        left = Signal(range(round(BLINK_S * self.clock_hz) + 1))
        with m.If(event):
            m.d.sync += left.eq(round(BLINK_S * self.clock_hz))
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        return left != 0
