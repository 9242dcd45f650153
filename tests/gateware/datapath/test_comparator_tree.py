"""`ComparatorTree` against `max`: signed, unsigned and composite keys, ties, registers."""

import random

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, signed, unsigned
from amaranth.lib import data

from spikeloom_hw.datapath.comparator_tree import ComparatorTree
from spikeloom_sim.pysim import simulate


def clocked(dut):
    """The tree beside a register, so that a combinational one can be simulated too."""
    m = Module()
    m.submodules.dut = dut
    m.d.sync += Signal(name="beat").eq(1)
    return m


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 16])
@pytest.mark.parametrize("key", [signed(3), unsigned(4), signed(12)], ids=repr)
@pytest.mark.parametrize("levels_per_stage, ties", [(0, "low"), (0, "high"), (1, "low"), (2, "high"), (3, "low")])
def test_largest(n, key, levels_per_stage, ties):
    rng = random.Random(n)
    dut = ComparatorTree(key=key, n=n, levels_per_stage=levels_per_stage, ties=ties)
    assert dut.latency == (0 if not levels_per_stage else -(-(n - 1).bit_length() // levels_per_stage))
    low = -(1 << key.width - 1) if key.signed else 0
    sets = [[rng.randrange(low, low + (1 << key.width)) for _ in range(n)] for _ in range(60)]
    got = []

    async def bench(ctx):
        for cycle in range(len(sets) + dut.latency):
            ctx.set(dut.i, sets[min(cycle, len(sets) - 1)])
            await ctx.delay(1e-9)
            if cycle >= dut.latency:
                got.append((ctx.get(dut.o), ctx.get(dut.o_index)))
            await ctx.tick()

    simulate(clocked(dut), bench)
    index = {"low": lambda keys: int(np.argmax(keys)), "high": lambda keys: n - 1 - int(np.argmax(keys[::-1]))}[ties]
    assert got == [(max(keys), index(keys)) for keys in sets]


def test_composite_key():
    layout = data.StructLayout({"id": 2, "score": 3, "valid": 1})
    dut = ComparatorTree(key=layout, n=4)

    async def bench(ctx):
        rng = random.Random(3)
        for _ in range(100):
            keys = [{"id": rng.randrange(4), "score": rng.randrange(8), "valid": rng.randrange(2)} for _ in range(4)]
            ctx.set(dut.i, keys)
            await ctx.delay(1e-9)
            best = max(keys, key=lambda key: (key["valid"], key["score"], key["id"]))
            assert {name: ctx.get(getattr(dut.o, name)) for name in best} == best
            await ctx.tick()

    simulate(clocked(dut), bench)


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
@pytest.mark.parametrize("fields", [{"n": 0}, {"n": 2, "ties": "first"}, {"n": 2, "levels_per_stage": -1}])
def test_refuses(fields):
    with pytest.raises(ValueError):
        ComparatorTree(key=4, **fields)
