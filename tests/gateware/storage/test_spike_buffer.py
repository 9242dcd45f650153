"""`storage.spike_buffer`: words and groups read back what groups wrote."""

import random

import pytest

from spikeloom.arch.presets import preset
from spikeloom_hw.storage.spike_buffer import SpikeBuffer
from spikeloom_sim.pysim import simulate


def pack(levels, bits):
    return sum(int(level) << (i * bits) for i, level in enumerate(levels))


@pytest.mark.parametrize("name", ["tiny", "sim"])
def test_reads_what_was_written(name):
    cfg, rng = preset(name), random.Random(1)
    dut = SpikeBuffer(cfg=cfg)
    levels = [0] * cfg.max_neurons

    async def bench(ctx):
        for _ in range(300):
            group = rng.randrange(cfg.max_neurons // cfg.lanes)
            new = [rng.randint(0, cfg.level_max) for _ in range(cfg.lanes)]
            write = rng.random() < 0.7
            ctx.set(dut.w_group, group)
            ctx.set(dut.w_levels, pack(new, cfg.level_bits))
            ctx.set(dut.w_en, write)
            word, dumped = rng.randrange(dut.words), rng.randrange(cfg.max_neurons // cfg.lanes)
            ctx.set(dut.r_word, word)
            ctx.set(dut.d_group, dumped)
            assert ctx.get(dut.r_levels) == pack(levels[word * cfg.cols:(word + 1) * cfg.cols], cfg.level_bits)
            assert ctx.get(dut.d_levels) == pack(levels[dumped * cfg.lanes:(dumped + 1) * cfg.lanes], cfg.level_bits)
            await ctx.tick()
            if write:
                levels[group * cfg.lanes:(group + 1) * cfg.lanes] = new

    simulate(dut, bench)
