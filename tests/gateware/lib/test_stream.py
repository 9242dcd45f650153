"""`lib.stream`: order, fullness, throughput and latency of queues and slices; the checker sees violations."""

import random
from collections import deque

import pytest
from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from spikeloom_hw.lib.stream import Checker, Queue, SkidBuffer
from spikeloom_sim.pysim import Checked, Stalls, receive, send, simulate, stall_cases

BLOCKS = {
    "queue2": lambda shape: Queue(shape, depth=2),
    "queue3": lambda shape: Queue(shape, depth=3),
    "queue8": lambda shape: Queue(shape, depth=8),
    "queue17": lambda shape: Queue(shape, depth=17),
    "skid": SkidBuffer,
}


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("seed, source_stall, sink_stall", stall_cases())
def test_keeps_order(block, seed, source_stall, sink_stall):
    print(f"seed {seed}")
    dut = Checked(BLOCKS[block](16))
    sent = [random.Random(seed).getrandbits(16) for _ in range(100)]
    got = []

    async def source(ctx):
        await send(ctx, dut.i, sent, Stalls(f"{seed} source", source_stall))

    async def sink(ctx):
        got.extend(await receive(ctx, dut.o, len(sent), Stalls(f"{seed} sink", sink_stall)))

    simulate(dut, source, sink)
    assert got == sent


@pytest.mark.parametrize("block", BLOCKS)
def test_latency_and_throughput(block):
    dut = BLOCKS[block](8)
    arrivals = []

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i.valid, 1)
        for cycle in range(12):
            ctx.set(dut.i.payload, cycle)
            valid, payload, ready = ctx.get(dut.o.valid), ctx.get(dut.o.payload), ctx.get(dut.i.ready)
            assert ready
            if valid:
                arrivals.append((cycle, payload))
            await ctx.tick()

    simulate(dut, bench)
    assert arrivals == [(n + dut.latency, n) for n in range(12 - dut.latency)]


@pytest.mark.parametrize("depth", [2, 3, 8])
def test_queue_holds_exactly_its_depth(depth):
    dut = Queue(8, depth=depth)

    async def bench(ctx):
        model = deque()
        ctx.set(dut.i.valid, 1)
        while ctx.get(dut.i.ready):
            ctx.set(dut.i.payload, len(model))
            model.append(len(model))
            await ctx.tick()
        assert len(model) == depth == ctx.get(dut.level)
        ctx.set(dut.i.valid, 0)
        ctx.set(dut.o.ready, 1)
        while model:
            assert ctx.get(dut.level) == len(model)
            assert ctx.get(dut.o.valid) and ctx.get(dut.o.payload) == model.popleft()
            await ctx.tick()
        assert not ctx.get(dut.o.valid) and ctx.get(dut.level) == 0

    simulate(dut, bench)


def test_queue_takes_layouts():
    layout = data.StructLayout({"row": 4, "last": 1})
    dut = Queue(layout, depth=4)

    async def bench(ctx):
        await send(ctx, dut.i, [{"row": 5, "last": 1}])
        payload, = await receive(ctx, dut.o, 1)
        assert payload.row == 5 and payload.last == 1

    simulate(dut, bench)


def test_queue_refuses_a_depth_of_one():
    with pytest.raises(ValueError, match=r"^A queue holds at least two payloads; depth is 1\.$"):
        Queue(8, depth=1)


class Watched(wiring.Component):
    s: In(stream.Signature(8))
    transfers: Out(32)

    def elaborate(self, platform):
        m = Module()
        checker = Checker.watch(m, self.s, name="s")
        m.d.comb += self.transfers.eq(checker.transfers)
        return m


@pytest.mark.parametrize("change, message", [
    ({"valid": 0}, "valid fell"),
    ({"payload": 4}, "payload changed"),
])
def test_checker_sees_violations(change, message):
    dut = Watched()

    async def bench(ctx):
        ctx.set(dut.s.payload, 3)
        ctx.set(dut.s.valid, 1)
        await ctx.tick().repeat(3)
        for name, value in change.items():
            ctx.set(getattr(dut.s, name), value)
        await ctx.tick()

    with pytest.raises(AssertionError, match=message):
        simulate(dut, bench)
