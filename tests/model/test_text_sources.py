"""Texts of one's own: files of every kind, what is held out, and refusals in words."""

import gzip
import json
import sys
import types

import pytest

from spikeloom.model.text_sources import load_texts, text_of

TEXTS = [f"text number {n}. " * 3 for n in range(40)]


def check(split):
    assert split.train + split.development + split.held_out == TEXTS
    assert len(split.held_out) == 4 and len(split.development) == 2


def test_files_of_every_kind(tmp_path):
    """Lists of strings or objects, plain or compressed, and a folder give the same texts in the same order."""
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (tmp_path / "b.json").write_text(json.dumps({"texts": TEXTS}))
    with gzip.open(tmp_path / "c.json.gz", "wt") as file:
        json.dump([{"story": text} for text in TEXTS], file)
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number:03d}.txt").write_text(text)
    for source in ("a.jsonl", "b.json", "c.json.gz", "folder"):
        check(load_texts(str(tmp_path / source)))


def test_one_long_text_is_cut(tmp_path):
    """Nothing is lost or shared between its parts; signs that training never shows are left out of the others."""
    text = "".join(f"{n} and then " for n in range(3000)) + "§"
    (tmp_path / "long.txt").write_text(text)
    split = load_texts(str(tmp_path / "long.txt"))
    assert "".join(split.train + split.development + split.held_out) == text[:-1]
    assert len(split.held_out[0]) == pytest.approx(len(text) / 10, abs=2)


def test_a_hub_data_set(monkeypatch):
    """`datasets` is asked for the training split, with the configuration if one is named."""
    asked = []
    fake = types.ModuleType("datasets")
    fake.load_dataset = lambda *a, **k: asked.append((a, k)) or [{"text": text} for text in TEXTS]
    monkeypatch.setitem(sys.modules, "datasets", fake)
    check(load_texts("hf:roneneldan/TinyStories"))
    load_texts("hf:wikitext:wikitext-2-raw-v1")
    assert asked == [(("roneneldan/TinyStories", None), {"split": "train"}), (("wikitext", "wikitext-2-raw-v1"), {"split": "train"})]


def test_a_hub_data_set_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="not installed"):
        load_texts("hf:anything")


def test_refusals(tmp_path):
    (tmp_path / "a.csv").write_text("a,b")
    (tmp_path / "few.jsonl").write_text('"one"\n"two"\n')
    (tmp_path / "empty").mkdir()
    for name, message in (("a.csv", "neither"), ("few.jsonl", "ten"), ("empty", "holds no .txt")):
        with pytest.raises(ValueError, match=message):
            load_texts(str(tmp_path / name))
    with pytest.raises(FileNotFoundError, match="There is no"):
        load_texts(str(tmp_path / "nothing.txt"))
    with pytest.raises(ValueError, match="text, story, content"):
        text_of({"body": "x"})


def test_one_long_text_keeps_to_the_characters_of_its_training_part(tmp_path):
    """A tokenizer of the training part reads development and held-out part."""
    (tmp_path / "long.txt").write_text("ab " * 10_000 + "\u00e9a" * 2000, encoding="utf-8")
    split = load_texts(str(tmp_path / "long.txt"))
    assert set("".join(split.development + split.held_out)) <= set("ab ")


@pytest.mark.parametrize("name, content", [("a.json", b"3"), ("a.json", b'{"texts": null}'), ("a.json", b"{"), ("a.jsonl", b"x"),
                                           ("a.txt", b"\xe9" * 30_000), ("a.txt.gz", b"abc"),
                                           ("a.txt.gz", gzip.compress(b"abc" * 99)[:-9])])
def test_damaged_files_are_refused_by_name(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} cannot be read as texts"):
        load_texts(str(tmp_path / name))
