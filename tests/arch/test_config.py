"""Configurations: what they refuse, and what names them."""

from dataclasses import replace

import pytest

from spikeloom.arch.config import HEADS, AcceleratorConfig, FitError, ModelConfig, check_fit
from spikeloom.arch.presets import PRESETS, preset

MODEL = ModelConfig(name="m", vocabulary=512, context=256, width=64, layers=5, heads=4, hidden=192)


def test_models_survive_their_dictionary():
    assert ModelConfig.from_dict(MODEL.to_dict()) == MODEL
    with pytest.raises(ValueError, match="colour"):
        ModelConfig.from_dict({**MODEL.to_dict(), "colour": 1})


@pytest.mark.parametrize("changes", [
    {"width": 65}, {"vocabulary": 1}, {"layers": 0}, {"level_v": 0}, {"level_in": 9}, {"top_k": 0}, {"top_k": 9},
    {"rank_shifts": (0,)}, {"rank_shifts": (0, 1, 2, 8)}, {"recency": (1,)}, {"recency": (16,) * 4}, {"weight_bits": 3},
    {"embed_shift": 9}, {"end_token": 512}, {"signed": ("q",)}, {"signed": ("in",), "level_in": 1}, {"neuron": "signed_ni_lif"},
    {"signed": ("in",), "neuron": "i_lif"},
    {"neuron": "relu"}, {"attention": "softmax"}, {"residual": "none"}, {"head": "mean"}, {"embedding": "learned"},
    {"steps": 0}, {"steps": 9, "neuron": "lif_soft"}, {"steps": 2}, {"leak": 0}, {"leak": 16}, {"spike_shift": 9},
    {"attention": "ssa"}, {"bidirectional": True, "residual": "all_spikes"}, {"classes": 3}, {"bidirectional": True, "classes": 513},
])
def test_models_that_cannot_be(changes):
    with pytest.raises(ValueError, match=r"\.$"):
        replace(MODEL, **changes)


def test_levels_are_those_of_leveled_neurons():
    assert MODEL.leveled and MODEL.level("attn") == MODEL.value_level == 4
    binary = replace(MODEL, neuron="lif_hard", steps=4, attention="ssa")
    assert (MODEL.low("in"), replace(MODEL, signed=("in",), level_in=8).low("in")) == (0, -7)
    assert not binary.leveled and binary.level("attn") == binary.value_level == 1


def test_heads_read_one_time_step_or_all():
    deep = replace(MODEL, neuron="t_lif", steps=4)
    assert [replace(deep, head=head).head_steps for head in HEADS] == [4, 4, 4, 1]
    assert replace(deep, bidirectional=True, classes=3).outputs == 3 and deep.outputs == 512


def test_labels_name_the_time_step_where_there_are_several():
    assert MODEL.label("layer0.in", 0) == "layer0.in"
    assert replace(MODEL, neuron="i_lif", steps=2).label("layer0.in", 1) == "layer0.in@1"


def test_models_of_before_time_steps_still_load():
    old = {name: value for name, value in MODEL.to_dict().items() if name not in (
        "neuron", "steps", "leak", "attention", "bidirectional", "residual", "spike_shift", "embedding", "head", "classes")}
    assert ModelConfig.from_dict(old) == MODEL


@pytest.mark.parametrize("changes", [
    {"cols": 48}, {"lanes": 64}, {"lanes": 1}, {"rows": 0}, {"max_width": 96}, {"max_neurons": 128}, {"max_vocabulary": 1001},
    {"kv_positions": 100}, {"k_max": 9}, {"level_max": 1}, {"data_width": 32}, {"acc_width": 25}, {"score_banks": 1},
    {"membrane_words": 0}, {"membrane_words": 513}, {"residual_slots": 0}, {"residual_slots": 257},
])
def test_machines_that_cannot_be(changes):
    with pytest.raises(ValueError, match=r"\.$"):
        replace(PRESETS["sim"], **changes)


def test_the_shipped_shape_fits_its_machines():
    for name in ("sim", "pynq_z2"):
        check_fit(MODEL, preset(name))
    with pytest.raises(FitError, match="width is 128, machine 'sim' takes at most 64"):
        check_fit(replace(MODEL, width=128, hidden=384), preset("sim"))


def test_rows_of_an_embedding_have_sixteen_bits():
    machine = replace(preset("sim"), max_vocabulary=65_536)
    wide = replace(MODEL, vocabulary=65_500, context=36)
    check_fit(wide, machine)
    check_fit(replace(wide, position_table=True), machine)
    with pytest.raises(FitError, match="65500 tokens and 37 positions are more than the 65536 rows"):
        check_fit(replace(wide, position_table=True, context=37), machine)
    check_fit(replace(wide, context=37), machine)


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
        largest = 1 << cfg.gather_width - 1  # signed
        assert cfg.k_max * cfg.level_max << 7 < largest <= 1 << cfg.acc_width - 1
        assert cfg.max_context * cfg.level_max < largest and cfg.max_context * cfg.max_width < largest
        assert cfg.max_width < 1 << cfg.score_width - 1
        assert 2 * cfg.level_max <= 1 << cfg.level_bits  # and as many below zero, but one


def test_machines_have_a_name():
    with pytest.raises(TypeError):
        AcceleratorConfig()
