"""`AttentionUnit` and its parts against `arch.numerics`: gathered values, winners, passes, latency."""

import dataclasses
import random

import numpy as np
import pytest

from spikeloom.arch import numerics
from spikeloom.arch.commands import Attention
from spikeloom.arch.config import RECENCY_OFF
from spikeloom.arch.cycles import most_hits
from spikeloom.arch.presets import preset
from spikeloom_hw.datapath.attention_unit import KEY, QUERY, VALUE, AttentionUnit
from spikeloom_hw.datapath.score_unit import ScoreUnit, key_zero
from spikeloom_hw.datapath.winner_tree import TopKList, WinnerTree
from spikeloom_sim.pysim import simulate

TINY = preset("tiny")
SHAPES = {
    "tiny": TINY,
    "lanes_above": dataclasses.replace(TINY, cols=16, lanes=8, score_banks=4, k_max=3),
    "lanes_below": dataclasses.replace(TINY, segment=8, k_max=8, score_banks=4),
    # The sums of SSA need every bit.
    "small_levels": dataclasses.replace(TINY, k_max=2, level_max=2),
    "three_segments": dataclasses.replace(TINY, cols=8, max_width=24, max_neurons=72, segment=8, k_max=2),
}


def pack(values, width):
    return sum((int(value) & (1 << width) - 1) << index * width for index, value in enumerate(values))


