"""Random networks for tests: every seed gives one that speaks, neither silent nor saturated unless asked."""

from dataclasses import replace

import numpy as np

from ..arch.config import THRESHOLD_FRACTION, ModelConfig
from ..arch.numerics import neuron_step, pick
from .integer_model import IntegerModel
from .tensors import neuron_levels, neuron_lows, tensor_shapes

#: Share of the neurons that speak, aimed at by calibration.
_TARGET = 0.3
#: Tokens that calibration looks at.
_LOOK = 12
_UNIT = 1 << THRESHOLD_FRACTION
#: Halvings of the interval in which a threshold is sought.
_HALVINGS = 18
#: A base so low that the neuron always fires, of one with a membrane (which must not overflow in eight time steps).
_ALWAYS = -(1 << 26)

TINY = ModelConfig(name="random", vocabulary=32, context=32, width=16, layers=2, heads=2, hidden=32, top_k=3,
                   rank_shifts=(0, 1, 2), recency=(0, 2), position_table=True)


def random_model(seed: int, config: ModelConfig = TINY, *, saturate: bool = False, tie: bool = False,
                 equal_ranks: bool = False, overlap: bool | None = None) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """A config and its tensors.

    Parameters
    ----------
    seed : int
    config : ModelConfig
        Shape; its name and options are kept where not overridden below.
    saturate : bool
        Make the residual clip often, where sums are added to it.
    tie : bool
        Make all queries and keys of head 0 equal, without recency there: its scores tie at every position (WTA).
    equal_ranks : bool
        All winners weigh the same.
    overlap : bool, optional
        Override the config's flag.

    Raises
    ------
    RuntimeError
        When no attempt makes a network that says at least four different tokens (or knows two classes).
    """
    changes = {}
    if tie:
        changes["recency"] = (15, *config.recency[1:])
    if equal_ranks:
        changes["rank_shifts"] = (0,) * config.top_k
    if overlap is not None:
        changes["overlap"] = overlap
    config = replace(config, **changes)
    for attempt in range(20):
        rng = np.random.default_rng([seed, attempt])
        tensors = _draw(rng, config)
        _calibrate(rng, config, tensors, saturate=saturate, tie=tie)
        if len(set(_said(rng, config, IntegerModel(config, tensors)))) >= min(2 if config.classes else 4, config.outputs):
            return config, tensors
    raise RuntimeError(f"No random model of seed {seed} says {'two different classes' if config.classes else 'four different tokens'}.")


def _said(rng, config, model):
    """Tokens or classes that the network comes up with."""
    if not config.bidirectional:
        return model.generate([1], min(31, config.context))
    texts = [rng.integers(config.vocabulary, size=config.context).tolist() for _ in range(6 if config.classes else 1)]
    return [pick(trace["logits"]) for text in texts for trace in model.encode(text) if "logits" in trace]


