"""`storage.row_source`: every event comes back with its row's weights, resident or streamed, in every format."""

import random
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module, ResetInserter, Signal

from spikeloom.arch.config import WEIGHT_BITS
from spikeloom.arch.layout import pack_rows, row_bytes, tiles_for, weight_code
from spikeloom.arch.presets import preset
from spikeloom_hw.storage.row_source import RowSource
from spikeloom_sim.pysim import Checked, Stalls, receive, send, simulate

TINY = preset("tiny")
#: As many columns as a beat has bytes, twice and four times as many: tile rows of a quarter beat to four beats.
MACHINES = {cols: replace(TINY, cols=cols, max_width=cols, max_neurons=4 * cols) for cols in (8, 16, 32)}


def random_weights(rng, n_in, n_out, bits):
    most = 1 if bits == 2 else (1 << (bits - 1)) - 1
    return rng.integers(-most, most + 1, (n_in, n_out))


def events_of(rows, tiles, cfg, rng):
    """Row by row, then the markers."""
    events = [{"row": row, "tile": tile, "level": rng.randint(1, cfg.level_max), "marker": 0, "last": 0}
              for row in rows for tile in range(tiles)]
    return events + [{"row": 0, "tile": tile, "level": 0, "marker": 1, "last": tile == tiles - 1} for tile in range(tiles)]


def check_answers(events, answers, weights, cfg, bank):
    padded = np.zeros((weights.shape[0], 16 * cfg.cols), np.int64)
    padded[:, :weights.shape[1]] = weights
    assert len(answers) == len(events)
    for event, answer in zip(events, answers, strict=True):
        assert (answer.tile, answer.level, answer.marker, answer.last, answer.bank) == (
            event["tile"], event["level"], event["marker"], event["last"], bank)
        if not event["marker"]:
            got = np.frombuffer(answer.weights.to_bytes(cfg.cols, "little"), np.int8)
            first = event["tile"] * cfg.cols
            assert np.array_equal(got, padded[event["row"], first:first + cfg.cols]), event


