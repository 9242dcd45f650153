"""`bus.uart`: bytes arrive, at rates a little off and with broken stop bits."""

import random

import pytest

from spikeloom_hw.bus.uart import UartReceiver, UartTransmitter, clocks_per_bit
from spikeloom_sim.pysim import Stalls, send, simulate


async def put(ctx, line, byte, clocks, stop=1):
    for bit in (0, *(byte >> n & 1 for n in range(8)), stop):
        ctx.set(line, bit)
        await ctx.tick().repeat(clocks)
    ctx.set(line, 1)


def collected(dut, into):
    async def bench(ctx):
        async for _, _, valid, byte, broken in ctx.tick().sample(dut.o.valid, dut.o.payload, dut.broken):
            if valid:
                into.append(byte)
            if broken:
                into.append(None)
    return bench


@pytest.mark.parametrize("clocks, gap", [(4, 0), (4, 1), (5, 0), (16, 7)])
def test_receives(clocks, gap, seed):
    dut, got = UartReceiver(clocks_per_bit=clocks), []
    sent = [0x00, 0xFF, 0x55, *random.Random(seed).randbytes(8)]

    async def line(ctx):
        for byte in sent:
            await put(ctx, dut.rx, byte, clocks)
            for _ in range(gap):
                await ctx.tick()
        await ctx.tick().repeat(8)

    simulate(dut, line, background=[collected(dut, got)])
    assert got == sent


@pytest.mark.parametrize("clocks", [39, 41])
def test_receives_at_a_rate_that_is_two_percent_off(clocks):
    dut, got = UartReceiver(clocks_per_bit=40), []
    sent = [0x00, 0xFF, 0x55, 0xAA] * 2

    async def line(ctx):
        for byte in sent:
            await put(ctx, dut.rx, byte, clocks)
        await ctx.tick().repeat(80)

    simulate(dut, line, background=[collected(dut, got)])
    assert got == sent


def test_a_missing_stop_bit_costs_one_byte():
    dut, got = UartReceiver(clocks_per_bit=4), []

    async def line(ctx):
        await put(ctx, dut.rx, 0x12, 4)
        await put(ctx, dut.rx, 0x34, 4, stop=0)
        await ctx.tick().repeat(4)
        await put(ctx, dut.rx, 0x56, 4)
        await ctx.tick().repeat(8)

    simulate(dut, line, background=[collected(dut, got)])
    assert got == [0x12, None, 0x56]


def test_a_short_dip_is_no_start_bit():
    dut, got = UartReceiver(clocks_per_bit=8), []

    async def line(ctx):
        ctx.set(dut.rx, 0)
        await ctx.tick().repeat(2)
        ctx.set(dut.rx, 1)
        await ctx.tick().repeat(20)
        await put(ctx, dut.rx, 0x56, 8)
        await ctx.tick().repeat(8)

    simulate(dut, line, background=[collected(dut, got)])
    assert got == [0x56]


@pytest.mark.parametrize("stall", [0.0, 0.95])
def test_transmits(stall, seed):
    dut = UartTransmitter(clocks_per_bit=4)
    sent, got, cycles = list(random.Random(seed).randbytes(8)), [], []

    async def source(ctx):
        await send(ctx, dut.i, sent, Stalls(seed, stall))

    async def line(ctx):
        cycle = 0
        while len(got) < len(sent):
            await ctx.tick()
            cycle += 1
            if ctx.get(dut.tx):
                continue
            cycles.append(cycle)
            await ctx.tick().repeat(2)
            bits = []
            for _ in range(9):
                await ctx.tick().repeat(4)
                bits.append(ctx.get(dut.tx))
            cycle += 38
            assert bits[8] == 1, "no stop bit"
            got.append(sum(bit << n for n, bit in enumerate(bits[:8])))

    simulate(dut, source, line)
    assert got == sent
    if not stall:
        assert cycles[-1] - cycles[0] == 40 * (len(sent) - 1), "ten bits per byte, no gap"


def test_rates_that_cannot_be_made_are_refused():
    assert clocks_per_bit(50e6, 2_000_000) == 25
    with pytest.raises(ValueError, match="clock of at least 12 MHz"):
        clocks_per_bit(10e6, 3_000_000)
    with pytest.raises(ValueError, match="more than 2%"):
        clocks_per_bit(20e6, 3_000_000)
    with pytest.raises(ValueError, match="at least 4"):
        UartReceiver(clocks_per_bit=3)