async def write(ctx, dut, kind, levels, position=0, base=0):
    """One tensor of one token, groups in order."""
    cfg = dut.cfg
    ctx.set(dut.w_en, 1)
    ctx.set(dut.w_kind, kind)
    ctx.set(dut.w_position, position)
    ctx.set(dut.w_kv_base, base)
    for group in range(len(levels) // cfg.lanes):
        ctx.set(dut.w_group, group)
        ctx.set(dut.w_levels, pack(levels[group * cfg.lanes:(group + 1) * cfg.lanes], cfg.level_bits))
        await ctx.tick()
    ctx.set(dut.w_en, 0)


async def run(ctx, dut, **fields):
    """Cycles from start to done, and winners counted."""
    for name, value in fields.items():
        ctx.set(getattr(dut, name), value)
    ctx.set(dut.start, 1)
    cycles = found = 0
    while True:
        await ctx.tick()
        cycles += 1
        ctx.set(dut.start, 0)
        for name in fields:  # taken with start: what they are later does not matter
            ctx.set(getattr(dut, name), random.getrandbits(3))
        if ctx.get(dut.winners_strobe):
            found += ctx.get(dut.winners)
        assert ctx.get(dut.ready_for_fire) == ctx.get(dut.done)
        if ctx.get(dut.done):
            break
        assert ctx.get(dut.busy) and cycles < 200
    assert not ctx.get(dut.busy)
    return cycles, found


async def gathered(ctx, dut):
    cfg, out = dut.cfg, []
    for group in range(cfg.max_width // cfg.lanes):
        ctx.set(dut.g_group, group)
        await ctx.delay(1e-10)
        word = ctx.get(dut.g_values)
        out += [word >> lane * cfg.gather_width & (1 << cfg.gather_width) - 1 for lane in range(cfg.lanes)]
    sign = 1 << cfg.gather_width - 1
    return (np.array(out) ^ sign) - sign


def spikes(draw, lowest, size):
    """1, or where `lowest` is -1 either sign."""
    return draw.choice([lowest | 1, 1], size)


def reference(cfg, heads, query, keys, values, *, last, position, top_k, overlap, recency, shifts):
    """Gathered values and number of winners by `arch.numerics`; keys and values of positions 0..last."""
    n, d = last + 1, len(query) // heads
    raw = numerics.raw_scores(query.reshape(heads, d), keys[:n].reshape(n, heads, d))
    biased = numerics.biased_scores(raw, np.abs(position - np.arange(n)), recency)
    chosen = numerics.winners(biased, raw > 0 if overlap else np.ones_like(raw, bool), top_k)
    out = np.zeros((heads, d), np.int64)
    if top_k:
        most = max(shifts[:top_k])
        out = numerics.gather(values[:n].reshape(n, heads, d), chosen, [most - s for s in shifts[:top_k]]) << min(shifts[:top_k])
    return out.reshape(-1), sum(len(c) for c in chosen)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_rows(shape, seed):
    print(f"seed {seed}")
    cfg, rng = SHAPES[shape], random.Random(f"{shape} {seed}")
    draw = np.random.default_rng(rng.getrandbits(32))
    dut = AttentionUnit(cfg=cfg)
    layers = cfg.kv_positions // cfg.max_context

    async def bench(ctx):
        for text in range(4):
            head_level = (seed + text) % cfg.head_levels
            head_width = cfg.segment << head_level
            heads = rng.choice([h for h in range(1, cfg.max_width // head_width + 1) if h * head_width % cfg.lanes == 0])
            width = heads * head_width
            base = rng.randrange(layers) * cfg.max_context
            density = rng.choice([0.05, 0.3, 0.6])
            lowest = rng.choice([0, -1])  # binary or ternary
            keys = (draw.random((cfg.max_context, width)) < density) * spikes(draw, lowest, (cfg.max_context, width))
            values = draw.integers(lowest * (cfg.level_max - 1), cfg.level_max + 1, (cfg.max_context, width))
            if text % 2:
                values[:] = cfg.level_max
            length = rng.choice([2, cfg.score_banks, cfg.score_banks + 1, cfg.max_context])
            for position in range(length):
                await write(ctx, dut, KEY, keys[position], position, base)
                await write(ctx, dut, VALUE, values[position], position, base)
                query = (draw.random(width) < density) * spikes(draw, lowest, width)
                await write(ctx, dut, QUERY, query)
                if length > 8 and rng.random() < 0.5 and position not in (0, length - 1):
                    continue
                top_k, overlap = rng.randint(1, cfg.k_max), rng.random() < 0.3
                recency = [rng.choice([0, 1, 3, RECENCY_OFF]) for _ in range(heads)]
                shifts = [rng.randint(0, 7) for _ in range(8)]
                cycles, found = await run(
                    ctx, dut, attention=Attention.WTA, groups=width // cfg.lanes, a_kv_base=base, head_level=head_level, top_k=top_k,
                    overlap=overlap, bidirectional=0, gather_shifts=pack(shifts, 3), recency=pack(recency, 4),
                    position=position, last_position=rng.getrandbits(16))
                expected, winners = reference(cfg, heads, query, keys, values, last=position, position=position,
                                              top_k=top_k, overlap=overlap, recency=recency, shifts=shifts)
                note = f"{shape} seed {seed} text {text} position {position} head_level {head_level} top_k {top_k} overlap {overlap}"
                assert list((await gathered(ctx, dut))[:width]) == list(expected), note
                assert found == winners, note
                assert cycles == dut.row_latency(last_position=position, top_k=top_k), note

    simulate(dut, bench)


def test_bidirectional_and_no_winner():
    """Later positions compete where they may; no rank asked for, or nothing shared, gathers nothing."""
    cfg, dut, draw = TINY, AttentionUnit(cfg=TINY), np.random.default_rng(5)
    keys = draw.integers(0, 2, (9, cfg.max_width))
    values = draw.integers(0, cfg.level_max + 1, (9, cfg.max_width))
    query = draw.integers(0, 2, cfg.max_width)
    fields = {"groups": cfg.max_width // cfg.lanes, "a_kv_base": 0, "head_level": 1, "overlap": 1,
              "bidirectional": 1, "gather_shifts": 0, "recency": pack([1, 15], 4), "position": 3, "last_position": 8}

    async def bench(ctx):
        for position in range(9):
            await write(ctx, dut, KEY, keys[position], position)
            await write(ctx, dut, VALUE, values[position], position)
        await write(ctx, dut, QUERY, query)
        cycles, found = await run(ctx, dut, top_k=3, **fields)
        expected, winners = reference(cfg, 2, query, keys, values, last=8, position=3, top_k=3, overlap=True,
                                      recency=[1, 15], shifts=[0] * 8)
        assert list(await gathered(ctx, dut)) == list(expected) and found == winners
        assert cycles == dut.row_latency(last_position=8, top_k=3)
        cycles, found = await run(ctx, dut, top_k=0, **fields)
        assert not (await gathered(ctx, dut)).any() and found == 0
        assert cycles == dut.row_latency(last_position=8, top_k=0)
        await write(ctx, dut, QUERY, query & 0)
        cycles, found = await run(ctx, dut, top_k=4, **fields)
        assert not (await gathered(ctx, dut)).any() and found == 0

    simulate(dut, bench)


@pytest.mark.parametrize("attention", [Attention.SFSA, Attention.SSA], ids=lambda attention: attention.name)
@pytest.mark.parametrize("shape", SHAPES)
def test_walks(shape, attention):
    """SFSA and SSA of binary and ternary spikes, causal and not, between texts of WTA; the largest sums fit."""
    cfg, rng = SHAPES[shape], random.Random(f"{shape} {attention}")
    draw = np.random.default_rng(rng.getrandbits(32))
    dut = AttentionUnit(cfg=cfg)
    layers = cfg.kv_positions // cfg.max_context

    async def bench(ctx):
        for text in range(6):
            head_level = text % cfg.head_levels
            head_width = cfg.segment << head_level
            heads = rng.choice([h for h in range(1, cfg.max_width // head_width + 1) if h * head_width % cfg.lanes == 0])
            width, length = heads * head_width, rng.choice([1, cfg.score_banks + 1, cfg.max_context])
            base, lowest = rng.randrange(layers) * cfg.max_context, rng.choice([0, -1])
            highest = cfg.level_max if attention == Attention.SFSA else 1
            keys = (draw.random((length, width)) < 0.6) * spikes(draw, lowest, (length, width))
            values = draw.integers(min(lowest, -lowest * (1 - highest)), highest + 1, (length, width))
            query = (draw.random(width) < 0.6) * spikes(draw, lowest, width)
            if text == 5:  # as much as there can be
                query, keys, values = np.ones_like(query), keys * 0 + 1, values * 0 + highest
            for position in range(length):
                await write(ctx, dut, KEY, keys[position], position, base)
                await write(ctx, dut, VALUE, values[position], position, base)
            await write(ctx, dut, QUERY, query)
            for _ in range(2):
                position, bidirectional = rng.randrange(length), rng.random() < 0.5
                last = length - 1 if bidirectional else position
                thresholds = [rng.randint(0, 15 if heads == 1 else 4) for _ in range(heads)]
                if text == 5:
                    position = last = length - 1
                    thresholds = [0] * heads
                cycles, found = await run(
                    ctx, dut, attention=attention, groups=width // cfg.lanes, a_kv_base=base, head_level=head_level,
                    top_k=rng.randint(0, 15), overlap=rng.randint(0, 1), bidirectional=bidirectional,
                    gather_shifts=rng.getrandbits(24), recency=pack(thresholds, 4), position=position,
                    last_position=last if bidirectional else rng.getrandbits(16))
                n = last + 1
                raw = numerics.raw_scores(query.reshape(heads, -1), keys[:n].reshape(n, heads, -1))
                of_heads, eligible = values[:n].reshape(n, heads, -1), np.ones(n, bool)
                if attention == Attention.SFSA:
                    expected, counts = numerics.sfsa_gather(of_heads, raw, eligible, thresholds), raw >= np.array(thresholds)[:, None]
                else:
                    expected, counts = numerics.ssa_gather(of_heads, raw, eligible), raw != 0
                latency = dut.row_latency(last_position=last, attention=attention, hits=most_hits(cfg, counts))
                note = f"{shape} text {text} position {position} last {last} heads {heads} thresholds {thresholds}"
                assert list((await gathered(ctx, dut))[:width]) == list(expected.reshape(-1)), note
                assert (cycles, found) == (latency, np.count_nonzero(counts)), note

    simulate(dut, bench)


@pytest.mark.parametrize("attention", Attention, ids=lambda attention: attention.name)
@pytest.mark.parametrize("shape", ["tiny", "lanes_above"])
def test_scans_ahead_of_keys_and_values(shape, attention):
    """The query first, its last group with `ahead`; key and value, stale ones until then, while rows are scanned."""
    cfg, rng = SHAPES[shape], random.Random(f"{shape} {attention}")
    draw, dut = np.random.default_rng(rng.getrandbits(32)), AttentionUnit(cfg=cfg)
    width, heads = cfg.max_width, cfg.segments // 2
    keys = draw.integers(-1, 2, (cfg.max_context, width))
    values = draw.integers(-1 if attention == Attention.SSA else 1 - cfg.level_max, 2, (cfg.max_context, width))

    async def bench(ctx):
        for position in range(cfg.max_context):
            await write(ctx, dut, KEY, draw.integers(-1, 2, width), position)
            await write(ctx, dut, VALUE, draw.integers(-1, 2, width), position)
        for position in range(cfg.max_context):
            query = draw.integers(-1, 2, width)
            top_k, recency = rng.randint(1, cfg.k_max), [rng.choice([0, 1, 3, RECENCY_OFF]) for _ in range(heads)]
            fields = dict(attention=attention, groups=width // cfg.lanes, a_kv_base=0, head_level=1, top_k=top_k, overlap=0,
                          bidirectional=0, gather_shifts=0, recency=pack(recency, 4), position=position, last_position=0)
            await write(ctx, dut, QUERY, query[:-cfg.lanes])
            for name, value in fields.items():
                ctx.set(getattr(dut, name), value)
            ctx.set(dut.ahead, 1)
            ctx.set(dut.w_en, 1)
            ctx.set(dut.w_group, width // cfg.lanes - 1)
            ctx.set(dut.w_levels, pack(query[-cfg.lanes:], cfg.level_bits))
            await ctx.tick()
            ctx.set(dut.ahead, 0)
            assert not ctx.get(dut.ready_for_fire)
            await write(ctx, dut, KEY, keys[position], position)
            await write(ctx, dut, VALUE, values[position], position)
            idle = rng.choice([0, 0, 1, 5, cfg.max_context])
            for _ in range(idle):
                await ctx.tick()
            assert not ctx.get(dut.busy)
            cycles, _ = await run(ctx, dut, **fields)
            n = position + 1
            raw = numerics.raw_scores(query.reshape(heads, -1), keys[:n].reshape(n, heads, -1))
            of_heads, eligible, hits = values[:n].reshape(n, heads, -1), np.ones(n, bool), ()
            if attention == Attention.WTA:
                expected, _ = reference(cfg, heads, query, keys, values, last=position, position=position, top_k=top_k,
                                        overlap=False, recency=recency, shifts=[0] * 8)
            elif attention == Attention.SFSA:
                expected, hits = numerics.sfsa_gather(of_heads, raw, eligible, recency), most_hits(cfg, raw >= np.array(recency)[:, None])
            else:
                expected, hits = numerics.ssa_gather(of_heads, raw, eligible), most_hits(cfg, raw != 0)
            assert list(await gathered(ctx, dut)) == list(np.ravel(expected)), f"{shape} position {position}"
            ahead = 2 * width // cfg.lanes + idle
            assert cycles == dut.row_latency(last_position=position, top_k=top_k, attention=attention, ahead=ahead, hits=hits), (
                position, ahead, hits)

    simulate(dut, bench)


@pytest.mark.parametrize("seed", range(3))
def test_winner_tree(seed):
    """Many ties: winners in rank order, the most recent of equals first."""
    print(f"seed {seed}")
    cfg, rng, dut = TINY, random.Random(seed), WinnerTree(cfg=TINY)
    assert dut.latency == 1
    zero = key_zero(cfg)

    async def bench(ctx):
        for _ in range(30):
            n, spread = rng.randint(1, cfg.max_context), rng.choice([0, 1, 3, 15])
            rows = -(-n // cfg.score_banks)
            scores = [[rng.randint(-spread - 15, spread - 15) for _ in range(rows * cfg.score_banks)] for _ in range(cfg.segments)]
            valid = [[position < n and rng.random() < 0.8 for position in range(rows * cfg.score_banks)] for _ in range(cfg.segments)]
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            for row in range(rows):
                ctx.set(dut.i_valid, 1)
                ctx.set(dut.i_row, row)
                ctx.set(dut.i_keys, [[valid[slot][at] and zero + scores[slot][at]
                                      for at in range(row * cfg.score_banks, (row + 1) * cfg.score_banks)]
                                     for slot in range(cfg.segments)])
                await ctx.tick()
            ctx.set(dut.i_valid, 0)
            expected = numerics.winners(np.array(scores), np.array(valid), cfg.k_max)
            ctx.set(dut.pop, 1)
            for rank in range(cfg.k_max):
                await ctx.tick()
                assert ctx.get(dut.o_valid)
                for slot in range(cfg.segments):
                    winner = ctx.get(dut.o_winners[slot])
                    assert winner.found == (rank < len(expected[slot]))
                    if winner.found:
                        assert winner.position == expected[slot][rank]
            ctx.set(dut.pop, 0)
            await ctx.tick()
            assert not ctx.get(dut.o_valid)

    simulate(dut, bench)


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_refuses():
    with pytest.raises(ValueError, match="at least one key"):
        TopKList(cfg=TINY, depth=0)
    with pytest.raises(ValueError, match="recency"):
        AttentionUnit(cfg=dataclasses.replace(TINY, max_width=128, max_neurons=384))
    with pytest.raises(ValueError, match="max_context"):
        ScoreUnit(cfg=dataclasses.replace(TINY, score_banks=32))
