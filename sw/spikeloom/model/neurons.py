"""NI-LIF 1xD neurons behind a foldable norm (arXiv 2604.12365 Eq. 12-13; integer training after arXiv 2411.16061).

    u = (x - mean) / sqrt(var + eps) * gain + shift          gain > 0
    S = floor(clamp(u, L, D) + 1/2)                          levels L..D, round half up; L = 0, or 1 - D for levels of both signs
    S = L + #{d in L+1..D : u >= d - 1/2}                    the same, as thresholds

With running statistics the norm is one affine map per channel, so mean, gain, shift and every scale before them fold
into a threshold per level: nothing of the norm is left in integers (`export`).
"""

import math

import torch
from torch import nn

from . import fast_levels
from .workers import shared_moments, together


def unit_of(level: int) -> float:
    """Value of one spike: a power of two, so that residual writers stay shifts whatever D is."""
    return 2.0 ** -math.ceil(math.log2(level)) if level > 1 else 1.0


class RoundLevels(torch.autograd.Function):
    """S * unit from u; the gradient is a window one half wider than [low, level], scaled by the unit."""

    @staticmethod
    def forward(ctx, u, low, level, unit):
        ctx.save_for_backward(u, low, level, unit)
        return torch.floor(torch.clamp(u, low, level) + 0.5) * unit

    @staticmethod
    def backward(ctx, gradient):
        u, low, level, unit = ctx.saved_tensors
        inside = (u > low - 0.5) & (u < level + 0.5)
        return torch.where(inside, gradient * unit, 0.0), None, None, None


class Neurons(nn.Module):
    """Norm and NI-LIF neurons for `sum(sizes)` channels; group i of sizes[i] channels speaks in lows[i]..levels[i] spikes.

    At the start a mean input gives `centre` of the levels (one share, or one per group; with levels of both signs it gives zero),
    and two deviations span the larger side.

    Input [..., C] float, output [..., C]: S * unit.
    """

    EPSILON = 1e-5

    def __init__(self, sizes: tuple[int, ...], levels: tuple[int, ...], momentum: float = 0.02,
                 centre: float | tuple[float, ...] = 0.0, lows: tuple[int, ...] = ()):
        super().__init__()
        channels = sum(sizes)
        self.momentum = momentum

        def per_channel(values):
            return torch.cat([torch.full((n,), float(value)) for n, value in zip(sizes, values)])
        lows = lows or (0,) * len(sizes)
        level, low, unit = per_channel(levels), per_channel(lows), per_channel(map(unit_of, levels))
        centres = centre if isinstance(centre, tuple) else (centre,) * len(sizes)
        middle = per_channel(0.0 if low else c for low, c in zip(lows, centres))
        self.register_buffer("low", low, persistent=False)  # [C]
        self.register_buffer("level", level)  # [C]
        self.register_buffer("unit", unit)  # [C]
        self.register_buffer("mean", torch.zeros(channels))  # [C]
        self.register_buffer("var", torch.ones(channels))  # [C]
        self.log_gain = nn.Parameter(torch.log(level / 2 * (1 - middle)))  # [C]
        self.shift = nn.Parameter(level * middle)  # [C]
        #: Use the running statistics also while training (the last part of a run).
        self.frozen = False

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(a, b) with u = a x + b under the running statistics; a > 0."""
        gain = torch.exp(self.log_gain) * torch.rsqrt(self.var + self.EPSILON)
        return gain, self.shift - self.mean * gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float()
        moving = self.training and not self.frozen
        fast = fast_levels.usable(x) and not together()
        if moving:
            flat = x.reshape(-1, x.shape[-1])
            var, mean = fast_levels.moments(flat.detach().contiguous()) if fast else shared_moments(flat)
            with torch.no_grad():
                self.mean.lerp_(mean.detach(), self.momentum)
                self.var.lerp_(var.detach(), self.momentum)
        else:
            var, mean = self.var, self.mean
        if fast and self.training:
            return fast_levels.FastLevels.apply(x, mean, var, self.log_gain, self.shift, self.low, self.level, self.unit, self.EPSILON,
                                                moving)
        gain = torch.exp(self.log_gain) * torch.rsqrt(var + self.EPSILON)
        u = (x - mean) * gain + self.shift if moving else x * gain + (self.shift - mean * gain)
        return RoundLevels.apply(u, self.low, self.level, self.unit)
