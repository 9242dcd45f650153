"""Fine-tunes the encoder and its softmax twin on GLUE tasks and measures both, as results/glue.json.

    python -m spikeloom.model.golden.glue_report --run RUN --minutes 4                        # SST-2 and CoLA
    python -m spikeloom.model.golden.glue_report --run RUN --minutes 4 --tasks MRPC RTE --out mrpc.json

Both start from the released masked-text models (`--init`: a run's folder or a released model's). The spiking model trains for the
minutes, the twin for as many steps. Runs and weights stay in RUN: the sets carry no open licence, so nothing trained on them
is released.
"""

import argparse
import copy
import json
import os
from pathlib import Path

import torch

from .. import reference, store
from ..integer_torch import IntegerSequences
from ..train import load_config
from . import export, glue
from .train import train

CONFIG, INIT = "we-spikingformer-pairs", store.MODELS / "we-spikingformer"
TASKS = ("SST-2", "CoLA")


def config_of(task: str) -> dict:
    """The classifier's config with another task."""
    config = copy.deepcopy(load_config(CONFIG))
    config["model"] |= {"name": f"we-spikingformer-{task.lower()}", "classes": len(glue.SOURCES[task].classes)}
    config["training"] |= {"task": "glue", "glue": task}
    return config


def measure(task: str, folder: Path, init: Path, minutes: float | None, steps: int | None) -> dict:
    """One set: train, export, and name the classes of its official development file in every form."""
    config, run, twin = config_of(task), folder / task, folder / f"{task}-twin"
    train(config, run=run, minutes=minutes, steps=steps, init=init)
    taken = torch.load(run / "checkpoint.pt", weights_only=False, map_location="cpu")["step"]
    train(config, run=twin, kind="softmax", steps=taken, init=init)
    export.export_run(run, run / "export")
    stored = store.load(run / "export")
    opened = glue.Glue.open(stored.config, config["training"], run)
    integer = IntegerSequences(stored.tensors, stored.config)
    forms = {"integer": lambda tokens: integer(tokens).float() / stored.logit_scale, "golden": reference.load(run)[0],
             "softmax_twin": reference.load(twin)[0]}
    found, right = {}, None
    for name, form in forms.items():
        named, right, nats = opened.said(form, opened.official)
        found[name] = glue.scores(named, right) | {"nats": round(nats, 4)}
    cut, ones = opened.cut, float((right == 1).mean())
    return {"task": task, "examples": len(right), "training_examples": int(sum(map(len, opened.lengths.values()))), "steps": taken,
            "majority": {"accuracy": round(max(ones, 1 - ones), 4), "matthews": 0.0, "f1": round(2 * ones / (1 + ones), 4)}, **found,
            "characters_dropped": round(cut.dropped / cut.characters, 4), "texts_cut": round(cut.shortened / cut.texts, 4),
            "saturations": integer.saturations}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m spikeloom.model.golden.glue_report", description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=sorted(glue.SOURCES), default=TASKS)
    parser.add_argument("--run", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--init", type=Path, default=INIT, help="masked-text run or released model to start from")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, default=Path("results/glue.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    glue.folder()
    each = [measure(task, options.run, options.init, options.minutes, options.steps) for task in options.tasks]
    budget = f"--minutes {options.minutes:g}" if options.minutes else f"--steps {options.steps}"
    results = {"evidence": "[model]", "command": f"python -m spikeloom.model.golden.glue_report --run RUN {budget} --tasks "
               + " ".join(options.tasks), "torch": torch.__version__, "each": each}
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
