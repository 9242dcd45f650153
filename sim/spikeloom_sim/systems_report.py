"""Measures every named system, as `results/systems.json` and `docs/systems.md`.

    python -m spikeloom_sim.systems_report            # measure, then write both
    python -m spikeloom_sim.systems_report --page     # the page alone, from the results

Per released model: held-out loss of the integer form, of the golden (float) form and of the softmax twin beside it, firing rate,
synaptic operations and projected energy by the integer model, cycles, mismatches and the same operations by the counters of the
Verilated machine. The page also shows `results/glue.json` and `results/spad.json`, where they are.
"""

import argparse
import json
import math
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from spikeloom.arch.presets import preset
from spikeloom.compiler import compile_model
from spikeloom.driver.device import Device
from spikeloom.driver.verify import verify, verify_encoding
from spikeloom.model import energy, store
from spikeloom.model.integer_model import IntegerModel

from .machine import open_machine
from .systems_page import page
from .versions import versions

EVIDENCE = "[sim] cycles and mismatches; [model] everything else"
RESULTS, PAGE = Path("results/systems.json"), Path("docs/systems.md")
#: Released model -> the system it stands for.
NAMED = {"wd-spikingformer": "WD-Spikingformer", "bispikclm": "BiSpikCLM", "spikedecoder": "SpikeDecoder",
         "we-spikingformer": "WE-Spikingformer, masked text", "we-spikingformer-pairs": "WE-Spikingformer, classification"}
#: Held-out tokens that are measured at most, windows of an encoder, and tokens made (or texts read) on the machine.
HELD_OUT_TOKENS, WINDOWS, NEW_TOKENS, TEXTS = 24_000, 6, 48, 2


def quality(config: dict, folder: Path) -> dict:
    """Held-out figures of the integer model and of the twin, by the task the model was trained on."""
    import torch

    from spikeloom.model.golden.tasks import TASKS, MaskedToken, NextToken
    from spikeloom.model.integer_torch import IntegerSequences
    from spikeloom.model.reference import load

    torch.set_num_threads(1)
    stored = store.load(folder)
    task = TASKS[config["training"]["task"]].open(stored.config, config["training"], folder)
    integer = IntegerSequences(stored.tensors, stored.config)
    twin, state = load(folder / "reference" / "twin.safetensors")
    forms = {"integer": lambda tokens: integer(tokens).double() / stored.logit_scale,
             "golden": load(folder / "reference" / "float.safetensors")[0], "softmax_twin": twin}
    found = {"steps": steps_of(folder), "twin_parameters": twin.parameters_in_all(), "twin_tokens": state["tokens"],
             "parameters": sum(tensor.size for tensor in stored.tensors.values())}
    if not stored.config.classes:
        found |= context_free(task)
        forms |= {"unigram": lambda tokens: found["_unigram"].expand(*tokens.shape, -1)}
        if isinstance(task, NextToken):
            forms |= {"bigram": lambda tokens: found["_bigram"][tokens]}
    for name, form in forms.items():
        if isinstance(task, NextToken):
            found[name] = _next_token(task, form)
        elif isinstance(task, MaskedToken):
            held = np.concatenate([np.array(ids) for ids in task.tokenizer.encode_all(task.split.held_out)])
            found[name] = task.development(form, held, batches=WINDOWS)
        else:
            found[name] = _pairs(task, form)
    found["saturations"] = integer.saturations
    return {name: value for name, value in found.items() if not name.startswith("_")}


def context_free(task) -> dict:
    """Log-probabilities of a token alone [V], and after its predecessor [V, V]: counts of the training text, one added to each."""
    import torch

    size, counts = task.config.vocabulary, None
    for ids in task.tokenizer.encode_all(task.split.train):
        pairs = np.array([task.config.end_token, *ids])
        seen = np.bincount(pairs[:-1] * size + pairs[1:], minlength=size * size)
        counts = seen if counts is None else counts + seen
    bigram = torch.from_numpy(counts.reshape(size, size)).double() + 1
    unigram = bigram.sum(0)
    return {"_unigram": (unigram / unigram.sum()).log(), "_bigram": (bigram / bigram.sum(1, keepdim=True)).log()}


def steps_of(folder: Path) -> int:
    """Training steps that a released model's card tells."""
    return int(re.search(r"^([\d,]+) steps,", (folder / "card.md").read_text(encoding="utf-8"), re.MULTILINE)[1].replace(",", ""))


