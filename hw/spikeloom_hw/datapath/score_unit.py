"""Attention scores: agreeing less disagreeing channels of the query and a row of cached keys, for all heads at once."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.config import RECENCY_OFF, AcceleratorConfig, bits_for

from ..lib.arith import popcount


def key_zero(cfg: AcceleratorConfig) -> int:
    """Key of a biased score of 0: 0 does not compete, so that of the lowest score is above it."""
    return (1 << cfg.score_width - 1) + cfg.max_context - 1


def key_width(cfg: AcceleratorConfig) -> int:
    """Bits of a key, which competes as an unsigned number: key_zero + biased score, or 0."""
    return bits_for(key_zero(cfg) + cfg.max_width)


class ScoreUnit(wiring.Component):
    """Scores `score_banks` positions per cycle against the query register and adds the recency bias.

    Head slot h takes the segments from ``h << head_level``, ``1 << head_level`` of them. It holds no addresses and keeps
    no winners; the keys of slots that are not `live` do not compete.

    Parameters
    ----------
    cfg : AcceleratorConfig
        Shape of the machine.

    Members
    -------
    q_en : In(1)
        Write `lanes` channels of the query register.
    q_group : In(range(max_width // lanes))
        Group of channels written.
    q_spoke, q_minus : In(lanes)
        Channels that are not 0, and that are -1, channel 0 of the group lowest.
    head_level : In(3)
        Head width = segment << head_level. Static while a row is under way, as all below but the row itself.
    overlap : In(1)
        Only raw scores above 0 compete.
    query_position : In(range(max_context))
        Position of the query, from which distances count (absolute ones where keys lie behind it).
    last_position : In(range(max_context))
        Last position that competes: the causal mask where it is the query's position.
    recency : In(segments * 4)
        Recency shift per head slot, slot 0 lowest; 15: none.
    live : In(segments)
        Slots that are heads.
    hold : In(1)
        Raw scores stay as they are and the row of keys that is present is not taken yet; keys made meanwhile mean nothing.
    i_valid : In(1)
        A row of keys is present.
    i_row : In(range(max_context // score_banks))
        Its positions are i_row * score_banks and following.
    i_spoke, i_minus : In(score_banks * max_width)
        Channels of its keys that are not 0, and that are -1, bank 0 lowest.
    o_raw : Out(ArrayLayout(ArrayLayout(signed(score_width), score_banks), segments))
        Raw score per slot and bank, two cycles after the row.
    o_valid : Out(1)
        `o_keys` are present.
    o_row : Out(range(max_context // score_banks))
        Their row.
    o_keys : Out(ArrayLayout(ArrayLayout(key_width(cfg), score_banks), segments))
        Key per slot and bank.

    Latency
    -------
    Two cycles to the raw scores, three to the keys; one row per cycle.

    Reference
    ---------
    `arch.numerics.raw_scores`, `arch.numerics.biased_scores`.
    """

    #: Cycles from a row to its raw scores, and to its keys.
    raw_latency = 2
    latency = 3

    def __init__(self, *, cfg: AcceleratorConfig):
        if not cfg.score_banks < cfg.max_context <= 1 << RECENCY_OFF:
            raise ValueError(f"max_context {cfg.max_context} must exceed score_banks {cfg.score_banks} and be at most "
                             f"{1 << RECENCY_OFF}, where a recency shift of {RECENCY_OFF} is none.")
        self.cfg = cfg
        self.position_width = exact_log2(cfg.max_context)
        self.row_width = exact_log2(cfg.max_context // cfg.score_banks)
        self.groups = cfg.max_width // cfg.lanes
        super().__init__({
            "q_en": In(1),
            "q_group": In(bits_for(self.groups - 1)),
            "q_spoke": In(cfg.lanes),
            "q_minus": In(cfg.lanes),
            "head_level": In(3),
            "overlap": In(1),
            "query_position": In(self.position_width),
            "last_position": In(self.position_width),
            "recency": In(cfg.segments * 4),
            "live": In(cfg.segments),
            "hold": In(1),
            "i_valid": In(1),
            "i_row": In(self.row_width),
            "i_spoke": In(cfg.score_banks * cfg.max_width),
            "i_minus": In(cfg.score_banks * cfg.max_width),
            "o_raw": Out(data.ArrayLayout(data.ArrayLayout(signed(cfg.score_width), cfg.score_banks), cfg.segments)),
            "o_valid": Out(1),
            "o_row": Out(self.row_width),
            "o_keys": Out(data.ArrayLayout(data.ArrayLayout(key_width(cfg), cfg.score_banks), cfg.segments)),
        })

    def elaborate(self, platform):
        m = Module()
        spoke, minus = self._build_query(m)
        rows = [self.i_row]
        valids = [self.i_valid]
        for stage in range(1, self.latency + 1):
            rows.append(Signal(self.row_width, name=f"row_{stage}"))
            valids.append(Signal(name=f"valid_{stage}"))
            m.d.sync += [rows[-1].eq(rows[-2]), valids[-1].eq(valids[-2])]
        m.d.comb += [self.o_valid.eq(valids[-1]), self.o_row.eq(rows[-1])]
        for bank in range(self.cfg.score_banks):
            scores = self._build_counts(m, spoke, minus, bank)
            eligible, distance = self._build_position(m, bank)
            self._build_heads(m, scores, bank)
            self._build_keys(m, eligible, distance, bank)
        return m

    def _build_query(self, m):
        spoke, minus = Signal(self.cfg.max_width), Signal(self.cfg.max_width)
        with m.If(self.q_en):
            for group in range(self.groups):
                with m.If(self.q_group == group):
                    at = slice(group * self.cfg.lanes, (group + 1) * self.cfg.lanes)
                    m.d.sync += [spoke[at].eq(self.q_spoke), minus[at].eq(self.q_minus)]
        return spoke, minus

    def _build_counts(self, m, spoke, minus, bank):
        """First stage: channels where both spoke, and of these the ones that differ; then the score of each segment."""
        cfg = self.cfg
        at = slice(bank * cfg.max_width, (bank + 1) * cfg.max_width)
        both = Signal(cfg.max_width, name=f"both_{bank}")
        differ = Signal(cfg.max_width, name=f"differ_{bank}")
        m.d.comb += [both.eq(spoke & self.i_spoke[at]), differ.eq(both & (minus ^ self.i_minus[at]))]
        scores = []
        for segment in range(cfg.segments):
            within = slice(segment * cfg.segment, (segment + 1) * cfg.segment)
            n_both = Signal(bits_for(cfg.segment), name=f"n_both_{bank}_{segment}")
            n_differ = Signal(bits_for(cfg.segment), name=f"n_differ_{bank}_{segment}")
            score = Signal(range(-cfg.segment, cfg.segment + 1), name=f"score_{bank}_{segment}")
            with m.If(~self.hold):
                m.d.sync += [n_both.eq(popcount(both[within])), n_differ.eq(popcount(differ[within]))]
            m.d.comb += score.eq(n_both - (n_differ << 1))
            scores.append(score)
        return scores

    def _build_position(self, m, bank):
        """First and second stage: causal mask and distance, the same for all heads."""
        position = Signal(self.position_width, name=f"position_{bank}")
        difference = Signal(signed(self.position_width + 1), name=f"difference_{bank}")
        distance = Signal(self.position_width, name=f"distance_{bank}")
        eligible_1 = Signal(name=f"eligible_1_{bank}")
        eligible = Signal(name=f"eligible_{bank}")
        m.d.comb += [
            position.eq(Cat(Const(bank, exact_log2(self.cfg.score_banks)), self.i_row)),
            difference.eq(self.query_position - position),
        ]
        m.d.sync += [
            distance.eq(Mux(difference < 0, -difference, difference)),
            eligible_1.eq(position <= self.last_position),
            eligible.eq(eligible_1),
        ]
        return eligible, distance

    def _build_heads(self, m, scores, bank):
        """Second stage: sums of aligned segments, the level chosen at run time."""
        cfg = self.cfg
        levels = [scores]
        for level in range(1, cfg.head_levels):
            most = cfg.segment << level
            sums = [Signal(range(-most, most + 1), name=f"sum_{bank}_{level}_{slot}") for slot in range(cfg.segments >> level)]
            m.d.comb += [total.eq(low + high) for total, low, high in zip(sums, levels[-1][0::2], levels[-1][1::2])]
            levels.append(sums)
        with m.If(~self.hold), m.Switch(self.head_level):
            for level, sums in enumerate(levels):
                with m.Case(level):
                    m.d.sync += [self.o_raw[slot][bank].eq(total) for slot, total in enumerate(sums)]

    def _build_keys(self, m, eligible, distance, bank):
        """Second and third stage: subtract the recency penalty, and make keys."""
        cfg = self.cfg
        for slot in range(cfg.segments):
            raw = self.o_raw[slot][bank]
            nearness = Signal(self.position_width, name=f"nearness_{bank}_{slot}")  # max_context - 1 - penalty
            competes = Signal(name=f"competes_{bank}_{slot}")
            above = Cat(raw[:-1], ~raw[-1])  # raw + (1 << score_width - 1)
            m.d.comb += competes.eq(eligible & self.live[slot] & (~self.overlap | (raw > 0)))
            m.d.sync += [
                nearness.eq(~(distance >> self.recency[4 * slot:4 * slot + 4])),
                self.o_keys[slot][bank].eq(Mux(competes, above + nearness, 0)),
            ]
