"""Trains the spiking model, or its softmax twin, within a budget of wall-clock time or of steps.

    python -m spikeloom.model.train --config stories-260k --run RUN --minutes 100

Every schedule follows one number, the progress in 0..1 (the larger of elapsed / minutes and step / steps): learning
rate (warm-up, then cosine), hardness of the attention (0 to 1 until `anneal_until`), context (short, then full from
`long_from`), norm statistics (frozen from `freeze_from`), scales of weights (held from `hold_scales_from`, where it is given). A run
folder holds `checkpoint.pt`, `log.csv`, `tokenizer.json` and `config.json`; starting again in the same folder resumes. A SIGTERM
ends the run after the step, with a checkpoint.

`--start SOURCE` begins a new run with the weights of a finished one (its folder, or the `float.safetensors` beside a released
model), winners alone from the first step; the config's `continued` then stands in for what it names of `training`, also where the run
is resumed, as `twin_training` does for a softmax twin, whose best rate is another.

`torchrun --nproc-per-node N -m spikeloom.model.train --run-folder RUN ...` trains one model in N processes (`workers`); a GPU is
used where there is one, and `--precision bf16` mixes precisions. `--tensorboard` writes the log for TensorBoard too.

With `--teacher RUN` (a finished run with the same tokenizer, or a released model, whose twin teaches) the loss is that of
`distil`. The setting `sparsity` prices the share of synaptic operations that are not skipped, in nats per token for all of them; a list
of [progress, price] changes it on the way.
"""

import argparse
import json
import math
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from spikeloom.arch.config import ModelConfig

from . import corpus, reference
from .distil import Teacher, distillation_loss
from .float_model import FloatModel, FloatOptions
from .monitors import Bar, Log, firing
from .muon import Muon
from .text_sources import load_texts
from .tokenizer import Tokenizer
from .workers import PRECISIONS, Workers

CONFIGS = Path(__file__).parent / "configs"


def load_config(name: str) -> dict:
    """A config by name (`configs/NAME.json`) or by path.

    Raises
    ------
    FileNotFoundError
        Names the configs that exist.
    ValueError
        Where the file is no config.
    """
    path = Path(name) if name.endswith(".json") else CONFIGS / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.json")))
        raise FileNotFoundError(f"There is no config {name!r}; there are: {known}, or give the path of a .json file.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        dict(config["model"], **config["training"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no config of a training; those of {CONFIGS} are. ({type(error).__name__}: {error})") from error
    return config


class Corpus:
    """The real stream and the practice stream; practice files that appear while training runs are picked up."""

    def __init__(self, split: corpus.Split, tokenizer: Tokenizer, practice: Path | None, real_share: float,
                 workers: Workers | None = None):
        self.tokenizer, self.practice, self.real_share = tokenizer, practice, real_share
        self.workers = workers or Workers()
        self.real, self.sampled = corpus.TokenStream(0), corpus.TokenStream(0)
        self.real.extend(tokenizer.encode_all(split.train))
        self.known: set[Path] = set()
        self.refresh()

    def refresh(self) -> None:
        """Read new practice files; texts with characters that the tokenizer never saw are dropped."""
        if self.practice is None:
            return
        new = self.workers.from_first(sorted(set(self.practice.glob("*.json.gz")) - self.known))
        if not new:  # most of the times it is asked for, and appending copies the whole stream
            return
        self.sampled.extend_packed(*(corpus.encode_practice(path, self.tokenizer) for path in new))
        self.known.update(new)

    def batch(self, count: int, context: int, random: np.random.Generator):
        """Tokens and targets [count, context], a share `real_share` of the rows from the real stream."""
        real = count if len(self.sampled) <= context else round(count * self.real_share)
        parts = [self.real.windows(real, context, random)] if real else []
        if count > real:
            parts.append(self.sampled.windows(count - real, context, random))
        tokens, targets = zip(*parts)
        return torch.cat(tokens), torch.cat(targets)


