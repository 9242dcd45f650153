"""`control.row_scheduler`: the events of every command, in order, without bubbles, whatever stalls."""

import random
from dataclasses import replace

import pytest
from amaranth.hdl import Module, ResetInserter, Signal, unsigned
from amaranth.lib import memory

from spikeloom.arch.commands import Order
from spikeloom.arch.presets import preset
from spikeloom_hw.control.row_scheduler import RowScheduler
from spikeloom_sim.pysim import Checked, Stalls, receive, simulate

TINY = preset("tiny")


def expected_events(levels, job):
    """Events as tuples (row, tile, level, marker, last), a pair as two, an event that closes its tile as it and a marker."""
    rows = [(row, level) for row, level in enumerate(levels[:job["n_in"]]) if level or job.get("dense")]
    if job.get("embed"):
        rows = [(job["embed_row_a"], 1)] + ([(job["embed_row_b"], 1)] if job.get("embed_has_b") else [])
    tiles = job["tiles"]
    markers = [(0, tile, 0, 1, tile == tiles - 1) for tile in range(tiles)]
    if job["order"] == Order.TILES:
        return [e for tile in range(tiles) for e in [*((row, tile, level, 0, 0) for row, level in rows), markers[tile]]]
    return [(row, tile, level, 0, 0) for row, level in rows for tile in range(tiles)] + markers


def parts_of(event):
    """An event as `expected_events` writes it, and the cycles that it saved: the second row, the marker."""
    if event.marker:
        assert not event.closes
        return [(event.row, event.tile, event.level, 1, event.last)]
    parts = [(event.row, event.tile, event.level, 0, 0)]
    if getattr(event, "both", 0):
        parts.append((event.row_b, event.tile, event.level_b, 0, 0))
    return parts + [(0, event.tile, 0, 1, event.last)] * event.closes


async def receive_parts(ctx, dut, count, stalls=None):
    """Events until `count` parts have come."""
    got = []
    while len(got) < count:
        event, = await receive(ctx, dut.o, 1, *([stalls] if stalls else []))
        got += parts_of(event)
    return got


