"""Tensors of a model -> matrices and parameter groups of a machine, with the proof that no sum and no membrane overflows."""

from dataclasses import dataclass

import numpy as np

from ..arch.config import MAX_TILES, MEMBRANE_WIDTH, THRESHOLD_FRACTION, AcceleratorConfig, ModelConfig, ceil_div, require
from ..arch.layout import pack_parameters, pack_rows, row_bytes, tiles_for
from ..arch.numerics import RESIDUAL_MIN
from ..model.tensors import head_rows, input_levels, input_lows, neuron_levels, tensor_shapes


@dataclass(frozen=True)
class Block:
    """At most MAX_TILES column tiles of a matrix, packed row by row."""

    matrix: str
    #: First group of lanes written in the sink, and their number.
    base_group: int
    groups: int
    tiles: int
    bits: int
    n_in: int
    data: bytes

    def row_bytes(self, cfg: AcceleratorConfig) -> int:
        """Bytes of one row."""
        return row_bytes(self.tiles, self.bits, cfg)


@dataclass(frozen=True)
class Lowered:
    """A model in the formats of a machine."""

    #: Matrix name (`embed`, `layer0.qkv`, ..., `head`) -> its blocks, left to right.
    blocks: dict[str, list[Block]]
    #: Operator name -> its parameter groups; neurons come first, since only the first part of the table has membranes.
    parameters: dict[str, bytes]
    #: `layerI.attn` -> field `recency` of its ATTEND.
    recency: dict[str, int]

    def matrix_bytes(self, name: str) -> int:
        """Packed bytes of a matrix."""
        return sum(len(block.data) for block in self.blocks[name])


def padded_logit(cfg: AcceleratorConfig) -> int:
    """Logit of the channels that pad the vocabulary to whole groups: the least that an accumulator holds.

    PICK leaves ids outside `limits.vocabulary` out anyway; this value is what checksums and dumps show for them.
    """
    return -(1 << (cfg.acc_width - 1))


def lower(config: ModelConfig, tensors: dict[str, np.ndarray], cfg: AcceleratorConfig) -> Lowered:
    """Matrices and parameters of a model for a machine.

    Raises
    ------
    FitError
        When a sum could overflow the accumulator or a membrane its word, a weight, threshold, bias or shift leaves its format,
        or the neurons need more membranes than the machine has.
    """
    blocks, neurons = {"embed": _split("embed", _embedding(config, tensors), 8, config, cfg)}, neuron_levels(config)
    largest, lows = _stream_sums(config, tensors), input_lows(config)
    for name, levels in input_levels(config).items():
        weights, bias = tensors[f"{name}.weight"], None
        if name == "head":
            weights, bias = head_rows(config, weights), tensors["head.bias"]
        largest[name] = _prove_sums(config, name, weights, (lows[name], levels), bias, cfg)
        blocks[name] = _split(name, weights, config.weight_bits, config, cfg)
        require(len(blocks[name]) == 1 or not name.endswith(".qkv"),
                f"{config.name}: Q, K and V of width {config.width} are wider than one block of {MAX_TILES} tiles on {cfg.name!r}.")
    for name, levels in neurons.items():
        if config.neuron != "ni_lif":
            _prove_membrane(config, name, largest[name], tensors[f"{name}.base"], tensors[f"{name}.step"], levels)
    return Lowered(blocks, _parameters(config, tensors, neurons, cfg), _recency(config, tensors))


def _recency(config, tensors):
    """`recency` field of each ATTEND, 4 bits per head: recency shifts, or SFSA's thresholds."""
    fields = {}
    for layer in range(config.layers):
        name = f"layer{layer}.attn"
        nibbles = {"wta": config.recency, "sfsa": tensors.get(f"{name}.theta"), "ssa": ()}[config.attention]
        require(all(0 <= n < 16 for n in nibbles), f"{config.name}: a threshold of {name}.theta leaves 0..15.")
        fields[name] = sum(int(n) << (4 * head) for head, n in enumerate(nibbles))
    return fields


def _embedding(config, tensors):
    """Token rows, then position rows."""
    token = tensors["embed.token"]
    return np.concatenate([token, tensors["embed.position"]]) if config.position_table else token


