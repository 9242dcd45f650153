"""Trains a small BiSpikCLM with each SpAD loss on and off and logs what each one's gradient weighs, as results/spad.json.

    python -m spikeloom.model.golden.spad_report --run RUN --steps 400

The teacher is the student's softmax twin, trained first. Every student has the same start, texts and steps; a loss that is off
leaves the others' weights as they are (arXiv 2605.13859: 0.2, 0.1, 0.1, 0.3, 0.3). Runs stay in RUN.
"""

import argparse
import copy
import csv
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch

from ..distil import share_tokenizer
from ..spad import Weights
from ..train import load_config
from .cards import last_row
from .train import train

PAPER = Weights()
LOSSES = tuple(asdict(PAPER))
SHAPE = {"name": "bispikclm-small", "context": 64, "width": 32, "layers": 2, "hidden": 96}
#: Name of an arm -> the losses that are on.
ARMS = {"HTA alone": ("hta",), "all": LOSSES,
        **{f"all but {name.upper()}": tuple(other for other in LOSSES if other != name) for name in LOSSES},
        **{f"HTA and {name.upper()}": ("hta", name) for name in LOSSES if name != "hta"}}


def config_of(on: tuple[str, ...]) -> dict:
    """The BiSpikCLM config in small, with the losses that are on."""
    config = copy.deepcopy(load_config("bispikclm"))
    config["model"] |= SHAPE
    config["training"] |= {"spad": {name: weight if name in on else 0.0 for name, weight in asdict(PAPER).items()}}
    return config


def gradients(path: Path) -> list[dict]:
    """The norms of a run, first and last."""
    rows = [{key: int(value) if key == "step" else float(value) for key, value in row.items()}
            for row in csv.DictReader(path.read_text().splitlines())]
    return [rows[0], rows[-1]]


def measure(folder: Path, steps: int) -> dict:
    """Teacher, then every arm."""
    teacher, each = folder / "teacher", []
    train(config_of(LOSSES), run=teacher, kind="softmax", steps=steps, report_every=1e9)
    for name, on in ARMS.items():
        run = folder / name.lower().replace(" ", "-")
        share_tokenizer(teacher, run)
        print(name, flush=True)
        train(config_of(on), run=run, teacher=teacher, steps=steps, report_every=10)
        figures = {key: float(last_row(run)[key]) for key in ("development_nats", "firing_rate")}
        each.append({"losses": name, "on": list(on), **figures, "gradient_norms": gradients(run / "gradients.csv")})
    return {"teacher_nats": float(last_row(teacher)["development_nats"]), "steps": steps, "shape": SHAPE, "weights": asdict(PAPER),
            "each": each}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m spikeloom.model.golden.spad_report", description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("results/spad.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    results = {"evidence": "[model]", "command": f"python -m spikeloom.model.golden.spad_report --run RUN --steps {options.steps}",
               "torch": torch.__version__, **measure(options.run, options.steps)}
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
