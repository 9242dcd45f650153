"""Attention on spikes without softmax at inference: WSSA/CWSSA, SFSA, SSA; and float references on the same spikes.

q, k in {-1, 0, 1} or {0, 1}, v in levels; [M, H, N, d], M = T B: time steps never mix. raw = q k^T is whole.

    CWSSA/WSSA   top-K of raw - (distance >> k_h), weights 2^-s_r by rank        arXiv 2604.11321; `model.attention`
    SFSA         sum_j [raw_ij >= theta_h] v_j                                   arXiv 2605.13859 (Fig. 1)
    SSA, SMHA    s sum_j raw_ij v_j,  masked scores 0                            Spikformer; SpikeDecoder
    sparsemax    p_j = max(z_j - t, 0), sum p = 1                                arXiv 1602.02068, golden only
    softmax      p = softmax(z)                                                  the reference, golden only
"""

import torch
from torch import nn

from spikeloom.arch.config import ModelConfig

from .. import fast_attention
from ..attention import INELIGIBLE, AnnealedWinners, distance_penalty, recency_penalty
from ..quantize import straight_through
from .options import GoldenOptions
from .surrogates import heaviside

#: Largest threshold of a head in SFSA: four bits.
THETA_MAX = 15


def seen(length: int, bidirectional: bool) -> torch.Tensor:
    """Whether position j is unmasked for query i, bool [N, N]."""
    mask = torch.ones(length, length, dtype=torch.bool)
    return mask if bidirectional else mask.tril()


def penalty_of(config: ModelConfig, length: int) -> torch.Tensor:
    """distance >> k_h of every pair, [H, N, N]; -INELIGIBLE where masked. An encoder's distances are absolute."""
    if not config.bidirectional:
        return recency_penalty(length, config.recency)
    position = torch.arange(length)
    distance = (position[:, None] - position[None, :]).abs()  # [N, N]
    return distance_penalty(length, config.recency)[:, distance].float()  # [H, N, N]


