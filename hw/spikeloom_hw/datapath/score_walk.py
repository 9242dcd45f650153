"""SFSA and SSA: hands on the positions whose value counts, row by row, all heads side by side."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.config import AcceleratorConfig

from ..lib.arith import find_first, select_field
from .value_gather import hit_layout


class ScoreWalk(wiring.Component):
    """Takes a row of raw scores per cycle and says for each head which of its positions counts, one per head and cycle.

    Where scores `fire` (SFSA) these are the positions whose score reaches the head's threshold, else (SSA) those whose score
    is not 0: the others add nothing. Heads are independent of each other, so a row stays for as many cycles as the head with
    most hits in it has some, but at least for one. It does not step through rows and keeps no scores but those of its row.

    Parameters
    ----------
    cfg : AcceleratorConfig
        Shape of the machine.

    Members
    -------
    clear : In(1)
        The next row is the first of a query. Not while rows are under way.
    fire : In(1)
        Only scores that reach the threshold count. Static while a walk is under way, as are the next three.
    thresholds : In(segments * 4)
        Per head slot, slot 0 lowest.
    live : In(segments)
        Slots that are heads; for others nothing counts.
    last_position : In(range(max_context))
        Positions beyond it do not count.
    i_valid : In(1)
        A row of raw scores is present; rows come in increasing order. It is taken unless `hold`.
    i_raw : In(ArrayLayout(ArrayLayout(signed(score_width), score_banks), segments))
        Its score per slot and bank (position mod score_banks).
    hold : Out(1)
        The row that is being handed on has hits that need another cycle.
    o_valid : Out(1)
        `o_hits` are present.
    o_hits : Out(ArrayLayout(hit_layout(cfg), segments))
        Per slot, in increasing order of positions.

    Latency
    -------
    One cycle; one row per cycle, and one more for each hit of a head beyond its first, where it has most of all heads.

    Reference
    ---------
    The sums in `arch.numerics.sfsa_gather` and `ssa_gather` are over what is `found`.
    """

    #: Cycles from a row to its first hits.
    latency = 1

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        self.bank_bits = exact_log2(cfg.score_banks)
        self.row_width = exact_log2(cfg.max_context) - self.bank_bits
        super().__init__({
            "clear": In(1),
            "fire": In(1),
            "thresholds": In(cfg.segments * 4),
            "live": In(cfg.segments),
            "last_position": In(exact_log2(cfg.max_context)),
            "i_valid": In(1),
            "i_raw": In(data.ArrayLayout(data.ArrayLayout(signed(cfg.score_width), cfg.score_banks), cfg.segments)),
            "hold": Out(1),
            "o_valid": Out(1),
            "o_hits": Out(data.ArrayLayout(hit_layout(cfg), cfg.segments)),
        })

    def elaborate(self, platform):
        m = Module()
        coming, row = Signal(self.row_width), Signal(self.row_width)
        last_row, last_bank = self.last_position[self.bank_bits:], self.last_position[:self.bank_bits]
        in_time, several = Signal(self.cfg.score_banks), Signal(self.cfg.segments)
        m.d.comb += [
            in_time.eq(Cat((coming != last_row) | (bank <= last_bank) for bank in range(self.cfg.score_banks))),
            self.hold.eq(several.any()),
        ]
        with m.If(self.clear):
            m.d.sync += coming.eq(0)
        with m.If(~self.hold):
            m.d.sync += [self.o_valid.eq(self.i_valid), row.eq(coming)]
            with m.If(self.i_valid):
                m.d.sync += coming.eq(coming + 1)
        for slot in range(self.cfg.segments):
            m.d.comb += several[slot].eq(self._build_slot(m, slot, row, in_time))
        return m

    def _build_slot(self, m, slot, row, in_time):
        """The hits of one head; returns whether there are several."""
        cfg, hit = self.cfg, self.o_hits[slot]
        left = Signal(cfg.score_banks, name=f"left_{slot}")
        raw = Signal.like(Value.cast(self.i_raw[slot]), name=f"raw_{slot}")
        threshold = self.thresholds[4 * slot:4 * slot + 4]
        counts = Cat(Mux(self.fire, score >= threshold, score != 0) for score in self.i_raw[slot]) & in_time
        found, several, bank = find_first(m, left)
        m.d.comb += [
            hit.found.eq(found),
            hit.position.eq(Cat(bank, row)),
            hit.score.eq(select_field(raw, bank, cfg.score_width)),
        ]
        with m.If(self.hold):
            m.d.sync += left.eq(left & ~(Const(1, cfg.score_banks) << bank)[:cfg.score_banks])
        with m.Else():
            m.d.sync += [left.eq(Mux(self.i_valid & self.live[slot], counts, 0)), raw.eq(Value.cast(self.i_raw[slot]))]
        return several
