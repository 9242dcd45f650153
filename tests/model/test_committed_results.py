"""Committed figures are those of the committed models: suites that take seconds are measured again and compared by `==`."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("typer")
pytest.importorskip("tokenizers")
pytest.importorskip("torch")

from spikeloom.arch.config import ModelConfig
from spikeloom.commands import suites
from spikeloom.model import corpus, store
from spikeloom.model.train import CONFIGS, load_config

MODELS = ("stories-260k", "shakespeare")
RESULTS = Path(__file__).resolve().parents[2] / "results"


def again(model: str, suite: str, out: Path, *options: str) -> dict:
    """A suite measured now."""
    assert suites.main(["--suite", suite, "--model", model, "--out", str(out), *options]) == 0
    return json.loads(out.read_text(encoding="utf-8"))


def committed(model: str, suite: str) -> dict:
    """The same, as committed; without the corpus that it was measured on there is nothing to compare."""
    if model not in store.available():
        pytest.skip(f"model: {model} is not in this checkout")
    name = json.loads((RESULTS / f"{model}.json").read_text(encoding="utf-8"))["data"]["name"]
    if corpus.corpus_of(model).name != name:
        pytest.skip(f"data: {name} is not here (SPIKELOOM_DATA)")
    return json.loads((RESULTS / f"{model}-{suite}.json").read_text(encoding="utf-8"))


def test_results_are_of_the_models_here():
    """Every suite of a released model was run on the weights that are committed: a retrained model leaves no figures of before."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")}
    measured = {stem: held for stem, held in found.items() if "model_sha256" in held}
    assert {"stories-260k", "stories-1m", "stories-260k-int4", "shakespeare", "stories-260k-zero-shot"} <= set(measured)
    assert {stem for stem, held in found.items() if held.get("suite")} <= set(measured)
    for stem, held in measured.items():
        model = held.get("model") or stem
        if model in store.available():
            assert held["model_sha256"] == store.digest(store.find(model)), f"run again: {held['command']}"


@pytest.mark.parametrize("model", ("stories-260k", "stories-1m", "stories-260k-int4", "shakespeare"))
def test_cards_say_what_the_results_say(model):
    """A card's bits per byte, parameters, firing rates and samples are those of results/MODEL.json; perplexity is that of the nats."""
    if model not in store.available():
        pytest.skip(f"model: {model} is not in this checkout")
    held = json.loads((RESULTS / f"{model}.json").read_text(encoding="utf-8"))
    card = " ".join((store.find(model) / "card.md").read_text(encoding="utf-8").split())
    forms = [held[form] for form in ("integer", "float", "softmax_twin") if form in held]
    assert all(form["perplexity"] == round(math.exp(form["nats_per_token"]), 3) for form in forms)
    said = [f"{held['integer']['bits_per_byte']:.3f}", f"{held['parameters']:,}"]
    if "softmax_twin" in held:
        assert held["softmax_twin"]["parameters"] == pytest.approx(held["parameters"], rel=0.02)
        samples = held["samples"]
        said += [f"{form['bits_per_byte']:.3f}" for form in (*forms, held["character_6_gram"])]
        said += [f"{held['softmax_twin']['parameters']:,}", f"{held['firing_rates']['all']['nonzero']:.0%} of the neurons fire"]
        said += [f"{samples['known_words']:.1%}", f"{samples['copied_13_grams']:.1%} of the sequences of 13 words"]
    device = json.loads((RESULTS / f"{model}-device.json").read_text(encoding="utf-8"))
    assert device["device"] == "rtl" and device["mismatches"] == 0 and device["tokens_per_cpu_second"] >= 5
    if "On the gateware" in card:
        said.append(f"{device['mismatches']} of {device['compared']:,} compared values differ")
    assert not [figure for figure in said if figure not in card]


@pytest.mark.parametrize("model", sorted({path.stem for path in CONFIGS.glob("*.json")} & set(store.available())))
def test_configs_are_those_of_the_models_here(model):
    """A config makes the model that was released under its name."""
    config, released = ModelConfig.from_dict(load_config(model)["model"]), store.load(store.find(model)).config
    assert replace(config, embed_shift=released.embed_shift) == released


@pytest.mark.parametrize("model", MODELS)
def test_device_quality(model, tmp_path):
    """The emulator scores the texts that the gateware scored: same perplexity, as many comparisons, no mismatch on either."""
    held = committed(model, "device")
    found = again(model, "device", tmp_path / "device.json", "--device", "emulator")
    assert held["device"] == "rtl" and held["evidence"] == "[sim]" and held["mismatches"] == 0 and held["compared"] > 1000
    same = ("texts", "tokens", "bytes", "compared", "mismatches", "nats_per_token", "perplexity", "bits_per_byte")
    assert {key: found[key] for key in same} == {key: held[key] for key in same}


@pytest.mark.parametrize("model", MODELS)
def test_spiking_metrics(model, tmp_path):
    held, found = committed(model, "spiking"), again(model, "spiking", tmp_path / "spiking.json")
    assert {**found, "command": ""} == {**held, "command": ""}
