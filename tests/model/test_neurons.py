"""NI-LIF in PyTorch: levels, thresholds, gradient window, and the step-by-step neurons of other frameworks."""

import copy

import numpy as np
import pytest
import torch

from spikeloom.arch import numerics
from spikeloom.model import fast_levels
from spikeloom.model.export import thresholds
from spikeloom.model.float_model import events
from spikeloom.model.neurons import Neurons, RoundLevels, unit_of


def levels_of(u: torch.Tensor, level: int, low: int = 0) -> torch.Tensor:
    size = torch.full((u.shape[-1],), float(level))
    return RoundLevels.apply(u, torch.full_like(size, low), size, torch.ones_like(size))


@pytest.mark.parametrize("low", [0, -1, -7])
@pytest.mark.parametrize("level", range(1, 9))
def test_levels_are_thresholds_half_a_step_apart(level, low, seed):
    """floor(clamp(u, L, D) + 1/2) counts the d with u >= d - 1/2 from L on, borders included."""
    u = torch.randn(64, 16, generator=torch.Generator().manual_seed(seed)) * level
    u[0] = torch.arange(16) / 2 - 1
    counted = low + sum((u >= d - 0.5).float() for d in range(low + 1, level + 1))
    assert torch.equal(levels_of(u, level, low), counted)


@pytest.mark.parametrize("level, low", [(1, 0), (4, 0), (4, -3)])
def test_gradient_is_a_window(level, low):
    """One unit inside (L - 1/2, D + 1/2), nothing outside."""
    u = torch.tensor([[low - 3.0, low - 0.51, low - 0.49, 0.0, level / 2, level + 0.49, level + 0.51, level + 3.0]], requires_grad=True)
    unit = torch.full((8,), unit_of(level))
    RoundLevels.apply(u, torch.full((8,), float(low)), torch.full((8,), float(level)), unit).sum().backward()
    assert u.grad[0].tolist() == [0, 0, *[unit_of(level)] * 4, 0, 0]


def test_the_price_of_a_spike_reaches_silent_neurons_of_one_sign():
    """Share of neurons that speak: its gradient is that of the first level; silent ones of both signs have no side to go to."""
    group = Neurons((5, 5), (8, 8), lows=(0, -7))
    levels = torch.tensor([0.0, 1, 2, 8, 0, 0, 1, -1, -7, 3])
    spikes = (levels * group.unit).requires_grad_()
    share = events(spikes[None, None], group)
    share.backward()
    assert share.item() == (levels != 0).sum().item()
    assert (spikes.grad * group.unit).tolist() == [1, 1, 0, 0, 1, 0, 1, -1, 0, 0]


def test_unit_is_a_power_of_two():
    """So that residual writers stay shifts for every D."""
    assert [unit_of(d) for d in range(1, 9)] == [1, 0.5, 0.25, 0.25, 0.125, 0.125, 0.125, 0.125]


@pytest.mark.parametrize("low", [0, -3])
def test_norm_folds_into_integer_thresholds(low, seed):
    """The float neuron on running statistics and `numerics.ni_lif` agree for every accumulator value."""
    torch.manual_seed(seed)
    group = Neurons((5, 7), (1, 4), lows=(0, low)).eval()
    group.mean.normal_(0, 2)
    group.var.uniform_(0.1, 9)
    group.log_gain.data.add_(torch.randn(12) * 0.3)
    group.shift.data.normal_()
    unit = torch.rand(12) * 0.2 + 0.01
    base, step = thresholds(group, unit)
    acc = torch.arange(-400, 400)[:, None].expand(-1, 12)
    expected = (group(acc * unit) / group.unit).long().numpy()
    levels, lows = [1] * 5 + [4] * 7, [0] * 5 + [low] * 7
    got = np.stack([numerics.ni_lif(acc[:, c], base[c], step[c], levels[c], lows[c]) for c in range(12)], 1)
    assert got.min() == low
    # `step` is rounded to 2^-8 of an accumulator unit, so a threshold in 256 may fall on the other side of an integer.
    assert (expected != got).mean() < 0.001 and abs(expected - got).max() <= 1
    assert np.array_equal(expected[:, :5], got[:, :5])
    assert (step[:5] == 0).all() and (step[5:] > 0).all()


