"""Turns integers into spikes, residual words or logits: a group of `lanes` channels per cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.commands import Sink
from spikeloom.arch.config import RESIDUAL_WIDTH, THRESHOLD_FRACTION, AcceleratorConfig, bits_for
from spikeloom.arch.numerics import RESIDUAL_MAX, RESIDUAL_MIN

from ..layouts import drain_layout
from ..lib.arith import adder_tree
from ..storage.parameter_table import parameter_layout


class Source(enum.Enum, shape=unsigned(2)):
    """Where a pass takes its integers from."""

    SUMS = 0      #: accumulators, tile by tile as they drain
    RESIDUAL = 1  #: residual buffer
    GATHER = 2    #: gathered values of attention


class Target(enum.Enum, shape=unsigned(3)):
    """What a pass writes: `arch.commands.Sink`, and SET for an embedding."""

    SPIKES = Sink.SPIKES
    QKV = Sink.QKV
    RESIDUAL = Sink.RESIDUAL
    LOGITS = Sink.LOGITS
    SET = 4


def pass_layout() -> data.StructLayout:
    """One pass: static while it runs."""
    return data.StructLayout({
        "source": Source, "target": Target, "dst": 1, "groups": 14, "params": 16, "base_group": 16,
        "attn_groups": 10, "level": 4, "embed_shift": 4,
    })


def result_layout(cfg: AcceleratorConfig) -> data.StructLayout:
    """One group written: `values` are lanes signed words of acc_width; levels, residuals or logits."""
    return data.StructLayout({
        "target": Target, "dst": 1, "group": 16, "part": 2, "part_group": 10, "values": cfg.lanes * cfg.acc_width,
    })


class NeuronUnit(wiring.Component):
    """Runs one pass over groups of channels: NI-LIF thresholds, rounded residual adds, logits, embeddings.

    Holds no addresses beyond group numbers and no state between passes. A pass over SUMS follows the tiles that the
    spike engine reports as drained; the other sources run at one group per cycle.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    start : In(1), job : In(pass_layout())
        Begin a pass; `job` stays until `done`.
    i_drain : In(stream of drain_layout)
        Finished tiles (SUMS only).
    bank, tile, group : Out
        Accumulator word wanted now; `sums` answers in the same cycle.
    sums : In(rows * lanes * acc_width)
    release : Out(1)
        The last group of (bank, tile) was read.
    r_group, residual : Out, In(lanes * 16)
        Residual buffer, same cycle.
    g_group, gathered : Out, In(lanes * gather_width)
        Gathered values, same cycle.
    p_address, records : Out(16), In(lanes * 64)
        Parameter table, next cycle.
    o_valid, o : Out(1), Out(result_layout)
        Results, in group order; always taken.
    done : Out(1)
        With the last result of a pass, one cycle.
    n_spikes, n_fired, n_saturated : Out
        Over the lanes of the current result.

    Latency
    -------
    `latency` cycles from reading a group to its result.

    Reference
    ---------
    `arch.numerics.ni_lif`, `arch.numerics.residual_add`.
    """

    latency = 3

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        count = bits_for(cfg.lanes)
        super().__init__({
            "start": In(1), "job": In(pass_layout()),
            "i_drain": In(stream.Signature(drain_layout())),
            "bank": Out(1), "tile": Out(4), "group": Out(max(1, exact_log2(cfg.groups_per_tile))),
            "sums": In(cfg.rows * cfg.lanes * cfg.acc_width), "release": Out(1),
            "r_group": Out(16), "residual": In(cfg.lanes * RESIDUAL_WIDTH),
            "g_group": Out(16), "gathered": In(cfg.lanes * cfg.gather_width),
            "p_address": Out(16), "records": In(cfg.lanes * 64),
            "o_valid": Out(1), "o": Out(result_layout(cfg)), "done": Out(1),
            "n_spikes": Out(bits_for(cfg.lanes * cfg.level_max)), "n_fired": Out(count), "n_saturated": Out(count),
        })

    def elaborate(self, platform):
        m = Module()
        issue, relative, last = self._build_walk(m)
        control = self._build_read(m, issue, relative, last)
        self._build_compute(m, control)
        return m

    def _build_walk(self, m):
        """Choose the group read this cycle; returns (valid, group within the pass, is it the last)."""
        per_tile = self.cfg.groups_per_tile
        active = Signal()
        position = Signal(16)
        issue, last = Signal(), Signal()
        relative = Signal(16)
        drained = self.i_drain.payload
        tile_end = Signal()
        with m.If(self.job.source == Source.SUMS):
            inside = Signal(range(per_tile))
            m.d.comb += [
                relative.eq(Cat(inside, drained.tile)),
                self.tile.eq(drained.tile), self.bank.eq(drained.bank), self.group.eq(inside),
                issue.eq(active & self.i_drain.valid & (relative < self.job.groups)),
                tile_end.eq(inside == per_tile - 1),
                self.release.eq(active & self.i_drain.valid & tile_end),
                self.i_drain.ready.eq(active & tile_end),
                last.eq(self.release & drained.last),
            ]
            with m.If(active & self.i_drain.valid):
                m.d.sync += inside.eq(inside + 1)
        with m.Else():
            m.d.comb += [relative.eq(position), issue.eq(active), last.eq(active & (position + 1 >= self.job.groups))]
            m.d.sync += position.eq(position + 1)
        with m.If(self.start):
            m.d.sync += [active.eq(1), position.eq(0)]
        with m.Elif(last):
            m.d.sync += active.eq(0)
        m.d.comb += [
            self.r_group.eq(self.job.base_group + relative), self.g_group.eq(relative),
            self.p_address.eq(self.job.params + relative),
        ]
        return issue, relative, last

    def _build_read(self, m, issue, relative, last):
        """First stage: sources and parameters into registers, parts of Q|K|V told apart."""
        job, cfg = self.job, self.cfg
        control = data.StructLayout({"valid": 1, "last": 1, "group": 16, "part": 2, "part_group": 10})
        first = Signal(control)
        part, counted = Signal(2), Signal(10)
        with m.If(self.start):
            m.d.sync += [part.eq(0), counted.eq(0)]
        with m.Elif(issue):
            m.d.sync += counted.eq(counted + 1)
            with m.If(counted + 1 == job.attn_groups):
                m.d.sync += [counted.eq(0), part.eq(part + 1)]
        m.d.sync += [first.valid.eq(issue), first.last.eq(last), first.group.eq(job.base_group + relative),
                     first.part.eq(part), first.part_group.eq(counted)]

        self._value = [Signal(signed(cfg.acc_width), name=f"value{i}") for i in range(cfg.lanes)]
        self._old = [Signal(signed(RESIDUAL_WIDTH), name=f"old{i}") for i in range(cfg.lanes)]
        for i in range(cfg.lanes):
            old = self.residual.word_select(i, RESIDUAL_WIDTH).as_signed()
            gathered = self.gathered.word_select(i, cfg.gather_width)
            total = self.sums.word_select(i, cfg.acc_width).as_signed()
            m.d.sync += self._old[i].eq(old)
            with m.Switch(job.source):
                with m.Case(Source.SUMS):
                    m.d.sync += self._value[i].eq(total)
                with m.Case(Source.RESIDUAL):
                    m.d.sync += self._value[i].eq(old)
                with m.Default():
                    m.d.sync += self._value[i].eq(gathered)
        return first

    def _build_compute(self, m, first):
        cfg, job = self.cfg, self.job
        second, third = Signal.like(first), Signal.like(first)
        m.d.sync += [second.eq(first), third.eq(second)]
        level = Signal(4)
        m.d.sync += level.eq(Mux((job.target == Target.QKV) & (first.part < 2), 1, job.level))
        spiking = (job.target == Target.SPIKES) | (job.target == Target.QKV)
        levels, clipped_flags, fired_flags = [], [], []
        for i in range(cfg.lanes):
            record = data.View(parameter_layout(), self.records.word_select(i, 64))
            spikes = self._build_levels(m, i, record, level)
            wide, clipped = self._build_words(m, i, record)
            result = Signal(signed(cfg.acc_width), name=f"result{i}")
            m.d.sync += result.eq(Mux(spiking, spikes, wide))
            m.d.comb += self.o.values.word_select(i, cfg.acc_width).eq(result)
            saturated = Signal(name=f"saturated{i}")
            m.d.sync += saturated.eq(clipped)
            levels.append(Mux(spiking, result[:cfg.level_bits], 0))
            fired_flags.append(spiking & result[:cfg.level_bits].any())
            clipped_flags.append(saturated & ((job.target == Target.RESIDUAL) | (job.target == Target.SET)))
        m.d.comb += [
            self.o_valid.eq(third.valid), self.done.eq(third.last), self.o.target.eq(job.target), self.o.dst.eq(job.dst),
            self.o.group.eq(third.group), self.o.part.eq(third.part), self.o.part_group.eq(third.part_group),
        ]
        with m.If(third.valid):
            m.d.comb += [self.n_spikes.eq(adder_tree(levels)), self.n_fired.eq(adder_tree(fired_flags)),
                         self.n_saturated.eq(adder_tree(clipped_flags))]

    def _build_levels(self, m, i, record, level):
        """NI-LIF: how many of the thresholds base, base + step, ... the sum reaches (stage two: difference; three: count)."""
        cfg = self.cfg
        wide = cfg.acc_width + THRESHOLD_FRACTION + 2
        difference = Signal(signed(wide), name=f"difference{i}")
        scaled = Cat(Const(0, THRESHOLD_FRACTION), self._value[i]).as_signed()
        m.d.sync += difference.eq(scaled - record.base.as_signed())
        step = Signal(24, name=f"step{i}")
        triple = Signal(26, name=f"triple{i}")
        m.d.sync += [step.eq(record.step), triple.eq(record.step + (record.step << 1))]
        multiples = [Const(0, 1), step, step << 1, triple, step << 2, step + (step << 2), triple << 1, (step << 3) - step]
        reached = [(difference >= multiple) & (level > d) for d, multiple in enumerate(multiples[:cfg.level_max])]
        return adder_tree(reached)

    def _build_words(self, m, i, record):
        """Residual: (acc + bias + half) >> shift, added and clipped once. LOGITS: acc + bias. SET: acc << embed_shift."""
        cfg, job = self.cfg, self.job
        wide = max(cfg.acc_width, 32) + 2
        half = (Const(1, 1) << record.shift)[1:32]
        summed = Signal(signed(wide), name=f"summed{i}")
        shift = Signal(5, name=f"shift{i}")
        old = Signal(signed(RESIDUAL_WIDTH), name=f"kept{i}")
        with m.Switch(job.target):
            with m.Case(Target.SET):
                m.d.sync += [summed.eq(self._value[i] << job.embed_shift), shift.eq(0), old.eq(0)]
            with m.Case(Target.LOGITS):
                m.d.sync += [summed.eq(self._value[i] + record.base.as_signed()), shift.eq(0), old.eq(0)]
            with m.Default():
                m.d.sync += [summed.eq(self._value[i] + record.base.as_signed() + half), shift.eq(record.shift),
                             old.eq(self._old[i])]
        moved = (summed >> shift) + old
        clipped = (moved > RESIDUAL_MAX) | (moved < RESIDUAL_MIN)
        bounded = Mux(moved > RESIDUAL_MAX, RESIDUAL_MAX, Mux(moved < RESIDUAL_MIN, RESIDUAL_MIN, moved))
        return Mux(job.target == Target.LOGITS, moved, bounded), clipped
