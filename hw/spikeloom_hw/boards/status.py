"""How far each board has come: noted by the runs themselves, shown in `bitstreams/README.md`. Standard library only.

`python -m spikeloom_hw.boards.status` gathers what lies there and writes the page, and the guide's table of resources; with
``--check`` it says whether they are those of the notes. Whether the notes are those of the gateware of now: `fresh`.
"""

import argparse
import json
import sys
from pathlib import Path
from xml.etree import ElementTree

#: Files, from the root of a checkout: notes, page, guide, areas, what tests leave.
NOTES, PAGE, GUIDE = Path("bitstreams/status.json"), Path("bitstreams/README.md"), Path("docs/guide.md")
AREAS, TESTS, ALL_TESTS = Path("results/area.json"), Path("build/boards"), Path("build/tests.xml")
#: Around the guide's table.
BEGIN, END = "<!-- table: make boards-table -->\n", "<!-- end -->\n"
BOARDS = {"ulx3s": "ULX3S 85F", "pynq_z1": "PYNQ-Z1", "pynq_z2": "PYNQ-Z2", "kv260": "KV260"}
COLUMNS = {"verilog": "Verilog", "netlist": "netlist", "utilisation": "utilisation", "route": "route", "bitstream": "bitstream",
           "hwh_31": "hwh, pynq 3.1", "hwh_40": "hwh, pynq 4.0", "driver": "driver tests"}
#: Environment of the board tests that stands for a board's driver.
DRIVER_TESTS = {"pynq_z1": "pynq-3.1", "pynq_z2": "pynq-3.1", "kv260": "pynq-4.0"}
#: What is said where nothing was noted, and where a column means nothing.
NEVER, NOTHING = "not run", "-"


def read(path: Path = NOTES) -> dict:
    """Notes by board and column."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(notes: dict, path: Path = NOTES) -> None:
    """Keep notes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = {board: {column: notes[board][column] for column in COLUMNS if column in notes[board]} for board in BOARDS if board in notes}
    path.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


def note(board: str, path: Path = NOTES, *, of: str = "", **columns: str) -> None:
    """Note what a run came to.

    Parameters
    ----------
    board : str
        Of `BOARDS`.
    of : str
        Hash of the Verilog that this holds for; another one makes it stale.
    columns : str
        ``yes``, a figure with its label, or what is missing, by column.
    """
    unknown = sorted({board} - BOARDS.keys()) + sorted(columns.keys() - COLUMNS.keys())
    if unknown:
        raise ValueError(f"There is no board or column {', '.join(unknown)}.")
    notes = read(path)
    notes.setdefault(board, {}).update({column: {"value": value} | ({"of": of} if of else {}) for column, value in columns.items()})
    write(notes, path)


def note_tests(folder: Path = TESTS, path: Path = NOTES) -> None:
    """Note what the board tests came to, from the reports (JUnit) that they leave in ``folder``."""
    for report in sorted(folder.glob("pynq-*.xml")):
        cases = list(ElementTree.parse(report).iter("testcase"))
        bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
        skipped = [case for case in cases if case.find("skipped") is not None]
        column = {"pynq-3.1": "hwh_31", "pynq-4.0": "hwh_40"}[report.stem]
        for board, environment in DRIVER_TESTS.items():
            about = [case for case in cases if case.get("classname", "").endswith("test_hwh") and f"[{board}" in case.get("name", "")]
            wrong = [case for case in about if case in bad or case in skipped]
            note(board, path, **{column: NEVER if not about else f"{len(wrong)} failed" if wrong else "yes"})
            if environment == report.stem:
                passed = len(cases) - len(bad) - len(skipped)
                note(board, path, driver=f"{passed} passed{f', {len(bad)} failed' if bad else ''} [sim]")


