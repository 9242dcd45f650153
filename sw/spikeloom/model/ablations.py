"""Runs the ablations of `ablation_table`: what each choice of the spiking model costs, in nats and in cycles.

    python -m spikeloom.model.ablations                       # everything that is not finished yet
    python -m spikeloom.model.ablations base ranked --data shakespeare
    python -m spikeloom.model.ablations --report              # results/quality.json and docs/quality.md from finished runs

Each run trains on the same tokens in the same number of steps as its softmax twin, exports integers and measures them on the same
held-out bytes. A run that is finished is skipped, one that was cut off goes on from its checkpoint. The gap of a run is the integer
model's loss less that of the softmax twin of the same seed, in nats per token. Cycles come from the cycle model when the report is
made, on the preset `sim` with resident rows and with all rows streamed over one 64-bit port, over the first positions of held-out text.
"""

import argparse
import functools
import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from spikeloom.arch.config import ModelConfig
from spikeloom.arch.presets import preset

from . import corpus, store
from .ablation_table import BY_NAME, DATA, VARIANTS, Data, Variant
from .evaluate import FiringRates, log_softmax_of, log_softmax_of_integers, summed_nats
from .integer_torch import IntegerSequences
from .precision import cycles_of
from .softmax_twin import spiking_parameters
from .tokenizer import Tokenizer

FOLDER = Path("build/ablations")
PROTOCOL = " ".join(__doc__.split("\n\n")[2].split())
MACHINE = "sim"


class Bench:
    """One data set, read once: texts, tokenizer, held-out windows."""

    def __init__(self, data: Data, folder: Path):
        self.data, self.split, self.folder = data, data.load(), folder / data.name
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "tokenizer.json"
        if not path.exists():
            characters = len(set().union(*self.split.train))
            Tokenizer.train(self.split.train, data.vocabulary or characters + 1).save(path)
        self.tokenizer = Tokenizer.load(path)
        self.texts = held_out(self.split, data.held_out_bytes, self.tokenizer)
        self.encoded = self.tokenizer.encode_all(self.texts)
        self.bytes = sum(len(text.encode()) for text in self.texts)

    def config(self, variant: Variant) -> dict:
        """The config of a run."""
        return variant.config(self.data, self.tokenizer.size)

    def run_folder(self, variant: Variant, seed: int) -> Path:
        """Where its checkpoint, log and result lie."""
        return self.folder / f"{variant.name}-{seed}"

    def about(self) -> dict:
        """What the figures of this data set were measured on."""
        return {"name": self.split.name, "tokens": "characters" if not self.data.vocabulary else f"byte pairs, {self.data.vocabulary}",
                "held_out_texts": len(self.texts), "held_out_bytes": self.bytes, "held_out_tokens": sum(map(len, self.encoded)),
                "sha256_of_texts_joined_by_nul": hashlib.sha256("\0".join(self.texts).encode()).hexdigest(), "steps": self.data.steps}


@functools.cache
def bench_of(name: str, folder: Path) -> Bench:
    """The data set of that name, read once in a process."""
    return Bench(DATA[name], folder)


def held_out(split: corpus.Split, most: int, tokenizer: Tokenizer) -> list[str]:
    """The first held-out texts, `most` bytes of them; the last one may be cut. Characters never seen are left out."""
    out, total = [], 0
    for text in split.held_out:
        text = "".join(c for c in text if c in tokenizer.alphabet)[: most - total]
        if text:
            out.append(text)
            total += len(text)
    return out


