"""Tables of the performance page, as Markdown, from the figures on file."""

from collections.abc import Mapping, Sequence

from .keys import GOALS
from .pictures import KINDS, by_kind
from .sweep import theory

#: Figures of shapes on boards.
BOARD_KEYS = ("tok_s_d288_z2", "tok_s_d768_kv260")


def number(value) -> str:
    """A value for people."""
    if isinstance(value, list):
        return " : ".join(number(part) for part in value)
    if isinstance(value, float) and value < 10:
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, float) and value < 100:
        return f"{value:.1f}"
    return f"{value:,.0f}" if isinstance(value, (int, float)) else str(value)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """A table, its first columns left, the others right."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return ["| " + " | ".join(row) + " |" for row in (head, rule, *rows)]


def of_figures(figures: Mapping) -> list[str]:
    """Every key: value, goal, whether it is met."""
    rows = []
    for key, goal in GOALS.items():
        record = figures.get(key)
        if record is None:
            rows.append((f"`{key}`", "not measured", goal.goal or "", "", goal.what))
            continue
        verdict = {True: "yes", False: "**no**", None: ""}[record["met"]] + (" (stale)" if record.get("stale") else "")
        unit = f" {record['unit']}" if record["unit"] else ""
        rows.append((f"`{key}` {record['evidence']}", number(record["value"]) + unit, record["goal"] or "", verdict, record["what"]))
    return table(("key", "value", "goal", "met", "what"), rows, left=5)


def of_short_ones(figures: Mapping) -> list[str]:
    """What falls short, why, and what would close it."""
    lines = [_told(key, figures[key]) for key in GOALS if key in figures and figures[key]["met"] is False]
    return ["## What falls short", "", *lines, ""] if lines else []


def of_conditions(figures: Mapping) -> list[str]:
    """What is to be known of figures that are met; those of boards say it beside their table."""
    lines = [_told(key, figures[key]) for key in GOALS
             if key in figures and figures[key]["met"] and figures[key].get("note") and key not in BOARD_KEYS]
    return ["## What the others rest on", "", *lines, ""] if lines else []


def _told(key, record):
    return f"* `{key}` ({number(record['value'])}, goal {record['goal']}): {record['note']}"


def of_commands(resident: Mapping, events: int) -> list[str]:
    """Cycles of a token by kind of command; their sum is what the device counted."""
    cycles, adding = (by_kind(resident[name]) for name in ("cycles_by_label", "adding_by_label"))
    total = resident["cycles_per_token"]
    if abs(sum(cycles.values()) - total) > 0.5:
        raise AssertionError(f"The parts are {sum(cycles.values()):.1f} cycles per token, the device counted {total}.")
    rows = [(f"`{kind}`", what, f"{cycles[kind]:,.1f}", f"{cycles[kind] / total:.1%}", f"{adding[kind]:,.1f}",
             f"{cycles[kind] - adding[kind]:,.1f}") for kind, what in KINDS.items() if kind in cycles]
    added = sum(adding.values())
    rows.append(("**all**", "", f"**{total:,.1f}**", "100.0%", f"**{added:,.1f}**", f"**{total - added:,.1f}**"))
    return table(("command", "what", "cycles/token", "share", f"of them adding rows, {events} per cycle", "filling, draining, starting"),
                 rows, left=2)


def of_ladder(ladder: Mapping) -> list[str]:
    """Every rung's cycles and bytes, resident and streamed."""
    rows, first = [], ladder["resident"][0]["cycles"]
    for here, there in zip(ladder["resident"], ladder["streamed"]):
        rows.append((here["rung"], here["what"], f"{here['cycles']:,.0f}", f"{first / here['cycles']:.1f}x", f"{there['cycles']:,.0f}",
                     f"{here['row_bytes']:,}", f"{here['value_bytes']:,}"))
    rows += [(record["rung"], "its last token alone has logits", "", "", f"{record['cycles']:,.0f}", f"{record['row_bytes']:,}", "")
             for record in ladder.get("prompt", ())]
    return table(("rung", "what", "cycles/token, resident", "so far", "cycles/token, streamed", "bytes of weights", "bytes of values"),
                 rows, left=2)


def of_rates(points: Sequence[Mapping]) -> list[str]:
    """Forced rates: measured, theory, bound."""
    rows = []
    for point in points:
        predicted = theory(points, point["rows_spoke"])
        rows.append((f"{point['rate']:g}", f"{point['rows_spoke']:.3f}", f"{point['cycles_per_token']:,.0f}", f"{predicted:,.0f}",
                     f"{point['cycles_per_token'] / predicted - 1:+.1%}", f"{point['machine_bound_per_token']:,.0f}",
                     f"{point['bytes_per_token']:,.0f}", str(point["cycles_counted"] - point["cycles_predicted"])))
    return table(("rate", "rows that spoke", "cycles/token, RTL", "theory", "off by", "rows x tiles / events per cycle",
                  "weight bytes/token", "cycle model off by (cycles)"), rows)


def of_layers(layers: Sequence[Mapping]) -> list[str]:
    """Layers of the large shapes at full width on RTL."""
    rows = []
    for record in layers:
        rows.append((f"`{record['shape']}`: width {record['width']}, hidden {record['hidden']}, {record['weight_bits']} bits",
                     f"{record['machine']}, {record['columns']} columns", f"{record['cycles_counted']:,}",
                     f"{record['cycles_predicted']:,}",
                     f"{record['cycles_counted'] / record['cycles_predicted'] - 1:+.2%}", f"{record['bytes_counted']:,}",
                     f"{record['mismatches']} of {record['compared']}"))
    return table(("layer", "machine", "cycles counted", "predicted", "off by", "bytes", "differences"), rows, left=2)


def of_boards(figures: Mapping) -> list[str]:
    """Large shapes on boards."""
    rows = []
    for key in BOARD_KEYS:
        if key not in figures:
            continue
        record = figures[key]["beside"]
        sparse, dense, roof = record["sparse"], record["dense"], record["dense_roof"]
        rows.append((f"`{key}`", *(f"{part['tokens_per_second']:,.0f}" for part in (sparse, dense, roof)),
                     f"{sparse['all_bytes_per_token']:,}", f"{dense['all_bytes_per_token']:,}", f"{record['memory']['gb_per_s']:.2f}",
                     f"{sparse['over_bound']:.3f}"))
    return table(("key [model]", "tokens/s", "our dense mode", "dense int4 roof", "bytes/token, all", "dense", "GB/s at most",
                  "over its bound"), rows)


def of_processors(record: Mapping) -> list[str]:
    """The plain C loop, here and scaled."""
    rows = [(f"{record['x86']}, CoreMark {record['x86_coremark']:,.0f}", f"{record['x86_one_core']:,.0f}",
             f"{record['x86_all_cores']:,.0f} ({record['x86_cores']} cores)", "measured")]
    rows += [(name, f"{board['one_core']:,.0f}", f"{board['all_cores']:,.0f} ({board['cores']} cores)", f"scaled: {board['coremark']}")
             for name, board in record["boards"].items()]
    return table(("processor", "tokens/s, one core", "all cores", "how"), rows)
