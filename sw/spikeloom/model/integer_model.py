"""The bit-exact twin of the trained network: what the device must compute, one token at a time, in numpy.

Operators are those of `arch.numerics` (in the fast forms of `kernels`); equations: arXiv 2604.11321 (CWSSA),
arXiv 2604.12365 Eq. 12-13 (NI-LIF).
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from ..arch.config import ModelConfig, require
from ..arch.numerics import pick, residual_add, saturate
from .kernels import WinnerTakeAll, fire, sums, threshold_table


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> (shape, dtype) of every tensor of a model; weights are input-major [n_in, n_out]."""
    d, f, v = config.width, config.hidden, config.vocabulary
    shapes = {"embed.token": ((v, d), "int8")}
    if config.position_table:
        shapes["embed.position"] = ((config.context, d), "int8")

    def neuron(name, n):
        shapes[f"{name}.base"], shapes[f"{name}.step"] = ((n,), "int32"), ((n,), "int32")

    for layer in range(config.layers):
        at = f"layer{layer}"
        for name, n_in, n_out in (("qkv", d, 3 * d), ("out", d, d), ("up", d, f), ("down", f, d)):
            shapes[f"{at}.{name}.weight"] = ((n_in, n_out), "int8")
        for name in ("out", "down"):
            shapes[f"{at}.{name}.bias"], shapes[f"{at}.{name}.shift"] = ((d,), "int32"), ((d,), "uint8")
        for name, n in (("in", d), ("qkv", 3 * d), ("attn", d), ("mid", d), ("up", f)):
            neuron(f"{at}.{name}", n)
    neuron("final", d)
    shapes["head.weight"], shapes["head.bias"] = ((d, v), "int8"), ((v,), "int32")
    return shapes


def check_tensors(config: ModelConfig, tensors: dict[str, np.ndarray]) -> None:
    """Refuse tensors that are missing, of a wrong shape, or not integers.

    Raises
    ------
    ValueError
        Names the tensor.
    """
    for name, (shape, _) in tensor_shapes(config).items():
        require(name in tensors, f"{config.name}: tensor {name} is missing.", ValueError)
        got = tensors[name]
        require(got.shape == shape, f"{config.name}: {name} has shape {got.shape}, it must be {shape}.", ValueError)
        require(np.issubdtype(got.dtype, np.integer), f"{config.name}: {name} holds {got.dtype}, not integers.", ValueError)


@dataclass
class Trace(dict):
    """Every intermediate of one token by name: `embed`, `layer0.in`, `layer0.qkv`, ..., `logits`.

    `<name>.sum` is what a neuron compared or a residual writer shifted; residual writers themselves are named by the
    residual after them. `counters` counts what papers and hardware disagree about most easily.
    """

    token: int = 0
    position: int = 0
    #: events.<linear>, ties, rows_without_winner, rows_short, winners, saturations, spikes, fired, neurons.
    counters: Counter = field(default_factory=Counter)


