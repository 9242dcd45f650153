"""Texts, tokens and windows: round trips, held-out parts, and what a window may cross."""

import gzip
import json
import math
import os
import time

import numpy as np
import pytest

from spikeloom.model import corpus, store
from spikeloom.model.evaluate import measure, sample_statistics, windows
from spikeloom.model.ngram import CharacterNgram
from spikeloom.model.tokenizer import END, BadTokenizer, Tokenizer, UnknownCharacter

TEXTS = ["Once upon a time, a cat sat.\n\"Hello,\" it said.", "A dog didn't run; the cat ran away!", "Two  blanks, one tab?"] * 4


@pytest.fixture(scope="module")
def tokenizer():
    pytest.importorskip("tokenizers", reason="tokenizers: not installed")
    return Tokenizer.train(TEXTS, 60)


def test_tokenizer_round_trip(tokenizer, tmp_path):
    """Every text of the known characters comes back exactly, also after saving; the end token is id 0."""
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    for text in [*TEXTS, " a  nice \n\n cat", "'"]:
        text = "".join(c for c in text if c in tokenizer.alphabet)
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert again.encode(text) == tokenizer.encode(text)
    assert tokenizer.size == 60 and tokenizer.backend.token_to_id(END) == 0
    assert tokenizer.encode_all(TEXTS) == [tokenizer.encode(text) for text in TEXTS]


def test_unknown_characters_are_refused(tokenizer):
    """No silent unknown token."""
    with pytest.raises(UnknownCharacter, match="'ß', 'é'"):
        tokenizer.encode("caßé")
    with pytest.raises(UnknownCharacter):
        tokenizer.encode(END)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]"])
def test_damaged_tokenizers_are_refused(text, tmp_path):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(BadTokenizer, match="tokenizer.json is no tokenizer"):
        Tokenizer.load(tmp_path / "tokenizer.json")
    with pytest.raises(BadTokenizer):
        Tokenizer.from_text(text)
    with pytest.raises(FileNotFoundError):
        Tokenizer.load(tmp_path / "nowhere.json")


def test_texts_of_another_corpus_are_said_to_be_the_data_folders(tmp_path, monkeypatch):
    """The Shakespeare that stands in for missing stories has signs that a model of stories never saw."""
    if "stories-260k" not in store.available():
        pytest.skip("model: stories-260k is not in this checkout")
    pytest.importorskip("tokenizers", reason="tokenizers: not installed")
    monkeypatch.setenv("SPIKELOOM_DATA", str(tmp_path))
    with pytest.raises(UnknownCharacter, match=f"shakespeare.* never saw .* data folder, {tmp_path}: SPIKELOOM_DATA names another"):
        measure(store.find("stories-260k"), limit=1)


def test_texts_shorter_than_a_window_are_refused():
    stream = corpus.TokenStream(0)
    stream.extend([[1, 2, 3], [4, 5, 6]])
    assert stream.windows(1, 8, np.random.default_rng(0))[0].tolist() == [[0, 1, 2, 3, 0, 4, 5, 6]]
    with pytest.raises(ValueError, match="hold 8 tokens"):
        stream.windows(1, 9, np.random.default_rng(0))


def test_windows_stay_inside_texts_where_they_can(seed):
    """A window of a text at least as long as itself never crosses the border; targets follow their tokens."""
    stream = corpus.TokenStream(0)
    stream.extend([list(range(100, 150)), list(range(200, 240))], [True, False])
    tokens, targets = stream.windows(200, 16, np.random.default_rng(seed))
    for row, following in zip(tokens.tolist(), targets.tolist()):
        assert 0 not in row[1:]
        assert following[:-1] == row[1:]
        assert following[-1] in (row[-1] + 1, 100, 200, 0, -100)
    assert stream.targets[-1] == -100 and stream.targets[50] == 0
    assert {row[0] for row in tokens.tolist()} >= {0}


