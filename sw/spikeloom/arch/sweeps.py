"""The order of runs in sweeps: an ENCODE run over all positions of a text, a GENERATE run over blocks of a prompt."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from .commands import Command, Opcode
from .config import require


def sweeps(program: Sequence[Command], entry: int) -> list[tuple[int, int]]:
    """(first command, its SWEEP or the final HALT) of each sweep from `entry` on. Raises FitError where no HALT comes."""
    out, first = [], entry
    for index in range(entry, len(program)):
        if program[index].opcode in (Opcode.SWEEP, Opcode.HALT):
            out.append((first, index))
            first = index + 1
        if program[index].opcode == Opcode.HALT:
            return out
    require(False, f"The program has no HALT from command {entry} on.")


def encode_order(program: Sequence[Command], entry: int, n_tokens: int) -> Iterator[tuple[int, int]]:
    """(index of the command, position) in order of execution; SWEEP and HALT are left out.

    A LOAD runs at position 0 alone, as does what follows the last SWEEP.
    """
    for first, end in sweeps(program, entry):
        for position in range(n_tokens if program[end].opcode == Opcode.SWEEP else 1):
            for index in range(first, end):
                if position == 0 or program[index].opcode != Opcode.LOAD:
                    yield index, position


class Prefill(NamedTuple):
    """Where the sweeps over blocks of a prompt begin in a program, and the most tokens of a block."""

    entry: int
    block: int

    @classmethod
    def of(cls, card: Mapping) -> "Prefill | None":
        """That of the image with this card, if it has any."""
        entry = card["entries"].get("prefill", 0)
        return cls(entry, card["prefill"]["block"]) if entry else None


def prompt_blocks(n_prompt: int, prefill: Prefill | None, room: int) -> list[int]:
    """Tokens of each block that a prompt begins with; those after them, at least one, go one by one.

    Parameters
    ----------
    n_prompt : int
        Tokens of the prompt. The last one is never part of a block; one alone before it makes none.
    prefill : Prefill or None
        None: there are no blocks.
    room : int
        Positions left: a block ends where the context does.
    """
    out, left = [], n_prompt - 1
    while prefill is not None and left >= 2 and room > 0:
        out.append(min(max(1, prefill.block), left, room))
        left, room = left - out[-1], room - out[-1]
    return out


def block_order(program: Sequence[Command], entry: int, n_tokens: int) -> Iterator[tuple[int, int]]:
    """(index of the command, place in the block) in order of execution; SWEEP and HALT, which ends the last sweep, are left out."""
    for first, end in sweeps(program, entry):
        for place in range(n_tokens):
            for index in range(first, end):
                if place == 0 or program[index].opcode != Opcode.LOAD:
                    yield index, place


def token_order(program: Sequence[Command], entry: int, n_prompt: int, n_tokens: int, *, prefill: Prefill | None = None,
                room: int = 1 << 16) -> Iterator[tuple[int, int]]:
    """(index of the command, position) in order of execution of a GENERATE run from position 0; the ends of sections are left out.

    Parameters
    ----------
    program, entry
        Program and its token section.
    n_prompt, n_tokens : int
        Tokens of the prompt, and of the whole run but the last one made; from the prompt's last one on heads run.
    prefill : Prefill, optional
        The prompt is read in blocks.
    room : int
        Positions of the context.
    """
    start = 0
    for size in prompt_blocks(n_prompt, prefill, room):
        for index, place in block_order(program, prefill.entry, size):
            yield index, start + place
        start += size
    (first, end), = sweeps(program, entry)
    for position in range(start, n_tokens):
        for index in range(first, end):
            if position >= n_prompt - 1 or not program[index]["head"]:
                yield index, position
