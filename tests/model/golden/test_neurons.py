"""Every neuron over time: against other authors' neurons, the contract's integers and the C kernel."""

import numpy as np
import pytest
import torch

from spikeloom.arch import numerics
from spikeloom.arch.config import LEAK_OFF, ModelConfig
from spikeloom.model.golden import GoldenOptions, fast_neurons
from spikeloom.model.golden.neurons import NeuronLayer, run_neurons
from spikeloom.model.golden.surrogates import slope

STEPS, CHANNELS = 6, 300
KINDS = ("lif_hard", "lif_soft", "t_lif", "lif_subtract", "i_lif")


def config_of(kind, leak=1, steps=STEPS):
    return ModelConfig(name="t", vocabulary=4, context=4, width=8, layers=1, heads=1, hidden=8, neuron=kind,
                       steps=1 if kind == "ni_lif" else steps, leak=leak, level_v=1)


def currents(seed, scale=1.0):
    """Multiples of 1/64, so that every recurrence is exact: [T, C]."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(-64, 128, (STEPS, CHANNELS), generator=random) / 64 * scale


def run(kind, x, beta, level=1, options=GoldenOptions()):
    return run_neurons(kind, x, beta, torch.full(x.shape[-1:], float(level)), torch.zeros(()), options)


def steps_of(node, x):
    return torch.stack([node(x_t) for x_t in x])


def spikingjelly():
    return pytest.importorskip("spikingjelly.activation_based.neuron", reason="spikingjelly: not installed", exc_type=ImportError)


def test_lif_hard_is_spikformers(seed):
    """H = V + (X - V) / 2, hard reset (SpikingJelly LIFNode, tau 2): the layer divides by tau as `NeuronLayer` does."""
    node = spikingjelly().LIFNode(tau=2.0, decay_input=True, v_threshold=1.0, v_reset=0.0)
    x = currents(seed, 2.0)
    assert torch.equal(run("lif_hard", x / 2, 0.5), steps_of(node, x))


def test_if_is_spikingjellys(seed):
    node = spikingjelly().IFNode(v_threshold=1.0, v_reset=0.0)
    x = currents(seed, 0.5)
    assert torch.equal(run("lif_hard", x, 1.0), steps_of(node, x))


def test_lif_soft_is_spikingjellys(seed):
    """U = beta (U - S) + X, arXiv 2604.12365 Eq. 1-3 with beta 1/2."""
    node = spikingjelly().LIFNode(tau=2.0, decay_input=False, v_threshold=1.0, v_reset=None)
    x = currents(seed)
    assert torch.equal(run("lif_soft", x, 0.5), steps_of(node, x))


def test_lif_subtract_is_snntorchs(seed):
    """U_t = I + beta U_{t-1} - S_{t-1} (arXiv 2605.13859): Leaky with reset "subtract"; it fires above, not at, the threshold."""
    snntorch = pytest.importorskip("snntorch", reason="snntorch: not installed", exc_type=ImportError)
    leaky = snntorch.Leaky(beta=0.875, threshold=1.0, reset_mechanism="subtract")
    x, membrane, spikes = currents(seed) + 1 / 512, torch.zeros(CHANNELS), []
    for x_t in x:
        spike, membrane = leaky(x_t, membrane)
        spikes.append(spike)
    assert (run("lif_subtract", x, 0.875) == torch.stack(spikes)).float().mean() > 0.999


def test_t_lif_is_spikingjellys_ternary(seed):
    neuron = spikingjelly()
    if not hasattr(neuron, "TernaryLIFNode"):
        pytest.skip("spikingjelly: no TernaryLIFNode")
    node = neuron.TernaryLIFNode(tau=2.0, decay_input=False, v_threshold=1.0, v_reset=None)
    x = currents(seed) - 0.5
    got = run("t_lif", x, 0.5)
    assert torch.equal(got, steps_of(node, x)) and (got < 0).any()


@pytest.mark.parametrize("level", [1, 4])
def test_i_lif_is_spikingjellys(level, seed):
    """beta 1/4: tau 4/3 there; its rounding is half to even, so currents avoid halves."""
    neuron = spikingjelly()
    if not hasattr(neuron, "ILIFNode"):
        pytest.skip("spikingjelly: no ILIFNode")
    from spikingjelly.activation_based import surrogate

    node = neuron.ILIFNode(tau=4 / 3, surrogate_function=surrogate.MultiLevelSpikeCount(level))
    x = currents(seed, 2.0) + 1 / 512
    assert (run("i_lif", x, 0.25, level) == steps_of(node, x)).float().mean() > 0.999


@pytest.mark.parametrize("kind", ["ni_lif", *KINDS])
@pytest.mark.parametrize("leak", [1, 3, LEAK_OFF])
def test_exported_thresholds_compute_the_same(kind, leak, seed):
    """`numerics.neuron_step` on base and step of the exporter fires as the float layer: under 0.5% of spikes differ
    (thresholds are rounded to 2^-8 of a sum, leaks are floored).
    """
    from spikeloom.model.golden.export import thresholds

    torch.manual_seed(seed)
    config = config_of(kind, leak)
    level = 4 if kind in ("ni_lif", "i_lif") else 1
    layer = NeuronLayer(config, GoldenOptions(), (CHANNELS,), (level,)).eval()
    layer.norm.raw_gain.data.add_(torch.randn(CHANNELS) * 0.2)
    layer.norm.shift.data.add_(torch.randn(CHANNELS) * 0.3)
    unit = 2.0**-5
    acc = torch.randint(-80, 120, (config.steps, 40, CHANNELS))
    spikes = layer(acc * unit).detach().numpy()
    base, step = thresholds(layer, unit)
    membrane, differ = 0, 0
    for t in range(config.steps):
        got, membrane = numerics.neuron_step(kind, acc[t].numpy(), membrane, base, step, levels=level, leak=leak)
        differ += np.count_nonzero(got != spikes[t])
    assert differ / spikes.size < 0.005
    assert 0.05 < np.count_nonzero(spikes) / spikes.size < 0.95


@pytest.mark.parametrize("kind", ["ni_lif", *KINDS])
@pytest.mark.parametrize("surrogate", fast_neurons.SURROGATES)
def test_kernel_equals_tensors(kind, surrogate, seed):
    """Spikes and gradients of `neurons.c`."""
    if not fast_neurons.serves(kind, surrogate):
        pytest.skip("no C compiler")
    torch.manual_seed(seed)
    options = GoldenOptions(surrogate=surrogate, sharpness=1.5)
    level = torch.tensor([1.0, 4.0, 8.0]).repeat(400)[:700]  # more channels than a block of the kernel
    if kind not in ("ni_lif", "i_lif"):
        level = torch.ones(700)
    x = (torch.randn(4, 5, 700) * 2).requires_grad_()
    y = x.detach().clone().requires_grad_()
    weight = torch.randn(4, 5, 700)
    slow = run_neurons(kind, x, 0.75, level, torch.zeros(()), options)
    fast = fast_neurons.run(y, kind, 0.75, level, surrogate, options.sharpness)
    assert torch.equal(slow, fast)
    (slow * weight).sum().backward()
    (fast * weight).sum().backward()
    assert torch.allclose(x.grad, y.grad, atol=1e-5)


def test_nasn_shifts_its_window(seed):
    """S = clip(round U, a, a + D) with a = ceil(alpha); alpha learns from what lies outside (arXiv 2604.12365 Eq. 12-20)."""
    torch.manual_seed(seed)
    layer = NeuronLayer(config_of("ni_lif"), GoldenOptions(learned_shift=True, norm="none"), (50,), (4,), shifted=True)
    with torch.no_grad():
        layer.alpha.fill_(-1.3)
    x = torch.randn(1, 20, 50)
    u = layer.norm(x)
    s = layer(x)
    assert torch.equal(s, torch.floor(u.clamp(-1, 3) + 0.5))
    s.sum().backward()
    outside = ((u <= -1.5) | (u >= 3.5)).sum().item()
    assert layer.alpha.grad.item() == outside > 0


@pytest.mark.parametrize("kind, sharpness, peak", [("atan", 2.0, 1.0), ("sigmoid", 4.0, 1.0), ("triangle", 1.0, 1.0), ("window", 1.0, 1.0)])
def test_surrogates(kind, sharpness, peak):
    """Peak at the threshold, symmetric, area near 1."""
    x = torch.linspace(-40, 40, 80001)
    y = slope(x, kind, sharpness)
    assert y[40000].item() == pytest.approx(peak, rel=1e-5)
    assert torch.allclose(y, y.flip(0), atol=1e-6)
    assert (y.sum() * 0.001).item() == pytest.approx(1.0, abs=0.02)


def test_surrogates_are_spikingjellys(seed):
    """ATan and Sigmoid have SpikingJelly's derivatives."""
    spikingjelly()
    from spikingjelly.activation_based import surrogate

    x = torch.randn(200, generator=torch.Generator().manual_seed(seed))
    for kind, sharpness, theirs in (("atan", 2.0, surrogate.ATan(2.0)), ("sigmoid", 4.0, surrogate.Sigmoid(4.0))):
        y = x.clone().requires_grad_()
        theirs(y).sum().backward()
        assert torch.allclose(y.grad, slope(x, kind, sharpness), atol=1e-5)