def test_practice_is_encoded_once(tokenizer, tmp_path, monkeypatch):
    """Ids of a practice file are those of its texts that can be written, kept beside it, and read the second time."""
    stories = [{"text": TEXTS[0], "complete": True}, {"text": "caßé", "complete": True}, {"text": "", "complete": True},
               {"text": TEXTS[1], "complete": False}]
    path = tmp_path / "practice-01-000.json.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        json.dump({"stories": stories}, file)
    first = corpus.encode_practice(path, tokenizer)
    monkeypatch.setattr(corpus, "load_practice", None)
    for packed in (first, corpus.encode_practice(path, tokenizer)):
        packed_stream, stream = corpus.TokenStream(0), corpus.TokenStream(0)
        packed_stream.extend_packed(packed)
        stream.extend([tokenizer.encode(TEXTS[0]), tokenizer.encode(TEXTS[1])], [True, False])
        for name in ("tokens", "targets", "start", "stop"):
            assert (getattr(packed_stream, name) == getattr(stream, name)).all()
    assert stream.tokens.tolist() == [0, *tokenizer.encode(TEXTS[0]), 0, *tokenizer.encode(TEXTS[1])]


def test_practice_that_was_written_again_is_encoded_again(tokenizer, tmp_path):
    """A newer file under the same name is not mistaken for the one whose ids were kept."""
    path = tmp_path / "practice-01-000.json.gz"
    for age, text in ((100, TEXTS[0]), (-100, TEXTS[1])):
        with gzip.open(path, "wt", encoding="utf-8") as file:
            json.dump({"stories": [{"text": text, "complete": True}]}, file)
        os.utime(path, (time.time() - age,) * 2)
        assert corpus.encode_practice(path, tokenizer)["tokens"].tolist() == tokenizer.encode(text)


def test_practice_is_read_where_nothing_can_be_written(tokenizer, tmp_path, monkeypatch):
    """A folder that is read only serves all the same, and nothing is left in it."""
    path = tmp_path / "practice-01-000.json.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        json.dump({"stories": [{"text": TEXTS[0], "complete": True}]}, file)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert corpus.encode_practice(path, tokenizer)["tokens"].tolist() == tokenizer.encode(TEXTS[0])
    assert list(tmp_path.iterdir()) == [path]


def test_shakespeare_comes_with_the_project():
    """42 texts, the end of each held out, nothing lost."""
    split = corpus.load_shakespeare()
    assert len(split.train) == len(split.development) == len(split.held_out) == 42
    whole = "".join(a + b + c for a, b, c in zip(split.train, split.development, split.held_out))
    assert len(whole) == 5_055_528 - 41
    assert "To be, or not to be" in whole


def test_held_out_windows_score_every_token_once():
    """Long texts: each token is scored once and sees at least half a context where that exists."""
    ids = list(range(1, 60))
    seen = []
    for inputs, targets, first in windows(ids, 0, 16):
        assert len(inputs) <= 16 and (first == 0 or first >= 8)
        seen += targets[first:]
    assert seen == ids
    assert windows([], 0, 16) == []


def test_ngram_is_a_distribution_and_learns():
    """Probabilities sum to one; known text costs less than unknown text."""
    model = CharacterNgram(4).train(TEXTS)
    for history in ("", "\0", "the ", "zzz"):
        assert sum(model.probability(history, c) for c in model.alphabet) == pytest.approx(1)
    assert model.nats(TEXTS[0]) / len(TEXTS[0]) < model.nats("tac eht nopu") / 12
    assert model.nats("") == 0 and model.nats("the") == pytest.approx(model.nats("th") - math.log(model.probability("\0th", "e")))


def test_sample_statistics():
    """Known words and copied word n-grams."""
    training = ["one two three four five six"]
    found = sample_statistics(["one two three nine x", "three four five six x"], training, length=3)
    assert found["known_words"] == pytest.approx(7 / 8)
    assert found["copied_3_grams"] == pytest.approx(3 / 4)
