"""`datapath.spike_engine`: sums equal levels @ weights, per bank and tile, at one event per cycle."""

import random
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module, ResetInserter, Signal

from spikeloom.arch.config import MAX_TILES
from spikeloom.arch.presets import preset
from spikeloom_hw.datapath.spike_engine import SpikeEngine
from spikeloom_sim.pysim import Checked, Stalls, receive, send, simulate

TINY = preset("tiny")


def random_row(rng, cfg, name=""):
    """Weights and levels of a row; `name` is what its fields end in."""
    ones = (1 << cfg.level_bits) - 1
    weights = bytes(rng.choice([0x80, 0x7F, 0, rng.getrandbits(8)]) for _ in range(cfg.cols))
    return {"weights" + name: int.from_bytes(weights, "little"),
            "level" + name: sum((rng.randint(1 - cfg.level_max, cfg.level_max) & ones) << (row * cfg.level_bits)
                                for row in range(cfg.rows))}


def random_event(rng, cfg, bank, tiles):
    """An event, a pair of them or, of a pair's fields, the first."""
    event = {"tile": rng.randrange(tiles), "bank": bank, "marker": 0, "closes": 0, "last": 0, **random_row(rng, cfg)}
    if cfg.events == 2:
        both = rng.random() < 0.7
        event |= {"both": both, **(random_row(rng, cfg, "_b") if both else {"weights_b": rng.getrandbits(8), "level_b": 0})}
    return event


def markers(tiles, bank):
    return [{"weights": 0, "tile": tile, "bank": bank, "marker": 1, "last": tile == tiles - 1, "level": 0} for tile in range(tiles)]


def close(rng, payloads, tiles, bank, cfg):
    """The command's payloads, tile by tile, each closed by its last event or, without any, by a marker."""
    out = []
    for tile in range(tiles):
        mine = [event for event in payloads if event["tile"] == tile]
        if mine and rng.random() < 0.7:
            out += mine[:-1] + [mine[-1] | {"closes": 1, "last": tile == tiles - 1}]
        else:
            out += [*mine, markers(tiles, bank)[tile]]
    return out


def names_of(event):
    """What the fields of its rows end in."""
    return ("", "_b") if event.get("both") else ("",)


def levels_of(event, cfg, name=""):
    """Levels of the grid rows; codes above half of all are below zero."""
    codes_of_a_level = 1 << cfg.level_bits
    codes = [event["level" + name] >> (row * cfg.level_bits) & codes_of_a_level - 1 for row in range(cfg.rows)]
    return np.array([code - codes_of_a_level if 2 * code > codes_of_a_level else code for code in codes])


def add(sums, event, cfg):
    for name in names_of(event):
        weights = np.frombuffer(event["weights" + name].to_bytes(cfg.cols, "little"), np.int8).astype(np.int64)
        sums[event["bank"], event["tile"]] += levels_of(event, cfg, name)[:, None] * weights[None, :]


def read_tile(ctx, dut, cfg, bank, tile):
    """Sums [rows, cols] of a tile; reads are asynchronous."""
    out = np.zeros((cfg.rows, cfg.cols), np.int64)
    ctx.set(dut.r_bank, bank)
    ctx.set(dut.r_tile, tile)
    for group in range(cfg.groups_per_tile):
        ctx.set(dut.r_group, group)
        word = ctx.get(dut.r_sums)
        for row in range(cfg.rows):
            for lane in range(cfg.lanes):
                value = word >> ((row * cfg.lanes + lane) * cfg.acc_width) & ((1 << cfg.acc_width) - 1)
                out[row, group * cfg.lanes + lane] = value - (value >> (cfg.acc_width - 1) << cfg.acc_width)
    return out


async def release(ctx, dut, bank, tile):
    ctx.set(dut.release, {"en": 1, "bank": bank, "tile": tile})
    await ctx.tick()
    ctx.set(dut.release.en, 0)


