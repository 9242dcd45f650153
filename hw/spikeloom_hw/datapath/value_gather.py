"""Value gather: adds the winners' values, shifted by rank, with one adder per channel."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from spikeloom.arch.config import AcceleratorConfig, bits_for

from .winner_tree import winner_layout

#: Ranks that have a shift of their own, and bits of a shift.
RANKS = 8
SHIFT_WIDTH = 3


class ValueGather(wiring.Component):
    """Reads the values of each rank's winners and adds them into one accumulator per channel.

    Every segment follows the winner of its head (slot = segment >> head_level). A winner that is not found adds nothing.
    It owns the accumulators, not the values.

    Parameters
    ----------
    cfg : AcceleratorConfig
        Shape of the machine.

    Members
    -------
    clear : In(1)
        Accumulators and rank to zero. Not while winners are under way.
    head_level : In(3)
        Head width = segment << head_level. Static between two `clear`, as are the next two.
    base : In(range(kv_positions))
        First position of the layer in the cache.
    gather_shifts : In(24)
        Left shift of the winner of rank r: 3 bits each, rank 0 lowest.
    i_valid : In(1)
        The winners of the next rank are present.
    i_winners : In(ArrayLayout(winner_layout(cfg), segments))
        Winner per slot.
    v_en : Out(1)
        Read values.
    v_position : Out(segments * bits of a position)
        Position in the cache per segment, segment 0 lowest.
    v_words : In(max_width * level_bits)
        Their levels, one cycle after `v_en`.
    g_group : In(range(max_width // lanes))
        Group of channels to look at.
    g_values : Out(lanes * gather_width)
        Its accumulators, in the same cycle, channel 0 of the group lowest; unsigned.

    Latency
    -------
    Two cycles from winners to accumulators; one rank per cycle.

    Reference
    ---------
    `arch.numerics.gather`.
    """

    #: Cycles from winners to accumulators.
    latency = 2

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        self.position_width = bits_for(cfg.kv_positions - 1)
        self.groups = cfg.max_width // cfg.lanes
        super().__init__({
            "clear": In(1),
            "head_level": In(3),
            "base": In(self.position_width),
            "gather_shifts": In(RANKS * SHIFT_WIDTH),
            "i_valid": In(1),
            "i_winners": In(data.ArrayLayout(winner_layout(cfg), cfg.segments)),
            "v_en": Out(1),
            "v_position": Out(cfg.segments * self.position_width),
            "v_words": In(cfg.max_width * cfg.level_bits),
            "g_group": In(bits_for(self.groups - 1)),
            "g_values": Out(cfg.lanes * cfg.gather_width),
        })

    def elaborate(self, platform):
        m = Module()
        found = self._build_addresses(m)
        add, shift = self._build_ranks(m)
        sums = self._build_sums(m, add, shift, found)
        self._build_reader(m, sums)
        return m

    def _build_addresses(self, m):
        """Position to read, and whether to add, per segment."""
        cfg = self.cfg
        width = self.position_width
        positions = []
        for slot in range(cfg.segments):
            position = Signal(width, name=f"position_{slot}")
            m.d.comb += position.eq(self.base + self.i_winners[slot].position)
            positions.append(position)
        found_next = Signal(cfg.segments)
        found = Signal(cfg.segments)
        m.d.comb += self.v_en.eq(self.i_valid)
        m.d.sync += found.eq(found_next)
        with m.Switch(self.head_level):
            for level in range(cfg.head_levels):
                with m.Case(level):
                    for segment in range(cfg.segments):
                        slot = segment >> level
                        m.d.comb += [
                            self.v_position[segment * width:(segment + 1) * width].eq(positions[slot]),
                            found_next[segment].eq(self.i_winners[slot].found),
                        ]
        return found

    def _build_ranks(self, m):
        """Shift of the rank whose values arrive."""
        left = Signal(RANKS * SHIFT_WIDTH)
        add = Signal()
        shift = Signal(SHIFT_WIDTH)
        m.d.sync += add.eq(self.i_valid)
        with m.If(self.clear):
            m.d.sync += left.eq(self.gather_shifts)
        with m.Elif(self.i_valid):
            m.d.sync += [left.eq(left >> SHIFT_WIDTH), shift.eq(left[:SHIFT_WIDTH])]
        return add, shift

    def _build_sums(self, m, add, shift, found):
        cfg = self.cfg
        sums = []
        for channel in range(cfg.max_width):
            level = self.v_words[channel * cfg.level_bits:(channel + 1) * cfg.level_bits]
            total = Signal(cfg.gather_width, name=f"sum_{channel}")
            with m.If(self.clear):
                m.d.sync += total.eq(0)
            with m.Elif(add & found[channel // cfg.segment]):
                m.d.sync += total.eq(total + (level << shift))
            sums.append(total)
        return sums

    def _build_reader(self, m, sums):
        lanes = self.cfg.lanes
        with m.Switch(self.g_group):
            for group in range(self.groups):
                with m.Case(group):
                    m.d.comb += self.g_values.eq(Cat(sums[group * lanes:(group + 1) * lanes]))
