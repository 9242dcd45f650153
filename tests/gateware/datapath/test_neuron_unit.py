"""`datapath.neuron_unit` against `arch.numerics`: every target, every source, exact latency."""

import numpy as np
import pytest

from spikeloom.arch import numerics
from spikeloom.arch.layout import pack_parameters
from spikeloom.arch.presets import preset
from spikeloom_hw.datapath.neuron_unit import NeuronUnit, Source, Target
from spikeloom_sim.pysim import Stalls, simulate

CFG = preset("tiny")
LANES = CFG.lanes


def packed(values, width):
    return sum((int(v) & ((1 << width) - 1)) << (i * width) for i, v in enumerate(values))


def signed_words(word, width, count):
    out = []
    for i in range(count):
        v = word >> (i * width) & ((1 << width) - 1)
        out.append(v - (1 << width) if v >> (width - 1) else v)
    return out


def run_pass(job, values, residual, base, step, shift, *, tiles=None, stall=0.0, seed=0):
    """Run one pass; returns ({group: values}, parts, first result's cycle after its read, saturations, spikes)."""
    dut = NeuronUnit(cfg=CFG)
    records = pack_parameters(base, step, shift, lanes=LANES)
    table = [int.from_bytes(records[i:i + LANES * 8], "little") for i in range(0, len(records), LANES * 8)]
    results, parts, counts, timing = {}, {}, {"saturated": 0, "spikes": 0, "fired": 0}, {}
    per_tile = CFG.groups_per_tile
    stalls = Stalls(f"{seed} drain", stall)

    async def bench(ctx):
        ctx.set(dut.job, job)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        queue = list(range(tiles)) if tiles else []
        idle, cycle, issued, p_address = 0, 0, None, 0
        while True:
            if tiles and not ctx.get(dut.i_drain.valid) and queue:
                if idle:
                    idle -= 1
                else:
                    tile = queue[0]
                    ctx.set(dut.i_drain.payload, {"bank": 1, "tile": tile, "last": tile == tiles - 1})
                    ctx.set(dut.i_drain.valid, 1)
            # Registered answers of the parameter table, asynchronous ones of the others.
            ctx.set(dut.records, table[p_address] if p_address < len(table) else 0)
            source_group = ctx.get(dut.tile) * per_tile + ctx.get(dut.group)
            word = values[source_group * LANES:(source_group + 1) * LANES]
            ctx.set(dut.sums, packed(word, CFG.acc_width))
            r = ctx.get(dut.r_group) * LANES
            ctx.set(dut.residual, packed(residual[r:r + LANES], 16))
            g = ctx.get(dut.g_group) * LANES
            ctx.set(dut.gathered, packed(values[g:g + LANES], CFG.gather_width))
            p_address = ctx.get(dut.p_address)
            if issued is None and (not tiles or ctx.get(dut.i_drain.valid)):
                issued = cycle
            if ctx.get(dut.o_valid):
                timing.setdefault("latency", cycle - issued)
                group = ctx.get(dut.o.group)
                assert group not in results
                results[group] = signed_words(ctx.get(dut.o.values), CFG.acc_width, LANES)
                parts[group] = (ctx.get(dut.o.part), ctx.get(dut.o.part_group))
                counts["saturated"] += ctx.get(dut.n_saturated)
                counts["spikes"] += ctx.get(dut.n_spikes)
                counts["fired"] += ctx.get(dut.n_fired)
            if ctx.get(dut.done):
                return
            taken = ctx.get(dut.i_drain.valid) and ctx.get(dut.i_drain.ready)
            await ctx.tick()
            cycle += 1
            if taken:
                queue.pop(0)
                ctx.set(dut.i_drain.valid, 0)
                idle = stalls.draw()

    simulate(dut, bench, limit=3000)
    return results, parts, counts, timing["latency"]


def flat(results):
    return np.array([v for group in sorted(results) for v in results[group]])


