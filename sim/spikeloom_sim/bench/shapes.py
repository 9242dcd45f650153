"""Networks too large to train or to simulate here, as shapes: their programs, and spikes drawn at the rates of a trained model."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache

import numpy as np

from spikeloom.arch.config import RECENCY_OFF, AcceleratorConfig, ModelConfig
from spikeloom.arch.layout import PARAMETER_BYTES, Image
from spikeloom.arch.presets import preset
from spikeloom.arch.run_cycles import Token
from spikeloom.compiler.image import compile_model
from spikeloom.model.tensors import neuron_levels, tensor_shapes

#: Neurons whose spikes choose rows.
KINDS = ("in", "attn", "mid", "up", "final")


def machine_for(shape: ModelConfig, name: str, **options) -> AcceleratorConfig:
    """The machine of a preset, widened to hold a shape (the preset itself, where it does); columns, lanes and clock stay as they are."""
    cfg = preset(name)

    def up(value, unit):
        return -(-value // unit) * unit

    width = max(cfg.max_width, up(shape.width, cfg.cols))
    channels = sum(len(levels) for levels in neuron_levels(shape).values()) + 2 * shape.layers * shape.width + shape.outputs
    sizes = options | dict(
        max_width=width, max_neurons=max(cfg.max_neurons, up(max(shape.hidden, 3 * width), cfg.cols)),
        max_vocabulary=max(cfg.max_vocabulary, up(shape.vocabulary, cfg.lanes)), max_context=max(cfg.max_context, shape.context),
        kv_positions=max(cfg.kv_positions, shape.layers * up(shape.context, cfg.score_banks)),
        parameter_words=max(cfg.parameter_words, -(-channels // cfg.lanes) + 1))
    if all(getattr(cfg, field) == value for field, value in sizes.items()):
        return cfg
    return replace(cfg, name=f"{name}_{shape.name}", **sizes)


@cache
def program_of(shape: ModelConfig, cfg: AcceleratorConfig, streamed: str = "all") -> Image:
    """The image of a shape with every weight 0: the program does not depend on them."""
    tensors = {name: np.zeros(size, kind) for name, (size, kind) in tensor_shapes(shape).items()}
    return compile_model(shape, tensors, cfg, logit_scale=1.0, streamed=streamed)


def rates_of(config: ModelConfig, traces: Iterable[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Share of neurons that speak, by kind, over layers and tokens of a decoder without time steps."""
    spoke, seen = defaultdict(int), defaultdict(int)
    for trace in traces:
        for label in [f"layer{layer}.{kind}" for layer in range(config.layers) for kind in KINDS[:-1]] + ["final"]:
            kind = label.rpartition(".")[2]
            spoke[kind] += np.count_nonzero(trace[label])
            seen[kind] += trace[label].size
    return {kind: spoke[kind] / seen[kind] for kind in KINDS}


def forced_tokens(config: ModelConfig, rates: Mapping[str, float], count: int, seed: int) -> Iterator[Token]:
    """Tokens at positions spread over the context, whose neurons spoke by chance, at these rates."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        trace = {}
        for name, levels in neuron_levels(config).items():
            rate = rates.get(name.rpartition(".")[2], 0.0)
            spoke = np.zeros(len(levels), np.int64)
            spoke[rng.permutation(len(levels))[:round(rate * len(levels))]] = 1
            trace[name] = spoke
        yield Token(trace, int(rng.integers(config.vocabulary)), (2 * number + 1) * config.context // (2 * count))


def forced_network(config: ModelConfig, rates: Mapping[str, float], seed: int) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """Random weights, and neurons of which exactly this share always speaks and the rest never: thresholds out of reach.

    Parameters
    ----------
    config : ModelConfig
        NI-LIF, without time steps.
    rates : dict
        By kind of neuron (`KINDS` and `qkv`).
    seed : int
    """
    rng = np.random.default_rng(seed)
    config = replace(config, recency=tuple(2 if head % 2 else RECENCY_OFF for head in range(config.heads)))
    tensors, most = {}, 1 if config.weight_bits == 2 else (1 << (config.weight_bits - 1)) - 1
    for name, (shape, kind) in tensor_shapes(config).items():
        table = name.startswith("embed.")
        if name.endswith(".weight") or table:
            limit = 127 if table else most
            tensors[name] = rng.integers(-limit, limit + 1, shape).astype(kind)
        else:
            tensors[name] = np.full(shape, 6 if name.endswith(".shift") else 0, kind)
    for name, levels in neuron_levels(config).items():
        rate = rates.get(name.rpartition(".")[2], 0.0)
        base = np.full(len(levels), (1 << 31) - 1, np.int32)
        base[rng.permutation(len(levels))[:round(rate * len(levels))]] = -(1 << 31)
        tensors[f"{name}.base"] = base
    return config, tensors


def table_bytes(config: ModelConfig, position: float) -> dict[str, float]:
    """Bytes per token of everything that is not a row of weights, if none of it stayed on chip.

    Parameters
    ----------
    config : ModelConfig
    position : float
        Mean number of cached positions that are scored.

    Returns
    -------
    dict
        `parameters` (thresholds, biases and shifts of every channel), `keys` (all cached ones, a bit per channel), `values` (the
        winners' own), `kv_written`.
    """
    channels = sum(len(levels) for levels in neuron_levels(config).values()) + 2 * config.layers * config.width + config.outputs
    value_bits = int(config.value_level).bit_length()
    return {
        "parameters": channels * PARAMETER_BYTES,
        "keys": config.layers * position * config.width / 8,
        "values": config.layers * config.top_k * config.width * value_bits / 8,
        "kv_written": config.layers * config.width * (1 + value_bits) / 8,
    }
