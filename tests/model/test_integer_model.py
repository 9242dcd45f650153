"""The integer model is the contract's operators, one after another; random models are fit for tests."""

from dataclasses import replace

import numpy as np
import pytest

from spikeloom.arch import numerics
from spikeloom.arch.config import RESIDUALS
from spikeloom.arch.presets import preset
from spikeloom.model.integer_model import IntegerModel, tensor_shapes
from spikeloom.model.random_model import TINY, random_model
from spikeloom_sim.random_systems import SYSTEMS, draw_system


def plain(config, t, tokens):
    """A whole text written straight from `arch.numerics`, layer by layer, without any of the model's shortcuts.

    Returns one dict per position, under the names of `Trace`.
    """
    c, out = config, [{} for _ in tokens]
    steps, places = range(c.steps), range(len(tokens))
    membranes, levels = {}, {"in": c.level_in, "qkv": c.level_v, "attn": c.level_attn, "mid": c.level_mid, "up": c.level_hidden,
                             "final": c.level_final}
    replace_in, add_out, replace_mid, add_down = RESIDUALS[c.residual]

    def name_of(name, time):
        return name if c.steps == 1 else f"{name}@{time}"

    def neuron(name, place, time, acc, key=None):
        part = name.split(".")[-1]
        level, kind = levels.get(part, 1) if c.neuron in ("ni_lif", "i_lif") else 1, c.neuron
        if {"qkv": "v", "up": "hidden"}.get(part, part) in c.signed:
            kind = "signed_ni_lif"
        before = membranes.get((name, place), 0)
        spikes, after = numerics.neuron_step(kind, acc, before, t[f"{name}.base"], t[f"{name}.step"], levels=level, leak=c.leak)
        if name.endswith(".qkv") and level > 1:  # queries and keys have one level
            few, other = numerics.neuron_step(kind, acc, before, t[f"{name}.base"], t[f"{name}.step"], levels=1, leak=c.leak)
            spikes[:2 * c.width], after[:2 * c.width] = few[:2 * c.width], other[:2 * c.width]
        membranes[name, place] = after
        out[place][name_of(key or name, time)] = spikes
        return spikes

    def linear(name, spikes):
        return spikes @ t[f"{name}.weight"].astype(np.int64)

    def write(name, place, time, spikes, x, adds):
        if adds:
            x, _ = numerics.add_spikes(x, neuron(name, place, time, linear(name, spikes), f"{name}.spikes"), c.spike_shift)
        else:
            x, _ = numerics.residual_add(x, linear(name, spikes), t[f"{name}.bias"], t[f"{name}.shift"])
        out[place][name_of(name, time)] = x
        return x

    def embed(place, time):
        row = t["embed.token"][tokens[place]].astype(np.int64)
        if c.position_table:
            row = row + t["embed.position"][place]
        if c.embedding == "spikes":
            return neuron("embed", place, time, row) << c.spike_shift
        out[place][name_of("embed", time)] = x = numerics.saturate(row << c.embed_shift)[0]
        return x

    def attend(at, place, time, q, keys, values):
        seen = range(len(tokens)) if c.bidirectional else range(place + 1)
        keys, values = np.stack([keys[j] for j in seen]), np.stack([values[j] for j in seen])
        raw = numerics.raw_scores(q, keys)
        out[place][name_of(f"{at}.attn.raw", time)] = raw
        every = np.ones(len(keys), bool)
        if c.attention == "sfsa":
            gathered = numerics.sfsa_gather(values, raw, every, t[f"{at}.attn.theta"])
        elif c.attention == "ssa":
            gathered = numerics.ssa_gather(values, raw, every)
        else:
            biased = numerics.biased_scores(raw, np.abs(np.arange(len(keys)) - place), c.recency)
            out[place][name_of(f"{at}.attn.biased", time)] = biased
            gathered = numerics.gather(values, numerics.winners(biased, raw > 0 if c.overlap else np.ones_like(raw, bool), c.top_k),
                                       c.rank_shifts)
        out[place][name_of(f"{at}.attn.gather", time)] = gathered.reshape(-1)
        return gathered.reshape(-1)

    stream = {(place, time): embed(place, time) for time in steps for place in places}
    for layer in range(c.layers):
        at = f"layer{layer}"
        for time in steps:
            heads = []
            for place in places:
                s = neuron(f"{at}.in", place, time, stream[place, time])
                if replace_in:
                    stream[place, time] = s << c.spike_shift
                heads.append(neuron(f"{at}.qkv", place, time, linear(f"{at}.qkv", s)).reshape(3, c.heads, -1))
            for place in places:
                gathered = attend(at, place, time, heads[place][0], [h[1] for h in heads], [h[2] for h in heads])
                x = write(f"{at}.out", place, time, neuron(f"{at}.attn", place, time, gathered), stream[place, time], add_out)
                s = neuron(f"{at}.mid", place, time, x)
                if replace_mid:
                    x = s << c.spike_shift
                h = neuron(f"{at}.up", place, time, linear(f"{at}.up", s))
                stream[place, time] = write(f"{at}.down", place, time, h, x, add_down)
    for place in places[:1] if c.classes else places:
        finals = [neuron("final", place, time, stream[place, time]) for time in steps]
        read = {"accumulate": sum(finals), "average": sum(finals), "concatenate": np.concatenate(finals), "final": finals[-1]}[c.head]
        out[place]["logits"] = linear("head", read) + t["head.bias"]
    return out


