"""Boards, and where the core sits on them: what block design, description and driver must agree about."""

from dataclasses import dataclass

#: Vendor, library, name and version of the packaged core; pynq finds the driver by it.
VLNV = "spikeloom:user:spikeloom:1.0"
#: Names of the core's cell, interfaces and pins in a block design; further memory ports are numbered from 1 on.
CELL, REGISTERS, MEMORY, INTERRUPT, CLOCK, RESET = "spikeloom_0", "s_axil", "m_axi", "irq", "aclk", "aresetn"


@dataclass(frozen=True, kw_only=True)
class Board:
    """One board with a Zynq."""

    name: str
    title: str
    #: What pynq calls the board (variable BOARD of its images).
    pynq_name: str
    #: "zynq" (7000) or "zynquplus".
    family: str
    #: Device, package and speed grade, as descriptions spell them.
    device: str
    package: str
    speed: str
    #: Preset of `arch.presets` that is meant for it.
    preset: str

    @property
    def zynq7(self) -> bool:
        """A Zynq-7000."""
        return self.family == "zynq"

    @property
    def processor(self) -> str:
        """Module type of the processing system."""
        return "processing_system7" if self.zynq7 else "zynq_ultra_ps_e"

    @property
    def processor_vlnv(self) -> str:
        """Its IP."""
        return "xilinx.com:ip:processing_system7:5.5" if self.zynq7 else "xilinx.com:ip:zynq_ultra_ps_e:3.5"

    @property
    def manager(self) -> str:
        """Interface of the processing system that reaches the registers."""
        return "M_AXI_GP0" if self.zynq7 else "M_AXI_HPM0_FPD"

    @property
    def memory_ports(self) -> tuple[str, ...]:
        """Interfaces of the processing system for the core's memory ports, in their order: as long as there are such, each on
        a port of the DDR controller of its own (a Zynq-7000's HP0 and HP1 share one, an UltraScale+'s HP1 and HP2)."""
        return tuple(f"S_AXI_HP{n}" for n in (0, 2, 1, 3)) if self.zynq7 else tuple(f"S_AXI_HP{n}_FPD" for n in (0, 1, 3, 2))

    @property
    def interrupt_port(self) -> str:
        """Interrupt input of the processing system."""
        return "IRQ_F2P" if self.zynq7 else "pl_ps_irq0"

    @property
    def base_address(self) -> int:
        """Of the register window."""
        return 0x4000_0000 if self.zynq7 else 0xA000_0000

    @property
    def memory_bytes(self) -> int:
        """Memory from address 0 that the memory port maps: all of a PYNQ's, the low half of a KV260's."""
        return 0x2000_0000 if self.zynq7 else 0x8000_0000

    @property
    def pll_mhz(self) -> float:
        """The PLL that the fabric's clocks are divided from."""
        return 1000.0 if self.zynq7 else 1499.985


BOARDS = {board.name: board for board in (
    Board(name="pynq_z1", title="PYNQ-Z1", pynq_name="Pynq-Z1", family="zynq", device="7z020", package="clg400", speed="-1",
          preset="pynq_z2"),
    Board(name="pynq_z2", title="PYNQ-Z2", pynq_name="Pynq-Z2", family="zynq", device="7z020", package="clg400", speed="-1",
          preset="pynq_z2"),
    Board(name="kv260", title="KV260", pynq_name="KV260", family="zynquplus", device="xck26", package="sfvc784", speed="-2LV",
          preset="kv260"),
)}


def board(name: str) -> Board:
    """The board of that name, in our spelling or in pynq's.

    Raises
    ------
    ValueError
        Names the boards that exist.
    """
    for known in BOARDS.values():
        if name in (known.name, known.pynq_name, known.title):
            return known
    raise ValueError(f"There is no board {name!r}; there are: {', '.join(BOARDS)}.")
