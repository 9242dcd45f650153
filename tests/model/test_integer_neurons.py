"""Neurons over time steps: those of other frameworks, and the integer model's own by name."""

import numpy as np
import pytest
import torch

from spikeloom.arch.config import LEAK_OFF, NEURONS, ModelConfig
from spikeloom.arch.numerics import leaked, neuron_step
from spikeloom.model.integer_neurons import IntegerNeurons
from spikeloom.model.tensors import neuron_levels

#: Currents are multiples of 2^8, so that six halvings are exact, and so small that some sums equal the threshold.
THETA, CHANNELS, STEPS = 1 << 10, 400, 6


def currents(seed):
    return np.random.default_rng(seed).integers(-5, 8, (STEPS, CHANNELS)) << 8


def run(kind, acc, *, leak, step=THETA, base=THETA, levels=1):
    """Spikes and membranes over time, [T, C]; all in units of 2^-8 of an accumulator, as `neuron_step` keeps them."""
    membrane, spikes, membranes = 0, [], []
    for current in acc:
        # The accumulator holds current / 2^8.
        spike, membrane = neuron_step(kind, current >> 8, membrane, base, step, levels=levels, leak=leak)
        spikes.append(spike)
        membranes.append(membrane)
    return np.stack(spikes), np.stack(membranes)


def import_from(name):
    return pytest.importorskip(name, reason=f"{name.split('.')[0]}: not installed", exc_type=ImportError)


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
def test_lif_of_spikingjelly(hard, seed):
    """LIFNode(tau = 2, decay_input = False): leak 1, fires on equality."""
    node = import_from("spikingjelly.activation_based.neuron").LIFNode(
        tau=2.0, decay_input=False, v_threshold=float(THETA), v_reset=0.0 if hard else None)
    acc = currents(seed)
    spikes, membranes = run("lif_hard" if hard else "lif_soft", acc, leak=1)
    for t in range(STEPS):
        assert np.array_equal(node(torch.from_numpy(acc[t]).double()).long().numpy(), spikes[t])
        assert np.array_equal(leaked(node.v.long().numpy(), 1), membranes[t])
    assert 0.1 < spikes.mean() < 0.6


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
def test_if_of_spikingjelly(hard, seed):
    """IFNode: no leak."""
    node = import_from("spikingjelly.activation_based.neuron").IFNode(v_threshold=float(THETA), v_reset=0.0 if hard else None)
    acc = currents(seed)
    spikes, membranes = run("lif_hard" if hard else "lif_soft", acc, leak=LEAK_OFF)
    for t in range(STEPS):
        assert np.array_equal(node(torch.from_numpy(acc[t]).double()).long().numpy(), spikes[t])
        assert np.array_equal(node.v.long().numpy(), membranes[t])


