"""Norms that fold into thresholds (none, BatchNorm, PowerNorm) and LayerNorm as the float reference.

    y = a x + b per channel, with running statistics:
    none        a = g,                      b
    batch       a = g / sqrt(var + eps),    b - a mean
    power       a = g / sqrt(phi + eps),    b             phi: running second moment (SpikeDecoder; no mean is subtracted)
    layer       statistics of each vector: not affine, cannot fold
"""

import torch
import torch.nn.functional as F
from torch import nn

EPSILON = 1e-5


class Norm(nn.Module):
    """Gain and offset alone; `x [.., C] -> [.., C]`.

    Parameters
    ----------
    gain : float [C]
        Start value.
    signed : bool
        Whether the gain may become negative.
    """

    def __init__(self, channels: int, gain: torch.Tensor, signed: bool):
        super().__init__()
        self.signed = signed
        self.raw_gain = nn.Parameter(gain.clone() if signed else torch.log(gain))  # [C]
        self.shift = nn.Parameter(torch.zeros(channels))  # [C]
        #: Use the running statistics also while training (the last part of a run).
        self.frozen = False

    def gain(self) -> torch.Tensor:
        """g, float [C]."""
        return self.raw_gain if self.signed else self.raw_gain.exp()

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(a, b), float [C]."""
        return self.gain(), self.shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.affine()
        return x * a + b


class BatchNorm(Norm):
    """Mean and variance over everything but channels, time steps included."""

    MOMENTUM = 0.02

    def __init__(self, channels: int, gain: torch.Tensor, signed: bool):
        super().__init__(channels, gain, signed)
        self.register_buffer("mean", torch.zeros(channels))  # [C]
        self.register_buffer("var", torch.ones(channels))  # [C]

    def affine(self):
        a = self.gain() * torch.rsqrt(self.var + EPSILON)
        return a, self.shift - self.mean * a

    def forward(self, x):
        if not self.training or self.frozen:
            return super().forward(x)
        flat = x.reshape(-1, x.shape[-1])  # [T B N, C]
        return F.batch_norm(flat, self.mean, self.var, self.gain(), self.shift, True, self.MOMENTUM, EPSILON).view(x.shape)


class PowerNorm(Norm):
    """Second moments only: those of the batch for the first `WARM_UP` steps, the running ones from then on."""

    MOMENTUM, WARM_UP = 0.1, 10_000

    def __init__(self, channels: int, gain: torch.Tensor, signed: bool):
        super().__init__(channels, gain, signed)
        self.register_buffer("moment", torch.ones(channels))  # [C]
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def affine(self):
        return self.gain() * torch.rsqrt(self.moment + EPSILON), self.shift

    def forward(self, x):
        if not self.training or self.frozen:
            return super().forward(x)
        moment = x.reshape(-1, x.shape[-1]).square().mean(0)  # [C]
        with torch.no_grad():
            self.moment.lerp_(moment, self.MOMENTUM if self.steps else 1.0)
            self.steps += 1
        if self.steps > self.WARM_UP:
            return super().forward(x)
        return x * (self.gain() * torch.rsqrt(moment + EPSILON)) + self.shift


class LayerNorm(Norm):
    """Statistics of each vector; it needs division and root at inference, so no integer model has it."""

    def affine(self):
        raise ValueError("LayerNorm depends on each vector's own statistics and does not fold into thresholds; train with norm "
                         "'batch', 'power' or 'none'.")

    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:]) * self.gain() + self.shift


KINDS = {"none": Norm, "batch": BatchNorm, "power": PowerNorm, "layer": LayerNorm}


def build_norm(kind: str, channels: int, gain: torch.Tensor, *, signed: bool) -> Norm:
    """A norm by name."""
    return KINDS[kind](channels, gain, signed)