@torch.no_grad()
def development_loss(model, texts: list[list[int]], end_token: int, context: int) -> float:
    """Nats per token over the first `context` tokens of each text, evaluation form, winners alone."""
    training = model.training
    model.eval()
    hardness = model.hardness.clone() if hasattr(model, "hardness") else None
    if hardness is not None:
        model.hardness.fill_(1.0)
    total, count = 0.0, 0
    with torch.compiler.set_stance("force_eager"):
        for ids in texts:
            stream = torch.tensor([end_token, *ids, end_token], device=next(model.parameters()).device)[: context + 1]
            logits = model(stream[None, :-1])
            total += F.cross_entropy(logits[0], stream[1:], reduction="sum").item()
            count += len(stream) - 1
    if hardness is not None:
        model.hardness.copy_(hardness)
    model.train(training)
    return total / count


def build_optimisers(model, settings: dict) -> list[torch.optim.Optimizer]:
    """AdamW (matrices decay, gains, shifts and biases do not); with `muon` the layers' matrices go to Muon; `model.rates` are factors."""
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    factors = {name: factor for name, factor in getattr(model, "rates", {}).items() if factor != 1}
    faster = [(parameter, factors[name]) for name, parameter in model.named_parameters() if name in factors]
    rest = [parameter for name, parameter in model.named_parameters() if name not in factors]
    matrices, vectors = [p for p in rest if p.ndim >= 2], [p for p in rest if p.ndim < 2]
    optimisers = []
    if settings.get("muon"):
        inner = [p for p in model.blocks.parameters() if p.ndim == 2]
        chosen = {id(p) for p in inner}
        matrices = [p for p in matrices if id(p) not in chosen]
        optimisers.append(Muon(inner, lr=rate * settings["muon"], weight_decay=decay))
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    groups += [{"params": [p], "weight_decay": decay if p.ndim >= 2 else 0.0, "lr": rate * factor} for p, factor in faster]
    optimisers.append(torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), foreach=True))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return optimisers


def build_model(config: dict, kind: str, kernel: bool = True):
    """The spiking model or the softmax twin of a config; without `kernel` attention is made of tensors, which GPUs need."""
    if kind == "spiking" and "golden" in config:
        from .golden import GoldenOptions, SpikingTransformer

        return SpikingTransformer(ModelConfig.from_dict(config["model"]), GoldenOptions.from_dict(config["golden"]))
    if kind == "spiking":
        return FloatModel(ModelConfig.from_dict(config["model"]), config["fraction"], FloatOptions.from_dict(config.get("float", {})),
                          kernel=kernel)
    from .softmax_twin import SoftmaxTwin

    return SoftmaxTwin.matching(ModelConfig.from_dict(config["model"]), **config.get("twin", {}))


def was_continued(folder: Path) -> bool:
    """Whether the run in a folder goes on from another's weights."""
    path = folder / "checkpoint.pt"
    return path.exists() and torch.load(path, weights_only=False, map_location="cpu", mmap=True).get("continued", False)


