"""The whole golden model: shapes, causality, gradients, SpikeDecoder's degrees and residual forms, what distillation reads."""

from dataclasses import replace

import pytest
import torch

from spikeloom.arch.config import RESIDUALS, ModelConfig
from spikeloom.model import spad
from spikeloom.model.golden import GoldenOptions, SpikingTransformer
from spikeloom.model.softmax_twin import SoftmaxTwin

CONFIG = ModelConfig(name="t", vocabulary=20, context=12, width=16, layers=2, heads=2, hidden=24, neuron="lif_hard", steps=3, leak=1,
                     attention="ssa", level_v=1, spike_shift=8)


def build(seed, options=None, **changes):
    torch.manual_seed(seed)
    return SpikingTransformer(replace(CONFIG, **changes), GoldenOptions(**(options or {})))


SYSTEMS = {
    "wd": ({}, {"neuron": "ni_lif", "steps": 1, "attention": "wta", "level_v": 4, "recency": (0, 2)}),
    "we": ({"position": "learned"}, {"neuron": "t_lif", "attention": "wta", "bidirectional": True, "position_table": True}),
    "bispikclm": ({"position": "learned"}, {"neuron": "lif_subtract", "leak": 3, "attention": "sfsa", "residual": "spike_sum",
                                            "embedding": "spikes", "position_table": True}),
    "spikedecoder": ({"token": "learned", "position": "learned", "join": "concatenate", "position_width": 6, "norm": "power",
                      "norm_at": "linears"}, {"embedding": "spikes", "position_table": True, "head": "concatenate"}),
    "softmax scores": ({"scores": "softmax"}, {}),
    "sparsemax scores": ({"scores": "sparsemax"}, {}),
    "layer norm": ({"norm": "layer"}, {}),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_gradients_reach_every_parameter(name, seed):
    """No neuron, threshold, table or matrix is cut off; the reset of one loss changes all of them."""
    options, changes = SYSTEMS[name]
    model = build(seed, options, **changes).train()
    model.hardness.fill_(0.5)
    tokens = torch.randint(20, (6, 12))
    torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.roll(-1, 1).flatten()).backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", [n for n in SYSTEMS if n != "we"])
def test_decoders_are_causal_and_encoders_are_not(name, seed):
    options, changes = SYSTEMS[name]
    tokens = torch.randint(20, (1, 12))
    other = tokens.clone()
    other[0, 8:] = (other[0, 8:] + 1) % 20
    model = build(seed, options, **changes).eval()
    with torch.no_grad():
        assert torch.allclose(model(tokens)[0, :8], model(other)[0, :8], atol=1e-6)
        assert not torch.allclose(model(tokens)[0, 8:], model(other)[0, 8:], atol=1e-3)


def test_an_encoder_looks_ahead(seed):
    options, changes = SYSTEMS["we"]
    tokens = torch.randint(20, (1, 12))
    other = tokens.clone()
    other[0, 8:] = (other[0, 8:] + 1) % 20
    model = build(seed, options, **changes).eval()
    with torch.no_grad():
        assert not torch.allclose(model(tokens)[0, :8], model(other)[0, :8], atol=1e-4)


@pytest.mark.parametrize("degree", range(5))
def test_spike_degrees(degree, seed):
    """0 is an ANN without a single spike, 4 spikes everywhere; each degree adds its neurons (arXiv 2606.12287)."""
    options = SYSTEMS["spikedecoder"][0] | {"degree": degree}
    model = build(seed, options, **SYSTEMS["spikedecoder"][1])
    names = set(model.neurons())
    assert any(n.endswith("qkv") for n in names) == (degree >= 2)
    assert any(n.endswith("up") for n in names) == (degree >= 3)
    assert ("final" in names) == (degree == 4)
    kept = {}
    logits = model(torch.randint(20, (2, 12)), kept)
    assert logits.shape == (2, 12, 20) and torch.isfinite(logits).all()
    assert (set(kept["embed"].unique().tolist()) <= {0.0, 1.0}) == (degree >= 1)
    logits.sum().backward()
    if degree == 0:
        assert not any("norm.frozen" in n for n in names)


@pytest.mark.parametrize("residual", RESIDUALS)
def test_residual_forms(residual, seed):
    """Where every writer adds spikes and every reader replaces, the stream is a count: whole, within 0..3."""
    model = build(seed, {"norm_at": "linears", "token": "learned", "position": "learned"}, residual=residual, embedding="spikes",
                  position_table=True)
    kept = {}
    model(torch.randint(20, (2, 12)), kept)
    features = kept["layer1.features"]
    replace_in, add_out, replace_mid, add_down = RESIDUALS[residual]
    whole = torch.equal(features, features.round())
    assert whole == (add_down and (add_out or replace_mid))
    most = {"membrane": 99, "mlp_spikes": 2, "all_spikes": 2, "spike_sum": 1 + 2 * CONFIG.layers}[residual]
    assert features.max() <= most


@pytest.mark.parametrize("head", ["accumulate", "average", "concatenate", "final"])
def test_heads_by_hand(head, seed):
    model = build(seed, head=head).eval()
    kept = {}
    logits = model(torch.randint(20, (2, 12)), kept)
    s = kept["final"]  # [T, B, N, C]
    read = {"accumulate": s.sum(0), "average": s.mean(0), "final": s[2], "concatenate": torch.cat(list(s), -1)}[head]
    weight = model.head.weight.detach()
    assert torch.allclose(logits, read @ weight, atol=0.05 * weight.abs().max() * read.shape[-1])
    assert model.head.weight.shape == (16 * (3 if head == "concatenate" else 1), 20)


def test_spad_reads_what_is_kept(seed):
    """All five losses of `spad` from a golden student and a twin, each with a gradient."""
    options, changes = SYSTEMS["bispikclm"]
    student = build(seed, options, **changes)
    twin = spad.TwinTeacher(SoftmaxTwin(20, 12, 16, 2, 2, 24))
    tokens, kept = torch.randint(20, (3, 12)), {}
    losses = spad.SpAD(layers=2, teacher_layers=2, width=16, teacher_width=16)
    found = losses.losses(student(tokens, kept), tokens.roll(-1, 1), kept, *twin(tokens))
    norms = spad.gradient_norms(losses, found, [p for p in student.parameters() if p.requires_grad])
    assert set(norms) == {"ea", "saa", "sfa", "sta", "hta"} and all(value > 0 for value in norms.values())


@pytest.mark.parametrize("residual", ["spike_sum", "all_spikes"])
def test_half_spiking_models_have_no_spike_residual(residual):
    with pytest.raises(ValueError, match="degree must be 4"):
        GoldenOptions(degree=2).check(replace(CONFIG, residual=residual))


def test_unknown_options_are_named():
    with pytest.raises(ValueError, match="banana"):
        GoldenOptions.from_dict({"banana": 1})
    with pytest.raises(ValueError, match="atan, sigmoid"):
        GoldenOptions(surrogate="relu")
    assert GoldenOptions.from_dict(GoldenOptions(norm="power").to_dict()) == GoldenOptions(norm="power")
