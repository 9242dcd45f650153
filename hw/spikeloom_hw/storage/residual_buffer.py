"""The residual stream of the current token."""

from amaranth.hdl import Module, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from spikeloom.arch.config import RESIDUAL_WIDTH, AcceleratorConfig


class ResidualBuffer(wiring.Component):
    """`max_width` signed words, a group of `lanes` at a time; LUT RAM.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    r_group : In
        Group read by the neuron unit.
    r_values : Out(lanes * 16)
        Its words, the same cycle.
    d_group, d_values : In, Out
        The same for dumps.
    w_en, w_group, w_values : In
        Write port.

    Latency
    -------
    Reads are asynchronous; a write is seen from the next cycle on.
    """

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        groups = max(1, ceil_log2(cfg.max_width // cfg.lanes))
        word = cfg.lanes * RESIDUAL_WIDTH
        super().__init__({
            "r_group": In(groups), "r_values": Out(word), "d_group": In(groups), "d_values": Out(word),
            "w_en": In(1), "w_group": In(groups), "w_values": In(word),
        })

    def elaborate(self, platform):
        m = Module()
        for lane in range(self.cfg.lanes):
            m.submodules[f"lane{lane}"] = words = memory.Memory(
                shape=unsigned(RESIDUAL_WIDTH), depth=self.cfg.max_width // self.cfg.lanes, init=[])
            write = words.write_port()
            m.d.comb += [write.addr.eq(self.w_group), write.en.eq(self.w_en),
                         write.data.eq(self.w_values.word_select(lane, RESIDUAL_WIDTH))]
            for port in ("r", "d"):
                read = words.read_port(domain="comb")
                m.d.comb += [read.addr.eq(getattr(self, f"{port}_group")),
                             getattr(self, f"{port}_values").word_select(lane, RESIDUAL_WIDTH).eq(read.data)]
        return m