def job(source, target, groups, **fields):
    return {"source": source, "target": target, "dst": 0, "groups": groups, "params": 0, "base_group": 0,
            "attn_groups": 0, "level": 4, "embed_shift": 0, **fields}


@pytest.mark.parametrize("seed, stall", [(1, 0.0), (2, 0.6)])
@pytest.mark.parametrize("level", [1, 3, 4, 7, 8])
def test_levels_of_sums(seed, stall, level):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    n = 3 * CFG.cols
    values = rng.integers(-3000, 3000, n)
    base, step = rng.integers(-200_000, 200_000, n), rng.integers(0, 120_000, n)
    base[::5], step[::5] = values[::5] << 8, 0  # exactly at the threshold
    results, _, counts, latency = run_pass(job(Source.SUMS, Target.SPIKES, n // LANES, level=level), values, np.zeros(n), base, step,
                                           None, tiles=3, stall=stall, seed=seed)
    expected = numerics.ni_lif(values, base, step, level)
    assert (flat(results) == expected).all() and expected.max() == level
    assert counts["spikes"] == expected.sum() and counts["fired"] == (expected > 0).sum()
    assert latency == NeuronUnit.latency


def test_padded_tiles_give_no_groups():
    results, *_ = run_pass(job(Source.SUMS, Target.SPIKES, 3), np.full(64, 9), np.zeros(64), np.zeros(64), None, None, tiles=4)
    assert sorted(results) == [0, 1, 2]


@pytest.mark.parametrize("seed", [1, 2])
def test_residual_adds_round_and_saturate(seed):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    n = CFG.max_width
    values, bias = rng.integers(-(1 << 22), 1 << 22, n), rng.integers(-(1 << 20), 1 << 20, n)
    shift, residual = rng.integers(0, 20, n), rng.integers(-(1 << 15), 1 << 15, n)
    results, _, counts, _ = run_pass(job(Source.SUMS, Target.RESIDUAL, n // LANES), values, residual, bias, None, shift, tiles=2)
    expected, saturations = numerics.residual_add(residual, values, bias, shift)
    assert (flat(results) == expected).all()
    assert counts["saturated"] == saturations > 0 and counts["spikes"] == 0


def test_embedding_is_set_and_shifted():
    values = np.arange(-8, 8) * 15
    results, *_ = run_pass(job(Source.SUMS, Target.SET, 4, embed_shift=3), values, np.full(16, 77), np.full(16, 5), None, None, tiles=2)
    assert (flat(results) == values << 3).all()


def test_logits_add_their_bias_from_a_base_group():
    rng = np.random.default_rng(3)
    values, bias = rng.integers(-9999, 9999, 16), rng.integers(-9999, 9999, 16)
    results, *_ = run_pass(job(Source.SUMS, Target.LOGITS, 4, base_group=5), values, np.zeros(64), bias, None, None, tiles=2)
    assert sorted(results) == [5, 6, 7, 8] and (flat(results) == values + bias).all()


def test_query_and_key_are_binary():
    n = 48
    values = np.full(n, 100)
    results, parts, *_ = run_pass(job(Source.SUMS, Target.QKV, 12, attn_groups=4), values, np.zeros(64), np.zeros(n), np.ones(n), None,
                                  tiles=6)
    assert (flat(results) == [1] * 32 + [4] * 16).all()
    assert [parts[g] for g in range(12)] == [(g // 4, g % 4) for g in range(12)]


@pytest.mark.parametrize("source", [Source.RESIDUAL, Source.GATHER])
def test_residual_and_gathered_values_fire(source):
    rng = np.random.default_rng(5)
    n = CFG.max_width
    values = rng.integers(0, 1000, n) if source == Source.GATHER else rng.integers(-(1 << 15), 1 << 15, n)
    base, step = rng.integers(-100_000, 200_000, n), rng.integers(0, 60_000, n)
    results, _, _, latency = run_pass(job(source, Target.SPIKES, n // LANES), values, values, base, step, None)
    assert (flat(results) == numerics.ni_lif(values, base, step, 4)).all()
    assert latency == NeuronUnit.latency
