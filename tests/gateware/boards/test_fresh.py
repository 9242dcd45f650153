"""`boards.fresh`: results of other gateware are seen, and the page shows it."""

import json

import pytest

from spikeloom_hw.boards import fresh, status, ulx3s_route

BUILD = {"verilog_sha256": "old", "fmax_mhz": 60.0, "clock_mhz": 50.0, "used": {"TRELLIS_COMB": {"fraction": 0.5}}}


@pytest.fixture
def checkout(tmp_path):
    """A checkout with results of every kind, all of Verilog `old`."""
    notes = tmp_path / status.NOTES
    status.note("pynq_z2", notes, of="old", verilog="yes", utilisation="40% LUT [synth]")
    status.note("kv260", notes, of="old", verilog="yes", netlist="yes")
    for path, content in ((status.AREAS, {"machines": {}, "families": {"tiny": {"xc7": {"verilog_sha256": "old"}}}}),
                          ("bitstreams/ulx3s/manifest.json", {"build": BUILD}), (ulx3s_route.RESULT, {"verilog_sha256": "old"})):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(json.dumps(content))
    status.note_ulx3s(tmp_path / "bitstreams/ulx3s/manifest.json", notes)
    return tmp_path


def judged(root, **now):
    """What is fresh where the gateware's hashes are those of `now`, else `old`."""
    found = fresh.judge(root, lambda name: now.get(name, "old"), lambda: now.get("ulx3s", "old"), lambda: now.get("route", "old"))
    return {name for name, is_fresh in found if not is_fresh}, len(found)


def stale_cells(root):
    """(board's title, column) of the page's stale cells."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in status.page(root).splitlines() if line.startswith("| ")]
    return {(line[0], name) for line in lines for name, cell in zip(status.COLUMNS, line[1:], strict=False) if "(stale)" in cell}


def test_nothing_is_stale_while_the_gateware_stands(checkout):
    assert judged(checkout) == (set(), 3) and not stale_cells(checkout)


@pytest.mark.parametrize("now, results, cells", [
    ({"pynq_z2": "new"}, set(), {("PYNQ-Z2", "utilisation")}), ({"kv260": "new"}, set(), {("KV260", "netlist")}),
    ({"tiny": "new"}, {"area of tiny on xc7"}, set()), ({"route": "new"}, {"route of the core"}, set()),
    ({"ulx3s": "new"}, {"bitstream of ulx3s"}, {("ULX3S 85F", name) for name in ("netlist", "utilisation", "route", "bitstream")})])
def test_what_belongs_to_other_gateware_is_stale(checkout, now, results, cells):
    assert judged(checkout, **now)[0] == results
    assert stale_cells(checkout) == cells
    status.note_ulx3s(checkout / "bitstreams/ulx3s/manifest.json", checkout / status.NOTES)
    assert stale_cells(checkout) == cells, "reading the manifest again hides that it is stale"


def test_the_exit_code_says_it(checkout, monkeypatch, capsys):
    monkeypatch.setattr(fresh, "hash_of", lambda name: "old")
    monkeypatch.setattr(fresh.ulx3s_build, "board_verilog", lambda cfg: "new")
    monkeypatch.setattr(fresh.ulx3s_route, "verilog", lambda: "new")
    assert fresh.main(["--root", str(checkout)]) == fresh.STALE
    assert "bitstream of ulx3s: STALE" in capsys.readouterr().out
