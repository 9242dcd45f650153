"""Small memories: `parameter_table`, `residual_store`, `membrane_memory`, `window_memory`."""

import random
from dataclasses import replace

import pytest

from spikeloom.arch.presets import preset
from spikeloom_hw.storage.membrane_memory import MembraneMemory
from spikeloom_hw.storage.parameter_table import ParameterTable
from spikeloom_hw.storage.residual_store import ResidualStore
from spikeloom_hw.storage.window_memory import WindowMemory
from spikeloom_sim.pysim import simulate

CFG = preset("tiny")


def test_parameter_table_keeps_groups():
    dut = ParameterTable(cfg=CFG)
    words = {i: (0x0123456789ABCDEF << (i % 60)) * (i + 1) % (1 << CFG.lanes * 64) for i in (0, 1, 77, CFG.parameter_words - 1)}

    async def bench(ctx):
        ctx.set(dut.l_en, 1)
        for address, word in words.items():
            ctx.set(dut.l_address, address)
            ctx.set(dut.l_data, word)
            await ctx.tick()
        ctx.set(dut.l_en, 0)
        for address, word in words.items():
            ctx.set(dut.address, address)
            await ctx.tick()
            assert ctx.get(dut.o_records) == word

    simulate(dut, bench)


@pytest.mark.parametrize("cfg", [replace(CFG, residual_slots=16), replace(CFG, max_width=24, max_neurons=72, residual_slots=5),
                                 replace(CFG, residual_slots=1)],
                         ids=["even", "odd", "one"])
def test_residual_store_keeps_streams_apart(cfg):
    dut, rng = ResidualStore(cfg=cfg), random.Random(1)
    kept = {}

    async def bench(ctx):
        for _ in range(1200):
            # The group asked for in the cycle before answers; one written in that cycle is not seen yet.
            slot, read, written = rng.randrange(cfg.residual_slots), rng.randrange(cfg.max_width // 4), rng.randrange(cfg.max_width // 4)
            expected, write, new = kept.get((slot, read)), rng.random() < 0.6, rng.getrandbits(16 * cfg.lanes)
            ctx.set(dut.slot, slot)
            ctx.set(dut.r_group, read)
            ctx.set(dut.w_group, written)
            ctx.set(dut.w_en, write)
            ctx.set(dut.w_values, new)
            await ctx.tick()
            if expected is not None and not (write and written == read):
                assert ctx.get(dut.r_values) == expected
            if write:
                kept[slot, written] = new

    simulate(dut, bench)
    assert len(kept) == cfg.residual_slots * cfg.max_width // cfg.lanes


@pytest.mark.parametrize("words", [CFG.membrane_words, 5, 1])
def test_membrane_memory_keeps_groups(words):
    cfg, rng = replace(CFG, membrane_words=words), random.Random(2)
    dut = MembraneMemory(cfg=cfg)
    kept = {at: rng.getrandbits(32 * cfg.lanes) for at in {0, words // 2, words - 1}}

    async def bench(ctx):
        ctx.set(dut.w_en, 1)
        for at, word in kept.items():
            ctx.set(dut.w_address, at)
            ctx.set(dut.w_values, word)
            await ctx.tick()
        ctx.set(dut.w_en, 0)
        for at, word in kept.items():
            ctx.set(dut.r_address, at)
            await ctx.tick()
            assert ctx.get(dut.r_values) == word

    simulate(dut, bench)


def test_window_memory_advances_and_drops_what_is_too_much():
    dut = WindowMemory(depth=6, part_width=8, parts=4)

    async def bench(ctx):
        ctx.set(dut.index, 8)
        ctx.set(dut.index_strobe, 1)
        await ctx.tick()
        ctx.set(dut.index_strobe, 0)
        ctx.set(dut.data_strobe, 1)
        for value in range(20):
            ctx.set(dut.data, 0x10 + value)
            await ctx.tick()
        ctx.set(dut.data_strobe, 0)
        for word in range(2, 6):
            ctx.set(dut.address, word)
            await ctx.tick()
            first = 0x10 + 4 * (word - 2)
            assert ctx.get(dut.o_data) == int.from_bytes(bytes(range(first, first + 4)), "little")
        ctx.set(dut.index, 32)  # past the end: must not come back to the start
        ctx.set(dut.index_strobe, 1)
        await ctx.tick()
        ctx.set(dut.index_strobe, 0)
        ctx.set(dut.data_strobe, 1)
        await ctx.tick().repeat(3)
        ctx.set(dut.data_strobe, 0)
        ctx.set(dut.address, 0)
        await ctx.tick()
        assert ctx.get(dut.o_data) == 0

    simulate(dut, bench)
