"""The page is made of the figures on file, and says so where they do not add up."""

from pathlib import Path

import pytest

from spikeloom_sim.bench import page, pictures, tables
from spikeloom_sim.bench.figures import DETAILS, RESULT, load
from spikeloom_sim.bench.keys import GOALS

ROOT = Path(__file__).resolve().parents[3]


def test_the_table_of_commands_sums_layers_and_parts():
    resident = {"cycles_per_token": 50.0, "cycles_by_label": {"layer0.qkv": 15, "layer1.qkv": 25, "sequencer": 10},
                "adding_by_label": {"layer0.qkv": 5}}
    lines = tables.of_commands(resident, 1)
    assert lines[2] == "| `qkv` | Q, K, V | 40.0 | 80.0% | 5.0 | 35.0 |"
    assert lines[-1] == "| **all** |  | **50.0** | 100.0% | **5.0** | **45.0** |"
    with pytest.raises(AssertionError, match="the device counted 51"):
        tables.of_commands(resident | {"cycles_per_token": 51.0}, 1)


def test_figures_say_whether_they_meet_their_goal():
    record = {"value": 1700.5, "unit": "cycles/token", "evidence": "[sim]", "goal": "<= 1,600", "met": False, "what": "w", "note": "Why."}
    lines = tables.of_figures({"cycles_per_token_260k": record})
    assert lines[2] == "| `cycles_per_token_260k` [sim] | 1,700 cycles/token | <= 1,600 | **no** | w |"
    assert "not measured" in lines[3] and len(lines) == 2 + len(GOALS)
    assert tables.of_short_ones({"cycles_per_token_260k": record})[2] == "* `cycles_per_token_260k` (1,700, goal <= 1,600): Why."
    assert tables.of_short_ones({"cycles_per_token_260k": record | {"met": True}}) == []


def test_numbers_for_people():
    assert [tables.number(value) for value in (1234567, 1.2302, 0.5, 2824.6, [1, 0.5, 0.25])] == [
        "1,234,567", "1.23", "0.5", "2,825", "1 : 0.5 : 0.25"]
    assert [tables.number(value) for value in (37.74, 99.96, 100.4)] == ["37.7", "100.0", "100"]


def test_theory_is_a_straight_line():
    points = [{"rate": rate, "rows_spoke": rate, "cycles_per_token": 100 + 900 * rate, "machine_bound_per_token": 900 * rate,
               "bytes_per_token": 0, "cycles_counted": 5, "cycles_predicted": 5} for rate in (0.0, 0.5, 1.0)]
    lines = tables.of_rates(points)
    assert lines[3].startswith("| 0.5 | 0.500 | 550 | 550 | +0.0% |")


def test_tables_of_other_verilog_are_stale():
    figures = {"cycles_per_token_260k": {"of": {"machine": {"verilog_sha256": "a" * 64}}}}
    assert page.stale(figures, {"model": {"machine": {"verilog_sha256": "b" * 64}}})[0].startswith("Stale: ")
    assert page.stale(figures, {"model": figures["cycles_per_token_260k"]["of"]}) == page.stale(figures, {}) == page.stale({}, {}) == []


def test_figures_that_are_met_say_what_they_rest_on():
    record = {"value": 4.2, "unit": "", "evidence": "[sim]", "goal": ">= 4", "met": True, "what": "w", "note": "So and so."}
    assert tables.of_conditions({"prefill_over_decode": record})[2] == "* `prefill_over_decode` (4.2, goal >= 4): So and so."
    assert tables.of_conditions({"prefill_over_decode": record | {"met": False}}) == []
    assert tables.of_conditions({"tok_s_d288_z2": record}) == [], "said beside the table of boards"


def test_the_page_on_file_is_that_of_the_figures_on_file():
    figures, found = load(ROOT / RESULT), load(ROOT / DETAILS)
    if not figures:
        pytest.skip("bench: no figures on file")
    notes = ROOT / page.NOTES
    text = page.text(figures, found, notes.read_text(encoding="utf-8") if notes.is_file() else "")
    assert (ROOT / "docs" / "performance.md").read_text(encoding="utf-8") == text, "run: spikeloom bench --page"


def test_labels_of_the_roofline_lie_in_the_picture(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib: not installed")
    boxes = []

    def look(pyplot, figure, path):
        save(pyplot, figure, path)
        boxes.extend((axis.label.get_window_extent(), figure.bbox) for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis))

    save = pictures._save
    monkeypatch.setattr(pictures, "_save", look)
    pictures.draw_roofline(tmp_path / "roofline.png", [{"name": "bus", "bytes_per_cycle": 8, "peak": 64}], [])
    assert len(boxes) == 2 and all((label.min >= 0).all() and (label.max <= whole.max).all() for label, whole in boxes)
