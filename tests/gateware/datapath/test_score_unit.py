"""`ScoreUnit` and `ScoreWalk` against `arch.numerics`: ternary scores of every head width, keys, who passes, latency."""

import dataclasses
import random

import numpy as np
import pytest

from spikeloom.arch import numerics
from spikeloom.arch.config import RECENCY_OFF
from spikeloom.arch.presets import preset
from spikeloom_hw.datapath.score_unit import ScoreUnit, key_width, key_zero
from spikeloom_hw.datapath.score_walk import ScoreWalk
from spikeloom_sim.pysim import simulate

TINY = preset("tiny")
SHAPES = {"tiny": TINY, "wide": dataclasses.replace(TINY, max_width=24, max_neurons=72, segment=8, score_banks=4)}


def pack(values, width=1):
    return sum((int(value) & (1 << width) - 1) << index * width for index, value in enumerate(values))


def extremes(draw, size):
    """Levels of either sign; now and then all the same."""
    kind = draw.integers(0, 5)
    return draw.integers(-1, 2, size) if kind < 3 else np.full(size, 1 if kind == 3 else -1)


@pytest.mark.parametrize("shape", SHAPES)
def test_scores(shape):
    cfg, rng = SHAPES[shape], random.Random(shape)
    draw, dut = np.random.default_rng(rng.getrandbits(32)), ScoreUnit(cfg=SHAPES[shape])
    assert (dut.raw_latency, dut.latency) == (2, 3)
    banks = cfg.score_banks

    async def bench(ctx):
        for _ in range(60):
            level = rng.randrange(cfg.head_levels)
            slots, width = cfg.segments >> level, cfg.segment << level
            query, keys = extremes(draw, cfg.max_width), extremes(draw, (banks, cfg.max_width))
            recency = [rng.choice([0, 1, 3, RECENCY_OFF]) for _ in range(cfg.segments)]
            live = rng.getrandbits(slots)
            row, query_position = rng.randrange(cfg.max_context // banks), rng.randrange(cfg.max_context)
            last, overlap = rng.randrange(cfg.max_context), rng.randint(0, 1)
            ctx.set(dut.q_en, 1)
            for group in range(dut.groups):
                of_group = query[group * cfg.lanes:(group + 1) * cfg.lanes]
                ctx.set(dut.q_group, group)
                ctx.set(dut.q_spoke, pack(of_group != 0))
                ctx.set(dut.q_minus, pack(of_group < 0))
                await ctx.tick()
            ctx.set(dut.q_en, 0)
            for name, value in dict(head_level=level, overlap=overlap, query_position=query_position, last_position=last,
                                    recency=pack(recency, 4), live=live, i_valid=1, i_row=row, i_spoke=pack(keys.ravel() != 0),
                                    i_minus=pack(keys.ravel() < 0)).items():
                ctx.set(getattr(dut, name), value)
            await ctx.tick()
            ctx.set(dut.i_valid, 0)
            positions = row * banks + np.arange(banks)
            used = slots * width
            raw = numerics.raw_scores(query[:used].reshape(slots, width), keys[:, :used].reshape(banks, slots, width))
            biased = numerics.biased_scores(raw, np.abs(positions - query_position), recency[:slots])
            await ctx.tick()
            assert [[ctx.get(dut.o_raw[slot][bank]) for bank in range(banks)] for slot in range(slots)] == raw.tolist()
            assert not ctx.get(dut.o_valid)
            await ctx.tick()
            assert ctx.get(dut.o_valid) and ctx.get(dut.o_row) == row
            for slot in range(cfg.segments):
                for bank, position in enumerate(positions):
                    competes = slot < slots and live >> slot & 1 and position <= last and (raw[slot][bank] > 0 or not overlap)
                    key = ctx.get(dut.o_keys[slot][bank])
                    assert key == (key_zero(cfg) + biased[slot][bank] if competes else 0)
            # They stay as long as the row does.
            await ctx.tick()
            assert ctx.get(dut.o_raw[0][banks - 1]) == raw[0][banks - 1] and not ctx.get(dut.o_valid)

    simulate(dut, bench)


@pytest.mark.parametrize("name", ["tiny", "sim", "pynq_z2", "kv260"])
def test_keys_have_room(name):
    """The lowest score of the farthest position still competes, the highest of the nearest fits."""
    cfg = preset(name)
    assert key_zero(cfg) - cfg.max_width - (cfg.max_context - 1) > 0
    assert key_zero(cfg) + cfg.max_width < 1 << key_width(cfg)


@pytest.mark.parametrize("fire", [0, 1])
@pytest.mark.parametrize("banks", [2, 4])
def test_walk(fire, banks):
    """Rows with pauses between them: every position that counts once, per head in order, and no cycle more than the fullest head needs."""
    cfg = dataclasses.replace(TINY, score_banks=banks)
    rng, dut = random.Random(f"{fire} {banks}"), ScoreWalk(cfg=cfg)
    assert dut.latency == 1

    async def bench(ctx):
        ctx.set(dut.fire, fire)
        for _ in range(40):
            last = rng.randrange(cfg.max_context)
            rows = [[[rng.choice([0, rng.randint(-cfg.max_width, cfg.max_width)]) for _ in range(banks)] for _ in range(cfg.segments)]
                    for _ in range(last // banks + 1)]
            thresholds = [rng.choice([0, 3, 15, max(0, min(15, rng.choice(of_slot)))]) for of_slot in rows[0]]
            live = rng.getrandbits(cfg.segments)
            counts = np.array([[[live >> slot & 1 and row * banks + bank <= last and (score >= thresholds[slot] if fire else score != 0)
                                 for bank, score in enumerate(of_slot)] for slot, of_slot in enumerate(of_row)]
                               for row, of_row in enumerate(rows)], bool)                # [rows, slots, banks]
            ctx.set(dut.thresholds, pack(thresholds, 4))
            ctx.set(dut.live, live)
            ctx.set(dut.last_position, last)
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            found, held, row = [[] for _ in range(cfg.segments)], 0, 0
            while row <= len(rows):  # one more, to see what the last row leaves
                there = row < len(rows) and rng.random() < 0.7
                ctx.set(dut.i_valid, there)
                ctx.set(dut.i_raw, rows[row] if there else rows[rng.randrange(len(rows))])
                await ctx.delay(1e-10)
                hold = ctx.get(dut.hold)
                if ctx.get(dut.o_valid):
                    for slot in range(cfg.segments):
                        hit = ctx.get(dut.o_hits[slot])
                        if hit.found:
                            found[slot].append(hit.position)
                            assert hit.score == rows[hit.position // banks][slot][hit.position % banks]
                held += hold
                await ctx.tick()
                row += (there or row == len(rows)) and not hold
            ctx.set(dut.i_valid, 0)
            for slot in range(cfg.segments):
                assert found[slot] == [row * banks + bank for row, bank in np.argwhere(counts[:, slot])]
            assert held == np.maximum(counts.sum(axis=2).max(axis=1) - 1, 0).sum()

    simulate(dut, bench)
