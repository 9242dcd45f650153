"""`storage.streamed_rows`: beats as fast as they come, runs of adjacent rows in one request, rows outside refused."""

import random
from dataclasses import replace

import numpy as np
import pytest

from spikeloom.arch.layout import pack_rows, row_bytes, tiles_for, weight_code
from spikeloom.arch.presets import preset
from spikeloom_hw.storage.streamed_rows import StreamedRows
from spikeloom_sim.pysim import Checked, Stalls, receive, simulate
from spikeloom_sim.row_benches import configure, events_of, feeder, memory_process, random_weights

TINY = preset("tiny")
MACHINES = {cols: replace(TINY, cols=cols, max_width=cols, max_neurons=4 * cols) for cols in (8, 16, 32)}


@pytest.mark.parametrize("cols, bits", [(8, 8), (8, 2), (16, 8), (32, 8)])
def test_a_beat_per_cycle_behind_a_long_latency(cols, bits):
    cfg, latency = MACHINES[cols], 60
    dut, pending, draw = StreamedRows(cfg=cfg), [], random.Random(1)
    image, seen = bytes(1 << 14), {"beats": [], "requested": 0, "waits": 0}
    tiles, rows = tiles_for(8 * cols, bits, cfg), 40
    events = events_of(range(rows), tiles, cfg, draw)[:-tiles]
    total = rows * row_bytes(tiles, bits, cfg) // cfg.beat_bytes

    async def watch(ctx):
        cycle = 0
        async for _, _, valid, ready, event, request, beats, waiting in ctx.tick().sample(
                dut.i_beat.valid, dut.i_beat.ready, dut.i.valid, dut.o_request.valid, dut.requested_beats, dut.waiting):
            cycle += 1
            seen.setdefault("event", cycle) if event else None
            seen.setdefault("request", cycle) if request else None
            seen["requested"] += beats
            seen["waits"] += waiting
            if valid and ready:
                seen["beats"].append(cycle)

    async def bench(ctx):
        configure(ctx, dut, address=0, tiles=tiles, weight_code=weight_code(bits), image_bytes=len(image))
        pending.extend(events)
        await receive(ctx, dut.o, len(events))

    memory = memory_process(dut, cfg.beat_bytes, image, 1, latency=latency)
    simulate(dut, bench, background=[memory, watch, feeder(dut, pending, Stalls())])
    assert seen["request"] - seen["event"] == StreamedRows.request_latency
    assert seen["requested"] == total and seen["waits"] >= latency
    # Several tile rows in a beat: the consumer's one tile row per cycle is the limit.
    if bits == 8:
        assert seen["beats"][-1] - seen["beats"][0] == total - 1


def test_runs_of_adjacent_rows_become_one_request():
    cfg, tiles = TINY, 2
    dut, pending, requests = Checked(StreamedRows(cfg=cfg)), [], []
    rows, size = [2, 3, 4, 5, 9, 10, 11, 12, 13, 20], 16

    async def bench(ctx):
        configure(ctx, dut, address=64, tiles=tiles, weight_code=0, image_bytes=4096)
        # Nobody takes a request for a while: the first row waits alone, the next ones behind it.
        pending.extend(events_of(rows, tiles, cfg, random.Random(1)))
        await ctx.tick().repeat(100)
        assert ctx.get(dut.o_request.payload.beats) == 2
        for _ in range(4):
            ctx.set(dut.o_request.ready, 1)
            payload, = await ctx.tick().sample(dut.o_request.payload).until(dut.o_request.valid)
            requests.append(((payload.address - 64) // size, payload.beats // 2))
            ctx.set(dut.o_request.ready, 0)
            await ctx.tick().repeat(60)

    simulate(dut, bench, background=[feeder(dut, pending, Stalls())])
    assert requests == [(2, 1), (3, 3), (9, 5), (20, 1)]


def test_commands_do_not_join():
    """Row 1 of the second command is adjacent to row 0 of the first, by number only."""
    cfg, tiles, rng = TINY, 2, np.random.default_rng(1)
    dut, pending, requests = Checked(StreamedRows(cfg=cfg)), [], []
    weights = random_weights(rng, 2, tiles * cfg.cols, 8)
    image = bytes(256) + pack_rows(weights, 8, tiles, cfg)

    async def bench(ctx):
        for address, rows in ((0, [0]), (256, [1])):
            configure(ctx, dut, address=address, tiles=tiles, weight_code=0, image_bytes=len(image))
            events = events_of(rows, tiles, cfg, random.Random(1))
            pending.extend(events)
            answers = await receive(ctx, dut.o, len(events))
        got = b"".join(answer.word.to_bytes(8, "little") for answer in answers[:tiles])
        assert got == image[256 + 16:]

    memory = memory_process(dut, cfg.beat_bytes, image, 1, requests=requests)
    simulate(dut, bench, background=[memory, feeder(dut, pending, Stalls())])
    assert requests == [(0, 2), (256 + 16, 2)]


@pytest.mark.parametrize("seed", range(4))
def test_rows_outside_neither_join_nor_hang(seed):
    cfg, tiles, draw = TINY, 2, random.Random(seed)
    dut, pending, requests, errors = Checked(StreamedRows(cfg=cfg)), [], [], []
    rows = sorted(draw.sample(range(40), 20))

    async def watch(ctx):
        async for _, _, valid, address in ctx.tick().sample(dut.error_valid, dut.error_address):
            if valid:
                errors.append(address // 16)

    async def bench(ctx):
        configure(ctx, dut, address=0, tiles=tiles, weight_code=0, image_bytes=24 * 16)
        events = events_of(rows, tiles, cfg, draw)
        pending.extend(events)
        levels = [answer.level for answer in await receive(ctx, dut.o, len(events), Stalls(seed, 0.3))]
        assert levels == [event["level"] if event["row"] < 24 else 0 for event in events]
        await ctx.tick().repeat(3)
        assert not ctx.get(dut.busy)

    memory = memory_process(dut, cfg.beat_bytes, bytes(4096), seed, stall=0.5, requests=requests)
    simulate(dut, bench, background=[memory, watch, feeder(dut, pending, Stalls())])
    assert errors == [row for row in rows if row >= 24]
    assert [address // 16 + n for address, beats in requests for n in range(beats // 2)] == [row for row in rows if row < 24]
