"""Figures on file: what they are of, and that their parts add up."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("amaranth")
pytest.importorskip("rich")

from spikeloom.model import store
from spikeloom_sim.measure import Tally
from spikeloom_sim.performance_page import table

RESULT = Path(__file__).resolve().parents[2] / "results" / "rtl_speed.json"


def tally(cycles):
    return Tally(positions=2, cycles=cycles, label_cycles=Counter({"layer0.qkv": 30, "layer1.qkv": 50, "sequencer": 20}),
                 label_events=Counter({"layer0.qkv": 10}))


def test_the_table_sums_layers_and_parts():
    lines = table(tally(100))
    assert lines[2] == "| `qkv` | Q, K, V | 40.0 | 80.0% | 5.0 | 35.0 |"
    assert lines[-1] == "| **all** | | **50.0** | 100.0% | **5.0** | **45.0** |"


def test_a_table_that_does_not_add_up_is_refused():
    with pytest.raises(AssertionError, match="the device counted 101"):
        table(tally(101))


def test_the_figures_on_file_are_of_the_model_in_the_package():
    if not RESULT.is_file():
        pytest.skip("no figures on file")
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    name = result["model"]["name"]
    if name not in store.available():
        pytest.skip(f"{name} is not in the package")
    digest = hashlib.sha256((store.find(name) / "model.safetensors").read_bytes()).hexdigest()
    assert result["model"]["sha256_of_safetensors"] == digest, "run: python -m spikeloom_sim.measure"
    assert result["mismatches"] == result["cycles_not_predicted"] == 0