def ssa(raw: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    """s (M * raw) v; raw [M, H, N, N], v [M, H, N, d], mask [N, N] -> [M, H, N, d]."""
    return scale * (raw.masked_fill(~mask, 0) @ v)


def ssa_linear(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """Causal SSA without scores and without a KV cache: S_i = S_{i-1} + k_i v_i^T, y_i = s q_i S_i; [M, H, N, d] each."""
    state = torch.zeros(*q.shape[:2], q.shape[-1], v.shape[-1])  # [M, H, d, d] counters
    out = []
    for q_i, k_i, v_i in zip(q.unbind(2), k.unbind(2), v.unbind(2)):
        state = state + k_i[..., :, None] * v_i[..., None, :]
        out.append(scale * (q_i[..., None, :] @ state)[..., 0, :])  # [M, H, d]
    return torch.stack(out, 2)


def sparsemax(z: torch.Tensor) -> torch.Tensor:
    """Projection of each row on the simplex, [.., N] -> [.., N] (arXiv 1602.02068 Algorithm 1); masked entries -inf or INELIGIBLE."""
    ordered = z.sort(-1, descending=True).values  # [.., N]
    count = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
    total = ordered.cumsum(-1)
    support = (1 + count * ordered > total).sum(-1, keepdim=True)  # |S|
    t = (total.gather(-1, support - 1) - 1) / support
    return (z - t).clamp_min(0)


class SpikeAttention(nn.Module):
    """Gathered values of spikes: [T, B, N, 3 C] (values in units) -> [T, B, N, C].

    `hardness` 0 is softmax over the scores, 1 the winners alone; only WTA has it.
    """

    def __init__(self, config: ModelConfig, options: GoldenOptions):
        super().__init__()
        c = self.config = config
        self.kind = c.attention if options.scores == "config" else options.scores
        self.options = options
        if self.kind in ("wta", "softmax", "sparsemax"):
            self.log_temperature = nn.Parameter(torch.zeros(c.heads))  # [H]
        if self.kind == "sfsa":
            self.theta = nn.Parameter(torch.full((c.heads,), options.theta))  # [H]
        self.fast = (self.kind == "wta" and c.neuron != "t_lif" and not c.bidirectional
                     and fast_attention.available(c.head_width))

    def thresholds(self) -> torch.Tensor:
        """SFSA's theta of each head, whole, 0..15, [H]; straight through."""
        return straight_through(self.theta.detach().round().clamp(0, THETA_MAX), self.theta)

    def forward(self, spikes: torch.Tensor, hardness: torch.Tensor, keep: dict | None = None, name: str = "") -> torch.Tensor:
        c, length = self.config, spikes.shape[2]
        merged = spikes.flatten(0, 1)  # [M, N, 3 C]
        if self.fast and keep is None and merged.is_cpu:
            penalty = distance_penalty(length, c.recency)  # [H, N]
            y, _ = fast_attention.winners(merged, penalty, self.log_temperature.exp(), hardness, list(c.rank_shifts), c.overlap, False)
            return y.unflatten(0, spikes.shape[:2])
        q, k, v = (part.unflatten(-1, (c.heads, -1)).transpose(1, 2) for part in merged.chunk(3, -1))  # [M, H, N, d]
        with torch.autocast(spikes.device.type, enabled=False):  # mixed precision stops before the scores
            y = self._gather(q, k, v, hardness, None if keep is None else (keep, name, spikes.shape[:2]))  # [M, H, N, d]
        return y.transpose(1, 2).flatten(-2).unflatten(0, spikes.shape[:2])

    def _gather(self, q, k, v, hardness, kept):
        c, length = self.config, q.shape[2]
        mask = seen(length, c.bidirectional).to(q.device)  # [N, N]
        if self.kind == "wta":
            penalty = penalty_of(c, length).to(q.device)
            if kept:
                self._keep(kept, (q @ k.transpose(-1, -2)) * mask)
            return AnnealedWinners.apply(q, k, v, penalty, self.log_temperature.exp(), hardness, list(c.rank_shifts), c.overlap)
        raw = q @ k.transpose(-1, -2)  # [M, H, N, N]
        if self.kind == "ssa":
            if kept:
                self._keep(kept, raw * mask)
            return ssa(raw, v, mask, self.options.scale)
        if self.kind == "sfsa":
            # Scores are whole: the step lies half below theta, and the surrogate spans a few of them.
            width = 0.25 * c.head_width**0.5
            above = (raw - self.thresholds()[:, None, None] + 0.5) / width
            fired = heaviside(above, self.options.surrogate, self.options.sharpness) * mask
            if kept:
                self._keep(kept, fired)
            return fired @ v
        z = (raw - penalty_of(c, length).to(q.device)) * self.log_temperature.exp()[:, None, None]
        z = z.masked_fill(~mask, INELIGIBLE)
        weights = sparsemax(z) if self.kind == "sparsemax" else z.softmax(-1)
        if kept:
            self._keep(kept, weights)
        return weights @ v

    def _keep(self, kept, scores):
        store, name, (steps, batch) = kept
        store[name] = scores.unflatten(0, (steps, batch))  # [T, B, H, N, N]


class FloatAttention(nn.Module):
    """The ANN's softmax attention of SpikeDecoder's degrees 0 and 1: [T, B, N, 3 C] -> [T, B, N, C]."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config

    def forward(self, x: torch.Tensor, hardness: torch.Tensor, keep: dict | None = None, name: str = "") -> torch.Tensor:
        c = self.config
        q, k, v = (part.unflatten(-1, (c.heads, -1)).transpose(-2, -3) for part in x.chunk(3, -1))  # [T, B, H, N, d]
        with torch.autocast(x.device.type, enabled=False):
            z = q @ k.transpose(-1, -2) / c.head_width**0.5  # [T, B, H, N, N]
            weights = z.masked_fill(~seen(x.shape[2], c.bidirectional).to(x.device), -torch.inf).softmax(-1)
            y = weights @ v
        if keep is not None:
            keep[name] = weights
        return y.transpose(-2, -3).flatten(-2)