def transfers(levels, job, cfg):
    """Payloads that a command takes where no scan word is empty."""
    rows = [row for row, level in enumerate(levels[:job["n_in"]]) if level or job.get("dense")]
    joined = job["order"] == Order.TILES and job.get("resident")
    words = [len([row for row in rows if row // cfg.cols == word]) for word in range(-(-job["n_in"] // cfg.cols))]
    one_tile = sum(-(-count // (cfg.events if joined else 1)) for count in words)
    return job["tiles"] * (one_tile + (0 if joined and one_tile else 1))


def with_buffer(dut, cfg, reset=None):
    """The scheduler beside a memory of scan words, and a function that fills the memory."""
    words = cfg.max_neurons // cfg.cols
    m = Module()
    m.submodules.dut = dut if reset is None else ResetInserter(reset)(dut)
    m.submodules.store = store = memory.Memory(shape=unsigned(cfg.cols * cfg.level_bits), depth=words, init=[])
    read = store.read_port(domain="comb")
    m.d.comb += [read.addr.eq(dut.r_word), dut.r_levels.eq(read.data)]

    def fill(ctx, levels):
        for word in range(words):
            part = levels[word * cfg.cols:(word + 1) * cfg.cols]
            ctx.set(store.data[word], sum(level << (i * cfg.level_bits) for i, level in enumerate(part)))
    return m, fill


async def begin(ctx, dut, fill, levels, job):
    fill(ctx, levels)
    for name in ("n_in", "tiles", "order", "resident", "dense", "embed", "embed_row_a", "embed_row_b", "embed_has_b"):
        ctx.set(getattr(dut, name), int(job.get(name, 0)))
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)


def random_levels(rng, cfg, rate):
    return [rng.randint(1, cfg.level_max) if rng.random() < rate else 0 for _ in range(cfg.max_neurons)]


def random_jobs(rng, cfg, count):
    """(levels, job): random ones after the corners."""
    full = cfg.max_neurons
    corners = [(0.0, full, 0), (1.0, full, 0), (0.0, full, 1), (1.0, 0, 0), (0.5, 0, 1), (0.3, cfg.cols + 1, 0), (0.5, 1, 0)]
    jobs = []
    for rate, n_in, dense in corners:
        for order in Order:
            for resident in (0, 1):
                for tiles in (1, 3):
                    jobs.append((random_levels(rng, cfg, rate), {"n_in": n_in, "tiles": tiles, "order": order, "dense": dense,
                                                                 "resident": resident}))
    for order in Order:
        for has_b in (0, 1):
            jobs.append((random_levels(rng, cfg, 0.5), {
                "n_in": 64, "tiles": 2, "order": order, "embed": 1, "embed_row_a": 40000, "embed_row_b": 7,
                "embed_has_b": has_b, "resident": order == Order.TILES}))
    for _ in range(count):
        jobs.append((random_levels(rng, cfg, rng.choice([0.02, 0.1, 0.5, 1.0])), {
            "n_in": rng.randint(0, full), "tiles": rng.choice([1, 2, 5, 16]), "order": rng.choice(list(Order)),
            "resident": rng.random() < 0.7,
            "dense": rng.random() < 0.2}))
    return jobs


@pytest.mark.parametrize("rows, events", [(1, 1), (1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize("seed, stall", [(1, 0.0), (2, 0.5)])
def test_events_of_every_command(rows, events, seed, stall):
    print(f"seed {seed}")
    rng, cfg = random.Random(seed), replace(TINY, rows=rows, events=events)
    dut = Checked(RowScheduler(cfg=cfg))
    m, fill = with_buffer(dut, cfg)
    counted = {"wanted": 0, "skipped": None}

    async def count(ctx):
        async for _, _, wanted, skipped, valid in ctx.tick().sample(dut.wanted, dut.skipped, dut.skipped_valid):
            counted["wanted"] += wanted
            if valid:
                assert counted["skipped"] is None
                counted["skipped"] = skipped

    async def bench(ctx):
        stalls = Stalls(seed, stall)
        for index, (levels, job) in enumerate(random_jobs(rng, cfg, 8)):
            counted.update(wanted=0, skipped=None)
            expected = expected_events(levels, job)
            assert not ctx.get(dut.busy)
            await begin(ctx, dut, fill, levels, job)
            assert ctx.get(dut.busy)
            got = await receive_parts(ctx, dut, len(expected), stalls)
            assert got == expected, (index, job)
            assert not ctx.get(dut.busy)
            rows_wanted = len({e[0] for e in expected if not e[3]}) if not job.get("embed") else 1 + job["embed_has_b"]
            assert counted["wanted"] == rows_wanted
            assert counted["skipped"] == (0 if job.get("embed") else job["n_in"] - rows_wanted)

    simulate(m, bench, background=[count])


async def cycles_of(ctx, dut, count):
    """Cycle numbers, from the cycle after `start` on, at which each payload was offered to a ready consumer."""
    seen, cycle = [], 1
    ctx.set(dut.o.ready, 1)
    while len(seen) < count:
        if ctx.get(dut.o.valid):
            seen.append(cycle)
        await ctx.tick()
        cycle += 1
    ctx.set(dut.o.ready, 0)
    return seen


async def cycles_of_last(ctx, dut):
    """Cycle number, from the cycle after `start` on, of what closes the last tile."""
    cycle = 1
    ctx.set(dut.o.ready, 1)
    while not (ctx.get(dut.o.valid) and ctx.get(dut.o.payload.last)):
        await ctx.tick()
        cycle += 1
    await ctx.tick()
    ctx.set(dut.o.ready, 0)
    return cycle


@pytest.mark.parametrize("order, resident, events", [(Order.TILES, 0, 2), (Order.TILES, 1, 1), (Order.TILES, 1, 2), (Order.ROWS, 0, 2)])
@pytest.mark.parametrize("spikes", ["all", "one per word", "dense", "odd"])
def test_latency_and_no_bubbles(order, resident, events, spikes):
    cfg = replace(TINY, events=events)
    dut = RowScheduler(cfg=cfg)
    m, fill = with_buffer(dut, cfg)
    levels = [int(spikes == "all" or (spikes == "one per word" and i % cfg.cols == i // cfg.cols) or spikes == "odd" and i % cfg.cols < 5)
              for i in range(cfg.max_neurons)]
    job = {"n_in": cfg.max_neurons, "tiles": 3, "order": order, "dense": spikes == "dense", "resident": resident}
    count = transfers(levels, job, cfg)

    async def bench(ctx):
        for _ in range(2):
            await begin(ctx, dut, fill, levels, job)
            assert await cycles_of(ctx, dut, count) == list(range(dut.latency, dut.latency + count))
            await ctx.tick()

    simulate(m, bench)


@pytest.mark.parametrize("events", [1, 2])
def test_empty_words_hide_behind_events_or_cost_a_cycle(events):
    cfg = replace(TINY, events=events)
    dut = RowScheduler(cfg=cfg)
    m, fill = with_buffer(dut, cfg)

    async def bench(ctx):
        # The words passed over while one of 8 events leaves: 7, or 3 where it leaves in pairs. The last one takes no marker
        # if the scan is through.
        full = 8 // events
        for levels, extra in (([1] * 8 + [0] * 48 + [1] * 8, 6 - min(6, full - 1)), ([1] + [0] * 55 + [1] * 8, 6),
                              ([1] * 8 + [0] * 56, 7 - min(7, full - 1)), ([0] * 64, 7)):
            job = {"n_in": 64, "tiles": 1, "order": Order.TILES, "resident": 1}
            count = transfers(levels, job, cfg)
            await begin(ctx, dut, fill, levels, job)
            assert (await cycles_of_last(ctx, dut)) == dut.latency + count - 1 + extra, levels
            await ctx.tick()

    simulate(m, bench)


def test_reset_in_mid_run_leaves_nothing():
    cfg, rng = TINY, random.Random(5)
    dut = RowScheduler(cfg=cfg)
    reset = Signal()
    m, fill = with_buffer(dut, cfg, reset)

    async def bench(ctx):
        for _ in range(20):
            levels = random_levels(rng, cfg, 0.4)
            job = {"n_in": 60, "tiles": 3, "order": rng.choice(list(Order))}
            await begin(ctx, dut, fill, levels, job)
            await receive(ctx, dut.o, rng.randint(0, 30), Stalls(rng.random(), 0.3))
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            assert not ctx.get(dut.busy) and not ctx.get(dut.o.valid)
            expected = expected_events(levels, job)
            await begin(ctx, dut, fill, levels, job)
            assert await receive_parts(ctx, dut, len(expected)) == expected

    simulate(m, bench)
