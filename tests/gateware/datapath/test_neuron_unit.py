"""`datapath.neuron_unit` against `arch.numerics`: every neuron, sink and source, over passes, with exact latency."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from spikeloom.arch import numerics
from spikeloom.arch.commands import STATELESS, Neuron, Sink
from spikeloom.arch.config import LEAK_OFF, lowest_level
from spikeloom.arch.layout import pack_parameters
from spikeloom.arch.presets import preset
from spikeloom_hw.datapath.neuron_unit import BUFFERED, RESIDENT, SPIKING, NeuronUnit, Source
from spikeloom_sim.pysim import Stalls, simulate

CFG = preset("tiny")
LANES = CFG.lanes
LEVELED = (Neuron.NI_LIF, Neuron.I_LIF, Neuron.SIGNED_NI_LIF)


def packed(values, width):
    return sum((int(v) & ((1 << width) - 1)) << (i * width) for i, v in enumerate(values))


def signed_words(word, width, count):
    out = []
    for i in range(count):
        v = word >> (i * width) & ((1 << width) - 1)
        out.append(v - (1 << width) if v >> (width - 1) else v)
    return out


def job(source, sink, groups, **fields):
    return {"source": source, "sink": sink, "dst": 0, "groups": groups, "params": 0, "base_group": 0, "attn_groups": 0, "level": 4,
            "embed_shift": 0, "neuron": Neuron.NI_LIF, "leak": LEAK_OFF, "first": 0, **fields}


@dataclass
class Pass:
    """One pass, what it reads and, once it ran, what it wrote."""

    job: dict
    values: np.ndarray
    #: Tiles (SUMS).
    tiles: int = 0
    #: The next pass is chained to it.
    chain: bool = False
    #: Cycle of its last result.
    done: int = None
    results: dict = field(default_factory=dict)
    levels: dict = field(default_factory=dict)
    words: dict = field(default_factory=dict)
    parts: dict = field(default_factory=dict)
    counts: dict = field(default_factory=lambda: {"saturated": 0, "spikes": 0, "fired": 0})
    latency: int = None

    def flat(self, what="results"):
        kept = getattr(self, what)
        return np.array([v for group in sorted(kept) for v in kept[group]])


class Machine:
    """The unit with its memories, as arrays: one cycle of latency, writes seen from the next cycle on."""

    def __init__(self, *, residual=None, base=None, step=None, shift=None, groups=16):
        n = groups * LANES
        zeros = np.zeros(n, np.int64)
        records = pack_parameters(*(zeros if x is None else np.pad(x, (0, n - len(x))) for x in (base, step, shift)), lanes=LANES)
        self.table = [int.from_bytes(records[i:i + LANES * 8], "little") for i in range(0, len(records), LANES * 8)]
        self.residual = np.zeros(CFG.max_width, np.int64) if residual is None else np.array(residual, np.int64)
        # What an earlier run left must not matter.
        self.membranes = np.full((groups, LANES), -987654321, np.int64)

    def run(self, *passes, stall=0.0, seed=0):
        """The passes one after another, each as early as it may come."""
        dut = NeuronUnit(cfg=CFG)
        stalls = Stalls(f"{seed} drain", stall)
        answers = {"p_address": 0, "r_group": 0}

        async def cycle(ctx, it):
            """Answer the unit, note what it makes, go on."""
            ctx.set(dut.records, self.table[answers["p_address"]] if answers["p_address"] < len(self.table) else 0)
            at = min(answers["p_address"], len(self.membranes) - 1)
            ctx.set(dut.membranes, answers.get("membranes", packed(self.membranes[at], 32)))
            ctx.set(dut.residual, answers.get("residual", 0))
            place = (ctx.get(dut.tile) * CFG.groups_per_tile + ctx.get(dut.group)) * LANES
            ctx.set(dut.sums, packed(it.values[place:place + LANES], CFG.acc_width))
            place = ctx.get(dut.g_group) * LANES
            ctx.set(dut.gathered, packed(it.values[place:place + LANES], CFG.gather_width))
            self._note(ctx, dut, it)
            # Memories read before they are written in the same cycle.
            answers["p_address"], r = ctx.get(dut.p_address), ctx.get(dut.r_group) * LANES
            answers["membranes"] = packed(self.membranes[min(answers["p_address"], len(self.membranes) - 1)], 32)
            answers["residual"] = packed(self.residual[r:r + LANES], 16)
            if ctx.get(dut.m_en):
                self.membranes[ctx.get(dut.m_address)] = signed_words(ctx.get(dut.m_values), 32, LANES)
            if ctx.get(dut.o_valid) and ctx.get(dut.o.to_residual):
                r = ctx.get(dut.o.home) * LANES
                self.residual[r:r + LANES] = signed_words(ctx.get(dut.o.words), 16, LANES)

        async def bench(ctx):
            now = 0
            for it, following in zip(passes, [*passes[1:], passes[0]]):
                ctx.set(dut.job, it.job)
                ctx.set(dut.next_job, following.job)
                ctx.set(dut.chain, it.chain)
                ctx.set(dut.start, 1)
                await cycle(ctx, it)
                await ctx.tick()
                ctx.set(dut.start, 0)
                # The job is taken at the start.
                ctx.set(dut.job, job(Source.SUMS, Sink.LOGITS, 1, neuron=7, leak=3))
                now += 1
                queue, idle, count, issued = list(range(it.tiles)), 0, 0, None
                while True:
                    if queue and not ctx.get(dut.i_drain.valid):
                        if idle:
                            idle -= 1
                        else:
                            ctx.set(dut.i_drain.payload, {"bank": 1, "tile": queue[0], "last": len(queue) == 1})
                            ctx.set(dut.i_drain.valid, 1)
                    if issued is None and (not it.tiles or ctx.get(dut.i_drain.valid)):
                        issued = count + (it.job["sink"] in SPIKING and it.job["neuron"] not in STATELESS and not count)
                    await cycle(ctx, it)
                    if it.latency is None and ctx.get(dut.o_valid):
                        it.latency = count - issued
                    done = ctx.get(dut.done)
                    taken = ctx.get(dut.i_drain.valid) and ctx.get(dut.i_drain.ready)
                    await ctx.tick()
                    count, now = count + 1, now + 1
                    if taken:
                        queue.pop(0)
                        ctx.set(dut.i_drain.valid, 0)
                        idle = stalls.draw()
                    if done:
                        it.done = now
                        break
            for _ in range(2):
                await cycle(ctx, passes[-1])
                await ctx.tick()

        simulate(dut, bench, limit=5000)
        return passes

    def _note(self, ctx, dut, it):
        counts = {"saturated": dut.n_saturated, "spikes": dut.n_spikes, "fired": dut.n_fired}
        for name, port in counts.items():
            it.counts[name] += ctx.get(port)
        if not ctx.get(dut.o_valid):
            return
        group, home = ctx.get(dut.o.group), ctx.get(dut.o.home)
        assert group not in it.results
        it.results[group] = signed_words(ctx.get(dut.o.values), CFG.acc_width, LANES)
        it.parts[group] = (ctx.get(dut.o.part), ctx.get(dut.o.part_group))
        assert ctx.get(dut.o.to_spikes) == (it.job["sink"] in BUFFERED)
        assert ctx.get(dut.o.to_residual) == (it.job["sink"] in RESIDENT)
        if it.job["sink"] in BUFFERED:
            it.levels[group] = signed_words(ctx.get(dut.o.levels), CFG.level_bits, LANES)
        if it.job["sink"] in RESIDENT:
            it.words[home] = signed_words(ctx.get(dut.o.words), 16, LANES)


def one(fields, values, *, tiles=0, stall=0.0, seed=0, **memories):
    """A single pass."""
    return Machine(**memories).run(Pass(fields, values, tiles), stall=stall, seed=seed)[0]


def codes(spikes):
    """Spikes as their level codes read as signed words."""
    return [v - (1 << CFG.level_bits) if v >> (CFG.level_bits - 1) else v for v in (int(s) & ((1 << CFG.level_bits) - 1) for s in spikes)]


@pytest.mark.parametrize("seed, stall", [(1, 0.0), (2, 0.6)])
@pytest.mark.parametrize("level", range(1, 9))
def test_levels_of_sums(seed, stall, level):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    n = 3 * CFG.cols
    values = rng.integers(-3000, 3000, n)
    base, step = rng.integers(-200_000, 200_000, n), rng.integers(0, 120_000, n)
    base[::5], step[::5] = values[::5] << 8, 0  # exactly at the threshold
    values[1], base[1], step[1] = (1 << 23) - 1, -1 << 31, (1 << 24) - 1
    values[2], base[2], step[2] = -1 << 23, (1 << 31) - 1, (1 << 24) - 1
    made = one(job(Source.SUMS, Sink.SPIKES, n // LANES, level=level), values, base=base, step=step, tiles=3, stall=stall, seed=seed)
    expected = numerics.ni_lif(values, base, step, level)
    assert (made.flat() == expected).all() and expected.max() == level
    assert (made.flat("levels") == codes(expected)).all()
    assert made.counts == {"spikes": expected.sum(), "fired": (expected > 0).sum(), "saturated": 0}
    assert made.latency == NeuronUnit.latency


@pytest.mark.parametrize("level", [4, 5, 8])
def test_every_threshold_is_met_exactly(level):
    groups, passes, bases = 3, [], []
    base, step = np.arange(12) * 37 - 300, np.arange(12) * 511
    for count in range(9):
        for off in (-1, 0, 1):
            goal = base + count * step + off
            bases.append(base + (goal >> 8 << 8) - goal)  # the same distance, with a sum of whole units
            passes.append(Pass(job(Source.SUMS, Sink.SPIKES, groups, level=level, params=len(passes) * groups), goal >> 8, 2))
    Machine(base=np.concatenate(bases), step=np.tile(step, len(passes)), groups=groups * len(passes)).run(*passes)
    for made, shifted in zip(passes, bases, strict=True):
        assert (made.flat() == numerics.ni_lif(made.values, shifted, step, level)).all()
    assert {v for made in passes for v in made.flat()} == set(range(level + 1))


@pytest.mark.parametrize("seed, stall", [(1, 0.0), (2, 0.6)])
@pytest.mark.parametrize("level", range(2, 9))
def test_levels_of_both_signs(seed, stall, level):
    print(f"seed {seed}")
    rng = np.random.default_rng([seed, level])
    n, low = 3 * CFG.cols, lowest_level(level)
    base, step = rng.integers(-200_000, 200_000, n), rng.integers(0, 120_000, n)
    values = (base + rng.uniform(low - 2, level + 1, n) * step).astype(np.int64) >> 8
    base[::5], step[::5] = values[::5] << 8, 0  # exactly at the threshold, and one below, whatever the step
    base[5::10] += 1
    values[1], base[1], step[1] = (1 << 23) - 1, -1 << 31, (1 << 24) - 1
    values[2], base[2], step[2] = -1 << 23, (1 << 31) - 1, (1 << 24) - 1
    kind = Neuron.SIGNED_NI_LIF
    made = one(job(Source.SUMS, Sink.SPIKES, n // LANES, level=level, neuron=kind), values, base=base, step=step, tiles=3, stall=stall,
               seed=seed)
    expected = numerics.ni_lif(values, base, step, level, low)
    assert (made.flat() == expected).all() and (expected.min(), expected.max()) == (low, level)
    assert (made.flat("levels") == codes(expected)).all()
    assert made.counts == {"spikes": np.abs(expected).sum(), "fired": (expected != 0).sum(), "saturated": 0}
    assert made.latency == NeuronUnit.latency


@pytest.mark.parametrize("level", [3, 5, 8])
def test_every_threshold_below_zero_is_met_exactly(level):
    groups, passes, bases, low = 3, [], [], lowest_level(level)
    base, step = np.arange(12) * 37 - 300, np.arange(12) * 511
    for count in range(-8, 9):
        for off in (-1, 0, 1):
            goal = base + count * step + off
            bases.append(base + (goal >> 8 << 8) - goal)  # the same distance, with a sum of whole units
            passes.append(Pass(job(Source.SUMS, Sink.SPIKES, groups, level=level, neuron=Neuron.SIGNED_NI_LIF,
                                   params=len(passes) * groups), goal >> 8, 2))
    Machine(base=np.concatenate(bases), step=np.tile(step, len(passes)), groups=groups * len(passes)).run(*passes)
    for made, shifted in zip(passes, bases, strict=True):
        assert (made.flat() == numerics.ni_lif(made.values, shifted, step, level, low)).all()
    assert {v for made in passes for v in made.flat()} == set(range(low, level + 1))


@pytest.mark.parametrize("kind", [kind for kind in Neuron if kind not in STATELESS], ids=lambda kind: kind.name)
@pytest.mark.parametrize("leak", [1, 2, 5, 14, LEAK_OFF])
def test_neurons_over_time_steps(kind, leak, seed):
    rng = np.random.default_rng([seed, kind, leak])
    n, level = 2 * CFG.cols, int(rng.integers(1, 9)) if kind in LEVELED else 1
    base, step = rng.integers(-100_000, 200_000, n), rng.integers(1, 120_000, n)
    step[0] = 0
    membrane, passes, expected = np.zeros(n, np.int64), [], []
    for time in range(6):
        values = rng.integers(-700, 1500, n)
        passes.append(Pass(job(Source.SUMS, Sink.SPIKES, n // LANES, level=level, neuron=kind, leak=leak, first=time == 0), values, 2))
        spikes, membrane = numerics.neuron_step(int(kind), values, membrane, base, step, levels=level, leak=leak)
        expected.append((spikes, membrane))
    machine = Machine(base=base, step=step)
    machine.run(*passes, stall=0.3, seed=seed)
    for made, (spikes, _) in zip(passes, expected, strict=True):
        assert (made.flat() == spikes).all()
        assert (made.flat("levels") == codes(spikes)).all()
        assert made.counts["spikes"] == np.abs(spikes).sum() and made.counts["fired"] == np.count_nonzero(spikes)
    assert (machine.membranes[:n // LANES].reshape(-1) == membrane).all()
    assert {int(s) for spikes, _ in expected for s in spikes} == ({-1, 0, 1} if kind == Neuron.T_LIF else set(range(level + 1)))


def test_a_pass_reads_the_membrane_that_the_one_before_wrote_last():
    """One group, passes as close as they may come: the write-back is the next pass's read."""
    values, base, step = np.full(LANES, 100), np.full(LANES, 30_000), np.full(LANES, 20_000)
    passes = [Pass(job(Source.RESIDUAL, Sink.SPIKES, 1, level=1, neuron=Neuron.LIF_SOFT, leak=3, first=t == 0), values) for t in range(5)]
    machine = Machine(residual=np.pad(values, (0, CFG.max_width - LANES)), base=base, step=step)
    machine.run(*passes)
    membrane, seen = 0, set()
    for made in passes:
        spikes, membrane = numerics.neuron_step("lif_soft", values, membrane, base, step, leak=3)
        assert (made.flat() == spikes).all()
        seen.add(int(membrane[0]))
    assert len(seen) == len(passes)


