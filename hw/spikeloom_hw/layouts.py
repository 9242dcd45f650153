"""Payloads that cross a border between blocks, each declared once."""

from amaranth.lib import data
from amaranth.utils import ceil_log2

from spikeloom.arch.config import MAX_TILES, AcceleratorConfig

#: Bits of a tile's number.
TILE_WIDTH = ceil_log2(MAX_TILES)
#: Bits of an unpacked weight, signed, whatever its format in memory.
WEIGHT_WIDTH = 8


def event_layout(cfg: AcceleratorConfig) -> data.StructLayout:
    """One row wanted for one tile: `level` holds a level per grid row, grid row 0 lowest.

    A machine of two events per cycle may want a second row of the same tile with it (`both`, then `row_b` and `level_b` count,
    and are 0 otherwise). An event that `closes` is the last of its tile. A marker says the same where no event could: `tile` is
    complete, row and level are 0. `last` marks what closes the last tile of a command.
    """
    level = cfg.rows * cfg.level_bits
    second = {"both": 1, "row_b": 16, "level_b": level} if cfg.events == 2 else {}
    return data.StructLayout({"row": 16, "tile": TILE_WIDTH, "level": level, "marker": 1, "closes": 1, "last": 1, **second})


def weights_layout(cfg: AcceleratorConfig) -> data.StructLayout:
    """An event with its weights: `cols` signed bytes, column 0 lowest; of the second row too. Those of a marker mean nothing."""
    weights, level = cfg.cols * WEIGHT_WIDTH, cfg.rows * cfg.level_bits
    second = {"both": 1, "weights_b": weights, "level_b": level} if cfg.events == 2 else {}
    return data.StructLayout({
        "weights": weights, "tile": TILE_WIDTH, "bank": 1, "level": level, "marker": 1, "closes": 1, "last": 1, **second,
    })


def drain_layout() -> data.StructLayout:
    """A tile of sums is complete; `last` marks the final tile of a command."""
    return data.StructLayout({"bank": 1, "tile": TILE_WIDTH, "last": 1})
