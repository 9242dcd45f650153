"""Figures on file are made again: three of them in each run, others in the next."""

import datetime
import hashlib
import os
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("amaranth")
pytest.importorskip("torch")

from spikeloom.model import corpus, store
from spikeloom_sim.bench.figures import RESULT, load
from spikeloom_sim.bench.keys import GOALS
from spikeloom_sim.bench.measures import Measures, Options
from spikeloom_sim.bench.run import Figures
from spikeloom_sim.streamed import FAR, MANY, Bench

pytestmark = pytest.mark.rtl

ROOT = Path(__file__).resolve().parents[3]
#: How far a figure may be from the one on file.
TOLERANCE = 0.02
#: What one run makes again; another choice comes with SPIKELOOM_BENCH_KEYS=key,key,...
EACH = 3
#: Keys that ask for no story; those read from results/streamed.json, and the memory of the run that is made again (sparse, two ports).
WITHOUT_STORIES = ("bytes_per_token_by_bits", "stream_peak_fraction", "streamed_over_bound")
RUNS = {"stream_peak_fraction": ("sparse_2_ports", {}), "streamed_over_bound": (f"sparse_2_ports_{FAR}_cycles", {
    "latency": FAR, "outstanding": MANY})}


def exact_keys(on_file) -> list[str]:
    """Keys that come out the same on every machine, of those on file."""
    return [key for key, goal in GOALS.items() if goal.exact and key in on_file]


def turn() -> int:
    """A number that changes with every commit; with the day where there is no repository."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return datetime.date.today().toordinal()
    return int(head[:8], 16)


def chosen(keys: list[str], number: int, each: int = EACH) -> list[str]:
    """`each` neighbours of a ring of keys, others for each number."""
    start = number * each
    return [keys[(start + i) % len(keys)] for i in range(min(each, len(keys)))]


def close(value, on_file) -> bool:
    """Whether two values, or lists of them, differ by no more than the tolerance."""
    if isinstance(on_file, list):
        return len(value) == len(on_file) and all(map(close, value, on_file))
    return abs(value - on_file) <= TOLERANCE * abs(on_file)


def differing(keys, on_file, again) -> list[str]:
    """What is not as on file: `again(key)` makes (its value, the one on file) anew."""
    wrong = []
    for key in keys:
        value, expected = again(key)
        print(f"{key}: {value}, on file {expected}")
        if not close(value, expected):
            wrong.append(f"{key} is {value}, on file {expected}: run: {on_file[key]['command']}")
    return wrong


def test_every_key_has_its_turn():
    keys = [f"k{n}" for n in range(10)]
    assert {key for number in range(10) for key in chosen(keys, number)} == set(keys)
    assert chosen(keys, 3) == ["k9", "k0", "k1"] and chosen(["a"], 5) == ["a"]


def test_two_percent_and_no_more():
    assert close(1020, 1000) and close([1, 0.5], [1, 0.505]) and not close(1021, 1000) and not close([1], [1, 2]) and not close(0.97, 1)


def test_a_figure_that_moved_is_named():
    on_file = {"a": {"value": 100.0, "command": "make a"}, "b": {"value": 1.0, "command": "make b"}}
    values = {"a": 102.1, "b": 1.0}
    assert differing(on_file, on_file, lambda key: (values[key], on_file[key]["value"])) == ["a is 102.1, on file 100.0: run: make a"]


@pytest.fixture(scope="module")
def on_file():
    figures = load(ROOT / RESULT)
    if not figures:
        pytest.skip("bench: no figures on file")
    return figures


def test_the_figures_on_file_are_of_the_model_in_the_package(on_file):
    for key, record in on_file.items():
        if "model_sha256" in record.get("of", {}):
            digest = store.digest(store.find(record["of"]["model"]))
            assert record["of"]["model_sha256"] == digest, f"{key} is of another model: run: spikeloom bench --only {key}"


def stories_are_here(on_file) -> bool:
    """Whether the stories that the figures on file were measured on can be read."""
    texts = hashlib.sha256("\0".join(corpus.load_default().held_out).encode()).hexdigest()
    return texts == on_file["cycles_per_token_260k"]["of"]["data"]["sha256_of_texts_joined_by_nul"]


@pytest.fixture(scope="module")
def again(on_file):
    """Makes a figure again: (value, on file)."""
    figures = Figures(Measures(Options(stories=len(on_file["cycles_per_token_260k"]["of"]["data"]["stories"]))), ROOT)

    def make(key):
        if key not in RUNS:
            return figures.figure(key).value, on_file[key]["value"]
        assert figures.figure(key).value == on_file[key]["value"], f"run: {on_file[key]['command']}"
        name, memory = RUNS[key]
        return Bench().measure(2, **memory)[key], on_file[key]["beside"][name][key]
    return make


def test_three_figures_come_out_again(on_file, again):
    named, keys = os.environ.get("SPIKELOOM_BENCH_KEYS"), exact_keys(on_file)
    if not stories_are_here(on_file):
        keys = [key for key in keys if key in WITHOUT_STORIES]
    wrong = differing(named.split(",") if named else chosen(keys, turn()), on_file, again)
    assert not wrong, "; ".join(wrong)
