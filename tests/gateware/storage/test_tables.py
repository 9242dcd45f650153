"""Small memories: `parameter_table`, `residual_buffer`, `window_memory`."""

from spikeloom.arch.presets import preset
from spikeloom_hw.storage.parameter_table import ParameterTable
from spikeloom_hw.storage.residual_buffer import ResidualBuffer
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


def test_residual_buffer_reads_two_groups_at_once():
    dut = ResidualBuffer(cfg=CFG)

    async def bench(ctx):
        ctx.set(dut.w_en, 1)
        for group in range(CFG.max_width // CFG.lanes):
            ctx.set(dut.w_group, group)
            ctx.set(dut.w_values, 0x1111_2222_3333_4440 + group)
            await ctx.tick()
        ctx.set(dut.w_en, 0)
        for group in range(CFG.max_width // CFG.lanes):
            ctx.set(dut.r_group, group)
            ctx.set(dut.d_group, group ^ 1)
            assert ctx.get(dut.r_values) == 0x1111_2222_3333_4440 + group
            assert ctx.get(dut.d_values) == 0x1111_2222_3333_4440 + (group ^ 1)

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
