"""Sections of `docs/quality.md` beside the ablations: goals, precision of the released models, suites."""

import json
import statistics
from pathlib import Path

from .quality_notes import GOALS, REASONS

CYCLES = ("cycles_per_token", "streamed_cycles_per_token", "weight_bytes_per_token")
FORMS = ("integer", "float", "softmax_twin")
SUITES = ("device", "minimal-pairs", "wikitext", "zero-shot", "spiking")


def suite(folder: Path, name: str) -> dict:
    """Committed results of a suite by model."""
    found = {path.name.removesuffix(f"-{name}.json"): json.loads(path.read_text(encoding="utf-8"))
             for path in sorted(folder.glob(f"*-{name}.json"))}
    return {model: {key: value for key, value in held.items() if key not in ("model", "suite", "protocol")}
            for model, held in found.items()}


def four_bits_less_eight(document: dict) -> list[tuple[str, float]]:
    """Per data set of the ablations, what four bits cost where they were trained from the start: mean over the seeds that both have."""
    losses = {(row["data"], row["variant"]): {run["seed"]: run["integer"]["nats_per_token"] for run in row["runs"]}
              for row in document["ablations"] if row["variant"] in ("base", "int4-held")}
    found = []
    for (data, variant), four in losses.items():
        eight = losses.get((data, "base"), {})
        if variant == "int4-held" and four.keys() & eight.keys():
            cost = statistics.mean(four[seed] - eight[seed] for seed in four.keys() & eight.keys())
            found.append((document["data"][data]["name"], round(cost, 5)))
    return found


def released_figures(folder: Path) -> dict:
    """What `evaluate` says of each released model on all of its held-out text: data, and figures of each form."""
    rows = {}
    for path in sorted(folder.glob("*.json")):
        held = json.loads(path.read_text(encoding="utf-8"))
        if {"integer", "float", "data"} <= held.keys():
            data = {key: held["data"][key] for key in ("name", "texts", "bytes", "tokens")}
            figures = {form: {key: held[form][key] for key in ("bits_per_byte", "perplexity") if key in held[form]}
                       for form in (*FORMS, "character_6_gram") if form in held}
            rows[path.stem] = {"from": f"results/{path.name}", "evidence": "[model]", "data": data, **figures}
    return rows


def released_lines(released: dict, device: dict) -> list[str]:
    """Bits per byte and perplexity of integers, float, twin and device."""
    def both(row):
        return f"{row['bits_per_byte']:.3f} ({row['perplexity']:.2f})" if row else ""

    lines = ["## Released models on held-out text", "",
             "Bits per byte, and in brackets perplexity per token [model]. On the gateware [sim]: a sample, the first tokens of the first "
             "texts, where every score and every command's checksum are compared with the integer model's by `==`; it is other text, so "
             "its figure is another. Tokens per second there: of one processor, simulating and keeping the trace.", "",
             "| model | text | integers | float | softmax twin | character 6-gram | on RTL [sim] | differences |",
             "| --- | --- | ---: | ---: | ---: | ---: | --- | ---: |"]
    for model, row in released.items():
        run, data = device.get(model, {}), row["data"]
        on_rtl = "perplexity" in run and run["device"] == "rtl"
        sample = f"{both(run)}, {run['tokens']} tokens at {run['tokens_per_cpu_second']:.0f}/s" if on_rtl else ""
        differences = f"{run['mismatches']} of {run['compared']:,}" if run else ""
        lines.append(f"| `{model}` | {data['name']}, {data['bytes']:,} bytes | {' | '.join(both(row.get(form)) for form in FORMS)} | "
                     f"{row['character_6_gram']['bits_per_byte']:.3f} | {sample} | {differences} |")
    return [*lines, ""]


def goals(document: dict) -> list[dict]:
    """Every goal with its figure, whether it is met, and where it is not, why and what would close it."""
    measured = [("gap", row["model"] if "from" in row else f"{row['dataset']}, small", row["gap_nats"]) for row in document["headline"]]
    if "stories_260k_bits_per_byte" in document:
        measured.append(("public", "stories-260k", document["stories_260k_bits_per_byte"]))
    measured += [("integer", model, figure) for model, figure in document["integer_less_float_nats"].items()]
    for model, held in document["precision"].items():
        measured += [("int4", f"{model}, {name}", value) for name, value in held["int4_less_int8_nats"].items()]
    measured += [("int4", f"{dataset}, small, trained on from the start", cost) for dataset, cost in four_bits_less_eight(document)]
    rows = []
    for name, what, figure in measured:
        goal, limit = GOALS[name]
        rows.append({"goal": goal, "of": what, "limit": limit, "figure": figure, "met": figure <= limit}
                    | ({"why": REASONS[name]} if figure > limit and name in REASONS else {}))
    return rows


