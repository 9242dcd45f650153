"""Trains the spiking model, or its softmax twin, within a budget of wall-clock time or of steps.

    python -m spikeloom.model.train --config stories-260k --run RUN --minutes 100

Every schedule follows one number, the progress in 0..1 (the larger of elapsed / minutes and step / steps): learning
rate (warm-up, then cosine), hardness of the attention (0 to 1 until `anneal_until`), context (short, then full from
`long_from`), norm statistics (frozen from `freeze_from`). A run folder holds `checkpoint.pt`, `log.csv`,
`tokenizer.json` and `config.json`; starting again in the same folder resumes. A SIGTERM
ends the run after the step, with a checkpoint.
"""

import argparse
import csv
import json
import math
import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from spikeloom.arch.config import ModelConfig

from . import corpus
from .float_model import FloatModel
from .muon import Muon
from .tokenizer import Tokenizer

CONFIGS = Path(__file__).parent / "configs"
COLUMNS = ("step", "seconds", "progress", "tokens", "context", "learning_rate", "hardness", "loss", "development_nats",
           "development_bits_per_byte")


def load_config(name: str) -> dict:
    """A config by name (`configs/NAME.json`) or by path.

    Raises
    ------
    FileNotFoundError
        Names the configs that exist.
    """
    path = Path(name) if name.endswith(".json") else CONFIGS / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.json")))
        raise FileNotFoundError(f"There is no config {name!r}; there are: {known}, or give the path of a .json file.")
    return json.loads(path.read_text())


class Corpus:
    """The real stream and the practice stream; practice files that appear while training runs are picked up."""

    def __init__(self, split: corpus.Split, tokenizer: Tokenizer, practice: Path | None, real_share: float):
        self.tokenizer, self.practice, self.real_share = tokenizer, practice, real_share
        self.real, self.sampled = corpus.TokenStream(0), corpus.TokenStream(0)
        self.real.extend(tokenizer.encode_all(split.train))
        self.known: set[Path] = set()
        self.refresh()

    def refresh(self) -> None:
        """Read new practice files; texts with characters that the tokenizer never saw are dropped."""
        if self.practice is None:
            return
        new = sorted(set(self.practice.glob("*.json.gz")) - self.known)
        stories = [story for path in new for story in corpus.load_practice(path)]
        stories = [story for story in stories if story["text"] and not self.tokenizer.unknown(story["text"])]
        self.sampled.extend(self.tokenizer.encode_all([s["text"] for s in stories]), [s["complete"] for s in stories])
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
            stream = torch.tensor([end_token, *ids, end_token])[: context + 1]
            logits = model(stream[None, :-1])
            total += F.cross_entropy(logits[0], stream[1:], reduction="sum").item()
            count += len(stream) - 1
    if hardness is not None:
        model.hardness.copy_(hardness)
    model.train(training)
    return total / count


def build_optimisers(model, settings: dict) -> list[torch.optim.Optimizer]:
    """AdamW (matrices decay, gains, shifts and biases do not); with `muon` the layers' matrices go to Muon."""
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    optimisers = []
    if settings.get("muon"):
        inner = [p for p in model.blocks.parameters() if p.ndim == 2]
        chosen = {id(p) for p in inner}
        matrices = [p for p in matrices if id(p) not in chosen]
        optimisers.append(Muon(inner, lr=rate * settings["muon"], weight_decay=decay))
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    optimisers.append(torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), foreach=True))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return optimisers


def build_model(config: dict, kind: str):
    """The spiking model or the softmax twin of a config."""
    if kind == "spiking":
        return FloatModel(ModelConfig.from_dict(config["model"]), config["fraction"])
    from .softmax_twin import SoftmaxTwin

    return SoftmaxTwin.matching(ModelConfig.from_dict(config["model"]))


def save(path: Path, state: dict) -> None:
    """Write whole or not at all."""
    partial = path.with_suffix(".part")
    torch.save(state, partial)
    partial.rename(path)


