"""One process, or several that train one model together, on CPUs or GPUs.

    torchrun --nproc-per-node 2 -m spikeloom.model.train --config stories-260k --run-folder RUN --minutes 100

Every process draws the same batch and learns from its own rows of it; gradients are averaged (DistributedDataParallel), and so
are the statistics of norms (`shared_moments`). So several processes take the steps that one would have taken, but for the order of
sums. Process 0 alone writes files and measures.
"""

import contextlib
import gc
import os
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as distributed
from torch import nn

PRECISIONS = ("float32", "bf16")


def together() -> bool:
    """Whether several processes train."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


class _Average(torch.autograd.Function):
    """Mean over all processes; what any of them learns about it reaches all."""

    @staticmethod
    def forward(ctx, x):
        x = x.clone()
        distributed.all_reduce(x)
        return x / distributed.get_world_size()

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient / distributed.get_world_size()


@torch.compiler.disable
def _average(moments: torch.Tensor) -> torch.Tensor:
    return _Average.apply(moments)


def shared_moments(flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Variance and mean [C] of rows [N, C] over all processes, which hold equally many rows each; gradients flow between them."""
    var, mean = torch.var_mean(flat, 0, correction=0)
    if not together():
        return var, mean
    mean_of_all, square = _average(torch.stack((mean, var + mean**2)))
    return (square - mean_of_all**2).clamp_min(0), mean_of_all


def pick_device(name: str = "auto") -> torch.device:
    """`auto`: the GPU of this process where there is one, else the CPU.

    Raises
    ------
    ValueError
        When a GPU is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise ValueError("There is no GPU that torch can use here; choose --device cpu.")
        if name == "cuda":
            name = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
    return torch.device(name)


@dataclass
class Workers:
    """This process among those that train.

    Members
    -------
    rank, count : int
        Its number, and how many there are.
    device : torch.device
    precision : str
        "bf16" runs the model's matrix products in bfloat16 while it learns; norms, neurons, attention, the residual stream and
        every measurement stay in float32.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "float32"

    @classmethod
    def join(cls, device: str = "auto", precision: str = "float32") -> "Workers":
        """Meet the processes that `torchrun` started, or be alone where it did not.

        Raises
        ------
        ValueError
            When the device or the precision does not exist.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, it is {precision!r}.")
        chosen = pick_device(device)
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return cls(device=chosen, precision=precision)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        return cls(distributed.get_rank(), count, chosen, precision)

    @property
    def first(self) -> bool:
        """Whether this one writes the files."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose gradients are averaged over all processes."""
        if self.count == 1:
            return model
        return nn.parallel.DistributedDataParallel(model, forward_sync_buffers=False)

    def rows(self, wanted: int) -> int:
        """Rows of a batch: `wanted`, made a multiple of the processes (each takes at least one)."""
        return max(1, wanted // self.count) * self.count

    def own(self, *batches: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """This process's rows of each batch, on its device."""
        mine = [batch[self.rank :: self.count] for batch in batches]
        if self.device.type == "cuda":  # from pinned memory the copy does not wait for the step before
            return tuple(batch.pin_memory().to(self.device, non_blocking=True) for batch in mine)
        return tuple(batch.to(self.device) for batch in mine)

    def agree(self, progress: float, stop: bool) -> tuple[float, bool]:
        """The largest progress, and whether anyone was told to stop: clocks and signals differ between processes."""
        if self.count == 1:
            return progress, stop
        said = torch.tensor([progress, float(stop)], dtype=torch.float64, device=self.device)
        distributed.all_reduce(said, distributed.ReduceOp.MAX)
        return said[0].item(), bool(said[1].item())

    def from_first(self, value: Any) -> Any:
        """What process 0 holds."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def mixed(self) -> contextlib.AbstractContextManager:
        """The precision of a forward pass that learns."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else contextlib.nullcontext()

    def meet(self) -> None:
        """Wait until all are here."""
        if self.count > 1:
            distributed.barrier()

    def leave(self) -> None:
        """Part from the other processes; the last thing to do, with wrapped models and what they made out of reach.

        A wrapped model holds the group, and with it threads that may still want the interpreter when it ends: it would be aborted.
        """
        if self.count > 1:
            gc.collect()
            distributed.destroy_process_group()
