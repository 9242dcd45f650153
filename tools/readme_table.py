"""Fills README.md's table from results/*.json, so that no figure is typed twice.

    python tools/readme_table.py           # rewrite README.md
    python tools/readme_table.py --check   # fail if it would change
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "sw"))

from spikeloom.model.quality_notes import GOALS  # noqa: E402

BEGIN, END = "<!-- table: tools/readme_table.py -->\n", "<!-- end -->\n"


def result(name: str) -> dict:
    """One committed measurement."""
    return json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))


#: Keys of bench.json that the table shows, and what they are.
FIGURES = {
    "cycles_per_token_260k": "cycles/token, 64 columns, resident rows, positions 0-127",
    "over_event_bound": "cycles over the event bound (rows that spoke x column tiles, one per cycle), worst released model",
    "dense_over_sparse_cycles": "dense mode over sparse, cycles (counts for models within 0.05 nats of their softmax twin): {whose}",
    "dense_over_sparse_bytes": "the same, bytes of weights",
    "stream_peak_fraction": "streamed rows: bytes per cycle over the port's peak",
    "prefill_over_decode": "the same: reading a prompt of 128 in blocks of 16, tokens per second over those of writing",
    "tok_s_d288_z2": "8 M parameters, int4, a PYNQ-Z2's memory, assumed clock and machine, tokens/s",
    "tok_s_d768_kv260": "123 M parameters and an embedding, int4, a KV260's memory, assumed clock, machine beyond the chip, tokens/s",
    "fmax_mhz_ecp5": "clock of the core on an ECP5-85F, MHz",
    "z2_lut_fraction": "look-up tables of a PYNQ-Z2 used",
    "z2_bram_fraction": "block RAM of a PYNQ-Z2 used",
    "z2_multipliers": "multipliers",
    "sim_tokens_per_s": "text from the simulator on two cores, tokens per processor second, added up",
    "sim_cycles_per_cpu_s": "simulated cycles per second of one core",
}


#: The released models whose gap is told.
BEHIND = ("shakespeare", "stories-1m", "stories-260k")


def marked(figure: str, *goals: dict) -> tuple[str, str]:
    """A figure and its goal, which some or none of these entries of quality.json's goals miss."""
    missed = [not goal["met"] for goal in goals]
    return figure + (" (missed)" if all(missed) else " (partly missed)" * any(missed)), f"{goals[0]['limit']:g}"


def figure_row(record: dict, what: str, where: str) -> tuple[str, str, str, str]:
    """A line of one of bench.json's figures."""
    value, marks = record["value"], " (missed)" * (record["met"] is False) + " (of older Verilog)" * record.get("stale", False)
    figure = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}" if value >= 10 else f"{value:.3f}".rstrip("0")
    return what, figure + marks, (record["goal"] or "").lstrip("<>= "), f"`{record['evidence']}` {where}"


def whose(record: dict) -> str:
    """The model of a figure and where its rows of weights lie; nothing for a figure that does not say."""
    beside = record.get("beside", {})
    return f"`{beside['model']}`, {beside['rows']} rows" if "rows" in beside else ""


