"""`results/quality.json` from finished runs of `ablations`, and from it `docs/quality.md` with its picture."""

import json
import statistics
from pathlib import Path

from .ablation_table import BASE, DATA, HEADLINES, VARIANTS
from .quality_notes import TRIED
from .quality_sections import (
    CYCLES,
    SUITES,
    goal_lines,
    goals,
    number,
    precision_lines,
    released_figures,
    released_lines,
    suite,
    suite_lines,
)

EVIDENCE = "[model]"
PICTURE = "quality.png"
#: Of `public_model`.
PUBLIC = "public-stories260k.json"
GROUPS = {
    "reference": "Reference",
    "recipe": "The recipe",
    "gradient": "The winners' gradient",
    "attention": "The form of attention",
    "position": "Position",
    "neurons": "Neurons that read the stream",
    "levels": "Levels D and time steps T",
    "precision": "Weights and residual stream",
    "norm": "Norm",
}


def loss(result: dict) -> float:
    """Nats per token of what a device would compute; of the float model where there are no integers."""
    return result.get("integer", result["float"])["nats_per_token"]


def spread(values: list[float]) -> float | None:
    """Sample deviation; None of a single value."""
    return round(statistics.stdev(values), 5) if len(values) > 1 else None


def summarise(results: list[dict], about: dict) -> dict:
    """The document, from the `result.json` of all runs."""
    runs = {(r["data"], r["variant"], r["seed"]): r for r in results}
    compared_with = {variant.against for variant in VARIANTS}
    rows, headline = [], []
    for data in (name for name in DATA if name in about):
        for variant in VARIANTS:
            seeds = sorted(seed for d, v, seed in runs if (d, v) == (data, variant.name))
            own = [runs[data, variant.name, seed] for seed in seeds]
            paired = [(run, runs[data, variant.against, run["seed"]]) for run in own if (data, variant.against, run["seed"]) in runs]
            if not own:
                continue
            gaps = [] if variant.name in compared_with else [loss(run) - loss(twin) for run, twin in paired]
            row = {"data": data, "variant": variant.name, "group": variant.group, "about": variant.about, "seeds": len(own),
                   "nats_per_token": round(statistics.mean(map(loss, own)), 5), "seed_spread_nats": spread([loss(run) for run in own]),
                   "gap_nats": round(statistics.mean(gaps), 5) if gaps else None,
                   "gap_spread_nats": spread(gaps),
                   "bits_per_byte": round(statistics.mean(run.get("integer", run["float"])["bits_per_byte"] for run in own), 5),
                   "runs": own}
            if "integer" in own[0]:
                row["integer_less_float_nats"] = round(statistics.mean(loss(r) - r["float"]["nats_per_token"] for r in own), 5)
            for name in (*CYCLES, "firing_rate"):
                if all(name in run for run in own):
                    row[name] = round(statistics.mean(run[name] for run in own), 4)
            rows.append(row)
            if variant.name in HEADLINES and gaps:
                twin = statistics.mean(loss(twin) for _, twin in paired)
                headline.append({"dataset": about[data]["name"], "model": f"{variant.name}: {variant.about}",
                                 "gap_nats": row["gap_nats"], "seeds": len(gaps), "gap_spread_nats": row["gap_spread_nats"],
                                 "integer_nats": row["nats_per_token"], "twin_nats": round(twin, 5), "tokens": about[data]["tokens"],
                                 "parameters": own[0]["parameters"], "training_tokens": own[0]["training_tokens"], "evidence": EVIDENCE})
    return {"evidence": EVIDENCE, "data": about, "shape": BASE["model"], "headline": headline, "ablations": rows}


def released(folder: Path) -> list[dict]:
    """Headline rows of released models, from their own results: {stories-260k, shakespeare}.json beside quality.json."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        held = json.loads(path.read_text(encoding="utf-8"))
        if "integer" in held and "softmax_twin" in held and "data" in held:
            integer, twin = held["integer"], held["softmax_twin"]
            gap = integer["nats_per_token"] - twin["nats_per_token"]
            rows.append({"dataset": held["data"]["name"], "model": path.stem, "gap_nats": round(gap, 5), "seeds": 1,
                         "integer_nats": integer["nats_per_token"], "twin_nats": twin["nats_per_token"],
                         "parameters": held["parameters"], "training_tokens": held.get("float", {}).get("training_tokens"),
                         "twin_training_tokens": twin.get("training_tokens"), "evidence": EVIDENCE, "from": f"results/{path.name}"})
    return rows


def exported(folder: Path) -> dict[str, float]:
    """What exporting costs each released model, on all of its held-out text that was measured."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    return {name: round(held["integer"]["nats_per_token"] - held["float"]["nats_per_token"], 5)
            for name, held in found.items() if {"integer", "float", "data"} <= held.keys()}


def write(results: list[dict], about: dict, out: Path, docs: Path, command: str, protocol: str) -> dict:
    """Write the document, the page and the picture."""
    document = {"command": command, "protocol": protocol} | summarise(results, about)
    document["headline"] += released(out.parent)
    stories = out.parent / "stories-260k.json"
    if stories.exists():
        document["stories_260k_bits_per_byte"] = json.loads(stories.read_text(encoding="utf-8"))["integer"]["bits_per_byte"]
    public = out.parent / PUBLIC
    if public.exists():
        held = json.loads(public.read_text(encoding="utf-8"))
        document["public_model"] = {"from": f"results/{PUBLIC}", "bits_per_byte_by_context": {
            context: row["bits_per_byte"] for context, row in held["by_context"].items()}}
    document |= {"precision": suite(out.parent, "precision"), "suites": {name: suite(out.parent, name) for name in SUITES}}
    document["released"] = released_figures(out.parent)
    document["integer_less_float_nats"] = exported(out.parent)
    document["goals"] = goals(document)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (docs / "quality.md").write_text(page(document), encoding="utf-8")
    draw(docs / PICTURE, document)
    return document


