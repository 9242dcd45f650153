"""SFSA and SSA: hands on the scored positions one by one, all heads side by side."""

from amaranth.hdl import Module, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.config import AcceleratorConfig

from ..lib.arith import select_field


def pass_layout(cfg: AcceleratorConfig) -> data.StructLayout:
    """What one head makes of a position: its raw `score`, and whether the value is to be added (`found`)."""
    return data.StructLayout({"score": signed(cfg.score_width), "found": 1})


class ScoreWalk(wiring.Component):
    """Takes one position per cycle out of the row of raw scores and says for which heads its value counts.

    Where scores `fire` (SFSA) these are the heads whose score reaches their threshold, else (SSA) all. It does not step
    through positions and holds no scores.

    Parameters
    ----------
    cfg : AcceleratorConfig
        Shape of the machine.

    Members
    -------
    fire : In(1)
        Only scores that reach the threshold count. Static while a walk is under way, as are the next two.
    thresholds : In(segments * 4)
        Per head slot, slot 0 lowest.
    live : In(segments)
        Slots that are heads; for others nothing counts.
    i_valid : In(1)
        Take a position.
    i_position : In(range(max_context))
        Which one; it lies in the row that `i_raw` shows.
    i_raw : In(ArrayLayout(ArrayLayout(signed(score_width), score_banks), segments))
        Raw score per slot and bank (position mod score_banks).
    o_valid : Out(1)
        `o_passes` are present.
    o_position : Out(range(max_context))
        Their position.
    o_passes : Out(ArrayLayout(pass_layout(cfg), segments))
        Per slot.

    Latency
    -------
    One cycle; one position per cycle.

    Reference
    ---------
    The sums in `arch.numerics.sfsa_gather` and `ssa_gather` are over what is `found`.
    """

    #: Cycles from a position to its passes.
    latency = 1

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        position = exact_log2(cfg.max_context)
        super().__init__({
            "fire": In(1),
            "thresholds": In(cfg.segments * 4),
            "live": In(cfg.segments),
            "i_valid": In(1),
            "i_position": In(position),
            "i_raw": In(data.ArrayLayout(data.ArrayLayout(signed(cfg.score_width), cfg.score_banks), cfg.segments)),
            "o_valid": Out(1),
            "o_position": Out(position),
            "o_passes": Out(data.ArrayLayout(pass_layout(cfg), cfg.segments)),
        })

    def elaborate(self, platform):
        m = Module()
        bank = self.i_position[:exact_log2(self.cfg.score_banks)]
        m.d.sync += [self.o_valid.eq(self.i_valid), self.o_position.eq(self.i_position)]
        for slot in range(self.cfg.segments):
            raw = Signal(signed(self.cfg.score_width), name=f"raw_{slot}")
            reaches = Signal(name=f"reaches_{slot}")
            m.d.comb += [
                raw.eq(select_field(Value.cast(self.i_raw[slot]), bank, len(raw))),
                reaches.eq(raw >= self.thresholds[4 * slot:4 * slot + 4]),
            ]
            m.d.sync += [
                self.o_passes[slot].score.eq(raw),
                self.o_passes[slot].found.eq(self.live[slot] & (reaches | ~self.fire)),
            ]
        return m
