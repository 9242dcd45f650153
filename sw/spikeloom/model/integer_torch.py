"""The exact integer model over whole sequences in batches, for evaluation.

It follows `spikeloom.arch.numerics` operator by operator; sums are taken in float64, which holds every integer up to
2^53 exactly. One position after another and in numpy the same model is `integer_model`; both must agree in every value.
"""

from pathlib import Path

import numpy as np
import torch

from spikeloom.arch.config import LEAK_OFF, RECENCY_OFF, RESIDUALS, THRESHOLD_FRACTION, ModelConfig
from spikeloom.arch.numerics import RESIDUAL_MAX, RESIDUAL_MIN

from . import store
from .tensors import head_rows, neuron_levels, neuron_lows


def matmul(spikes: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Integer product int64 [..., in] x [in, out], exact while no partial sum exceeds 2^53."""
    return (spikes.double() @ weight.double()).long()


def leaked(value: torch.Tensor, leak: int) -> torch.Tensor:
    """`numerics.leaked`."""
    return value if leak == LEAK_OFF else value - (value >> leak)


def neuron_step(kind: str, acc, membrane, base, step, levels, lows, leak: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """`numerics.neuron_step`, int64 [..., C] throughout; `levels` and `lows` int [C], membrane None: zero (NI-LIF has none)."""
    d = (acc << THRESHOLD_FRACTION) - base + (0 if membrane is None else membrane)
    spikes = lows + torch.stack([(d >= j * step) & (j >= lows) & (j < levels) for j in range(int(lows.min()), int(levels.max()))]).sum(0)
    if kind == "ni_lif":
        return spikes, None
    u = d + (step >> 1 if kind == "i_lif" else step)
    if kind == "t_lif":
        spikes = spikes - (u <= -step).long()
    if kind == "lif_hard":
        return spikes, torch.where(spikes > 0, 0, leaked(u, leak))
    if kind == "lif_subtract":
        return spikes, leaked(u, leak) - spikes * step
    return spikes, leaked(u - spikes * step, leak)


class IntegerSequences:
    """Tokens int64 [B, N] -> integer logits int64 [B, N, V]; with `classes` [B, 1, classes], of position 0.

    `saturations` counts over all calls.
    """

    def __init__(self, arrays: dict[str, np.ndarray], config: ModelConfig):
        self.config = config
        self.parameters = {name: torch.from_numpy(np.asarray(array).astype(np.int64)) for name, array in arrays.items()}
        self.parameters["head.weight"] = torch.from_numpy(head_rows(config, np.asarray(arrays["head.weight"])).astype(np.int64))
        self.levels = {name: torch.from_numpy(levels) for name, levels in neuron_levels(config).items()}
        self.lows = {name: torch.from_numpy(lows) for name, lows in neuron_lows(config).items()}
        self.saturations = 0

    @classmethod
    def load(cls, folder: Path | str) -> "IntegerSequences":
        """Read an exported model."""
        stored = store.load(Path(folder))
        return cls(stored.tensors, stored.config)

    def __call__(self, tokens: torch.Tensor, trace: dict | None = None, only_last: bool = False,
                 lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Logits.

        Parameters
        ----------
        tokens : int64 [B, N]
        trace : dict, optional
            Collects intermediates [B, N, .] under the names of `integer_trace.Trace`, and the winners' positions
            [B, H, N, K].
        only_last : bool
            Logits of the last position alone: [B, 1, V].
        lengths : int64 [B], optional
            Of texts padded to N, for models that look both ways: what follows does not compete. Logits there mean nothing.
        """
        c = self.config
        membranes, finals = {}, []
        for step in range(c.steps):
            x = self._embed(_Moment(c, trace, step, membranes), tokens)           # [B, N, d]
            for layer in range(c.layers):
                x = self._layer(_Moment(c, trace, step, membranes), layer, x, lengths)
            finals.append(self._fire(_Moment(c, trace, step, membranes), "final", x))
        s = torch.cat(finals[-c.head_steps:], -1)                                 # [B, N, head_steps x d]
        if trace is not None:
            trace["final"] = s
        if c.classes or only_last:
            s = s[:, :1] if c.classes else s[:, -1:]
        logits = matmul(s, self.parameters["head.weight"]) + self.parameters["head.bias"]
        if trace is not None:
            trace["logits"] = logits
        return logits

    def _layer(self, now, layer, x, lengths):
        """Stream [B, N, d] -> stream [B, N, d]."""
        at, p = f"layer{layer}.", self.parameters
        replace_in, _, replace_mid, _ = RESIDUALS[self.config.residual]
        s = self._fire(now, at + "in", x)                                         # [B, N, d]
        if replace_in:
            x = self._replace(now, at + "in", s)
        qkv = self._fire(now, at + "qkv", matmul(s, p[at + "qkv.weight"]))        # [B, N, 3d]
        gathered = now.keep(at + "attn.gather", self._attend(now, at + "attn", qkv, lengths))
        x = self._write(now, at + "out", self._fire(now, at + "attn", gathered), x)
        s = self._fire(now, at + "mid", x)
        if replace_mid:
            x = self._replace(now, at + "mid", s)
        h = self._fire(now, at + "up", matmul(s, p[at + "up.weight"]))            # [B, N, f]
        return self._write(now, at + "down", h, x)

    def _embed(self, now, tokens):
        c, p = self.config, self.parameters
        row = p["embed.token"][tokens]                                            # [B, N, d]
        if c.position_table:
            row = row + p["embed.position"][: tokens.shape[1]]
        if c.embedding == "spikes":
            return self._replace(now, "embed", self._fire(now, "embed", row))
        return now.keep("embed", self._saturate(row << c.embed_shift))

    def _fire(self, now, name, acc, spikes_name=None):
        p, c = self.parameters, self.config
        spikes, now.membranes[name] = neuron_step(c.neuron, acc, now.membranes.get(name), p[name + ".base"], p[name + ".step"],
                                                  self.levels[name], self.lows[name], c.leak)
        now.keep(name + ".sum", acc)
        return now.keep(spikes_name or name, spikes)

    def _replace(self, now, name, spikes):
        return now.keep(name + ".residual", spikes << self.config.spike_shift)

    def _write(self, now, name, spikes, x):
        p = self.parameters
        acc = matmul(spikes, p[name + ".weight"])
        if name in self.levels:
            return now.keep(name, self._saturate(x + (self._fire(now, name, acc, name + ".spikes") << self.config.spike_shift)))
        now.keep(name + ".sum", acc)
        shift = p[name + ".shift"]
        half = torch.where(shift > 0, torch.ones_like(shift) << (shift - 1).clamp_min(0), 0)
        return now.keep(name, self._saturate(x + ((acc + p[name + ".bias"] + half) >> shift)))

    def _saturate(self, wide):
        narrow = wide.clamp(RESIDUAL_MIN, RESIDUAL_MAX)
        self.saturations += int((wide != narrow).sum())
        return narrow

    def _attend(self, now, name, qkv, lengths):
        """Spikes [B, N, 3d] -> gathered int64 [B, N, d]."""
        c = self.config
        q, k, v = (part.unflatten(-1, (c.heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))  # [B, H, N, dh]
        position = torch.arange(q.shape[2])
        distance = position[:, None] - position[None, :]                          # [N, N]: of row i to column j
        seen = torch.ones_like(distance, dtype=torch.bool) if c.bidirectional else distance >= 0
        if lengths is not None:
            seen = seen & (position < lengths[:, None])[:, None, None, :]         # [B, 1, N, N]
        # Scores and gathered sums stay below 2^24, which float32 holds.
        raw = (q.float() @ k.float().transpose(-1, -2)).long()                    # [B, H, N, N]
        if c.attention == "sfsa":
            weights = (raw >= self.parameters[name + ".theta"][:, None, None]) & seen
        elif c.attention == "ssa":
            weights = torch.where(seen, raw, 0)
        else:
            return self._compete(now, name, raw, seen, distance.abs(), v)
        return (weights.float() @ v.float()).long().transpose(1, 2).flatten(-2)

    def _compete(self, now, name, raw, seen, distance, v):
        c, length = self.config, raw.shape[-1]
        penalty = torch.stack([distance * 0 if s == RECENCY_OFF else distance >> s for s in c.recency])  # [H, N, N]
        eligible = seen & (raw > 0) if c.overlap else seen.expand_as(raw)
        key = torch.where(eligible, (raw - penalty) * length + torch.arange(length), torch.iinfo(torch.int64).min)
        # Keys of eligible positions differ, so the order of `topk` is determined.
        best, chosen = key.topk(min(c.top_k, length), -1)                         # [B, H, N, K]
        found = best > torch.iinfo(torch.int64).min
        now.keep(name + ".winners", torch.where(found, chosen, -1))
        out = torch.zeros_like(v)                                                 # [B, H, N, dh]
        for rank in range(chosen.shape[-1]):
            index = chosen[..., rank, None].expand_as(v)
            value = v.gather(2, index) << (max(c.rank_shifts) - c.rank_shifts[rank])
            out += torch.where(found[..., rank, None], value, 0)
        return out.transpose(1, 2).flatten(-2)


class _Moment:
    """A time step of a batch: where operators leave what they did, and the membranes that connect the steps."""

    def __init__(self, config, trace, step, membranes):
        self._config, self._trace, self._step, self.membranes = config, trace, step, membranes

    def keep(self, name, value):
        if self._trace is not None:
            self._trace[self._config.label(name, self._step)] = value
        return value
