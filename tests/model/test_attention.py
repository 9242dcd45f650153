"""Winner-take-all attention: hard form against the contract's operators, the C kernel against the tensors."""

import numpy as np
import pytest
import torch

from spikeloom.arch import numerics
from spikeloom.arch.config import RECENCY_OFF
from spikeloom.model import fast_attention
from spikeloom.model.attention import AnnealedWinners, distance_penalty, recency_penalty, winner_rounds

SHAPES = [(1, 9, 2, 8, 4, False), (2, 33, 4, 16, 4, False), (2, 17, 4, 16, 3, True), (1, 20, 3, 5, 8, True),
          (1, 40, 2, 40, 1, False)]


def spikes(batch, length, heads, width, rate=0.3):
    """Binary queries and keys, values of levels 0..4: [B, T, 3 H d]."""
    binary = (torch.rand(batch, length, 2 * heads * width) < rate).float()
    return torch.cat((binary, torch.randint(0, 5, (batch, length, heads * width)).float()), -1)


def split(x, heads):
    return [part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in x.chunk(3, -1)]


def join(x):
    return x.transpose(1, 2).flatten(-2)


@pytest.mark.parametrize("batch,length,heads,width,k,overlap", SHAPES)
def test_hard_form_is_the_contract(batch, length, heads, width, k, overlap, seed):
    """Winners and gathered sums equal `numerics`, position by position."""
    torch.manual_seed(seed)
    recency, shifts = (0, 2, 4, RECENCY_OFF)[:heads], tuple(range(k))
    x = spikes(batch, length, heads, width, 0.2)
    q, key, v = split(x, heads)
    y = join(AnnealedWinners.apply(q, key, v, recency_penalty(length, recency), torch.ones(heads), torch.ones(()),
                                   shifts, overlap))
    total = sum(2.0**-s for s in shifts)
    got = y * total * 2 ** max(shifts)  # [B, T, H d]
    for b in range(batch):
        for i in range(length):
            raw = numerics.raw_scores(q[b, :, i].numpy(), key[b, :, : i + 1].transpose(0, 1).numpy())
            biased = numerics.biased_scores(raw, i - np.arange(i + 1), recency)
            eligible = raw > 0 if overlap else np.ones_like(raw, bool)
            chosen = numerics.winners(biased, eligible, k)
            expected = numerics.gather(v[b, :, : i + 1].transpose(0, 1).numpy(), chosen, shifts)
            assert np.allclose(got[b, i].numpy(), expected.reshape(-1), atol=1e-3), (b, i)


def test_winners_by_score(seed):
    """Winners weighted by score are a softmax over the K best: with K of all positions, ordinary attention, and its gradients."""
    torch.manual_seed(seed)
    heads, length, temperature = 2, 12, torch.tensor([0.5, 2.0])
    x = spikes(2, length, heads, 8).requires_grad_()
    penalty, one = recency_penalty(length, (0, 2)), torch.ones(())
    soft, every, three = (join(AnnealedWinners.apply(*split(x, heads), penalty, temperature, hardness, shifts, False, False, True))
                          for hardness, shifts in ((one * 0, (0, 1)), (one, range(length)), (one, range(3))))
    assert torch.allclose(soft, every, atol=1e-5) and not torch.allclose(every, three, atol=1e-3)
    q, k, v = split(x.detach(), heads)
    biased = q @ k.mT - penalty
    won = torch.stack(winner_rounds(biased, 3)).any(0)
    weights = (biased * temperature[:, None, None]).masked_fill(~won, -torch.inf).softmax(-1)
    assert torch.allclose(three, join(weights @ v), atol=1e-5)
    gradients = [torch.autograd.grad(y.square().sum(), x, retain_graph=True)[0] for y in (soft, every)]
    assert torch.allclose(*gradients, atol=1e-3)


