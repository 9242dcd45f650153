"""Random networks for tests: every seed gives one that speaks, neither silent nor saturated unless asked."""

from dataclasses import replace

import numpy as np

from ..arch.config import THRESHOLD_FRACTION, ModelConfig
from .integer_model import IntegerModel

#: Share of the neurons that speak, aimed at by calibration.
_TARGET = 0.3
#: Tokens that calibration looks at.
_LOOK = 12
_UNIT = 1 << THRESHOLD_FRACTION

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
        Make the residual clip often.
    tie : bool
        Make all queries and keys of head 0 equal, without recency there: its scores tie at every position.
    equal_ranks : bool
        All winners weigh the same.
    overlap : bool, optional
        Override the config's flag.

    Raises
    ------
    RuntimeError
        When no attempt makes a network that says at least four different tokens.
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
        model = IntegerModel(config, tensors)
        said = model.generate([1], min(31, config.context))
        if len(set(said)) >= min(4, config.vocabulary):
            return config, tensors
    raise RuntimeError(f"No random model of seed {seed} says four different tokens.")


def _draw(rng, config):
    """Random weights and biases; neurons are silent until calibrated."""
    d, f, v = config.width, config.hidden, config.vocabulary
    most = 1 if config.weight_bits == 2 else (1 << (config.weight_bits - 1)) - 1

    def weights(n_in, n_out, largest=most):
        return np.clip(np.rint(rng.normal(0, 0.4 * largest + 0.3, (n_in, n_out))), -largest, largest).astype(np.int8)

    tensors = {"embed.token": weights(v, d, 127), "head.weight": weights(d, v),
               "head.bias": rng.integers(-most // 3, most // 3 + 1, v).astype(np.int32)}
    if config.position_table:
        tensors["embed.position"] = weights(config.context, d, 127)
    neurons = {"final": d}
    for layer in range(config.layers):
        at = f"layer{layer}"
        neurons |= {f"{at}.in": d, f"{at}.qkv": 3 * d, f"{at}.attn": d, f"{at}.mid": d, f"{at}.up": f}
        for name, n_in, n_out in (("qkv", d, 3 * d), ("out", d, d), ("up", d, f), ("down", f, d)):
            tensors[f"{at}.{name}.weight"] = weights(n_in, n_out)
        for name in ("out", "down"):
            tensors[f"{at}.{name}.bias"] = rng.integers(-200, 200, d).astype(np.int32)
            tensors[f"{at}.{name}.shift"] = np.zeros(d, np.uint8)
    for name, n in neurons.items():
        tensors[f"{name}.base"] = np.full(n, (1 << 31) - 1, np.int32)
        tensors[f"{name}.step"] = np.zeros(n, np.int32)
    return tensors


def _calibrate(rng, config, tensors, *, saturate, tie):
    """Set thresholds and shifts, operator by operator in order of execution, from what random tokens give."""
    tokens = rng.integers(config.vocabulary, size=min(_LOOK, config.context))
    model = IntegerModel(config, tensors)
    names = [f"layer{layer}.{kind}" for layer in range(config.layers)
             for kind in ("in", "qkv", "attn", "out", "mid", "up", "down")] + ["final"]
    for name in names:
        model.clear()
        traces = [model.step(int(token), position, head=name == "final") for position, token in enumerate(tokens)]
        acc = np.stack([trace[f"{name}.sum"] for trace in traces]).astype(np.int64)
        if name.endswith((".out", ".down")):
            spread = max(1.0, float(np.abs(acc).mean()))
            shift = max(0, int(np.log2(spread / 40)) + 1) - rng.integers(0, 2, config.width)
            tensors[f"{name}.shift"][:] = np.maximum(shift, 0)
            if saturate:
                tensors[f"{name}.bias"][::4] = 20000 << tensors[f"{name}.shift"][::4].astype(np.int64)
                tensors[f"{name}.bias"][1::4] = -20000 << tensors[f"{name}.shift"][1::4].astype(np.int64)
        else:
            _set_thresholds(rng, tensors, name, acc)
        if tie and name.endswith(".qkv"):
            for start in (0, config.width):
                tensors[f"{name}.base"][start:start + config.head_width] = -(1 << 31)
        model = IntegerModel(config, tensors)


def _set_thresholds(rng, tensors, name, acc):
    """Each channel speaks for about `_TARGET` of the tokens seen; channels that never vary follow the tensor."""
    width = max(float(np.median(acc.std(axis=0))), 1.0)  # of a channel: clipped ones must not hide the others
    common, own = np.quantile(acc, 1 - _TARGET), np.quantile(acc, 1 - _TARGET, axis=0)
    varied = acc.min(axis=0) < acc.max(axis=0)
    base = np.where(varied, own, common + rng.normal(0, 0.5 * width, acc.shape[1]))
    tensors[f"{name}.base"][:] = np.rint((base + rng.uniform(0, 0.1 * width, acc.shape[1])) * _UNIT).clip(-(1 << 31), (1 << 31) - 1)
    tensors[f"{name}.step"][:] = np.rint(rng.uniform(0.1, 0.5, acc.shape[1]) * width * _UNIT).clip(0, (1 << 24) - 1)