class IntegerModel:
    """One network with its own KV cache.

    Does not know of tiles, programs or padding: those are the compiler's.

    Parameters
    ----------
    config : ModelConfig
    tensors : dict of str to integer arrays
        As `tensor_shapes` lists them.

    Raises
    ------
    ValueError
        When a tensor is missing or of a wrong shape.
    """

    def __init__(self, config: ModelConfig, tensors: dict[str, np.ndarray]):
        check_tensors(config, tensors)
        self.config, self.tensors = config, tensors
        self._weights = {name.removesuffix(".weight"): value.astype(np.float32)
                         for name, value in tensors.items() if name.endswith(".weight")}
        self._tables = {}
        for name, levels in self._levels().items():
            self._tables[name] = threshold_table(tensors[f"{name}.base"], tensors[f"{name}.step"], levels)
        c = config
        most = max(c.rank_shifts)
        self._attention = WinnerTakeAll(c.top_k, [most - s for s in c.rank_shifts], c.recency, c.overlap, c.context)
        self._keys = np.zeros((c.layers, c.heads, c.context, c.head_width), np.float32)
        self._values = np.zeros((c.layers, c.context, c.heads, c.head_width), np.float32)

    def _levels(self):
        c = self.config
        qkv = np.repeat([1, 1, c.level_v], c.width)
        kinds = {"in": c.level_in, "qkv": qkv, "attn": c.level_attn, "mid": c.level_mid, "up": c.level_hidden}
        table = {f"layer{i}.{kind}": levels for i in range(c.layers) for kind, levels in kinds.items()}
        return {**table, "final": c.level_final}

    def clear(self) -> None:
        """Forget all positions."""
        self._keys[:] = 0
        self._values[:] = 0

    def step(self, token: int, position: int, *, head: bool = True) -> Trace:
        """Process one token; positions up to `position` must have been processed before.

        Parameters
        ----------
        token, position : int
        head : bool
            Also compute `final` and `logits`.

        Returns
        -------
        Trace
            Integer arrays by name.

        Raises
        ------
        ValueError
            When the token or the position lies outside the model.
        """
        c = self.config
        require(0 <= token < c.vocabulary, f"Token {token} lies outside the vocabulary of {c.vocabulary}.", ValueError)
        require(0 <= position < c.context, f"Position {position} lies outside the context of {c.context}.", ValueError)
        trace = Trace(token=token, position=position)
        residual = self._embed(trace, token, position)
        for layer in range(c.layers):
            at = f"layer{layer}"
            levels = self._fire(trace, f"{at}.in", residual)
            qkv = self._fire(trace, f"{at}.qkv", self._linear(trace, f"{at}.qkv", levels))
            levels = self._attend(trace, layer, qkv, position)
            residual = self._write(trace, f"{at}.out", levels, residual)
            levels = self._fire(trace, f"{at}.mid", residual)
            levels = self._fire(trace, f"{at}.up", self._linear(trace, f"{at}.up", levels))
            residual = self._write(trace, f"{at}.down", levels, residual)
        if head:
            levels = self._fire(trace, "final", residual)
            trace["logits"] = self._linear(trace, "head", levels).astype(np.int64) + self.tensors["head.bias"]
        return trace

    def _embed(self, trace, token, position):
        value = self.tensors["embed.token"][token].astype(np.int64)
        if self.config.position_table:
            value = value + self.tensors["embed.position"][position]
        trace["embed"], clipped = saturate(value << self.config.embed_shift)
        trace.counters["saturations"] += clipped
        return trace["embed"]

    def _linear(self, trace, name, levels):
        trace.counters[f"events.{name}"] += int(np.count_nonzero(levels))
        return sums(levels, self._weights[name])

    def _fire(self, trace, name, acc):
        levels = fire(acc, self._tables[name])
        trace[f"{name}.sum"], trace[name] = acc, levels.astype(np.int64)
        trace.counters["spikes"] += int(levels.sum())
        trace.counters["fired"] += int(np.count_nonzero(levels))
        trace.counters["neurons"] += levels.size
        return levels

    def _write(self, trace, name, levels, residual):
        acc = self._linear(trace, name, levels).astype(np.int64)
        residual, clipped = residual_add(residual, acc, self.tensors[f"{name}.bias"], self.tensors[f"{name}.shift"])
        trace[f"{name}.sum"], trace[name] = acc, residual
        trace.counters["saturations"] += clipped
        return residual

    def _attend(self, trace, layer, qkv, position):
        c, at = self.config, f"layer{layer}.attn"
        q, k, v = qkv.reshape(3, c.heads, c.head_width)
        self._keys[layer, :, position], self._values[layer, position] = k, v
        raw = np.matmul(self._keys[layer, :, :position + 1], q[:, :, None])[:, :, 0]  # [H, n]
        positions, valid, ties, biased = self._attention.choose(raw)
        gathered = self._attention.gather(self._values[layer], positions, valid).reshape(-1)
        found = valid.sum(axis=1)
        trace[f"{at}.raw"], trace[f"{at}.biased"] = raw.astype(np.int64), biased
        trace[f"{at}.winners"] = np.where(valid, positions, -1)
        trace[f"{at}.gather"] = gathered.astype(np.int64)
        trace.counters["ties"] += ties
        trace.counters["winners"] += int(found.sum())
        trace.counters["rows_without_winner"] += int(np.count_nonzero(found == 0))
        trace.counters["rows_short"] += int(np.count_nonzero(found < c.top_k))
        return self._fire(trace, at, gathered)

    def generate(self, prompt: list[int], n_new: int, *, start: int = 0, ignore_end: bool = True, **sampling) -> list[int]:
        """Tokens after a prompt, as the device makes them; `sampling` goes to `numerics.pick`.

        Parameters
        ----------
        prompt : list of int
            At least one token; occupies positions start, start + 1, ...
        n_new : int
            Tokens to make; fewer when the context is full or the end token is picked.
        """
        made, position = [], start
        for token in prompt[:-1]:
            self.step(token, position, head=False)
            position += 1
        token = prompt[-1]
        while len(made) < n_new and position < self.config.context:
            token = pick(self.step(token, position)["logits"], position=position, **sampling)
            made.append(token)
            position += 1
            if token == self.config.end_token and not ignore_end:
                break
        return made