def note_serial_tests(report: Path = ALL_TESTS, path: Path = NOTES) -> None:
    """Note what the tests of the serial link came to, from the report (JUnit) of all tests."""
    if not report.exists():
        return
    cases = [case for case in ElementTree.parse(report).iter("testcase") if case.get("classname", "").endswith("test_uart")]
    ends = {kind: sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error", "skipped")}
    bad, passed = ends["failure"] + ends["error"], len(cases) - sum(ends.values())
    if passed or bad:
        note("ulx3s", path, driver=f"{passed} passed{f', {bad} failed' if bad else ''} [sim]")


def note_area(areas: Path = AREAS, path: Path = NOTES) -> None:
    """Note utilisation and netlist of the boards whose machines were mapped."""
    machines = json.loads(areas.read_text(encoding="utf-8"))["machines"] if areas.exists() else {}
    for board, machine in (("pynq_z1", "pynq_z2"), ("pynq_z2", "pynq_z2"), ("kv260", "kv260")):
        record = machines.get(machine)
        if record:
            shares = ", ".join(f"{record[f'{kind}_fraction']:.0%} {name}" for kind, name in (("lut", "LUT"), ("bram", "BRAM")))
            note(board, path, of=record["verilog_sha256"], utilisation=f"{shares} [synth]", netlist="yes")


def note_ulx3s(manifest: Path, path: Path = NOTES) -> None:
    """Note the bitstream whose manifest lies there; which Verilog is that of now, only an export can tell."""
    if manifest.exists():
        build = json.loads(manifest.read_text(encoding="utf-8"))["build"]
        names = {"TRELLIS_COMB": "LUT", "DP16KD": "BRAM"}
        shares = ", ".join(f"{build['used'][kind]['fraction']:.0%} {name}" for kind, name in names.items() if kind in build["used"])
        note("ulx3s", path, of=build["verilog_sha256"], netlist="yes", utilisation=f"{shares} [route]",
             route=f"{build['fmax_mhz']:g} MHz for {build['clock_mhz']:g} [route]", bitstream="yes")
        note("ulx3s", path, hwh_31=NOTHING, hwh_40=NOTHING)


def cell(notes: dict, board: str, column: str) -> str:
    """What the table shows: the note, and that it is stale where it holds for other Verilog than the board's last."""
    entry = notes.get(board, {}).get(column)
    if entry is None:
        return NEVER
    now = notes[board].get("verilog", {}).get("of")
    return entry["value"] + (" (stale)" if now and entry.get("of", now) != now else "")


_TOP = """# Bitstreams

One folder per board holds what `make bitstream BOARD=...` made there: `spikeloom.bit`, for Zynq boards `spikeloom.hwh`, and
`manifest.json`, by which a driver knows the machine. How to build: [`docs/vivado.md`](../docs/vivado.md), for a ULX3S
[`docs/ulx3s.md`](../docs/ulx3s.md); another board: [`docs/adding-a-board.md`](../docs/adding-a-board.md).

How far each board has come, noted by the runs themselves. `yes`: made and checked; [synth], [route]: figure of a mapped, of a
routed design; [sim]: against the Verilated gateware behind a simulated board; `needs ...`: the tool that was missing. **Nothing here
has run on a board.**
"""
_END = """
`(stale)`: the gateware has changed since. Written by `make boards-table` from `bitstreams/status.json` and `results/area.json`.
"""


def _table(head, rows) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


#: Columns of the tables of areas.
KINDS = {"lut": "LUT", "lut_merged": "at least", "lut_memory": "of these memory", "ff": "FF", "bram": "BRAM36", "uram": "URAM",
         "multipliers": "multipliers"}


def _cells(record) -> list[str]:
    return [f"{record[kind]:,g}" for kind in KINDS]


def _area_text(areas: dict) -> str:
    """Tables of the mapped machines, and of what the first Zynq machine consists of."""
    machines = areas.get("machines", {})
    if not machines:
        return ""
    rows = [[name, record.get("part", record["family"]), *_cells(record)] for name, record in machines.items()]
    versions = ", ".join(sorted({record["yosys"] for record in machines.values()}))
    text = (f"\n## Area\n\nCells after mapping by Yosys {versions} [synth], units mapped apart from each other: an upper bound of the "
            "look-up tables, and the fewest they can become when a placer merges small ones. On UltraScale+ Yosys counts as on "
            "7-series.\n\n"
            + _table(["preset", "part", *KINDS.values()], rows))
    record = machines.get("pynq_z2")
    if record:
        parts = [[name, str(part["number"]), *(f"{part.get(kind, 0):,g}" for kind in ("lut", "lut_memory", "ff", "bram"))]
                 for name, part in record["components"].items()]
        text += ("\nWhat `pynq_z2` consists of; each unit without the units inside it.\n\n"
                 + _table(["unit", "number", "LUT", "of these memory", "FF", "BRAM36"], parts))
    return text


def resources(areas: dict, ulx3s: dict | None) -> str:
    """The guide's table: what each preset takes of each family it was mapped to.

    Parameters
    ----------
    areas : dict
        `results/area.json`.
    ulx3s : dict, optional
        What the manifest of its bitstream says of the build.
    """
    rows = [[f"`{name}`", family, *_cells(record), record["label"]]
            for name, families in areas.get("families", {}).items() for family, record in families.items()]
    if ulx3s:
        used = {kind: f"{entry['used']:,}" for kind, entry in ulx3s["used"].items()}
        rows.append(["`ulx3s`", "ecp5", used["TRELLIS_COMB"], "", f"{4 * ulx3s['used'].get('TRELLIS_RAMW', {}).get('used', 0):,}",
                     used["TRELLIS_FF"], f"{used['DP16KD']} of 18 kbit", "", used.get("MULT18X18D", "0"), ulx3s["label"]])
    return _table(["preset", "family", *KINDS.values(), "evidence"], rows)


def render(notes: dict, areas: dict) -> str:
    """The page."""
    rows = [[title, *(cell(notes, board, column) for column in COLUMNS)] for board, title in BOARDS.items()]
    return f"{_TOP}\n{_table(['board', *COLUMNS.values()], rows)}{_area_text(areas)}{_END}"


def page(root: Path) -> str:
    """The page of a checkout's notes."""
    areas = root / AREAS
    return render(read(root / NOTES), json.loads(areas.read_text(encoding="utf-8")) if areas.exists() else {})


def guide(root: Path) -> str:
    """The guide of a checkout with today's table of resources."""
    areas, manifest = root / AREAS, root / "bitstreams/ulx3s/manifest.json"
    build = json.loads(manifest.read_text(encoding="utf-8"))["build"] if manifest.exists() else None
    before, rest = (root / GUIDE).read_text(encoding="utf-8").split(BEGIN)
    table = resources(json.loads(areas.read_text(encoding="utf-8")) if areas.exists() else {}, build)
    return before + BEGIN + table + END + rest.split(END, 1)[1]


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("."), help="root of the checkout")
    parser.add_argument("--check", action="store_true", help="only compare the page with the notes")
    options = parser.parse_args(arguments)
    root = options.root
    if not options.check:
        note_tests(root / TESTS, root / NOTES)
        note_serial_tests(root / ALL_TESTS, root / NOTES)
        note_area(root / AREAS, root / NOTES)
        note_ulx3s(root / "bitstreams/ulx3s/manifest.json", root / NOTES)
        (root / PAGE).write_text(page(root), encoding="utf-8")
        (root / GUIDE).write_text(guide(root), encoding="utf-8")
        return 0
    wrong = [path for path, text in ((PAGE, page(root)), (GUIDE, guide(root))) if (root / path).read_text(encoding="utf-8") != text]
    for path in wrong:
        print(f"{path} is not that of {NOTES} and {AREAS}; run: make boards-table", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
