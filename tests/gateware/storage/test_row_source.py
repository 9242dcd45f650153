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
from spikeloom_sim.pysim import Checked, Stalls, receive, simulate
from spikeloom_sim.row_benches import configure, events_of, feeder, memory_process, random_weights

TINY = preset("tiny")
#: As many columns as a beat has bytes, twice and four times as many: tile rows of a quarter beat to four beats.
MACHINES = {cols: replace(TINY, cols=cols, max_width=cols, max_neurons=4 * cols) for cols in (8, 16, 32)}


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


class OtherLoads:
    """While `on`, words are written behind those that are read, in some of the cycles."""

    def __init__(self, dut, cfg, seed, share):
        self.dut, self.cfg, self.draw, self.share, self.on = dut, cfg, random.Random(seed), share, False

    async def process(self, ctx):
        while True:
            if self.on:
                ctx.set(self.dut.l_en, self.draw.random() < self.share)
                ctx.set(self.dut.l_address, self.cfg.resident_words - 1 - self.draw.randrange(8))
                ctx.set(self.dut.l_data, self.draw.getrandbits(8 * self.cfg.cols))
            await ctx.tick()


async def load(ctx, dut, cfg, packed, word=0):
    """Fill resident words from `word` on."""
    packed = packed + bytes(-len(packed) % cfg.cols)
    for i in range(len(packed) // cfg.cols):
        ctx.set(dut.l_en, 1)
        ctx.set(dut.l_address, word + i)
        ctx.set(dut.l_data, int.from_bytes(packed[i * cfg.cols:(i + 1) * cfg.cols], "little"))
        await ctx.tick()
    ctx.set(dut.l_en, 0)


def pairs_of(events, rng):
    """Some neighbours made pairs, and some of them closing their tile."""
    out, rest = [], list(events)
    while rest:
        event = rest.pop(0)
        if not event["marker"]:
            event = event | {"closes": rng.random() < 0.2}
            if rest and not rest[0]["marker"] and rng.random() < 0.7:
                other = rest.pop(0)
                event |= {"both": 1, "row_b": other["row"], "level_b": other["level"]}
        out.append(event)
    return out


def check_pairs(events, answers, weights, cfg):
    """The fields of a pair that `check_answers` does not know."""
    first_rows = [{name: event[name] for name in ("row", "tile", "level", "marker", "last")} for event in events]
    check_answers(first_rows, answers, weights, cfg, answers[0].bank)
    for event, answer in zip(events, answers, strict=True):
        assert (answer.closes, answer.both, answer.level_b) == (event.get("closes", 0), event.get("both", 0), event.get("level_b", 0))
        if answer.both:
            got, first = np.frombuffer(answer.weights_b.to_bytes(cfg.cols, "little"), np.int8), event["tile"] * cfg.cols
            assert np.array_equal(got, weights[event["row_b"], first:first + cfg.cols]), event


@pytest.mark.parametrize("bits", WEIGHT_BITS)
@pytest.mark.parametrize("cols", MACHINES)
@pytest.mark.parametrize("rows, stall, loads", [(1, 0.0, 0), (2, 0.4, 0), (1, 0.0, 0.5), (1, 0.4, 0.8)])
def test_resident(bits, cols, rows, stall, loads):
    cfg, rng, seed = replace(MACHINES[cols], rows=rows), np.random.default_rng(bits + cols), bits * cols
    dut, pending, draw = Checked(RowSource(cfg=cfg)), [], random.Random(seed)
    others = OtherLoads(dut, cfg, seed, loads)

    async def bench(ctx):
        for bank, (n_in, tiles, index) in enumerate([(21, 3, 43), (16, 1, 5)]):
            others.on = False
            weights = random_weights(rng, n_in, tiles * cfg.cols, bits)
            per_word = 8 // bits
            # The first tile row may lie inside a word, behind tile rows of something else.
            before = bytes((index % per_word) * cfg.cols * bits // 8)
            await load(ctx, dut, cfg, before + pack_rows(weights, bits, tiles, cfg), index // per_word)
            configure(ctx, dut, address=index, tiles=tiles, weight_code=weight_code(bits), bank=bank, streamed=0)
            others.on = loads > 0
            events = events_of([draw.randrange(n_in) for _ in range(12)], tiles, cfg, draw)
            draw.shuffle(events)
            pending.extend(events)
            check_answers(events, await receive(ctx, dut.o, len(events), Stalls(seed, stall)), weights, cfg, bank)

    simulate(dut, bench, background=[others.process, feeder(dut, pending, Stalls(seed + 1, stall))])


@pytest.mark.parametrize("bits", WEIGHT_BITS)
@pytest.mark.parametrize("cols, stall, loads", [(8, 0.0, 0), (32, 0.4, 0), (8, 0.0, 0.5), (32, 0.4, 0.8)])
def test_resident_pairs(bits, cols, stall, loads):
    cfg, rng, seed = replace(MACHINES[cols], events=2), np.random.default_rng(bits + cols), bits * cols
    dut, pending, draw, errors = Checked(RowSource(cfg=cfg)), [], random.Random(seed), []
    others = OtherLoads(dut, cfg, seed, loads)

    async def watch(ctx):
        async for _, _, valid, address in ctx.tick().sample(dut.error_valid, dut.error_address):
            errors.extend([address] * valid)

    async def bench(ctx):
        n_in, tiles, index = 21, 3, 43
        weights, per_word = random_weights(rng, n_in, tiles * cfg.cols, bits), 8 // bits
        before = bytes((index % per_word) * cfg.cols * bits // 8)
        await load(ctx, dut, cfg, before + pack_rows(weights, bits, tiles, cfg), index // per_word)
        configure(ctx, dut, address=index, tiles=tiles, weight_code=weight_code(bits), streamed=0)
        others.on = loads > 0
        rows = [{"row": draw.randrange(n_in), "tile": tile, "level": draw.randint(1, 8), "marker": 0, "last": 0}
                for tile in range(tiles) for _ in range(15)]
        events = pairs_of(rows, draw)
        pending.extend(events)
        check_pairs(events, await receive(ctx, dut.o, len(events), Stalls(seed, stall)), weights, cfg)
        assert not errors
        # Of each pair one row lies outside, then both do: the first of them is reported, and neither is added.
        far, event = 60000, {"tile": 1, "level": 3, "marker": 0, "last": 0, "both": 1, "level_b": 5}
        cases = [(1, far), (far, 1), (far, far + 1)]
        pending.extend(event | {"row": a, "row_b": b} for a, b in cases)
        got = await receive(ctx, dut.o, 3)
        assert [(e.level, e.level_b, e.both) for e in got] == [(3, 0, 1), (0, 5, 1), (0, 0, 1)]
        await ctx.tick().repeat(3)
        assert errors == [index + far * tiles + 1] * 3

    simulate(dut, bench, background=[watch, others.process, feeder(dut, pending, Stalls(seed + 1, stall))])


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
            expected.extend(range(offset + row * size, offset + row * size + size, cfg.beat_bytes) for row in rows)
            events = events_of(rows, tiles, cfg, draw)
            pending.extend(events)
            check_answers(events, await receive(ctx, dut.o, len(events), Stalls(seed, stall)), weights, cfg, bank & 1)
            await ctx.tick()
            assert not ctx.get(dut.busy) and not ctx.get(dut.error_valid)
        beats = [address + beat * cfg.beat_bytes for address, count in requests for beat in range(count)]
        assert beats == [beat for row in expected for beat in row]

    memory = memory_process(dut, cfg.beat_bytes, image, seed, latency=latency, stall=stall, requests=requests)
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

    memory = memory_process(dut, cfg.beat_bytes, bytes(1 << 12), 1)
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
        await memory_process(dut, cfg.beat_bytes, image, 1)(ctx)

    simulate(m, bench, background=[memory, feeder(dut, pending, Stalls())])