def page(document: dict) -> str:
    """The Markdown page."""
    lines = ["# Quality", "",
             "What each choice of the spiking model costs against a softmax twin of equal size (parameters within 2%), trained on the same "
             f"tokens with the same optimiser. {document['protocol']} Made by `{document['command']}`; `results/quality.json` holds every "
             "run. Figures without a label are computed [model].", "",
             "## Headline", "",
             "| data | model | integer, nats/token | twin | gap | seeds | spread of the gap |",
             "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    lines += [headline_line(row) for row in document["headline"]]
    lines += ["", "Rows of data sets are the small shape of the ablations, the others the released models. "
              "After so few tokens neither small model is trained, and a gap there, or none, does not speak for trained ones."]
    lines += goal_lines(document["goals"], document.get("public_model")) if "goals" in document else []
    lines += released_lines(document["released"], document["suites"]["device"]) if document.get("released") else []
    lines += precision_lines(document["precision"]) if document.get("precision") else []
    lines += suite_lines(document["suites"]) if "suites" in document else []
    shape = document["shape"]
    lines += ["", "## Ablations", "",
              f"Shape: width {shape['width']}, {shape['layers']} layers, {shape['heads']} heads, hidden {shape['hidden']}, context "
              f"{shape['context']}, levels {shape['level_in']}. Each row changes what it names against `base`. Gap: integer model less "
              "softmax twin of the same seed, in nats per token [model] (rows of rate 0.02: `twin-rate`); cycles per token of the cycle "
              "model on the preset `sim`, rows resident and streamed [model]; integer less float: what exporting costs. The runs are "
              "short: they rank choices, and a difference below the seeds' spread of `base` ranks nothing.", ""]
    for data, about in document["data"].items():
        own = {row["variant"]: row for row in document["ablations"] if row["data"] == data}
        tokens = next(iter(own.values()))["runs"][0]["training_tokens"]
        lines += [f"### {about['name']}, {about['tokens']}", "",
                  f"{about['steps']:,} steps, {tokens / 1e6:.1f} M tokens; measured on {about['held_out_bytes']:,} held-out bytes.", ""]
        for group, title in GROUPS.items():
            rows = [row for row in own.values() if row["group"] == group]
            if rows:
                lines += [f"**{title}**", "",
                          "| run | | nats/token | gap | against base | cycles/token | streamed | bytes/token | firing | integer less float "
                          "| seeds |",
                          "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
                          *(ablation_line(row, own.get("base")) for row in rows), ""]
        missing = [f"`{variant.name}` ({variant.about})" for variant in VARIANTS if data in variant.data and variant.name not in own]
        if missing:
            lines += ["Not run yet, `spikeloom ablate` goes on with them: " + "; ".join(missing) + ".", ""]
    lines += [f"![gap and cycles of every run]({PICTURE})", "", "## Tried", "", "| what | outcome | |", "| --- | --- | --- |",
              *(f"| {what} | {outcome} | {more} |" for what, outcome, more in TRIED), ""]
    return "\n".join(lines)


def headline_line(row: dict) -> str:
    """One line of the headline; says where the two saw different numbers of tokens."""
    tokens, twin = row.get("training_tokens"), row.get("twin_training_tokens")
    more = f" ({tokens / 1e6:.0f} M training tokens, its twin {twin / 1e6:.0f} M)" if tokens and twin and tokens != twin else ""
    return (f"| {row['dataset']} | {row['model']}{more} | {row['integer_nats']:.3f} | {row['twin_nats']:.3f} | {row['gap_nats']:+.3f} | "
            f"{row['seeds']} | {number(row.get('gap_spread_nats'))} |")


def ablation_line(row: dict, base: dict | None) -> str:
    """One line of a table."""
    against = row["nats_per_token"] - base["nats_per_token"] if base else None
    figures = (number(row["nats_per_token"]), number(row["gap_nats"], "+.3f"), number(against, "+.3f"),
               *(number(row.get(key), ",.0f") for key in CYCLES),
               number(row.get("firing_rate"), ".0%"), number(row.get("integer_less_float_nats"), "+.4f"), str(row["seeds"]))
    return f"| `{row['variant']}` | {row['about']} | {' | '.join(figures)} |"


def draw(path: Path, document: dict) -> None:
    """Gap against cycles, a point per run with both, a panel per data set."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(document["data"])
    figure, panels = pyplot.subplots(1, len(names), figsize=(5.2 * len(names), 4.2), layout="constrained", squeeze=False)
    for axes, data in zip(panels[0], names):
        for row in document["ablations"]:
            if row["data"] == data and row["gap_nats"] is not None and "cycles_per_token" in row:
                special = row["variant"] in (*HEADLINES, "base")
                axes.scatter(row["cycles_per_token"], row["gap_nats"], s=22, color="#1b6ca8" if special else "#9fb6c6")
                axes.annotate(row["variant"], (row["cycles_per_token"], row["gap_nats"]), xytext=(4, 3), textcoords="offset points",
                              fontsize=7)
        axes.axhline(0, color="#444444", linewidth=0.8)
        axes.axhspan(0, 0.05, color="#dcebdc", zorder=0)
        axes.set_title(document["data"][data]["name"], fontsize=10)
        axes.set_xlabel("cycles per token [model]")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("integer model less softmax twin, nats per token [model]")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