def train(config: dict, *, run: Path, kind: str = "spiking", minutes: float | None = None, steps: int | None = None,
          practice: Path | None = None, split: corpus.Split | None = None, seed: int = 0, compiled: bool = True,
          save_every: float = 180.0, report_every: float = 60.0, quiet: bool = False):
    """Train (or resume) in folder `run` until the budget is spent; returns the model in evaluation form.

    Raises
    ------
    ValueError
        When neither minutes nor steps are given.
    """
    if not minutes and not steps:
        raise ValueError("Give a budget: minutes, steps, or both.")
    run = Path(run)
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    split = split or corpus.load_default()
    settings, shape = config["training"], ModelConfig.from_dict(config["model"])
    if not (run / "tokenizer.json").exists():
        Tokenizer.train(split.train, shape.vocabulary).save(run / "tokenizer.json")
    tokenizer = Tokenizer.load(run / "tokenizer.json")
    (run / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    data = Corpus(split, tokenizer, practice, settings["real_share"])
    development = tokenizer.encode_all([text[:2000] for text in split.development])
    head = [tokenizer.decode(ids[: shape.context]) for ids in development]
    bytes_per_token = sum(len(t.encode()) for t in head) / sum(min(len(i), shape.context) for i in development)

    model = build_model(config, kind)
    optimisers = build_optimisers(model, settings)
    step, tokens, before = 0, 0, 0.0
    if (run / "checkpoint.pt").exists():
        state = torch.load(run / "checkpoint.pt", weights_only=False)
        model.load_state_dict(state["model"])
        for optimiser, saved_state in zip(optimisers, state["optimisers"]):
            peaks = [group["peak"] for group in optimiser.param_groups]
            optimiser.load_state_dict(saved_state)
            for group, peak in zip(optimiser.param_groups, peaks):
                group["peak"] = peak
        step, tokens, before = state["step"], state["tokens"], state["seconds"]
        random = np.random.default_rng(seed + step)
    if compiled and hasattr(model, "compile_blocks"):
        model.compile_blocks()
    start = time.time()
    new_log = not (run / "log.csv").exists()
    log = open(run / "log.csv", "a", newline="")
    writer = csv.writer(log)
    if new_log:
        writer.writerow(COLUMNS)

    def checkpoint(progress: float) -> None:
        save(run / "checkpoint.pt", {"model": model.state_dict(), "step": step,
                                     "optimisers": [optimiser.state_dict() for optimiser in optimisers], "tokens": tokens, "seconds": before + time.time() - start, "progress": progress,
                                     "kind": kind, "config": config})

    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    running, saved, reported = None, time.time(), time.time()
    while True:
        seconds = before + time.time() - start
        progress = max(seconds / (60 * minutes) if minutes else 0.0, step / steps if steps else 0.0)
        if progress >= 1 or stop:
            break
        # The twin's learned positions need the full context from the start; the spiking model knows distances only.
        short = kind == "spiking" and progress < settings["long_from"]
        context = min(settings["short_context"], shape.context) if short else shape.context
        share = min(1.0, (step + 1) / settings["warmup_steps"]) * (0.01 + 0.495 * (1 + math.cos(math.pi * progress)))
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * share
        hardness = min(1.0, progress / settings["anneal_until"])
        if kind == "spiking":
            model.hardness.fill_(hardness)
            model.freeze_norms(progress >= settings["freeze_from"])
        inputs, targets = data.batch(max(1, settings["batch_tokens"] // context), context, random)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        step += 1
        tokens += inputs.numel()
        running = loss.detach() if running is None else running.lerp(loss.detach(), 0.02)
        if time.time() - reported > report_every:
            nats = development_loss(model, development, shape.end_token, shape.context)
            row = (step, round(seconds, 1), round(progress, 4), tokens, context, f"{settings['learning_rate'] * share:.3g}", round(hardness, 3),
                   round(running.item(), 4), round(nats, 4), round(nats / math.log(2) / bytes_per_token, 4))
            writer.writerow(row)
            log.flush()
            if not quiet:
                print(" ".join(f"{name} {value}" for name, value in zip(COLUMNS, row)), flush=True)
            data.refresh()
            reported = time.time()
        if time.time() - saved > save_every:
            checkpoint(progress)
            saved = time.time()
    if kind == "spiking":
        model.hardness.fill_(1.0)
    checkpoint(progress)
    log.close()
    return model.eval()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="stories-260k", help="name of a config, or a path")
    parser.add_argument("--run", type=Path, required=True, help="folder of this run; an existing one is resumed")
    parser.add_argument("--kind", choices=("spiking", "softmax"), default="spiking")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--practice", type=Path, help="folder of practice-*.json.gz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    train(load_config(options.config), run=options.run, kind=options.kind, minutes=options.minutes, steps=options.steps,
          practice=options.practice, seed=options.seed, compiled=not options.no_compile)


if __name__ == "__main__":
    main()
