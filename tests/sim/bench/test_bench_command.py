"""`spikeloom bench`: what is measured is written beside what is on file; a quick look leaves it alone."""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("typer")
pytest.importorskip("torch")

from typer.testing import CliRunner

from spikeloom.cli import app
from spikeloom_sim.bench import run as bench_run
from spikeloom_sim.bench.figures import RESULT, Figure, load
from spikeloom_sim.bench.processor import UnknownProcessor
from spikeloom_sim.bench.stories import Tally


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout with one figure on file, where measuring is quick."""
    path = tmp_path / RESULT
    path.parent.mkdir(parents=True)
    on_file = {"value": 1.0, "unit": "", "evidence": "[sim]", "goal": ">= 0.99", "met": True, "what": "w"}
    path.write_text(json.dumps({"skip_exploited": on_file}))
    made = {"cycles_per_token_260k": Figure(1500.0), "over_event_bound": Figure(1.1)}
    monkeypatch.setattr(bench_run.Figures, "figure", lambda self, key: made.get(key))
    return tmp_path


def invoke(root, *arguments):
    return CliRunner().invoke(app, ["bench", "--root", str(root), *arguments])


def test_a_figure_goes_beside_those_on_file_and_onto_the_page(root):
    result = invoke(root, "--only", "cycles_per_token_260k")
    assert result.exit_code == 0, result.output
    assert "cycles_per_token_260k: 1500.0 cycles/token [sim], goal <= 1,600: met" in result.output
    assert list(load(root / RESULT)) == ["cycles_per_token_260k", "skip_exploited"]
    page = (root / "docs" / "performance.md").read_text()
    assert "| `cycles_per_token_260k` [sim] | 1,500 cycles/token | <= 1,600 | yes |" in page and "not measured" in page


def test_a_quick_look_writes_nothing(root):
    before = (root / RESULT).read_text()
    result = invoke(root, "--only", "over_event_bound", "--quick")
    assert result.exit_code == 0 and "over_event_bound: 1.1" in result.output
    assert (root / RESULT).read_text() == before and not (root / "docs").exists()


def test_unknown_keys_are_refused(root):
    result = invoke(root, "--only", "warp")
    assert result.exit_code == 2 and "cycles_per_token_260k" in result.output


def test_what_was_never_measured_is_said(root):
    assert "fmax_mhz_ecp5: never measured" in invoke(root, "--only", "fmax_mhz_ecp5").output
    listed = invoke(root, "--list").output
    assert "skip_exploited: 1.0" in listed and "tok_s_d288_z2: never measured, goal >= 1,000" in listed


@pytest.mark.parametrize("option", ["--list", "--page"])
def test_results_that_are_not_there_or_damaged_are_refused(root, option):
    result = invoke(root / "nowhere", option)
    assert result.exit_code == 2 and "nowhere is no checkout" in result.output.replace("\n", "") and not (root / "nowhere").exists()
    for text in ("{", "5", "[1]"):
        (root / RESULT).write_text(text)
        result = invoke(root, option)
        assert result.exit_code == 2 and f"{root / RESULT} holds no results" in result.output.replace("\n", "")


def test_a_computer_of_unknown_speed_leaves_what_is_on_file(root, monkeypatch):
    def unknown(*_):
        raise UnknownProcessor("Measure a CoreMark.")

    monkeypatch.setattr(bench_run.Figures, "figure", unknown)
    monkeypatch.setattr(bench_run, "parts", lambda measures: {"processor": lambda: unknown()})
    before = (root / RESULT).read_text()
    result = invoke(root, "--only", "cpu_baseline", "--only", "processor")
    assert result.exit_code == 0, result.output
    for what in ("cpu_baseline", "table processor"):
        assert f"{what}: what is on file stays. Measure a CoreMark." in result.output
    assert (root / RESULT).read_text() == before


def test_the_page_is_drawn_again(root):
    assert invoke(root, "--page").exit_code == 0
    assert "skip_exploited" in (root / "docs" / "performance.md").read_text()


def test_streamed_runs_count_where_enough_reads_are_open(tmp_path):
    run = {"ports": 2, "dense": False, "latency": 40, "outstanding": 8, "stream_peak_fraction_with_first_beat": 0.9, "cycles_per_token": 1,
           "bytes_per_token": 1, "first_beat_latency": {}, "prediction_error": 0, "mismatches": 0}
    record = {"command": "c", "machine": {}, "memory": {},
              "near": run | {"stream_peak_fraction": 0.97, "streamed_over_bound": 1.09},
              "far": run | {"latency": 100, "outstanding": 16, "stream_peak_fraction": 0.98, "streamed_over_bound": 1.11},
              "few": run | {"latency": 100, "stream_peak_fraction": 0.75, "streamed_over_bound": 1.42}}
    path = tmp_path / bench_run.STREAMED
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))
    figures = bench_run.Figures(None, tmp_path)
    fraction, bound = figures._of_streamed_runs("stream_peak_fraction", min, (False,)), figures._of_streamed_runs(
        "streamed_over_bound", max, (False,))
    assert (fraction.value, bound.value) == (0.97, 1.11) and list(fraction.beside) == ["near", "far", "few"]
    assert bound.note.endswith("1.420 with 2 ports, 100 cycles and 8 reads open.")


@pytest.mark.parametrize("behind, slow, rows, counts", [(0.03, 0, "resident", True), (0.03, 300, "streamed", True),
                                                        (0.06, 0, "resident", False), (0.03, 9000, "streamed", False)])
def test_skips_count_for_the_model_nearest_to_its_twin(tmp_path, monkeypatch, behind, slow, rows, counts):
    """And with its rows where dense mode is near its own bound: a dense mode that idles makes any skip look large."""
    def tally(dense, bound):
        return Tally(positions=10, cycles=bound + slow if dense else bound // 3, row_bytes=8000 if dense else 3000, spoke=3, silent=7,
                     label_adding={"qkv": 1000})

    monkeypatch.setattr(bench_run.store, "available", lambda: ["far", "near", "untaught"])
    (tmp_path / "results").mkdir()
    for name, gap in (("far", 0.2), ("near", behind)):
        quality = {"data": {"name": "d"}, "parameters": 1, "integer": {"nats_per_token": 2.0 + gap},
                   "softmax_twin": {"nats_per_token": 2.0}}
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps(quality))
    monkeypatch.setattr(bench_run, "LARGEST", "far")
    figures = bench_run.Figures(SimpleNamespace(
        machine_of=lambda name: SimpleNamespace(bus_bytes=1), of=lambda name: {"model": name}, sparse=lambda name: tally(False, 1000),
        dense=lambda name: tally(True, 1000), from_dram=lambda name, dense=False: tally(dense, 8000)), tmp_path)
    cycles, stored = figures.dense_over_sparse_cycles(), figures.dense_over_sparse_bytes()
    assert cycles.of["model"] == "near" and cycles.beside["rows"] == rows and cycles.counts is stored.counts is counts
    bound = 8000 if rows == "streamed" else 1000
    assert cycles.value == round((bound + slow) / (bound // 3), 3) and stored.value == round(8000 / 3000, 3)
    assert list(cycles.beside["nats_behind_its_softmax_twin"]) == ["near", "far"] and "`far` (0.200 behind)" in cycles.note
