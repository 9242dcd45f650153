"""Winner-take-all attention: query and cached keys in, gathered values out."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.config import AcceleratorConfig, bits_for

from ..lib.arith import popcount
from ..storage.kv_cache import KvCache
from .score_unit import ScoreUnit
from .value_gather import ValueGather
from .winner_tree import TopKList, WinnerTree

#: Kinds of a written tensor.
QUERY, KEY, VALUE = range(3)


class AttentionUnit(wiring.Component):
    """One query row of attention for all heads: scan the keys, pop K winners, gather their values.

    Queries, keys and values are written by groups of channels as they come out of the neuron unit; then `start` makes one
    row. The answer stays in `g_values` until the next `start`. It does not fire neurons and does not step through rows.

    While busy, the query register and the keys and values of competing positions must not be written; other positions may.
    Rows of the cache beyond the last position are never read, and positions beyond it in the last row never compete, so
    that what an earlier text left in the cache does not matter.

    Rows are scanned in increasing order, only the last one holds the keys of `position`, and no value is read before the
    scan ends: the scan could therefore begin as soon as the query is there and wait before its last row for the keys,
    and before the first winner for the values. It does not do so yet.

    Parameters
    ----------
    cfg : AcceleratorConfig
        Shape of the machine.

    Members
    -------
    w_en : In(1)
        Write a group; it counts from the next cycle on.
    w_kind : In(2)
        0 query, 1 key, 2 value.
    w_group : In(range(max_width // lanes))
        Group of `lanes` channels within that tensor.
    w_levels : In(lanes * level_bits)
        Levels, channel 0 of the group lowest. Of queries and keys only whether they are above 0 is kept.
    w_position : In(16)
        Position of the token within its text.
    w_kv_base : In(24)
        First position of the layer in the cache, a multiple of `score_banks`.
    start : In(1)
        Begin a row, while not `busy`. The fields below are taken in this cycle.
    groups : In(14)
        Groups of channels in use: heads beyond them find no winners. All where nothing drives it.
    a_kv_base : In(24)
        As `w_kv_base`, of the layer to attend to.
    head_level : In(3)
        Head width = segment << head_level.
    top_k : In(4)
        Winners per head, 0..k_max.
    overlap : In(1)
        Winners need a raw score above 0.
    bidirectional : In(1)
        Positions up to `last_position` compete instead of those up to `position`; distances are absolute.
    gather_shifts : In(24)
        Left shift of the winner of rank r: 3 bits each, rank 0 lowest.
    recency : In(segments * 4)
        Recency shift per head, head 0 lowest; 15: none.
    position : In(16)
        Position of the query.
    last_position : In(16)
        Last position of the text; only read where `bidirectional`.
    busy : Out(1)
        From the cycle after `start` to the one before `done`.
    done : Out(1)
        One cycle: `g_values` are complete. `start` may come again in this cycle.
    ready_for_fire : Out(1)
        `g_values` are complete: from `done` until `start`.
    winners_strobe : Out(1)
        `winners` counts; once per rank.
    winners : Out(range(segments + 1))
        Winners found in this rank over all heads.
    g_group : In(range(max_width // lanes))
        Group of channels to look at.
    g_values : Out(lanes * gather_width)
        Gathered values in the same cycle, channel 0 of the group lowest; unsigned.

    Latency
    -------
    ``position // score_banks + 1 + top_k + overhead`` cycles from `start` to `done` (see `row_latency`).

    Reference
    ---------
    `arch.numerics.raw_scores`, `biased_scores`, `winners` and `gather`.
    """

    #: Cycles of a row beside its scan and its winners.
    overhead = KvCache.latency + ScoreUnit.latency + TopKList.latency + WinnerTree.latency + ValueGather.latency - 2

    def __init__(self, *, cfg: AcceleratorConfig):
        if cfg.segments * 4 > 96:
            raise ValueError(f"{cfg.segments} score segments need {cfg.segments * 4} bits of recency shifts; a command has 96.")
        self.cfg = cfg
        self.bank_bits = exact_log2(cfg.score_banks)
        self.position_width = exact_log2(cfg.max_context)
        self.groups_in_all = cfg.max_width // cfg.lanes
        super().__init__({
            "w_en": In(1),
            "w_kind": In(2),
            "w_group": In(bits_for(self.groups_in_all - 1)),
            "w_levels": In(cfg.lanes * cfg.level_bits),
            "w_position": In(16),
            "w_kv_base": In(24),
            "start": In(1),
            "groups": In(14, init=self.groups_in_all),
            "a_kv_base": In(24),
            "head_level": In(3),
            "top_k": In(4),
            "overlap": In(1),
            "bidirectional": In(1),
            "gather_shifts": In(24),
            "recency": In(cfg.segments * 4),
            "position": In(16),
            "last_position": In(16),
            "busy": Out(1),
            "done": Out(1),
            "ready_for_fire": Out(1),
            "winners_strobe": Out(1),
            "winners": Out(range(cfg.segments + 1)),
            "g_group": In(bits_for(self.groups_in_all - 1)),
            "g_values": Out(cfg.lanes * cfg.gather_width),
        })

    def row_latency(self, *, last_position: int, top_k: int) -> int:
        """Cycles from `start` to `done` of a row whose last competing position is `last_position`."""
        return last_position // self.cfg.score_banks + 1 + top_k + self.overhead

    def elaborate(self, platform):
        m = Module()
        m.submodules.cache = cache = KvCache(cfg=self.cfg)
        m.submodules.score_unit = score = ScoreUnit(cfg=self.cfg)
        m.submodules.winner_tree = tree = WinnerTree(cfg=self.cfg)
        m.submodules.value_gather = gather = ValueGather(cfg=self.cfg)

        self._build_writes(m, cache, score)
        self._build_fields(m, score, gather)
        issue, row, pop = self._build_control(m, tree)
        self._build_scan(m, cache, score, tree, issue, row)
        self._build_gather(m, cache, tree, gather)
        m.d.comb += tree.pop.eq(pop)
        return m

    def _build_writes(self, m, cache, score):
        m.d.comb += [
            score.q_en.eq(self.w_en & (self.w_kind == QUERY)),
            score.q_group.eq(self.w_group),
            score.q_bits.eq(Cat(self.w_levels[at:at + self.cfg.level_bits].any()
                                for at in range(0, len(self.w_levels), self.cfg.level_bits))),
            cache.w_en_k.eq(self.w_en & (self.w_kind == KEY)),
            cache.w_en_v.eq(self.w_en & (self.w_kind == VALUE)),
            cache.w_position.eq(self.w_kv_base + self.w_position),
            cache.w_group.eq(self.w_group),
            cache.w_levels.eq(self.w_levels),
        ]

    def _build_fields(self, m, score, gather):
        """Registers of what a row is, taken with `start`."""
        cfg = self.cfg
        head_level, overlap = Signal(3), Signal()
        position, last = Signal(self.position_width), Signal(self.position_width)
        recency, live = Signal(cfg.segments * 4), Signal(cfg.segments)
        base = Signal(gather.position_width)
        with m.If(self.start):
            m.d.sync += [
                head_level.eq(self.head_level),
                overlap.eq(self.overlap),
                position.eq(self.position),
                last.eq(Mux(self.bidirectional, self.last_position, self.position)),
                recency.eq(self.recency),
                base.eq(self.a_kv_base),
            ]
            with m.Switch(self.head_level):
                for level in range(cfg.head_levels):
                    with m.Case(level):
                        m.d.sync += live.eq(Cat(self.groups > (slot << level) * cfg.segment // cfg.lanes
                                                for slot in range(cfg.segments >> level)))
        m.d.comb += [
            score.head_level.eq(head_level),
            score.overlap.eq(overlap),
            score.query_position.eq(position),
            score.last_position.eq(last),
            score.recency.eq(recency),
            score.live.eq(live),
            gather.head_level.eq(head_level),
            gather.base.eq(base),
            gather.gather_shifts.eq(self.gather_shifts),
            gather.clear.eq(self.start),
        ]
        self._last, self._base = last, base

    def _build_control(self, m, tree):
        """WAIT, SCAN the rows, DRAIN the score pipeline, SELECT the ranks, GATHER the last of them."""
        width = self.position_width - self.bank_bits
        issue, pop, finished = Signal(), Signal(), Signal()
        row, next_row = Signal(width), Signal(width)
        ranks = Signal(4)
        last_row = Signal()
        start_last = Mux(self.bidirectional, self.last_position, self.position)[self.bank_bits:self.position_width]
        drain = Signal(KvCache.latency + ScoreUnit.latency)
        tail = Signal(WinnerTree.latency + ValueGather.latency - 1)

        m.d.comb += [tree.clear.eq(self.start), self.ready_for_fire.eq(finished)]
        m.d.sync += [
            self.done.eq(0),
            drain.eq(Cat(issue & last_row, drain)),
            tail.eq(tail << 1),
        ]
        with m.If(self.start):
            m.d.sync += [ranks.eq(self.top_k), finished.eq(0)]
        with m.Elif(pop):
            m.d.sync += ranks.eq(ranks - 1)
        with m.If(issue):
            m.d.sync += next_row.eq(row + 1)

        with m.FSM():
            with m.State("WAIT"):
                m.d.comb += [issue.eq(self.start), last_row.eq(start_last == 0)]
                with m.If(self.start):
                    m.d.sync += self.busy.eq(1)
                    with m.If(last_row):
                        m.next = "DRAIN"
                    with m.Else():
                        m.next = "SCAN"
            with m.State("SCAN"):
                m.d.comb += [issue.eq(1), row.eq(next_row), last_row.eq(row == self._last[self.bank_bits:])]
                with m.If(last_row):
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                with m.If(drain[-1]):
                    m.next = "SELECT"
                    with m.If(ranks == 0):
                        m.d.sync += tail.eq(1)
                        m.next = "GATHER"
            with m.State("SELECT"):
                m.d.comb += pop.eq(1)
                with m.If(ranks == 1):
                    m.d.sync += tail.eq(1)
                    m.next = "GATHER"
            with m.State("GATHER"):
                with m.If(tail[-1]):
                    m.d.sync += [self.done.eq(1), self.busy.eq(0), finished.eq(1)]
                    m.next = "WAIT"
        return issue, row, pop

    def _build_scan(self, m, cache, score, tree, issue, row):
        """Read a row of keys per cycle; the first in the cycle of `start`."""
        base = Mux(self.busy, self._base, self.a_kv_base)[self.bank_bits:]
        valid = Signal()
        row_1 = Signal(len(row))
        m.d.sync += [valid.eq(issue), row_1.eq(row)]
        m.d.comb += [
            cache.k_en.eq(issue),
            cache.k_row.eq(base + row),
            score.i_valid.eq(valid),
            score.i_row.eq(row_1),
            score.i_words.eq(cache.k_words),
            tree.i_valid.eq(score.o_valid),
            tree.i_row.eq(score.o_row),
            tree.i_keys.eq(score.o_keys),
        ]

    def _build_gather(self, m, cache, tree, gather):
        m.d.comb += [
            gather.i_valid.eq(tree.o_valid),
            gather.i_winners.eq(tree.o_winners),
            cache.v_en.eq(gather.v_en),
            cache.v_position.eq(gather.v_position),
            gather.v_words.eq(cache.v_words),
            gather.g_group.eq(self.g_group),
            self.g_values.eq(gather.g_values),
            self.winners_strobe.eq(tree.o_valid),
            self.winners.eq(popcount(Cat(winner.found for winner in tree.o_winners))),
        ]
