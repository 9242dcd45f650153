"""What a build must know of a Zynq board, beyond what the software on it knows."""

from dataclasses import dataclass

from spikeloom.arch.config import AcceleratorConfig
from spikeloom.arch.presets import preset
from spikeloom.board.boards import BOARDS, Board, board


@dataclass(frozen=True, kw_only=True)
class Target:
    """A board as something to build for."""

    board: Board
    #: The part, as Vivado and openXC7 spell it.
    part: str
    #: Look-up tables, flip-flops, 36-kilobit block RAMs and DSP slices of the part.
    luts: int
    flip_flops: int
    block_rams: int
    dsps: int
    #: Memory ports of the processing system in the order that the core's managers take them: as long as there are such,
    #: each on a port of the DDR controller of its own. The first is the board's `memory_port`.
    memory_ports: tuple[str, ...]
    #: Board definition without which Vivado does not know the memory of the processing system; None where it need not.
    definition: str | None = None

    @property
    def machine(self) -> AcceleratorConfig:
        """The machine that is built for this board."""
        return preset(self.board.preset)


def _pynq(name):
    return Target(board=board(name), part="xc7z020clg400-1", luts=53200, flip_flops=106400, block_rams=140, dsps=220,
                  memory_ports=("S_AXI_HP0", "S_AXI_HP2", "S_AXI_HP1", "S_AXI_HP3"))


TARGETS = {target.board.name: target for target in (
    _pynq("pynq_z1"), _pynq("pynq_z2"),
    # HP1 and HP2 share one port of the DDR controller.
    Target(board=board("kv260"), part="xck26-sfvc784-2LV-c", luts=117120, flip_flops=234240, block_rams=144, dsps=1248,
           memory_ports=("S_AXI_HP0_FPD", "S_AXI_HP1_FPD", "S_AXI_HP3_FPD", "S_AXI_HP2_FPD"), definition="xilinx.com:kv260_som:part0:*"),
)}
assert TARGETS.keys() == BOARDS.keys()


def target(name: str) -> Target:
    """The target of that name.

    Raises
    ------
    ValueError
        Names those that exist.
    """
    return TARGETS[board(name).name]
