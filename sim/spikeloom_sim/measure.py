"""Measures the Verilated machine on held-out stories: cycles, bytes and simulator speed, as `results/rtl_speed.json`.

Protocol. Each story is scored token by token (teacher forced, begun by the end token) over positions 0 to 127, with the
logits of every position, on one preset: with resident rows, in dense mode, and with streamed rows behind memories of two
latencies. The device's own counters tell the cycles; the cycle model must predict each run to the cycle, and takes off the
one further token that scoring 128 positions needs. Every score is compared with the integer model, and so is every
command's checksum of a greedy generation from the first words of each story.

Also writes `docs/performance.md`, where the cycles of one token go.

    python -m spikeloom_sim.measure
"""

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from spikeloom.arch.config import AcceleratorConfig
from spikeloom.arch.cycles import TOKEN_OVERHEAD, run_end_cycles
from spikeloom.arch.layout import Image, read_image, write_image
from spikeloom.arch.numerics import pick
from spikeloom.arch.presets import preset
from spikeloom.arch.run_cycles import Token, token_steps
from spikeloom.arch.streamed_cycles import MemoryTiming
from spikeloom.compiler.image import compile_model
from spikeloom.driver.device import Device
from spikeloom.driver.text import Text
from spikeloom.driver.verify import verify
from spikeloom.model import corpus, store
from spikeloom.model.integer_model import IntegerModel

from . import performance_page
from .machine import open_machine
from .transport import Memory
from .versions import versions

POSITIONS = 128
#: Tokens of a story that a generation goes on from.
PROMPT = 16
LATENCIES = (24, 64)
EVIDENCE = "[sim]"