def _next_token(task, form) -> dict:
    """Nats per token and bits per byte over windows of the held-out text; every token of a window is scored."""
    import torch
    import torch.nn.functional as F

    c, total, count, bytes_read = task.config, 0.0, 0, 0
    share = HELD_OUT_TOKENS // max(1, len(task.split.held_out))
    with torch.no_grad():
        for ids in task.tokenizer.encode_all([text[: 2 * share] for text in task.split.held_out]):
            ids = ids[:share]
            for start in range(0, len(ids) - c.context, c.context):
                part = ids[start:start + c.context]
                tokens = torch.tensor([[c.end_token, *part[:-1]]])
                total += F.cross_entropy(form(tokens)[0].double(), torch.tensor(part), reduction="sum").item()
                count += len(part)
                bytes_read += len(task.tokenizer.decode(part).encode())
    return {"nats_per_token": round(total / count, 4), "bits_per_byte": round(total / math.log(2) / bytes_read, 4), "tokens": count}


def _pairs(task, form) -> dict:
    from spikeloom.model.golden import pairs

    lines = pairs.lines_of(task.split.held_out)
    examples = pairs.fixed(lines, 400, task.tokenizer.encode_all, task.config.end_token, task.config.context)
    labels = [label for _, label in examples]
    figures = task.development(form, examples)
    return {"nats": figures["development_nats"], "accuracy": figures["accuracy"],
            "majority": round(max(labels.count(label) for label in set(labels)) / len(labels), 4), "examples": len(examples)}


class Counting(IntegerModel):
    """Adds up the counters of every token."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.counts, self.tokens, self.seen = Counter(), 0, 0

    def step(self, token, position, **options):
        trace = super().step(token, position, **options)
        self._count([trace], position + 1)
        return trace

    def encode(self, tokens):
        traces = super().encode(tokens)
        self._count(traces, len(tokens))
        return traces

    def _count(self, traces, context):
        for trace in traces:
            self.counts.update(trace.counters)
        self.tokens += len(traces)
        self.seen += context * len(traces)


def run(name: str) -> dict:
    """One released model."""
    folder = store.find(name)
    stored = store.load(folder)
    config = json.loads((Path(store.__file__).parent / "configs" / f"{name}.json").read_text())
    machine, reference = preset("sim"), Counting(stored.config, stored.tensors)
    rng = np.random.default_rng(1)
    with Device(open_machine(machine), machine, deadline_s=600) as device:
        device.load(compile_model(stored.config, stored.tensors, machine, logit_scale=stored.logit_scale,
                                  tokenizer_json=stored.tokenizer_json))
        device.clear_counters()
        if stored.config.bidirectional:
            texts = [rng.integers(2, stored.config.vocabulary, stored.config.context).tolist() for _ in range(TEXTS)]
            reports = [verify_encoding(device, reference, text) for text in texts]
        else:
            reports = [verify(device, reference, [stored.config.end_token], NEW_TOKENS, temperature=0.8, seed=1)]
        counters = device.counters()
    account = energy.account(stored.config, reference.counts, reference.tokens, reference.seen / reference.tokens)
    return {
        "model": name, "system": NAMED[name], "options": {key: getattr(stored.config, key) for key in (
            "layers", "width", "hidden", "heads", "vocabulary", "context", "neuron", "steps", "attention", "residual", "head",
            "bidirectional", "classes")},
        "quality": quality(config, folder),
        "firing_rate": round(reference.counts["fired"] / reference.counts["neurons"], 4),
        "energy": account.to_dict(),
        "counters": {"firing_rate": round(counters["fired"] / counters["neurons"], 4),
                     "sops_per_token": round(counters["event_tiles"] * machine.cols / counters["tokens"])},
        "machine": machine.name, "tokens_run": counters["tokens"], "cycles_per_token": round(counters["cycles"] / counters["tokens"], 1),
        "compared": sum(report.compared for report in reports), "mismatches": sum(report.mismatches for report in reports),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spikeloom_sim.systems_report", description=__doc__.splitlines()[0])
    parser.add_argument("--page", action="store_true", help="write the page from the results that are there")
    options = parser.parse_args(arguments)
    if not options.page:
        released = [name for name in NAMED if name in store.available()]
        found = [run(name) for name in track(released, "systems", console=Console(stderr=True), transient=True)]
        results = {"evidence": EVIDENCE, "command": "python -m spikeloom_sim.systems_report", "versions": versions(), "each": found}
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(page(results), encoding="utf-8")
    return int(any(row["mismatches"] for row in results["each"]))


if __name__ == "__main__":
    sys.exit(main())
