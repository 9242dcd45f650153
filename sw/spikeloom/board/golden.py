"""Golden vectors: small networks, what to ask them, and every value that a device must then make.

They are computed by the integer model in numpy, and kept in one file beside a bitstream; a board replays them.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..arch.commands import TRACED, Opcode
from ..arch.config import AcceleratorConfig
from ..arch.layout import TRACE_DTYPE, Image, read_image, write_image
from ..arch.numerics import checksum, noise_table, pick
from ..compiler import compile_model
from ..driver.verify import covered
from ..model.integer_model import IntegerModel
from ..model.random_model import TINY, random_model
from .dumps import PREFIX

GOLDEN_VERSION = 1
_LOGIT_SCALE = 64.0
_PROMPT = (1, 2, 3)
_TOKENS = 6


class BadGolden(ValueError):
    """A file of golden vectors is damaged, or of another version or machine; the message says which."""


@dataclass(frozen=True)
class Golden:
    """One case."""

    name: str
    #: Compiled with dumps of every intermediate.
    image: Image
    prompt: tuple[int, ...]
    #: temperature, top_k, seed.
    sampling: tuple[float, int, int]
    #: int64 [n, 4]: id, position, logit, best logit of each token to make.
    tokens: np.ndarray
    #: TRACE_DTYPE: checksum, command and position, in order of execution.
    records: np.ndarray
    #: int32: all dumps, in order of execution, and which of their words belong to channels of the model (bool).
    words: np.ndarray
    known: np.ndarray


def cases(cfg: AcceleratorConfig) -> Iterator[Golden]:
    """The cases of a machine: all weight formats, resident and streamed rows, greedy and sampled tokens."""
    width = max(TINY.width, cfg.lanes, 2 * cfg.segment)
    shape = replace(TINY, width=width, hidden=max(TINY.hidden, 2 * cfg.lanes))
    for seed, (bits, streamed, sampling) in enumerate([(8, "none", (0.0, 0, 0)), (4, "all", (0.8, 4, 7)), (2, "none", (1.0, 0, 9))]):
        config, tensors = random_model(seed, replace(shape, weight_bits=bits))
        image = compile_model(config, tensors, cfg, logit_scale=_LOGIT_SCALE, streamed=streamed, trace_dumps=True)
        place = "resident" if streamed == "none" else "streamed"
        yield make(f"{bits}-bit weights, {place}", image, IntegerModel(config, tensors), cfg, sampling=sampling)


def make(name: str, image: Image, model: IntegerModel, cfg: AcceleratorConfig, *, prompt: tuple[int, ...] = _PROMPT,
         n_new: int = _TOKENS, sampling: tuple[float, int, int] = (0.0, 0, 0)) -> Golden:
    """What a device must make of a prompt.

    Parameters
    ----------
    image : Image
        Of that model, compiled with dumps.
    model : IntegerModel
        Cleared here.
    sampling : temperature, top_k, seed
    """
    program = image.program
    first = next(i for i, command in enumerate(program) if command.opcode == Opcode.EMBED)
    temperature, top_k, seed = sampling
    options = {"noise": noise_table(temperature, image.card["logit_scale"]), "top_k": top_k, "seed": seed} if temperature else {}
    model.clear()
    tokens, records, words = [], [], []
    token = prompt[0]
    for position in range(len(prompt) + n_new - 1):
        wanted = position >= len(prompt) - 1
        trace = model.step(token, position, head=wanted)
        for index, command in enumerate(program[first:], first):
            if command["head"] and not wanted:
                continue
            if command.opcode in TRACED:
                values = covered(command, trace[command.label], cfg.lanes, -(1 << (cfg.acc_width - 1)))
                records.append((checksum(values, cfg.lanes), index, position))
            elif command.opcode == Opcode.DUMP:
                words.append(_padded(trace[command.label.removeprefix(PREFIX)], command["groups"] * cfg.lanes))
        if wanted:
            logits = trace["logits"]
            token = int(pick(logits, position=position, **options))
            tokens.append((token, position, int(logits[token]), int(logits.max())))
        else:
            token = prompt[position + 1]
    return Golden(name, image, tuple(prompt), sampling, np.array(tokens, np.int64), np.array(records, TRACE_DTYPE),
                  np.concatenate([values for values, _ in words]), np.concatenate([known for _, known in words]))


def _padded(values, size):
    """(int32 [size], bool [size]): values and zeros, and where the values are."""
    padded, known = np.zeros(size, np.int32), np.arange(size) < len(values)
    padded[:len(values)] = values
    return padded, known


def write(path: Path, golden: list[Golden]) -> None:
    """Keep cases in a file."""
    arrays = {"version": np.array([GOLDEN_VERSION])}
    for number, case in enumerate(golden):
        arrays |= {f"{number}.name": np.array(case.name), f"{number}.image": np.frombuffer(write_image(case.image), np.uint8),
                   f"{number}.prompt": np.array(case.prompt), f"{number}.sampling": np.array(case.sampling),
                   f"{number}.tokens": case.tokens, f"{number}.records": case.records, f"{number}.words": case.words,
                   f"{number}.known": case.known}
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def read(path: Path, cfg: AcceleratorConfig) -> list[Golden]:
    """Cases of a file.

    Raises
    ------
    BadGolden
        When it is damaged, of another version, or of another machine.
    """
    golden = []
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if (version := int(arrays["version"][0])) != GOLDEN_VERSION:
                raise BadGolden(f"{path} has version {version}, this software reads {GOLDEN_VERSION}; make it again.")
            while f"{len(golden)}.name" in arrays:
                golden.append(_read_case(arrays, len(golden)))
    except (OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BadGolden(f"{path} holds no golden vectors ({error}); make them again.") from error
    except BadGolden:
        raise
    except ValueError as error:
        raise BadGolden(f"{path} is damaged: {error}.") from error
    for case in golden:
        if case.image.fingerprint != cfg.fingerprint:
            raise BadGolden(f"{path} is for a machine of fingerprint {case.image.fingerprint:#010x}, this one is {cfg.name!r} "
                            f"({cfg.fingerprint:#010x}).")
    return golden


def _read_case(arrays, number):
    def get(name):
        return arrays[f"{number}.{name}"]

    temperature, top_k, seed = get("sampling")
    return Golden(str(get("name")), read_image(get("image").tobytes()), tuple(map(int, get("prompt"))),
                  (float(temperature), int(top_k), int(seed)), get("tokens"), get("records"), get("words"), get("known"))
