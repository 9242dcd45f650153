"""`driver.byte_pairs` and `board.models`: the same answers as the packages that a board does not have."""

import json
import random
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest

from spikeloom.arch.presets import preset
from spikeloom.board import models
from spikeloom.compiler import compile_model
from spikeloom.driver.byte_pairs import Tokenizer, UnknownTokenizer
from spikeloom.driver.errors import BadImage, PromptError
from spikeloom.driver.text import Stream, Text
from spikeloom.model import store
from spikeloom.model.random_model import TINY, random_model

NAMES = [name for name in store.available() if (store.find(name) / "tokenizer.json").is_file()]


@pytest.fixture
def alone(monkeypatch):
    """As on a board: the package `tokenizers` is not there."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)


def tokenizer_json(name):
    return (store.find(name) / "tokenizer.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_texts_and_ids_are_those_of_the_package(name, seed):
    tokenizers = pytest.importorskip("tokenizers")
    source = tokenizer_json(name)
    package, own = tokenizers.Tokenizer.from_str(source), Tokenizer.from_str(source)
    vocabulary = json.loads(source)["model"]["vocab"]
    characters = [token for token in vocabulary if len(token) == 1]
    assert own.get_vocab() == package.get_vocab()
    for _ in range(500):
        written = "".join(random.choices([*characters, "日", "é"], k=random.randint(1, 80)))
        assert own.encode(written).ids == package.encode(written, add_special_tokens=False).ids, repr(written)
        ids = random.choices(range(len(vocabulary)), k=12)
        for skip in (True, False):
            assert own.decode(ids, skip) == package.decode(ids, skip)


@pytest.mark.parametrize("name", NAMES)
def test_prose_survives_the_round_trip_and_is_short(name, alone):
    own = Text(tokenizer_json(name))
    assert type(own._tokenizer) is Tokenizer
    prose = "Once upon a time, there was a little girl named Lily. She loved to play."
    ids = own.encode(prose)
    characters_alone = len(json.loads(tokenizer_json(name))["model"]["vocab"]) < 200
    assert own.decode(ids) == prose and len(ids) <= len(prose) / (1 if characters_alone else 2)
    assert "".join(Stream(own).over(ids)) == prose
    assert own.encode_masked("Once <mask> a time", 7).count(7) == 1


def test_what_cannot_be_said_is_named(alone):
    own = Text(tokenizer_json(NAMES[0]))
    with pytest.raises(PromptError, match=r"'日' \(U\+65E5\)"):
        own.encode("a日b")
    with pytest.raises(PromptError, match="empty"):
        own.encode("")


@pytest.mark.parametrize("change", [
    lambda t: t["model"].update(byte_fallback=True), lambda t: t.update(normalizer={"type": "NFC"}),
    lambda t: t.update(decoder={"type": "ByteLevel"}), lambda t: t["pre_tokenizer"].update(type="ByteLevel")])
def test_kinds_of_others_are_refused_with_a_remedy(change, alone):
    fields = json.loads(tokenizer_json(NAMES[0]))
    change(fields)
    with pytest.raises(UnknownTokenizer, match="pip install tokenizers"):
        Text(json.dumps(fields))
    for damaged in ("{}", "", "[1]"):
        with pytest.raises(BadImage, match="damaged"):
            Text(damaged)


# -- models -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", store.available())
def test_weights_are_those_that_safetensors_reads(name):
    pytest.importorskip("safetensors")
    wanted, got = store.load(store.find(name)), models.load(name)
    assert (got.config, got.logit_scale, got.tokenizer_json) == (wanted.config, wanted.logit_scale, wanted.tokenizer_json)
    assert got.tensors.keys() == wanted.tensors.keys()
    for key, tensor in wanted.tensors.items():
        assert got.tensors[key].dtype == tensor.dtype and np.array_equal(got.tensors[key], tensor), key


@pytest.mark.parametrize("data", [b"", b"\x01", struct.pack("<Q", 1 << 40), struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 5) + b"{{{{{"])
def test_damaged_weights_are_refused(tmp_path, data):
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="is damaged"):
        models.read_safetensors(tmp_path / "model.safetensors")


def test_an_image_beside_the_bitstream_comes_first_if_it_is_of_this_machine(tmp_path):
    from spikeloom.arch.layout import write_image

    tiny = preset("tiny")
    image = compile_model(*random_model(1), tiny, logit_scale=64.0)
    (tmp_path / "mine.loom").write_bytes(write_image(image))
    assert models.image_of("mine", tiny, tmp_path).sections == image.sections
    assert models.image_of(tmp_path / "mine.loom", tiny).sections == image.sections
    other = replace(tiny, cols=16, max_neurons=96)
    with pytest.raises(ValueError, match="no model 'mine'"):
        models.image_of("mine", other, tmp_path)
    (tmp_path / "mine.loom").write_bytes(b"LOOM")
    with pytest.raises(BadImage):
        models.image_of("mine", tiny, tmp_path)
    assert TINY.vocabulary == image.card["vocabulary"]["size"]
