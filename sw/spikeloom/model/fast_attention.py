"""`attention.AnnealedWinners` as one C kernel (`winners.c`) on the CPU, about twenty times faster than in tensors.

Built on first use with the system's C compiler into the user's cache; without a compiler `available()` is false and
the model uses the tensor form. The two are compared in `tests/model/test_attention.py`.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("winners.c")
FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-fPIC", "-shared")
#: The kernel packs queries and keys into one 64-bit word.
LARGEST_HEAD = 64


@functools.cache
def build(source: Path = SOURCE) -> ctypes.CDLL | None:
    """The kernels of a C file, or None where there is no C compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        return None
    digest = hashlib.sha256(source.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "spikeloom"
    target = cache / f"{source.stem}-{digest}.so"
    if not target.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                built = Path(folder) / target.name
                subprocess.run([compiler, *FLAGS, "-o", built, source, "-lm"], check=True, capture_output=True)
                built.replace(target)
        except (OSError, subprocess.CalledProcessError):
            return None
    return ctypes.CDLL(str(target))


def library() -> ctypes.CDLL | None:
    """The attention kernel, or None where there is no C compiler."""
    return build(SOURCE)


def available(head_width: int) -> bool:
    """Whether the kernel can be used for heads of this width."""
    return head_width <= LARGEST_HEAD and library() is not None


def _pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _sizes(spikes: torch.Tensor, heads: int) -> tuple[int, int, int, int]:
    batch, length, columns = spikes.shape
    return batch, length, heads, columns // 3 // heads


def _rank_weights(rank_shifts: list[int]) -> torch.Tensor:
    weights = torch.tensor([2.0**-shift for shift in rank_shifts])
    return weights / weights.sum()


@torch.library.custom_op("spikeloom::winners", mutates_args=())
def winners(spikes: torch.Tensor, penalty: torch.Tensor, temperature: torch.Tensor, hardness: torch.Tensor,
            rank_shifts: list[int], overlap: bool, ranked: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """spikes [B, T, 3 H d], penalty int32 [H, T] by distance, temperature [H] -> ([B, T, H d], int32 [B, H, T, K])."""
    spikes, weights = spikes.contiguous(), _rank_weights(rank_shifts)
    batch, length, heads, width = _sizes(spikes, len(temperature))
    out = torch.empty(batch, length, heads * width)
    chosen = torch.empty(batch, heads, length, len(rank_shifts), dtype=torch.int32)
    long = ctypes.c_int64
    library().winners_forward(_pointer(spikes), _pointer(penalty), _pointer(temperature), ctypes.c_float(hardness.item()),
                              _pointer(weights), long(len(rank_shifts)), long(batch), long(length), long(heads),
                              long(width), long(overlap), long(ranked), _pointer(out), _pointer(chosen))
    return out, chosen


@winners.register_fake
def _(spikes, penalty, temperature, hardness, rank_shifts, overlap, ranked):
    batch, length, heads, width = _sizes(spikes, temperature.shape[0])
    return (spikes.new_empty(batch, length, heads * width),
            spikes.new_empty((batch, heads, length, len(rank_shifts)), dtype=torch.int32))


@torch.library.custom_op("spikeloom::winners_backward", mutates_args=())
def winners_backward(gradient: torch.Tensor, spikes: torch.Tensor, penalty: torch.Tensor, temperature: torch.Tensor,
                     hardness: torch.Tensor, chosen: torch.Tensor, rank_shifts: list[int],
                     overlap: bool, ranked: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of spikes [B, T, 3 H d] and temperature [H]."""
    spikes, gradient, weights = spikes.contiguous(), gradient.contiguous(), _rank_weights(rank_shifts)
    batch, length, heads, width = _sizes(spikes, len(temperature))
    grad_spikes, grad_temperature = torch.empty_like(spikes), torch.empty(heads)
    long = ctypes.c_int64
    library().winners_backward(_pointer(gradient), _pointer(spikes), _pointer(penalty), _pointer(temperature),
                               ctypes.c_float(hardness.item()), _pointer(weights), long(len(rank_shifts)), long(batch),
                               long(length), long(heads), long(width), long(overlap), long(ranked), _pointer(chosen),
                               _pointer(grad_spikes), _pointer(grad_temperature))
    return grad_spikes, grad_temperature


@winners_backward.register_fake
def _(gradient, spikes, penalty, temperature, hardness, chosen, rank_shifts, overlap, ranked):
    return torch.empty_like(spikes), torch.empty_like(temperature)


def _remember(ctx, inputs, output):
    spikes, penalty, temperature, hardness, ctx.rank_shifts, ctx.overlap, ctx.ranked = inputs
    ctx.save_for_backward(spikes, penalty, temperature, hardness, output[1])


def _backward(ctx, gradient, _):
    spikes, penalty, temperature, hardness, chosen = ctx.saved_tensors
    grad_spikes, grad_temperature = winners_backward(gradient, spikes, penalty, temperature, hardness, chosen,
                                                     ctx.rank_shifts, ctx.overlap, ctx.ranked)
    return grad_spikes, None, grad_temperature, None, None, None, None


winners.register_autograd(_backward, setup_context=_remember)
