"""`bus.striped_reader`: requests come back whole from several ports, in legal bursts, whatever one of the ports does."""

import random
from dataclasses import replace

import numpy as np
import pytest

from spikeloom.arch.layout import stripe, unstripe
from spikeloom.arch.presets import preset
from spikeloom_hw.bus.axi import Response
from spikeloom_hw.bus.striped_reader import StripedReader, port_name
from spikeloom_sim.memory import AxiMemory
from spikeloom_sim.pysim import Checked, Stalls, receive, send, simulate, stall_cases

#: Bytes of the memory, in the order of requests.
CONTENTS = random.Random(1).randbytes(1 << 16)


def build(ports, memories=({}, {}, {}, {}), checked=True, **options):
    """A reader and the memory behind each port, all with the same contents."""
    cfg = replace(preset("kv260"), ports=ports, data_width=64)
    dut = StripedReader(ports=ports, data_width=64, **options)
    dut = Checked(dut) if checked else dut
    behind = [AxiMemory(getattr(dut, port_name(port)), **memories[port]) for port in range(ports)]
    for memory in behind:
        memory.data[:] = stripe(CONTENTS, cfg).tobytes()
    return dut, behind


def payloads(requests):
    return [{"address": address, "beats": beats} for address, beats in requests]


def expected_beats(requests, ports):
    size = 8 * ports
    return [(int.from_bytes(CONTENTS[at + n * size:at + (n + 1) * size], "little"), n == beats - 1)
            for at, beats in requests for n in range(beats)]


