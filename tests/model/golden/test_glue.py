"""GLUE sets: files are read as they are published, texts are cut fairly, scores are right, and one command trains and measures."""

import gzip

import numpy as np
import pytest

from spikeloom.model import corpus, store
from spikeloom.model.golden import glue, glue_report
from spikeloom.model.tokenizer import Tokenizer

pytest.importorskip("tokenizers", reason="tokenizers: not installed")

#: Kind and unkind by turns, of as many tokens each, so that a batch (texts of one length) holds both classes; and plainly so, since
#: the order of a processor's sums decides how few steps suffice for a single word.
LINES = ("good good good my love is good", "mad mad mad my love is mad",
         "the king and his well well well heart", "the king and his mad mad mad heart")


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """A data folder with a small SST-2 of our own making: even lines are kind."""
    folder = tmp_path / "data" / "glue" / "SST-2"
    folder.mkdir(parents=True)
    lines = [f"{LINES[i % 4]}\t{(i + 1) % 2}" for i in range(480)]
    with gzip.open(folder / "train.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(["sentence\tlabel", *lines]) + "\n")
    (folder / "test.tsv").write_text("\n".join(["sentence\tlabel", *lines[:20]]) + "\n")
    monkeypatch.setattr(corpus, "data_folder", lambda: tmp_path / "data")
    return folder


def test_files_are_read_as_published(sets, tmp_path):
    source = glue.SOURCES["SST-2"]
    assert glue.read(sets / "train.tsv.gz", source)[:2] == [((LINES[0],), 1), ((LINES[1],), 0)]
    pair = tmp_path / "mrpc.txt"
    pair.write_text('\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\tHe said "no.\tNo, he said.\n', encoding="utf-8")
    assert glue.read(pair, glue.SOURCES["MRPC"]) == [(('He said "no.', "No, he said."), 1)]


@pytest.mark.parametrize("task, examples", [("SST-2", 872), ("CoLA", 527), ("MRPC", 1725), ("RTE", 277)])
def test_official_sets_have_their_sizes(task, examples, data):
    if not (data / "glue").is_dir():
        pytest.skip("data: no glue sets")
    source = glue.SOURCES[task]
    read = glue.read(data / "glue" / source.development, source)
    assert len(read) == examples and {label for _, label in read} == {0, 1}


def test_long_pairs_share_the_room():
    tokenizer = Tokenizer.load(store.find("we-spikingformer") / "tokenizer.json")
    cut = glue.Cut()
    (ids, label), = glue.encode([(("To be, or not to be, that is the question " * 5, "Caf\u00e9 \u20ac"), 1)], tokenizer, 0, 40, cut)
    assert len(ids) == 40 and ids.count(0) == 2 and label == 1 and (cut.texts, cut.shortened, cut.dropped) == (1, 1, 1)
    assert tokenizer.decode(ids[ids.index(0, 1):]) == "Cafe "


def test_scores_by_hand():
    """3 hits, 1 missed, 2 false, 4 clear."""
    named = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0])
    right = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    assert glue.scores(named, right) == {"accuracy": 0.7, "matthews": round(10 / (5 * 4 * 6 * 5) ** 0.5, 4), "f1": round(6 / 9, 4)}
    assert glue.scores(np.ones(4, int), np.ones(4, int))["matthews"] == 0


def test_one_command_trains_and_measures(sets, tmp_path, monkeypatch):
    """From the released encoder and its twin. A few steps at twice the rate tell the two kinds of line apart."""
    config = glue_report.config_of("SST-2")
    config["training"] |= {"warmup_steps": 2, "learning_rate": 0.004}
    monkeypatch.setattr(glue_report, "config_of", lambda task: config)
    found = glue_report.measure("SST-2", tmp_path / "runs", glue_report.INIT, None, 40)
    assert found["examples"] == 20 and found["majority"]["accuracy"] == 0.5 and found["training_examples"] == 80
    assert all(found[form]["accuracy"] > 0.9 for form in ("integer", "golden", "softmax_twin")), found
    assert found["steps"] == 40 and found["saturations"] == 0 and found["texts_cut"] == 0


def test_a_missing_folder_is_named(monkeypatch):
    monkeypatch.setattr(corpus, "data_folder", lambda: None)
    with pytest.raises(FileNotFoundError, match="SPIKELOOM_DATA"):
        glue.folder()