@pytest.mark.parametrize("rows, n_events", [(1, 1), (1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize("seed, in_stall, out_stall", [(1, 0.0, 0.0), (2, 0.4, 0.0), (3, 0.0, 0.8)])
def test_commands_on_alternating_banks(rows, n_events, seed, in_stall, out_stall):
    print(f"seed {seed}")
    cfg, rng = replace(TINY, rows=rows, events=n_events), random.Random(seed)
    dut = Checked(SpikeEngine(cfg=cfg))
    sums = np.zeros((2, MAX_TILES, cfg.rows, cfg.cols), np.int64)
    commands, drained = [], []
    for index in range(6):
        tiles = rng.choice([1, 3, MAX_TILES])
        commands.append((index & 1, tiles, [random_event(rng, cfg, index & 1, tiles) for _ in range(rng.choice([0, 5, 60]))]))
    rows_added = [(event, name) for command in commands for event in command[2] for name in names_of(event)]
    events, level = len(rows_added), sum(np.abs(levels_of(event, cfg, name)).sum() for event, name in rows_added)
    counted = {"events": 0, "levels": 0}

    async def count(ctx):
        async for _, _, event, value in ctx.tick().sample(dut.event, dut.event_level):
            counted["events"] += event
            counted["levels"] += value
            assert event or not value

    async def source(ctx):
        stalls = Stalls(seed, in_stall)
        for index, (bank, tiles, payloads) in enumerate(commands):
            while len(drained) < index - 1:  # the command two before has left this bank
                await ctx.tick()
            await send(ctx, dut.i, close(rng, payloads, tiles, bank, cfg), stalls)

    async def drain(ctx):
        stalls = Stalls(seed, out_stall)
        for bank, tiles, payloads in commands:
            sums[bank] = 0
            for event in payloads:
                add(sums, event, cfg)
            for tile in range(tiles):
                got, = await receive(ctx, dut.o_drain, 1, stalls)
                assert (got.bank, got.tile, got.last) == (bank, tile, tile == tiles - 1)
                assert np.array_equal(read_tile(ctx, dut, cfg, bank, tile), sums[bank, tile])
                await release(ctx, dut, bank, tile)
                assert not read_tile(ctx, dut, cfg, bank, tile).any()
            drained.append(bank)
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.busy)
        assert counted == {"events": events, "levels": level}

    simulate(dut, source, drain, background=[count])


@pytest.mark.parametrize("n_events", [1, 2])
@pytest.mark.parametrize("closing", [False, True], ids=["marker", "closes"])
def test_one_event_per_cycle_on_one_tile_and_published_latency(n_events, closing):
    cfg, rng = replace(TINY, events=n_events), random.Random(7)
    dut = SpikeEngine(cfg=cfg)
    sums = np.zeros((2, MAX_TILES, 1, cfg.cols), np.int64)
    events = [random_event(rng, cfg, 1, 1) for _ in range(40)]
    history = [sums[1, 0].copy()]

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        for event in events:
            ctx.set(dut.i.payload, event)
            assert ctx.get(dut.i.ready)
            add(sums, event, cfg)
            history.append(sums[1, 0].copy())
            seen = max(0, len(history) - 1 - dut.latency)
            assert np.array_equal(read_tile(ctx, dut, cfg, 1, 0), history[seen])
            if closing and event is events[-1]:
                ctx.set(dut.i.payload, event | {"closes": 1, "last": 1})
                break
            await ctx.tick()
        else:
            ctx.set(dut.i.payload, markers(1, 1)[0])
        for _ in range(dut.latency):
            assert not ctx.get(dut.o_drain.valid)
            await ctx.tick()
            ctx.set(dut.i.valid, 0)
        assert ctx.get(dut.o_drain.valid)
        assert np.array_equal(read_tile(ctx, dut, cfg, 1, 0), history[-1])

    simulate(dut, bench)


def test_markers_wait_for_the_drain_and_lose_nothing():
    cfg = TINY
    dut = Checked(SpikeEngine(cfg=cfg))
    sent = [marker for bank in (0, 1, 0) for marker in markers(MAX_TILES, bank)]

    async def source(ctx):
        await send(ctx, dut.i, sent)

    async def sink(ctx):
        await ctx.tick().repeat(60)
        assert not ctx.get(dut.i.ready)
        got = await receive(ctx, dut.o_drain, len(sent))
        assert [(g.bank, g.tile, g.last) for g in got] == [(s["bank"], s["tile"], s["last"]) for s in sent]

    simulate(dut, source, sink)


def test_reset_forgets_everything():
    cfg, rng, reset = TINY, random.Random(9), Signal()
    dut, m = SpikeEngine(cfg=cfg), Module()
    m.submodules.dut = ResetInserter(reset)(dut)

    async def bench(ctx):
        await send(ctx, dut.i, [*(random_event(rng, cfg, 0, 2) for _ in range(10)), *markers(2, 0)])
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        assert not ctx.get(dut.busy) and not ctx.get(dut.o_drain.valid)
        assert not read_tile(ctx, dut, cfg, 0, 0).any()
        event = random_event(rng, cfg, 0, 1)
        sums = np.zeros((2, MAX_TILES, 1, cfg.cols), np.int64)
        add(sums, event, cfg)
        await send(ctx, dut.i, [event, *markers(1, 0)])
        await receive(ctx, dut.o_drain, 1)
        assert np.array_equal(read_tile(ctx, dut, cfg, 0, 0), sums[0, 0])

    simulate(m, bench)
