"""`datapath.pe`: every weight times every level, back to back; two of them at once."""

from dataclasses import replace

import pytest

from spikeloom.arch.presets import preset
from spikeloom_hw.datapath.pe import ProcessingElement, level_terms
from spikeloom_sim.pysim import simulate


def test_terms_make_the_level():
    for level in range(-8, 9):
        t = level_terms(level)
        size = 4 * t["four"] + 8 * t["eight"] + (-1 if t["once"] and t["twice"] else t["once"] + 2 * t["twice"])
        assert (-size if t["negative"] else size) == level


@pytest.mark.parametrize("level", range(-8, 9))
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
            if cycle >= dut.latency:
                assert ctx.get(dut.r_sum) == level * sum(weights[:cycle - 1])
            await ctx.tick()
        assert ctx.get(dut.r_sum) == level * sum(weights)

    simulate(dut, bench)


@pytest.mark.parametrize("levels", [(-1, 8), (0, 7), (8, 8), (3, 0), (-7, 5), (6, -6), (-8, -8), (-3, 0), (0, -5)])
def test_adds_two_products(levels):
    dut = ProcessingElement(cfg=replace(preset("tiny"), events=2))
    pairs = [(-128, -128), (127, -128), (127, 127), (-1, 1), (0, 85), (3, 0)]
    expected = [levels[0] * a + levels[1] * b for a, b in pairs]

    async def bench(ctx):
        ctx.set(dut.terms, level_terms(levels[0]))
        ctx.set(dut.terms_b, level_terms(levels[1]))
        for cycle, (a, b) in enumerate([*pairs, (0, 0), (0, 0)]):
            ctx.set(dut.weight, a)
            ctx.set(dut.weight_b, b)
            ctx.set(dut.add, cycle > 1)
            ctx.set(dut.first, cycle == 2)
            if cycle >= dut.latency:
                assert ctx.get(dut.r_sum) == sum(expected[:cycle - 2])
            await ctx.tick()
        assert ctx.get(dut.r_sum) == sum(expected)

    simulate(dut, bench)
