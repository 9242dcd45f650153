"""Which matrices stay on chip, and where every byte of them lies."""

from dataclasses import dataclass, field

from ..arch.config import AcceleratorConfig, ModelConfig, ceil_div, require
from ..arch.layout import SECTION_ALIGN
from .lower import Lowered


@dataclass
class Placement:
    """Bytes of the `resident` and `streamed` sections, and the address of each block in them.

    A resident address counts tile rows of the block's own weight width; a streamed one bytes of its section.
    """

    resident: bytearray = field(default_factory=bytearray)
    streamed: bytearray = field(default_factory=bytearray)
    #: (matrix, block number) -> address.
    addresses: dict[tuple[str, int], int] = field(default_factory=dict)
    #: Names of streamed matrices.
    names: frozenset[str] = frozenset()


def place(config: ModelConfig, lowered: Lowered, cfg: AcceleratorConfig, streamed="auto") -> Placement:
    """Place every block.

    Parameters
    ----------
    streamed : "auto", "none", "all", or a set of matrix names
        "auto" keeps as many matrices on chip as fit.

    Raises
    ------
    FitError
        When what should be resident does not fit, or a name is unknown.
    """
    names = _choose(config, lowered, cfg, streamed)
    result = Placement(names=frozenset(names))
    for name, blocks in lowered.blocks.items():
        for number, block in enumerate(blocks):
            if name in names:
                # From the start of a page on, no burst is cut short that need not be.
                _pad(result.streamed, SECTION_ALIGN)
                result.addresses[name, number] = len(result.streamed)
                result.streamed += block.data
            else:
                result.addresses[name, number] = len(result.resident) * 8 // (cfg.cols * block.bits)
                result.resident += block.data
                _pad(result.resident, cfg.cols)
    words = len(result.resident) // cfg.cols
    require(words <= cfg.resident_words, f"{config.name}: resident rows take {words} words, machine {cfg.name!r} has "
                                         f"{cfg.resident_words}; stream some matrices (streamed=\"auto\").")
    return result


def _pad(data, unit):
    data += bytes(-len(data) % unit)


def _choose(config, lowered, cfg, streamed):
    if isinstance(streamed, str):
        require(streamed in ("auto", "none", "all"), f"streamed must be auto, none, all or a set of matrices, it is {streamed!r}.")
        if streamed != "auto":
            return set(lowered.blocks) if streamed == "all" else set()
        return _choose_streamed(lowered, cfg)
    unknown = sorted(set(streamed) - set(lowered.blocks))
    require(not unknown, f"{config.name} has no matrix {', '.join(unknown)}; it has: {', '.join(lowered.blocks)}.")
    return set(streamed)


def _choose_streamed(lowered, cfg):
    """Small matrices first: a streamed command costs the memory's latency whatever its size.

    The embedding comes last, of which a token reads a row or two.
    """
    free, names = cfg.resident_words, set()
    for name in sorted(lowered.blocks, key=lambda name: (name == "embed", lowered.matrix_bytes(name))):
        words = sum(ceil_div(len(block.data), cfg.cols) for block in lowered.blocks[name])
        if words <= free:
            free -= words
        else:
            names.add(name)
    return names
