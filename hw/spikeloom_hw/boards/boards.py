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
    #: Board definition without which Vivado does not know the memory of the processing system; None where it need not.
    definition: str | None = None

    @property
    def memory_ports(self) -> tuple[str, ...]:
        """Memory ports of the processing system in the order that the core's managers take them."""
        return self.board.memory_ports

    @property
    def machine(self) -> AcceleratorConfig:
        """The machine that is built for this board."""
        return preset(self.board.preset)


def _pynq(name):
    return Target(board=board(name), part="xc7z020clg400-1", luts=53200, flip_flops=106400, block_rams=140, dsps=220)


TARGETS = {target.board.name: target for target in (
    _pynq("pynq_z1"), _pynq("pynq_z2"),
    Target(board=board("kv260"), part="xck26-sfvc784-2LV-c", luts=117120, flip_flops=234240, block_rams=144, dsps=1248,
           definition="xilinx.com:kv260_som:part0:*"),
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
