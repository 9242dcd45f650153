"""The exact integer model over whole sequences in batches, for evaluation.

It follows `spikeloom.arch.numerics` operator by operator; sums are taken in float64, which holds every integer up to
2^53 exactly. Token by token and in numpy the same model is `integer_model`; both must agree in every value.
"""

from pathlib import Path

import numpy as np
import torch

from spikeloom.arch.config import RECENCY_OFF, THRESHOLD_FRACTION, ModelConfig
from spikeloom.arch.numerics import RESIDUAL_MAX, RESIDUAL_MIN

from . import store


def matmul(spikes: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Integer product int64 [..., in] x [in, out], exact while no partial sum exceeds 2^53."""
    return (spikes.double() @ weight.double()).long()


def ni_lif(acc: torch.Tensor, base: torch.Tensor, step: torch.Tensor, levels) -> torch.Tensor:
    """Levels int64 [..., C]: thresholds passed, `levels` an int or an int tensor [C]."""
    scaled = acc << THRESHOLD_FRACTION
    levels = torch.as_tensor(levels)
    fired = [(scaled >= base + d * step) & (d < levels) for d in range(int(levels.max()))]
    return torch.stack(fired).sum(0)


class IntegerSequences:
    """Tokens int64 [B, T] -> integer logits int64 [B, T, V]. `saturations` counts over all calls."""

    def __init__(self, arrays: dict[str, np.ndarray], config: ModelConfig):
        self.config = config
        self.parameters = {name: torch.from_numpy(np.asarray(array).astype(np.int64)) for name, array in arrays.items()}
        self.saturations = 0
        c = config
        self.qkv_levels = torch.tensor([1] * 2 * c.width + [c.level_v] * c.width)

    @classmethod
    def load(cls, folder: Path | str) -> "IntegerSequences":
        """Read an exported model."""
        stored = store.load(Path(folder))
        return cls(stored.tensors, stored.config)

    def _fire(self, acc: torch.Tensor, name: str, levels) -> torch.Tensor:
        return ni_lif(acc, self.parameters[name + ".base"], self.parameters[name + ".step"], levels)

    def _write(self, x: torch.Tensor, spikes: torch.Tensor, name: str) -> torch.Tensor:
        acc = matmul(spikes, self.parameters[name + ".weight"]) + self.parameters[name + ".bias"]
        shift = self.parameters[name + ".shift"]
        half = torch.where(shift > 0, torch.ones_like(shift) << (shift - 1).clamp_min(0), 0)
        wide = x + ((acc + half) >> shift)
        narrow = wide.clamp(RESIDUAL_MIN, RESIDUAL_MAX)
        self.saturations += int((wide != narrow).sum())
        return narrow

    def _attend(self, spikes: torch.Tensor, winners: list | None) -> torch.Tensor:
        """Spikes [B, T, 3d] -> gathered int64 [B, T, d]."""
        c = self.config
        q, k, v = (part.unflatten(-1, (c.heads, -1)).transpose(1, 2) for part in spikes.chunk(3, -1))  # [B, H, T, w]
        length = q.shape[2]
        position = torch.arange(length)
        distance = position[:, None] - position[None, :]  # [T, T]
        raw = (q.float() @ k.float().transpose(-1, -2)).long()  # [B, H, T, T]
        penalty = torch.stack([distance * 0 if s == RECENCY_OFF else distance >> s for s in c.recency])
        eligible = (distance >= 0) & ((raw > 0) if c.overlap else torch.ones_like(raw, dtype=torch.bool))
        key = torch.where(eligible, (raw - penalty) * length + position, torch.iinfo(torch.int64).min)
        # Keys of eligible positions differ, so the order of `topk` is determined.
        best, chosen = key.topk(min(c.top_k, length), -1)  # [B, H, T, K]
        found = best > torch.iinfo(torch.int64).min
        if winners is not None:
            winners.append(torch.where(found, chosen, -1))
        out = torch.zeros_like(q)
        for rank in range(chosen.shape[-1]):
            index = chosen[..., rank, None].expand_as(q)
            value = v.gather(2, index) << (max(c.rank_shifts) - c.rank_shifts[rank])
            out += torch.where(found[..., rank, None], value, 0)
        return out.transpose(1, 2).flatten(-2)

    def __call__(self, tokens: torch.Tensor, trace: dict | None = None, only_last: bool = False) -> torch.Tensor:
        """Logits; `trace` collects named intermediates [B, T, .] and the winners' positions [B, H, T, K]."""
        c, p = self.config, self.parameters

        def keep(name, value):
            if trace is not None:
                trace[name] = value
            return value

        wide = p["embed.token"][tokens]
        if c.position_table:
            wide = wide + p["embed.position"][: tokens.shape[1]]
        wide = wide << c.embed_shift
        x = wide.clamp(RESIDUAL_MIN, RESIDUAL_MAX)  # [B, T, d]
        self.saturations += int((wide != x).sum())
        keep("embed", x)
        for index in range(c.layers):
            at = f"layer{index}."
            s = keep(at + "in", self._fire(x, at + "in", c.level_in))
            acc = keep(at + "qkv.sum", matmul(s, p[at + "qkv.weight"]))
            qkv = keep(at + "qkv", self._fire(acc, at + "qkv", self.qkv_levels))
            winners = [] if trace is not None else None
            gathered = keep(at + "attn.gather", self._attend(qkv, winners))
            if winners:
                keep(at + "attn.winners", winners[0])
            s = keep(at + "attn", self._fire(gathered, at + "attn", c.level_attn))
            x = keep(at + "out", self._write(x, s, at + "out"))
            s = keep(at + "mid", self._fire(x, at + "mid", c.level_mid))
            acc = keep(at + "up.sum", matmul(s, p[at + "up.weight"]))
            s = keep(at + "up", self._fire(acc, at + "up", c.level_hidden))
            x = keep(at + "down", self._write(x, s, at + "down"))
        s = keep("final", self._fire(x, "final", c.level_final))
        if only_last:
            s = s[:, -1:]
        return keep("logits", matmul(s, p["head.weight"]) + p["head.bias"])
