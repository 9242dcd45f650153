"""The bit-exact twin of the trained network: what the device must compute, token by token or text by text, in numpy.

    x = embed(token)                                                             [d]
    per layer: q, k, v = SN_qkv(SN_in(x) W_qkv)                                  [3d]
               x += SN_attn(ATT(q, k, v)) W_out + b,  or  += SN_out(...)         [d]
               x += SN_up(SN_mid(x) W_up) W_down + b, or  += SN_down(...)        [d]
    logits = SN_final(x) W_head + b                                              [V]

All of it at each of T time steps; membranes connect the steps. Operators are those of `arch.numerics` (in the fast forms
of `kernels`); equations: arXiv 2604.11321 (WSSA, CWSSA), arXiv 2604.12365 Eq. 1-13 (neurons), arXiv 2605.13859 (SFSA,
SFFN, spike sums), arXiv 2606.12287 (SMHA, residual forms, heads).
"""

import numpy as np

from ..arch.config import RESIDUALS, ModelConfig, require
from ..arch.numerics import add_spikes, pick, residual_add, saturate
from .integer_attention import IntegerAttention
from .integer_neurons import IntegerNeurons
from .integer_trace import Moment, Trace
from .kernels import sums
from .tensors import check_tensors, head_rows, neuron_levels, tensor_shapes

__all__ = ["IntegerModel", "Trace", "check_tensors", "tensor_shapes"]


