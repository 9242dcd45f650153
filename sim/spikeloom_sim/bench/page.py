"""`docs/performance.md` and its pictures, from what `spikeloom bench` left in results/: nothing is measured here."""

from collections.abc import Mapping
from pathlib import Path

from . import pictures, tables
from .figures import DETAILS, RESULT, load

#: Pictures, in docs/.
TOKEN, TIMELINE, RATES, ROOFLINE = "token.png", "timeline.png", "rates.png", "roofline.png"
#: What was tried and what it brought, written by hand; the end of the page.
NOTES = Path("docs/performance_notes.md")


def roofline(found: Mapping) -> tuple[list[dict], list[dict]]:
    """(roofs, points) of the roofline."""
    columns, events, beat = (found["machine"][name] for name in ("columns", "events", "bus_bytes"))
    roofs = [{"name": f"rows on chip, {columns * events} bytes per cycle", "bytes_per_cycle": columns * events, "peak": columns * events},
             {"name": f"the bus, {beat} bytes per cycle", "bytes_per_cycle": beat, "peak": columns}]
    dense = found["dense"]["event_bound_per_token"] * columns

    def point(name, part):
        adds = part["event_bound_per_token"] * columns
        return {"name": name, "adds_per_byte": adds / part["bytes_per_token"], "adds_per_cycle": adds / part["cycles_per_token"],
                "dense_equivalent": dense / part["cycles_per_token"]}

    points = [point("stories-260k, resident", found["resident"]), point("the same, dense mode", found["dense"])]
    points += [point(f"the same, streamed, latency {latency}", part) for latency, part in found["streamed"].items()]
    full = next(p for p in found["sweep"] if p["rate"] == 1.0)["event_bound_per_token"] * columns
    for record in found["formats"]:
        made = point(f"half the rows, {record['weight_bits']}-bit, streamed", record)
        points.append(made | {"dense_equivalent": full / record["cycles_per_token"]})
    return roofs, points


def _prose(words: str) -> str:
    """One paragraph."""
    return " ".join(words.split())


_HEAD = """Made by `spikeloom bench` from `results/bench.json` and `results/bench_details.json`; one key again with `--only KEY`.
Labels: `[sim]` counted in Verilated RTL, `[model]` by the integer and the cycle model, `[synth]` Yosys, `[route]` nextpnr. Bounds are
counted from the integer model's spikes."""
_COMMANDS = """Model `{model}` (SHA-256 {digest}...) on preset `{preset}`, resident rows, mean over positions {positions} of {texts}
held-out texts ({name}) [sim]; split by the cycle model, whose sum is the count: {missed} of {counted:,} cycles were not predicted."""
_AGREE = """{compared:,} tokens and checksums of greedy generations and the scores of every run were compared with the integer model:
{mismatches} differ."""
_LADDER = """What each idea is worth: one image, the tokens of one story, by the cycle model with the ideas switched off [model];
resident rows, and rows streamed over {bits} bits of bus. The released model has int8 weights: with resident rows the same cycles as below,
and twice the bytes from the rung int4 on. Measured in RTL [sim], mean of its stories: the last rung {sparse:,.0f}, dense mode (all ideas
but the row skip) {dense:,.0f} cycles per token."""
_FIRING = """Random networks of the stories model's shape whose neurons speak at a forced rate, in RTL [sim]. Theory: what rests at
rate 0, and from there a straight line to dense mode."""
_ROOFLINE = """Additions of weights per cycle over additions per byte read. Dots: what the machine adds; rings: what a dense machine would
have had to add in the same time. A ring above a roof is below the dense roofline in cycles."""
_LARGE = """By the cycle model, at the firing rates of the largest released model ({rates}), with everything counted: parameters, keys,
values, embedding. The dense int4 roof reads every weight of the layers and the head once per token at 75% of the DRAM's peak."""
_LAYERS = """What that rests on: a layer of each shape at full width in RTL, streamed, random weights, forced rates [sim]."""
_PROCESSOR = """`decode.c`: the integer model as a plain C loop with row skip, 128-bit vectors, one sequence per core, in processor seconds;
{differ} of {compared:,} logits differ from the integer model's. The boards' figures are scaled by published CoreMark per core [model]."""


_STALE = """Stale: the tables and pictures below are of Verilog {theirs}, the figures above of {ours}; `spikeloom bench` makes them
again."""


def stale(figures: Mapping, found: Mapping) -> list[str]:
    """A line, where the tables were measured on other Verilog than the figures."""
    ours = figures.get("cycles_per_token_260k", {}).get("of", {}).get("machine", {}).get("verilog_sha256", "")
    theirs = found.get("model", {}).get("machine", {}).get("verilog_sha256", ours)
    return [_prose(_STALE).format(theirs=f"{theirs[:12]}...", ours=f"{ours[:12]}..."), ""] if ours and theirs != ours else []


