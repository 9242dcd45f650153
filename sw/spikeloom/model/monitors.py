"""What a training run says about itself: `log.csv`, lines, a progress bar, TensorBoard; and how often neurons fire."""

import contextlib
import csv
import sys
from pathlib import Path

import torch

COLUMNS = ("step", "seconds", "progress", "tokens", "context", "learning_rate", "hardness", "loss", "development_nats",
           "development_bits_per_byte", "density", "gradient_norm", "firing_rate", "silent_neurons")


class Log:
    """`log.csv` of a run, and the same as lines on the screen and, if asked for, in TensorBoard.

    A file that exists keeps its own columns, whatever version began it.
    """

    def __init__(self, path: Path, quiet: bool, columns: tuple[str, ...] = COLUMNS, tensorboard: bool = False):
        self.path, self.quiet, self.columns = path, quiet, columns
        if not path.exists():
            path.write_text(",".join(columns) + "\n")
        with open(path, newline="") as file:
            self.kept = next(csv.reader(file), list(columns))
        self.board = self._open_board() if tensorboard else None

    def _open_board(self):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError('TensorBoard is not installed; get it with: pip install "spikeloom[train]"') from error
        return SummaryWriter(str(self.path.parent))

    def write(self, *row) -> None:
        """One value per column."""
        named = dict(zip(self.columns, row))
        with open(self.path, "a", newline="") as file:
            csv.writer(file).writerow([named.get(name, "") for name in self.kept])
        if not self.quiet:
            print(" ".join(f"{name} {value}" for name, value in named.items()), flush=True)
        if self.board:
            for name, value in named.items():
                if name != "step" and value != "":
                    self.board.add_scalar(name, float(value), int(named["step"]))
            self.board.flush()


class Bar:
    """Progress in 0..1 on the terminal; nothing where there is no terminal, or no rich."""

    def __init__(self, what: str, quiet: bool = False):
        self.progress = None
        if not quiet and sys.stderr.isatty():
            with contextlib.suppress(ImportError):
                from rich.console import Console
                from rich.progress import Progress

                self.progress = Progress(console=Console(stderr=True), transient=True)
                self.task = self.progress.add_task(what, total=1.0)
                self.progress.start()

    def show(self, done: float, what: str) -> None:
        """Move it."""
        if self.progress:
            self.progress.update(self.task, completed=done, description=what)

    def close(self) -> None:
        """Give the terminal back."""
        if self.progress:
            self.progress.stop()


@torch.no_grad()
def firing(model, tokens: torch.Tensor) -> tuple[float, float]:
    """(share of neurons that fired, share that never did) over tokens int64 [B, T], in evaluation form.

    (1, 0) for a model without spikes.
    """
    layers = list(model.neurons().values()) if hasattr(model, "neurons") else []
    if not layers:
        return 1.0, 0.0
    spoke: dict[int, torch.Tensor] = {}

    def see(layer, _, output):
        fired = (output != 0).flatten(0, -2)  # [N, C]
        spoke[id(layer)] = torch.stack((fired.float().mean(0), (~fired.any(0)).float()))  # [2, C]

    hooks = [layer.register_forward_hook(see) for layer in layers]
    training = model.training
    with torch.compiler.set_stance("force_eager"):
        model.eval()(tokens)
    model.train(training)
    for hook in hooks:
        hook.remove()
    rate, silent = torch.cat(list(spoke.values()), 1).mean(1).tolist()
    return rate, silent