class IntegerModel:
    """One network with its own keys and values.

    Does not know of tiles, programs or padding: those are the compiler's.

    Parameters
    ----------
    config : ModelConfig
    tensors : dict of str to integer arrays
        As `tensors.tensor_shapes` lists them.

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
        self._weights["head"] = head_rows(config, self._weights["head"])
        self._neurons = IntegerNeurons(config, tensors)
        self._attention = IntegerAttention(config, tensors)
        self._spiking, self._signed = frozenset(neuron_levels(config)), config.neuron == "t_lif" or bool(config.signed)

    def clear(self) -> None:
        """Forget all positions."""
        self._attention.clear()

    # -- runs -------------------------------------------------------------------------------------------------

    def step(self, token: int, position: int, *, head: bool = True) -> Trace:
        """Process one token of a decoder; positions up to `position` must have been processed before.

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
            When the token or the position lies outside the model, or the model looks both ways.
        """
        c = self.config
        require(not c.bidirectional, f"{c.name} looks both ways: give `encode` the whole text.", ValueError)
        moments, finals = self._moments(token, position), []
        for now in moments:
            x = self._embed(now)
            for layer in range(c.layers):
                x, query = self._project(now, layer, x)
                x = self._mix(now, layer, x, query, last=position)
            if head:
                finals.append(self._fire(now, "final", x))
        if head:
            self._read(moments[0].trace, finals)
        return moments[0].trace

    def encode(self, tokens: list[int]) -> list[Trace]:
        """Process a whole text with a model that looks both ways, layer by layer.

        Parameters
        ----------
        tokens : list of int
            Positions 0, 1, ...

        Returns
        -------
        list of Trace
            One per position; with `classes` only the first has `logits`.

        Raises
        ------
        ValueError
            When a token or the text lies outside the model, or the model is causal.
        """
        c, last = self.config, len(tokens) - 1
        require(c.bidirectional, f"{c.name} is causal: run it token by token with `step`.", ValueError)
        self.clear()
        moments = [self._moments(token, position) for position, token in enumerate(tokens)]          # [N][T]
        stream = [[self._embed(now) for now in row] for row in moments]                               # [N][T] of [d]
        for layer in range(c.layers):
            queries = [[self._project(now, layer, x)[1] for now, x in zip(*both)] for both in zip(moments, stream)]
            stream = [[self._mix(now, layer, x, q, last) for now, x, q in zip(*all_three)]
                      for all_three in zip(moments, stream, queries)]
        for row, xs in list(zip(moments, stream))[:1 if c.classes else None]:
            self._read(row[0].trace, [self._fire(now, "final", x) for now, x in zip(row, xs)])
        return [row[0].trace for row in moments]

    def fill(self, tokens: list[int], positions: list[int]) -> list[int]:
        """The text with the best token of the model at each of some positions (masked language modelling)."""
        traces = self.encode(tokens)
        return [pick(traces[i]["logits"]) if i in set(positions) else token for i, token in enumerate(tokens)]

    def classify(self, tokens: list[int]) -> int:
        """The best class of a text."""
        require(self.config.classes > 0, f"{self.config.name} has no classification head.", ValueError)
        require(len(tokens) > 0, "There is nothing to classify: give at least one token.", ValueError)
        return pick(self.encode(tokens)[0]["logits"])

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

    # -- operators --------------------------------------------------------------------------------------------

    def _moments(self, token, position):
        c = self.config
        require(0 <= token < c.vocabulary, f"Token {token} lies outside the vocabulary of {c.vocabulary}.", ValueError)
        require(0 <= position < c.context, f"Position {position} lies outside the context of {c.context}.", ValueError)
        trace, membranes = Trace(token=token, position=position), {}
        return [Moment(c, trace, t, membranes) for t in range(c.steps)]

    def _embed(self, now):
        """Table rows -> stream [d]."""
        c, trace = self.config, now.trace
        row = self.tensors["embed.token"][trace.token].astype(np.int64)           # [d]
        if c.position_table:
            row = row + self.tensors["embed.position"][trace.position]
        if c.embedding == "spikes":
            return self._replace(now, "embed", self._fire(now, "embed", row))
        x, clipped = saturate(row << c.embed_shift)
        trace.counters["saturations"] += clipped
        now.keep("embed", x)
        return x

    def _project(self, now, layer, x):
        """Stream [d] -> (stream [d], query [d]); keys and values are kept."""
        at = f"layer{layer}"
        s = self._fire(now, f"{at}.in", x)                                        # [d]
        if RESIDUALS[self.config.residual][0]:
            x = self._replace(now, f"{at}.in", s)
        q, k, v = self._fire(now, f"{at}.qkv", self._linear(now, f"{at}.qkv", s)).reshape(3, -1)
        self._attention.store(layer, now.step, now.trace.position, k, v)
        return x, q

    def _mix(self, now, layer, x, query, last):
        """The rest of a layer: stream [d], query [d] -> stream [d]."""
        at, trace = f"layer{layer}", now.trace
        gathered, found, counters = self._attention.gather(layer, now.step, query, trace.position, last)
        for name, value in found.items():
            now.keep(f"{at}.attn.{name}", value)
        now.keep(f"{at}.attn.gather", gathered.astype(np.int64))                  # [d]
        for name, count in counters.items():
            trace.counters[name] += count
        x = self._write(now, f"{at}.out", self._fire(now, f"{at}.attn", gathered), x)
        s = self._fire(now, f"{at}.mid", x)                                       # [d]
        if RESIDUALS[self.config.residual][2]:
            x = self._replace(now, f"{at}.mid", s)
        h = self._fire(now, f"{at}.up", self._linear(now, f"{at}.up", s))         # [f]
        return self._write(now, f"{at}.down", h, x)

    def _read(self, trace, finals):
        """Final spikes, T of [d] -> logits [V]."""
        trace["final"] = np.concatenate(finals[-self.config.head_steps:]).astype(np.int64)
        levels = trace["final"].astype(np.float32)                                # [head_steps x d]
        self._count_events(trace, "head", np.count_nonzero(levels), int(np.abs(levels).sum()))
        trace["logits"] = sums(levels, self._weights["head"]).astype(np.int64) + self.tensors["head.bias"]

    def _linear(self, now, name, levels):
        """Spikes [n_in] -> sums float32 [n_out]."""
        self._count_events(now.trace, name, now.events, now.levels)
        if self.config.steps > 1:
            now.trace.counters[f"events.{self.config.label(name, now.step)}"] = now.events
        return sums(levels, self._weights[name])

    def _fire(self, now, name, acc, spikes_name=None):
        """Sums or stream [C] -> spikes float32 [C]."""
        spikes = self._neurons(name, acc, now.membranes)
        now.keep(f"{name}.sum", acc)
        now.keep(spikes_name or name, spikes.astype(np.int64))
        counters = now.trace.counters
        now.events, now.levels = np.count_nonzero(spikes), int((np.abs(spikes) if self._signed else spikes).sum())
        counters["spikes"] += now.levels
        counters["fired"] += now.events
        counters["neurons"] += spikes.size
        return spikes

    def _replace(self, now, name, spikes):
        """The stream becomes the spikes [d]."""
        x = spikes.astype(np.int64) << self.config.spike_shift
        now.keep(f"{name}.residual", x)
        return x

    def _write(self, now, name, levels, x):
        """Spikes [n_in], stream [d] -> stream [d]."""
        acc = self._linear(now, name, levels).astype(np.int64)
        if name in self._spiking:
            x, clipped = add_spikes(x, self._fire(now, name, acc, f"{name}.spikes").astype(np.int64), self.config.spike_shift)
        else:
            x, clipped = residual_add(x, acc, self.tensors[f"{name}.bias"], self.tensors[f"{name}.shift"])
            now.keep(f"{name}.sum", acc)
        now.keep(name, x)
        now.trace.counters["saturations"] += clipped
        return x

    def _count_events(self, trace, name, events, levels):
        outputs = self._weights[name].shape[1]
        trace.counters[f"events.{name}"] += events
        trace.counters["sops.linear"] += events * outputs
        trace.counters["sops.levels"] += levels * outputs