def text(figures: Mapping, found: Mapping, notes: str) -> str:
    """The page, as far as there are tables for it."""
    lines = ["# Performance", "", _prose(_HEAD), "", *tables.of_figures(figures), "", *tables.of_short_ones(figures),
             *tables.of_conditions(figures), *stale(figures, found)]
    for needed, section in _SECTIONS:
        if all(name in found for name in needed):
            lines += section(figures, found)
    return "\n".join([*lines, notes]).rstrip() + "\n"


def _where(figures, found):
    resident, of = found["resident"], found["model"]
    return ["## Where the cycles of a token go", "",
            _prose(_COMMANDS).format(
                model=of["model"], digest=of["model_sha256"][:12], preset=of["machine"]["preset"], positions=of["data"]["positions"],
                texts=len(of["data"]["stories"]), name=of["data"]["name"], counted=resident["cycles_counted"],
                missed=abs(resident["cycles_counted"] - resident["cycles_predicted"])), "",
            *tables.of_commands(resident, found["machine"]["events"]), "", f"![cycles of a token]({TOKEN})", ""]


def _timeline(figures, found):
    return ["One token over time, by the cycle model [model]:", "", f"![one token]({TIMELINE})", ""]


def _agreement(figures, found):
    mismatches = sum(part["mismatches"] for part in (found["generation"], found["resident"], found["dense"]))
    return [_prose(_AGREE).format(compared=found["generation"]["compared"], mismatches=mismatches), ""]


def _ladder(figures, found):
    prose = _prose(_LADDER).format(bits=8 * found["machine"]["bus_bytes"], sparse=found["resident"]["cycles_per_token"],
                                   dense=found["dense"]["cycles_per_token"])
    return ["## Ladder", "", prose, "", *tables.of_ladder(found["ladder"]), ""]


def _rates(figures, found):
    return ["## Firing rates", "", _prose(_FIRING), "", *tables.of_rates(found["sweep"]), "", f"![rates]({RATES})", ""]


def _roofline(figures, found):
    return ["## Roofline", "", _prose(_ROOFLINE), "", f"![roofline]({ROOFLINE})", ""]


def _large(figures, found):
    rates = ", ".join(f"{kind} {rate:.2f}" for kind, rate in found["rates"].items())
    beside = {key: figures[key]["beside"] for key in tables.BOARD_KEYS if key in figures}
    notes = [f"* `{key}`: {part['built']} {part['context']}." for key, part in beside.items()]
    return ["## Large shapes", "", _prose(_LARGE).format(rates=rates), "", *tables.of_boards(figures), "", *notes, ""]


def _layers(figures, found):
    layers = [record for name, record in found.items() if name.startswith("layer_")]
    return [_prose(_LAYERS), "", *tables.of_layers(layers), ""] if layers else []


def _processor(figures, found):
    record = found["processor"]
    return ["## The same model on a processor", "", _prose(_PROCESSOR).format(differ=record["differ"], compared=record["compared"]), "",
            *tables.of_processors(record), ""]


#: Tables that a section is made of, and what makes it.
_SECTIONS = (
    (("model", "machine", "resident"), _where), (("token",), _timeline), (("generation", "resident", "dense"), _agreement),
    (("machine", "ladder", "resident", "dense"), _ladder), (("sweep",), _rates),
    (("machine", "resident", "dense", "streamed", "formats", "sweep"), _roofline), (("rates",), _large), ((), _layers),
    (("processor",), _processor))


def write(root: Path) -> None:
    """Write the page, and the pictures where there are tables for them."""
    figures, found = load(root / RESULT), load(root / DETAILS)
    folder, notes = root / "docs", root / NOTES
    folder.mkdir(parents=True, exist_ok=True)
    if "resident" in found:
        pictures.draw_commands(folder / TOKEN, found["resident"]["cycles_by_label"], found["resident"]["adding_by_label"])
    if "token" in found:
        pictures.draw_token(folder / TIMELINE, found["token"])
    if "sweep" in found:
        pictures.draw_rates(folder / RATES, found["sweep"])
    if all(name in found for name in ("machine", "resident", "dense", "streamed", "formats", "sweep")):
        pictures.draw_roofline(folder / ROOFLINE, *roofline(found))
    page = text(figures, found, notes.read_text(encoding="utf-8") if notes.is_file() else "")
    (folder / "performance.md").write_text(page, encoding="utf-8")
