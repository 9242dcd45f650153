"""Trains a golden model, or its softmax twin: the trainer of configs that hold `golden`.

    spikeloom train --config spikedecoder --run RUN --minutes 8
    spikeloom train --config spikedecoder --run TWIN --kind softmax --steps 700
    spikeloom train --config we-spikingformer-pairs --run PAIRS --init RUN --minutes 5

Schedules, run folder, checkpoints and resuming are those of `model.train`. `--init RUN` starts from the weights of another run or of a
released model's folder (all but the head: fine-tuning). `--teacher RUN` adds SpAD (arXiv 2605.13859) from a finished softmax twin or
a released model's, with the weights in the config's `spad`; the norm of each loss's gradient goes to `gradients.csv`, before the first
step and with every report. The config's `twin` holds what of `training` suits a softmax twin better.
"""

import argparse
import csv
import json
import os
import signal
import threading
import time
from pathlib import Path

import torch

from spikeloom.arch.config import ModelConfig

from .. import reference
from ..corpus import Split
from ..distil import check_tokenizer, teacher_model
from ..softmax_twin import SoftmaxTwin
from ..spad import SpAD, TwinTeacher, Weights, gradient_norms
from ..train import Log, Run, check_budget, load_config
from .glue import Glue
from .tasks import TASKS, Task

COLUMNS = ("step", "seconds", "progress", "tokens", "learning_rate", "hardness", "loss", "firing_rate", "development_nats",
           "development_bits_per_byte", "accuracy")