def random_requests(rng, ports, count):
    size = 8 * ports
    requests = [(4096 * ports - size, 2), (4096 * ports - 3 * size, 40), (0, 16), (16 * size, 17)]
    for _ in range(count):
        beats = rng.choice([1, 2, 8, 16, 17, rng.randrange(1, 70)])
        requests.append((size * rng.randrange(len(CONTENTS) // size - beats), beats))
    return requests


@pytest.mark.parametrize("ports, axi3", [(2, True), (2, False), (4, False)])
@pytest.mark.parametrize("seed, bus_stall, sink_stall", stall_cases(seeds=(1,)))
def test_returns_what_was_asked(ports, axi3, seed, bus_stall, sink_stall):
    print(f"seed {seed}")
    memories = [{"seed": f"{seed} {port}", "stall": bus_stall, "latency": 3 + 9 * port} for port in range(ports)]
    dut, behind = build(ports, memories, axi3=axi3, max_outstanding_beats=40, max_outstanding_bursts=4)
    got = []
    requests = random_requests(random.Random(seed), ports, 10)

    async def source(ctx):
        await send(ctx, dut.i_request, payloads(requests), Stalls(f"{seed} request", bus_stall / 2))

    async def sink(ctx):
        got.extend(await receive(ctx, dut.o_beat, sum(beats for _, beats in requests), Stalls(f"{seed} beat", sink_stall)))
        await ctx.tick()
        assert ctx.get(dut.idle) and not ctx.get(dut.error.valid) and not ctx.get(dut.bus_dead)

    simulate(dut, source, sink, background=[memory.run for memory in behind])
    assert [(beat.data, beat.last) for beat in got] == expected_beats(requests, ports)
    # Equal bursts, each in the blocks of its own port (`AxiMemory` asserts that none crosses a block).
    lengths = {tuple(beats for _, _, beats in memory.bursts) for memory in behind}
    assert len(lengths) == 1
    for port, memory in enumerate(behind):
        assert {address // 4096 % ports for _, address, _ in memory.bursts} == {port}


def test_every_port_brings_a_beat_per_cycle():
    dut, behind = build(2, [{"latency": 10}, {"latency": 30}], max_outstanding_beats=64)
    seen = []

    async def bench(ctx):
        ctx.set(dut.o_beat.ready, 1)
        ctx.set(dut.i_request.payload, {"address": 0, "beats": 128})
        ctx.set(dut.i_request.valid, 1)
        for cycle in range(250):
            if ctx.get(dut.o_beat.valid):
                seen.append(cycle)
            await ctx.tick()
            ctx.set(dut.i_request.valid, 0)

    simulate(dut, bench, background=[memory.run for memory in behind])
    assert len(seen) == 128 and seen[-1] - seen[0] == 127


@pytest.mark.parametrize("port", [0, 1])
def test_an_error_names_the_address_of_its_port(port):
    dut, behind = build(2)
    physical = (port + 2) * 4096 + 0x208
    behind[port].faults.append((physical, physical + 8, Response.SLVERR.value))

    async def bench(ctx):
        await send(ctx, dut.i_request, payloads([(0x2000 + 0x3F0, 8)]))
        beats = await receive(ctx, dut.o_beat, 8)
        assert [beat.last for beat in beats] == [0] * 7 + [1]
        error = ctx.get(dut.error)
        assert (error.valid, error.code, error.address) == (1, Response.SLVERR, physical)
        ctx.set(dut.drain, 1)
        await ctx.tick().until(dut.drained)
        assert not ctx.get(dut.error.valid)

    simulate(dut, bench, background=[memory.run for memory in behind])


@pytest.mark.parametrize("port", [0, 1])
@pytest.mark.parametrize("silence", ["ar", "r"])
def test_one_silent_port_is_a_dead_bus(port, silence):
    dut, behind = build(2)
    if silence == "ar":
        behind[port].deaf.add("ar")
    else:
        behind[port].silent_after = 5

    async def bench(ctx):
        ctx.set(dut.timeout, 50)
        ctx.set(dut.o_beat.ready, 1)
        await send(ctx, dut.i_request, payloads([(0, 8)]))
        cycles = 0
        while not ctx.get(dut.bus_dead):
            await ctx.tick()
            cycles += 1
            assert cycles < 80
        assert not ctx.get(dut.i_request.ready)
        ctx.set(dut.drain, 1)
        await ctx.tick().repeat(20)
        assert ctx.get(dut.bus_dead) and not ctx.get(dut.drained)

    simulate(dut, bench, background=[memory.run for memory in behind])


@pytest.mark.parametrize("seed", range(6))
def test_drains_at_any_moment_and_works_again(seed):
    print(f"seed {seed}")
    rng = random.Random(seed)
    memories = [{"seed": f"{seed} {port}", "stall": rng.choice([0, 0.5]), "latency": rng.randrange(20)} for port in range(2)]
    # Unchecked: a drain withdraws beats, its user is in reset.
    dut, behind = build(2, memories, checked=False, max_outstanding_beats=48)

    async def bench(ctx):
        for _ in range(4):
            ctx.set(dut.i_request.payload, {"address": 16 * rng.randrange(2048), "beats": rng.randrange(1, 200)})
            ctx.set(dut.i_request.valid, 1)
            ctx.set(dut.o_beat.ready, rng.randrange(2))
            await ctx.tick().repeat(rng.randrange(1, 60))
            ctx.set(dut.i_request.valid, 0)
            ctx.set(dut.o_beat.ready, 0)
            ctx.set(dut.drain, 1)
            await ctx.tick().until(dut.drained)
            assert ctx.get(dut.idle)
            ctx.set(dut.drain, 0)
            await ctx.tick()
            requests = [(16 * rng.randrange(2048), 70)]
            await send(ctx, dut.i_request, payloads(requests))
            got = await receive(ctx, dut.o_beat, 70)
            assert [(beat.data, beat.last) for beat in got] == expected_beats(requests, 2)

    simulate(dut, bench, background=[memory.run for memory in behind])


def test_one_port_needs_no_stripes():
    with pytest.raises(ValueError, match="one needs an AxiReader"):
        StripedReader(ports=1, data_width=64)


@pytest.mark.parametrize("ports", [2, 4])
def test_stripes_of_memory(ports):
    cfg = replace(preset("kv260"), ports=ports, data_width=64)
    memory = stripe(CONTENTS[:-100], cfg)
    assert len(memory) == len(CONTENTS) and not memory[-100 // ports:].any()
    assert unstripe(memory, cfg)[:-100].tobytes() == CONTENTS[:-100]
    # The second beat's share of the last port.
    assert memory[(ports - 1) * 4096 + 8:][:8].tobytes() == CONTENTS[8 * (2 * ports - 1):][:8]
    one = replace(cfg, ports=1)
    assert np.array_equal(stripe(CONTENTS[:-100], one), np.frombuffer(CONTENTS[:-100], np.uint8))