class Run:
    """A run folder: model, optimisers and counters, as a checkpoint finds or starts them."""

    def __init__(self, folder: Path, config: dict, kind: str, seed: int, teacher: Teacher | None = None, start: Path | None = None,
                 workers: Workers | None = None):
        self.folder, self.config, self.kind, self.teacher, self.workers = folder, config, kind, teacher, workers or Workers()
        self.model = build_model(config, kind, kernel=self.workers.device.type == "cpu").to(self.workers.device)
        self.optimisers = build_optimisers(self.model, config["training"])
        self.step, self.tokens, self.before, self.progress = 0, 0, 0.0, 0.0
        self.continued = bool(start)
        self.seed, self.random = seed, np.random.default_rng((seed, 0))
        #: Of the latest step, before it was clipped.
        self.gradient_norm = torch.zeros(())
        if start and not (folder / "checkpoint.pt").exists():
            self._begin(start)
        if (folder / "checkpoint.pt").exists():
            self._restore(torch.load(folder / "checkpoint.pt", weights_only=False, map_location=self.workers.device))
        self.learner = self.workers.wrap(self.model)
        self.start = self.saved = self.reported = time.time()

    def _begin(self, start: Path) -> None:
        state = reference.state_of(start)
        self._take(start, state)
        self.tokens = state["tokens"]

    def _take(self, source: Path, state: dict) -> None:
        """Weights of a run, a file or a checkpoint, of the same kind and shape."""
        if state.get("kind", self.kind) != self.kind:
            raise ValueError(f"{source} holds a {state['kind']} model, this run trains a {self.kind} one.")
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise ValueError(f"{source} holds a model of another shape than this config's; give the config that it was trained with, "
                             "or another folder for the run.") from error

    def _restore(self, state: dict) -> None:
        self._take(self.folder, state)
        for optimiser, saved in zip(self.optimisers, state["optimisers"]):
            # The peak rate is the config's, which may have changed since.
            peaks = [group["peak"] for group in optimiser.param_groups]
            optimiser.load_state_dict(saved)
            for group, peak in zip(optimiser.param_groups, peaks):
                group["peak"] = peak
        self.step, self.tokens, self.before = state["step"], state["tokens"], state["seconds"]
        self.continued = self.continued or state.get("continued", False)
        self.random = np.random.default_rng((self.seed, self.step))
        if state.get("seed") == self.seed:  # the stream goes on as if there had been no break
            self.random.bit_generator.state = state["random"]

    @property
    def seconds(self) -> float:
        """Time spent in training, earlier starts included."""
        return self.before + time.time() - self.start

    @property
    def density(self) -> float:
        """Share of the dense synaptic operations in the last batch; 1 where the model has no silent neurons to skip."""
        return self.model.density.item() if self.kind == "spiking" else 1.0

    def more(self) -> dict:
        """What a checkpoint holds besides."""
        return {}

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        self.saved = time.time()
        if not self.workers.first:
            return
        partial = self.folder / "checkpoint.part"
        torch.save({"model": self.model.state_dict(), "optimisers": [o.state_dict() for o in self.optimisers],
                    "step": self.step, "tokens": self.tokens, "seconds": self.seconds, "progress": self.progress,
                    "kind": self.kind, "config": self.config, "continued": self.continued, "seed": self.seed,
                    "random": self.random.bit_generator.state, **self.more()}, partial)
        partial.rename(self.folder / "checkpoint.pt")

    def schedule(self) -> tuple[int, float, float]:
        """Set learning rate, hardness and norms for the present progress; returns (context, rate, hardness)."""
        settings, longest = self.config["training"], self.config["model"]["context"]
        share = min(1.0, (self.step + 1) / settings["warmup_steps"])
        share *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.progress))
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * share
        until = settings["anneal_until"]
        hardness, context = (min(1.0, self.progress / until) if until else 1.0), longest
        if self.kind == "spiking":
            self.model.hardness.fill_(hardness)
            self.model.freeze_norms(self.progress >= settings["freeze_from"])
            if self.progress >= settings.get("hold_scales_from", math.inf):
                self.model.hold_scales()
            # The twin's learned positions need the full context from the start; this model knows distances only.
            if self.progress < settings["long_from"]:
                context = min(settings["short_context"], longest)
        return context, settings["learning_rate"] * share, hardness

    def losses(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(loss that is told, what is minimised) of tokens and targets [B, T]: the latter pays for synaptic operations too."""
        with self.workers.mixed():
            logits = self.learner(inputs)
        logits = logits.float()
        if self.teacher is None:
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        else:
            loss = distillation_loss(logits, targets, self.teacher(inputs), **self.config["training"].get("distillation", {}))
        price = price_at(self.config["training"].get("sparsity", 0.0), self.progress)
        return loss, loss + price * self.model.density if price and self.kind == "spiking" else loss

    def learn(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """One step on this process's rows of tokens and targets [B, T]; returns its loss."""
        loss, minimised = self.losses(inputs, targets)
        for optimiser in self.optimisers:  # which may learn more than the model
            optimiser.zero_grad()
        minimised.backward()
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0).detach()
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        self.tokens += inputs.numel() * self.workers.count
        return loss.detach()


