"""Attention on spikes: each form against its formula and the contract's numerics."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from spikeloom.arch import numerics
from spikeloom.arch.config import ModelConfig
from spikeloom.model.golden import GoldenOptions
from spikeloom.model.golden.attention import SpikeAttention, sparsemax, ssa, ssa_linear
from spikeloom.model.golden.neurons import run_neurons

T, B, N, H, D = 2, 2, 12, 2, 8
CONFIG = ModelConfig(name="t", vocabulary=4, context=N, width=H * D, layers=1, heads=H, hidden=8, neuron="lif_hard", steps=T, leak=1,
                     top_k=3, recency=(0, 2), level_v=1)


def spikes_of(seed, ternary=False):
    random = torch.Generator().manual_seed(seed)
    s = (torch.rand(T, B, N, 3 * H * D, generator=random) < 0.4).float()
    return s * torch.where(torch.rand(s.shape, generator=random) < 0.5, -1.0, 1.0) if ternary else s


def parts(spikes, t, b):
    """q, k, v int [N, H, d] of one step and text."""
    return [x.numpy().astype(np.int64).reshape(N, H, D) for x in spikes[t, b].chunk(3, -1)]


@pytest.mark.parametrize("attention", ["wta", "sfsa", "ssa"])
@pytest.mark.parametrize("ternary", [False, True])
@pytest.mark.parametrize("both_ways", [False, True])
def test_gathers_what_numerics_gathers(attention, ternary, both_ways, seed):
    """Bit for bit, every query, head and step."""
    config = replace(CONFIG, attention=attention, bidirectional=both_ways, neuron="t_lif" if ternary else "lif_hard")
    module = SpikeAttention(config, GoldenOptions(scale=1.0))
    if attention == "sfsa":
        module.theta.data.copy_(torch.tensor([1.2, 2.8]))
    spikes = spikes_of(seed, ternary)
    got = module(spikes, torch.ones(()))
    for t in range(T):
        for b in range(B):
            q, k, v = parts(spikes, t, b)
            for i in range(N):
                raw = numerics.raw_scores(q[i], k)  # [H, N]
                eligible = np.arange(N) <= (N - 1 if both_ways else i)
                if attention == "sfsa":
                    want = numerics.sfsa_gather(v, raw, eligible, [1, 3])
                elif attention == "ssa":
                    want = numerics.ssa_gather(v, raw, eligible)
                else:
                    distance = np.abs(i - np.arange(N))
                    biased = numerics.biased_scores(raw, distance, config.recency)
                    chosen = numerics.winners(biased, np.broadcast_to(eligible, raw.shape), config.top_k)
                    total = sum(2.0 ** (2 - s) for s in config.rank_shifts)
                    want = numerics.gather(v, chosen, config.rank_shifts) / total
                assert np.allclose(got[t, b, i].detach().numpy(), want.reshape(-1), atol=1e-5), (t, b, i)


@pytest.mark.parametrize("attention", ["wta", "sfsa"])
def test_gradients_reach_queries_keys_and_parameters(attention, seed):
    module = SpikeAttention(replace(CONFIG, attention=attention), GoldenOptions())
    spikes = spikes_of(seed).requires_grad_()
    module(spikes, torch.tensor(0.5), {}, "scores").square().sum().backward()
    assert all(part.abs().sum() > 0 for part in spikes.grad.chunk(3, -1))
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize("name", ["config", "softmax", "sparsemax"])
def test_kept_scores_are_maps(name, seed):
    """`keep` holds [T, B, H, N, N], nothing above the diagonal; references are distributions."""
    kept = {}
    SpikeAttention(replace(CONFIG, attention="ssa"), GoldenOptions(scores=name))(spikes_of(seed), torch.ones(()), kept, "scores")
    assert kept["scores"].shape == (T, B, H, N, N) and kept["scores"].triu(1).abs().max() == 0
    if name != "config":
        assert torch.allclose(kept["scores"].sum(-1), torch.ones(T, B, H, N), atol=1e-5)


def test_sparsemax_by_its_definition(seed):
    """The projection on the simplex: sum 1, and z - p is constant on the support, not above it elsewhere."""
    z = torch.randn(50, 9, generator=torch.Generator().manual_seed(seed)) * 2
    p = sparsemax(z)
    assert torch.allclose(p.sum(-1), torch.ones(50), atol=1e-5)
    t = (z - p).masked_fill(p <= 0, -torch.inf).amax(-1, keepdim=True)
    assert torch.allclose(torch.where(p > 0, z - p, t), t.expand_as(z), atol=1e-5) and (z <= t + p + 1e-5).all()
    assert torch.equal(sparsemax(torch.tensor([[3.0, 0.0, 0.0]])), torch.tensor([[1.0, 0.0, 0.0]]))


def test_linear_ssa_needs_no_cache(seed):
    """Running counters k v^T compute the same as masked scores."""
    q, k, v = (x.flatten(0, 1).unflatten(-1, (H, D)).transpose(1, 2) for x in spikes_of(seed).chunk(3, -1))
    mask = torch.ones(N, N, dtype=torch.bool).tril()
    assert torch.allclose(ssa_linear(q, k, v, 0.125), ssa(q @ k.transpose(-1, -2), v, mask, 0.125), atol=1e-5)


def test_ssa_is_spikingjellys(seed):
    """A whole attention layer of the Spikformer family by its own authors' library, with our neurons and our SSA in it: the same spikes.

    Weights and currents are multiples of 1/16, so that nothing is rounded; the neuron that reads attention has the threshold 1/2.
    """
    attention = pytest.importorskip("spikingjelly.activation_based.layer.attention", reason="spikingjelly: not installed",
                                    exc_type=ImportError)
    torch.manual_seed(seed)
    theirs = attention.SpikingSelfAttention(H * D, H).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.Conv1d):
            module.weight.data = torch.randint(-12, 21, module.weight.shape) / 16
        if isinstance(module, torch.nn.BatchNorm1d):
            module.eps = 0.0
    x = (torch.rand(T, B, H * D, N) < 0.5).float()
    with torch.no_grad():
        want = theirs(x).transpose(-1, -2)  # [T, B, N, C]
        ones, zero = torch.ones(()), torch.zeros(())

        def lif(current, threshold=1.0):  # tau = 2: H = V + (X - V) / 2
            return run_neurons("lif_hard", current / 2 / threshold, 0.5, ones, zero, GoldenOptions())

        qkv = lif(theirs.qkv_conv_bn(x).transpose(-1, -2))  # [T, B, N, 3 C]
        ours = SpikeAttention(replace(CONFIG, attention="ssa", bidirectional=True), GoldenOptions(scale=0.125))(qkv, ones)
        got = lif(theirs.proj_conv_bn(lif(ours, 0.5).transpose(-1, -2)).transpose(-1, -2))
    assert torch.equal(got, want) and 0.1 < want.mean() < 0.9


def test_fast_kernel_is_used_and_equal(seed):
    """Binary causal winners go through the C kernel; with `keep` they do not: same values."""
    module = SpikeAttention(replace(CONFIG, attention="wta"), GoldenOptions())
    if not module.fast:
        pytest.skip("no C compiler")
    spikes = spikes_of(seed)
    for hardness in (0.0, 0.4, 1.0):
        fast, slow = module(spikes, torch.tensor(hardness)), module(spikes, torch.tensor(hardness), {}, "x")
        assert torch.allclose(fast, slow, atol=1e-5)
