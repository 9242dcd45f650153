"""Zynq boards: what a bitstream is built from and what software that loads it must agree on."""

from dataclasses import dataclass

from .config import AcceleratorConfig, require
from .presets import preset
from .registers import WINDOW_BYTES

#: Vendor, library, name and version of the core as an IP; joined by colons it is what a pynq driver binds to.
VLNV = ("spikeloom", "user", "spikeloom", "1.0")
#: Names of the cells in a block design: the processing system, the core, the interrupt controller.
PS_CELL, CORE_CELL, INTERRUPT_CELL = "ps", "spikeloom_0", "interrupts"
#: Bytes that the interrupt controller occupies.
INTERRUPT_BYTES = 65536
#: Name of the AXI4-Lite port of the core, and the beginning of the names of its AXI managers.
CONTROL_PORT, MANAGER_PREFIX = "s_axil", "m_axi"


@dataclass(frozen=True, kw_only=True)
class Board:
    """One Zynq board: its part, its processing system, and the machine that is built for it."""

    name: str
    #: What people call it.
    title: str
    #: Name of the preset; see `machine`.
    preset: str
    part: str
    #: "zynq7" (Zynq-7000) or "zynqmp" (Zynq UltraScale+).
    family: str
    #: Look-up tables, flip-flops, 36-kilobit block RAMs and DSP slices of the part.
    luts: int
    flip_flops: int
    block_rams: int
    dsps: int
    #: Memory ports of the processing system in the order that the core's managers take them: as long as there are such,
    #: on ports of the DDR controller of their own.
    memory_ports: tuple[str, ...]
    #: Port of the processing system through which the registers are reached, and the registers' address there.
    control_port: str
    base_address: int

    @property
    def machine(self) -> AcceleratorConfig:
        """The machine that is built for this board."""
        return preset(self.preset)

    @property
    def interrupt_address(self) -> int:
        """Address of the interrupt controller's registers, in designs that have one."""
        return self.base_address + INTERRUPT_BYTES

    @property
    def window_bytes(self) -> int:
        """Bytes of the register window."""
        return WINDOW_BYTES


_XC7Z020 = dict(part="xc7z020clg400-1", family="zynq7", luts=53200, flip_flops=106400, block_rams=140, dsps=220,
                memory_ports=("S_AXI_HP0", "S_AXI_HP2", "S_AXI_HP1", "S_AXI_HP3"), control_port="M_AXI_GP0", base_address=0x4000_0000)

BOARDS = {board.name: board for board in (
    Board(name="pynq_z1", title="PYNQ-Z1", preset="pynq_z2", **_XC7Z020),
    Board(name="pynq_z2", title="PYNQ-Z2", preset="pynq_z2", **_XC7Z020),
    # HP1 and HP2 share one port of the DDR controller.
    Board(name="kv260", title="KV260", preset="kv260", part="xck26-sfvc784-2LV-c", family="zynqmp", luts=117120, flip_flops=234240,
          block_rams=144, dsps=1248, memory_ports=("S_AXI_HP0_FPD", "S_AXI_HP1_FPD", "S_AXI_HP3_FPD", "S_AXI_HP2_FPD"),
          control_port="M_AXI_HPM0_FPD", base_address=0xA000_0000),
)}


def board(name: str) -> Board:
    """The board of that name.

    Raises
    ------
    ValueError
        Names the boards that exist.
    """
    require(name in BOARDS, f"There is no board {name!r}; there are: {', '.join(BOARDS)}.", ValueError)
    return BOARDS[name]
