"""Golden models become integers: the same logits nearly everywhere, the same loss, and clear refusals."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from spikeloom.arch.config import THRESHOLD_FRACTION, ModelConfig
from spikeloom.model import store
from spikeloom.model.golden import GoldenOptions, SpikingTransformer
from spikeloom.model.golden.export import ExportError, to_stored
from spikeloom.model.golden.samples import sample
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.integer_torch import IntegerSequences
from spikeloom.model.tensors import tensor_shapes

CONFIG = ModelConfig(name="t", vocabulary=20, context=16, width=32, layers=2, heads=2, hidden=48, neuron="lif_hard", steps=3, leak=1,
                     attention="ssa", level_v=1, spike_shift=8)
POSITIONS = {"embedding": "spikes", "position_table": True}
BITS = {"token": "learned", "position": "learned", "join": "concatenate", "position_width": 12, "norm": "power", "norm_at": "linears"}
CASES = {
    "lif_hard, ssa": ({}, {}),
    "lif_soft": ({}, {"neuron": "lif_soft"}),
    "lif_subtract, sfsa": ({}, {"neuron": "lif_subtract", "leak": 3, "attention": "sfsa"}),
    "if": ({}, {"leak": 15}),
    "t_lif, wta": ({}, {"neuron": "t_lif", "leak": 2, "attention": "wta", "top_k": 3, "recency": (0, 2)}),
    "t_lif, bidirectional": ({"position": "learned"}, {"neuron": "t_lif", "leak": 2, "attention": "wta", "bidirectional": True,
                                                       "recency": (0, 2), "position_table": True}),
    "classes": ({}, {"neuron": "t_lif", "leak": 2, "attention": "wta", "bidirectional": True, "classes": 3}),
    "i_lif": ({}, {"neuron": "i_lif", "leak": 1, "attention": "wta", "level_v": 3}),
    "ni_lif": ({}, {"neuron": "ni_lif", "steps": 1, "attention": "wta", "level_v": 4, "level_in": 3}),
    "nasn": ({"learned_shift": True}, {"neuron": "ni_lif", "steps": 1, "attention": "wta", "level_v": 4}),
    "mlp_spikes": ({"norm_at": "linears"}, {"residual": "mlp_spikes"}),
    "all_spikes": ({"norm_at": "linears"}, {"residual": "all_spikes"}),
    "bispikclm": ({"position": "learned"}, {"residual": "spike_sum", "neuron": "lif_subtract", "leak": 3, "attention": "sfsa",
                                            **POSITIONS}),
    "spikedecoder": (BITS, {"head": "concatenate", **POSITIONS}),
    "average": ({}, {"head": "average"}),
    "final": ({}, {"head": "final"}),
    "no norm": ({"norm": "none"}, {}),
    "norm after linears": ({"norm_at": "linears"}, {}),
    "4 bits": ({}, {"weight_bits": 4}),
    "2 bits": ({"norm_at": "linears"}, {"weight_bits": 2}),
}


def settled(seed, options=None, **changes):
    """A model whose norms have seen data and whose parameters are nowhere special; some gains are negative."""
    return sample(seed, replace(CONFIG, **changes), GoldenOptions(**(options or {})))


def integer_logits(stored, tokens):
    """float [B, N or 1, V] in nats, of the batched integer model."""
    model = IntegerSequences(stored.tensors, stored.config)
    logits = model(tokens) / stored.logit_scale
    assert model.saturations == 0
    return logits.float()


@cache
def golden_form(name, seed):
    """A model, random texts and its logits, float [B, N or 1, V]."""
    options, changes = CASES[name]
    model = settled(seed, options, **changes)
    tokens = torch.randint(20, (240 if model.config.classes else 60, 16))
    with torch.no_grad():
        logits = model(tokens)
    return model, tokens, logits[:, :1] if model.config.classes else logits


def both_forms(name, seed):
    """Logits of the integers and of the golden model."""
    model, tokens, expected = golden_form(name, seed)
    stored = to_stored(model)
    for tensor, (shape, dtype) in tensor_shapes(stored.config).items():
        assert stored.tensors[tensor].shape == shape and stored.tensors[tensor].dtype == dtype, tensor
    return integer_logits(stored, tokens), expected


@pytest.mark.parametrize("name", CASES)
def test_integers_compute_what_the_golden_model_does(name, seed, fine_thresholds):
    """99 of 100 logit rows are equal to 1e-3."""
    got, expected = both_forms(name, seed)
    assert ((got - expected).abs() < 1e-3).all(-1).float().mean() > 0.99


@pytest.mark.parametrize("name", CASES)
def test_rounding_of_thresholds_costs_little(name, seed):
    """With the gateware's 2^-8 the loss, over all targets that there are, differs by less than 0.02 nats.

    A membrane that meets its threshold within 2^-8 of a sum may fire in one form only, and what follows differs from there on: a tenth
    of a T-LIF network's rows, whose membranes keep what a reset leaves, hardly any of the others'.
    """
    losses = [-torch.log_softmax(x, -1).mean().item() for x in both_forms(name, seed)]
    assert losses[0] == pytest.approx(losses[1], abs=0.02)


def test_negative_gains_flip_weights(seed):
    """The stored matrix is negated where the gain is negative, and nowhere else."""
    model = settled(seed)
    layer = model.blocks[0].attend.qkv
    flipped = to_stored(model).tensors["layer0.qkv.weight"]
    layer.neurons.norm.raw_gain.data.abs_()
    straight = to_stored(model).tensors["layer0.qkv.weight"]
    sign = np.ones(96)
    sign[::5] = -1
    assert np.array_equal(flipped, straight * sign)


@pytest.mark.parametrize("options, changes, message", [
    ({"norm": "layer"}, {}, "no threshold can hold"),
    ({"degree": 3}, {}, "only degree 4"),
    ({"scores": "sparsemax"}, {}, "float reference"),
    ({"scores": "softmax"}, {}, "float reference"),
    ({"beta": 0.9}, {}, "which is a shift"),
])
def test_refusals_speak(options, changes, message):
    model = SpikingTransformer(replace(CONFIG, **changes), GoldenOptions(**options)).eval()
    with pytest.raises(ExportError, match=message):
        to_stored(model)


def test_membranes_stay_within_their_bits(seed):
    """Thresholds far outside what sums reach are cut where T steps cannot overflow; the neuron stays silent."""
    model = settled(seed)
    neurons = model.blocks[0].feed.up.neurons
    neurons.norm.shift.data[0] = -1e7
    stored = to_stored(model)
    base = stored.tensors["layer0.up.base"]
    weight = stored.tensors["layer0.up.weight"].astype(np.int64)
    largest = int(np.abs(weight).sum(0).max()) << THRESHOLD_FRACTION
    assert 3 * (largest + int(base[0]) + 2 * int(stored.tensors["layer0.up.step"].max())) < 2**31
    trace = IntegerModel(stored.config, stored.tensors).step(3, 0)
    assert not any(trace[f"layer0.up@{t}"][0] for t in range(3))


def test_stored_round_trip(tmp_path, seed):
    stored = to_stored(settled(seed, BITS, head="concatenate", **POSITIONS))
    store.save(tmp_path / "m", stored)
    again = store.load(tmp_path / "m")
    assert again.config == stored.config
    assert all(np.array_equal(again.tensors[name], value) for name, value in stored.tensors.items())
