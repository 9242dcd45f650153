"""Distillation: the loss by hand, a training run with a teacher, and teachers that do not fit."""

import pytest
import torch

from spikeloom.model.distil import Teacher, distillation_loss
from spikeloom.model.tokenizer import Tokenizer
from spikeloom.model.train import train

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
