"""Attention: query and cached keys in, gathered values out; winner-take-all, SFSA or SSA."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.commands import Attention
from spikeloom.arch.config import AcceleratorConfig, bits_for
from spikeloom.arch.cycles import scan_cycles

from ..levels import spoke_and_minus
from ..lib.arith import popcount
from ..storage.kv_cache import KvCache
from .score_unit import ScoreUnit
from .score_walk import ScoreWalk
from .value_gather import ValueGather
from .winner_tree import TopKList, WinnerTree

#: Kinds of a written tensor.
QUERY, KEY, VALUE = range(3)


class AttentionUnit(wiring.Component):
    """One query row of attention for all heads. WTA: scan the keys, pop K winners, gather their values; SFSA and SSA: gather
    the values of the positions that count as their rows pass.

    Queries, keys and values are written by groups of channels as they come out of the neuron unit; then `start` makes one
    row. The answer stays in `g_values` until the next `start`. It does not fire neurons and does not step through rows.

    While busy, the query register and the keys and values of competing positions must not be written; other positions may.
    Rows of the cache beyond the last position are never read, and positions beyond it in the last row never compete, so
    that what an earlier text left in the cache does not matter.

    Rows are scanned in increasing order, only the last one holds the key of `position`, and its value is read after that:
    so the scan may begin `ahead`, when the query is complete but key and value are not, and wait before its last row.

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
        Levels, channel 0 of the group lowest. Of queries and keys only whether they are 0, and their sign, is kept.
    w_position : In(16)
        Position of the token within its text.
    w_kv_base : In(24)
        First position of the layer in the cache, a multiple of `score_banks`.
    start : In(1)
        Begin a row, while not `busy`. The fields below are taken in this cycle, if they were not `ahead`.
    ahead : In(1)
        The query will be complete with this cycle, and `start` will come with these same fields: take them and scan
        meanwhile. Ignored where attention is `bidirectional`.
    groups : In(14)
        Groups of channels in use: heads beyond them find no winners. All where nothing drives it.
    a_kv_base : In(24)
        As `w_kv_base`, of the layer to attend to.
    attention : In(2)
        `arch.commands.Attention`.
    head_level : In(3)
        Head width = segment << head_level.
    top_k : In(4)
        Winners per head, 0..k_max; only read by WTA, as are the next one and the shifts.
    overlap : In(1)
        Winners need a raw score above 0.
    bidirectional : In(1)
        Positions up to `last_position` compete instead of those up to `position`; distances are absolute.
    gather_shifts : In(24)
        Left shift of the winner of rank r: 3 bits each, rank 0 lowest.
    recency : In(segments * 4)
        Per head, head 0 lowest. WTA: recency shift, 15: none; SFSA: threshold; SSA: not read.
    position : In(16)
        Position of the query.
    last_position : In(16)
        Last position of the text; only read where `bidirectional`.
    busy : Out(1)
        From the cycle after `start` to the one before `done`.
    done : Out(1)
        One cycle: `g_values` are complete. `start` may come again in this cycle.
    ready_for_fire : Out(1)
        `g_values` are complete: from `done` until the fields of another row are taken.
    winners_strobe : Out(1)
        `winners` counts; once per rank, or per cycle of a row of scores.
    winners : Out(range(segments + 1))
        Heads that found a winner in this rank, or that add a value in this cycle.
    g_group : In(range(max_width // lanes))
        Group of channels to look at.
    g_values : Out(lanes * gather_width)
        Gathered values in the same cycle, channel 0 of the group lowest; signed.

    Latency
    -------
    From `start` to `done` (see `row_latency`), `last` being the last position that competes: WTA takes
    ``last // score_banks + 1 + top_k + overhead`` cycles. SFSA and SSA take ``last // score_banks + overhead``, and for each
    row of scores as many as the head with most hits in it has beyond the first. Each cycle from `ahead` to `start` saves one of
    these, as long as there is a row to scan or a hit to wait for, but not those of the last row.

    Reference
    ---------
    `arch.numerics.raw_scores`, `biased_scores`, `winners`, `gather`, `sfsa_gather` and `ssa_gather`.
    """

    #: Cycles of a row beside its scan and its winners; one less where there are no ranks.
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
            "ahead": In(1),
            "groups": In(14, init=self.groups_in_all),
            "a_kv_base": In(24),
            "attention": In(2),
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

    def row_latency(self, *, last_position: int, top_k: int = 0, attention: Attention = Attention.WTA, ahead: int = 0,
                    hits: Sequence[int] = ()) -> int:
        """Cycles from `start` to `done` of a row whose last competing position is `last_position`.

        `ahead`: cycles from the one after `ahead` to the one before `start`. `hits`: most hits of a head, per row of scores
        (SFSA, SSA).
        """
        scan = scan_cycles(last_position // self.cfg.score_banks, ahead, hits)
        return scan + self.overhead + (top_k if attention == Attention.WTA and top_k else -1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.cache = self._cache = KvCache(cfg=self.cfg)
        m.submodules.score_unit = self._score = ScoreUnit(cfg=self.cfg)
        m.submodules.winner_tree = self._tree = WinnerTree(cfg=self.cfg)
        m.submodules.score_walk = self._walk = ScoreWalk(cfg=self.cfg)
        m.submodules.value_gather = self._gather = ValueGather(cfg=self.cfg)

        self._build_writes(m)
        self._build_fields(m)
        self._build_control(m)
        self._build_scores(m)
        self._build_gather(m)
        return m

    def _build_writes(self, m):
        cache, score = self._cache, self._score
        spoke, minus = spoke_and_minus(self.w_levels, self.cfg.level_bits)
        m.d.comb += [
            score.q_en.eq(self.w_en & (self.w_kind == QUERY)),
            score.q_group.eq(self.w_group),
            score.q_spoke.eq(spoke),
            score.q_minus.eq(minus),
            cache.w_en_k.eq(self.w_en & (self.w_kind == KEY)),
            cache.w_en_v.eq(self.w_en & (self.w_kind == VALUE)),
            cache.w_position.eq(self.w_kv_base + self.w_position),
            cache.w_group.eq(self.w_group),
            cache.w_levels.eq(self.w_levels),
        ]

    def _build_fields(self, m):
        """Registers of what a row is."""
        cfg, score, walk, gather = self.cfg, self._score, self._walk, self._gather
        head_level, overlap = Signal(3), Signal()
        position, live, heads = Signal(self.position_width), Signal(cfg.segments), Signal(cfg.segments * 4)
        competes = Signal()
        self._take, self._last, self._base = Signal(), Signal(self.position_width), Signal(gather.position_width)
        self._start_last = Mux(self.bidirectional, self.last_position, self.position)[:self.position_width]
        m.d.comb += competes.eq(self.attention == Attention.WTA)
        with m.If(self._take):
            m.d.sync += [
                head_level.eq(self.head_level),
                overlap.eq(self.overlap),
                position.eq(self.position),
                self._last.eq(self._start_last),
                heads.eq(self.recency),
                self._base.eq(self.a_kv_base),
                walk.fire.eq(self.attention == Attention.SFSA),
                gather.weighted.eq(self.attention == Attention.SSA),
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
            score.last_position.eq(self._last),
            score.recency.eq(heads),
            score.live.eq(live),
            walk.thresholds.eq(heads),
            walk.live.eq(live),
            walk.last_position.eq(self._last),
            walk.clear.eq(self._take),
            gather.head_level.eq(head_level),
            gather.base.eq(self._base),
            gather.gather_shifts.eq(Mux(competes, self.gather_shifts, 0)),
            gather.clear.eq(self._take),
        ]

    def _build_control(self, m):
        """WAIT, scan AHEAD, SCAN the rows, DRAIN the score pipeline, SELECT the ranks, GATHER the last of them.

        A walk is a scan without ranks, which waits while a row of scores has several hits of a head.
        """
        walk = self._walk
        taken, scan, pop, hold = Signal(), Signal(), Signal(), walk.hold
        row, next_row = Signal(self.position_width - self.bank_bits), Signal(self.position_width - self.bank_bits)
        goal, walks, last = Signal.like(row), Signal(), Signal()
        walking, finished = Signal(), Signal()
        ranks = Signal(4)
        drain = Signal(KvCache.latency + ScoreUnit.latency)
        tail = Signal(WinnerTree.latency + ValueGather.latency - 1)
        steps = Signal(KvCache.latency + ScoreUnit.raw_latency)
        m.d.comb += [
            goal.eq(Mux(taken, self._last, self._start_last)[self.bank_bits:]),
            walks.eq(self.attention != Attention.WTA),
            last.eq(row == goal),
            self._tree.clear.eq(self._take),
            self._tree.pop.eq(pop),
            walk.i_valid.eq(steps[-1] & walking),
            self.ready_for_fire.eq(finished),
        ]
        m.d.sync += [self.done.eq(0), tail.eq(tail << 1)]
        with m.If(~hold):
            m.d.sync += [drain.eq(Cat(scan & last, drain)), steps.eq(Cat(scan, steps))]
        with m.If(self._take):
            m.d.sync += [walking.eq(walks), ranks.eq(Mux(walks, 0, self.top_k)), finished.eq(0)]
        with m.Else():
            m.d.sync += ranks.eq(ranks - pop)
        with m.If(scan):
            m.d.sync += next_row.eq(row + 1)
        with m.Elif(self._take):
            m.d.sync += next_row.eq(0)
        with m.If(self.start):
            m.d.sync += self.busy.eq(1)

        with m.FSM() as fsm:
            with m.State("WAIT"):
                m.d.comb += [scan.eq(self.start), self._take.eq(self.start | (self.ahead & ~self.bidirectional))]
                with m.If(self.start):
                    m.next = "SCAN"
                    with m.If(last):
                        m.next = "DRAIN"
                with m.Elif(self._take):
                    m.next = "AHEAD"
            with m.State("AHEAD"):
                m.d.comb += [scan.eq((self.start | ~last) & ~hold), row.eq(next_row)]
                with m.If(self.start):
                    m.next = "SCAN"
                    with m.If(scan & last):
                        m.next = "DRAIN"
            with m.State("SCAN"):
                m.d.comb += [scan.eq(~hold), row.eq(next_row)]
                with m.If(scan & last):
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                with m.If(drain[-1] & ~hold):
                    m.next = "SELECT"
                    with m.If(ranks == 0):
                        # The last hits are there now; winners come a cycle after their pop.
                        m.d.sync += tail.eq(2)
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
            m.d.comb += taken.eq(~fsm.ongoing("WAIT"))
        self._taken, self._scan, self._row, self._walking = taken, scan, row, walking

    def _build_scores(self, m):
        """Read a row of keys per cycle of a scan; without `ahead`, the first in the cycle of `start`.

        Where the rows lie is counted: the fields that come with `start` go to the memory as they are.
        """
        cache, score, tree, walk = self._cache, self._score, self._tree, self._walk
        first, following = self.a_kv_base[self.bank_bits:], Signal(len(cache.k_row))
        with m.If(~walk.hold):
            m.d.sync += [score.i_valid.eq(self._scan), score.i_row.eq(self._row)]
        with m.If(self._take | self._scan):
            m.d.sync += following.eq(cache.k_row + self._scan)
        m.d.comb += [
            score.hold.eq(walk.hold),
            cache.k_en.eq(self._scan),
            cache.k_row.eq(Mux(self._taken, following, first)),
            score.i_spoke.eq(cache.k_spoke),
            score.i_minus.eq(cache.k_minus),
            tree.i_valid.eq(score.o_valid),
            tree.i_row.eq(score.o_row),
            tree.i_keys.eq(score.o_keys),
            walk.i_raw.eq(score.o_raw),
        ]

    def _build_gather(self, m):
        cache, tree, walk, gather = self._cache, self._tree, self._walk, self._gather
        for hit, winner, passed in zip(gather.i_hits, tree.o_winners, walk.o_hits):
            m.d.comb += [
                hit.position.eq(Mux(self._walking, passed.position, winner.position)),
                hit.found.eq(Mux(self._walking, passed.found, winner.found)),
                hit.score.eq(passed.score),
            ]
        m.d.comb += [
            gather.i_valid.eq(tree.o_valid | walk.o_valid),
            cache.v_en.eq(gather.v_en),
            cache.v_position.eq(gather.v_position),
            gather.v_words.eq(cache.v_words),
            gather.g_group.eq(self.g_group),
            self.g_values.eq(gather.g_values),
            self.winners_strobe.eq(gather.i_valid),
            self.winners.eq(popcount(Cat(hit.found for hit in gather.i_hits))),
        ]