def _parameters(config, tensors, neurons, cfg):
    """Groups of every operator, neurons first."""
    parameters = {name: _pack(config, name, cfg, tensors[f"{name}.base"], tensors[f"{name}.step"]) for name in neurons}
    words = sum(len(groups) for groups in parameters.values()) // (cfg.lanes * 8)
    require(config.neuron == "ni_lif" or words <= cfg.membrane_words,
            f"{config.name}: the membranes of its neurons take {words} groups, machine {cfg.name!r} has {cfg.membrane_words}; "
            "use fewer layers or channels, or NI-LIF neurons, which have none.")
    for name in tensor_shapes(config):
        operator, _, kind = name.rpartition(".")
        if kind == "shift":
            parameters[operator] = _pack(config, operator, cfg, tensors[f"{operator}.bias"], None, tensors[name])
    bias = tensors["head.bias"].astype(np.int64)
    spare = -bias.size % cfg.lanes
    parameters["head"] = _pack(config, "head", cfg, np.concatenate([bias, np.full(spare, padded_logit(cfg))]))
    return parameters


def _stream_sums(config, tensors):
    """Largest |sum| that each neuron of the stream and of attention can compare, int or int [C]."""
    c, most = config, max(config.rank_shifts)
    table = np.abs(tensors["embed.token"].astype(np.int64)).max(axis=0)
    if c.position_table:
        table = table + np.abs(tensors["embed.position"].astype(np.int64)).max(axis=0)
    gathered = {"wta": sum(c.value_level << (most - s) for s in c.rank_shifts), "sfsa": c.context * c.value_level,
                "ssa": c.context * c.head_width}[c.attention]
    sums = {"embed": table, "final": -RESIDUAL_MIN}
    for layer in range(c.layers):
        sums |= {f"layer{layer}.in": -RESIDUAL_MIN, f"layer{layer}.attn": gathered, f"layer{layer}.mid": -RESIDUAL_MIN}
    return sums


def _prove_sums(config, name, weights, levels, bias, cfg):
    """Every partial sum, in any order, lies within the accumulator; a logit includes its bias.

    levels: (smallest, largest) level of the input. Returns the largest |sum| of each column, int64 [n_out].
    """
    weights = weights.astype(np.int64)
    bias = np.zeros(weights.shape[1], np.int64) if bias is None else bias.astype(np.int64)
    positive, negative = np.maximum(weights, 0).sum(axis=0), np.minimum(weights, 0).sum(axis=0)
    least, largest = levels
    high, low = positive * largest + negative * least, negative * largest + positive * least
    most = max(int(np.maximum(high, high + bias).max()), -int(np.minimum(low, low + bias).min()))
    limit = (1 << (cfg.acc_width - 1)) - 1
    require(most <= limit, f"{config.name}: sums of {name} can reach {most}, the {cfg.acc_width}-bit accumulators of "
                           f"{cfg.name!r} hold {limit}; use fewer levels or smaller weights.")
    return np.maximum(high, -low)


def _prove_membrane(config, name, largest, base, step, levels):
    """A membrane stays within its width whatever comes: no time step moves it by more than `once`, and a leak only shrinks it."""
    base, step = base.astype(np.int64), step.astype(np.int64)
    once = (largest << THRESHOLD_FRACTION) + np.abs(base) + levels * step + step
    most, limit = config.steps * int(once.max()), (1 << (MEMBRANE_WIDTH - 1)) - 1
    require(most <= limit, f"{config.name}: membranes of {name} can reach {most} in {config.steps} time steps, they hold {limit}; "
                           "use smaller thresholds and biases.")


def _split(name, weights, bits, config, cfg):
    widest = MAX_TILES * cfg.cols
    blocks = []
    for start in range(0, weights.shape[1], widest):
        part = weights[:, start:start + widest]
        tiles = tiles_for(part.shape[1], bits, cfg)
        require(tiles <= MAX_TILES, f"{config.name}: a row of {name} cannot be padded to whole beats within {MAX_TILES} tiles.")
        try:
            data = pack_rows(part, bits, tiles, cfg)
        except ValueError as error:
            require(False, f"{config.name}: {name}: {error}")
        blocks.append(Block(name, start // cfg.lanes, ceil_div(part.shape[1], cfg.lanes), tiles, bits, len(part), data))
    return blocks


def _pack(config, name, cfg, base, step=None, shift=None):
    try:
        return pack_parameters(base, step, shift, lanes=cfg.lanes)
    except ValueError as error:
        require(False, f"{config.name}: {name}: {error}")
