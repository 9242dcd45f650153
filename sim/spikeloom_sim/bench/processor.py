"""The same integer model as a plain C loop with row skip (`decode.c`): on one core, on all cores, and scaled to a board's processor.

Method. The loop is compiled with the vectors that NEON has too (128 bits) and timed in processor seconds, so that other work on
the machine does not count; on all cores each core decodes a sequence of its own. The board's processor is that figure times the
ratio of the two processors' CoreMark per core: `[model]`, nothing was run on a board. A processor whose CoreMark is not known
measures nothing.
"""

import ctypes
import math
import os
import platform
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikeloom.arch.config import RECENCY_OFF, ModelConfig, require
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.kernels import threshold_table
from spikeloom.model.tensors import neuron_levels, neuron_lows

SOURCE = Path(__file__).with_name("decode.c")
#: 128-bit vectors and a population count, as NEON has them.
FLAGS = ("-std=c11", "-O3", *(("-march=x86-64-v2",) if platform.machine() == "x86_64" else ()), "-shared", "-fPIC")
#: CoreMark per second and core of processors that have measured, by vendor, family and model: github.com/eembc/coremark at
#: d5fad6bd, gcc 12.2 -O3 -DUSE_CLOCK=1 (processor time).
COREMARKS = {
    ("AuthenticAMD", 25, 17): 33_540,
    ("AuthenticAMD", 25, 1): 25_075,
}
#: Says the CoreMark of any other.
VARIABLE = "SPIKELOOM_COREMARK"


class UnknownProcessor(ValueError):
    """The CoreMark of the processor that measures is not known; the message says how to give it."""


@dataclass(frozen=True)
class Here:
    """The processor that measures."""

    name: str
    coremark: float

    @classmethod
    def find(cls, cpuinfo: Path = Path("/proc/cpuinfo")) -> "Here":
        """This computer's: from `$SPIKELOOM_COREMARK`, or from the table.

        Raises
        ------
        UnknownProcessor
        """
        text = cpuinfo.read_text() if cpuinfo.exists() else ""
        told = dict(re.findall(r"^(vendor_id|cpu family|model)\s*:\s*(\S+)", text.partition("\n\n")[0], re.MULTILINE))
        name = f"{told['vendor_id']}, family {told['cpu family']}, model {told['model']}" if len(told) == 3 else platform.processor()
        known = COREMARKS.get((told["vendor_id"], int(told["cpu family"]), int(told["model"]))) if len(told) == 3 else None
        given = os.environ.get(VARIABLE)
        if not (given or known):
            raise UnknownProcessor(
                f"The CoreMark of this processor ({name or 'unknown'}) is not known, so nothing can be scaled to a board. Measure one "
                f"core (github.com/eembc/coremark, gcc -O3 -DUSE_CLOCK=1) and give its iterations per second as {VARIABLE}.")
        try:
            score = float(given or known)
        except ValueError:
            score = 0.0
        if not 0 < score < math.inf:
            raise UnknownProcessor(f"{VARIABLE} is {given!r}; it should be the CoreMark iterations per second of one core.")
        return cls(name or "given", score)


@dataclass(frozen=True)
class Processor:
    """A board's processor: clock, cores, and a published CoreMark per megahertz and core."""

    name: str
    clock_mhz: float
    cores: int
    coremark_per_mhz: float
    source: str

    def slower(self, here: Here) -> float:
        """How many times as long a core takes as one of the processor that measures."""
        return here.coremark / (self.clock_mhz * self.coremark_per_mhz)


_TABLE = "github.com/fm4dd/sbc-benchmarks, cm-benchmark.md"
PROCESSORS = (
    Processor("Cortex-A9 of a PYNQ-Z2", 650, 2, 3.57, f"{_TABLE}: Cortex-A9 of a Cyclone V SoC, 6596 at 925 MHz on two cores"),
    Processor("Cortex-A53 of a KV260", 1333, 4, 2.96, f"{_TABLE}: Cortex-A53 of a Raspberry Pi 3, 7108 at 1200 MHz, taken as two cores; "
                                                      "another A53 in that table has 2.29"),
)


class _Matrix(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("weight", "bias", "shift")]


class _Neurons(ctypes.Structure):
    _fields_ = [("levels", ctypes.c_int32), ("threshold", ctypes.c_void_p), ("low", ctypes.c_void_p)]


class _Layer(ctypes.Structure):
    _fields_ = [*((name, _Neurons) for name in ("in", "qkv", "attn", "mid", "up")),
                *((name, _Matrix) for name in ("projection", "out", "first", "second"))]


class _Model(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_int32) for name in ("vocabulary", "context", "width", "layers", "heads", "hidden", "top_k",
                                                      "embed_shift", "overlap")),
                ("gather_shift", ctypes.c_int32 * 8), ("recency", ctypes.c_void_p), ("embedding", ctypes.c_void_p),
                ("position", ctypes.c_void_p), ("layer", ctypes.POINTER(_Layer)), ("final", _Neurons), ("head", _Matrix)]