async def load(ctx, dut, cfg, packed, word=0):
    """Fill resident words from `word` on."""
    packed = packed + bytes(-len(packed) % cfg.cols)
    for i in range(len(packed) // cfg.cols):
        ctx.set(dut.l_en, 1)
        ctx.set(dut.l_address, word + i)
        ctx.set(dut.l_data, int.from_bytes(packed[i * cfg.cols:(i + 1) * cfg.cols], "little"))
        await ctx.tick()
    ctx.set(dut.l_en, 0)


def configure(ctx, dut, **fields):
    for name, value in fields.items():
        ctx.set(getattr(dut, name), value)


def memory_process(dut, cfg, image, seed, *, latency=20, stall=0.0, requests=None):
    """Answers requests with beats: a fixed latency, then a beat per cycle or slower."""
    async def run(ctx):
        rng, queue, cycle, offered = random.Random(seed), [], 0, False
        ctx.set(dut.o_request.ready, 1)
        async for _, _, valid, ready, payload, taken in ctx.tick().sample(
                dut.o_request.valid, dut.o_request.ready, dut.o_request.payload, dut.i_beat.ready):
            cycle += 1
            if valid and ready:
                assert payload.beats > 0
                if requests is not None:
                    requests.append((payload.address, payload.beats))
                for beat in range(payload.beats):
                    at = payload.address + beat * cfg.beat_bytes
                    queue.append((cycle + latency, int.from_bytes(image[at:at + cfg.beat_bytes], "little")))
            if offered and taken:
                queue.pop(0)
                offered = False
            offered = offered or (bool(queue) and queue[0][0] <= cycle and rng.random() >= stall)
            ctx.set(dut.i_beat.valid, offered)
            if offered:
                ctx.set(dut.i_beat.payload.data, queue[0][1])
            ctx.set(dut.o_request.ready, rng.random() >= stall)
    return run


def feeder(dut, pending, stalls):
    """Sends whatever the bench appends to `pending`, in the background."""
    async def run(ctx):
        while True:
            if pending:
                await send(ctx, dut.i, [pending.pop(0)], stalls)
            else:
                await ctx.tick()
    return run


@pytest.mark.parametrize("bits", WEIGHT_BITS)
@pytest.mark.parametrize("cols", MACHINES)
@pytest.mark.parametrize("rows, stall", [(1, 0.0), (2, 0.4)])
def test_resident(bits, cols, rows, stall):
    cfg, rng, seed = replace(MACHINES[cols], rows=rows), np.random.default_rng(bits + cols), bits * cols
    dut, pending, draw = Checked(RowSource(cfg=cfg)), [], random.Random(seed)

    async def bench(ctx):
        for bank, (n_in, tiles, index) in enumerate([(21, 3, 43), (16, 1, 5)]):
            weights = random_weights(rng, n_in, tiles * cfg.cols, bits)
            per_word = 8 // bits
            # The first tile row may lie inside a word, behind tile rows of something else.
            before = bytes((index % per_word) * cfg.cols * bits // 8)
            await load(ctx, dut, cfg, before + pack_rows(weights, bits, tiles, cfg), index // per_word)
            configure(ctx, dut, address=index, tiles=tiles, weight_code=weight_code(bits), bank=bank, streamed=0)
            events = events_of([draw.randrange(n_in) for _ in range(12)], tiles, cfg, draw)
            draw.shuffle(events)
            pending.extend(events)
            check_answers(events, await receive(ctx, dut.o, len(events), Stalls(seed, stall)), weights, cfg, bank)

    simulate(dut, bench, background=[feeder(dut, pending, Stalls(seed + 1, stall))])


@pytest.mark.parametrize("bits", WEIGHT_BITS)
@pytest.mark.parametrize("cols", MACHINES)
@pytest.mark.parametrize("latency, stall", [(100, 0.0), (10, 0.5)])
def test_streamed(bits, cols, latency, stall):
    cfg, rng, seed = MACHINES[cols], np.random.default_rng(bits + cols), bits * cols
    dut, pending, draw = Checked(RowSource(cfg=cfg)), [], random.Random(seed)
    image, requests, expected = bytearray(rng.integers(0, 256, 1 << 14, np.uint8).tobytes()), [], []

    async def bench(ctx):
        for bank, (n_in, n_out, offset) in enumerate([(21, 3 * cols, 1 << 12), (16, cols, 256), (4, 9 * cols - 1, 1 << 13)]):
            tiles = tiles_for(n_out, bits, cfg)
            weights, size = random_weights(rng, n_in, n_out, bits), row_bytes(tiles, bits, cfg)
            packed = pack_rows(weights, bits, tiles, cfg)
            image[offset:offset + len(packed)] = packed
            configure(ctx, dut, address=offset, tiles=tiles, weight_code=weight_code(bits), bank=bank & 1, streamed=1,
                      image_bytes=offset + len(packed))
            rows = [draw.randrange(n_in) for _ in range(6)] + [n_in - 1]
            expected.extend((offset + row * size, size // cfg.beat_bytes) for row in rows)
            events = events_of(rows, tiles, cfg, draw)
            pending.extend(events)
            check_answers(events, await receive(ctx, dut.o, len(events), Stalls(seed, stall)), weights, cfg, bank & 1)
            await ctx.tick()
            assert not ctx.get(dut.busy) and not ctx.get(dut.error_valid)
        assert requests == expected

    memory = memory_process(dut, cfg, image, seed, latency=latency, stall=stall, requests=requests)
    simulate(dut, bench, background=[memory, feeder(dut, pending, Stalls(seed + 1, stall))])


def test_resident_latency_and_full_rate():
    dut = RowSource(cfg=TINY)

    async def bench(ctx):
        configure(ctx, dut, address=0, tiles=1, weight_code=0, streamed=0)
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i.valid, 1)
        for cycle in range(20):
            ctx.set(dut.i.payload, {"row": cycle, "tile": cycle % 16, "level": 1})
            assert ctx.get(dut.i.ready)
            assert ctx.get(dut.o.valid) == (cycle >= RowSource.latency)
            if cycle:
                assert ctx.get(dut.o.payload.tile) == (cycle - RowSource.latency) % 16
            await ctx.tick()

    simulate(dut, bench)


@pytest.mark.parametrize("cols, bits", [(8, 8), (8, 2), (16, 8), (32, 8)])
def test_streamed_takes_a_beat_per_cycle_behind_a_long_latency(cols, bits):
    cfg, latency = MACHINES[cols], 60
    dut, pending, draw = RowSource(cfg=cfg), [], random.Random(1)
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
        configure(ctx, dut, address=0, tiles=tiles, weight_code=weight_code(bits), streamed=1, image_bytes=len(image))
        pending.extend(events)
        await receive(ctx, dut.o, len(events))

    simulate(dut, bench, background=[memory_process(dut, cfg, image, 1, latency=latency), watch, feeder(dut, pending, Stalls())])
    assert seen["request"] - seen["event"] == RowSource.request_latency
    assert seen["requested"] == total and seen["waits"] >= latency
    # Several tile rows in a beat: the consumer's one event per cycle is the limit. Otherwise the 64 events that wait
    # cover the latency.
    if bits == 8:
        assert seen["beats"][-1] - seen["beats"][0] == total - 1


@pytest.mark.parametrize("streamed", [0, 1])
def test_rows_outside_are_reported_and_add_nothing(streamed):
    cfg = TINY
    dut, pending, errors = Checked(RowSource(cfg=cfg)), [], []

    async def watch(ctx):
        async for _, _, valid, address in ctx.tick().sample(dut.error_valid, dut.error_address):
            if valid:
                errors.append(address)

    async def bench(ctx):
        tiles, first = 2, 0x200 if streamed else cfg.resident_words - 8
        configure(ctx, dut, address=first, tiles=tiles, weight_code=0, streamed=streamed, image_bytes=0x200 + 4 * 16)
        events = events_of([3, 4, 0, 65535], tiles, cfg, random.Random(1))
        pending.extend(events)
        levels = [answer.level for answer in await receive(ctx, dut.o, len(events))]
        assert levels == [event["level"] if event["row"] < 4 else 0 for event in events]
        await ctx.tick().repeat(3)
        if streamed:
            assert errors == [0x200 + row * 16 for row in (4, 65535)]
        else:
            assert errors == [first + row * 2 + tile for row in (4, 65535) for tile in (0, 1)]
        errors.clear()
        # A row that is no whole number of beats, an address inside a beat, an address far above everything.
        for fields in ([{"tiles": 1, "weight_code": 2}, {"address": 4}, {"address": 1 << 39}] if streamed else [{"address": 1 << 30}]):
            configure(ctx, dut, **{"address": 0, "tiles": 2, "weight_code": 0} | fields)
            events = events_of([1], fields.get("tiles", 2), cfg, random.Random(2))
            pending.extend(events)
            assert not any(answer.level for answer in await receive(ctx, dut.o, len(events)))
            await ctx.tick().repeat(3)
            assert errors
            errors.clear()

    memory = memory_process(dut, cfg, bytes(1 << 12), 1)
    simulate(dut, bench, background=[memory, watch, feeder(dut, pending, Stalls())])


def test_reset_in_mid_run_leaves_nothing():
    cfg, reset, rng = TINY, Signal(), np.random.default_rng(3)
    dut, pending, m = RowSource(cfg=cfg), [], Module()
    m.submodules.dut = ResetInserter(reset)(dut)
    weights = random_weights(rng, 16, 3 * cfg.cols, 8)
    image = pack_rows(weights, 8, 3, cfg)

    async def bench(ctx):
        configure(ctx, dut, address=0, tiles=3, weight_code=0, streamed=1, image_bytes=len(image))
        events = events_of([1, 5, 9], 3, cfg, random.Random(1))
        # Rows are requested and half answered, then nothing more comes.
        pending.extend(events[:-3])
        ctx.set(dut.o_request.ready, 1)
        ctx.set(dut.i_beat.valid, 1)
        await ctx.tick().repeat(12)
        ctx.set(dut.i_beat.valid, 0)
        pending.clear()
        await ctx.tick().repeat(2)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        assert not ctx.get(dut.busy) and not ctx.get(dut.o.valid) and not ctx.get(dut.o_request.valid)
        state["memory"] = True
        pending.extend(events)
        check_answers(events, await receive(ctx, dut.o, len(events)), weights, cfg, 0)

    state = {}

    async def memory(ctx):
        while not state:
            await ctx.tick()
        await memory_process(dut, cfg, image, 1)(ctx)

    simulate(m, bench, background=[memory, feeder(dut, pending, Stalls())])
