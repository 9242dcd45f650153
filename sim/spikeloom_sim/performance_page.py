"""`docs/performance.md` and its picture: where the cycles of one token go, from the figures of `measure`."""

from collections import Counter
from pathlib import Path

PICTURE = "token.png"
#: Kind of a command -> what it does, in the order of a layer.
KINDS = {
    "embed": "row of the embedding", "in": "neurons before Q, K, V", "qkv": "Q, K, V", "attn": "winner-take-all attention",
    "out": "output projection", "mid": "neurons before the feed-forward part", "up": "feed-forward, first half",
    "down": "feed-forward, second half", "final": "neurons before the logits", "logits": "logits", "pick": "next token",
    "sequencer": "token loop",
}


def by_kind(labels: Counter) -> Counter:
    """Sums over the layers."""
    out = Counter()
    for label, value in labels.items():
        out[label.rpartition(".")[2]] += value
    return out


def table(tally) -> list[str]:
    """Lines of the table of one token; its sum is what the device counted."""
    n = max(1, tally.positions)
    cycles, events = by_kind(tally.label_cycles), by_kind(tally.label_events)
    if sum(cycles.values()) != tally.cycles:
        raise AssertionError(f"The parts are {sum(cycles.values())} cycles, the device counted {tally.cycles}.")
    lines = ["| command | what | cycles/token | share | of them adding rows | waiting, draining, starting |",
             "| --- | --- | ---: | ---: | ---: | ---: |"]
    for kind, what in KINDS.items():
        if kind in cycles:
            lines.append(f"| `{kind}` | {what} | {cycles[kind] / n:,.1f} | {cycles[kind] / tally.cycles:.1%} | "
                         f"{events[kind] / n:,.1f} | {(cycles[kind] - events[kind]) / n:,.1f} |")
    total = sum(events.values())
    lines.append(f"| **all** | | **{tally.cycles / n:,.1f}** | 100.0% | **{total / n:,.1f}** | **{(tally.cycles - total) / n:,.1f}** |")
    return lines


def draw(path: Path, tally) -> None:
    """Bars: cycles by kind of command, adding rows and not."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    n = max(1, tally.positions)
    cycles, events = by_kind(tally.label_cycles), by_kind(tally.label_events)
    kinds = [kind for kind in KINDS if kind in cycles][::-1]
    adding, rest = [events[k] / n for k in kinds], [(cycles[k] - events[k]) / n for k in kinds]
    figure, axes = pyplot.subplots(figsize=(6.4, 3.4), layout="constrained")
    axes.barh(kinds, adding, color="#1b6ca8", label="adding weight rows")
    axes.barh(kinds, rest, left=adding, color="#c9d6df", label="waiting, draining, starting")
    axes.set_xlabel("cycles of a token")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def write(folder: Path, result: dict, tally) -> None:
    """Write the page and the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    draw(folder / PICTURE, tally)
    resident, dense, generation = result["resident"], result["dense"], result["generation"]
    rows = resident["rows_wanted"] + resident["rows_skipped"]
    text = [
        "# Performance", "",
        f"Where the cycles of a token go: model `{result['model']['name']}` (SHA-256 "
        f"{result['model']['sha256_of_safetensors'][:12]}...) on preset `{result['machine']['preset']}`, resident rows, "
        f"mean over positions {result['data']['positions']} of {len(result['data']['stories'])} held-out texts ({result['data']['name']}). "
        "Counted by the Verilated gateware [sim]; split by the cycle model (`sw/spikeloom/arch/cycles.py`), whose sum is the count.",
        "", *table(tally), "", f"![cycles of a token]({PICTURE})", "",
        "| [sim] | cycles/token | weight bytes/token | utilisation |", "| --- | ---: | ---: | ---: |"]
    ways = {"resident": "resident rows", "dense": "resident rows, dense mode"}
    ways |= {key: f"streamed rows, memory latency {part['memory_latency']}" for key, part in result.items() if key.startswith("streamed_")}
    for key, what in ways.items():
        part = result[key]
        text.append(f"| {what} | {part['cycles_per_token']:,.0f} | {part['bytes_per_token']:,.0f} | {part['utilisation']:.0%} |")
    text += [
        "",
        f"Utilisation is the share of cycles in which the engine adds a row of weights; at 100% a token takes its event bound, "
        f"{resident['event_bound_per_token']:,.0f} cycles. Of the rows, {resident['rows_skipped'] / max(1, rows):.0%} belong to silent "
        f"neurons and are skipped; without that a token takes {dense['cycles_per_token'] / resident['cycles_per_token']:.1f} times "
        "as long.",
        "",
        f"The simulator runs {resident['simulated_cycles_per_cpu_second']:,} cycles per CPU second "
        f"({resident['simulated_cycles_per_second']:,} per second while it was measured) and writes "
        f"{generation['tokens_per_second']:.0f} tokens per second. "
        f"{generation['compared']:,} checksums and tokens of greedy generations and the scores of every run agree with the integer "
        f"model: {result['mismatches']} mismatches.",
        "", f"Made by `{result['command']}`; all figures are in `results/rtl_speed.json`.", ""]
    (folder / "performance.md").write_text("\n".join(text), encoding="utf-8")
