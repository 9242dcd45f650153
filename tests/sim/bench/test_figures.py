"""Goals, entries and the file of figures."""

import json

import pytest

from spikeloom_sim.bench.figures import Figure, Goal, entry, load, merge
from spikeloom_sim.bench.keys import GOALS

LOW = Goal(key="low", what="something small", label="[sim]", sense="<=", limit=1600, unit="cycles", short="Too slow; go faster.")


def test_a_goal_is_met_or_not():
    high = Goal(key="high", what="", label="[model]", sense=">=", limit=2.5)
    assert (LOW.met(1600), LOW.met(1601), high.met(2.5), high.met(2.4)) == (True, False, True, False)
    assert LOW.goal == "<= 1,600" and high.goal == ">= 2.5"


def test_proportions_are_met_within_two_percent():
    goal = Goal(key="bits", what="", label="[sim]", sense="=", limit=(1, 0.5, 0.25))
    assert goal.goal == "= 1 : 0.5 : 0.25"
    assert goal.met([1, 0.509, 0.2451]) and not goal.met([1, 0.511, 0.25])


def test_what_has_no_goal_is_given():
    given = Goal(key="given", what="", label="[model]")
    assert given.goal is None and given.met(3) is None
    assert entry(given, Figure(3), "command")["met"] is None


def test_a_label_is_one_of_four():
    with pytest.raises(ValueError, match=r"not \[board\]"):
        Goal(key="x", what="", label="[board]")


def test_an_entry_says_what_it_is_of_and_why_it_falls_short():
    record = entry(LOW, Figure(1700, {"bound": 1500}, {"model": "m"}, note="Six stories."), "spikeloom bench --only low")
    assert record == {"value": 1700, "goal": "<= 1,600", "met": False, "evidence": "[sim]", "what": "something small", "unit": "cycles",
                      "command": "spikeloom bench --only low", "note": "Six stories. Too slow; go faster.", "beside": {"bound": 1500},
                      "of": {"model": "m"}}
    assert entry(LOW, Figure(1500), "c").get("note") is None
    assert entry(LOW, Figure(1500, stale=True), "c")["stale"] is True
    conditional = entry(LOW, Figure(1500, counts=False), "c")
    assert conditional["met"] is False and conditional["note"] == "Too slow; go faster."


def test_a_goal_that_is_missed_without_a_reason_is_refused():
    with pytest.raises(ValueError, match="say in its Goal why"):
        entry(Goal(key="x", what="", label="[sim]", sense=">=", limit=1), Figure(0), "c")


def test_new_figures_go_beside_old_ones_in_order(tmp_path):
    path = tmp_path / "results" / "bench.json"
    merge(path, {"b": {"value": 2}, "gone": {}}, ["a", "b"])
    merge(path, {"a": {"value": 1}}, ["a", "b"])
    assert list(load(path)) == ["a", "b"] and json.loads(path.read_text())["b"] == {"value": 2}
    assert load(tmp_path / "none.json") == {}


def test_every_key_of_the_table_is_there():
    assert list(GOALS) == [
        "cycles_per_token_260k", "over_event_bound", "skip_exploited", "dense_over_sparse_cycles", "dense_over_sparse_bytes",
        "stream_peak_fraction", "streamed_over_bound", "prefill_over_decode", "bytes_per_token_by_bits", "tok_s_d288_z2",
        "tok_s_d768_kv260", "fmax_mhz_ecp5", "z2_lut_fraction", "z2_bram_fraction", "z2_multipliers", "sim_tokens_per_s",
        "sim_cycles_per_cpu_s", "cpu_baseline"]
