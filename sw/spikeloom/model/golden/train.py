"""Trains a golden model, or its softmax twin: the trainer of configs that hold `golden`.

    spikeloom train --config spikedecoder --run RUN --minutes 8
    spikeloom train --config spikedecoder --run TWIN --kind softmax --steps 700
    spikeloom train --config we-spikingformer-pairs --run PAIRS --init RUN --minutes 5

Schedules, run folder, checkpoints and resuming are those of `model.train`. `--init RUN` starts from the weights of another run or of a
released model's folder (all but the head: fine-tuning). `--teacher RUN` adds SpAD (arXiv 2605.13859) from a finished softmax twin or
a released model's, with the weights in the config's `spad`; the norm of each loss's gradient goes to `gradients.csv`, before the first
step and with every report. The config's `twin` holds what of `training` suits a softmax twin better.

`--data`, `--device`, `--precision` and `--tensorboard` are those of `model.train`; one process trains.
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
from ..monitors import Bar, Log, firing
from ..softmax_twin import SoftmaxTwin
from ..spad import SpAD, TwinTeacher, Weights, gradient_norms
from ..text_sources import load_texts
from ..train import Run, check_budget, common_arguments, load_config
from ..workers import Workers, pick_device
from .glue import Glue
from .tasks import TASKS, Task

#: Tasks whose data are texts of any kind.
LANGUAGE = ("causal", "masked")
FIGURES = ("development_nats", "development_bits_per_byte", "accuracy")
COLUMNS = ("step", "seconds", "progress", "tokens", "learning_rate", "hardness", "loss", *FIGURES, "gradient_norm", "firing_rate",
           "silent_neurons")


def is_golden(arguments: list[str] | None) -> bool:
    """Whether the config named on a command line is a golden model's."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config", default="stories-260k")
    name = parser.parse_known_args(arguments)[0].config
    try:
        return "golden" in load_config(name)
    except FileNotFoundError:
        return False  # `model.train` says so


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
    workers : Workers, optional
        This process alone: its device and precision.
    """

    def __init__(self, folder: Path, config: dict, kind: str, task: Task, seed: int, init: Path | None = None,
                 teacher: Path | str | None = None, workers: Workers | None = None):
        super().__init__(folder, config, kind, seed, workers=workers)
        self.task, self.spad = task, None
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
        twin, device = teacher_model(teacher), self.workers.device
        if not isinstance(twin, SoftmaxTwin):
            raise ValueError(f"The teacher {teacher} is not a softmax twin; train one with --kind softmax.")
        c, tokens, length = self.model.config, twin.embed.num_embeddings, twin.position.num_embeddings
        if tokens != c.vocabulary or length < c.context:
            raise ValueError(f"The teacher {teacher} knows {tokens} tokens and texts of {length}, this model wants {c.vocabulary} and "
                             f"{c.context}.")
        check_tokenizer(teacher, self.task.tokenizer)
        self.guide = TwinTeacher(twin.to(device))
        weights = Weights(**self.config["training"].get("spad", {}))
        self.spad = SpAD(layers=c.layers, teacher_layers=self.guide.layers, width=c.width, teacher_width=self.guide.width,
                         weights=weights).to(device)
        if any(True for _ in self.spad.parameters()):
            self.optimisers.append(torch.optim.AdamW(self.spad.parameters(), lr=1e-3))
            self.optimisers[-1].param_groups[0]["peak"] = 1e-3
        if (self.folder / "checkpoint.pt").exists():
            self._resume_projections(torch.load(self.folder / "checkpoint.pt", weights_only=False, map_location=device))

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

    def losses(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The task's loss, or SpAD's, twice: operations have no price here."""
        if self.spad is None:
            with self.workers.mixed():
                logits = self.learner(inputs)
            loss = self.task.loss(logits.float(), targets)
        else:
            loss = self.spad.total(self._alignments(inputs, targets))
        return loss, loss

    def _alignments(self, inputs, targets):
        kept: dict = {}
        with self.workers.mixed():
            logits = self.learner(inputs, kept)
        return self.spad.losses(logits.float(), targets, kept, *self.guide(inputs))

    def gradients(self, inputs: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        """Norm of each SpAD loss's gradient on a batch."""
        return gradient_norms(self.spad, self._alignments(inputs, targets), [p for p in self.model.parameters() if p.requires_grad])


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
          save_every: float = 120.0, report_every: float = 60.0, quiet: bool = False, workers: Workers | None = None,
          tensorboard: bool = False):
    """Train (or resume) in folder `run` until the budget is spent; returns the model in evaluation form.

    Raises
    ------
    ValueError
        When neither minutes nor steps are given, another run does not fit, or several processes were started.
    """
    check_budget(minutes, steps)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # each would write over the others' files
        raise ValueError("Models of configs that hold `golden` are trained by one process; start it without torchrun.")
    workers = workers or Workers()
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
    state = GoldenRun(folder, config, kind, task, seed, init, teacher, workers)
    log = Log(folder / "log.csv", quiet, COLUMNS, tensorboard)
    bar = Bar(f"{config['model'].get('name', 'model')}, {kind}", quiet)
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
            inputs, targets = workers.own(*task.batch(state.random))
            if state.spad is not None and state.step == 0:
                _log_gradients(folder / "gradients.csv", state, inputs, targets)
            loss = state.learn(inputs, targets)
            running = loss if running is None else running.lerp(loss, 0.02)
        if running is not None and (finished or time.time() - state.reported > report_every):
            figures, (fired, silent) = _development(state, task), firing(state.model, inputs[:4])
            log.write(state.step, round(state.seconds, 1), round(state.progress, 4), state.tokens, f"{learning_rate:.3g}",
                      round(hardness, 3), round(running.item(), 4), *(figures.get(name, "") for name in FIGURES),
                      round(state.gradient_norm.item(), 4), round(fired, 4), round(silent, 4))
            bar.show(state.progress, f"step {state.step}, loss {running.item():.3f}")
            if state.spad is not None:
                _log_gradients(folder / "gradients.csv", state, inputs, targets)
            state.reported = time.time()
        if finished:
            break
        if time.time() - state.saved > save_every:
            state.save()
    bar.close()
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


def texts_of(source: str, config: dict) -> Split:
    """The texts of `--data` for a config that models language, as one without a task does.

    Raises
    ------
    ValueError
        When its task has data of its own.
    """
    task = config["training"].get("task")
    if task is not None and task not in LANGUAGE:
        raise ValueError(f"--data is for configs that model language ({', '.join(LANGUAGE)}); the task of this one, {task!r}, has its own.")
    return load_texts(source)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="spikeloom train", description=__doc__.splitlines()[0], parents=[common_arguments()])
    parser.add_argument("--config", required=True, help="name of a config, or a path")
    parser.add_argument("--init", type=Path, help="folder of a run or of a released model to start from (fine-tuning)")
    parser.add_argument("--teacher", help="finished run of a softmax twin, or a released model whose twin teaches, for SpAD")
    options = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    config = load_config(options.config)
    train(config, run=options.run, kind=options.kind, minutes=options.minutes, steps=options.steps, init=options.init,
          teacher=options.teacher, split=texts_of(options.data, config) if options.data else None, seed=options.seed,
          report_every=options.report_every, workers=Workers(device=pick_device(options.device), precision=options.precision),
          tensorboard=options.tensorboard)


if __name__ == "__main__":
    main()
