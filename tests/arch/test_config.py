"""Configurations: what they refuse, and what names them."""

from dataclasses import replace

import pytest

from spikeloom.arch.config import AcceleratorConfig, FitError, ModelConfig, check_fit
from spikeloom.arch.presets import PRESETS, preset

MODEL = ModelConfig(name="m", vocabulary=512, context=256, width=64, layers=5, heads=4, hidden=192)


def test_models_survive_their_dictionary():
    assert ModelConfig.from_dict(MODEL.to_dict()) == MODEL
    with pytest.raises(ValueError, match="colour"):
        ModelConfig.from_dict({**MODEL.to_dict(), "colour": 1})


@pytest.mark.parametrize("changes", [
    {"width": 65}, {"vocabulary": 1}, {"layers": 0}, {"level_v": 0}, {"level_in": 9}, {"top_k": 0}, {"top_k": 9},
    {"rank_shifts": (0,)}, {"rank_shifts": (0, 1, 2, 8)}, {"recency": (1,)}, {"recency": (16,) * 4}, {"weight_bits": 3},
    {"embed_shift": 9}, {"end_token": 512},
])
def test_models_that_cannot_be(changes):
    with pytest.raises(ValueError, match=r"\.$"):
        replace(MODEL, **changes)


@pytest.mark.parametrize("changes", [
    {"cols": 48}, {"lanes": 64}, {"lanes": 1}, {"rows": 0}, {"max_width": 96}, {"max_neurons": 128}, {"max_vocabulary": 1001},
    {"kv_positions": 100}, {"k_max": 9}, {"level_max": 1}, {"data_width": 32}, {"acc_width": 25}, {"score_banks": 1},
])
def test_machines_that_cannot_be(changes):
    with pytest.raises(ValueError, match=r"\.$"):
        replace(PRESETS["sim"], **changes)


def test_the_shipped_shape_fits_its_machines():
    for name in ("sim", "pynq_z2"):
        check_fit(MODEL, preset(name))
    with pytest.raises(FitError, match="width is 128, machine 'sim' takes at most 64"):
        check_fit(replace(MODEL, width=128, hidden=384), preset("sim"))


def test_fingerprints():
    prints = [cfg.fingerprint for cfg in PRESETS.values()]
    assert len(set(prints)) == len(prints)
    sim = PRESETS["sim"]
    assert replace(sim, board="elsewhere", clock_mhz=7.0).fingerprint == sim.fingerprint
    assert all(replace(sim, **change).fingerprint != sim.fingerprint
               for change in ({"resident_words": 4096}, {"axi3": True}, {"acc_width": 23}, {"name": "other"}))


def test_unknown_presets_are_named():
    with pytest.raises(ValueError, match="no preset 'big'; there are: tiny, sim"):
        preset("big")


def test_gathered_values_and_scores_fit_their_widths():
    for cfg in PRESETS.values():
        assert cfg.k_max * cfg.level_max << 7 < 1 << cfg.gather_width <= 1 << cfg.acc_width - 1
        assert cfg.max_width < 1 << cfg.score_width


def test_machines_have_a_name():
    with pytest.raises(TypeError):
        AcceleratorConfig()
