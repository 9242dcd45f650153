"""Checksum over the groups that a command writes."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from spikeloom.arch.config import AcceleratorConfig

from ..lib.arith import rotate_left


class Checksum(wiring.Component):
    """Folds a group of signed words into a 32-bit running sum.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    first : In(1)
        With `en`: start over.
    en, values : In(1), In(lanes * acc_width)
        A group of signed words.
    value : Out(32)
        The sum of all groups since the first.

    Latency
    -------
    One cycle.

    Reference
    ---------
    `arch.numerics.checksum`.
    """

    latency = 1

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        super().__init__({"first": In(1), "en": In(1), "values": In(cfg.lanes * cfg.acc_width), "value": Out(32)})

    def elaborate(self, platform):
        m = Module()
        folded = 0
        for lane in range(self.cfg.lanes):
            word = Signal(32, name=f"word{lane}")
            m.d.comb += word.eq(self.values.word_select(lane, self.cfg.acc_width).as_signed())
            folded = folded ^ rotate_left(word, 2 * lane % 32)
        with m.If(self.en):
            m.d.sync += self.value.eq(Mux(self.first, 0, rotate_left(self.value, 5)) ^ folded)
        return m
