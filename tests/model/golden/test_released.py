"""The released models of the named systems: what was trained, exported again, is what lies there; float form and integers measure alike."""

import json

import numpy as np
import pytest
import torch

from spikeloom.model import corpus, evaluate, reference, store
from spikeloom.model.golden import quality, tasks
from spikeloom.model.golden.cards import ABOUT, MEASURED
from spikeloom.model.golden.export import to_stored
from spikeloom.model.integer_torch import IntegerSequences
from spikeloom.model.train import load_config

pytest.importorskip("tokenizers", reason="tokenizers: not installed")

LARGEST_FILE = 8 << 20


@pytest.mark.parametrize("name", ABOUT)
def test_a_released_model_is_its_export(name):
    """Every integer; shape and options are the named config's."""
    folder = store.find(name)
    stored, model = store.load(folder), reference.load(folder / "reference" / "float.safetensors")[0]
    again = to_stored(model, stored.tokenizer_json)
    assert again.config == stored.config and again.logit_scale == stored.logit_scale
    assert (again.mask_token, again.class_names) == (stored.mask_token, stored.class_names)
    for tensor, value in stored.tensors.items():
        assert np.array_equal(value, again.tensors[tensor]), tensor
    assert all(getattr(stored.config, key) == (tuple(value) if isinstance(value, list) else value)
               for key, value in load_config(name)["model"].items())
    assert all(path.stat().st_size < LARGEST_FILE for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def split():
    """The corpus without its training texts, which take long to encode."""
    whole = corpus.load_shakespeare()
    return corpus.Split(whole.name, whole.development, whole.development, whole.development)


@pytest.mark.parametrize("name", ABOUT)
def test_integers_measure_like_the_float_form(name, split):
    """On development text the losses agree within 0.02 nats, both far below a uniform guess."""
    folder, settings = store.find(name), load_config(name)["training"]
    stored, model = store.load(folder), reference.load(folder / "reference" / "float.safetensors")[0]
    task = tasks.TASKS[settings["task"]].open(stored.config, settings, folder, split)
    options = {"batches": 1} if settings["task"] == "masked" else {}
    if not options:
        task.watch = task.watch[: 80 if settings["task"] == "pairs" else 12]
    integer = IntegerSequences(stored.tensors, stored.config)
    with torch.no_grad():
        floats = task.development(model, **options)
        integers = task.development(Evaluated(lambda tokens: integer(tokens).float() / stored.logit_scale), **options)
    assert integer.saturations == 0
    assert integers["development_nats"] == pytest.approx(floats["development_nats"], abs=0.02)
    assert integers["development_nats"] < np.log(stored.config.outputs) - (0.01 if settings["task"] == "pairs" else 1.0)


def test_evaluation_of_a_decoder(split, monkeypatch, capsys):
    """By the command that users type: integers, float form and twin below what tokens alone tell."""
    monkeypatch.setattr(corpus, "load_shakespeare", lambda: split)
    monkeypatch.setattr(quality, "HELD_OUT_TOKENS", 3000)
    evaluate.main(["--model", "spikedecoder"])
    found = json.loads(capsys.readouterr().out)
    nats = {form: found[form]["nats_per_token"] for form in ("integer", "golden", "softmax_twin", "bigram", "unigram")}
    assert nats["integer"] == pytest.approx(nats["golden"], abs=0.02)
    assert nats["softmax_twin"] < nats["integer"] < nats["unigram"] and nats["bigram"] < nats["unigram"] and found["saturations"] == 0


@pytest.mark.parametrize("name, least", [("we-spikingformer", 0.1), ("we-spikingformer-pairs", 0.7)])
def test_evaluation_of_an_encoder(name, least, split, monkeypatch):
    monkeypatch.setattr(quality, "WINDOWS", 1)
    monkeypatch.setattr(quality, "PAIRS", 60)
    kept = store.find(name) / "reference"
    found = quality.measure(store.find(name), kept / "float.safetensors", kept / "twin.safetensors", split)
    assert found["integer"]["accuracy"] > least and found["golden"]["accuracy"] > least and found["twin_parameters"] > 200_000


class Evaluated(torch.nn.Module):
    """A function as a model."""

    def __init__(self, function):
        super().__init__()
        self.forward = function
        self.device = torch.nn.Parameter(torch.zeros(()))  # says where it computes


@pytest.mark.parametrize("name", ABOUT)
def test_cards_say_what_matters(name):
    folder = store.find(name)
    card = (folder / "card.md").read_text(encoding="utf-8")
    tokens = reference.state_of(folder / "reference" / "float.safetensors")["tokens"]
    for word in (f"# {name}\n", "arXiv", f"{tokens:,} tokens", "softmax twin", "public domain", "Apache-2.0", MEASURED[
            load_config(name)["training"]["task"]]):
        assert word in card, word
    assert json.loads((folder / "config.json").read_text())["logit_scale"] > 0


def test_texts_without_a_window_are_refused():
    """They have no figure: many short texts share the tokens that are read."""
    folder = store.find("spikedecoder")
    short = corpus.Split("short", ["To be, or not to be.\n" * 40], ["To be.\n" * 20], ["Not to be.\n"] * 3)
    with pytest.raises(ValueError, match="none of the 3 held-out texts holds so many"):
        quality.measure(folder, folder / "reference" / "float.safetensors", split=short)
