"""`storage.spike_buffers`: words and groups read back what groups wrote, each buffer for itself."""

import random

import pytest

from spikeloom.arch.commands import SPIKE_BUFFERS
from spikeloom.arch.presets import preset
from spikeloom_hw.storage.spike_buffers import SpikeBuffers
from spikeloom_sim.pysim import simulate


def pack(levels, bits):
    return sum((int(level) & ((1 << bits) - 1)) << (i * bits) for i, level in enumerate(levels))


@pytest.mark.parametrize("name", ["tiny", "sim"])
def test_reads_what_was_written(name):
    cfg, rng = preset(name), random.Random(1)
    dut = SpikeBuffers(cfg=cfg)
    buffers = [[0] * cfg.max_neurons for _ in range(SPIKE_BUFFERS)]

    async def bench(ctx):
        for _ in range(400):
            group, target, source = rng.randrange(cfg.max_neurons // cfg.lanes), rng.randrange(SPIKE_BUFFERS), rng.randrange(SPIKE_BUFFERS)
            new = [rng.randint(1 - cfg.level_max, cfg.level_max) for _ in range(cfg.lanes)]
            write, dump = rng.random() < 0.7, rng.random() < 0.5
            ctx.set(dut.w_buffer, target)
            ctx.set(dut.w_group, group)
            ctx.set(dut.w_levels, pack(new, cfg.level_bits))
            ctx.set(dut.w_en, write)
            word, dumped = rng.randrange(dut.words), rng.randrange(cfg.max_neurons // cfg.lanes)
            ctx.set(dut.r_buffer, source)
            ctx.set(dut.r_word, word)
            ctx.set(dut.dump, dump)
            ctx.set(dut.d_group, dumped)
            levels = buffers[source]
            if dump:
                assert ctx.get(dut.d_levels) == pack(levels[dumped * cfg.lanes:(dumped + 1) * cfg.lanes], cfg.level_bits)
            else:
                assert ctx.get(dut.r_levels) == pack(levels[word * cfg.cols:(word + 1) * cfg.cols], cfg.level_bits)
            await ctx.tick()
            if write:
                buffers[target][group * cfg.lanes:(group + 1) * cfg.lanes] = new

    simulate(dut, bench)
