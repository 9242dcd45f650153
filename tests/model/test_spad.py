"""SpAD: each loss against its formula, each one on and off, gradients that reach the student only."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spikeloom.model import spad
from spikeloom.model.softmax_twin import SoftmaxTwin

T, B, N, C, V, LAYERS = 4, 2, 6, 8, 11, 2
NAMES = ("ea", "saa", "sfa", "sta", "hta")


class Student(nn.Module):
    """As many intermediates as SpAD wants, from a handful of weights."""

    def __init__(self, width=C):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(V, width), nn.Linear(width, width), nn.Linear(width, V)

    def forward(self, tokens):
        held = self.embed(tokens).expand(T, -1, -1, -1)  # [T, B, N, C]
        kept = {"embed": held}
        for layer in range(LAYERS):
            held = torch.sigmoid(self.mix(held))
            kept[f"layer{layer}.features"] = held
            kept[f"layer{layer}.scores"] = (held @ held.transpose(-1, -2)).tril().unsqueeze(2)
        return self.head(held.mean(0)), kept


@pytest.fixture
def setting(seed):
    torch.manual_seed(seed)
    twin = SoftmaxTwin(V, N, 2 * C, 3, 2, 16)
    tokens = torch.randint(V, (B, N))
    return spad.TwinTeacher(twin), twin, tokens, tokens.roll(-1, 1)


@pytest.mark.parametrize("binary", [False, True])
def test_teacher_is_the_twin(setting, binary):
    """The wrapper's logits are the twin's own, its maps are causal distributions."""
    teacher, twin, tokens, _ = setting
    if binary:
        twin = SoftmaxTwin(V, N, 2 * C, 3, 2, 16, binary=True)
        for block in twin.blocks:
            torch.nn.init.normal_(block.qkv.weight)
        teacher = spad.TwinTeacher(twin)
    logits, kept = teacher(tokens)
    assert torch.allclose(logits, twin(tokens), atol=1e-5)
    assert torch.allclose(kept["layer1.attention"].sum(-1), torch.ones(B, 2, N), atol=1e-5)
    assert kept["layer1.attention"].triu(1).abs().max() == 0


@pytest.mark.parametrize("only", NAMES)
def test_each_loss_alone(setting, only):
    """With one weight set, only that loss is computed, it is finite, and its gradient reaches the student, not the teacher."""
    teacher, twin, tokens, targets = setting
    student = Student()
    weights = spad.Weights(**{name: float(name == only) for name in NAMES})
    losses = spad.SpAD(layers=LAYERS, teacher_layers=3, width=C, teacher_width=2 * C, weights=weights)
    logits, kept = student(tokens)
    found = losses.losses(logits, targets, kept, *teacher(tokens))
    assert list(found) == [only] and torch.isfinite(found[only])
    norms = spad.gradient_norms(losses, found, list(student.parameters()))
    assert norms[only] > 0
    losses.total(found).backward()
    assert all(p.grad is None for p in twin.parameters())


def test_formulas(seed):
    """EA, RateMSE, STA and HTA as written out by hand; a student equal to its teacher loses nothing."""
    torch.manual_seed(seed)
    e_s, e_t = torch.rand(T, B, N, C), torch.rand(B, N, C)
    assert spad.embedding_alignment(e_s, e_t) == pytest.approx(((e_s.sum(0) / T - e_t) ** 2).mean().item(), rel=1e-5)
    assert spad.rates(torch.tensor([0.0, 0.5, 1.0, 3.0]), 4).tolist() == [0.0, 0.0, 1.0, 1.0]
    # 0.6 with beta 0.5: 0.6, 0.9, 1.05 fires (0.05 left), 0.625.
    assert spad.rates(torch.tensor([0.6]), 4).item() == 0.25
    z_s, z_t = torch.randn(B, N, V), torch.randn(B, N, V)
    p, q = F.softmax(z_t / 2, -1), F.softmax(z_s / 2, -1)
    assert spad.soft_targets(z_s, z_t) == pytest.approx((4 * (p * (p / q).log()).sum(-1)).mean().item(), rel=1e-4)
    assert spad.soft_targets(z_t, z_t).item() == pytest.approx(0, abs=1e-5)
    assert spad.pair_layers(2, 4) == [1, 3] and spad.pair_layers(3, 3) == [0, 1, 2]


def test_weights_are_checked():
    with pytest.raises(ValueError, match="negative"):
        spad.Weights(ea=-1)
    with pytest.raises(ValueError, match="off"):
        spad.Weights(0, 0, 0, 0, 0)
