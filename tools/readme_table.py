"""Fills README.md's table from results/*.json, so that no figure is typed twice.

    python tools/readme_table.py           # rewrite README.md
    python tools/readme_table.py --check   # fail if it would change
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- table: tools/readme_table.py -->\n", "<!-- end -->\n"


def result(name: str) -> dict:
    """One committed measurement."""
    return json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))


def rows() -> list[tuple[str, str, str, str]]:
    """(what, figure, goal, evidence and file) of each line."""
    speed, networks, quality = result("rtl_speed.json"), result("random_models.json"), result("stories-260k.json")
    resident, dense, streamed = speed["resident"], speed["dense"], speed["streamed_latency_24"]
    q, samples = quality, quality["samples"]
    bits = {name: q[name]["bits_per_byte"] for name in ("integer", "float", "softmax_twin", "character_6_gram")}
    seen = {name: round(q[name]["training_tokens"] / 1e6) for name in ("float", "softmax_twin")}
    skipped = resident["rows_skipped"] / (resident["rows_skipped"] + resident["rows_wanted"])
    in_speed, in_networks, in_quality = (f"[`{n}`](results/{n})" for n in ("rtl_speed.json", "random_models.json", "stories-260k.json"))
    return [
        ("RTL against the integer model: tokens, scores and a checksum per command that differ",
         f"{speed['mismatches']} of {speed['generation']['compared'] + resident['compared']:,}", "0", f"`[sim]` {in_speed}"),
        (f"{networks['cases']} random networks of {len(networks['networks_of_each_system'])} systems (three weight formats, resident "
         "and streamed, encoders and decoders): differences",
         f"{networks['totals']['mismatches']} of {networks['totals']['compared']:,}", "0", f"`[sim]` {in_networks}"),
        ("`stories-260k` on held-out stories, bits/byte: spiking, integers", f"{bits['integer']:.3f}", "1.10",
         f"`[model]` {in_quality}"),
        (f"the same: float form; softmax twin of equal size (trained on {seen['softmax_twin']} M tokens, the spiking model on "
         f"{seen['float']} M); character 6-gram",
         f"{bits['float']:.3f}; {bits['softmax_twin']:.3f}; {bits['character_6_gram']:.3f}", "",
         f"`[model]` {in_quality}"),
        ("words of 20 seeded samples that are in the training text; word 13-grams copied from it",
         f"{samples['known_words']:.1%}; {samples['copied_13_grams']:.1%}", "98%; 10%", f"`[model]` {in_quality}"),
        *((what, figure, goal, f"`[sim]` {in_speed}") for what, figure, goal in (
            ("cycles/token, 64 columns, resident rows, positions 0-127", f"{resident['cycles_per_token']:,.0f}", "3,000"),
            ("the same, every row requested (dense mode)", f"{dense['cycles_per_token']:,.0f}", ""),
            ("the same, rows streamed over one 64-bit port (bound by the bus)", f"{streamed['cycles_per_token']:,.0f}", ""),
            ("rows of weights skipped", f"{skipped:.0%}", ""),
            ("weight bytes/token, sparse; dense", f"{resident['bytes_per_token']:,.0f}; {dense['bytes_per_token']:,.0f}", ""),
            ("simulated cycles per second of one core", f"{resident['simulated_cycles_per_cpu_second']:,}", "100,000"))),
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