def measure(bench: Bench, variant: Variant, seed: int, model) -> dict:
    """Held-out figures of a finished run; exports its integers into the run's folder."""
    data, total = bench.encoded, sum(map(len, bench.encoded))

    def entry(nats):
        return {"nats_per_token": round(nats / total, 5), "bits_per_byte": round(float(nats / np.log(2) / bench.bytes), 5)}

    config = ModelConfig.from_dict(bench.config(variant)["model"])
    if variant.kind == "spiking":
        model.hardness.fill_(0.0 if variant.soft else 1.0)
    result = {"float": entry(summed_nats(log_softmax_of(model), data, config))}
    if variant.kind == "softmax":
        return result | {"parameters": model.parameters_in_all()}
    result["parameters"] = spiking_parameters(config)
    if variant.float_only:
        return result
    if variant.golden is not None:
        from .golden.export import to_stored
        stored = to_stored(model, (bench.folder / "tokenizer.json").read_text(encoding="utf-8"))
    else:
        from .export import to_stored
        stored = to_stored(model, (bench.folder / "tokenizer.json").read_text(encoding="utf-8"))
    store.save(bench.run_folder(variant, seed) / "integers", stored)
    integer, rates = IntegerSequences(stored.tensors, stored.config), FiringRates(stored.config)
    log_probabilities = log_softmax_of_integers(integer, stored.logit_scale, rates.trace)
    watch = rates.watch if stored.config.steps == 1 else None
    result["integer"] = entry(summed_nats(log_probabilities, data, stored.config, watch=watch)) | {"saturations": integer.saturations}
    if watch:
        result["firing_rate"] = rates.summary()["all"]["nonzero"]
    return result


def run(bench: Bench, variant: Variant, seed: int, *, steps: int | None = None, quiet: bool = True) -> dict:
    """Train (or go on), measure, and keep `result.json`; a finished run is only read."""
    folder = bench.run_folder(variant, seed)
    done = folder / "result.json"
    if done.exists():
        return json.loads(done.read_text())
    teacher = bench.run_folder(BY_NAME[variant.teacher], seed) if variant.teacher else None
    if teacher and not (teacher / "result.json").exists():
        run(bench, BY_NAME[variant.teacher], seed, steps=steps, quiet=quiet)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes((bench.folder / "tokenizer.json").read_bytes())
    config, steps = bench.config(variant), steps or bench.data.steps
    began, cpu, resumed = time.time(), time.process_time(), (folder / "checkpoint.pt").exists()
    if variant.golden is not None and variant.kind == "spiking":
        from .golden.train import train
        model = train(config, run=folder, steps=steps, split=bench.split, seed=seed, report_every=1e9, quiet=quiet)
    else:
        from .train import train
        model = train(config, run=folder, kind=variant.kind, steps=steps, split=bench.split, teacher=teacher, seed=seed, compiled=False,
                      report_every=600.0, quiet=quiet)
    trained = time.process_time() - cpu
    state = torch.load(folder / "checkpoint.pt", weights_only=False, map_location="cpu")
    if state["step"] < steps:
        raise KeyboardInterrupt("The run was told to stop; start again to go on.")
    result = {"variant": variant.name, "data": bench.data.name, "seed": seed, "steps": steps, "training_tokens": state["tokens"],
              **measure(bench, variant, seed, model.eval())}
    if not resumed:  # a run that was cut off does not know what its first part took
        result |= {"training_cpu_seconds": round(trained), "seconds": round(time.time() - began)}
    done.write_text(json.dumps(result, indent=2) + "\n")
    return result


def finished(folder: Path, data: list[str]) -> list[dict]:
    """`result.json` of every finished run of these data sets."""
    return [json.loads(path.read_text()) for name in data for path in sorted((folder / name).glob("*/result.json"))]


def recorded(out: Path) -> tuple[list[dict], dict]:
    """The runs of a report of before, whose folders may be gone, as they were measured then; and what it says about data sets."""
    if not out.exists():
        return [], {}
    document = json.loads(out.read_text(encoding="utf-8"))
    return [run for row in document["ablations"] for run in row["runs"]], document["data"]


def with_cycles(bench: Bench, result: dict) -> dict:
    """A finished run's result and what the gateware of today would need for it, by the cycle model."""
    integers = bench.folder / f"{result['variant']}-{result['seed']}" / "integers"
    if not integers.is_dir():
        return result
    return result | cycles_of(store.load(integers), preset(MACHINE), bench.encoded[:1])


