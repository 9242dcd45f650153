"""Float model, exported integers over whole sequences, and the token-by-token integer model."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from spikeloom.arch.config import TENSORS, ModelConfig
from spikeloom.model import store
from spikeloom.model.export import to_stored
from spikeloom.model.float_model import FloatModel, FloatOptions
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.integer_torch import IntegerSequences

TINY = ModelConfig(name="tiny", vocabulary=20, context=24, width=16, layers=2, heads=2, hidden=24, recency=(0, 2))


def settled_model(config: ModelConfig, seed: int) -> FloatModel:
    """A model whose norms have seen data, and whose parameters are nowhere special."""
    torch.manual_seed(seed)
    model = FloatModel(config, fraction=9)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    for group in model.neurons().values():
        group.momentum = 0.3
    with torch.no_grad():
        for _ in range(12):
            model.train()(torch.randint(config.vocabulary, (16, config.context)))
    return model.eval()


@pytest.mark.parametrize("changes", [{}, {"weight_bits": 4}, {"weight_bits": 2}, {"position_table": True},
                                     {"overlap": True, "top_k": 2}, {"level_in": 3, "level_hidden": 8, "level_attn": 2},
                                     {"rank_shifts": (0, 0, 0, 0)}, {"signed": ("in", "v", "attn", "mid", "final")}])
def test_integers_compute_what_the_float_model_does(changes, seed):
    """Same logits up to float rounding at thresholds: nearly all equal, the loss within 0.005 nats per token."""
    compare(settled_model(replace(TINY, **changes), seed))


def test_what_integers_cannot_carry_is_refused():
    """Winners weighted by score are a float reference."""
    model = FloatModel(TINY, options=FloatOptions(by_score=True)).eval()
    with pytest.raises(ValueError, match="train without by_score"):
        to_stored(model)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_integers_have_the_scales_that_are_held(bits, seed):
    """The same after weights have moved under their scales, some of them beyond the largest integer."""
    model = settled_model(replace(TINY, weight_bits=bits), seed)
    model.hold_scales()
    shifts = to_stored(model).tensors["layer1.down.shift"]
    with torch.no_grad():
        for weight in (p for name, p in model.named_parameters() if p.ndim == 2 and name != "embed"):
            weight.mul_(1.5)
    compare(model)
    assert np.array_equal(to_stored(model).tensors["layer1.down.shift"], shifts)


def compare(model: FloatModel) -> None:
    """Float form against exported integers, on random tokens."""
    config, stored = model.config, to_stored(model)
    tokens = torch.randint(config.vocabulary, (12, config.context))
    integer = IntegerSequences(stored.tensors, stored.config)
    got = integer(tokens) / stored.logit_scale
    with torch.no_grad():
        expected = model(tokens)
    assert ((got - expected).abs() < 1e-3).float().mean() > 0.97
    targets = tokens.roll(-1, 1)[..., None]
    losses = [-torch.log_softmax(x, -1).gather(-1, targets).mean().item() for x in (got, expected)]
    assert losses[0] == pytest.approx(losses[1], abs=0.005)
    assert integer.saturations == 0


@pytest.mark.parametrize("changes", [{}, {"overlap": True}, {"signed": TENSORS}, {"position_table": True, "top_k": 8,
                                                             "rank_shifts": tuple(range(8))}])
def test_sequences_equal_the_token_by_token_model(changes, seed):
    """Every named intermediate is the same integer."""
    stored = to_stored(settled_model(replace(TINY, **changes), seed))
    tokens = torch.randint(TINY.vocabulary, (1, TINY.context))
    trace = {}
    IntegerSequences(stored.tensors, stored.config)(tokens, trace)
    single = IntegerModel(stored.config, stored.tensors)
    for position, token in enumerate(tokens[0].tolist()):
        step = single.step(token, position)
        for name in set(trace) & set(step) - {name for name in step if name.endswith("winners")}:
            assert np.array_equal(np.asarray(step[name]), trace[name][0, position].numpy()), (position, name)
        for layer in range(stored.config.layers):
            name = f"layer{layer}.attn.winners"
            few, got = step[name].shape[1], trace[name][0, :, position].numpy()
            assert np.array_equal(step[name], got[:, :few]) and (got[:, few:] == -1).all(), (position, name)


def test_stored_model_round_trip(tmp_path, seed):
    """What is written is what is read, and fits the contract's shapes."""
    text = json.dumps({"model": {"vocab": {str(i): i for i in range(TINY.vocabulary)}}})
    stored = to_stored(settled_model(TINY, seed), tokenizer_json=text)
    store.save(tmp_path / "tiny", stored)
    again = store.load(tmp_path / "tiny")
    assert again.config == stored.config and again.tokenizer_json == text
    assert again.logit_scale == pytest.approx(stored.logit_scale)
    for name, array in stored.tensors.items():
        assert array.dtype == again.tensors[name].dtype and np.array_equal(array, again.tensors[name]), name


def test_attention_is_causal(seed):
    """A later token changes nothing before it."""
    model = settled_model(TINY, seed)
    tokens = torch.randint(TINY.vocabulary, (1, TINY.context))
    other = tokens.clone()
    other[0, 10:] = (other[0, 10:] + 1) % TINY.vocabulary
    with torch.no_grad():
        assert torch.equal(model(tokens)[0, :10], model(other)[0, :10])


@pytest.mark.parametrize("shift, level", [(1.0, 1), (3.4, 3), (0.2, 0)])
def test_neurons_that_hardly_listen_keep_their_level(shift, level, seed):
    """A gain so small that a step leaves its 24 bits; and a bias that leaves 32 stays on its side."""
    model = settled_model(TINY, seed)
    hidden, out = model.blocks[0].sn_hidden, model.blocks[0].out
    with torch.no_grad():
        hidden.log_gain[:], hidden.shift[:], hidden.mean[:] = -12.0, shift, 0.0
        out.weight[:, 0], out.bias[0] = 0.0, 50.0
    stored, trace = to_stored(model), {}
    IntegerSequences(stored.tensors, stored.config)(torch.randint(TINY.vocabulary, (2, TINY.context)), trace)
    assert (trace["layer0.up"] == level).all()
    assert (trace["layer0.out"][..., 0] > 10_000).all()
