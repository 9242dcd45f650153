"""`spikeloom eval --suite ...`: suites beside bits per byte on held-out text, each with a file under `results`."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from .common import DEFAULT_MODEL, build_image, check_output, machine_for, open_device


def zero_shot(folder, options, progress) -> dict:
    """ARC-e, ARC-c, HellaSwag, PIQA, WinoGrande, OpenBookQA, BoolQ, HEAD-QA through lm-eval."""
    from ..model.zero_shot import measure

    return measure(folder, options.limit or 150, options.tasks, progress)


def minimal_pairs(folder, options, progress) -> dict:
    """Sentences against the same with one thing wrong."""
    from ..model.minimal_pairs import measure

    return measure(folder, held_out(folder, options), options.limit or 100, progress=progress)


def wikitext(folder, options, progress) -> dict:
    """WikiText-2 in bits per byte."""
    from ..model.wikitext import measure

    return measure(folder, options.limit or 60_000, progress)


def spiking(folder, options, progress) -> dict:
    """Sparsities, synaptic operations and footprint in NeuroBench's terms."""
    from ..model.spiking_metrics import measure

    return measure(folder, held_out(folder, options), options.limit or 400)


def precision(folder, options, progress) -> dict:
    """Float against integers, eight bits against four: nats, bits per byte, cycles."""
    from ..model.precision import measure

    return measure(folder, held_out(folder, options), machine_for(options.preset, model=str(folder)), options.limit or 100, progress)


def device(folder, options, progress) -> dict:
    """Held-out text scored on a device (`--device rtl`), every score and every command's checksum against the integer model."""
    from ..model import store
    from ..model.device_quality import measure

    machine = machine_for(options.preset, model=str(folder))
    stored, image = store.load(folder), build_image(str(folder), machine)
    with open_device(options.device, machine) as opened:
        opened.load(image)
        result = measure(opened, image, stored, held_out(folder, options), options.limit or 2, progress)
    label = "[sim]" if options.device == "rtl" else "[model]"
    return {"evidence": label, "device": options.device, "preset": machine.name} | result


SUITES: dict[str, Callable] = {"zero-shot": zero_shot, "minimal-pairs": minimal_pairs, "wikitext": wikitext, "spiking": spiking,
                              "precision": precision, "device": device}


def held_out(folder: Path, options) -> list[str]:
    """The held-out texts of the model's own corpus, without characters that its tokenizer does not know."""
    from ..model import corpus
    from ..model.tokenizer import Tokenizer

    alphabet = Tokenizer.load(folder / "tokenizer.json").alphabet
    split = corpus.corpus_of(options.corpus or folder.name)
    return ["".join(c for c in text if c in alphabet) for text in split.held_out]


def _positive(text: str) -> int:
    """A number of one or more. Raises argparse.ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def main(arguments: list[str]) -> int:
    """Run one suite; 1 where a device differs from the integer model."""
    from ..model import store

    parser = argparse.ArgumentParser(prog="spikeloom eval", description=__doc__.splitlines()[0])
    parser.add_argument("--suite", required=True, choices=list(SUITES))
    parser.add_argument("--model", default=DEFAULT_MODEL, help="model by name, or its folder")
    parser.add_argument("--limit", type=_positive, help="questions per task, pairs per kind, characters, tokens or texts")
    parser.add_argument("--tasks", nargs="*", help="zero-shot: only these")
    parser.add_argument("--corpus", help="stories or shakespeare; default: the model's own")
    parser.add_argument("--device", default="rtl", help="device suite: rtl or emulator")
    parser.add_argument("--preset", help="device and precision suites: machine; default: sim, or kv260 where sim does not hold the model")
    parser.add_argument("--out", type=Path, help="default: results/MODEL-SUITE.json")
    options = parser.parse_args(arguments)
    folder, console = store.find(options.model), Console(stderr=True)
    out = options.out or Path("results") / f"{folder.name}-{options.suite}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    check_output(out)
    with Progress(console=console, transient=True) as bars:
        def progress(what, total):
            task = bars.add_task(what, total=total)
            return lambda done: bars.advance(task, done)

        result = SUITES[options.suite](folder, options, progress)
    result = {"command": "spikeloom eval " + " ".join(arguments), "model": folder.name, "model_sha256": store.digest(folder),
              "suite": options.suite, **result}
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    console.print(f"wrote {out}", highlight=False)
    return int(result.get("mismatches", 0) > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