def test_training_statistics_become_running_ones(seed):
    """A frozen group computes the same in training as in evaluation."""
    torch.manual_seed(seed)
    group, x = Neurons((6,), (4,), momentum=1.0), torch.randn(256, 6) * 3 + 1
    first = group.train()(x)
    group.frozen = True
    assert torch.allclose(group.mean, x.mean(0), atol=1e-5)
    assert torch.equal(group(x), group.eval()(x))
    assert (first == group(x)).float().mean() > 0.99


@pytest.mark.parametrize("level", [1, 3, 4])
def test_equals_an_integrate_and_fire_neuron_unrolled(level, seed):
    """D steps of an IF neuron with soft reset and threshold 1, started at u + 1/2, fire S times (SpikingJelly)."""
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="spikingjelly: not installed",
                                 exc_type=ImportError)
    node = neuron.IFNode(v_threshold=1.0, v_reset=None)
    u = torch.randn(500, generator=torch.Generator().manual_seed(seed)) * level
    current = [u + 0.5, *[torch.zeros_like(u)] * (level - 1)]
    spikes = sum(node(x) for x in current)
    assert torch.equal(spikes, levels_of(u[None], level)[0])


@pytest.mark.parametrize("level", [1, 3, 4])
def test_equals_integer_lif(level, seed):
    """One step of I-LIF from rest (SpikingJelly from version 2 on, arXiv 2407.20708)."""
    sj = pytest.importorskip("spikingjelly.activation_based", reason="spikingjelly: not installed", exc_type=ImportError)
    from spikingjelly.activation_based import neuron, surrogate

    if not hasattr(neuron, "ILIFNode"):
        pytest.skip(f"spikingjelly: {sj.__name__} has no ILIFNode")
    u = torch.randn(500, generator=torch.Generator().manual_seed(seed)) * level
    node = neuron.ILIFNode(surrogate_function=surrogate.MultiLevelSpikeCount(level))
    assert torch.equal(node(u), levels_of(u[None], level)[0])


@pytest.mark.parametrize("level", [1, 3, 4])
def test_equals_a_leakless_leaky_neuron_unrolled(level, seed):
    """The same against snnTorch, whose Leaky with beta 1 subtracts the threshold one step later."""
    snntorch = pytest.importorskip("snntorch", reason="snntorch: not installed", exc_type=ImportError)
    leaky = snntorch.Leaky(beta=1.0, threshold=1.0, reset_mechanism="subtract")
    u = torch.randn(500, generator=torch.Generator().manual_seed(seed)) * level
    membrane, spikes = torch.zeros_like(u), 0
    for x in [u + 0.5, *[torch.zeros_like(u)] * (level - 1)]:
        spike, membrane = leaky(x, membrane)
        spikes = spikes + spike
    assert torch.equal(spikes, levels_of(u[None], level)[0])


@pytest.mark.parametrize("form", ["moving", "frozen"])
def test_kernel_equals_tensors(form, seed, monkeypatch):
    """Values, statistics and every gradient of the C loops are those of the tensor form."""
    if fast_levels.library() is None:
        pytest.skip("C compiler: not installed")
    torch.manual_seed(seed)
    x = torch.randn(3, 50, 22) * 2 + 0.5
    upstream = torch.randn_like(x)
    start = Neurons((15, 4, 3), (1, 4, 4), centre=0.3, lows=(0, 0, -3))
    start.mean.normal_()
    start.log_gain.data.normal_()
    got = {}
    for fast in (False, True):
        if not fast:
            monkeypatch.setattr(fast_levels, "usable", lambda _: False)
        else:
            monkeypatch.undo()
        group, own = copy.deepcopy(start).train(), x.clone().requires_grad_()
        group.frozen = form == "frozen"
        y = group(own)
        y.backward(upstream)
        got[fast] = (y.detach(), group.mean, group.var, own.grad, group.log_gain.grad, group.shift.grad)
    # A rounding of the sums may put a value on the other side of a level.
    assert (got[True][0] != got[False][0]).float().mean() < 1e-3
    for fast, tensors in zip(got[True][1:], got[False][1:]):
        assert torch.allclose(fast, tensors, atol=1e-3, rtol=1e-3)
