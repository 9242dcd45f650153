"""Where the output of each operator lies in what the DUMP commands of a run wrote."""

from collections.abc import Iterator

import numpy as np

from ..arch.commands import Command, Opcode

PREFIX = "dump "


def places(program: list[Command], n_prompt: int, n_made: int, lanes: int) -> Iterator[tuple[int, str, int, int]]:
    """(position, operator, first word, end) of each dump, in order of execution.

    Parameters
    ----------
    program : list of Command
        With labels, compiled with dumps.
    n_prompt, n_made : int
        Tokens read and made, from position 0 on.
    lanes : int
        Channels of a group.
    """
    first = next(i for i, command in enumerate(program) if command.opcode == Opcode.EMBED)
    dumping = [command for command in program[first:] if command.opcode == Opcode.DUMP]
    at = 0
    for position in range(n_prompt + n_made - 1):
        for command in dumping:
            if command["head"] and position < n_prompt - 1:
                continue
            end = at + command["groups"] * lanes
            yield position, command.label.removeprefix(PREFIX), at, end
            at = end


def by_operator(words: np.ndarray, program: list[Command], n_prompt: int, n_made: int, lanes: int) -> dict[str, np.ndarray]:
    """Operator -> int32 [positions, channels], channels padded to whole groups; of head operators only where they ran."""
    rows: dict[str, list[np.ndarray]] = {}
    for _, label, start, end in places(program, n_prompt, n_made, lanes):
        if end <= len(words):
            rows.setdefault(label, []).append(words[start:end])
    return {label: np.stack(kept) for label, kept in rows.items()}
