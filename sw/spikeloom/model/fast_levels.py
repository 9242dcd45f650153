"""Norm and levels of `neurons.Neurons` as C loops (`levels.c`): a third of the passes over memory that the tensor form makes.

For training on the CPU without `torch.compile`, which fuses the tensor form itself. The two are compared in `tests/model/test_neurons.py`.
"""

import ctypes
from pathlib import Path

import torch

from .fast_attention import build

SOURCE = Path(__file__).with_name("levels.c")


def library() -> ctypes.CDLL | None:
    """The kernels, or None where there is no C compiler."""
    return build(SOURCE)


def usable(x: torch.Tensor) -> bool:
    """Whether x can go through the kernels here."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling() and library() is not None


def _pointers(*tensors: torch.Tensor) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]


def moments(flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Variance and mean [C] of contiguous rows [N, C]; no gradient."""
    rows, channels = flat.shape
    mean, var, part = (torch.empty(channels) for _ in range(3))
    library().moments(*_pointers(flat), ctypes.c_int64(rows), ctypes.c_int64(channels), *_pointers(mean, var, part))
    return var, mean


class FastLevels(torch.autograd.Function):
    """Levels * unit of x [.., C]; `moving`: mean and variance are those of x itself, and gradients pass through them.

    mean, var, log_gain, shift, low, level, unit [C]; u = (x - mean) / sqrt(var + epsilon) e^log_gain + shift.
    """

    @staticmethod
    def forward(ctx, x, mean, var, log_gain, shift, low, level, unit, epsilon, moving):
        x = x.contiguous()
        channels = x.shape[-1]
        gain = log_gain.exp()
        a = gain * torch.rsqrt(var + epsilon)
        b = shift - mean * a
        out = torch.empty_like(x)
        ctx.sizes = ctypes.c_int64(x.numel() // channels), ctypes.c_int64(channels)
        library().levels_forward(*_pointers(x, a, b, low, level, unit), *ctx.sizes, *_pointers(out))
        ctx.save_for_backward(x, a, b, mean, low, level, unit, gain)
        ctx.moving = moving
        return out

    @staticmethod
    def backward(ctx, gradient):
        x, a, b, mean, low, level, unit, gain = ctx.saved_tensors
        gradient, grad_x = gradient.contiguous(), torch.empty_like(x)
        total, weighted, inverse = torch.empty_like(a), torch.empty_like(a), gain**-2
        library().levels_backward(*_pointers(gradient, x, a, b, mean, low, level, unit, inverse), ctypes.c_int64(ctx.moving), *ctx.sizes,
                                  *_pointers(grad_x, total, weighted))
        return grad_x, None, None, weighted, total, None, None, None, None, None