def test_soft_form_is_softmax_attention(seed):
    """With hardness 0 values and all gradients are those of ordinary attention on the biased scores."""
    torch.manual_seed(seed)
    heads, recency = 4, (0, 2, 4, RECENCY_OFF)
    x, temperature = spikes(2, 21, heads, 8).requires_grad_(), (torch.rand(heads) + 0.5).requires_grad_()
    penalty = recency_penalty(21, recency)
    q, k, v = split(x, heads)
    y = AnnealedWinners.apply(q, k, v, penalty, temperature, torch.zeros(()), (0, 1), False)
    weights = (((q @ k.mT) - penalty).clamp_min(-1e6) * temperature[:, None, None]).softmax(-1)
    expected = weights @ v
    upstream = torch.randn_like(y)
    got = torch.autograd.grad(y, (x, temperature), upstream, retain_graph=True)
    assert torch.allclose(y, expected, atol=1e-5)
    for a, b in zip(got, torch.autograd.grad(expected, (x, temperature), upstream)):
        assert torch.allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("ranked", [False, True])
@pytest.mark.parametrize("hardness", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("batch,length,heads,width,k,overlap", SHAPES)
def test_kernel_equals_tensors(batch, length, heads, width, k, overlap, hardness, ranked, seed):
    """Values and gradients of the C kernel are those of the tensor form."""
    if not fast_attention.available(width):
        pytest.skip("C compiler: not installed")
    torch.manual_seed(seed)
    recency, shifts = (0, 2, 4, RECENCY_OFF)[:heads], tuple(range(k))
    x, temperature = spikes(batch, length, heads, width).requires_grad_(), (torch.rand(heads) + 0.5).requires_grad_()
    hard = torch.tensor(hardness)
    y = join(AnnealedWinners.apply(*split(x, heads), recency_penalty(length, recency), temperature, hard, shifts, overlap, ranked))
    fast, _ = fast_attention.winners(x, distance_penalty(length, recency), temperature, hard, list(shifts), overlap, ranked)
    upstream = torch.randn_like(y)
    assert torch.allclose(y, fast, atol=1e-4)
    for a, b in zip(torch.autograd.grad(y, (x, temperature), upstream), torch.autograd.grad(fast, (x, temperature), upstream)):
        assert torch.allclose(a, b, atol=1e-3, rtol=1e-3)


def test_soft_rounds_become_the_winners(seed):
    """At a high temperature the form of one softmax per rank is the hard form, shifts and all; its gradient is autograd's."""
    torch.manual_seed(seed)
    heads, shifts, penalty = 2, (0, 0, 1, 3), recency_penalty(19, (0, 1))
    q, k, v = split(spikes(2, 19, heads, 16), heads)
    # A small slope by position parts equal scores as the rule does.
    slope = penalty - torch.arange(19) / 64
    hot = torch.full((heads,), 1e4)
    hard, soft = (AnnealedWinners.apply(q, k, v, slope, hot, torch.tensor(x), shifts, False, True) for x in (1.0, 0.0))
    assert torch.allclose(hard, soft, atol=1e-4)

    temperature = (torch.rand(heads) + 0.5).requires_grad_()
    q.requires_grad_(), k.requires_grad_()
    y = AnnealedWinners.apply(q, k, v, penalty, temperature, torch.zeros(()), shifts, False, True)
    logits = ((q @ k.mT) - penalty).clamp_min(-1e6) * temperature[:, None, None]
    expected, weights = 0.0, [2.0**-s for s in shifts]
    for weight, won in zip(weights, winner_rounds((q @ k.mT - penalty).detach(), len(shifts))):
        expected = expected + weight / sum(weights) * logits.softmax(-1) * (logits > -1e5)
        logits = torch.where(won, -1e9, logits)
    first_rows = 4  # rows with fewer positions than ranks have empty rounds, which a softmax over -1e9 does not know
    upstream = torch.randn_like(y)
    upstream[:, :, :first_rows] = 0
    assert torch.allclose(y[:, :, first_rows:], (expected @ v)[:, :, first_rows:], atol=1e-4)
    inputs = (q, k, temperature)
    for a, b in zip(torch.autograd.grad(y, inputs, upstream), torch.autograd.grad(expected @ v, inputs, upstream)):
        assert torch.allclose(a, b, atol=1e-3, rtol=1e-3)
