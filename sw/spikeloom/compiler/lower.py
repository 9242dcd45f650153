"""Tensors of a model -> matrices and parameter groups of a machine, with the proof that no sum overflows."""

from dataclasses import dataclass

import numpy as np

from ..arch.config import MAX_TILES, AcceleratorConfig, ModelConfig, ceil_div, require
from ..arch.layout import pack_parameters, pack_rows, row_bytes, tiles_for
from ..model.integer_model import tensor_shapes


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
    #: Operator name -> its parameter groups.
    parameters: dict[str, bytes]

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
        When a sum could overflow the accumulator, or a weight, threshold, bias or shift leaves its format.
    """
    blocks, parameters = {"embed": _split("embed", _embedding(config, tensors), 8, config, cfg)}, {}
    for name, levels in _matrices(config).items():
        weights, bias = tensors[f"{name}.weight"], tensors.get("head.bias") if name == "head" else None
        _prove(config, name, weights, levels, bias, cfg)
        blocks[name] = _split(name, weights, config.weight_bits, config, cfg)
        require(len(blocks[name]) == 1 or not name.endswith(".qkv"),
                f"{config.name}: Q, K and V of width {config.width} are wider than one block of {MAX_TILES} tiles on {cfg.name!r}.")
    for name in tensor_shapes(config):
        operator, _, kind = name.rpartition(".")
        if kind == "base":
            parameters[operator] = _pack(config, operator, cfg, tensors[name], tensors[f"{operator}.step"])
        elif kind == "shift":
            parameters[operator] = _pack(config, operator, cfg, tensors[f"{operator}.bias"], None, tensors[name])
    bias = tensors["head.bias"].astype(np.int64)
    spare = -bias.size % cfg.lanes
    parameters["head"] = _pack(config, "head", cfg, np.concatenate([bias, np.full(spare, padded_logit(cfg))]))
    return Lowered(blocks, parameters)


def _embedding(config, tensors):
    """Token rows, then position rows."""
    token = tensors["embed.token"]
    return np.concatenate([token, tensors["embed.position"]]) if config.position_table else token


def _matrices(config):
    """Name of each LINEAR and the largest level of its input."""
    kinds = {"qkv": config.level_in, "out": config.level_attn, "up": config.level_mid, "down": config.level_hidden}
    table = {f"layer{layer}.{kind}": levels for layer in range(config.layers) for kind, levels in kinds.items()}
    return {**table, "head": config.level_final}


def _prove(config, name, weights, levels, bias, cfg):
    """Every partial sum, in any order, lies within the accumulator; a logit includes its bias."""
    weights = weights.astype(np.int64)
    bias = np.zeros(weights.shape[1], np.int64) if bias is None else bias.astype(np.int64)
    high = np.maximum(weights, 0).sum(axis=0) * levels
    low = np.minimum(weights, 0).sum(axis=0) * levels
    most = max(int(np.maximum(high, high + bias).max()), -int(np.minimum(low, low + bias).min()))
    limit = (1 << (cfg.acc_width - 1)) - 1
    require(most <= limit, f"{config.name}: sums of {name} can reach {most}, the {cfg.acc_width}-bit accumulators of "
                           f"{cfg.name!r} hold {limit}; use fewer levels or smaller weights.")


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
