"""Attention scores: AND and popcount of the query with a row of cached keys, for all heads at once."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.config import AcceleratorConfig, bits_for

from ..lib.arith import popcount


def biased_width(cfg: AcceleratorConfig) -> int:
    """Bits of a biased score, signed: raw score - (distance >> recency)."""
    return max(cfg.score_width, bits_for(cfg.max_context - 1)) + 1


def key_layout(cfg: AcceleratorConfig) -> data.StructLayout:
    """What competes: `valid`, then the biased `score` with its sign bit inverted, so that larger is better unsigned."""
    return data.StructLayout({"score": biased_width(cfg), "valid": 1})


class ScoreUnit(wiring.Component):
    """Scores `score_banks` positions per cycle against the query register and adds the recency bias.

    Head slot h takes the segments from ``h << head_level``, ``1 << head_level`` of them. It holds no addresses and keeps
    no winners; slots that are not `live` come out as not valid.

    Parameters
    ----------
    cfg : AcceleratorConfig
        Shape of the machine.

    Members
    -------
    q_en : In(1)
        Write `lanes` bits of the query register.
    q_group : In(range(max_width // lanes))
        Group of channels written.
    q_bits : In(lanes)
        Query bits, channel 0 of the group lowest.
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
    i_valid : In(1)
        A row of keys is present.
    i_row : In(range(max_context // score_banks))
        Its positions are i_row * score_banks and following.
    i_words : In(score_banks * max_width)
        Its keys, bank 0 lowest.
    o_valid : Out(1)
        `o_keys` are present.
    o_row : Out(range(max_context // score_banks))
        Their row.
    o_keys : Out(ArrayLayout(ArrayLayout(key_layout(cfg), score_banks), segments))
        Key per slot and bank.

    Latency
    -------
    Three cycles; one row per cycle.

    Reference
    ---------
    `arch.numerics.raw_scores`, `arch.numerics.biased_scores`.
    """

    #: Cycles from a row of keys to its scores.
    latency = 3

    def __init__(self, *, cfg: AcceleratorConfig):
        if not cfg.score_banks < cfg.max_context <= 1 << 15:
            raise ValueError(f"max_context {cfg.max_context} must exceed score_banks {cfg.score_banks} and be at most 32768, "
                             "where a recency shift of 15 is none.")
        self.cfg = cfg
        self.position_width = exact_log2(cfg.max_context)
        self.row_width = exact_log2(cfg.max_context // cfg.score_banks)
        self.groups = cfg.max_width // cfg.lanes
        super().__init__({
            "q_en": In(1),
            "q_group": In(bits_for(self.groups - 1)),
            "q_bits": In(cfg.lanes),
            "head_level": In(3),
            "overlap": In(1),
            "query_position": In(self.position_width),
            "last_position": In(self.position_width),
            "recency": In(cfg.segments * 4),
            "live": In(cfg.segments),
            "i_valid": In(1),
            "i_row": In(self.row_width),
            "i_words": In(cfg.score_banks * cfg.max_width),
            "o_valid": Out(1),
            "o_row": Out(self.row_width),
            "o_keys": Out(data.ArrayLayout(data.ArrayLayout(key_layout(cfg), cfg.score_banks), cfg.segments)),
        })

    def elaborate(self, platform):
        m = Module()
        query = self._build_query(m)
        rows = [self.i_row]
        valids = [self.i_valid]
        for stage in range(1, self.latency + 1):
            rows.append(Signal(self.row_width, name=f"row_{stage}"))
            valids.append(Signal(name=f"valid_{stage}"))
            m.d.sync += [rows[-1].eq(rows[-2]), valids[-1].eq(valids[-2])]
        m.d.comb += [self.o_valid.eq(valids[-1]), self.o_row.eq(rows[-1])]
        for bank in range(self.cfg.score_banks):
            counts = self._build_counts(m, query, bank)
            eligible, distance = self._build_position(m, bank)
            raw = self._build_heads(m, counts, bank)
            self._build_bias(m, raw, eligible, distance, bank)
        return m

    def _build_query(self, m):
        query = Signal(self.cfg.max_width)
        with m.If(self.q_en):
            for group in range(self.groups):
                with m.If(self.q_group == group):
                    m.d.sync += query[group * self.cfg.lanes:(group + 1) * self.cfg.lanes].eq(self.q_bits)
        return query

    def _build_counts(self, m, query, bank):
        """First stage: spikes that query and key share, per segment."""
        cfg = self.cfg
        both = Signal(cfg.max_width, name=f"both_{bank}")
        m.d.comb += both.eq(query & self.i_words[bank * cfg.max_width:(bank + 1) * cfg.max_width])
        counts = []
        for segment in range(cfg.segments):
            count = Signal(bits_for(cfg.segment), name=f"count_{bank}_{segment}")
            m.d.sync += count.eq(popcount(both[segment * cfg.segment:(segment + 1) * cfg.segment]))
            counts.append(count)
        return counts

    def _build_position(self, m, bank):
        """First and second stage: causal mask and distance, the same for all heads."""
        position = Signal(self.position_width, name=f"position_{bank}")
        difference = Signal(signed(self.position_width + 1), name=f"difference_{bank}")
        distance = Signal(self.position_width, name=f"distance_{bank}")
        eligible_1 = Signal(name=f"eligible_1_{bank}")
        eligible = Signal(name=f"eligible_{bank}")
        m.d.comb += [
            position.eq(Cat(Cat(bank >> bit & 1 for bit in range(exact_log2(self.cfg.score_banks))), self.i_row)),
            difference.eq(self.query_position - position),
        ]
        m.d.sync += [
            distance.eq(Mux(difference < 0, -difference, difference)),
            eligible_1.eq(position <= self.last_position),
            eligible.eq(eligible_1),
        ]
        return eligible, distance

    def _build_heads(self, m, counts, bank):
        """Second stage: sums of aligned segments, the level chosen at run time."""
        cfg = self.cfg
        raw = [Signal(cfg.score_width, name=f"raw_{bank}_{slot}") for slot in range(cfg.segments)]
        sums = list(counts)
        levels = [sums]
        for level in range(1, cfg.head_levels):
            pairs = zip(sums[0::2], sums[1::2])
            sums = []
            for slot, (low, high) in enumerate(pairs):
                total = Signal(bits_for(cfg.segment << level), name=f"sum_{bank}_{level}_{slot}")
                m.d.comb += total.eq(low + high)
                sums.append(total)
            levels.append(sums)
        with m.Switch(self.head_level):
            for level, sums in enumerate(levels):
                with m.Case(level):
                    m.d.sync += [register.eq(value) for register, value in zip(raw, sums)]
        return raw

    def _build_bias(self, m, raw, eligible, distance, bank):
        """Second and third stage: subtract the recency penalty, and make keys."""
        cfg = self.cfg
        for slot in range(cfg.segments):
            shift = self.recency[4 * slot:4 * slot + 4]
            penalty = Signal(self.position_width, name=f"penalty_{bank}_{slot}")
            key = self.o_keys[slot][bank]
            biased = Signal(signed(biased_width(cfg)), name=f"biased_{bank}_{slot}")
            m.d.comb += biased.eq(raw[slot] - penalty)
            m.d.sync += [
                penalty.eq(distance >> shift),
                key.score.eq(Cat(biased[:-1], ~biased[-1])),
                key.valid.eq(eligible & self.live[slot] & (~self.overlap | raw[slot].any())),
            ]
