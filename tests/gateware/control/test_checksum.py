"""`control.checksum` against `arch.numerics.checksum`."""

import numpy as np

from spikeloom.arch import numerics
from spikeloom.arch.presets import preset
from spikeloom_hw.control.checksum import Checksum
from spikeloom_sim.pysim import simulate


def test_folds_groups_like_the_reference():
    cfg = preset("tiny")
    dut = Checksum(cfg=cfg)
    values = np.random.default_rng(1).integers(-(1 << 23), 1 << 23, 9 * cfg.lanes)

    async def bench(ctx):
        ctx.set(dut.en, 1)
        for words in (values, values[:1 * cfg.lanes], values[::-1]):  # each starts over
            for number, group in enumerate(words.reshape(-1, cfg.lanes)):
                ctx.set(dut.first, number == 0)
                ctx.set(dut.values, sum((int(v) & 0xFFFFFF) << (24 * i) for i, v in enumerate(group)))
                await ctx.tick()
            assert ctx.get(dut.value) == numerics.checksum(words, cfg.lanes)
        ctx.set(dut.en, 0)
        await ctx.tick()
        assert ctx.get(dut.value) == numerics.checksum(values[::-1], cfg.lanes)

    simulate(dut, bench)
