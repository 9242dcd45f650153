"""Residual streams: of a decoder one per time step, of an encoder one per time step and position."""

from amaranth.hdl import Cat, Module, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from spikeloom.arch.config import RESIDUAL_WIDTH, AcceleratorConfig, bits_for


class ResidualStore(wiring.Component):
    """`residual_slots` streams of `max_width` signed words, a group of `lanes` at a time; block RAM.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    slot : In(8)
        Stream read and written; a register outside.
    r_group, r_values : In(16), Out(lanes * 16)
        Group read, and its words.
    w_en, w_group, w_values : In
        Write port.

    Latency
    -------
    One cycle from `r_group` to `r_values`; a write is seen by reads of the next cycle on.
    """

    latency = 1

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        word = cfg.lanes * RESIDUAL_WIDTH
        super().__init__({
            "slot": In(8), "r_group": In(16), "r_values": Out(word), "w_en": In(1), "w_group": In(16), "w_values": In(word),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        group_bits, slot_bits = max(1, ceil_log2(cfg.max_width // cfg.lanes)), bits_for(cfg.residual_slots - 1)
        m.submodules.words = words = memory.Memory(
            shape=unsigned(cfg.lanes * RESIDUAL_WIDTH), depth=cfg.residual_slots << group_bits, init=[])
        read, write = words.read_port(), words.write_port()
        slot = self.slot[:slot_bits]
        m.d.comb += [
            read.addr.eq(Cat(self.r_group[:group_bits], slot)), read.en.eq(1), self.r_values.eq(read.data),
            write.addr.eq(Cat(self.w_group[:group_bits], slot)), write.en.eq(self.w_en), write.data.eq(self.w_values),
        ]
        return m
