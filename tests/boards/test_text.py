"""`board.text` and `board.models`: the same answers as the packages that a board does not have."""

import json
import random
import struct
from dataclasses import replace

import numpy as np
import pytest

from spikeloom.arch.presets import preset
from spikeloom.board import models, text
from spikeloom.board.text import BoardText, UnknownTokenizer, open_text
from spikeloom.compiler import compile_model
from spikeloom.driver.errors import BadImage, PromptError
from spikeloom.driver.text import Stream, Text
from spikeloom.model import store
from spikeloom.model.random_model import TINY, random_model

NAMES = [name for name in store.available() if (store.find(name) / "tokenizer.json").is_file()]


def tokenizer_json(name):
    return (store.find(name) / "tokenizer.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_texts_and_ids_are_those_of_the_package(name, seed):
    pytest.importorskip("tokenizers")
    source = tokenizer_json(name)
    package, own = Text(source), BoardText(source)
    characters = [token for token in json.loads(source)["model"]["vocab"] if len(token) == 1]
    for _ in range(500):
        written = "".join(random.choices(characters, k=random.randint(1, 80)))
        assert own.encode(written) == package.encode(written), repr(written)
        ids = random.choices(range(len(json.loads(source)["model"]["vocab"])), k=12)
        assert own.decode(ids) == package.decode(ids)


@pytest.mark.parametrize("name", NAMES)
def test_prose_survives_the_round_trip_and_is_short(name):
    own = BoardText(tokenizer_json(name))
    prose = "Once upon a time, there was a little girl named Lily. She loved to play."
    ids = own.encode(prose)
    assert own.decode(ids) == prose and len(ids) < len(prose) / 2
    assert "".join(Stream(own).over(ids)) == prose


def test_what_cannot_be_said_is_named():
    own = BoardText(tokenizer_json(NAMES[0]))
    with pytest.raises(PromptError, match=r"'日' \(U\+65E5\)"):
        own.encode("a日b")
    with pytest.raises(PromptError, match="empty"):
        own.encode("")


@pytest.mark.parametrize("change", [
    lambda t: t["model"].update(byte_fallback=True), lambda t: t.update(normalizer={"type": "NFC"}),
    lambda t: t.update(decoder={"type": "ByteLevel"}), lambda t: t["pre_tokenizer"].update(type="ByteLevel")])
def test_kinds_of_others_are_refused_with_a_remedy(change):
    fields = json.loads(tokenizer_json(NAMES[0]))
    change(fields)
    with pytest.raises(UnknownTokenizer, match="pip install tokenizers"):
        BoardText(json.dumps(fields))
    with pytest.raises(BadImage, match="damaged"):
        BoardText("{}")


def test_the_package_is_used_where_it_is_installed(monkeypatch):
    pytest.importorskip("tokenizers")
    assert isinstance(open_text(tokenizer_json(NAMES[0])), Text)
    monkeypatch.setattr(text.importlib.util, "find_spec", lambda name: None)
    assert isinstance(open_text(tokenizer_json(NAMES[0])), BoardText)


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