def price_at(price: float | list[list[float]], progress: float) -> float:
    """Price of all synaptic operations at a progress in 0..1: the last of [progress, price] that is reached, or always the same."""
    if not isinstance(price, list):
        return price
    return max((pair for pair in price if pair[0] <= progress), default=(0.0, 0.0))[1]


def check_budget(minutes: float | None, steps: int | None) -> None:
    """Refuse a budget that is missing, or that no time would ever spend."""
    if not minutes and not steps:
        raise ValueError("Give a budget: minutes, steps, or both.")
    if (minutes or 0) < 0 or (steps or 0) < 0:
        raise ValueError(f"A budget is more than 0 (minutes {minutes}, steps {steps}): with less, training would not end.")


def prepare(config: dict, folder: Path, split: corpus.Split, practice: Path | None,
            workers: Workers) -> tuple[Corpus, list[list[int]], float]:
    """The run folder with its tokenizer; what is trained on, development tokens, and their bytes per token."""
    shape = ModelConfig.from_dict(config["model"])
    if workers.first:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "tokenizer.json").exists():
            Tokenizer.train(split.train, shape.vocabulary).save(folder / "tokenizer.json")
    workers.from_first(None)  # the others wait for the tokenizer
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    development = [ids[: shape.context] for ids in tokenizer.encode_all(split.development)]
    bytes_per_token = sum(len(tokenizer.decode(ids).encode()) for ids in development) / sum(map(len, development))
    return Corpus(split, tokenizer, practice, config["training"]["real_share"], workers), development, bytes_per_token


def report(state: Run, log: Log, context: int, rate: float, hardness: float, running: torch.Tensor, development: list[list[int]],
           bytes_per_token: float) -> None:
    """One line of the log: losses, and the monitors of gradients and neurons."""
    shape = state.model.config if state.kind == "spiking" else ModelConfig.from_dict(state.config["model"])
    nats = development_loss(state.model, development, shape.end_token, shape.context)
    sample = torch.tensor([(ids * shape.context)[: shape.context] for ids in development[:4]], device=state.workers.device)
    fired, silent = firing(state.model, sample)
    log.write(state.step, round(state.seconds, 1), round(state.progress, 4), state.tokens, context, f"{rate:.3g}", round(hardness, 3),
              round(running.item(), 4), round(nats, 4), round(nats / math.log(2) / bytes_per_token, 4), round(state.density, 4),
              round(state.gradient_norm.item(), 4), round(fired, 4), round(silent, 4))


