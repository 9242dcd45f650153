"""Suites of evaluation on a tiny model: scores by hand, spelling, pairs that differ in one thing, exact codes, counts."""

import gzip
import json
import math
from collections import Counter

import numpy as np
import pytest
import torch

from spikeloom.model import judges, minimal_pairs, reference, spiking_metrics, store, wikitext, zero_shot
from spikeloom.model.export import to_stored
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.tokenizer import Tokenizer
from spikeloom.model.train import build_model

from .test_export import settled_model
from .test_train import CONFIG

TEXT = ("Once there was a dog named Max. He was very happy to see the big red ball and he ran to it with his friend. "
        "The ball is in the garden of the old house. They were glad that it has not gone away from them again. " * 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder with integers, float form and twin; its tokenizer knows letters and little else."""
    pytest.importorskip("tokenizers", reason="tokenizers: not installed")
    out = tmp_path_factory.mktemp("model") / "tiny"
    tokenizer = Tokenizer.train([TEXT, "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.,:?'\n\""], 70)
    from dataclasses import replace

    from .test_export import TINY
    config = replace(TINY, vocabulary=70)
    model = settled_model(config, 3)
    stored = to_stored(model, tokenizer.backend.to_str())
    store.save(out, stored)
    run = tmp_path_factory.mktemp("run")
    settings = {**CONFIG, "model": config.to_dict()}
    for kind, name, built in (("spiking", "float", model), ("softmax", "twin", build_model(settings, "softmax"))):
        torch.save({"config": settings, "model": built.state_dict(), "tokens": 1, "kind": kind}, run / "checkpoint.pt")
        reference.save(run, out / "reference" / f"{name}.safetensors")
    return out


def test_continuations_by_hand(folder):
    """Log-likelihoods in batches are those of one text after another, longer than the context too; three judges, one face."""
    found = list(judges.judges(folder))
    assert [judge.name for judge in found] == ["integer", "float", "softmax twin"]
    judge, stored = found[0], store.load(folder)
    pairs = [("Once there", " was a dog"), ("", "He was"), (TEXT, " gone away"), ("Max", "")]
    model = IntegerModel(stored.config, stored.tensors)
    for (before, after), (got, _) in zip(pairs, judge.continuations(pairs, batch=3)):
        last = judge.encode(after)
        ids = [0, *judge.encode(before), *last][-(judge.context + 1):]
        model.clear()
        expected = 0.0
        for position, token in enumerate(ids[:-1]):
            logits = model.step(token, position)["logits"] / stored.logit_scale
            if position >= len(ids) - 1 - len(last):
                expected += torch.log_softmax(torch.tensor(logits).double(), -1)[ids[position + 1]].item()
        assert got == pytest.approx(expected, abs=1e-6)


def test_foreign_characters_are_spelled():
    alphabet = frozenset("abcdefghijklmnopqrstuvwxyz \"'-.,")
    assert judges.spell("café “on” – 北", alphabet) == ('cafe "on" - ', 5)


def test_minimal_pairs_differ_in_one_thing(folder):
    """Every pair's wrong half is what its kind says; the same seed gives the same pairs; a judge's score is a share."""
    pairs = minimal_pairs.make([TEXT, TEXT.replace("dog", "cat").replace("ball", "box")], 5, seed=2)
    assert pairs == minimal_pairs.make([TEXT, TEXT.replace("dog", "cat").replace("ball", "box")], 5, seed=2)
    assert {pair.kind for pair in pairs} >= {"agreement", "order", "repeated", "missing", "shuffled", "elsewhere"}
    for pair in pairs:
        right, wrong = pair.right.split(), pair.wrong.split()
        assert pair.right != pair.wrong
        if pair.kind in ("order", "shuffled"):
            assert sorted(right) == sorted(wrong)
        if pair.kind in ("agreement", "pronoun"):
            assert len(right) == len(wrong) and sum(a != b for a, b in zip(right, wrong)) == 1
        if pair.kind == "repeated":
            assert len(wrong) == len(right) + 1
        if pair.kind == "missing":
            assert sum((Counter(right) - Counter(wrong)).values()) == 1 and len(wrong) == len(right) - 1
    figures = minimal_pairs.measure(folder, [TEXT, TEXT.replace("dog", "cat")], each=3)
    assert set(figures["models"]) == {"integer", "softmax twin"}
    assert all(0 <= share <= 1 for model in figures["models"].values() for share in model["right"].values())


def test_foreign_characters_are_paid_for(folder, tmp_path, monkeypatch):
    """Two of five characters foreign: log2(6) + log2(10) bits for their places and 8 bits a byte; model bits come on top."""
    places, bytes_of, count = wikitext.side_bits(["a<b€c"], frozenset("abc"))
    assert places == pytest.approx(math.log2(6) + math.log2(10)) and bytes_of == 8 + 24 and count == 2
    assert wikitext.articles("\n = One = \n text\n = = Part = = \n more\n = Two = \n end\n", 100)[1].startswith(" = Two = ")
    (tmp_path / "wikitext-2").mkdir()
    (tmp_path / "wikitext-2" / "test.txt").write_text(" = A dog = \n There was a dog @-@ he ran .\n" * 2)
    monkeypatch.setenv("SPIKELOOM_DATA", str(tmp_path))
    figures = wikitext.measure(folder, 60)
    for model in figures["models"].values():
        assert model["bits_per_byte"] == pytest.approx(sum(model["of_it"].values()), abs=2e-3)
    assert 0 < figures["characters_not_in_tokenizer"] < 0.5


def test_spiking_metrics_count(folder):
    """Effective additions are counted spike by spike and never exceed the dense ones; footprint is what the tensors take."""
    figures, stored = spiking_metrics.measure(folder, [TEXT], tokens=20), store.load(folder)
    operations = figures["synaptic_operations_per_token"]
    assert figures["tokens"] == 20 and figures["footprint_bytes"] == sum(array.nbytes for array in stored.tensors.values())
    assert 0 < operations["Effective_ACs"] <= operations["Dense"] and operations["Effective_MACs"] == 0
    assert operations["level_additions"] >= operations["Effective_ACs"]
    model, total = IntegerModel(stored.config, stored.tensors), 0
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    for position, token in enumerate([0, *tokenizer.encode(TEXT)][:20]):
        trace = model.step(token, position)
        for layer in range(stored.config.layers):
            for linear, feed in spiking_metrics.FEEDS.items():
                total += np.count_nonzero((np.asarray(trace[f"layer{layer}.{feed}"]) != 0)[:, None]
                                          * (stored.tensors[f"layer{layer}.{linear}.weight"] != 0))
        total += np.count_nonzero((np.asarray(trace["final"]) != 0)[:, None] * (stored.tensors["head.weight"] != 0))
    assert operations["Effective_ACs"] == round(total / 20)


def data_of_suites(folder):
    """A data folder whose questions any task can be read from."""
    (folder / "commonsense").mkdir(parents=True)
    (folder / "hellaswag").mkdir()
    (folder / "headqa").mkdir()
    plain = [{"query": "Question: who ran?", "choices": ["the dog", "the house", "the red ball"], "gold": n % 3} for n in range(6)]
    for name in ("arc_easy", "arc_challenge", "piqa", "openbook_qa", "boolq"):
        with gzip.open(folder / "commonsense" / f"{name}.jsonl.gz", "wt") as file:
            file.write("".join(json.dumps(row) + "\n" for row in plain))
    with gzip.open(folder / "commonsense" / "winogrande.jsonl.gz", "wt") as file:
        file.write(json.dumps({"context_options": ["Max ran as Max", "Max ran as he"], "continuation": "was glad.", "gold": 1}) + "\n")
    with gzip.open(folder / "hellaswag" / "hellaswag_val.jsonl.gz", "wt") as file:
        file.write(json.dumps({"activity_label": "Play", "ctx_a": "He ran", "ctx_b": "then he", "endings": ["sat [title] x", "ran."],
                               "label": "1"}) + "\n")
    with gzip.open(folder / "headqa" / "test_HEAD_EN.json.gz", "wt") as file:
        json.dump({"exams": {"a": {"data": [{"qtext": "Who?", "ra": "2", "image": "", "answers": [{"aid": 1, "atext": "dog"},
                                                                                                 {"aid": 2, "atext": "cat"}]}]}}}, file)


def test_local_files_become_questions(tmp_path):
    """Each of the eight tasks reads its own format; HellaSwag's marks are gone, HEAD-QA's answers are counted from 0."""
    data_of_suites(tmp_path)
    rows = {name: read(tmp_path) for name, read in zero_shot.TASKS.items()}
    assert len(rows) == 8 and rows["arc_easy"][0]["query"] == "Question: who ran?\nAnswer:" and rows["openbookqa"][0]["query"][-1] == "?"
    assert rows["hellaswag"][0] == {"query": "Play: He ran Then he", "choices": ["sat. x", "ran."], "gold": 1}
    assert rows["headqa"][0]["gold"] == 1 and rows["winogrande"][0]["contexts"][1] == "Max ran as he"


def test_lm_eval_scores_them(folder, tmp_path, monkeypatch):
    """Through lm-eval, offline: its accuracy is that of the likeliest choice, beside chance and the twin."""
    pytest.importorskip("lm_eval", reason="lm_eval: not installed")
    data_of_suites(tmp_path)
    monkeypatch.setenv("SPIKELOOM_DATA", str(tmp_path))
    figures = zero_shot.measure(folder, 5)
    assert set(figures["models"]) == {"integer", "softmax twin"}
    judge = next(judges.judges(folder))
    rows = zero_shot.TASKS["arc_easy"](tmp_path)[:5]
    right = 0
    for row in rows:
        scores = [score for score, _ in judge.continuations([(row["query"], " " + choice) for choice in row["choices"]])]
        right += int(np.argmax(scores)) == row["gold"]
    got = figures["models"]["integer"]["tasks"]["arc_easy"]
    assert got["accuracy"] == pytest.approx(right / 5) and got["chance"] == pytest.approx(1 / 3, abs=1e-4) and got["questions"] == 5
    with pytest.raises(NotImplementedError, match="spikeloom generate"):
        zero_shot.adapter(judge).generate_until([])


def test_a_data_folder_without_the_text_is_said_in_words(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKELOOM_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="WikiText-2 is not here: set SPIKELOOM_DATA"):
        wikitext.measure(tmp_path, 100)
