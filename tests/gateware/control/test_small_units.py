"""Small control units: `counters`, `dumper`, `fetch`, `reset_controller`."""

import random

import pytest

from spikeloom.arch.commands import Buffer, Command, Opcode, encode
from spikeloom.arch.presets import preset
from spikeloom.arch.registers import COUNTERS, ErrorCode
from spikeloom_hw.control.counters import Counters
from spikeloom_hw.control.dumper import READ_CYCLES, Dumper
from spikeloom_hw.control.fetch import Fetch
from spikeloom_hw.control.reset_controller import ResetController
from spikeloom_sim.pysim import Checked, Stalls, receive, simulate

CFG = preset("tiny")


def test_counters_add_and_clear():
    dut = Counters()
    rng = random.Random(1)
    totals = dict.fromkeys(COUNTERS, 0)

    async def bench(ctx):
        for _ in range(50):
            for name in COUNTERS:
                step = rng.choice([0, 1, rng.randrange(1 << 24)])
                totals[name] += step
                ctx.set(getattr(dut, f"add_{name}"), step)
            await ctx.tick()
        for name in COUNTERS:
            ctx.set(getattr(dut, f"add_{name}"), 0)
        await ctx.tick().repeat(Counters.latency)
        assert {name: ctx.get(getattr(dut, name)) for name in COUNTERS} == totals
        assert max(totals.values()) > 1 << 27
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        await ctx.tick().repeat(2)
        assert not any(ctx.get(getattr(dut, name)) for name in COUNTERS)

    simulate(dut, bench)


@pytest.mark.parametrize("stall", [0.0, 0.6])
@pytest.mark.parametrize("buffer, port, width", [
    (Buffer.RESIDUAL, "residual", 16), (Buffer.SPIKES_0, "spikes", CFG.level_bits), (Buffer.SPIKES_1, "spikes", CFG.level_bits),
    (Buffer.SPIKES_2, "spikes", CFG.level_bits), (Buffer.LOGITS, "logits", CFG.acc_width), (Buffer.GATHER, "gather", CFG.gather_width)])
def test_dumper_widens_each_buffer(buffer, port, width, stall):
    dut = Checked(Dumper(cfg=CFG))
    rng = random.Random(2)
    groups = [[rng.getrandbits(width) for _ in range(CFG.lanes)] for _ in range(5)]

    async def memory(ctx):
        """Answers as late as a buffer may."""
        asked = [0] * READ_CYCLES
        while True:
            asked = [*asked[1:], ctx.get(dut.group)]
            words = groups[min(asked[0], 4)]
            ctx.set(getattr(dut, port), sum(word << (i * width) for i, word in enumerate(words)))
            await ctx.tick()

    async def bench(ctx):
        ctx.set(dut.buffer, buffer)
        ctx.set(dut.groups, 5)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        got = await receive(ctx, dut.o, 5, Stalls("dump", stall))
        assert ctx.get(dut.done)
        if port == "spikes":
            assert ctx.get(dut.spike_buffer) == [Buffer.SPIKES_0, Buffer.SPIKES_1, Buffer.SPIKES_2].index(buffer)
        for words, payload in zip(groups, got, strict=True):
            for i, word in enumerate(words):
                negative = 2 * word > 1 << width if port == "spikes" else word >> (width - 1)
                value = word - (1 << width) if negative else word
                assert payload >> (32 * i) & 0xFFFF_FFFF == value & 0xFFFF_FFFF

    simulate(dut, bench, background=[memory])


def test_fetch_reads_ahead_redirects_and_checks():
    dut = Fetch(cfg=CFG)
    program = [Command(Opcode.FIRE, {"groups": 1, "level": 2, "params": i}) for i in range(6)] + [Command(Opcode.FIRE, {})]
    words = [encode(command) for command in program] + [0] * CFG.program_words

    async def memory(ctx):
        address = 0
        while True:
            ctx.set(dut.i_data, words[address])
            address = ctx.get(dut.address) % CFG.program_words
            await ctx.tick()

    async def wait(ctx):
        cycles = 0
        while not ctx.get(dut.valid):
            await ctx.tick()
            cycles += 1
        return cycles

    async def pulse(ctx, signal):
        ctx.set(signal, 1)
        await ctx.tick()
        ctx.set(signal, 0)

    async def bench(ctx):
        ctx.set(dut.context, 16)
        for target in (0, 3):
            ctx.set(dut.target, target)
            await pulse(ctx, dut.redirect)
            for index in range(target, 7):
                assert await wait(ctx) == Fetch.latency - 1
                await ctx.tick().repeat(2)
                assert ctx.get(dut.valid) and ctx.get(dut.index) == index and ctx.get(dut.command) == words[index]
                assert ctx.get(dut.code) == (ErrorCode.BAD_PROGRAM if index == 6 else ErrorCode.NONE)
                await pulse(ctx, dut.take)
        # Past the end there is no program, whatever the memory answers (a LOAD outside of the image, here).
        words[CFG.program_words % len(words)] = words[0] = encode(Command(Opcode.LOAD, {"l_words": 1, "l_offset": 1 << 20}))
        ctx.set(dut.target, CFG.program_words)
        await pulse(ctx, dut.redirect)
        await wait(ctx)
        assert ctx.get(dut.code) == ErrorCode.BAD_PROGRAM

    simulate(dut, bench, background=[memory])


@pytest.mark.parametrize("cure", ["drained", "bus_dead"])
def test_reset_waits_for_the_bus(cure):
    dut = ResetController()

    async def bench(ctx):
        assert not ctx.get(dut.core_reset)
        ctx.set(dut.request, 1)
        await ctx.tick()
        ctx.set(dut.request, 0)
        for _ in range(20):
            assert ctx.get(dut.core_reset) and ctx.get(dut.drain)
            await ctx.tick()
        ctx.set(getattr(dut, cure), 1)
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.core_reset) and not ctx.get(dut.drain)

    simulate(dut, bench)
