"""In what order a run executes its commands, and where the output of each lies in what its DUMP commands wrote."""

from collections.abc import Iterator

import numpy as np

from ..arch.commands import Opcode
from ..arch.layout import Image
from ..arch.sweeps import Prefill, encode_order, token_order

PREFIX = "dump "


def order(image: Image, n_prompt: int, n_made: int) -> Iterator[tuple[int, int]]:
    """(index of the command, position) of a run from position 0, in order of execution; ends of sections are left out.

    Parameters
    ----------
    image : Image
    n_prompt, n_made : int
        Tokens read, and tokens made (0 for an encoder, which reads the whole text).
    """
    program, entry = image.program, image.card["entries"]["token"]
    if image.card["model"].get("bidirectional"):
        yield from encode_order(program, entry, n_prompt)
    else:
        yield from token_order(program, entry, n_prompt, n_prompt + n_made - 1, prefill=Prefill.of(image.card),
                               room=image.card["model"]["context"])


def places(image: Image, n_prompt: int, n_made: int, lanes: int) -> Iterator[tuple[int, str, int, int]]:
    """(position, operator, first word, end) of each dump of a run, in order of execution.

    Parameters
    ----------
    image : Image
        Compiled with dumps.
    n_prompt, n_made : int
        As for `order`.
    lanes : int
        Channels of a group.
    """
    program, at = image.program, 0
    for index, position in order(image, n_prompt, n_made):
        command = program[index]
        if command.opcode == Opcode.DUMP:
            end = at + command["groups"] * lanes
            yield position, command.label.removeprefix(PREFIX), at, end
            at = end


def by_operator(words: np.ndarray, image: Image, n_prompt: int, n_made: int, lanes: int) -> dict[str, np.ndarray]:
    """Operator -> int32 [positions, channels], channels padded to whole groups; of head operators only where they ran."""
    rows: dict[str, list[np.ndarray]] = {}
    for _, label, start, end in places(image, n_prompt, n_made, lanes):
        if end <= len(words):
            rows.setdefault(label, []).append(words[start:end])
    return {label: np.stack(kept) for label, kept in rows.items()}
