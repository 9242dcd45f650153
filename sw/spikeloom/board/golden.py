"""Golden vectors: small networks, what to ask them, and every value that a device must then make.

They are computed by the integer model in numpy, and kept in one file beside a bitstream; a board replays them.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..arch.commands import TRACED, Opcode
from ..arch.config import TENSORS, AcceleratorConfig, FitError, ModelConfig
from ..arch.layout import TRACE_DTYPE, Image, read_image, write_image
from ..arch.numerics import checksum, noise_table, pick
from ..compiler import compile_model
from ..driver.verify import Machine
from ..model.integer_model import IntegerModel
from ..model.random_model import TINY, random_model
from .dumps import PREFIX, order

GOLDEN_VERSION = 1
_LOGIT_SCALE = 64.0
_PROMPT, _TOKENS = (1, 2, 3), 6
_TEXT = (1, 2, 3, 4, 5)


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
    #: int64 [n, 4]: id, position, logit, best logit of each token to make, or of each that an encoder gives.
    tokens: np.ndarray
    #: TRACE_DTYPE: checksum, command and position, in order of execution.
    records: np.ndarray
    #: int32: all dumps, in order of execution, and which of their words belong to channels of the model (bool).
    words: np.ndarray
    known: np.ndarray

    @property
    def encodes(self) -> bool:
        """The network reads a text as a whole."""
        return bool(self.image.card["model"].get("bidirectional"))

    @property
    def n_made(self) -> int:
        """Tokens that the device makes after the prompt."""
        return 0 if self.encodes else len(self.tokens)


#: Name -> (change of the shape, bits of a weight, streamed, sampling).
_CASES = {
    "winner-take-all, 8-bit weights, resident": ({}, 8, "none", (0.0, 0, 0)),
    "winner-take-all, 4-bit weights, streamed": ({}, 4, "all", (0.8, 4, 7)),
    "winner-take-all, ternary weights, resident": ({}, 2, "none", (1.0, 0, 9)),
    "LIF over two time steps, SSA": ({"neuron": "lif_hard", "steps": 2, "leak": 2, "attention": "ssa"}, 8, "none", (0.0, 0, 0)),
    "ternary LIF, binary embedding": ({"neuron": "t_lif", "embedding": "spikes"}, 8, "all", (0.0, 0, 0)),
    "encoder, SFSA, spikes in the residual": (
        {"neuron": "lif_subtract", "steps": 2, "leak": 3, "attention": "sfsa", "residual": "spike_sum", "spike_shift": 4,
         "bidirectional": True, "head": "final"}, 8, "none", (0.0, 0, 0)),
    "winner-take-all, levels of both signs": ({"signed": TENSORS}, 8, "none", (0.0, 0, 0)),
}
_LEVELS = tuple(f"level_{kind}" for kind in TENSORS)


def shape_of(cfg: AcceleratorConfig, changes: dict, bits: int) -> ModelConfig:
    """The smallest network that a machine runs, with these changes."""
    width = max(TINY.width, cfg.lanes, 2 * cfg.segment)
    spiking = {} if changes.get("neuron", "ni_lif") == "ni_lif" else dict.fromkeys(_LEVELS, 1)
    return replace(TINY, width=width, hidden=max(TINY.hidden, 2 * cfg.lanes), context=min(TINY.context, 16), weight_bits=bits,
                   **(spiking | changes))


def cases(cfg: AcceleratorConfig) -> Iterator[Golden]:
    """The cases of a machine: operators, weight formats, resident and streamed rows, greedy and sampled tokens.

    What does not fit the machine is left out.
    """
    for seed, (name, (changes, bits, streamed, sampling)) in enumerate(_CASES.items()):
        config, tensors = random_model(seed, shape_of(cfg, changes, bits))
        try:
            image = compile_model(config, tensors, cfg, logit_scale=_LOGIT_SCALE, streamed=streamed, trace_dumps=True)
        except FitError:
            continue
        yield make(name, image, IntegerModel(config, tensors), cfg, sampling=sampling)


def make(name: str, image: Image, model: IntegerModel, cfg: AcceleratorConfig, *, prompt: tuple[int, ...] | None = None,
         n_new: int = _TOKENS, sampling: tuple[float, int, int] = (0.0, 0, 0)) -> Golden:
    """What a device must make of a prompt.

    Parameters
    ----------
    image : Image
        Of that model, compiled with dumps.
    model : IntegerModel
        Cleared here.
    prompt : tuple of int, optional
        A few tokens unless told.
    sampling : temperature, top_k, seed
    """
    model.clear()
    if model.config.bidirectional:
        prompt, n_new = prompt or _TEXT, 0
        traces = model.encode(list(prompt))
        tokens = [_token(trace["logits"], position, {}) for position, trace in enumerate(traces) if "logits" in trace]
    else:
        prompt = prompt or _PROMPT
        traces, tokens = _write(image, model, prompt, n_new, sampling)
    machine, program = Machine.of(image, lanes=cfg.lanes, acc_width=cfg.acc_width), image.program
    records, words = [], []
    for index, position in order(image, len(prompt), n_new):
        command, trace = program[index], traces[position]
        if command.opcode in TRACED:
            records.append((checksum(machine.covered(command, trace), cfg.lanes), index, position))
        elif command.opcode == Opcode.DUMP:
            words.append(_padded(trace[command.label.removeprefix(PREFIX)].reshape(-1), command["groups"] * cfg.lanes))
    return Golden(name, image, tuple(prompt), sampling, np.array(tokens, np.int64), np.array(records, TRACE_DTYPE),
                  np.concatenate([values for values, _ in words]), np.concatenate([known for _, known in words]))


def _write(image, model, prompt, n_new, sampling):
    """(traces by position, tokens made) of a decoder."""
    temperature, top_k, seed = sampling
    options = {"noise": noise_table(temperature, image.card["logit_scale"]), "top_k": top_k, "seed": seed} if temperature else {}
    traces = [model.step(token, position, head=False) for position, token in enumerate(prompt[:-1])]
    token, tokens = prompt[-1], []
    for _ in range(n_new):
        traces.append(model.step(token, len(traces)))
        tokens.append(_token(traces[-1]["logits"], len(traces) - 1, options))
        token = tokens[-1][0]
    return traces, tokens


def _token(logits, position, options):
    """(id, position, logit, best logit)."""
    chosen = int(pick(logits, position=position, **options))
    return chosen, position, int(logits[chosen]), int(logits.max())


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
