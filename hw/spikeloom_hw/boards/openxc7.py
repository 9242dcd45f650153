"""The open flow for the Zynq-7020: the core, the processing system as a primitive, and nothing of a vendor's between."""

from amaranth.hdl import ClockDomain, ClockSignal, Const, Instance, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from spikeloom.board.boards import CLOCK, INTERRUPT, REGISTERS, RESET

from .boards import Target
from .core import CorePorts
from .openxc7_bridge import ID_WIDTH as GP_ID_WIDTH
from .openxc7_bridge import GpBridge

#: Name of the exported top.
TOP = "spikeloom_openxc7"
#: Width of a transaction id of a memory port of the processing system.
HP_ID_WIDTH = 6
#: Inputs of the processing system that must not float, with their widths: interrupts (the first is ours), urgent memory
#: requests, events; and the valids of AXI ports that nobody uses.
INTERRUPTS = 20
QUIET = {"DDRARB": 4, "EVENTEVENTI": 1} | {
    f"SAXI{port}{channel}VALID": 1 for port in ("ACP", "GP0", "GP1", "HP0", "HP1", "HP2", "HP3") for channel in ("AW", "W", "AR")}
_IDS = {"awid", "arid", "wid", "bid", "rid"}


class Zynq7Top(wiring.Component):
    """A design without pins: ``PS7``, a clock buffer, the bridge to the registers, and the core as a module of its own.

    The clock is ``FCLKCLK[0]``, whose rate software sets; the reset is ``FCLKRESETN[0]``. The core's managers go to the
    memory ports of the board in their order, without anything between: they speak AXI3 of the same width.

    Parameters
    ----------
    target : Target
        A board with a Zynq-7000.
    core : CorePorts
        Of the exported core; its managers must speak AXI3.

    Members
    -------
    None.

    Latency
    -------
    That of `GpBridge` for the registers; none for memory.

    Reference
    ---------
    The core.
    """

    def __init__(self, target: Target, core: CorePorts):
        if not target.board.zynq7:
            raise ValueError(f"{target.board.title} has no Zynq-7000; the open flow knows no other processing system.")
        if len(core.managers) > len(target.memory_ports):
            raise ValueError(f"{core.module} has {len(core.managers)} managers; the board has {len(target.memory_ports)} ports.")
        wrong = [name for name in core.managers if not core.is_axi3(name)]
        if wrong:
            raise ValueError(f"Memory ports of a Zynq-7000 speak AXI3, but {', '.join(wrong)} of {core.module} speaks AXI4: "
                             "use a machine with axi3=True.")
        self.target = target
        self.core = core
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        self._ps = {f"i_{name}": Const(0, width) for name, width in QUIET.items()}
        self._pins = {port.name: Signal(port.width, name=port.name) for port in self.core.ports}
        self._build_clock(m)
        self._build_registers(m)
        for manager, port in zip(self.core.managers, self.target.memory_ports):
            self._build_memory(m, manager, port.replace("_", ""))
        m.submodules.ps7 = Instance("PS7", **self._ps)
        m.submodules.core = Instance(self.core.module, **{
            f"{port.direction[0]}_{port.name}": self._pins[port.name] for port in self.core.ports})
        return m

    def _build_clock(self, m):
        """Clock, reset and interrupt."""
        m.domains.sync = ClockDomain("sync")
        m.domains.raw = ClockDomain("raw", reset_less=True)
        clocks, resets, interrupts = Signal(4, name="fclk"), Signal(4, name="fclk_resetn"), Signal(INTERRUPTS)
        self._clock = Signal()
        m.submodules.clock_buffer = Instance("BUFG", i_I=clocks[0], o_O=self._clock)
        # Starts asserted, as in `Shell`.
        synchronizer = Signal(2, init=0b11)
        m.d.raw += synchronizer.eq((synchronizer << 1) | ~resets[0])
        m.d.comb += [
            ClockSignal("raw").eq(self._clock), ClockSignal("sync").eq(self._clock), ResetSignal("sync").eq(synchronizer[1]),
            self._pins[CLOCK].eq(self._clock), self._pins[RESET].eq(resets[0]), interrupts.eq(self._pins[INTERRUPT]),
        ]
        self._ps |= {"o_FCLKCLK": clocks, "o_FCLKRESETN": resets, "i_IRQF2P": interrupts}

    def _build_registers(self, m):
        """Processor -> bridge -> registers."""
        m.submodules.bridge = bridge = GpBridge(base_address=self.target.board.base_address)
        prefix = self.target.board.manager.replace("_", "")
        self._ps[f"i_{prefix}ACLK"] = self._clock
        for name, member in bridge.s_axi.signature.members.items():
            self._join(m, prefix, name, getattr(bridge.s_axi, name), GP_ID_WIDTH, to_ps=member.flow is not In)
        for name, port in self.core.signals(REGISTERS).items():
            pin, inner = self._pins[port.name], getattr(bridge.m_axil, name)
            m.d.comb += pin.eq(inner) if port.direction == "input" else inner.eq(pin)

    def _build_memory(self, m, manager, prefix):
        """One manager -> one memory port."""
        self._ps |= {f"i_{prefix}ACLK": self._clock, f"i_{prefix}RDISSUECAP1EN": Const(0), f"i_{prefix}WRISSUECAP1EN": Const(0)}
        for name, port in self.core.signals(manager).items():
            self._join(m, prefix, name, self._pins[port.name], HP_ID_WIDTH, to_ps=port.direction == "output")

    def _join(self, m, prefix, name, value, id_width, *, to_ps):
        """One AXI signal; the primitive's ids are wider than ours, its sizes end at eight bytes."""
        width = id_width if name in _IDS else 2 if name.endswith("size") else len(value)
        pin = Signal(width, name=(prefix + name).upper())
        m.d.comb += pin.eq(value) if to_ps else value.eq(pin)
        self._ps[f"{'i' if to_ps else 'o'}_{prefix}{name.upper()}"] = pin