def _draw(rng, config):
    """Random weights and biases; neurons are silent until calibrated."""
    d, f, v = config.width, config.hidden, config.vocabulary
    most = 1 if config.weight_bits == 2 else (1 << (config.weight_bits - 1)) - 1

    def weights(n_in, n_out, largest=most):
        return np.clip(np.rint(rng.normal(0, 0.4 * largest + 0.3, (n_in, n_out))), -largest, largest).astype(np.int8)

    shapes = tensor_shapes(config)
    tensors = {"embed.token": weights(v, d, 127), "head.weight": weights(*shapes["head.weight"][0]),
               "head.bias": rng.integers(-most // 3, most // 3 + 1, config.outputs).astype(np.int32)}
    if config.position_table:
        tensors["embed.position"] = weights(config.context, d, 127)
    neurons = neuron_levels(config)
    for layer in range(config.layers):
        at = f"layer{layer}"
        for name, n_in, n_out in (("qkv", d, 3 * d), ("out", d, d), ("up", d, f), ("down", f, d)):
            tensors[f"{at}.{name}.weight"] = weights(n_in, n_out)
        for name in ("out", "down"):
            if f"{at}.{name}" not in neurons:
                tensors[f"{at}.{name}.bias"] = rng.integers(-200, 200, d).astype(np.int32)
                tensors[f"{at}.{name}.shift"] = np.zeros(d, np.uint8)
        if config.attention == "sfsa":
            tensors[f"{at}.attn.theta"] = np.zeros(config.heads, np.uint8)
    for name, levels in neurons.items():
        tensors[f"{name}.base"] = np.full(len(levels), (1 << 31) - 1, np.int32)
        tensors[f"{name}.step"] = np.zeros(len(levels), np.int32)
    return tensors


def _calibrate(rng, config, tensors, *, saturate, tie):
    """Set thresholds and shifts, operator by operator in order of execution, from what random tokens give."""
    tokens = rng.integers(config.vocabulary, size=min(_LOOK, config.context)).tolist()
    neurons, lows = neuron_levels(config), neuron_lows(config)
    names = [*(["embed"] if "embed" in neurons else []),
             *(f"layer{layer}.{kind}" for layer in range(config.layers) for kind in ("in", "qkv", "attn", "out", "mid", "up", "down")),
             "final"]
    for name in names:
        traces = _listen(IntegerModel(config, tensors), tokens, head=name == "final")
        acc = np.stack([[trace[config.label(f"{name}.sum", t)] for t in range(config.steps)] for trace in traces])  # [n, T, C]
        if name.endswith(".attn") and config.attention == "sfsa":
            # What was gathered under the threshold 0 tells little: set it first.
            _set_theta(rng, config, tensors, name, traces)
            traces = _listen(IntegerModel(config, tensors), tokens, head=False)
            acc = np.stack([[trace[config.label(f"{name}.sum", t)] for t in range(config.steps)] for trace in traces])
        acc = acc.astype(np.int64)
        if name not in neurons:
            _set_shifts(rng, config, tensors, name, acc.reshape(-1, acc.shape[-1]), saturate)
        elif config.neuron == "ni_lif":
            _set_thresholds(rng, tensors, name, acc[:, 0], lows[name] < 0)
        else:
            _set_membranes(rng, config, tensors, name, acc, neurons[name])
        if tie and name.endswith(".qkv"):
            for start in (0, config.width):
                always = -(1 << 31) if config.neuron == "ni_lif" else _ALWAYS
                tensors[f"{name}.base"][start:start + config.head_width] = always


def _listen(model, tokens, head):
    if model.config.bidirectional:
        # With classes only position 0 reaches the head: every token in turn.
        texts = [[t, *tokens][:model.config.context] for t in tokens]
        return [model.encode(text)[0] for text in texts] if head and model.config.classes else model.encode(tokens)
    return [model.step(token, position, head=head) for position, token in enumerate(tokens)]


def _set_shifts(rng, config, tensors, name, acc, saturate):
    """Residual writers move the stream by a few tens."""
    spread = max(1.0, float(np.abs(acc).mean()))
    shift = max(0, int(np.log2(spread / 40)) + 1) - rng.integers(0, 2, config.width)
    tensors[f"{name}.shift"][:] = np.maximum(shift, 0)
    if saturate:
        tensors[f"{name}.bias"][::4] = 20000 << tensors[f"{name}.shift"][::4].astype(np.int64)
        tensors[f"{name}.bias"][1::4] = -20000 << tensors[f"{name}.shift"][1::4].astype(np.int64)


def _set_theta(rng, config, tensors, name, traces):
    """About a third of a head's scores reach its threshold."""
    raw = np.concatenate([trace[config.label(f"{name}.raw", t)] for trace in traces for t in range(config.steps)], axis=1)  # [H, n]
    theta = np.quantile(raw, 1 - _TARGET, axis=1) + rng.integers(0, 2, config.heads)
    tensors[f"{name}.theta"][:] = np.rint(theta).clip(0, 15)


def _set_thresholds(rng, tensors, name, acc, signed):
    """Each channel speaks for about `_TARGET` of the tokens seen; channels that never vary follow the tensor. Those with levels of
    both signs (bool [C]) take wide steps, so that there is room for silence."""
    width = max(float(np.median(acc.std(axis=0))), 1.0)  # of a channel: clipped ones must not hide the others
    common, own = np.quantile(acc, 1 - _TARGET), np.quantile(acc, 1 - _TARGET, axis=0)
    varied = acc.min(axis=0) < acc.max(axis=0)
    base = np.where(varied, own, common + rng.normal(0, 0.5 * width, acc.shape[1]))
    tensors[f"{name}.base"][:] = np.rint((base + rng.uniform(0, 0.1 * width, acc.shape[1])) * _UNIT).clip(-(1 << 31), (1 << 31) - 1)
    step = np.where(signed, 2.5, 1) * rng.uniform(0.1, 0.5, acc.shape[1]) * width
    tensors[f"{name}.step"][:] = np.rint(step * _UNIT).clip(0, (1 << 24) - 1)


def _set_membranes(rng, config, tensors, name, acc, levels):
    """The same for neurons with a membrane: the share of spikes over tokens and time steps, by bisection of the threshold.

    acc int64 [n, T, C]. T-LIF keeps the middle of its currents at 0 and moves both thresholds; the others move their bias.
    """
    channels = acc.shape[-1]
    width = max(float(np.median(acc.std(axis=(0, 1)))), 1.0)
    target = rng.uniform(0.6 * _TARGET, 1.4 * _TARGET, channels)
    leveled = config.neuron == "i_lif"
    step = np.rint(rng.uniform(*((0.3, 0.8) if leveled else (0.5, 1.5)), channels) * width * _UNIT).clip(16, (1 << 24) - 1)
    ternary = config.neuron == "t_lif"
    middle = np.median(acc, axis=(0, 1)) * _UNIT

    def at(x):
        base, width = (middle + x, x) if ternary else (x, step)
        return np.rint(base).astype(np.int64), np.rint(width).astype(np.int64)

    low = np.full(channels, 16.0) if ternary else (acc.min(axis=(0, 1)) - 4 * width) * _UNIT
    high = (np.abs(acc).max(axis=(0, 1)) + 4 * width) * _UNIT * config.steps
    if ternary:
        high = np.minimum(high, (1 << 24) - 1)
    for _ in range(_HALVINGS):
        middle_x = (low + high) / 2
        often = _share(config, acc, *at(middle_x), levels) > target
        low, high = np.where(often, middle_x, low), np.where(often, high, middle_x)
    too_often, too_seldom = (np.abs(_share(config, acc, *at(x), levels) - target) for x in (low, high))
    tensors[f"{name}.base"][:], tensors[f"{name}.step"][:] = at(np.where(too_often < too_seldom, low, high))


def _share(config, acc, base, step, levels):
    """Share of tokens and time steps at which a channel speaks, float [C]."""
    spoke, membrane = 0, 0
    for t in range(acc.shape[1]):
        spikes, membrane = neuron_step(config.neuron, acc[:, t], membrane, base, step, levels=int(levels.max()), leak=config.leak)
        spoke = spoke + (spikes != 0).mean(axis=0)
    return spoke / acc.shape[1]
