"""Runs the random networks, of every system, on the Verilated machines and the integer model, as `results/random_models.json`.

    python -m spikeloom_sim.random_report
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import track

from spikeloom.arch.config import TENSORS
from spikeloom.driver.device import Device

from .machine import open_machine
from .random_cases import Case, Counting, cases, system_cases
from .transport import Stalls
from .versions import versions

EVIDENCE = "[sim]"
#: Fields of a network that make it one system or another.
_OPTIONS = ("neuron", "steps", "leak", "attention", "bidirectional", "residual", "spike_shift", "embedding", "head", "classes", "signed")
#: What is summed over the cases.
TOTALS = ("compared", "mismatches", "tokens", "ties", "rows_without_winner", "rows_short", "saturations", "cycles")


def run(case: Case) -> dict:
    """One case: its shape, what was compared, and what is rare."""
    config, tensors = case.network()
    reference = Counting(config, tensors)
    # The build of the tests: the small machine starts from random registers.
    transport = open_machine(case.machine, scramble=case.machine.name == "tiny", stalls=Stalls(everywhere=case.stall), seed=case.seed + 1)
    with Device(transport, case.machine, deadline_s=120) as device:
        report = case.compare(device, case.image((config, tensors)), reference)
        counters = device.counters()
    counts, m = reference.counts, config
    return {
        "case": str(case), "system": case.system, "seed": case.seed, "machine": case.machine.name,
        "fingerprint": f"{case.machine.fingerprint:#010x}",
        "shape": {"layers": m.layers, "width": m.width, "heads": m.heads, "hidden": m.hidden, "vocabulary": m.vocabulary,
                  "context": m.context, "top_k": m.top_k, "weight_bits": m.weight_bits, "overlap": m.overlap,
                  **{name: getattr(m, name) for name in _OPTIONS},
                  "levels": [getattr(m, f"level_{kind}") for kind in TENSORS]},
        "run": {"streamed": sorted(case.streamed) if isinstance(case.streamed, frozenset) else case.streamed, "dense": case.dense,
                "temperature": case.temperature, "top_k": case.top_k, "stall": case.stall},
        "compared": report.compared, "mismatches": report.mismatches, "first_mismatch": report.first,
        "tokens": len(report.tokens), "different_tokens": len({token.id for token in report.tokens}),
        "share_of_neurons_that_speak": round(counts["fired"] / max(1, counts["neurons"]), 4),
        **{name: counts[name] for name in ("ties", "rows_without_winner", "rows_short", "saturations")},
        "cycles": counters["cycles"],
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spikeloom_sim.random_report", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=24, help="networks as they are released, many shapes")
    parser.add_argument("--each", type=int, default=2, help="networks of every system")
    parser.add_argument("--out", type=Path, default=Path("results/random_models.json"))
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    everything = cases(options.cases) + system_cases(options.each)
    found = [run(case) for case in track(everything, "random networks", console=console, transient=True)]
    totals = Counter()
    for case in found:
        totals.update({name: case[name] for name in TOTALS})
    systems = Counter(case["system"] for case in found)
    command = " ".join(["python -m spikeloom_sim.random_report", *(sys.argv[1:] if arguments is None else arguments)])
    result = {"evidence": EVIDENCE, "command": command, "versions": versions(), "seed_of_the_set": 2026, "cases": len(found),
              "networks_of_each_system": dict(systems),
              "totals": {name: totals[name] for name in TOTALS}, "each": found}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    console.print(f"{len(found)} networks, {totals['compared']:,} comparisons, {totals['mismatches']} mismatches; wrote {options.out}")
    return int(totals["mismatches"] > 0)


if __name__ == "__main__":
    sys.exit(main())
