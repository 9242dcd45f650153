"""`neurons.run_neurons` as one C kernel (`neurons.c`) on the CPU; without a C compiler the tensor form serves.

The two are compared in `tests/model/golden/test_neurons.py`.
"""

import ctypes
from pathlib import Path

import torch

from spikeloom.arch.config import NEURONS

from ..fast_attention import build

SOURCE = Path(__file__).with_name("neurons.c")
SURROGATES = ("atan", "triangle", "window")


def serves(kind: str, surrogate: str) -> bool:
    """Whether the kernel knows these neurons and is there."""
    return (kind in ("ni_lif", "i_lif") or surrogate in SURROGATES) and build(SOURCE) is not None


def _pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, level, kind, beta, surrogate, sharpness):
        x, long = x.contiguous(), ctypes.c_int64
        spikes, potential = torch.empty_like(x), torch.empty_like(x)
        steps, channels = x.shape[0], x.shape[-1]
        ctx.shape = (long(steps), long(x[0].numel() // channels), long(channels), long(NEURONS.index(kind)), ctypes.c_float(beta))
        build(SOURCE).neurons_forward(_pointer(x), _pointer(level), *ctx.shape, _pointer(spikes), _pointer(potential))
        ctx.save_for_backward(potential, level)
        ctx.surrogate = (long(SURROGATES.index(surrogate) if surrogate in SURROGATES else 0), ctypes.c_float(sharpness))
        return spikes

    @staticmethod
    def backward(ctx, gradient):
        potential, level = ctx.saved_tensors
        gradient, out = gradient.contiguous(), torch.empty_like(potential)
        build(SOURCE).neurons_backward(_pointer(gradient), _pointer(potential), _pointer(level), *ctx.shape, *ctx.surrogate,
                                       _pointer(out))
        return out, None, None, None, None, None


def run(x: torch.Tensor, kind: str, beta: float, level: torch.Tensor, surrogate: str, sharpness: float) -> torch.Tensor:
    """Spikes [T, .., C] of currents float32 [T, .., C]; level float32 [C]; resets have no gradient."""
    return _Run.apply(x, level, kind, beta, surrogate, sharpness)
