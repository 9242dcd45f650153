"""Value gather: adds values, shifted by rank or times a score, with one adder per channel."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.config import AcceleratorConfig, bits_for

from ..levels import is_minus, magnitude

#: Ranks that have a shift of their own, and bits of a shift.
RANKS = 8
SHIFT_WIDTH = 3


def hit_layout(cfg: AcceleratorConfig) -> data.StructLayout:
    """What a head adds: the value at `position` if it is `found`; the raw `score` only counts where values are weighted."""
    return data.StructLayout({"position": exact_log2(cfg.max_context), "score": signed(cfg.score_width), "found": 1})


class ValueGather(wiring.Component):
    """Reads the values of each head's hits and adds them into one accumulator per channel.

    Every segment follows the hits of its head (slot = segment >> head_level). A value is a level of either sign; the hit
    of rank r adds it shifted by that rank's shift, or, where `weighted`, times the hit's score (values then are -1, 0 or
    1). It owns the accumulators, not the values.

    Parameters
    ----------
    cfg : AcceleratorConfig
        Shape of the machine.

    Members
    -------
    clear : In(1)
        Accumulators and rank to zero. Not while hits are under way.
    head_level : In(3)
        Head width = segment << head_level. Static between two `clear`, as are the next three.
    weighted : In(1)
        Scores count.
    base : In(range(kv_positions))
        First position of the layer in the cache.
    gather_shifts : In(24)
        Left shift of the hit of rank r: 3 bits each, rank 0 lowest; 0 beyond the last. All 0 where `weighted`.
    i_valid : In(1)
        The hits of the next rank are present.
    i_hits : In(ArrayLayout(hit_layout(cfg), segments))
        Hit per slot.
    v_en : Out(1)
        Read values.
    v_position : Out(segments * bits of a position)
        Position in the cache per segment, segment 0 lowest.
    v_words : In(max_width * level_bits)
        Their levels, one cycle after `v_en`.
    g_group : In(range(max_width // lanes))
        Group of channels to look at.
    g_values : Out(lanes * gather_width)
        Its accumulators, in the same cycle, channel 0 of the group lowest; signed.

    Latency
    -------
    Two cycles from hits to accumulators; one rank per cycle.

    Reference
    ---------
    `arch.numerics.gather`, `sfsa_gather`, `ssa_gather`.
    """

    #: Cycles from hits to accumulators.
    latency = 2

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        self.position_width = bits_for(cfg.kv_positions - 1)
        self.groups = cfg.max_width // cfg.lanes
        super().__init__({
            "clear": In(1),
            "head_level": In(3),
            "weighted": In(1),
            "base": In(self.position_width),
            "gather_shifts": In(RANKS * SHIFT_WIDTH),
            "i_valid": In(1),
            "i_hits": In(data.ArrayLayout(hit_layout(cfg), cfg.segments)),
            "v_en": Out(1),
            "v_position": Out(cfg.segments * self.position_width),
            "v_words": In(cfg.max_width * cfg.level_bits),
            "g_group": In(bits_for(self.groups - 1)),
            "g_values": Out(cfg.lanes * cfg.gather_width),
        })

    def elaborate(self, platform):
        m = Module()
        found, scores = self._build_addresses(m)
        shift = self._build_ranks(m)
        arrived, times = self._build_factors(m, scores, shift)
        sums = self._build_sums(m, found, arrived, times)
        self._build_reader(m, sums)
        return m

    def _build_addresses(self, m):
        """Position to read per segment; whether to add, a cycle later; score."""
        cfg = self.cfg
        width = self.position_width
        positions = []
        for slot in range(cfg.segments):
            position = Signal(width, name=f"position_{slot}")
            m.d.comb += position.eq(self.base + self.i_hits[slot].position)
            positions.append(position)
        found = Signal(cfg.segments)
        scores = [Signal(signed(cfg.score_width), name=f"score_{segment}") for segment in range(cfg.segments)]
        found_next = Signal(cfg.segments)
        m.d.comb += self.v_en.eq(self.i_valid)
        m.d.sync += found.eq(found_next & self.i_valid.replicate(cfg.segments))
        with m.Switch(self.head_level):
            for level in range(cfg.head_levels):
                with m.Case(level):
                    for segment in range(cfg.segments):
                        slot = segment >> level
                        m.d.comb += [
                            self.v_position[segment * width:(segment + 1) * width].eq(positions[slot]),
                            found_next[segment].eq(self.i_hits[slot].found),
                            scores[segment].eq(self.i_hits[slot].score),
                        ]
        return found, scores

    def _build_ranks(self, m):
        """Shift of the rank whose hits are present."""
        left = Signal(RANKS * SHIFT_WIDTH)
        with m.If(self.clear):
            m.d.sync += left.eq(self.gather_shifts)
        with m.Elif(self.i_valid):
            m.d.sync += left.eq(left >> SHIFT_WIDTH)
        return left[:SHIFT_WIDTH]

    def _build_factors(self, m, scores, shift):
        """What values are multiplied by, when they arrive: the shift, and per segment a word that is the score where
        `weighted` and else 1."""
        arrived = Signal(SHIFT_WIDTH)
        m.d.sync += arrived.eq(shift)
        times = [Signal(self.cfg.gather_width, name=f"times_{segment}") for segment in range(self.cfg.segments)]
        m.d.sync += [word.eq(Mux(self.weighted, score, 1)) for word, score in zip(times, scores)]
        return arrived, times

    def _build_sums(self, m, found, shift, times):
        """Two tables of six inputs per bit: the level's magnitude shifted by 0..3, then by 0 or 4, or the score."""
        cfg = self.cfg
        sums = []
        for channel in range(cfg.max_width):
            segment = channel // cfg.segment
            level = self.v_words[channel * cfg.level_bits:(channel + 1) * cfg.level_bits]
            minus = Signal(name=f"minus_{channel}")
            near = Signal(cfg.level_bits + 3, name=f"near_{channel}")
            far = Signal(cfg.level_bits + 7, name=f"far_{channel}")
            addend = Signal(cfg.gather_width, name=f"addend_{channel}")
            total = Signal(signed(cfg.gather_width), name=f"sum_{channel}")
            m.d.comb += [
                minus.eq(is_minus(level)),
                near.eq(magnitude(level) << shift[:2]),
                far.eq(Mux(shift[2], near << 4, near)),
                # A weighted value is 0 or 1 before its sign, and its shift 0: all but bit 0 of `far` is 0.
                addend.eq(Cat(far[0] & times[segment][0], far[1:] | near[0].replicate(cfg.gather_width - 1) & times[segment][1:])),
            ]
            # One carry chain: of a level below zero the complement and a carry into it.
            added = (Cat(Const(1, 1), total) + Cat(minus, addend ^ minus.replicate(len(addend))))[1:]
            with m.If(self.clear):
                m.d.sync += total.eq(0)
            with m.Elif(found[segment]):
                m.d.sync += total.eq(added)
            sums.append(total)
        return sums

    def _build_reader(self, m, sums):
        lanes = self.cfg.lanes
        with m.Switch(self.g_group):
            for group in range(self.groups):
                with m.Case(group):
                    m.d.comb += self.g_values.eq(Cat(sums[group * lanes:(group + 1) * lanes]))