def test_passes_without_neurons_leave_membranes_alone():
    machine = Machine()
    before = machine.membranes.copy()
    for sink in (Sink.RESIDUAL, Sink.LOGITS, Sink.SET):
        machine.run(Pass(job(Source.SUMS, sink, 2, neuron=Neuron.T_LIF), np.arange(8), 1))
    machine.run(Pass(job(Source.SUMS, Sink.SPIKES, 2, neuron=Neuron.NI_LIF), np.arange(8), 1))
    assert (machine.membranes == before).all()


def test_parameters_name_the_membrane():
    machine = Machine(base=np.zeros(64), step=np.full(64, 1000), groups=16)
    machine.run(Pass(job(Source.SUMS, Sink.SPIKES, 3, params=9, base_group=2, neuron=Neuron.LIF_SOFT, level=1, first=1), np.full(16, 9), 2))
    assert (machine.membranes[9:12] == 9 << 8).all() and (machine.membranes[12] != 9 << 8).all() and (machine.membranes[2] != 9 << 8).all()


def test_padded_tiles_give_no_groups():
    made = one(job(Source.SUMS, Sink.SPIKES, 3), np.full(64, 9), tiles=4)
    assert sorted(made.results) == [0, 1, 2]


@pytest.mark.parametrize("seed", [1, 2])
def test_residual_adds_round_and_saturate(seed):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    n = CFG.max_width
    for largest, most in ((1 << 22, 20), (1 << 23, 31), (40_000, 4)):
        values, bias = rng.integers(-largest, largest, n), rng.integers(-largest // 4, largest // 4, n)
        shift, residual = rng.integers(0, most + 1, n), rng.integers(-(1 << 15), 1 << 15, n)
        made = one(job(Source.SUMS, Sink.RESIDUAL, n // LANES), values, residual=residual, base=bias, shift=shift, tiles=2)
        expected, saturations = numerics.residual_add(residual, values, bias, shift)
        assert (made.flat() == expected).all() and (made.flat("words") == expected).all()
        assert made.counts == {"saturated": saturations, "spikes": 0, "fired": 0} and saturations > 0


def test_residual_adds_at_the_edge():
    residual = np.array([32767, 32767, -32768, -32768, 32766, 0, 0, -1] * 2)
    values = np.array([0, 1, 0, -1, 1, 32767, 32768, -32768] * 2)
    made = one(job(Source.SUMS, Sink.RESIDUAL, 4), values, residual=residual, tiles=2)
    expected, saturations = numerics.residual_add(residual, values, 0, 0)
    assert (made.flat() == expected).all() and made.counts["saturated"] == saturations == 8


@pytest.mark.parametrize("shift", [0, 3, 8])
def test_embedding_is_set_shifted_and_clipped(shift):
    values = np.arange(-8, 8) * 15
    values[0], values[1] = 127 << 9, -127 << 9
    made = one(job(Source.SUMS, Sink.SET, 4, embed_shift=shift), values, residual=np.full(16, 77), base=np.full(16, 77),
               step=np.full(16, 5), shift=np.full(16, 2), tiles=2)
    expected, saturations = numerics.saturate(values << shift)
    assert (made.flat("words") == expected).all() and (made.flat() == expected).all() and made.counts["saturated"] == saturations


@pytest.mark.parametrize("kind", [Neuron.NI_LIF, Neuron.T_LIF, Neuron.I_LIF, Neuron.SIGNED_NI_LIF], ids=lambda kind: kind.name)
@pytest.mark.parametrize("shift", [0, 5, 8])
def test_spikes_are_added_to_the_residual(kind, shift, seed):
    rng = np.random.default_rng([seed, kind, shift])
    n, level = CFG.max_width, 8 if kind in LEVELED else 1
    values, residual = rng.integers(-3000, 3000, n), rng.integers(-(1 << 15), 1 << 15, n)
    residual[:4] = 32767, -32768, 32767 - (level << shift), 32600
    base, step = rng.integers(-200_000, 200_000, n), rng.integers(0, 120_000, n)
    values[0], values[1] = 3000, -3000
    machine = Machine(residual=residual, base=base, step=step)
    fields = job(Source.SUMS, Sink.ADD_SPIKES, n // LANES, level=level, neuron=kind, embed_shift=shift, first=1)
    made, = machine.run(Pass(fields, values, 2), stall=0.3)
    spikes, membrane = numerics.neuron_step(int(kind), values, 0, base, step, levels=level)
    expected, saturations = numerics.add_spikes(residual, spikes, shift)
    assert (made.flat() == expected).all() and (machine.residual == expected).all() and saturations > 0
    assert made.counts == {"saturated": saturations, "spikes": np.abs(spikes).sum(), "fired": np.count_nonzero(spikes)}
    assert made.latency == NeuronUnit.latency_of(Sink.ADD_SPIKES) == NeuronUnit.latency + 1
    if kind not in STATELESS:
        assert (machine.membranes[:n // LANES].reshape(-1) == membrane).all()


@pytest.mark.parametrize("source", [Source.RESIDUAL, Source.SUMS])
def test_spikes_replace_the_residual(source, seed):
    """A FIRE reads and replaces groups 0 and following, whatever group of the spike buffer it writes; an EMBED has one base."""
    rng = np.random.default_rng(seed)
    n = CFG.max_width // 2
    values, base, step = rng.integers(-1000, 1000, n), rng.integers(-90_000, 90_000, n), rng.integers(90_000, 190_000, n)
    values[:3] = -2000, -200, 2000
    base[1] = 0
    machine = Machine(residual=np.pad(values, (0, CFG.max_width - n)), base=base, step=step)
    made, = machine.run(Pass(job(source, Sink.SET_SPIKES, 2, base_group=2, embed_shift=6, level=1, neuron=Neuron.T_LIF, first=1), values,
                             0 if source == Source.RESIDUAL else 1))
    spikes, _ = numerics.neuron_step("t_lif", values, 0, base, step)
    home = 0 if source == Source.RESIDUAL else 2
    assert sorted(made.results) == [2, 3] and sorted(made.words) == [home, home + 1] and set(spikes) == {-1, 0, 1}
    assert (made.flat() == spikes).all() and (made.flat("levels") == spikes).all()
    assert (made.flat("words") == spikes << 6).all()
    assert made.counts["saturated"] == 0 and made.latency == NeuronUnit.latency


def test_logits_add_their_bias_from_a_base_group():
    rng = np.random.default_rng(3)
    values, bias = rng.integers(-9999, 9999, 16), rng.integers(-9999, 9999, 16)
    made = one(job(Source.SUMS, Sink.LOGITS, 4, base_group=5), values, base=bias, shift=np.full(16, 3), tiles=2)
    assert sorted(made.results) == [5, 6, 7, 8] and (made.flat() == values + bias).all()
    assert not any(made.counts.values())


@pytest.mark.parametrize("kind, level", [(Neuron.NI_LIF, 4), (Neuron.I_LIF, 8), (Neuron.SIGNED_NI_LIF, 8)])
def test_query_and_key_take_level_one(kind, level):
    n = 48
    values = np.full(n, 100)
    machine = Machine(base=np.zeros(n), step=np.full(n, 2))
    made, = machine.run(Pass(job(Source.SUMS, Sink.QKV, 12, attn_groups=4, level=level, neuron=kind, first=1), values, 6))
    assert (made.flat() == [1] * 32 + [level] * 16).all()
    if kind in STATELESS:
        below, = machine.run(Pass(job(Source.SUMS, Sink.QKV, 12, attn_groups=4, level=level, neuron=kind, first=1), -values, 6))
        assert (below.flat() == [0] * 32 + [lowest_level(level) if kind == Neuron.SIGNED_NI_LIF else 0] * 16).all()
    assert [made.parts[g] for g in range(12)] == [(g // 4, g % 4) for g in range(12)]
    if kind == Neuron.I_LIF:
        for levels, groups in ((1, machine.membranes[:8]), (level, machine.membranes[8:12])):
            assert (groups == numerics.neuron_step("i_lif", [100], 0, [0], [2], levels=levels)[1]).all()


@pytest.mark.parametrize("source", [Source.RESIDUAL, Source.GATHER])
def test_residual_and_gathered_values_fire(source):
    rng = np.random.default_rng(5)
    n = CFG.max_width
    values = rng.integers(-1 << (CFG.gather_width - 1) if source == Source.GATHER else -1 << 15, 1000, n)
    base, step = rng.integers(-100_000, 200_000, n), rng.integers(0, 60_000, n)
    made = one(job(source, Sink.SPIKES, n // LANES), values, residual=values if source == Source.RESIDUAL else None, base=base, step=step)
    assert (made.flat() == numerics.ni_lif(values, base, step, 4)).all()
    assert made.latency == NeuronUnit.latency


@pytest.mark.parametrize("sink", [Sink.RESIDUAL, Sink.SET, Sink.ADD_SPIKES], ids=lambda sink: sink.name)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_a_chained_pass_reads_what_was_just_written(sink, groups, stall, seed):
    """Values into the stream, its spikes right behind them, then another pass: no result is lost, late or early."""
    rng, n = np.random.default_rng([seed, groups, sink]), groups * LANES
    tiles = -(-groups // CFG.groups_per_tile)
    values, base, step = rng.integers(-2000, 2000, tiles * CFG.cols), rng.integers(-90_000, 90_000, 2 * n), rng.integers(1, 60_000, 2 * n)
    residual = rng.integers(-1000, 1000, CFG.max_width)
    if sink == Sink.RESIDUAL:
        step[:n] = 0
    machine = Machine(residual=residual, base=base, step=step)
    first = Pass(job(Source.SUMS, sink, groups, embed_shift=2), values, tiles, chain=True)
    second = Pass(job(Source.RESIDUAL, Sink.SPIKES, groups, params=groups, level=6), values)
    third = Pass(job(Source.SUMS, Sink.SPIKES, groups, level=3), values, tiles)
    machine.run(first, second, third, stall=stall, seed=seed)
    here, values = residual[:n], values[:n]
    spikes = numerics.ni_lif(values, base[:n], step[:n], 4)
    stream = {Sink.RESIDUAL: lambda: numerics.residual_add(here, values, base[:n], 0), Sink.SET: lambda: numerics.saturate(values << 2),
              Sink.ADD_SPIKES: lambda: numerics.add_spikes(here, spikes, 2)}[sink]()[0]
    assert (first.flat() == stream).all() and (machine.residual[:n] == stream).all()
    assert (second.flat() == numerics.ni_lif(stream, base[n:], step[n:], 6)).all()
    assert (third.flat() == numerics.ni_lif(values, base[:n], step[:n], 3)).all()
    delay = NeuronUnit.chain_delay(groups=tiles * CFG.groups_per_tile, sink=sink)
    assert second.done - first.done == groups + delay - (sink == Sink.ADD_SPIKES)
    assert second.counts["fired"] == np.count_nonzero(second.flat())


@pytest.mark.parametrize("kind", list(Neuron), ids=lambda kind: kind.name)
@pytest.mark.parametrize("tiles", [1, 3], ids=["narrow", "padded"])
def test_a_chained_pass_has_its_own_neurons(kind, tiles, seed):
    """None of the pass before is taken for its first group, whatever the neuron; tiles that only pad come last."""
    rng, groups = np.random.default_rng([seed, kind]), 2
    n, level, leak = groups * LANES, 6 if kind in LEVELED else 1, 3
    values, base, step = rng.integers(-900, 1500, tiles * CFG.cols), rng.integers(-90_000, 90_000, 2 * n), rng.integers(1, 60_000, 2 * n)
    step[:n] = 0
    machine = Machine(residual=np.zeros(CFG.max_width), base=base, step=step)
    first = Pass(job(Source.SUMS, Sink.RESIDUAL, groups), values, tiles, chain=True)
    second = Pass(job(Source.RESIDUAL, Sink.SPIKES, groups, params=groups, level=level, neuron=kind, leak=leak, first=1), values)
    machine.run(first, second)
    stream = numerics.residual_add(np.zeros(n, np.int64), values[:n], base[:n], 0)[0]
    spikes, membrane = numerics.neuron_step(int(kind), stream, np.zeros(n, np.int64), base[n:], step[n:], levels=level, leak=leak)
    assert (second.flat() == spikes).all()
    if kind not in STATELESS:
        assert (machine.membranes[groups:2 * groups].reshape(-1) == membrane).all()


@pytest.mark.parametrize("kind", [kind for kind in Neuron if kind not in STATELESS], ids=lambda kind: kind.name)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_membranes_of_a_chained_pass_are_its_own(kind, groups, stall, seed):
    """Spikes with membranes into the stream, read by neurons with other membranes while the first are still being written."""
    rng, n = np.random.default_rng([seed, kind, groups]), groups * LANES
    level, leak, tiles = 6 if kind in LEVELED else 1, 3, -(-groups // CFG.groups_per_tile)
    values, base, step = rng.integers(-900, 1500, tiles * CFG.cols), rng.integers(-90_000, 90_000, 2 * n), rng.integers(1, 60_000, 2 * n)
    residual = rng.integers(-1000, 1000, CFG.max_width)
    machine, old = Machine(residual=residual, base=base, step=step), rng.integers(-9000, 9000, 2 * n)
    machine.membranes[:2 * groups] = old.reshape(-1, LANES)
    neurons = {"level": level, "neuron": kind, "leak": leak}
    first = Pass(job(Source.SUMS, Sink.ADD_SPIKES, groups, embed_shift=2, **neurons), values, tiles, chain=True)
    second = Pass(job(Source.RESIDUAL, Sink.SPIKES, groups, params=groups, **neurons), values)
    machine.run(first, second, stall=stall, seed=seed)
    spikes, kept = numerics.neuron_step(int(kind), values[:n], old[:n], base[:n], step[:n], levels=level, leak=leak)
    stream, _ = numerics.add_spikes(residual[:n], spikes, 2)
    made, others = numerics.neuron_step(int(kind), stream, old[n:], base[n:], step[n:], levels=level, leak=leak)
    assert (first.flat() == stream).all() and (second.flat() == made).all()
    assert (machine.membranes[:2 * groups].reshape(-1) == np.concatenate([kept, others])).all()


def test_all_sinks_are_sorted():
    assert set(SPIKING) - set(BUFFERED) == {Sink.ADD_SPIKES} and set(SPIKING) | set(RESIDENT) | {Sink.LOGITS} == set(Sink)
