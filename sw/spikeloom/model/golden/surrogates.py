"""Spikes with a derivative: Theta forward, a surrogate backward (papers.md section 8)."""

import math

import torch


def slope(x: torch.Tensor, kind: str, sharpness: float) -> torch.Tensor:
    """dTheta/dx at distance x from the threshold, [..] -> [..].

        atan      a / (2 (1 + (pi/2 a x)^2))        peak a / 2         SpikeGPT, BiSpikCLM: a = 2
        sigmoid   a sigma(a x) (1 - sigma(a x))     peak a / 4         Spikformer, SpikeDecoder: a = 4
        triangle  a max(0, 1 - a abs x)
        window    a where abs x < 1 / (2 a)
    """
    a = sharpness
    if kind == "atan":
        return a / 2 / (1 + (math.pi / 2 * a * x).square())
    if kind == "sigmoid":
        s = torch.sigmoid(a * x)
        return a * s * (1 - s)
    if kind == "triangle":
        return a * (1 - a * x.abs()).clamp_min(0)
    return a * (x.abs() < 0.5 / a)


class Heaviside(torch.autograd.Function):
    """Theta(x) = 1 where x >= 0; backward `slope`."""

    @staticmethod
    def forward(ctx, x, kind, sharpness):
        ctx.save_for_backward(x)
        ctx.kind, ctx.sharpness = kind, sharpness
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        x, = ctx.saved_tensors
        return gradient * slope(x, ctx.kind, ctx.sharpness), None, None


def heaviside(x: torch.Tensor, kind: str = "atan", sharpness: float = 2.0) -> torch.Tensor:
    """Theta(x), [..] -> [..] of 0 and 1."""
    return Heaviside.apply(x, kind, sharpness)


class Levels(torch.autograd.Function):
    """clip(floor(u + 1/2), low, low + D); the gradient is 1 inside the window one half wider (arXiv 2604.12365 Eq. 18-20).

    u [.., C], level D [C], low a scalar of whole value; dS/dlow is 1 outside the window.
    """

    @staticmethod
    def forward(ctx, u, level, low):
        ctx.save_for_backward(u, level, low)
        return torch.floor(torch.minimum(torch.maximum(u, low), low + level) + 0.5)

    @staticmethod
    def backward(ctx, gradient):
        u, level, low = ctx.saved_tensors
        inside = (u > low - 0.5) & (u < low + level + 0.5)
        outside = gradient.masked_fill(inside, 0.0)
        return gradient * inside, None, outside.sum() if ctx.needs_input_grad[2] else None


class CeilingThrough(torch.autograd.Function):
    """ceil(x) forward, identity backward."""

    @staticmethod
    def forward(ctx, x):
        return torch.ceil(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient
