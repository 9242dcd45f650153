"""The integer model is the contract's operators, one after another; random models are fit for tests."""

from dataclasses import replace

import numpy as np
import pytest

from spikeloom.arch import numerics
from spikeloom.model.integer_model import IntegerModel, tensor_shapes
from spikeloom.model.random_model import TINY, random_model


def plain_step(config, t, cache, token, position):
    """One token written straight from `arch.numerics`, without any of the model's shortcuts."""
    c, out = config, {}

    def neuron(name, acc, levels):
        out[name] = numerics.ni_lif(acc, t[f"{name}.base"], t[f"{name}.step"], levels)
        return out[name]

    def linear(name, levels):
        return levels @ t[f"{name}.weight"].astype(np.int64)

    def write(name, levels, residual):
        out[name], _ = numerics.residual_add(residual, linear(name, levels), t[f"{name}.bias"], t[f"{name}.shift"])
        return out[name]

    row = t["embed.token"][token].astype(np.int64)
    if c.position_table:
        row = row + t["embed.position"][position]
    residual, _ = numerics.saturate(row << c.embed_shift)
    out["embed"] = residual
    for layer in range(c.layers):
        at = f"layer{layer}"
        acc = linear(f"{at}.qkv", neuron(f"{at}.in", residual, c.level_in))
        fired = neuron(f"{at}.qkv", acc, c.level_v)
        q, k = (np.minimum(fired[i * c.width:(i + 1) * c.width], 1) for i in range(2))
        v = fired[2 * c.width:]
        out[f"{at}.qkv"] = np.concatenate([q, k, v])
        keys, values = cache[layer]
        keys.append(k.reshape(c.heads, -1))
        values.append(v.reshape(c.heads, -1))
        raw = numerics.raw_scores(q.reshape(c.heads, -1), np.stack(keys))
        biased = numerics.biased_scores(raw, np.arange(position, -1, -1), c.recency)
        chosen = numerics.winners(biased, raw > 0 if c.overlap else np.ones_like(raw, bool), c.top_k)
        out[f"{at}.attn.raw"], out[f"{at}.attn.biased"] = raw, biased
        out[f"{at}.attn.gather"] = numerics.gather(np.stack(values), chosen, c.rank_shifts).reshape(-1)
        residual = write(f"{at}.out", neuron(f"{at}.attn", out[f"{at}.attn.gather"], c.level_attn), residual)
        levels = neuron(f"{at}.up", linear(f"{at}.up", neuron(f"{at}.mid", residual, c.level_mid)), c.level_hidden)
        residual = write(f"{at}.down", levels, residual)
    out["logits"] = linear("head", neuron("final", residual, c.level_final)) + t["head.bias"]
    return out


@pytest.mark.parametrize("options", [{}, {"saturate": True}, {"tie": True}, {"equal_ranks": True}, {"overlap": True}],
                         ids=lambda options: next(iter(options), "plain"))
def test_every_intermediate(options):
    config, tensors = random_model(3, replace(TINY, embed_shift=1), **options)
    model, cache = IntegerModel(config, tensors), [([], []) for _ in range(config.layers)]
    for position, token in enumerate(np.random.default_rng(1).integers(0, config.vocabulary, 20)):
        trace = model.step(int(token), position)
        for name, expected in plain_step(config, tensors, cache, token, position).items():
            assert (trace[name] == expected).all(), (position, name)


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("seed", range(3))
def test_random_models_speak(seed, bits):
    config, tensors = random_model(seed, replace(TINY, weight_bits=bits))
    most = 1 if bits == 2 else (1 << (bits - 1)) - 1
    assert all(np.abs(tensors[name].astype(int)).max() <= most for name in tensors
               if name.endswith("weight"))
    model = IntegerModel(config, tensors)
    said = model.generate([1], 31)
    assert len(set(said)) >= 4
    model.clear()
    traces = [model.step(token, position) for position, token in enumerate(said)]
    for name in (n for n in traces[0] if n.split(".")[-1] in ("in", "qkv", "attn", "mid", "up", "final")):
        assert 0.05 <= np.mean([trace[name] > 0 for trace in traces]) <= 0.65, name


def test_random_models_depend_on_the_seed_alone():
    (_, a), (_, b), (_, c) = random_model(4), random_model(4), random_model(5)
    assert all((a[name] == b[name]).all() for name in a) and any((a[name] != c[name]).any() for name in a)


def test_corners_that_random_models_can_force():
    def counters(**options):
        config, tensors = random_model(5, **options)
        model = IntegerModel(config, tensors)
        return sum((model.step(token, position).counters for position, token in enumerate(range(config.context))),
                   start=model.step(0, 0).counters)
    assert counters()["saturations"] == 0 < counters(saturate=True)["saturations"]
    assert counters(tie=True)["ties"] >= 2 * (32 - 3)
    assert random_model(5, equal_ranks=True)[0].rank_shifts == (0, 0, 0)
    # Silent queries: with the overlap flag some row has no winner.
    config, tensors = random_model(5, overlap=True)
    tensors["layer0.qkv.base"][:config.width] = (1 << 31) - 1
    trace = IntegerModel(config, tensors).step(1, 0)
    assert trace.counters["rows_without_winner"] >= 2 and (trace["layer0.attn.winners"] == -1).all()


def test_counters_of_the_first_token():
    config, tensors = random_model(0)
    trace = IntegerModel(config, tensors).step(3, 0)
    assert trace.counters["rows_short"] == config.layers * config.heads  # one position, three winners wanted
    assert trace.counters["winners"] == config.layers * config.heads
    assert trace.counters["events.layer0.qkv"] == np.count_nonzero(trace["layer0.in"])
    assert trace.counters["neurons"] == config.layers * (6 * config.width + config.hidden) + config.width


def test_prompt_tokens_need_no_head():
    config, tensors = random_model(0)
    assert "logits" not in IntegerModel(config, tensors).step(3, 0, head=False)


def test_refusals():
    config, tensors = random_model(0)
    model = IntegerModel(config, tensors)
    for token, position in ((-1, 0), (32, 0), (0, 32)):
        with pytest.raises(ValueError, match="outside"):
            model.step(token, position)
    with pytest.raises(ValueError, match="head.bias is missing"):
        IntegerModel(config, {k: v for k, v in tensors.items() if k != "head.bias"})
    with pytest.raises(ValueError, match="must be"):
        IntegerModel(replace(config, hidden=48), tensors)
    assert set(tensor_shapes(config)) == set(tensors)
