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
    """Events as tuples (row, tile, level, marker, last)."""
    rows = [(row, level) for row, level in enumerate(levels[:job["n_in"]]) if level or job.get("dense")]
    if job.get("embed"):
        rows = [(job["embed_row_a"], 1)] + ([(job["embed_row_b"], 1)] if job.get("embed_has_b") else [])
    tiles = job["tiles"]
    markers = [(0, tile, 0, 1, tile == tiles - 1) for tile in range(tiles)]
    if job["order"] == Order.TILES:
        return [e for tile in range(tiles) for e in [*((row, tile, level, 0, 0) for row, level in rows), markers[tile]]]
    return [(row, tile, level, 0, 0) for row, level in rows for tile in range(tiles)] + markers


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
    for name in ("n_in", "tiles", "order", "dense", "embed", "embed_row_a", "embed_row_b", "embed_has_b"):
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
            jobs.append((random_levels(rng, cfg, rate), {"n_in": n_in, "tiles": 3, "order": order, "dense": dense}))
    for order in Order:
        for has_b in (0, 1):
            jobs.append((random_levels(rng, cfg, 0.5), {
                "n_in": 64, "tiles": 2, "order": order, "embed": 1, "embed_row_a": 40000, "embed_row_b": 7,
                "embed_has_b": has_b}))
    for _ in range(count):
        jobs.append((random_levels(rng, cfg, rng.choice([0.02, 0.1, 0.5, 1.0])), {
            "n_in": rng.randint(0, full), "tiles": rng.choice([1, 2, 5, 16]), "order": rng.choice(list(Order)),
            "dense": rng.random() < 0.2}))
    return jobs


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("seed, stall", [(1, 0.0), (2, 0.5)])
def test_events_of_every_command(rows, seed, stall):
    print(f"seed {seed}")
    rng, cfg = random.Random(seed), replace(TINY, rows=rows)
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
            got = await receive(ctx, dut.o, len(expected), stalls)
            assert [(e.row, e.tile, e.level, e.marker, e.last) for e in got] == expected, (index, job)
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


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("spikes", ["all", "one per word", "dense"])
def test_latency_and_no_bubbles(order, spikes):
    cfg = TINY
    dut = RowScheduler(cfg=cfg)
    m, fill = with_buffer(dut, cfg)
    levels = [int(spikes == "all" or (spikes == "one per word" and i % cfg.cols == i // cfg.cols)) for i in range(cfg.max_neurons)]
    job = {"n_in": cfg.max_neurons, "tiles": 3, "order": order, "dense": spikes == "dense"}
    count = len(expected_events(levels, job))

    async def bench(ctx):
        for _ in range(2):
            await begin(ctx, dut, fill, levels, job)
            assert await cycles_of(ctx, dut, count) == list(range(dut.latency, dut.latency + count))
            await ctx.tick()

    simulate(m, bench)


def test_empty_words_hide_behind_events_or_cost_a_cycle():
    cfg = TINY
    dut = RowScheduler(cfg=cfg)
    m, fill = with_buffer(dut, cfg)

    async def bench(ctx):
        for levels, extra in (([1] * 8 + [0] * 48 + [1] * 8, 0), ([1] + [0] * 55 + [1] * 8, 6), ([0] * 64, 7)):
            job = {"n_in": 64, "tiles": 1, "order": Order.TILES}
            count = len(expected_events(levels, job))
            await begin(ctx, dut, fill, levels, job)
            assert (await cycles_of(ctx, dut, count))[-1] == dut.latency + count - 1 + extra
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
            got = await receive(ctx, dut.o, len(expected))
            assert [(e.row, e.tile, e.level, e.marker, e.last) for e in got] == expected

    simulate(m, bench)
