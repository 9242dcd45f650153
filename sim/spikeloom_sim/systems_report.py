"""Measures every named system, as `results/systems.json` and `docs/systems.md`.

    python -m spikeloom_sim.systems_report            # measure, then write both
    python -m spikeloom_sim.systems_report --page     # the page alone, from the results

Per released model: held-out loss of the integer form, of the golden (float) form and of the softmax twin beside it, firing rate,
synaptic operations and projected energy by the integer model, cycles, mismatches and the same operations by the counters of the
Verilated machine. The page also shows `results/glue.json` and `results/spad.json`, where they are.
"""

import argparse
import json
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
#: Tokens made, or texts read, on the machine.
NEW_TOKENS, TEXTS = 48, 2


def steps_of(folder: Path) -> int:
    """Training steps that a released model's card tells."""
    return int(re.search(r"^([\d,]+) steps,", (folder / "card.md").read_text(encoding="utf-8"), re.MULTILINE)[1].replace(",", ""))


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
    import torch

    from spikeloom.model.golden.quality import measure

    torch.set_num_threads(1)
    folder = store.find(name)
    kept = folder / "reference"
    stored = store.load(folder)
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
        "quality": {"steps": steps_of(folder)} | measure(folder, kept / "float.safetensors", kept / "twin.safetensors"),
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
