"""Models on disk: every kind comes back as it went, and folders of before load too."""

import json
from dataclasses import replace

import numpy as np
import pytest

from spikeloom.model import store
from spikeloom.model.random_model import TINY
from spikeloom.model.tensors import tensor_shapes

KINDS = {
    "WD-Spikingformer": TINY,
    "BiSpikCLM": replace(TINY, neuron="lif_subtract", steps=2, leak=3, attention="sfsa", residual="spike_sum", embedding="spikes"),
    "SpikeDecoder": replace(TINY, neuron="lif_hard", steps=4, leak=1, attention="ssa", residual="all_spikes", head="concatenate"),
    "WE-Spikingformer": replace(TINY, neuron="t_lif", steps=4, leak=2, bidirectional=True, classes=3),
}


def draw(config):
    """Tensors of the right shapes, of numbers that mean nothing."""
    rng = np.random.default_rng(1)
    return {name: rng.integers(0, 100, shape).astype(dtype) for name, (shape, dtype) in tensor_shapes(config).items()}


@pytest.mark.parametrize("config", KINDS.values(), ids=list(KINDS))
def test_models_come_back_as_they_went(tmp_path, config):
    store.save(tmp_path, store.StoredModel(config, draw(config), 33.5))
    again = store.load(tmp_path)
    assert again.config == config and again.logit_scale == 33.5
    assert all((again.tensors[name] == value).all() for name, value in draw(config).items())


def test_folders_of_before_time_steps_load(tmp_path):
    store.save(tmp_path, store.StoredModel(TINY, draw(TINY), 33.5))
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    for name in ("neuron", "steps", "leak", "attention", "bidirectional", "residual", "spike_shift", "embedding", "head", "classes"):
        del fields["model"][name]
    path.write_text(json.dumps(fields))
    assert store.load(tmp_path).config == TINY


def test_the_shipped_model_loads():
    stored = store.load(store.find("stories-260k"))
    assert (stored.config.neuron, stored.config.steps, stored.config.attention) == ("ni_lif", 1, "wta")


def test_tensors_of_another_kind_are_refused(tmp_path):
    config = KINDS["BiSpikCLM"]
    store.save(tmp_path, store.StoredModel(config, draw(config), 1.0))
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    fields["model"] |= {"residual": "membrane"}
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="tensor layer0.out.bias is missing"):
        store.load(tmp_path)


def tokenizer_of(tokens, added=()):
    """A `tokenizer.json` of so many tokens, and of special ones that may be among them."""
    return json.dumps({"model": {"type": "BPE", "vocab": {f"t{i}": i for i in range(tokens)}, "merges": []},
                       "added_tokens": [{"id": i, "content": name, "special": True} for i, name in added]})


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    """By its number of tokens, added ones counted once; and a file that is none."""
    size = TINY.vocabulary
    store.save(tmp_path, store.StoredModel(TINY, draw(TINY), 33.5))
    for text in (tokenizer_of(size), tokenizer_of(size, [(0, "t0")]), tokenizer_of(size - 1, [(size - 1, "<|mask|>")]),
                 json.dumps({"model": {"type": "Unigram", "vocab": [[f"t{i}", 0.0] for i in range(size)]}, "added_tokens": None})):
        (tmp_path / "tokenizer.json").write_text(text)
        assert store.load(tmp_path).tokenizer_json == text
    damaged = [(text, "is no tokenizer") for text in ("{}", "[", '{"model": {"vocab": 5}}')]
    for text, words in [(tokenizer_of(count), f"has {count} tokens, the model {size}") for count in (size - 1, size + 1)] + damaged:
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(ValueError, match=f"cannot be read: tokenizer.json {words}"):
            store.load(tmp_path)


@pytest.mark.parametrize("name", store.available())
def test_released_models_have_their_tokenizers(name):
    assert store.load(store.find(name)).tokenizer_json


@pytest.mark.parametrize("change", [
    lambda fields: [], lambda fields: fields | {"model": []}, lambda fields: fields | {"model": fields["model"] | {"width": "16"}},
    lambda fields: fields | {"model": fields["model"] | {"width": 16.0}}, lambda fields: fields | {"model": {"name": "half"}},
    lambda fields: fields | {"logit_scale": None}, lambda fields: fields | {"logit_scale": float("nan")},
    lambda fields: fields | {"logit_scale": 0}, lambda fields: fields | {"mask_token": "<|mask|>"}])
def test_foreign_configs_are_refused_in_words(change, tmp_path):
    store.save(tmp_path, store.StoredModel(TINY, draw(TINY), 33.5))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match="cannot be read: .* again"):
        store.load(tmp_path)