def is_golden(arguments: list[str] | None) -> bool:
    """Whether the config named on a command line is a golden model's."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config", default="stories-260k")
    name = parser.parse_known_args(arguments)[0].config
    try:
        return "golden" in load_config(name)
    except FileNotFoundError:
        return False  # `model.train` says so


class FiringRate:
    """Share of neurons that spoke in the latest forward pass, over all neuron layers."""

    def __init__(self, model):
        self.spoke, self.count = 0.0, 0
        if hasattr(model, "neurons"):
            for layer in model.neurons().values():
                layer.register_forward_hook(self._see)
        self.watching = False

    def _see(self, layer, inputs, output):
        if self.watching:
            self.spoke += torch.count_nonzero(output).item()
            self.count += output.numel()

    def measure(self, model, tokens: torch.Tensor) -> float:
        """Rate on a batch, in evaluation form; 1 where nothing spikes."""
        self.spoke, self.count, self.watching = 0.0, 0, True
        training = model.training
        with torch.no_grad():
            model.eval()(tokens)
        model.train(training)
        self.watching = False
        return self.spoke / self.count if self.count else 1.0


def weights_of(source: Path, kind: str) -> Path:
    """What `reference.state_of` reads of a run's folder, or of a released model's."""
    released = source / "reference" / ("float.safetensors" if kind == "spiking" else "twin.safetensors")
    return released if released.is_file() else source


class GoldenRun(Run):
    """A run of a golden model or of its twin.

    Parameters
    ----------
    folder : Path
    config : dict
    kind : str
        "spiking" or "softmax".
    task : Task
    seed : int
    init : Path, optional
        Another run, or a released model, whose weights a new run starts from.
    teacher : Path or str, optional
        A finished softmax twin's run, or a released model whose twin teaches.
    """

    def __init__(self, folder: Path, config: dict, kind: str, task: Task, seed: int, init: Path | None = None,
                 teacher: Path | str | None = None):
        super().__init__(folder, config, kind, seed)
        self.task, self.spad, self.last_losses = task, None, None
        if init and not (folder / "checkpoint.pt").exists():
            self._begin_from(Path(init))
        if teacher:
            self._hire(teacher)

    def _begin_from(self, init: Path):
        state = reference.state_of(weights_of(init, self.kind))
        if state["kind"] != self.kind:
            raise ValueError(f"The run {init} holds a {state['kind']} model, this one is {self.kind}.")
        own = self.model.state_dict()
        kept = {name: value for name, value in state["model"].items() if name in own and own[name].shape == value.shape
                and not name.startswith("head")}
        self.model.load_state_dict(own | kept)

    def _hire(self, teacher: Path | str):
        twin = teacher_model(teacher)
        if not isinstance(twin, SoftmaxTwin):
            raise ValueError(f"The teacher {teacher} is not a softmax twin; train one with --kind softmax.")
        c, tokens, length = self.model.config, twin.embed.num_embeddings, twin.position.num_embeddings
        if tokens != c.vocabulary or length < c.context:
            raise ValueError(f"The teacher {teacher} knows {tokens} tokens and texts of {length}, this model wants {c.vocabulary} and "
                             f"{c.context}.")
        check_tokenizer(teacher, self.task.tokenizer)
        self.guide = TwinTeacher(twin)
        weights = Weights(**self.config["training"].get("spad", {}))
        self.spad = SpAD(layers=c.layers, teacher_layers=self.guide.layers, width=c.width, teacher_width=self.guide.width, weights=weights)
        if any(True for _ in self.spad.parameters()):
            self.optimisers.append(torch.optim.AdamW(self.spad.parameters(), lr=1e-3))
            self.optimisers[-1].param_groups[0]["peak"] = 1e-3
        if (self.folder / "checkpoint.pt").exists():
            self._resume_projections(torch.load(self.folder / "checkpoint.pt", weights_only=False))

    def _resume_projections(self, state: dict):
        if state.get("spad"):
            self.spad.load_state_dict(state["spad"])
            self.optimisers[-1].load_state_dict(state["optimisers"][-1])

    def more(self) -> dict:
        """SpAD's projections learn too."""
        return {"spad": self.spad.state_dict()} if self.spad else {}

    def schedule(self):
        """As `Run.schedule`; the context is always the whole one, since positions are learned."""
        self.config["training"].setdefault("long_from", 0.0)
        return super().schedule()

    def learn(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """One step; returns the loss."""
        if self.spad is None:
            loss = self.task.loss(self.model(inputs), targets)
        else:
            kept: dict = {}
            logits = self.model(inputs, kept)
            self.last_losses = self.spad.losses(logits, targets, kept, *self.guide(inputs))
            loss = self.spad.total(self.last_losses)
        for optimiser in self.optimisers:  # SpAD's projections are in none of the model's
            optimiser.zero_grad()
        loss.backward(retain_graph=False)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        self.tokens += inputs.numel()
        return loss.detach()

    def gradients(self, inputs: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        """Norm of each SpAD loss's gradient on a batch."""
        kept: dict = {}
        logits = self.model(inputs, kept)
        losses = self.spad.losses(logits, targets, kept, *self.guide(inputs))
        return gradient_norms(self.spad, losses, [p for p in self.model.parameters() if p.requires_grad])


def _development(state, task):
    model = state.model
    hardness = model.hardness.clone() if hasattr(model, "hardness") else None
    if hardness is not None:
        model.hardness.fill_(1.0)
    model.eval()
    figures = task.development(model)
    model.train()
    if hardness is not None:
        model.hardness.copy_(hardness)
    return figures


def train(config: dict, *, run: Path, kind: str = "spiking", minutes: float | None = None, steps: int | None = None,
          init: Path | None = None, teacher: Path | str | None = None, split: Split | None = None, seed: int = 0,
          save_every: float = 120.0, report_every: float = 60.0, quiet: bool = False):
    """Train (or resume) in folder `run` until the budget is spent; returns the model in evaluation form.

    Raises
    ------
    ValueError
        When neither minutes nor steps are given, or another run does not fit.
    """
    check_budget(minutes, steps)
    if kind == "softmax":
        config = config | {"training": config["training"] | config["training"].get("twin", {})}
    folder = Path(run)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    shape = ModelConfig.from_dict(config["model"])
    if init and not (folder / "tokenizer.json").exists():
        (folder / "tokenizer.json").write_bytes((Path(init) / "tokenizer.json").read_bytes())
    task = (TASKS | {"glue": Glue})[config["training"]["task"]].open(shape, config["training"], folder, split)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = GoldenRun(folder, config, kind, task, seed, init, teacher)
    log, rate = Log(folder / "log.csv", quiet, COLUMNS), FiringRate(state.model)
    stop: list[bool] = []
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    running = None
    state.model.train()
    while not stop:
        state.progress = max(state.seconds / (60 * minutes) if minutes else 0.0, state.step / steps if steps else 0.0)
        finished = state.progress >= 1
        if not finished:
            _, learning_rate, hardness = state.schedule()
            inputs, targets = task.batch(state.random)
            if state.spad is not None and state.step == 0:
                _log_gradients(folder / "gradients.csv", state, inputs, targets)
            loss = state.learn(inputs, targets)
            running = loss if running is None else running.lerp(loss, 0.02)
        if running is not None and (finished or time.time() - state.reported > report_every):
            figures = _development(state, task)
            log.write(state.step, round(state.seconds, 1), round(state.progress, 4), state.tokens, f"{learning_rate:.3g}",
                      round(hardness, 3), round(running.item(), 4), round(rate.measure(state.model, inputs[:4]), 4),
                      *(figures.get(name, "") for name in COLUMNS[-3:]))
            if state.spad is not None:
                _log_gradients(folder / "gradients.csv", state, inputs, targets)
            state.reported = time.time()
        if finished:
            break
        if time.time() - state.saved > save_every:
            state.save()
    if kind == "spiking":
        state.model.hardness.fill_(1.0)
    state.save()
    return state.model.eval()


def _log_gradients(path, state, inputs, targets):
    norms = state.gradients(inputs, targets)
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", *norms])
        writer.writerow([state.step, *(f"{value:.4g}" for value in norms.values())])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="name of a config, or a path")
    parser.add_argument("--run", type=Path, required=True, help="folder of this run; an existing one is resumed")
    parser.add_argument("--kind", choices=("spiking", "softmax"), default="spiking")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--init", type=Path, help="folder of a run or of a released model to start from (fine-tuning)")
    parser.add_argument("--teacher", help="finished run of a softmax twin, or a released model whose twin teaches, for SpAD")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report-every", type=float, default=60.0, metavar="SECONDS")
    options = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    train(load_config(options.config), run=options.run, kind=options.kind, minutes=options.minutes, steps=options.steps,
          init=options.init, teacher=options.teacher, seed=options.seed, report_every=options.report_every)


if __name__ == "__main__":
    main()
