"""ULX3S 85F: an ECP5-85F with a 25 MHz oscillator and a USB serial adapter. The top of its bitstream and its pins."""

from dataclasses import dataclass

from amaranth.hdl import Cat, ClockDomain, ClockSignal, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from spikeloom.arch.config import AcceleratorConfig

from ..shell import Shell
from .serial_core import SerialCore

OSCILLATOR_MHZ = 25
#: Range of the PLL's oscillator.
_VCO_MHZ = (400, 800)
#: Port of `Ulx3s` -> pins, lowest bit first, and the buffer's attributes.
PINS = {
    "clk_25mhz": (("G2",), ""),
    "ftdi_txd": (("M1",), "PULLMODE=UP"),
    "ftdi_rxd": (("L4",), ""),
    "btn_fire1": (("R1",), "PULLMODE=DOWN"),
    "led": (("B2", "C2", "C1", "D2", "D1", "E2", "E1", "H3"), "DRIVE=4"),
    "wifi_gpio0": (("L2",), "PULLMODE=UP"),
}


def constraints() -> str:
    """The `.lpf` file: pins, levels, and the oscillator's frequency."""
    lines = ["# Pins of the ULX3S 85F (BG381) that Spikeloom uses. Generated; do not edit."]
    for port, (pins, attributes) in PINS.items():
        for bit, pin in enumerate(pins):
            name = f"{port}[{bit}]" if len(pins) > 1 else port
            lines += [f'LOCATE COMP "{name}" SITE "{pin}";', f'IOBUF PORT "{name}" IO_TYPE=LVCMOS33{" " * bool(attributes)}{attributes};']
    return "\n".join([*lines, f'FREQUENCY PORT "clk_25mhz" {OSCILLATOR_MHZ} MHZ;', ""])


@dataclass(frozen=True)
class PllDividers:
    """What the PLL divides by: its input, its feedback and its output."""

    input: int
    feedback: int
    output: int

    @classmethod
    def of(cls, mhz: float) -> "PllDividers":
        """Dividers for an output of exactly so many MHz, the oscillator as near to the middle of its range as can be.

        Raises
        ------
        ValueError
            When no dividers give this frequency.
        """
        middle = sum(_VCO_MHZ) / 2
        fitting = [(abs(mhz * output - middle), cls(divider, feedback, output))
                   for divider in range(1, 6) for feedback in range(1, 81) for output in range(1, 129)
                   if OSCILLATOR_MHZ * feedback == mhz * divider and _VCO_MHZ[0] <= mhz * output <= _VCO_MHZ[1]]
        if not fitting:
            raise ValueError(f"The PLL cannot make {mhz:g} MHz of {OSCILLATOR_MHZ} MHz; take a multiple of 5 MHz from 10 to 400.")
        return min(fitting, key=lambda choice: (choice[0], choice[1].input))[1]


class Ulx3s(wiring.Component):
    """Top of the board: PLL, reset, lamps, and the core behind the USB serial adapter.

    Parameters
    ----------
    cfg : AcceleratorConfig
        Its ``clock_mhz`` is the clock of the core.
    baud : int
        Rate of the line; the adapter makes at most 3,000,000.

    Members
    -------
    clk_25mhz : In(1)
        Oscillator.
    ftdi_txd : In(1)
    ftdi_rxd : Out(1)
        From and to the adapter; the names are the adapter's.
    btn_fire1 : In(1)
        Button, high while pressed: resets everything.
    led : Out(8)
        0 to 6: `SerialCore.lamps`; 7: the PLL is locked.
    wifi_gpio0 : Out(1)
        Kept high, so that the radio module leaves the board alone.

    Latency
    -------
    Two cycles from button to reset.

    Reference
    ---------
    `SerialCore`.
    """

    def __init__(self, cfg: AcceleratorConfig, *, baud: int):
        self.cfg = cfg
        self.dividers = PllDividers.of(cfg.clock_mhz)
        self.core = Shell(SerialCore(cfg, clock_hz=cfg.clock_mhz * 1e6, baud=baud))
        super().__init__({
            "clk_25mhz": In(1), "ftdi_txd": In(1), "ftdi_rxd": Out(1), "btn_fire1": In(1), "led": Out(8), "wifi_gpio0": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.core = core = self.core
        clock, locked = Signal(), Signal()
        m.submodules.pll = self._pll(clock, locked)
        m.domains.button = ClockDomain(reset_less=True)
        m.d.comb += ClockSignal("button").eq(clock)
        button, steady = Signal(2, init=0b11), Signal(2)
        m.d.button += [button.eq(Cat(self.btn_fire1, button)), steady.eq(Cat(locked, steady))]
        m.d.comb += [
            core.aclk.eq(clock), core.aresetn.eq(steady[1] & ~button[1]), core.rx.eq(self.ftdi_txd), self.ftdi_rxd.eq(core.tx),
            self.led.eq(Cat(core.lamps[:7], locked)), self.wifi_gpio0.eq(1),
        ]
        return m

    def _pll(self, clock, locked) -> Instance:
        d = self.dividers
        return Instance(
            "EHXPLLL",
            a_ICP_CURRENT="12", a_LPF_RESISTOR="8", a_MFG_ENABLE_FILTEROPAMP="1", a_MFG_GMCREF_SEL="2",
            p_PLLRST_ENA="DISABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED", p_DPHASE_SOURCE="DISABLED",
            p_OUTDIVIDER_MUXA="DIVA", p_OUTDIVIDER_MUXB="DIVB", p_OUTDIVIDER_MUXC="DIVC", p_OUTDIVIDER_MUXD="DIVD",
            p_CLKI_DIV=d.input, p_CLKFB_DIV=d.feedback, p_FEEDBK_PATH="CLKOP",
            p_CLKOP_ENABLE="ENABLED", p_CLKOP_DIV=d.output, p_CLKOP_CPHASE=d.output // 2, p_CLKOP_FPHASE=0,
            i_CLKI=self.clk_25mhz, i_CLKFB=clock, o_CLKOP=clock, o_LOCK=locked, i_RST=0, i_STDBY=0,
            i_PHASESEL0=0, i_PHASESEL1=0, i_PHASEDIR=1, i_PHASESTEP=1, i_PHASELOADREG=1, i_PLLWAKESYNC=0, i_ENCLKOP=0,
        )
