"""The order of an ENCODE run: sweeps of the program over all positions of a text."""

from collections.abc import Iterator, Sequence

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

    What follows the last SWEEP runs at position 0 alone.
    """
    for first, end in sweeps(program, entry):
        for position in range(n_tokens if program[end].opcode == Opcode.SWEEP else 1):
            for index in range(first, end):
                yield index, position