def line(result: dict) -> str:
    """A finished run in one line."""
    shown = result.get("integer", result["float"])["nats_per_token"]
    return (f"{result['data']:12s} {result['variant']:16s} seed {result['seed']}  {shown:.4f} nats  "
            f"float {result['float']['nats_per_token']:.4f}  "
            f"firing {result.get('firing_rate', '-')}  {result.get('training_cpu_seconds', '-')} s")


def chosen(names: list[str], data: list[str]) -> list[tuple[str, Variant, int]]:
    """(data set, variant, seed) of every run asked for, in the order of the table."""
    unknown = sorted(set(names) - set(BY_NAME))
    if unknown:
        raise ValueError(f"There is no variant {', '.join(unknown)}; there are: {', '.join(BY_NAME)}.")
    runs = [(name, variant, seed) for variant in VARIANTS if not names or variant.name in names
            for seed in variant.seeds for name in variant.data if name in data]
    return sorted(runs, key=lambda run: run[2])  # first seeds first


def one(name: str, variant: str, seed: int, folder: Path, until: float | None) -> dict | None:
    """One run, or None where it is not finished yet and the time is over."""
    bench = bench_of(name, folder)
    known = (bench.run_folder(BY_NAME[variant], seed) / "result.json").exists()
    return None if until and not known and time.time() > until else run(bench, BY_NAME[variant], seed)


def several(runs: list[tuple[str, Variant, int]], folder: Path, until: float | None, jobs: int) -> Iterator[dict | None]:
    """Results as they come, those of teachers before those that learn from them."""
    for taught in (False, True):
        part = [(name, variant.name, seed, folder, until) for name, variant, seed in runs if bool(variant.teacher) == taught]
        if jobs == 1:
            yield from (one(*arguments) for arguments in part)
            continue
        with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            for future in as_completed([pool.submit(one, *arguments) for arguments in part]):
                yield future.result()


def main(arguments: list[str] | None = None) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    parser = argparse.ArgumentParser(prog="spikeloom ablate", description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", help="names of the table; default: all")
    parser.add_argument("--data", nargs="*", default=list(DATA), choices=list(DATA))
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where runs are kept")
    parser.add_argument("--minutes", type=float, help="start no run after this many minutes")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, one core each")
    parser.add_argument("--list", action="store_true", help="show what is finished, run nothing")
    parser.add_argument("--report", action="store_true",
                        help="write --out and the page from what is finished or stands in --out, run nothing")
    parser.add_argument("--out", type=Path, default=Path("results/quality.json"))
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of quality.md and quality.png")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = Console(stderr=True)
    if options.list:
        for result in finished(options.folder, options.data):
            console.print(line(result), highlight=False)
        return
    if options.report:
        from . import quality_page
        results, about = recorded(options.out)
        results += [with_cycles(bench_of(result["data"], options.folder), result) for result in finished(options.folder, options.data)]
        about |= {name: bench_of(name, options.folder).about() for name in options.data if any(r["data"] == name for r in results)}
        quality_page.write(results, about, options.out, options.docs, "spikeloom ablate; spikeloom ablate --report", PROTOCOL)
        known = {(result["data"], result["variant"], result["seed"]) for result in results}
        console.print(f"{len(known)} runs; wrote {options.out} and {options.docs / 'quality.md'}", highlight=False)
        return
    for name in options.data:
        bench_of(name, options.folder)  # one process alone makes the tokenizer
    runs, until = chosen(options.variants, options.data), time.time() + 60 * options.minutes if options.minutes else None
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("ablations", total=len(runs))
        for result in several(runs, options.folder, until, options.jobs):
            if result:
                progress.console.print(line(result), highlight=False)
            progress.advance(task)


if __name__ == "__main__":
    main()