def rows() -> list[tuple[str, str, str, str]]:
    """(what, figure, goal, evidence and file) of each line."""
    speed, parts = result("bench.json"), result("bench_details.json")
    networks, quality, systems = result("random_models.json"), result("stories-260k.json"), result("systems.json")["each"]
    larger = result("stories-1m.json")
    goals = {(goal["goal"], goal["of"]): goal for goal in result("quality.json")["goals"]}
    gaps, int4 = [goals[GOALS["gap"][0], name] for name in BEHIND], goals[GOALS["int4"][0], "stories-260k, int4 (trained on)"]
    resident, dense, streamed = parts["resident"], parts["dense"], parts["streamed"]
    q, samples = quality, quality["samples"]
    bits = {name: q[name]["bits_per_byte"] for name in ("integer", "float", "softmax_twin", "character_6_gram")}
    seen = {name: round(q[name]["training_tokens"] / 1e6) for name in ("float", "softmax_twin")}
    first = next(iter(streamed.values()))
    skipped = resident["rows_skipped"] / (resident["rows_skipped"] + resident["rows_wanted"])
    in_speed, in_parts, in_networks, in_quality, in_systems, in_goals = (f"[`{n}`](results/{n})" for n in (
        "bench.json", "bench_details.json", "random_models.json", "stories-260k.json", "systems.json", "quality.json"))
    mismatches = sum(part["mismatches"] for part in (parts["generation"], resident, dense, *streamed.values()))
    return [
        ("RTL against the integer model: tokens, scores and a checksum per command that differ",
         f"{mismatches} of {parts['generation']['compared'] + resident['compared']:,}", "0", f"`[sim]` {in_parts}"),
        (f"{networks['cases']} random networks of {len(networks['networks_of_each_system'])} systems (three weight formats, resident "
         "and streamed, encoders and decoders): differences",
         f"{networks['totals']['mismatches']} of {networks['totals']['compared']:,}", "0", f"`[sim]` {in_networks}"),
        (f"{len(systems)} trained models of the three papers' systems: differences",
         f"{sum(row['mismatches'] for row in systems)} of {sum(row['compared'] for row in systems):,}", "0", f"`[sim]` {in_systems}"),
        ("`stories-260k` on held-out stories, bits/byte: spiking, integers (the goal is what the public stories260K has)",
         *marked(f"{bits['integer']:.3f}", goals[GOALS["public"][0], "stories-260k"]), f"`[model]` {in_quality}"),
        (f"the same: float form; softmax twin of equal size (trained on {seen['softmax_twin']} M tokens, the spiking model on "
         f"{seen['float']} M); character 6-gram",
         f"{bits['float']:.3f}; {bits['softmax_twin']:.3f}; {bits['character_6_gram']:.3f}", "",
         f"`[model]` {in_quality}"),
        ("`stories-1m` on the same, integers; float form; softmax twin of equal size",
         "; ".join(f"{larger[name]['bits_per_byte']:.3f}" for name in ("integer", "float", "softmax_twin")), "",
         "`[model]` [`stories-1m.json`](results/stories-1m.json)"),
        (f"nats per token behind a softmax twin of equal size: {', '.join(f'`{name}`' for name in BEHIND)}",
         *marked("; ".join(f"{gap['figure']:.3f}" for gap in gaps), *gaps), f"`[model]` {in_goals}"),
        ("int4 weights, nats per token behind int8: `stories-260k-int4`", *marked(f"{int4['figure']:.3f}", int4), f"`[model]` {in_goals}"),
        ("words of 20 seeded samples that are in the training text; word 13-grams copied from it",
         f"{samples['known_words']:.1%}; {samples['copied_13_grams']:.1%}", "98%; 10%", f"`[model]` {in_quality}"),
        *(figure_row(speed[key], what.format(whose=whose(speed[key])), in_speed) for key, what in FIGURES.items() if key in speed),
        *((what, figure, "", f"`[sim]` {in_parts}") for what, figure in (
            ("cycles/token, rows streamed over the bus", f"{first['cycles_per_token']:,.0f}"),
            ("rows of weights skipped", f"{skipped:.0%}"),
            ("weight bytes/token, sparse; dense", f"{resident['bytes_per_token']:,.0f}; {dense['bytes_per_token']:,.0f}"))),
    ]


def table() -> str:
    """The Markdown table."""
    head = "| what | figure | goal | evidence |\n| --- | --- | --- | --- |\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows())


def filled(text: str) -> str:
    """README with today's table."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END, 1)[1]


def main() -> int:
    """Command line."""
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    new = filled(text)
    if "--check" in sys.argv[1:]:
        return int(new != text)
    path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