def run(model, tokens):
    if model.config.bidirectional:
        return model.encode(tokens)
    return [model.step(token, position) for position, token in enumerate(tokens)]


@pytest.mark.parametrize("options", [{}, {"saturate": True}, {"tie": True}, {"equal_ranks": True}, {"overlap": True}],
                         ids=lambda options: next(iter(options), "plain"))
def test_every_intermediate(options):
    config, tensors = random_model(3, replace(TINY, embed_shift=1), **options)
    tokens = np.random.default_rng(1).integers(0, config.vocabulary, 20).tolist()
    for position, (trace, expected) in enumerate(zip(run(IntegerModel(config, tensors), tokens), plain(config, tensors, tokens))):
        for name, value in expected.items():
            assert (trace[name] == value).all(), (position, name)


@pytest.mark.parametrize("number, system", list(enumerate([*SYSTEMS, *["mixed"] * 6])), ids=str)
def test_every_intermediate_of_every_system(number, system):
    config = draw_system(np.random.default_rng([77, number]), preset("tiny"), system, number)
    config, tensors = random_model(number, config, saturate=number % 5 == 3)
    tokens = np.random.default_rng(number).integers(config.vocabulary, size=min(9, config.context)).tolist()
    traces = run(IntegerModel(config, tensors), tokens)
    for position, (trace, expected) in enumerate(zip(traces, plain(config, tensors, tokens))):
        for name, value in expected.items():
            assert trace[name].shape == value.shape and (trace[name] == value).all(), (position, name)
    fired, neurons = (sum(trace.counters[name] for trace in traces) for name in ("fired", "neurons"))
    # With levels of both signs only one step in between is silent.
    assert 0.05 <= fired / neurons <= (0.9 if config.signed else 0.6)


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


def test_synaptic_operations_by_hand():
    """One spike in, one addition per output; a level of d counts d times in `sops.levels`."""
    config, tensors = random_model(0)
    model = IntegerModel(config, tensors)
    for position in range(4):
        trace = model.step(3 + position, position)
    outputs = {"qkv": ("in", 48), "out": ("attn", 16), "up": ("mid", 32), "down": ("up", 16)}
    inputs = [(trace[f"layer{layer}.{source}"], n) for layer in range(2) for source, n in outputs.values()] + [(trace["final"], 32)]
    assert trace.counters["sops.linear"] == sum(np.count_nonzero(s) * n for s, n in inputs)
    assert trace.counters["sops.levels"] == sum(s.sum() * n for s, n in inputs) > trace.counters["sops.linear"]
    met = sum(trace[f"layer{layer}.attn.raw"].sum() for layer in range(2))
    assert met <= trace.counters["sops.attention"] <= met + trace.counters["winners"] * config.head_width


