"""`bus.axi_writer`: every byte lands where it should, in legal bursts, under stalls, errors, drain and a dead bus."""

import random

import pytest

from spikeloom_hw.bus.axi import Response
from spikeloom_hw.bus.axi_writer import AxiWriter
from spikeloom_sim.memory import AxiMemory
from spikeloom_sim.pysim import Checked, Stalls, send, simulate, stall_cases


def beats_of(address, values, beat_bytes, strobe=None, finish=True):
    """Payloads of one request; only the first beat's address counts, the others carry rubbish."""
    strobe = (1 << beat_bytes) - 1 if strobe is None else strobe
    return [{"address": address if n == 0 else 0xBAD, "data": value, "strobe": strobe,
             "last": finish and n == len(values) - 1} for n, value in enumerate(values)]


def apply(contents, address, values, beat_bytes, strobe):
    """The reference: write the strobed bytes."""
    for n, value in enumerate(values):
        for lane, byte in enumerate(value.to_bytes(beat_bytes, "little")):
            if strobe >> lane & 1:
                contents[address + n * beat_bytes + lane] = byte


async def wait_idle(ctx, dut):
    while not ctx.get(dut.idle):
        await ctx.tick()
    await ctx.tick()


@pytest.mark.parametrize("data_width, axi3", [(64, False), (64, True), (128, False)])
@pytest.mark.parametrize("seed, bus_stall, source_stall", stall_cases(seeds=(1,)))
def test_writes_what_was_given(data_width, axi3, seed, bus_stall, source_stall):
    print(f"seed {seed}")
    rng = random.Random(seed)
    dut = Checked(AxiWriter(data_width=data_width, axi3=axi3))
    memory = AxiMemory(dut.m_axi, seed=seed, stall=bus_stall)
    size = memory.beat_bytes
    expected = bytearray(len(memory.data))
    payloads, starts = [], [(4096 - size, 3), (4096 - 3 * size, 40), (0, 16), (8192, 17), (12288, 1)]
    starts += [(size * rng.randrange((1 << 16) // size - 40), rng.choice([1, 1, 2, 5, 16, 35])) for _ in range(10)]
    for address, count in starts:
        values = [rng.getrandbits(data_width) for _ in range(count)]
        strobe = rng.choice([(1 << size) - 1, 0x0F, 0xF0, rng.getrandbits(size)])
        apply(expected, address, values, size, strobe)
        payloads += beats_of(address + rng.randrange(size), values, size, strobe)
    done = []

    async def source(ctx):
        await send(ctx, dut.i, payloads, Stalls(f"{seed} beat", source_stall))
        await ctx.tick()
        await wait_idle(ctx, dut)
        assert not ctx.get(dut.error.valid) and not ctx.get(dut.bus_dead)

    async def count_done(ctx):
        async for _, _, pulse in ctx.tick().sample(dut.o_done):
            done.append(pulse)

    simulate(dut, source, background=[memory.run, count_done])
    assert memory.data == expected
    assert sum(done) == len(starts)


def test_latency():
    dut = AxiWriter(data_width=64)
    memory = AxiMemory(dut.m_axi)
    seen = {}

    async def bench(ctx):
        ctx.set(dut.i.payload, beats_of(64, [7], 8)[0])
        ctx.set(dut.i.valid, 1)
        for cycle in range(30):
            for name, signal in (("aw", dut.m_axi.awvalid), ("w", dut.m_axi.wvalid), ("b", dut.m_axi.bvalid), ("done", dut.o_done)):
                if ctx.get(signal):
                    seen.setdefault(name, cycle)
            await ctx.tick()
            ctx.set(dut.i.valid, 0)

    simulate(dut, bench, background=[memory.run])
    assert (seen["aw"], seen["w"]) == (2, 2)
    assert seen["done"] == seen["b"] + 1


def test_full_rate():
    dut = AxiWriter(data_width=64)
    memory = AxiMemory(dut.m_axi, latency=3)
    transfers = []

    async def bench(ctx):
        await send(ctx, dut.i, beats_of(0, list(range(128)), 8))
        await wait_idle(ctx, dut)

    async def count(ctx):
        async for _, _, valid, ready in ctx.tick().sample(dut.m_axi.wvalid, dut.m_axi.wready):
            transfers.append(valid and ready)

    simulate(dut, bench, background=[memory.run, count])
    assert sum(transfers) == 128
    assert len(transfers) <= 128 + 30


def test_done_waits_for_the_answer():
    dut = Checked(AxiWriter(data_width=64))
    memory = AxiMemory(dut.m_axi)
    memory.deaf.add("b")

    async def bench(ctx):
        await send(ctx, dut.i, beats_of(0, [1], 8))
        for _ in range(50):
            assert not ctx.get(dut.o_done)
            await ctx.tick()
        assert memory.data[0] == 1 and not ctx.get(dut.idle)

    simulate(dut, bench, background=[memory.run])


@pytest.mark.parametrize("code", [Response.SLVERR, Response.DECERR])
def test_reports_the_first_error_with_its_address(code):
    dut = Checked(AxiWriter(data_width=64))
    memory = AxiMemory(dut.m_axi)
    memory.faults.append((0x1000, 0x2000, code.value))

    async def bench(ctx):
        await send(ctx, dut.i, beats_of(0xFF8, [1, 2], 8) + beats_of(0x1800, [3], 8))
        await ctx.tick()
        await wait_idle(ctx, dut)
        error = ctx.get(dut.error)
        assert (error.valid, error.code, error.address) == (1, code, 0x1000)
        ctx.set(dut.drain, 1)
        await ctx.tick().until(dut.drained)
        ctx.set(dut.drain, 0)
        assert not ctx.get(dut.error.valid)

    simulate(dut, bench, background=[memory.run])


@pytest.mark.parametrize("seed", range(12))
def test_drains_at_any_moment_and_works_again(seed):
    print(f"seed {seed}")
    rng = random.Random(seed)
    dut = AxiWriter(data_width=64)
    memory = AxiMemory(dut.m_axi, seed=seed, stall=rng.choice([0, 0.5]), latency=rng.randrange(20))

    async def bench(ctx):
        for turn in range(1, 5):
            cut = rng.randrange(1, 40)
            values = [rng.getrandbits(64) for _ in range(cut)]
            await send(ctx, dut.i, beats_of(0x4000, values, 8, finish=rng.randrange(2)))
            ctx.set(dut.drain, 1)
            await ctx.tick().until(dut.drained)
            assert ctx.get(dut.idle)
            written = bytearray(8 * cut)
            apply(written, 0, values, 8, 0xFF)
            assert memory.data[0x4000:0x4000 + 8 * cut] == written
            ctx.set(dut.drain, 0)
            await ctx.tick()
            await send(ctx, dut.i, beats_of(0x100 * turn, [turn, turn + 1], 8))
            await ctx.tick().until(dut.o_done)
            assert memory.data[0x100 * turn] == turn and memory.data[0x100 * turn + 8] == turn + 1

    simulate(dut, bench, background=[memory.run])


@pytest.mark.parametrize("silence", ["aw", "w", "b"])
def test_declares_a_silent_bus_dead(silence):
    dut = Checked(AxiWriter(data_width=64))
    memory = AxiMemory(dut.m_axi)
    memory.deaf.add(silence)

    async def bench(ctx):
        ctx.set(dut.timeout, 50)
        await ctx.tick().repeat(100)
        assert not ctx.get(dut.bus_dead), "nothing is outstanding"
        await send(ctx, dut.i, beats_of(0, [1, 2], 8))
        cycles = 0
        while not ctx.get(dut.bus_dead):
            await ctx.tick()
            cycles += 1
            assert cycles < 80
        assert not ctx.get(dut.i.ready)

    simulate(dut, bench, background=[memory.run])


def test_refuses_too_little_room():
    with pytest.raises(ValueError, match=r"^A burst of 16 beats must fit; max_waiting_beats is 8\.$"):
        AxiWriter(data_width=64, max_waiting_beats=8)