@pytest.mark.parametrize("levels", [1, 4])
def test_i_lif_of_spikingjelly(levels, seed):
    """ILIFNode(tau = 2) rounds halves to even, the contract up: left out where a half comes up at any step."""
    neuron = import_from("spikingjelly.activation_based.neuron")
    if not hasattr(neuron, "ILIFNode"):
        pytest.skip("spikingjelly: has no ILIFNode")
    from spikingjelly.activation_based import surrogate

    theta = THETA << 6  # finer currents, so that halves are rare
    node = neuron.ILIFNode(tau=2.0, v_threshold=float(theta), surrogate_function=surrogate.MultiLevelSpikeCount(levels))
    acc = np.random.default_rng(seed).integers(-512, 1024, (STEPS, CHANNELS)) << 8
    spikes, membranes = run("i_lif", acc, leak=1, step=theta, base=theta // 2, levels=levels)
    whole = np.ones(CHANNELS, bool)
    for t in range(STEPS):
        before = node.v if torch.is_tensor(node.v) else torch.zeros(CHANNELS, dtype=torch.float64)
        whole &= ((before / 2 + torch.from_numpy(acc[t])) % theta != theta / 2).numpy()
        assert np.array_equal(node(torch.from_numpy(acc[t]).double()).long().numpy()[whole], spikes[t][whole])
        assert np.array_equal(leaked(node.v.long().numpy(), 1)[whole], membranes[t][whole])
    assert whole.mean() > 0.9 and spikes.max() == levels


@pytest.mark.parametrize("beta, leak", [(0.5, 1), (0.75, 2), (1.0, LEAK_OFF)])
def test_leaky_of_snntorch(beta, leak, seed):
    """Leaky subtracts the threshold one step later, after the leak: `lif_subtract`. Its own step function is strict; ours is not."""
    leaky = import_from("snntorch").Leaky(beta=beta, threshold=float(THETA), reset_mechanism="subtract",
                                          spike_grad=lambda x: (x >= 0).to(x.dtype))
    acc = currents(seed) << 6  # a quarter, six times
    leaky.threshold = torch.tensor(float(THETA << 6), dtype=torch.float64)
    spikes, _ = run("lif_subtract", acc, leak=leak, step=THETA << 6, base=THETA << 6)
    membrane = torch.zeros(CHANNELS, dtype=torch.float64)
    for t in range(STEPS):
        spike, membrane = leaky(torch.from_numpy(acc[t]).double(), membrane)
        assert np.array_equal(spike.long().numpy(), spikes[t])
    assert 0.1 < spikes.mean() < 0.6


@pytest.mark.parametrize("beta, leak", [(0.5, 1), (1.0, LEAK_OFF)])
def test_leaky_with_reset_to_zero_of_snntorch(beta, leak, seed):
    """`lif_hard`."""
    leaky = import_from("snntorch").Leaky(beta=beta, threshold=float(THETA), reset_mechanism="zero",
                                          spike_grad=lambda x: (x >= 0).to(x.dtype))
    acc = currents(seed)
    spikes, _ = run("lif_hard", acc, leak=leak)
    membrane = torch.zeros(CHANNELS, dtype=torch.float64)
    for t in range(STEPS):
        spike, membrane = leaky(torch.from_numpy(acc[t]).double(), membrane)
        assert np.array_equal(spike.long().numpy(), spikes[t])


def test_a_ternary_neuron_is_two_binary_ones(seed):
    """T-LIF with a membrane that never reaches -theta is `lif_soft`; mirrored currents give mirrored spikes."""
    acc = currents(seed)
    spikes, membranes = run("t_lif", acc, leak=LEAK_OFF)
    mirrored, opposite = run("t_lif", -acc, leak=LEAK_OFF)
    assert np.array_equal(mirrored, -spikes) and np.array_equal(opposite, -membranes)
    positive = np.abs(acc)
    assert np.array_equal(run("t_lif", positive, leak=2)[0], run("lif_soft", positive, leak=2)[0])


@pytest.mark.parametrize("kind", NEURONS)
def test_neurons_of_a_model_by_name(kind, seed):
    """Channels of one tensor may differ in their levels: queries and keys speak 0 or 1, values up to D."""
    config = ModelConfig(name="m", vocabulary=8, context=4, width=8, layers=1, heads=2, hidden=8, neuron=kind, leak=2, level_v=3,
                         steps=1 if kind == "ni_lif" else 3, residual="spike_sum", embedding="spikes")
    rng = np.random.default_rng(seed)
    levels = neuron_levels(config)
    tensors = {f"{name}.{part}": rng.integers(100, 900, len(of)) for name, of in levels.items() for part in ("base", "step")}
    neurons, membranes = IntegerNeurons(config, tensors), {}
    assert set(levels) == {"embed", *(f"layer0.{n}" for n in ("in", "qkv", "attn", "out", "mid", "up", "down")), "final"}
    state = dict.fromkeys(levels, 0)
    for _ in range(config.steps):
        for name, of in levels.items():
            acc = rng.integers(-4, 9, len(of))
            spikes, after = [], []
            for channel, level in enumerate(of):
                before = state[name][channel] if np.ndim(state[name]) else 0
                (s,), (m,) = neuron_step(kind, acc[channel:channel + 1], before, tensors[f"{name}.base"][channel:channel + 1],
                                         tensors[f"{name}.step"][channel:channel + 1], levels=int(level), leak=2)
                spikes.append(s)
                after.append(m)
            state[name] = np.array(after)
            assert neurons(name, acc.astype(np.float32), membranes).tolist() == spikes
            if kind != "ni_lif":
                assert np.array_equal(membranes[name], state[name])
