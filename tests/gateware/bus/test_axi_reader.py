"""`bus.axi_reader`: every request returns its bytes, in legal bursts, under stalls, errors, drain and a dead bus."""

import random

import pytest

from spikeloom_hw.bus.axi import Response
from spikeloom_hw.bus.axi_reader import AxiReader
from spikeloom_sim.memory import AxiMemory
from spikeloom_sim.pysim import Checked, Stalls, receive, send, simulate, stall_cases


def fill(memory, seed):
    memory.data[:] = random.Random(seed).randbytes(len(memory.data))


def expected_beats(memory, requests):
    size = memory.beat_bytes
    return [(int.from_bytes(memory.data[a + n * size:a + (n + 1) * size], "little"), n == beats - 1)
            for a, beats in requests for n in range(beats)]


def as_payloads(requests):
    return [{"address": address, "beats": beats} for address, beats in requests]


def random_requests(rng, beat_bytes, count):
    requests = [(4096 - beat_bytes, 2), (4096 - 3 * beat_bytes, 40), (0, 16), (16 * beat_bytes, 17), (8192, 1)]
    for _ in range(count):
        beats = rng.choice([1, 2, 8, 15, 16, 17, 33, rng.randrange(1, 70)])
        requests.append((beat_bytes * rng.randrange((1 << 16) // beat_bytes - beats), beats))
    return requests


@pytest.mark.parametrize("data_width, axi3", [(64, False), (64, True), (128, False)])
@pytest.mark.parametrize("seed, bus_stall, sink_stall", stall_cases(seeds=(1,)))
def test_returns_what_was_asked(data_width, axi3, seed, bus_stall, sink_stall):
    print(f"seed {seed}")
    rng = random.Random(seed)
    reader = AxiReader(data_width=data_width, axi3=axi3, max_outstanding_beats=40, max_outstanding_bursts=4)
    dut = Checked(reader)
    memory = AxiMemory(dut.m_axi, seed=seed, stall=bus_stall)
    fill(memory, seed)
    requests = random_requests(rng, memory.beat_bytes, 12)
    expected = expected_beats(memory, requests)
    got = []

    async def source(ctx):
        await send(ctx, dut.i_request, as_payloads(requests), Stalls(f"{seed} request", bus_stall / 2))

    async def sink(ctx):
        got.extend(await receive(ctx, dut.o_beat, len(expected), Stalls(f"{seed} beat", sink_stall)))
        await ctx.tick()
        assert ctx.get(dut.idle) and not ctx.get(dut.error.valid) and not ctx.get(dut.bus_dead)

    simulate(dut, source, sink, background=[memory.run])
    assert [(beat.data, beat.last) for beat in got] == expected
    assert memory.most_outstanding > 1


def test_latency_and_full_rate():
    dut = AxiReader(data_width=64, max_outstanding_beats=64)
    memory = AxiMemory(dut.m_axi, latency=10)
    seen = {}

    async def bench(ctx):
        ctx.set(dut.o_beat.ready, 1)
        ctx.set(dut.i_request.payload, {"address": 0, "beats": 128})
        ctx.set(dut.i_request.valid, 1)
        beats = 0
        for cycle in range(200):
            for name in ("m_axi.arvalid", "m_axi.rvalid", "o_beat.valid"):
                port, signal = name.split(".")
                if ctx.get(getattr(getattr(dut, port), signal)):
                    seen.setdefault(name, cycle)
            beats += ctx.get(dut.o_beat.valid)
            if beats == 128:
                seen["end"] = cycle
                return
            await ctx.tick()
            ctx.set(dut.i_request.valid, 0)

    simulate(dut, bench, background=[memory.run])
    assert seen["m_axi.arvalid"] == 2
    assert seen["o_beat.valid"] == seen["m_axi.rvalid"] + 1
    assert seen["end"] - seen["o_beat.valid"] == 127


def test_issues_one_short_burst_per_cycle():
    dut = AxiReader(data_width=64, max_outstanding_bursts=8)
    memory = AxiMemory(dut.m_axi, latency=20)
    cycles = []

    async def bench(ctx):
        ctx.set(dut.i_request.valid, 1)
        for cycle in range(10):
            ctx.set(dut.i_request.payload, {"address": 64 * cycle, "beats": 2})
            if ctx.get(dut.m_axi.arvalid):
                cycles.append(cycle)
            await ctx.tick()

    simulate(dut, bench, background=[memory.run])
    assert cycles == [2, 3, 4, 5, 6, 7, 8, 9]


def test_never_reads_without_room():
    dut = Checked(AxiReader(data_width=64, max_outstanding_beats=33))
    memory = AxiMemory(dut.m_axi, latency=1)

    async def bench(ctx):
        await send(ctx, dut.i_request, as_payloads([(0, 100)]))
        await ctx.tick().repeat(100)
        assert memory.bursts == [("r", 0, 16), ("r", 128, 16)]
        assert ctx.get(dut.m_axi.rready)

    simulate(dut, bench, background=[memory.run])


def test_swallows_an_empty_request():
    dut = Checked(AxiReader(data_width=64))
    memory = AxiMemory(dut.m_axi)

    async def bench(ctx):
        await send(ctx, dut.i_request, as_payloads([(0, 0), (64, 1)]))
        beat, = await receive(ctx, dut.o_beat, 1)
        assert beat.last
        await ctx.tick()
        assert ctx.get(dut.idle)

    simulate(dut, bench, background=[memory.run])
    assert memory.bursts == [("r", 64, 1)]


@pytest.mark.parametrize("code", [Response.SLVERR, Response.DECERR])
def test_reports_the_first_error_with_its_address(code):
    dut = Checked(AxiReader(data_width=64))
    memory = AxiMemory(dut.m_axi)
    memory.faults.append((0x1008, 0x1018, code.value))

    async def bench(ctx):
        await send(ctx, dut.i_request, as_payloads([(0xFC0, 32), (0, 1)]))
        beats = await receive(ctx, dut.o_beat, 33)
        assert [n for n, beat in enumerate(beats) if beat.last] == [31, 32]
        error = ctx.get(dut.error)
        assert (error.valid, error.code, error.address) == (1, code, 0x1008)
        ctx.set(dut.drain, 1)
        await ctx.tick().until(dut.drained)
        ctx.set(dut.drain, 0)
        assert not ctx.get(dut.error.valid)

    simulate(dut, bench, background=[memory.run])


@pytest.mark.parametrize("seed", range(12))
def test_drains_at_any_moment_and_works_again(seed):
    print(f"seed {seed}")
    rng = random.Random(seed)
    dut = AxiReader(data_width=64, max_outstanding_beats=48)  # unchecked: a drain withdraws beats, its user is in reset
    memory = AxiMemory(dut.m_axi, seed=seed, stall=rng.choice([0, 0.5]), latency=rng.randrange(20))
    fill(memory, seed)

    async def bench(ctx):
        for _ in range(4):
            ctx.set(dut.i_request.payload, {"address": 8 * rng.randrange(4096), "beats": rng.randrange(1, 200)})
            ctx.set(dut.i_request.valid, 1)
            ctx.set(dut.o_beat.ready, rng.randrange(2))
            await ctx.tick().repeat(rng.randrange(1, 60))
            ctx.set(dut.i_request.valid, 0)
            ctx.set(dut.o_beat.ready, 0)
            ctx.set(dut.drain, 1)
            await ctx.tick().until(dut.drained)
            assert ctx.get(dut.idle)
            await ctx.tick().repeat(rng.randrange(1, 4))
            ctx.set(dut.drain, 0)
            await ctx.tick()
            requests = [(8 * rng.randrange(4096), 70), (0, 3)]
            await send(ctx, dut.i_request, as_payloads(requests[:1]))
            got = await receive(ctx, dut.o_beat, 70)
            await send(ctx, dut.i_request, as_payloads(requests[1:]))
            got += await receive(ctx, dut.o_beat, 3)
            assert [(beat.data, beat.last) for beat in got] == expected_beats(memory, requests)

    simulate(dut, bench, background=[memory.run])


@pytest.mark.parametrize("silence", ["ar", "r"])
def test_declares_a_silent_bus_dead(silence):
    dut = Checked(AxiReader(data_width=64))
    memory = AxiMemory(dut.m_axi)
    if silence == "ar":
        memory.deaf.add("ar")
    else:
        memory.silent_after = 5

    async def bench(ctx):
        ctx.set(dut.timeout, 50)
        ctx.set(dut.o_beat.ready, 1)
        await ctx.tick().repeat(100)
        assert not ctx.get(dut.bus_dead), "nothing is outstanding"
        await send(ctx, dut.i_request, as_payloads([(0, 8)]))
        cycles = 0
        while not ctx.get(dut.bus_dead):
            await ctx.tick()
            cycles += 1
            assert cycles < 80
        assert cycles >= 50
        assert not ctx.get(dut.i_request.ready)
        ctx.set(dut.drain, 1)
        await ctx.tick().repeat(20)
        assert ctx.get(dut.bus_dead) and not ctx.get(dut.drained)

    simulate(dut, bench, background=[memory.run])


def test_a_slow_bus_is_not_dead():
    dut = Checked(AxiReader(data_width=64))
    memory = AxiMemory(dut.m_axi, latency=45)

    async def bench(ctx):
        ctx.set(dut.timeout, 50)
        await send(ctx, dut.i_request, as_payloads([(0, 8)] * 5))
        await receive(ctx, dut.o_beat, 40)
        assert not ctx.get(dut.bus_dead)

    simulate(dut, bench, background=[memory.run])


def test_refuses_too_little_room():
    with pytest.raises(ValueError, match=r"^A burst of 16 beats needs room and one beat more; max_outstanding_beats is 16\.$"):
        AxiReader(data_width=64, max_outstanding_beats=16)
