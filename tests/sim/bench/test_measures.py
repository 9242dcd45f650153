"""The measurements, on the emulator in place of the gateware: it counts the same cycles."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("amaranth")
pytest.importorskip("torch")

from spikeloom.arch.config import check_fit
from spikeloom.arch.presets import preset
from spikeloom.arch.streamed_cycles import MemoryTiming
from spikeloom.driver.device import Device
from spikeloom.model.emulator import Emulator
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import TINY, random_model
from spikeloom.model.store import StoredModel
from spikeloom_sim.bench import layers, measures, sweep
from spikeloom_sim.bench.measures import Measures, Options
from spikeloom_sim.bench.stories import Bound, Tally, generate_checked, image_of, score_stories

CFG = replace(preset("tiny"), name="tiny_pairs", events=2)
ENCODER = replace(TINY, name="encoder", bidirectional=True, context=8)


def texts(config, count=2, length=9):
    return [[(5 * i + 3 * n) % config.vocabulary for i in range(length)] for n in range(count)]


@pytest.fixture
def stored(seed):
    return StoredModel(*random_model(seed, TINY), 64.0)


@pytest.fixture
def scored(stored):
    image, model = image_of(stored, CFG), IntegerModel(stored.config, stored.tensors)
    with Device(Emulator(CFG), CFG) as device:
        device.load(image)
        return {dense: score_stories(device, image, model, texts(stored.config), dense=dense) for dense in (False, True)}


def test_scores_agree_and_every_cycle_is_predicted(scored):
    for tally in scored.values():
        assert tally.mismatches == 0 and tally.compared == tally.positions == 16
        assert tally.counted == tally.predicted > tally.cycles > 0
        assert sum(tally.label_cycles.values()) == tally.cycles


def test_the_bound_is_of_the_integer_model_alone(scored, stored):
    tally, dense = scored[False], scored[True]
    model, bound = IntegerModel(stored.config, stored.tensors), Bound(stored.config, stored.tensors, CFG)
    events = 0
    for ids in texts(stored.config):
        model.clear()
        for position, token in enumerate(ids[:-1]):
            trace = model.step(token, position)
            rows = {"qkv": ("in", 6), "out": ("attn", 2), "up": ("mid", 4), "down": ("up", 2)}
            events += sum(np.count_nonzero(trace[f"layer{n}.{kind}"]) * tiles for n in (0, 1) for kind, tiles in rows.values())
            events += np.count_nonzero(trace["final"]) * 4
    assert tally.bound == events and dense.bound == 16 * bound.dense()
    assert bound.dense() == 2 * (16 * 6 + 16 * 2 + 16 * 4 + 32 * 2) + 16 * 4


def test_what_was_silent_was_skipped(scored):
    tally = scored[False]
    assert tally.counters["rows_skipped"] == tally.silent > 0
    assert tally.row_bytes < scored[True].row_bytes and scored[True].counters["rows_skipped"] == 0


def test_tallies_add_up(scored):
    tally = scored[False]
    twice = tally + tally
    assert twice.cycles == 2 * tally.cycles and twice.label_cycles["sequencer"] == 2 * tally.label_cycles["sequencer"]
    assert twice.cycles_per_token == tally.cycles_per_token and (tally + Tally()).cycles_per_token == tally.cycles_per_token


def test_generations_are_compared(stored, monkeypatch):
    monkeypatch.setattr("spikeloom_sim.bench.stories.POSITIONS", 12)
    monkeypatch.setattr("spikeloom_sim.bench.stories.PROMPT", 3)
    with Device(Emulator(CFG), CFG) as device:
        device.load(image_of(stored, CFG))
        report = generate_checked(device, IntegerModel(stored.config, stored.tensors), texts(stored.config))
    assert report.mismatches == 0 and report.compared > 2 * 9


def test_forced_rates_speak_and_follow_the_theory(monkeypatch):
    monkeypatch.setattr(sweep, "SHAPE", replace(TINY, position_table=False))
    monkeypatch.setattr(sweep, "TOKENS", 4)
    with Device(Emulator(CFG), CFG) as device:
        points = sweep.run(device, CFG, rates=(0.0, 0.5, 1.0))
        formats = sweep.formats(device, CFG, MemoryTiming())
    assert [point["rows_spoke"] for point in points] == [0.0, 0.5, 1.0]
    assert all(point["mismatches"] == 0 and point["cycles_counted"] == point["cycles_predicted"] for point in points + formats)
    assert all(point["rows_skipped"] == point["rows_silent"] for point in points)
    assert sweep.theory(points, 0.5) == pytest.approx(points[1]["cycles_per_token"], rel=0.1)
    whole = formats[0]["bytes_counted"]
    assert formats[1]["bytes_counted"] < 0.6 * whole and formats[2]["bytes_counted"] < 0.4 * whole  # the embedding stays int8


def test_a_layer_is_predicted_and_agrees(monkeypatch):
    monkeypatch.setattr(layers, "VOCABULARY", 32)
    rates = {"in": 0.5, "attn": 0.5, "mid": 0.5, "up": 0.25, "final": 0.5}
    with Device(Emulator(CFG), CFG) as device:
        record = layers.measure(device, CFG, replace(TINY, position_table=False, layers=2), rates, memory=MemoryTiming())
    assert record["mismatches"] == 0 and record["compared"] > 0 and record["tokens"] == 3
    assert record["cycles_counted"] == record["cycles_predicted"] and record["bytes_counted"] == record["bytes_predicted"]


def test_released_models_of_every_kind_are_measured(seed, stored, monkeypatch):
    encoder = StoredModel(*random_model(seed, ENCODER), 64.0)
    wide = StoredModel(replace(TINY, width=64, hidden=64), {}, 64.0)
    released = {"decoder": stored, "encoder": encoder, "wide": wide}
    monkeypatch.setattr(measures.store, "available", lambda: list(released))
    monkeypatch.setattr(measures, "open_machine", lambda cfg, **options: Emulator(cfg))
    monkeypatch.setattr(measures, "load_stories", lambda count, model: (texts(model.config, count), {}))
    m = Measures(Options(stories=1, slow_stories=1))
    m.machines, m.stored = [CFG], released.__getitem__
    m._texts = lambda model, count: [[n % model.config.vocabulary for n in range(3, 11)]] * count
    monkeypatch.setattr(measures, "image_of", lambda model, cfg: check_fit(model.config, cfg) or image_of(model, cfg))
    found = m.released
    assert "width is 64" in found["wide"]["left_out"]
    for name in ("decoder", "encoder"):
        record = found[name]
        assert record["mismatches"] == 0 and record["cycles_counted"] == record["cycles_predicted"]
        assert record["rows_skipped"] == record["rows_silent"] > 0
        assert record["over_event_bound"] > 0.5 and record["over_machine_bound"] >= 1
