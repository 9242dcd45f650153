"""Turns integers into spikes, residual words or logits: a group of `lanes` channels per cycle."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.commands import STATELESS, Neuron, Sink
from spikeloom.arch.config import MEMBRANE_WIDTH, RESIDUAL_WIDTH, THRESHOLD_FRACTION, AcceleratorConfig, bits_for

from ..layouts import drain_layout
from ..levels import magnitude
from ..lib.arith import adder_tree
from .neuron_lane import NeuronLane, mode_layout

#: Sinks of passes that make spikes, and of those that write the residual store.
SPIKING = (Sink.SPIKES, Sink.QKV, Sink.ADD_SPIKES, Sink.SET_SPIKES)
RESIDENT = (Sink.RESIDUAL, Sink.ADD_SPIKES, Sink.SET_SPIKES, Sink.SET)
#: Sinks of passes whose spikes go to a spike buffer.
BUFFERED = (Sink.SPIKES, Sink.QKV, Sink.SET_SPIKES)


class Source(enum.Enum, shape=unsigned(2)):
    """Where a pass takes its integers from."""

    SUMS = 0      #: accumulators, tile by tile as they drain
    RESIDUAL = 1  #: residual store
    GATHER = 2    #: gathered values of attention


def pass_layout() -> data.StructLayout:
    """One pass. Fields as those of a command."""
    return data.StructLayout({
        "source": Source, "sink": Sink, "dst": 2, "groups": 14, "params": 16, "base_group": 16, "attn_groups": 10,
        "level": 4, "embed_shift": 4, "neuron": Neuron, "leak": 4, "first": 1,
    })


def result_layout(cfg: AcceleratorConfig) -> data.StructLayout:
    """One group, `first` of its pass or not: `values` are what the pass makes (spikes, residual words or logits), signed words of
    acc_width.

    `levels` are its spikes as they are stored, for group `group` of spike buffer `dst` where `to_spikes`; `words` are for
    group `home` of the residual store where `to_residual`. Of Q|K|V it is group `part_group` of `part`.
    """
    return data.StructLayout({
        "first": 1, "sink": Sink, "to_spikes": 1, "dst": 2, "group": 16, "levels": cfg.lanes * cfg.level_bits,
        "part": 2, "part_group": 10,
        "to_residual": 1, "home": 16, "words": cfg.lanes * RESIDUAL_WIDTH, "values": cfg.lanes * cfg.acc_width,
    })


class NeuronUnit(wiring.Component):
    """Runs one pass over groups of channels: neurons, rounded residual adds, logits, embeddings.

    Holds no addresses beyond group numbers and no state between passes: membranes are outside. A pass over SUMS follows the
    tiles that the spike engine reports as drained, which come in order from the first on; the other sources run at one group per
    cycle. A group that a pass reads must not be one that it has written.

    A pass over the residual store may be chained to one that writes it: it then begins by itself as soon as it reads what was
    written, while results of the first pass are still inside, membranes among them: the two passes must not share any.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    start : In(1), job : In(pass_layout())
        Begin a pass, in the cycle after the last one's `done` or later; `job` is taken in this cycle. Of a pass that was chained
        it says no more than that its `done` is awaited from now on.
    chain : In(1), next_job : In(pass_layout())
        With the last group of a pass over SUMS that writes the residual store: a pass over it follows, of at least as many groups
        and with membranes of its own, if both have some.
    i_drain : In(stream of drain_layout)
        Finished tiles (SUMS only).
    bank, tile, group : Out
        Accumulator word wanted now; `sums` answers in the same cycle.
    sums : In(rows * lanes * acc_width)
    release : Out(1)
        The last group of (bank, tile) was read.
    g_group, gathered : Out, In(lanes * gather_width)
        Gathered values, same cycle; signed.
    r_group, residual : Out, In(lanes * 16)
        Residual store, next cycle. A FIRE reads from group 0 on, whatever its base group.
    p_address, records : Out(16), In(lanes * 64)
        Parameter table, next cycle.
    membranes : In(lanes * 32)
        Membranes at `p_address`, next cycle.
    m_en, m_address, m_values : Out
        Membranes written.
    o_valid, o : Out(1), Out(result_layout)
        Results, in group order; always taken.
    query_end : Out(1)
        With the result that completes the query of Q|K|V.
    done : Out(1)
        With the last result of a pass, one cycle. The last membranes follow within two cycles.
    n_spikes, n_fired, n_saturated, saturated : Out
        Absolute levels and neurons that fired, residual words clipped: in this cycle, over the lanes; whether any was clipped.

    Latency
    -------
    `latency_of(sink)` cycles from reading a group to its result. The first group is read in the cycle after `start`, of a pass that
    has membranes a cycle later; of a chained pass `chain_delay` + 1 cycles after the last group of the pass before.

    Reference
    ---------
    `arch.numerics.neuron_step`, `residual_add`, `add_spikes`.
    """

    #: Cycles from reading a group to its result, where the result is not ADD_SPIKES.
    latency = 3

    @classmethod
    def latency_of(cls, sink: Sink) -> int:
        """Cycles from reading a group to its result: a spike is known before it is added."""
        return cls.latency + (sink == Sink.ADD_SPIKES)

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        count = bits_for(cfg.lanes)
        super().__init__({
            "start": In(1), "job": In(pass_layout()), "chain": In(1), "next_job": In(pass_layout()),
            "i_drain": In(stream.Signature(drain_layout())),
            "bank": Out(1), "tile": Out(4), "group": Out(max(1, exact_log2(cfg.groups_per_tile))),
            "sums": In(cfg.rows * cfg.lanes * cfg.acc_width), "release": Out(1),
            "g_group": Out(16), "gathered": In(cfg.lanes * cfg.gather_width),
            "r_group": Out(16), "residual": In(cfg.lanes * RESIDUAL_WIDTH),
            "p_address": Out(16), "records": In(cfg.lanes * 64),
            "membranes": In(cfg.lanes * MEMBRANE_WIDTH),
            "m_en": Out(1), "m_address": Out(16), "m_values": Out(cfg.lanes * MEMBRANE_WIDTH),
            "o_valid": Out(1), "o": Out(result_layout(cfg)), "query_end": Out(1), "done": Out(1),
            "n_spikes": Out(bits_for(cfg.lanes * cfg.level_max)), "n_fired": Out(count), "n_saturated": Out(count), "saturated": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        #: The pass whose groups are read, and whether another one is taken in this cycle.
        self._now, self._take = Signal(pass_layout()), Signal()
        issue, last = self._build_walk(m)
        modes, writes = self._build_mode(m, issue)
        stages, level = self._build_control(m, issue, last, writes)
        terms = self._build_read(m, modes, stages)
        lanes = self._build_lanes(m, modes, level, terms)
        self._build_output(m, modes, stages, lanes)
        return m

    def _build_walk(self, m):
        """Choose the group read this cycle; returns (is there one, is it the last).

        Groups come one by one from the first on, whatever their source, so that every address is a counter: adders between a
        command's fields and the memories would be among the slowest paths.
        """
        per_tile, now = self.cfg.groups_per_tile, self._now
        # Membranes of the pass before are written up to two cycles after its end: a pass that has some waits one.
        active, hold = Signal(), Signal()
        relative, step = Signal(16), Signal()
        issue, last = Signal(), Signal()
        #: Groups that are left: how many, whether there is one, whether that is the last.
        left, some, ending = Signal(14), Signal(), Signal()
        drained = self.i_drain.payload
        inside = relative[:exact_log2(per_tile)]
        m.d.comb += [self.tile.eq(drained.tile), self.bank.eq(drained.bank), self.group.eq(inside), self.g_group.eq(relative)]
        with m.If(now.source == Source.SUMS):
            tile_end = inside == per_tile - 1
            m.d.comb += [
                step.eq(active & ~hold & self.i_drain.valid),
                issue.eq(step & some),
                self.release.eq(step & tile_end),
                self.i_drain.ready.eq(active & ~hold & tile_end),
                last.eq(self.release & drained.last),
            ]
        with m.Else():
            m.d.comb += [step.eq(active & ~hold), issue.eq(step), last.eq(step & (ending | ~some))]
        chained, taken = self._build_chain(m, last, drained.tile), self._taken
        self._base = Signal(16)
        counters = ((relative, 0), (self._base, taken.base_group), (self.p_address, taken.params),
                    (self.r_group, Mux(taken.source == Source.RESIDUAL, 0, taken.base_group)))
        with m.If(self._take):
            m.d.sync += [active.eq(1), now.eq(taken)]
            m.d.sync += [counter.eq(first) for counter, first in counters]
            m.d.sync += [left.eq(taken.groups), some.eq(taken.groups != 0), ending.eq(taken.groups == 1)]
        with m.Else():
            m.d.sync += [counter.eq(counter + step) for counter, _ in counters]
            with m.If(step & some):
                m.d.sync += [left.eq(left - 1), some.eq(~ending), ending.eq(left == 2)]
            with m.If(last):
                m.d.sync += active.eq(0)
        m.d.sync += hold.eq(self._take & ~chained & self._remembers(taken))
        return issue, last

    @classmethod
    def chain_delay(cls, *, groups: int, sink: Sink) -> int:
        """Cycles between the last group of a pass and a chained one: its first group must have been written, and no two results
        may meet. `groups` are those of the tiles."""
        return max(sink == Sink.ADD_SPIKES, cls.latency_of(sink) + 1 - groups)

    def _build_chain(self, m, last, tile):
        """When another pass is taken; returns whether it is a chained one."""
        per_tile, now = self.cfg.groups_per_tile, self._now
        chained, early = Signal(), Signal()
        delay, left = Signal(range(self.latency + 3)), Signal(range(self.latency + 3))
        for sink, others in ((Sink.RESIDUAL, now.sink != Sink.ADD_SPIKES), (Sink.ADD_SPIKES, now.sink == Sink.ADD_SPIKES)):
            with m.If(others):
                m.d.comb += delay.eq(self.chain_delay(groups=1 << 16, sink=sink))
                for number in range(-(-(self.latency + 2) // per_tile)):
                    with m.If(tile == number):
                        m.d.comb += delay.eq(self.chain_delay(groups=(number + 1) * per_tile, sink=sink))
        follows = last & self.chain & (now.source == Source.SUMS)
        m.d.comb += [chained.eq((follows & (delay == 0)) | (left == 1)), self._take.eq(chained | (self.start & ~early))]
        with m.If(follows):
            m.d.sync += left.eq(delay)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.If(follows):
            m.d.sync += early.eq(1)
        with m.Elif(self.start):
            m.d.sync += early.eq(0)
        # A chained pass is taken where none begins by itself.
        self._taken = Signal(pass_layout())
        m.d.comb += self._taken.eq(Mux(self.start, self.job, self.next_job))
        return chained

    def _build_mode(self, m, issue):
        """What the pass does, registered as it is taken; returns (modes by stage, stage 0 the cycle of reading, are membranes
        written)."""
        job = self._taken
        modes = [Signal(mode_layout(), name=f"mode_{stage}") for stage in range(5)]
        mode, writes = modes[0], Signal()
        for before, after in zip(modes, modes[1:]):
            m.d.sync += after.eq(before)
        m.d.sync += modes[1].add.eq(modes[0].add & issue)
        spiking = Cat(job.sink == sink for sink in SPIKING).any()
        with m.If(self._take):
            m.d.sync += self._decoded(job, mode, writes, spiking, self._remembers(job))
        return modes, writes

    @staticmethod
    def _remembers(job):
        """Whether a pass has membranes."""
        return Cat(job.sink == sink for sink in SPIKING).any() & ~Cat(job.neuron == kind for kind in STATELESS).any()

    @staticmethod
    def _decoded(job, mode, writes, spiking, remembers):
        return [
            mode.spiking.eq(spiking), mode.set.eq(job.sink == Sink.SET), mode.whole.eq(job.sink == Sink.LOGITS),
            mode.add.eq(job.sink == Sink.ADD_SPIKES),
            writes.eq(remembers),
            mode.remember.eq(remembers & ~job.first), mode.both.eq(job.neuron == Neuron.SIGNED_NI_LIF),
            mode.ternary.eq(job.neuron == Neuron.T_LIF), mode.hard.eq(job.neuron == Neuron.LIF_HARD),
            mode.subtract.eq(job.neuron == Neuron.LIF_SUBTRACT), mode.half.eq(job.neuron == Neuron.I_LIF),
            mode.leak.eq(job.leak), mode.embed_shift.eq(job.embed_shift),
        ]

    def _build_control(self, m, issue, last, writes):
        """What goes along with a group, parts of Q|K|V told apart; returns (stages, largest level in stage 2).

        Stage n is n cycles after the group was read.
        """
        now = self._now
        control = data.StructLayout({"valid": 1, "first": 1, "last": 1, "write": 1, "group": 16, "home": 16, "address": 16,
                                     "part": 2, "part_group": 10, "part_end": 1, "sink": Sink, "dst": 2, "level": 4, "residual": 1})
        stages = [None] + [Signal(control, name=f"stage{n}") for n in range(1, 6)]
        part, counted, begun, part_end = Signal(2), Signal(10), Signal(), Signal()
        m.d.comb += part_end.eq(counted + 1 == now.attn_groups)
        with m.If(self._take):
            m.d.sync += [part.eq(0), counted.eq(0), begun.eq(0)]
        with m.Elif(issue):
            m.d.sync += [counted.eq(counted + 1), begun.eq(1)]
            with m.If(part_end):
                m.d.sync += [counted.eq(0), part.eq(part + 1)]
        m.d.sync += [
            stages[1].valid.eq(issue), stages[1].last.eq(last), stages[1].write.eq(issue & writes),
            stages[1].group.eq(self._base), stages[1].home.eq(self.r_group), stages[1].address.eq(self.p_address),
            stages[1].part.eq(part), stages[1].part_group.eq(counted), stages[1].part_end.eq(part_end), stages[1].first.eq(issue & ~begun),
            stages[1].sink.eq(now.sink), stages[1].dst.eq(now.dst), stages[1].level.eq(now.level),
            stages[1].residual.eq(now.source == Source.RESIDUAL),
            self.query_end.eq(stages[2].valid & (stages[2].sink == Sink.QKV) & (stages[2].part == 0) & stages[2].part_end),
        ]
        for before, after in zip(stages[1:], stages[2:], strict=False):
            m.d.sync += after.eq(before)
        level = Signal(4)
        m.d.sync += level.eq(Mux((stages[1].sink == Sink.QKV) & (stages[1].part < 2), 1, stages[1].level))
        return stages, level

    def _build_read(self, m, modes, stages):
        """Stage 1: the integers of the group read a cycle ago, as `NeuronLane.term` wants them."""
        cfg, source, mode = self.cfg, self._now.source, modes[0]
        shape = signed(cfg.acc_width + THRESHOLD_FRACTION)
        terms = []
        for i in range(cfg.lanes):
            read, term = Signal(shape, name=f"read{i}"), Signal(shape, name=f"term{i}")
            total = self.sums.word_select(i, cfg.acc_width).as_signed()
            gathered = self.gathered.word_select(i, cfg.gather_width).as_signed()
            old = self.residual.word_select(i, RESIDUAL_WIDTH).as_signed()
            # A pass over another source than SUMS always makes spikes.
            with m.If(source != Source.SUMS):
                m.d.sync += read.eq(~(gathered << THRESHOLD_FRACTION))
            with m.Elif(mode.spiking):
                m.d.sync += read.eq(~(total << THRESHOLD_FRACTION))
            with m.Elif(mode.set):
                m.d.sync += read.eq(total << THRESHOLD_FRACTION)
            with m.Else():
                m.d.sync += read.eq(total)
            m.d.comb += term.eq(Mux(stages[1].residual, ~(old << THRESHOLD_FRACTION), read))
            terms.append(term)
        return terms

    def _build_lanes(self, m, modes, level, terms):
        lanes = []
        for i, term in enumerate(terms):
            m.submodules[f"lane{i}"] = lane = NeuronLane(cfg=self.cfg)
            m.d.comb += [
                *(getattr(lane, f"mode_{stage}").eq(modes[stage]) for stage in range(1, 5)), lane.level.eq(level), lane.term.eq(term),
                lane.old.eq(self.residual.word_select(i, RESIDUAL_WIDTH)),
                lane.membrane.eq(self.membranes.word_select(i, MEMBRANE_WIDTH)),
                lane.record.eq(self.records.word_select(i, 64)),
            ]
            lanes.append(lane)
        return lanes

    def _build_output(self, m, modes, stages, lanes):
        cfg = self.cfg
        made, added, early = Signal.like(stages[3]), Signal(), Signal()
        m.d.comb += [
            # A group that is added to comes a cycle later than others; its last one may come without a group in it.
            added.eq(stages[4].sink == Sink.ADD_SPIKES), early.eq(stages[3].sink == Sink.ADD_SPIKES),
            made.eq(Mux(added & (stages[4].valid | stages[4].last), stages[4], stages[3])),
            self.o_valid.eq(Mux(added & stages[4].valid, 1, stages[3].valid & ~early)),
            self.done.eq((stages[4].last & added) | (stages[3].last & ~early)),
            self.o.first.eq(made.first), self.o.sink.eq(made.sink), self.o.dst.eq(made.dst),
            self.o.to_spikes.eq(Cat(made.sink == sink for sink in BUFFERED).any()),
            self.o.to_residual.eq(Cat(made.sink == sink for sink in RESIDENT).any()),
            self.o.group.eq(made.group), self.o.home.eq(made.home), self.o.part.eq(made.part),
            self.o.part_group.eq(made.part_group),
            self.o.levels.eq(Cat(lane.o_spike[:cfg.level_bits] for lane in lanes)),
            self.o.words.eq(Cat(lane.o_word for lane in lanes)),
            self.o.values.eq(Cat(lane.o_result for lane in lanes)),
            self.m_en.eq(stages[5].write), self.m_address.eq(stages[5].address),
            self.m_values.eq(Cat(lane.o_membrane for lane in lanes)),
        ]
        with m.If(stages[3].valid):
            m.d.comb += [
                self.n_spikes.eq(adder_tree([magnitude(lane.o_spike[:cfg.level_bits]) for lane in lanes])),
                self.n_fired.eq(adder_tree([lane.o_spike.any() for lane in lanes])),
            ]
        with m.If(self.o_valid):
            m.d.comb += [
                self.n_saturated.eq(adder_tree([lane.o_clipped for lane in lanes])),
                self.saturated.eq(Cat(lane.o_clipped for lane in lanes).any()),
            ]
