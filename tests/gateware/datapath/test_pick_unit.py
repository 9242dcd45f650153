"""`PickUnit` and its hash against `arch.numerics`: every mode, ties, short vocabularies, latencies, dumps."""

import random
import warnings

import numpy as np
import pytest

from spikeloom.arch import numerics
from spikeloom.arch.presets import preset
from spikeloom_hw.datapath.pick_unit import PickUnit
from spikeloom_hw.datapath.sampler import Hash32
from spikeloom_sim.pysim import simulate

warnings.simplefilter("error", DeprecationWarning)
CFG = preset("tiny")
MASK = (1 << CFG.acc_width) - 1


def pack(values):
    return sum((int(value) & MASK) << index * CFG.acc_width for index, value in enumerate(values))


async def write_noise(ctx, dut, table):
    ctx.set(dut.noise_index, 0)
    ctx.set(dut.noise_index_strobe, 1)
    await ctx.tick()
    ctx.set(dut.noise_index_strobe, 0)
    ctx.set(dut.noise_data_strobe, 1)
    for value in table:
        ctx.set(dut.noise_data, int(value) & 0xFFFFFF)
        await ctx.tick()
    ctx.set(dut.noise_data_strobe, 0)


async def write_logits(ctx, dut, logits, vocabulary, rng):
    """All groups in any order; those that the vocabulary does not reach hold what nobody may see."""
    ctx.set(dut.vocabulary, vocabulary)
    ctx.set(dut.clear, 1)
    await ctx.tick()
    ctx.set(dut.clear, 0)
    groups = list(range(len(logits) // CFG.lanes))
    if rng.random() < 0.3:
        rng.shuffle(groups)
    for group in groups:
        ctx.set(dut.w_en, 1)
        ctx.set(dut.w_group, group)
        ctx.set(dut.w_values, pack(logits[group * CFG.lanes:(group + 1) * CFG.lanes]))
        await ctx.tick()
        if rng.random() < 0.1:
            ctx.set(dut.w_en, 0)
            await ctx.tick()
    ctx.set(dut.w_en, 0)


async def run(ctx, dut, **fields):
    """Results and cycles of one pick."""
    for name, value in fields.items():
        ctx.set(getattr(dut, name), value)
    ctx.set(dut.start, 1)
    cycles = 0
    while True:
        await ctx.tick()
        cycles += 1
        ctx.set(dut.start, 0)
        for name in fields:
            ctx.set(getattr(dut, name), random.getrandbits(1))
        if ctx.get(dut.done):
            break
        assert ctx.get(dut.busy) and cycles < 2000
    assert not ctx.get(dut.busy)
    return cycles


def draw_logits(rng):
    spread = rng.choice([0, 1, 3, 50, 1000, (1 << (CFG.acc_width - 1)) - 1])
    offset = rng.choice([0, -spread]) if spread < 1 << 20 else 0
    return np.array([rng.randint(-spread, spread) + offset for _ in range(CFG.max_vocabulary)])


@pytest.mark.parametrize("seed", range(6))
def test_picks(seed):
    print(f"seed {seed}")
    rng = random.Random(seed)
    dut = PickUnit(cfg=CFG)
    temperature, scale = rng.choice([(0.0, 1), (0.3, 40.0), (1.0, 5.0), (1.0, 300.0), (2.5, 90000.0)])
    noise = numerics.noise_table(temperature, scale)

    async def bench(ctx):
        await write_noise(ctx, dut, noise)
        for case in range(40):
            logits = draw_logits(rng)
            vocabulary = rng.choice([1, 2, 3, 4, 5, 30, 61, 63, 64, rng.randint(1, 64)])
            await write_logits(ctx, dut, logits, vocabulary, rng)
            idle = rng.choice([1, dut.write_latency, 10])
            for _ in range(idle - 1):
                await ctx.tick()
            seen = logits[:vocabulary]
            for _ in range(3):
                sample, top_k = rng.random() < 0.8, rng.randint(0, 8)
                seed_value, position, target = rng.getrandbits(32), rng.getrandbits(16), rng.randrange(vocabulary)
                cycles = await run(ctx, dut, sample=sample, top_k=top_k, seed=seed_value, position=position, target=target)
                expected = numerics.pick(seen, top_k=top_k, noise=noise if sample else None, seed=seed_value, position=position)
                note = f"seed {seed} case {case} vocabulary {vocabulary} sample {sample} top_k {top_k}"
                assert ctx.get(dut.token) == expected, note
                assert ctx.get(dut.token_logit) == seen[expected], note
                assert ctx.get(dut.best_id) == np.argmax(seen), note
                assert ctx.get(dut.best_logit) == seen.max(), note
                assert ctx.get(dut.target_logit) == seen[target], note
                latency = dut.pick_latency(vocabulary=vocabulary, sample=sample, top_k=top_k)
                late = max(0, dut.write_latency - idle)
                assert latency <= cycles <= latency + late, note
                idle = dut.write_latency
            group = rng.randrange(dut.groups)
            ctx.set(dut.d_group, group)
            await ctx.tick()
            assert ctx.get(dut.d_values) == pack(logits[group * CFG.lanes:(group + 1) * CFG.lanes])

    simulate(dut, bench)


def test_best_follows_writes():
    dut = PickUnit(cfg=CFG)

    async def bench(ctx):
        ctx.set(dut.vocabulary, CFG.max_vocabulary)
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        ctx.set(dut.w_en, 1)
        ctx.set(dut.w_group, 3)
        ctx.set(dut.w_values, pack([-5, -4, -4, -9]))
        await ctx.tick()
        ctx.set(dut.w_en, 0)
        for _ in range(dut.write_latency - 1):
            assert ctx.get(dut.best_id) == 0
            await ctx.tick()
        assert (ctx.get(dut.best_id), ctx.get(dut.best_logit)) == (3 * CFG.lanes + 1, -4)

    simulate(dut, bench)


def test_hash():
    rng = random.Random(7)
    dut = Hash32()
    words = [0, 1, 0xFFFFFFFF, *(rng.getrandbits(32) for _ in range(200))]
    got = []

    async def bench(ctx):
        for cycle in range(len(words) + dut.latency):
            ctx.set(dut.i, words[cycle] if cycle < len(words) else 0)
            if cycle >= dut.latency:
                got.append(ctx.get(dut.o))
            await ctx.tick()

    simulate(dut, bench)
    assert got == list(numerics.hash32(np.array(words)))
