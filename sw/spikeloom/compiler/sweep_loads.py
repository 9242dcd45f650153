"""Where the rows lie that the sweeps over a block of prompt tokens share, and the LOADs that bring them there."""

from dataclasses import dataclass, field

from ..arch.commands import Command, Memory, Opcode
from ..arch.config import AcceleratorConfig, ceil_div, require
from .lower import Lowered
from .placement import Placement


@dataclass
class SweepLoads:
    """LOADs of each sweep, and the tile row (counted in the block's own weight width) that each block of a matrix begins at."""

    commands: list[list[Command]] = field(default_factory=list)
    addresses: dict[tuple[str, int], int] = field(default_factory=dict)


def plan_loads(lowered: Lowered, placement: Placement, cfg: AcceleratorConfig, parts: list[tuple[str, ...]], section: int, *,
               ahead: bool) -> SweepLoads:
    """Lay the streamed matrices of each sweep behind the resident rows; blocks that follow one another in the image share a LOAD.

    Parameters
    ----------
    parts : list of tuples of str
        Matrices of each sweep.
    section : int
        Byte offset of the streamed section in the image.
    ahead : bool
        A sweep's rows are loaded while the one before it runs: two regions take turns.

    Raises
    ------
    FitError
        When the resident rows leave too few words.
    """
    first, out = len(placement.resident) // cfg.cols, SweepLoads()
    runs = [_runs(lowered, placement, cfg, matrices) for matrices in parts]
    sizes = [sum(words for _, words, _ in found) for found in runs]
    regions = [first, first + max(sizes[0::2], default=0)] if ahead else [first, first]
    for number, found in enumerate(runs):
        word = regions[number % 2]
        require(word + sizes[number] <= cfg.resident_words,
                f"{' and '.join(parts[number])} would take {word + sizes[number]} words with the resident rows"
                f"{' and the rows of the sweep before' if ahead else ''}, machine {cfg.name!r} has {cfg.resident_words}.")
        out.commands.append([])
        for offset, words, blocks in found:
            out.commands[-1].append(Command(Opcode.LOAD, {
                "l_memory": Memory.RESIDENT, "l_address": word, "l_words": words, "l_offset": section + offset,
                "l_ahead": int(ahead and number > 0)}, f"load {' and '.join(dict.fromkeys(name for name, _, _ in blocks))}"))
            for name, index, within in blocks:
                out.addresses[name, index] = (word + within) * 8 // lowered.blocks[name][index].bits
            word += words
    return out


def _runs(lowered, placement, cfg, matrices):
    """(offset, words, [(matrix, block, word within the run)]) of blocks that follow one another, small gaps between them included."""
    runs = []
    for name in matrices:
        for index, block in enumerate(lowered.blocks[name] if name in placement.names else ()):
            at, words = placement.addresses[name, index], ceil_div(len(block.data), cfg.cols)
            if runs:
                offset, size, blocks = runs[-1]
                gap = at - offset - size * cfg.cols
                if 0 <= gap <= size * cfg.cols // 4 and gap % cfg.cols == 0:  # large blocks, which end short of a page
                    within = size + gap // cfg.cols
                    runs[-1] = offset, within + words, [*blocks, (name, index, within)]
                    continue
            runs.append((at, words, [(name, index, 0)]))
    return runs