@dataclass
class Tally:
    """Sums over the stories of one way to run."""

    positions: int = 0
    #: Of the positions asked for; and of whole runs, counted and predicted.
    cycles: int = 0
    counted: int = 0
    predicted: int = 0
    mismatches: int = 0
    compared: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    counters: Counter = field(default_factory=Counter)
    #: By label of the command, over the positions asked for.
    label_cycles: Counter = field(default_factory=Counter)
    label_events: Counter = field(default_factory=Counter)
    row_bytes: int = 0

    def summary(self) -> dict:
        """Means per token and what was compared."""
        n, events = max(1, self.positions), sum(self.label_events.values())
        return {
            "evidence": EVIDENCE, "positions": self.positions, "cycles_per_token": round(self.cycles / n, 1),
            "event_bound_per_token": round(events / n, 1), "utilisation": round(events / max(1, self.cycles), 4),
            "bytes_per_token": round(self.row_bytes / n, 1),
            "rows_wanted": self.counters["rows_wanted"], "rows_skipped": self.counters["rows_skipped"],
            "cycles_counted": self.counted, "cycles_predicted": self.predicted,
            "compared": self.compared, "mismatches": self.mismatches,
            "simulated_cycles_per_second": round(self.counted / max(1e-9, self.seconds)),
            "simulated_cycles_per_cpu_second": round(self.counted / max(1e-9, self.cpu_seconds)),
            "tokens_per_second": round((self.positions + self.positions // POSITIONS) / max(1e-9, self.seconds), 1),
        }


def score_stories(device: Device, image: Image, model: IntegerModel, stories: list[list[int]], *, dense: bool = False,
                  timing: MemoryTiming | None = None, advance=lambda: None) -> Tally:
    """Score each story on the device, compare with the integer model, and predict its cycles."""
    tally = Tally()
    for ids in stories:
        device.clear()
        device.clear_counters()
        wall, cpu = time.perf_counter(), time.process_time()
        scores = device.score(ids, dense=dense)
        tally.seconds += time.perf_counter() - wall
        tally.cpu_seconds += time.process_time() - cpu
        counters = device.counters()
        tally.counted += counters["cycles"]
        tally.counters.update(counters)
        rest = _follow(device.cfg, image, model, ids, scores, tally, dense, timing)
        tally.cycles += counters["cycles"] - rest
        tally.positions += len(ids) - 1
        advance()
    return tally


def _follow(cfg, image, model, ids, scores, tally, dense, timing):
    """Compare and predict one story; returns the cycles that belong to no position asked for."""
    entry, last = image.card["entries"]["token"], len(ids) - 1
    model.clear()
    for position, token in enumerate(ids):
        head = position < last
        trace = model.step(token, position, head=head)
        steps = token_steps(cfg, image.program, Token(trace, token, position, head), entry=entry, dense=dense, memory=timing)
        cycles = TOKEN_OVERHEAD + sum(step.cycles for step in steps)
        tally.predicted += cycles
        if not head:
            rest = cycles + run_end_cycles(cfg, scoring=True)
            tally.predicted += rest - cycles
            return rest
        logits, score = trace["logits"], scores[position]
        best, target = pick(logits), ids[position + 1]
        tally.compared += 1
        tally.mismatches += (score.target, score.logit, score.best, score.best_logit) != (
            target, int(logits[target]), best, int(logits[best]))
        tally.label_cycles["sequencer"] += TOKEN_OVERHEAD
        for step in steps:
            tally.label_cycles[step.command.label] += step.cycles
            tally.label_events[step.command.label] += step.event_tiles
            tally.row_bytes += step.row_bytes
    raise AssertionError("a story has at least one token")


def generate_checked(device: Device, model: IntegerModel, stories: list[list[int]], advance) -> dict:
    """Greedy generations with traces, every command's checksum compared; then the speed of one without a trace."""
    compared = mismatches = 0
    first = ""
    for ids in stories:
        report = verify(device, model, ids[:PROMPT], POSITIONS - PROMPT)
        compared, mismatches, first = compared + report.compared, mismatches + report.mismatches, first or report.first
        advance()
    device.clear()
    wall = time.perf_counter()
    made = list(device.generate(stories[0][:PROMPT], POSITIONS - PROMPT, ignore_end=True))
    seconds = time.perf_counter() - wall
    return {"evidence": EVIDENCE, "prompt_tokens": PROMPT, "new_tokens": len(made), "compared": compared, "mismatches": mismatches,
            "first_mismatch": first, "tokens_per_second": round(len(made) / seconds, 1)}


def load_stories(count: int, model: store.StoredModel) -> tuple[list[list[int]], dict]:
    """Held-out texts that are long enough, as tokens begun by the end token, and what they are."""
    split = corpus.load_default()
    text = Text(model.tokenizer_json)
    found = []
    for number, story in enumerate(split.held_out):
        ids = [model.config.end_token, *text.encode(story)]
        if len(ids) > POSITIONS and len(found) < count:
            found.append((number, ids[:POSITIONS + 1]))
    return [ids for _, ids in found], {
        "name": split.name, "part": "held out", "texts": len(split.held_out),
        "sha256_of_texts_joined_by_nul": hashlib.sha256("\0".join(split.held_out).encode()).hexdigest(),
        "stories": [number for number, _ in found], "positions": f"0..{POSITIONS - 1}", "tokens": "teacher forced, greedy"}


def measure(name: str, cfg: AcceleratorConfig, count: int, slow_count: int, console: Console) -> tuple[dict, Tally]:
    """All figures of one model on one machine."""
    folder = store.find(name)
    stored = store.load(folder)
    stories, data = load_stories(count, stored)
    few = stories[:slow_count]
    model = IntegerModel(stored.config, stored.tensors)

    def image_of(streamed):
        return read_image(write_image(compile_model(stored.config, stored.tensors, cfg, logit_scale=stored.logit_scale, streamed=streamed)))

    result = {"model": {"name": stored.config.name,
                        "sha256_of_safetensors": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()},
              "machine": {"preset": cfg.name, "fingerprint": f"{cfg.fingerprint:#010x}"}, "data": data, "versions": versions(),
              "seeds": {"memory": 1}}
    with Progress(console=console, transient=True) as progress:
        def task(what, total):
            number = progress.add_task(what, total=total)
            return lambda: progress.advance(number)

        resident = image_of("none")
        with Device(open_machine(cfg), cfg, deadline_s=600) as device:
            device.load(resident)
            plain = score_stories(device, resident, model, stories, advance=task("resident", len(stories)))
            dense = score_stories(device, resident, model, few, dense=True, advance=task("dense", len(few)))
            result |= {"resident": plain.summary(), "dense": dense.summary(),
                       "generation": generate_checked(device, model, stories, task("generation, every checksum", len(stories)))}
        streamed = image_of("all")
        for latency in LATENCIES:
            with Device(open_machine(cfg, memory=Memory(latency=latency)), cfg, deadline_s=600) as device:
                device.load(streamed)
                tally = score_stories(device, streamed, model, few, timing=MemoryTiming(latency=latency),
                                      advance=task(f"streamed, latency {latency}", len(few)))
                result[f"streamed_latency_{latency}"] = {"memory_latency": latency, "bus_bytes_per_cycle": cfg.beat_bytes} | tally.summary()
    parts = [value for value in result.values() if isinstance(value, dict) and "mismatches" in value]
    result["mismatches"] = sum(part["mismatches"] for part in parts)
    runs = [part for part in parts if "cycles_counted" in part]
    result["cycles_not_predicted"] = sum(abs(run["cycles_counted"] - run["cycles_predicted"]) for run in runs)
    return result, plain


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spikeloom_sim.measure", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="stories-260k")
    parser.add_argument("--preset", default="sim")
    parser.add_argument("--stories", type=int, default=6, help="stories scored and generated from, resident rows")
    parser.add_argument("--slow-stories", type=int, default=2, help="how many of them in dense mode and with streamed rows")
    parser.add_argument("--out", type=Path, default=Path("results/rtl_speed.json"))
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of performance.md and token.png")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    result, tally = measure(options.model, preset(options.preset), options.stories, options.slow_stories, console)
    command = " ".join(["python -m spikeloom_sim.measure", *(sys.argv[1:] if arguments is None else arguments)])
    result = {"evidence": EVIDENCE, "command": command, "protocol": " ".join(__doc__.split("Protocol. ")[1].split("\n\n")[0].split()),
              **result}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    performance_page.write(options.docs, result, tally)
    console.print(f"{result['resident']['cycles_per_token']:.0f} cycles per token, {result['mismatches']} mismatches; wrote {options.out}")
    return int(result["mismatches"] > 0 or result["cycles_not_predicted"] > 0)


if __name__ == "__main__":
    sys.exit(main())
