"""`KvCache` against arrays: lanes above and below a segment, every bank, latency."""

import dataclasses
import random

import pytest

from spikeloom.arch.presets import preset
from spikeloom_hw.storage.kv_cache import KvCache
from spikeloom_sim.pysim import simulate

TINY = preset("tiny")
SHAPES = {
    "equal": TINY,
    "lanes_above": dataclasses.replace(TINY, cols=16, lanes=8, score_banks=4),
    "lanes_below": dataclasses.replace(TINY, segment=8),
}


def pack(values, width):
    return sum((int(value) & (1 << width) - 1) << index * width for index, value in enumerate(values))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(2))
def test_keeps(shape, seed):
    print(f"seed {seed}")
    cfg, rng = SHAPES[shape], random.Random(seed)
    dut = KvCache(cfg=cfg)
    assert dut.latency == 1
    keys = [[0] * cfg.max_width for _ in range(cfg.kv_positions)]
    values = [[0] * cfg.max_width for _ in range(cfg.kv_positions)]
    width = dut.position_width

    async def write(ctx):
        kind, position, group = rng.choice("kvb"), rng.randrange(cfg.kv_positions), rng.randrange(dut.groups)
        levels = [rng.choice([0, 0, -1, rng.randint(1 - cfg.level_max, cfg.level_max)]) for _ in range(cfg.lanes)]
        ctx.set(dut.w_en_k, kind in "kb")
        ctx.set(dut.w_en_v, kind in "vb")
        ctx.set(dut.w_position, position)
        ctx.set(dut.w_group, group)
        ctx.set(dut.w_levels, pack(levels, cfg.level_bits))
        for channel, level in enumerate(levels, group * cfg.lanes):
            if kind in "kb":
                keys[position][channel] = level
            if kind in "vb":
                values[position][channel] = level

    async def bench(ctx):
        for _ in range(400):
            row = rng.randrange(dut.rows)
            positions = [rng.randrange(cfg.kv_positions) for _ in range(cfg.segments)]
            of_row = [level for key in keys[row * cfg.score_banks:(row + 1) * cfg.score_banks] for level in key]
            expected_v = pack([values[position][segment * cfg.segment + channel] for segment, position in enumerate(positions)
                               for channel in range(cfg.segment)], cfg.level_bits)
            ctx.set(dut.k_en, 1)
            ctx.set(dut.k_row, row)
            ctx.set(dut.v_en, 1)
            ctx.set(dut.v_position, pack(positions, width))
            await write(ctx)
            await ctx.tick()
            assert ctx.get(dut.k_spoke) == pack([level != 0 for level in of_row], 1)
            assert ctx.get(dut.k_minus) == pack([level < 0 for level in of_row], 1)
            assert ctx.get(dut.v_words) == expected_v

    simulate(dut, bench)