def train(config: dict, *, run: Path, kind: str = "spiking", minutes: float | None = None, steps: int | None = None,
          practice: Path | None = None, teacher: Path | str | None = None, start: Path | None = None, split: corpus.Split | None = None,
          seed: int = 0, compiled: bool = True, save_every: float = 180.0, report_every: float = 60.0, quiet: bool = False,
          workers: Workers | None = None, tensorboard: bool = False):
    """Train (or resume) in folder `run` until the budget is spent; returns the model in evaluation form.

    Raises
    ------
    ValueError
        When neither minutes nor steps are given, the teacher has another tokenizer, or `start` or the folder holds another model.
    """
    check_budget(minutes, steps)
    folder, workers = Path(run), workers or Workers()
    goes_on = start or was_continued(folder)
    for part, applies in (("twin_training", kind == "softmax"), ("continued", goes_on)):  # a run that goes on is gentler, a twin's too
        if applies:
            config = config | {"training": config["training"] | config.get(part, {})}
    torch.manual_seed(seed)
    data, development, bytes_per_token = prepare(config, folder, split or corpus.load_default(), practice, workers)
    settings, guide = config["training"], Teacher(teacher, data.tokenizer).to(workers.device) if teacher else None
    state = Run(folder, config, kind, seed, guide, start, workers)
    if workers.first:  # behind the checkpoint, which refuses a config of another shape
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    log = Log(folder / "log.csv", quiet, tensorboard=tensorboard) if workers.first else None
    bar = Bar(f"{config['model'].get('name', 'model')}, {kind}", quiet or not workers.first)
    if compiled:
        state.model.compile_blocks()
        if guide:
            guide.model.compile_blocks()
    told: list[bool] = []
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    running = None
    while True:
        progress = max(state.seconds / (60 * minutes) if minutes else 0.0, state.step / steps if steps else 0.0)
        state.progress, stop = workers.agree(progress, bool(told))
        if stop or state.progress >= 1:
            break
        context, rate, hardness = state.schedule()
        batch = data.batch(workers.rows(settings["batch_tokens"] // context), context, state.random)
        loss = state.learn(*workers.own(*batch))
        running = loss if running is None else running.lerp(loss, 0.02)
        if workers.from_first(time.time() - state.reported > report_every):
            if log:
                report(state, log, context, rate, hardness, running, development, bytes_per_token)
                bar.show(state.progress, f"step {state.step}, loss {running.item():.3f}")
            data.refresh()
            state.reported = time.time()
        if time.time() - state.saved > save_every:
            state.save()
    bar.close()
    if kind == "spiking":
        state.model.hardness.fill_(1.0)
    state.save()
    workers.meet()  # nobody leaves before the files are written
    return state.model.eval()


def common_arguments() -> argparse.ArgumentParser:
    """What every trainer may be told, to be a parser's parent."""
    parser = argparse.ArgumentParser(add_help=False)
    # torchrun has options of its own that begin with --run.
    parser.add_argument("--run", "--run-folder", type=Path, required=True, help="folder of this run; an existing one is resumed")
    parser.add_argument("--kind", choices=("spiking", "softmax"), default="spiking")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--data", metavar="SOURCE", help="texts: a .txt, .json, .jsonl (all .gz too) or folder, or hf:NAME[:CONFIG]; "
                        "default: the config's own corpus")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of matrix products while learning")
    parser.add_argument("--tensorboard", action="store_true", help="write the log for TensorBoard too")
    parser.add_argument("--report-every", type=float, default=60.0, metavar="SECONDS")
    return parser


def main(arguments: list[str] | None = None) -> None:
    from .golden import train as golden

    if golden.is_golden(arguments):
        return golden.main(arguments)
    parser = argparse.ArgumentParser(prog="spikeloom train", description=__doc__.splitlines()[0], parents=[common_arguments()])
    parser.add_argument("--config", default="stories-260k", help="name of a config, or a path")
    parser.add_argument("--practice", type=Path, help="folder of practice-*.json.gz")
    parser.add_argument("--teacher", help="finished run whose predictions are learned too, or a released model whose twin teaches")
    parser.add_argument("--start", type=Path, help="run folder or float.safetensors whose weights a new run begins with")
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    workers, config = Workers.join(options.device, options.precision), load_config(options.config)
    try:
        train(config, run=options.run, kind=options.kind, minutes=options.minutes, steps=options.steps,
              practice=options.practice, teacher=options.teacher, start=options.start, seed=options.seed,
              split=load_texts(options.data) if options.data else corpus.corpus_of(config["model"]["name"]),
              compiled=not options.no_compile, workers=workers, report_every=options.report_every, tensorboard=options.tensorboard)
    finally:
        workers.leave()


if __name__ == "__main__":
    main()