@pytest.mark.parametrize("attention", ["wta", "sfsa", "ssa"])
def test_attention_operations_by_hand(attention):
    """Coincident spikes of query and keys, and spikes of the values that were added; ternary ones by their size."""
    config, tensors = random_model(2, replace(TINY, neuron="t_lif", steps=2, leak=1, layers=1, attention=attention))
    model = IntegerModel(config, tensors)
    traces = [model.step(token, position) for position, token in enumerate(range(1, 9))]
    last, expected = traces[-1], 0
    for time in range(2):
        q, _, _ = last[f"layer0.qkv@{time}"].reshape(3, 2, 8)
        k, v = (np.stack([trace[f"layer0.qkv@{time}"].reshape(3, 2, 8)[i] for trace in traces]) for i in (1, 2))  # [n, H, d]
        raw = last[f"layer0.attn.raw@{time}"]
        expected += np.count_nonzero(k * q)
        for head in range(2):
            if attention == "wta":
                added = [j for j in last[f"layer0.attn.winners@{time}"][head] if j >= 0]
            else:
                added = np.flatnonzero(last[f"layer0.attn.fired@{time}"][head] if attention == "sfsa" else raw[head])
            expected += np.count_nonzero(v[added, head])
    assert last.counters["sops.attention"] == expected > 0


def test_counters_of_time_steps():
    config, tensors = random_model(1, replace(TINY, neuron="lif_soft", steps=3, leak=2))
    trace = IntegerModel(config, tensors).step(3, 0)
    assert trace.counters["neurons"] == 3 * (config.layers * (6 * config.width + config.hidden) + config.width)
    each = [trace.counters[f"events.layer0.qkv@{t}"] for t in range(3)]
    assert each == [np.count_nonzero(trace[f"layer0.in@{t}"]) for t in range(3)]
    assert trace.counters["events.layer0.qkv"] == sum(each)
    assert trace.counters["events.head"] == np.count_nonzero(trace["final"]) and trace["final"].shape == (48,)


def test_prompt_tokens_need_no_head():
    config, tensors = random_model(0)
    assert "logits" not in IntegerModel(config, tensors).step(3, 0, head=False)


ENCODER = replace(TINY, bidirectional=True, layers=1)


def test_encoders_look_both_ways():
    config, tensors = random_model(3, ENCODER)
    model, text = IntegerModel(config, tensors), [3, 1, 4, 1, 5, 9, 2, 6]
    before = model.encode(text)
    after = model.encode([*text[:-1], 7])
    assert any((before[0]["logits"] != after[0]["logits"]).tolist()) and len(before) == len(text)
    assert all((a["logits"] == b["logits"]).all() for a, b in zip(before, model.encode(text)))  # nothing is left behind
    assert before[2]["layer0.attn.raw"].shape == (2, 8)


def test_masked_tokens_are_filled():
    config, tensors = random_model(3, ENCODER)
    model = IntegerModel(config, tensors)
    best = [int(np.argmax(trace["logits"])) for trace in model.encode([1, 0, 5, 0])]
    assert model.fill([1, 0, 5, 0], [1, 3]) == [1, best[1], 5, best[3]]


def test_texts_are_classified():
    config, tensors = random_model(4, replace(ENCODER, classes=3, steps=2, neuron="lif_hard", leak=1))
    model, text = IntegerModel(config, tensors), [1, 2, 3]
    first, *others = model.encode(text)
    assert first["logits"].shape == (3,) and not any("logits" in trace for trace in others)
    assert model.classify(text) == int(np.argmax(first["logits"]))
    assert model.encode([]) == []
    with pytest.raises(ValueError, match="nothing to classify"):
        model.classify([])


def test_each_model_has_its_own_way_to_run():
    with pytest.raises(ValueError, match="give `encode` the whole text"):
        IntegerModel(*random_model(3, ENCODER)).step(1, 0)
    decoder = IntegerModel(*random_model(0))
    with pytest.raises(ValueError, match="token by token with `step`"):
        decoder.encode([1, 2])
    with pytest.raises(ValueError, match="no classification head"):
        decoder.classify([1, 2])


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
