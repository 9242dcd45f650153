"""`datapath.pe`: every weight times every level, back to back."""

import pytest

from spikeloom.arch.presets import preset
from spikeloom_hw.datapath.pe import ProcessingElement, level_terms
from spikeloom_sim.pysim import simulate


def test_terms_make_the_level():
    for level in range(-1, 9):
        t = level_terms(level)
        assert (0 if t["zero"] else 1 << t["shift"]) + t["once"] + 2 * t["twice"] - t["minus"] == level


@pytest.mark.parametrize("level", range(-1, 9))
def test_adds_level_times_weight(level):
    dut = ProcessingElement(cfg=preset("tiny"))
    weights = [-128, -127, -1, 0, 1, 2, 85, 127]

    async def bench(ctx):
        ctx.set(dut.terms, level_terms(level))
        ctx.set(dut.slot, 17)
        ctx.set(dut.r_slot, 17)
        for cycle, weight in enumerate([*weights, 0]):
            ctx.set(dut.weight, weight)
            ctx.set(dut.add, cycle > 0)
            ctx.set(dut.first, cycle == 1)
            if cycle >= ProcessingElement.latency:
                assert ctx.get(dut.r_sum) == level * sum(weights[:cycle - 1])
            await ctx.tick()
        assert ctx.get(dut.r_sum) == level * sum(weights)

    simulate(dut, bench)
