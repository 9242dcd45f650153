"""docs/systems.md, from results/systems.json, results/glue.json and results/spad.json."""

import json
from pathlib import Path

from spikeloom.model.energy import E_AC

GLUE, SPAD = Path("results/glue.json"), Path("results/spad.json")


def page(results: dict, root: Path = Path()) -> str:
    """docs/systems.md; the other results lie under `root`."""
    lines = ["# The systems of the three papers", "", "Made by `python -m spikeloom_sim.systems_report` from `results/systems.json`. "
             "Every row of the papers, with the command that shows it: `spikeloom systems`.", "",
             "Small models on the project's own Shakespeare, each beside a softmax twin of equal size, data and steps. They show that each "
             "system trains, exports and runs bit for bit; they are too small and too briefly trained to rank the papers.", "",
             "| system | steps | held-out, integers `[model]` | golden form | softmax twin | counts alone | mismatches `[sim]` |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for row in results["each"]:
        q = row["quality"]
        lines.append(f"| {row['system']} (`{row['model']}`) | {q['steps']:,} | {_figure(q['integer'])} | {_figure(q['golden'])} | "
                     f"{_figure(q['softmax_twin'])} | {_counts(q)} | {row['mismatches']} of {row['compared']:,} |")
    lines += ["", *_notes(results["each"])]
    lines += ["", "| system | firing rate `[model]` | SOPs/token: linear, attention `[model]` | counted by the machine `[sim]` | "
              "energy/token, projected `[model]` (levels as so many additions) | the same, ANN twin | cycles/token `[sim]` |",
              "| --- | --- | --- | --- | --- | --- | --- |"]
    for row in results["each"]:
        e, counted = row["energy"], row["counters"]
        lines.append(
            f"| {row['system']} | {row['firing_rate']:.1%} | {e['linear_sops']:,.0f}, {e['attention_sops']:,.0f} | "
            f"{counted['sops_per_token']:,} | {e['snn_nanojoule']:.0f} nJ{_levels(e)} | "
            f"{e['ann_nanojoule']:.0f} nJ | {row['cycles_per_token']:,.0f} |")
    label = results["each"][0]["energy"]["label"]
    lines += ["", f"Energy: {label}; every addition counted while the integer model ran, attention included, a level as one event (in "
              "brackets: as so many additions, where levels are more than 1). "
              "`spikeloom.model.energy` names the counting errors that are avoided. The machine's own counters see linear operations "
              "alone, with columns that pad a tile, the embedding's rows and an encoder's second pass over Q, K and V.", "",
              "| system | parameters (twin) | T | neuron | attention | residual | head |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for row in results["each"]:
        o, q = row["options"], row["quality"]
        lines.append(f"| {row['system']} | {q['parameters']:,} ({q['twin_parameters']:,}) | {o['steps']} | {o['neuron']} | {o['attention']}"
                     f"{', bidirectional' if o['bidirectional'] else ''} | {o['residual']} | {o['head']} |")
    for path, part in ((GLUE, glue_part), (SPAD, spad_part)):
        if (root / path).is_file():
            lines += part(json.loads((root / path).read_text(encoding="utf-8")))
    return "\n".join(lines) + "\n"


def glue_part(results: dict) -> list[str]:
    """The section on GLUE."""
    lines = ["", "## GLUE", "", f"Made by `{results['command']}` from `results/glue.json`: the encoder, pre-trained on masked Shakespeare "
             "alone, and its twin, fine-tuned for the same steps. Official development sets, accuracy (Matthews' correlation; F1), "
             "`[model]`. Nothing trained on GLUE is released: the sets carry no open licence.", "",
             "| task | examples | steps | integers | golden form | softmax twin | majority class | texts cut |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for row in results["each"]:
        forms = " | ".join(f"{f['accuracy']:.1%} ({f['matthews']:.3f}; {f['f1']:.3f})"
                           for f in (row[form] for form in ("integer", "golden", "softmax_twin", "majority")))
        lines.append(f"| {row['task']} | {row['examples']} | {row['steps']:,} | {forms} | {row['texts_cut']:.1%} |")
    return lines


def spad_part(results: dict) -> list[str]:
    """The section on SpAD."""
    names = list(results["weights"])
    shape = results["shape"]
    lines = ["", "## SpAD, each loss on and off", "", f"Made by `{results['command']}` from `results/spad.json`: a BiSpikCLM of width "
             f"{shape['width']} and {shape['layers']} layers, {results['steps']} steps, one seed; its teacher, the softmax twin, stands at "
             f"{results['teacher_nats']:.3f} nats. Norms: of each weighted loss's gradient over all parameters, before the first step "
             "and after the last. `[model]`", "",
             f"| losses | development nats | {' | '.join(name.upper() for name in names)} |", "| --- | --- " + "| --- " * len(names) + "|"]
    for row in results["each"]:
        first, end = row["gradient_norms"]
        norms = " | ".join(f"{first[name]:.2g}, {end[name]:.2g}" if name in end else "off" for name in names)
        lines.append(f"| {row['losses']} | {row['development_nats']:.3f} | {norms} |")
    lines += ["", *_spad_notes(results)]
    return lines


def _spad_notes(results: dict) -> list[str]:
    """The losses that helped beside hard targets, and the one whose gradient is nothing."""
    nats = {row["losses"]: row["development_nats"] for row in results["each"]}
    alone = nats["HTA alone"]
    beside = {name.removeprefix("HTA and "): alone - value for name, value in nats.items() if name.startswith("HTA and ")}
    first = next(row for row in results["each"] if row["losses"] == "all")["gradient_norms"][0]
    least = min((name for name in results["weights"]), key=first.get)
    told = ", ".join(f"{name} {gain:+.3f}" for name, gain in sorted(beside.items(), key=lambda item: -item[1]))
    return [f"Nats gained beside hard targets (one seed: a few hundredths are noise): {told}. The gradient of {least.upper()} is "
            f"{first['hta'] / first[least]:,.0f} times smaller than that of hard targets: at the paper's weights it does nothing."]


def _notes(rows: list[dict]) -> list[str]:
    """What the table's figures mean, where they do not flatter."""
    notes = []
    for row in rows:
        q, name = row["quality"], row["system"]
        if "bigram" in q and q["integer"]["nats_per_token"] > q["bigram"]["nats_per_token"] - 0.1:
            notes.append(f"* {name} tells hardly more than counted pairs of characters do: its attention has not learned to find "
                         "positions, and its likeliest text repeats a word (`docs/architecture.md` says what was tried).")
        elif "bigram" in q:
            notes.append(f"* {name} is {_gap(q):.2f} nats behind its twin.")
        elif _gap(q) < 0:
            notes.append(f"* {name} is ahead of its twin, which has hardly begun to learn after so few steps: it starts from random "
                         "queries and keys, the spiking model from queries and keys that compare positions. With AdamW in place of Muon "
                         "the twin is worse still. This is not a win of spikes.")
        else:
            notes.append(f"* {name}: the pairs are made by the project, so that a classifier is learned in minutes; they say nothing about "
                         "understanding. GLUE is below.")
    return notes


def _gap(q: dict) -> float:
    """Nats by which a softmax twin is better."""
    integer, twin = q["integer"], q["softmax_twin"]
    key = next(key for key in ("nats_per_token", "development_nats", "nats") if key in twin)
    return integer[key] - twin[key]


def _levels(e: dict) -> str:
    """The projection with a level d billed as d additions, where that differs."""
    return f" ({E_AC * (e['level_sops'] + e['attention_sops']) / 1000:.0f} nJ)" if e["level_sops"] > e["linear_sops"] else ""


def _counts(q: dict) -> str:
    """What counting tokens, or pairs of them, in the training text reaches."""
    return "; ".join(f"{name} {q[name].get('nats_per_token', q[name].get('development_nats')):.3f}"
                     for name in ("unigram", "bigram") if name in q)


def _figure(q: dict) -> str:
    if "bits_per_byte" in q:
        return f"{q['nats_per_token']:.3f} nats, {q['bits_per_byte']:.3f} bits/byte"
    if "majority" in q:
        return f"{q['accuracy']:.1%} right (majority class {q['majority']:.1%})"
    return f"{q['development_nats']:.3f} nats per masked token, {q['accuracy']:.1%} right"