#: Commands from the netlist to the bitstream.
_COMMANDS = """#!/bin/sh
# From the netlist to the bitstream with the tools of openXC7. Written by spikeloom_hw.boards; do not edit.
# Set CHIPDB to nextpnr-xilinx's database of the device and PRJXRAY_DB_DIR to the folder of prjxray-db.
set -eu
cd "$(dirname "$0")"
: "${{CHIPDB:?set CHIPDB to the database of the device, such as xc7z020clg400.bin}}"
: "${{PRJXRAY_DB_DIR:?set PRJXRAY_DB_DIR to the folder of prjxray-db}}"
database="$PRJXRAY_DB_DIR/zynq7"
nextpnr-xilinx --chipdb "$CHIPDB" --xdc {top}.xdc --json {top}.json --fasm {top}.fasm --freq {mhz:g} > nextpnr.log 2>&1 || {{
    tail -n 20 nextpnr.log
    exit 1
}}
fasm2frames --part {part} --db-root "$database" {top}.fasm > {top}.frames
xc7frames2bit --part_file "$database/{part}/part.yaml" --part_name {part} --frm_file {top}.frames --output_file {bit}
"""


def commands(target: Target, *, mhz: float, bit: str) -> str:
    """Shell script from the netlist to the bitstream, for those who have openXC7.

    Parameters
    ----------
    target : Target
    mhz : float
        Clock that place and route aim at; their estimates are not to be trusted.
    bit : str
        File to make.
    """
    return _COMMANDS.format(top=TOP, part=target.part, mhz=mhz, bit=bit)


def constraints(mhz: float) -> str:
    """The `.xdc` file: a clock and no pin, for there are none."""
    return f"create_clock -period {1000 / mhz:.3f} [get_nets {{fclk[0]}}]\n"
