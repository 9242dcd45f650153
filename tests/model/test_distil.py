"""Distillation: the loss by hand, a training run with a teacher, and teachers that do not fit."""

import json

import pytest
import torch

from spikeloom.model import distil, reference, store
from spikeloom.model.distil import Teacher, distillation_loss, student, teacher_model
from spikeloom.model.float_model import FloatModel
from spikeloom.model.golden.train import train as golden_train
from spikeloom.model.tokenizer import Tokenizer
from spikeloom.model.train import train

from .golden.test_train import config_of
from .test_train import CONFIG, SPLIT


def test_loss_is_cross_entropy_with_a_mixed_target(seed):
    """At temperature 1 it is the cross-entropy against the mixture, less the teacher's share of its own entropy."""
    torch.manual_seed(seed)
    logits, guide, targets = torch.randn(2, 3, 5), torch.randn(2, 3, 5), torch.randint(5, (2, 3))
    p, log_q = guide.softmax(-1), logits.log_softmax(-1)
    mixed = 0.7 * torch.nn.functional.one_hot(targets, 5) + 0.3 * p
    by_hand = (-(mixed * log_q).sum(-1) + 0.3 * (p * p.log()).sum(-1)).mean()
    assert distillation_loss(logits, targets, guide, weight=0.3) == pytest.approx(by_hand.item(), rel=1e-5)


def test_a_run_learns_from_a_teacher(tmp_path):
    """A student with a teacher trains; another tokenizer or an unfinished teacher is refused in words."""
    pytest.importorskip("tokenizers", reason="tokenizers: not installed")
    train(CONFIG, run=tmp_path / "twin", kind="softmax", steps=20, split=SPLIT, compiled=False, quiet=True)
    tokenizer = (tmp_path / "twin" / "tokenizer.json").read_text()
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "tokenizer.json").write_text(tokenizer)
    model = train(CONFIG, run=tmp_path / "student", steps=5, teacher=tmp_path / "twin", split=SPLIT, compiled=False, quiet=True)
    assert not model.training
    with pytest.raises(ValueError, match="train the teacher first"):
        Teacher(tmp_path, Tokenizer.load(tmp_path / "twin" / "tokenizer.json"))
    other = Tokenizer.train(["abcdefgh ijklmnop qrst uvwx yz. " * 4], 30)
    with pytest.raises(ValueError, match="another tokenizer"):
        Teacher(tmp_path / "twin", other)


def test_one_command_trains_twin_and_student(tmp_path):
    """The twin is trained beside the student, which takes its tokenizer and learns from it; a second call resumes, and trains no more."""
    pytest.importorskip("tokenizers", reason="tokenizers: not installed")
    options = {"run": tmp_path / "student", "steps": 6, "split": SPLIT, "compiled": False, "quiet": True}
    model = student(CONFIG, **options)
    teacher = tmp_path / "student" / "teacher"
    assert reference.state_of(teacher)["kind"] == "softmax" and reference.state_of(tmp_path / "student")["kind"] == "spiking"
    assert (teacher / "tokenizer.json").read_bytes() == (tmp_path / "student" / "tokenizer.json").read_bytes()
    alone = train(CONFIG, run=tmp_path / "alone", steps=6, split=SPLIT, compiled=False, quiet=True)
    assert not torch.equal(model.head, alone.head)
    again = student(CONFIG, **options)
    assert torch.equal(model.head, again.head)


def test_the_command(tmp_path, monkeypatch):
    """From a config and a text of one's own to a student, without waiting for a compiler."""
    pytest.importorskip("tokenizers", reason="tokenizers: not installed")
    monkeypatch.setattr(FloatModel, "compile_blocks", None)
    (tmp_path / "tiny.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (tmp_path / "rhymes.txt").write_text("the dog sat on the mat. the cat sat on the dog.\n" * 500, encoding="utf-8")
    distil.main(["--config", str(tmp_path / "tiny.json"), "--run", str(tmp_path / "student"), "--steps", "3", "--data",
                 str(tmp_path / "rhymes.txt"), "--no-compile"])
    assert all(reference.state_of(tmp_path / part)["tokens"] > 0 for part in ("student", "student/teacher"))
    (tmp_path / "pairs.json").write_text(json.dumps(config_of("pairs")), encoding="utf-8")
    with pytest.raises(ValueError, match="--data is for configs that model language"):
        distil.main(["--config", str(tmp_path / "pairs.json"), "--run", str(tmp_path / "none"), "--data", str(tmp_path / "rhymes.txt")])
    assert not (tmp_path / "none").exists()


def test_one_command_of_spad(tmp_path):
    """A config of a golden model is taught by SpAD: the gradients of its five losses are logged."""
    pytest.importorskip("tokenizers", reason="tokenizers: not installed")
    student(config_of("causal"), run=tmp_path / "student", steps=3, split=SPLIT, quiet=True)
    assert (tmp_path / "student" / "gradients.csv").read_text().startswith("step,ea,saa,sfa,sta,hta")
    with pytest.raises(ValueError, match="not a softmax twin"):
        golden_train(config_of("causal"), run=tmp_path / "next", teacher=tmp_path / "student", steps=1, split=SPLIT, quiet=True)
    teacher = tmp_path / "student" / "teacher"
    tokenizer = json.loads((teacher / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["c"] = vocabulary["c"], vocabulary["a"]  # as many tokens
    (teacher / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="another tokenizer"):
        golden_train(config_of("causal"), run=tmp_path / "last", teacher=teacher, steps=1, split=SPLIT, quiet=True)


def test_the_twin_of_a_released_model_teaches():
    """It is found by the model's name, is frozen, and accepts the model's tokenizer; other names are refused."""
    if "stories-260k" not in store.available():
        pytest.skip("model: stories-260k is not in this checkout")
    twin = teacher_model("stories-260k")
    assert twin(torch.zeros(1, 3, dtype=torch.int64)).shape == (1, 3, 512)
    assert not twin.training and not any(p.requires_grad for p in twin.parameters())
    Teacher("stories-260k", Tokenizer.load(store.find("stories-260k") / "tokenizer.json"))
    with pytest.raises(ValueError, match="There is no model 'nobody'"):
        teacher_model("nobody")