class PlainLoop:
    """A decoder in C.

    Parameters
    ----------
    config, tensors
        NI-LIF neurons, one time step, winner-take-all attention, membrane residual.
    flags : sequence of str
        Of the C compiler ($CC, or cc).

    Raises
    ------
    ValueError
        When the model is of another kind.
    """

    def __init__(self, config: ModelConfig, tensors: dict[str, np.ndarray], flags=FLAGS):
        c = self.config = config
        require((c.neuron, c.steps, c.attention, c.residual, c.embedding, c.bidirectional)
                == ("ni_lif", 1, "wta", "membrane", "current", False),
                f"{c.name}: the plain C loop runs WD-Spikingformer decoders alone.", ValueError)
        self._library, self._kept = _library(flags), []
        layers = (_Layer * c.layers)()
        for number, layer in enumerate(layers):
            at = f"layer{number}"
            for name in ("in", "qkv", "attn", "mid", "up"):
                setattr(layer, name, self._neurons(tensors, f"{at}.{name}"))
            for name, matrix in (("projection", "qkv"), ("out", "out"), ("first", "up"), ("second", "down")):
                setattr(layer, name, self._matrix(tensors, f"{at}.{matrix}"))
        most = max(c.rank_shifts)
        shifts = [most - shift for shift in c.rank_shifts]
        recency = np.array([31 if shift == RECENCY_OFF else shift for shift in c.recency], np.int32)
        self._model = _Model(c.vocabulary, c.context, c.width, c.layers, c.heads, c.hidden, c.top_k, c.embed_shift, c.overlap,
                             (ctypes.c_int32 * 8)(*shifts), self._keep(recency), self._keep(tensors["embed.token"], np.int8),
                             self._keep(tensors["embed.position"], np.int8) if c.position_table else None, layers,
                             self._neurons(tensors, "final"), self._matrix(tensors, "head"))

    def _keep(self, array, kind=None):
        array = np.ascontiguousarray(array, kind)
        self._kept.append(array)
        return array.ctypes.data

    def _matrix(self, tensors, name):
        parts = (("weight", np.int8), ("bias", np.int32), ("shift", np.uint8))
        return _Matrix(*(self._keep(tensors[f"{name}.{part}"], kind) if f"{name}.{part}" in tensors else None for part, kind in parts))

    def _neurons(self, tensors, name):
        levels, lows = neuron_levels(self.config)[name], neuron_lows(self.config)[name]
        table = threshold_table(tensors[f"{name}.base"], tensors[f"{name}.step"], levels, lows).astype(np.float64)
        table = np.where(np.isinf(table), 2.0**31 - 1, table).clip(-2**31, 2**31 - 1)
        return _Neurons(len(table), self._keep(table, np.int32), self._keep(lows, np.int8))

    def decode(self, tokens, *, logits: bool = False) -> tuple[float, np.ndarray | None]:
        """Processor seconds for these tokens at positions 0, 1, ...; and their logits int32 [n, vocabulary], where wanted."""
        ids = np.ascontiguousarray(tokens, np.int32)
        require(0 < len(ids) <= self.config.context, f"{len(ids)} tokens do not fit the context.", ValueError)
        out = np.empty((len(ids), self.config.vocabulary), np.int32) if logits else None
        seconds = self._library.decode(ctypes.byref(self._model), ids.ctypes.data, len(ids), out.ctypes.data if logits else None)
        if seconds < 0:
            raise MemoryError("The plain C loop got no memory.")
        return seconds, out


def _library(flags):
    """The compiled loop."""
    with tempfile.TemporaryDirectory(prefix="spikeloom-decode-") as folder:
        path = Path(folder) / "decode.so"
        subprocess.run([os.environ.get("CC", "cc"), *flags, str(SOURCE), "-o", str(path)], check=True)
        library = ctypes.CDLL(str(path))
    library.decode.restype = ctypes.c_double
    library.decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    return library


def differences(loop: PlainLoop, model: IntegerModel, tokens: list[int]) -> tuple[int, int]:
    """(logits compared, logits that differ) between the loop and the integer model."""
    _, got = loop.decode(tokens, logits=True)
    model.clear()
    expected = np.stack([model.step(token, position)["logits"] for position, token in enumerate(tokens)])
    return expected.size, int((expected != got).sum())


def tokens_per_second(loop: PlainLoop, tokens: list[int], cores: int, *, seconds: float = 2.0) -> float:
    """Tokens per processor second, each core decoding these tokens again and again; the sum over the cores."""
    once = max(1e-6, loop.decode(tokens)[0])
    repeats = max(1, round(seconds / once))

    def work(_):
        return sum(loop.decode(tokens)[0] for _ in range(repeats))

    with ThreadPoolExecutor(cores) as pool:
        return sum(repeats * len(tokens) / spent for spent in pool.map(work, range(cores)))


def baseline(loop: PlainLoop, tokens: list[int], *, seconds: float = 2.0, here: Here | None = None) -> dict:
    """Tokens per second here and, scaled, on the boards.

    Raises
    ------
    UnknownProcessor
    """
    here = here or Here.find()
    cores = os.cpu_count() or 1
    one = tokens_per_second(loop, tokens, 1, seconds=seconds)
    every = tokens_per_second(loop, tokens, cores, seconds=seconds) if cores > 1 else one
    boards = {p.name: {"one_core": round(one / p.slower(here), 1), "all_cores": round(every / cores * p.cores / p.slower(here), 1),
                       "clock_mhz": p.clock_mhz, "cores": p.cores, "slower_per_core": round(p.slower(here), 2), "coremark": p.source}
              for p in PROCESSORS}
    return {"x86": here.name, "x86_coremark": here.coremark, "x86_one_core": round(one, 1), "x86_all_cores": round(every, 1),
            "x86_cores": cores, "boards": boards}
