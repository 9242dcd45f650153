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

    A marker says that `tile` is complete (row and level are 0); `last` marks the final marker of a command.
    """
    return data.StructLayout({
        "row": 16, "tile": TILE_WIDTH, "level": cfg.rows * cfg.level_bits, "marker": 1, "last": 1,
    })


def weights_layout(cfg: AcceleratorConfig) -> data.StructLayout:
    """An event with its weights: `cols` signed bytes, column 0 lowest. The weights of a marker mean nothing."""
    return data.StructLayout({
        "weights": cfg.cols * WEIGHT_WIDTH, "tile": TILE_WIDTH, "bank": 1, "level": cfg.rows * cfg.level_bits,
        "marker": 1, "last": 1,
    })


def drain_layout() -> data.StructLayout:
    """A tile of sums is complete; `last` marks the final tile of a command."""
    return data.StructLayout({"bank": 1, "tile": TILE_WIDTH, "last": 1})
