"""Membranes of neurons between time steps."""

from amaranth.hdl import Module, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from spikeloom.arch.config import MEMBRANE_WIDTH, AcceleratorConfig


class MembraneMemory(wiring.Component):
    """`membrane_words` groups of `lanes` membranes, addressed like the parameter table; block RAM.

    Nothing is ever cleared: the first time step does not read.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    r_address, r_values : In(16), Out(lanes * 32)
        Group read, and its membranes.
    w_en, w_address, w_values : In
        Write port.

    Latency
    -------
    One cycle from `r_address` to `r_values`; a write is seen by reads of the next cycle on.
    """

    latency = 1

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        word = cfg.lanes * MEMBRANE_WIDTH
        super().__init__({
            "r_address": In(16), "r_values": Out(word), "w_en": In(1), "w_address": In(16), "w_values": In(word),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        m.submodules.words = words = memory.Memory(shape=unsigned(cfg.lanes * MEMBRANE_WIDTH), depth=cfg.membrane_words, init=[])
        read, write = words.read_port(), words.write_port()
        bits = max(1, ceil_log2(cfg.membrane_words))
        m.d.comb += [
            read.addr.eq(self.r_address[:bits]), read.en.eq(1), self.r_values.eq(read.data),
            write.addr.eq(self.w_address[:bits]), write.en.eq(self.w_en), write.data.eq(self.w_values),
        ]
        return m