def number(value, form: str = ".3f") -> str:
    """A figure, or nothing."""
    return "" if value is None else f"{value:{form}}"


def goal_lines(rows: list[dict], public: dict | None = None) -> list[str]:
    """The goals, what the public model has by our own measurement, and why some goals are missed."""
    lines = ["", "## Goals", "", "| goal | of | limit | figure | |", "| --- | --- | ---: | ---: | --- |"]
    lines += [f"| {row['goal']} | {row['of']} | {row['limit']} | {row['figure']:{'+' if ' less ' in row['goal'] else ''}.4f} | "
              f"{'met' if row['met'] else 'missed'} |" for row in rows]
    if public:
        by_context = ", ".join(f"{value:.3f} with {context}" for context, value in public["bits_per_byte_by_context"].items())
        lines += ["", f"By the protocol of our own figures (`python -m spikeloom.model.public_model`, `{public['from']}`) the public "
                  f"stories260K has {by_context} tokens of context, float."]
    missed = {row["goal"]: row["why"] for row in rows if "why" in row}
    return lines + [""] + [f"*Missed: {goal}.* {why}\n" for goal, why in missed.items()]


def precision_lines(models: dict) -> list[str]:
    """Float, integers and four bits of the released models."""
    lines = ["## Precision of the released models", "",
             "On the same held-out tokens, the first of those above; cycles of the cycle model on the preset `sim`, rows resident and "
             "streamed over one 64-bit port [model].", "",
             "| model | | weight bits | tokens | nats/token | perplexity | bits/byte | cycles/token | streamed | bytes/token |",
             "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for model, held in models.items():
        for name, row in held["models"].items():
            figures = (number(row.get("weight_bits"), "d"), f"{held['tokens']:,}", number(row["nats_per_token"], ".4f"),
                       number(row.get("perplexity"), ".2f"), number(row["bits_per_byte"], ".4f"),
                       *(number(row.get(key), ",.0f") for key in CYCLES))
            lines.append(f"| `{model}` | {name} | {' | '.join(figures)} |")
    return [*lines, ""]


def suite_lines(suites: dict) -> list[str]:
    """What the released models say in the other suites, beside twin and chance."""
    lines = ["## Released models in the other suites", "", "| model | suite | spiking, integers | softmax twin | chance |",
             "| --- | --- | --- | --- | --- |"]
    for model, held in suites["minimal-pairs"].items():
        both = [held["models"][name]["mean"] for name in ("integer", "softmax twin")]
        lines.append(f"| `{model}` | minimal pairs, share right | {both[0]:.1%} | {both[1]:.1%} | {held['chance']:.0%} |")
    for model, held in suites["wikitext"].items():
        both = [f"{row['bits_per_byte']:.3f}; {row['word_perplexity']:,.0f}" for row in
                (held["models"][name] for name in ("integer", "softmax twin"))]
        lines.append(f"| `{model}` | WikiText-2, the first {held['bytes']:,} bytes of the test text, bits/byte; perplexity per word | "
                     f"{both[0]} | {both[1]} | |")
    for model, held in suites["zero-shot"].items():
        tasks = held["models"]["integer"]["tasks"]
        for task, row in tasks.items():
            twin = held["models"]["softmax twin"]["tasks"][task]
            lines.append(f"| `{model}` | {task}, {row['questions']} questions | {row['accuracy']:.0%} ± {row['standard_error']:.0%} | "
                         f"{twin['accuracy']:.0%} | {row['chance']:.0%} |")
    for model, held in suites["spiking"].items():
        operations = held["synaptic_operations_per_token"]
        lines.append(f"| `{model}` | silent neurons; additions per token (dense: {operations['Dense']:,}) | "
                     f"{held['activation_sparsity']:.0%}; {operations['Effective_ACs']:,} | | |")
    return [*lines, "", *chance_lines(suites["zero-shot"])]


def chance_lines(models: dict) -> list[str]:
    """Which zero-shot scores say anything beside chance."""
    lines = []
    for model, held in models.items():
        tasks = held["models"]["integer"]["tasks"]
        outside = [f"{task} ({'below' if row['accuracy'] < row['chance'] else 'above'})" for task, row in tasks.items()
                   if abs(row["accuracy"] - row["chance"]) > 2 * row["standard_error"]]
        lines.append(f"Zero-shot, `{model}`: within two standard errors of chance (1 / choices), as a model that knows only stories must be"
                     f"{': all but ' + ', '.join(outside) if outside else ''}.")
    return lines
