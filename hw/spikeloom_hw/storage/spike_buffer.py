"""Spikes of one tensor: a level per neuron."""

from amaranth.hdl import Cat, Module, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from spikeloom.arch.config import AcceleratorConfig

from ..lib.arith import select_field


class SpikeBuffer(wiring.Component):
    """`max_neurons` levels in LUT RAM: written a group of `lanes` at a time, read a scan word of `cols` at a time.

    Nothing is ever cleared: what lies beyond the neurons of the current tensor is stale, and the scheduler masks it.

    Parameters
    ----------
    cfg : AcceleratorConfig
        `max_neurons` levels of `level_bits`; `lanes` per group, `cols` per scan word.

    Members
    -------
    w_en : In(1)
        Write strobe.
    w_group : In
        Group written.
    w_levels : In(lanes * level_bits)
        Its levels, lane 0 lowest.
    r_word : In
        Scan word read by the scheduler.
    r_levels : Out(cols * level_bits)
        Its levels, column 0 lowest.
    d_group : In
        Group read for a dump.
    d_levels : Out(lanes * level_bits)
        Its levels.

    Latency
    -------
    Reads are asynchronous; a write is seen from the next cycle on.

    Reference
    ---------
    ``levels[word * cols : (word + 1) * cols]``.
    """

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        group = ceil_log2(cfg.max_neurons // cfg.lanes)
        self.words = cfg.max_neurons // cfg.cols
        super().__init__({
            "w_en": In(1), "w_group": In(group), "w_levels": In(cfg.lanes * cfg.level_bits),
            "r_word": In(max(1, ceil_log2(self.words))), "r_levels": Out(cfg.cols * cfg.level_bits),
            "d_group": In(group), "d_levels": Out(cfg.lanes * cfg.level_bits),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        width = cfg.lanes * cfg.level_bits
        place_bits = exact_log2(cfg.groups_per_tile)
        dumped = []
        for place in range(cfg.groups_per_tile):
            m.submodules[f"group{place}"] = levels = memory.Memory(shape=unsigned(width), depth=self.words, init=[])
            write, scan, dump = levels.write_port(), levels.read_port(domain="comb"), levels.read_port(domain="comb")
            m.d.comb += [
                write.addr.eq(self.w_group[place_bits:]),
                write.en.eq(self.w_en & (self.w_group[:place_bits] == place)),
                write.data.eq(self.w_levels),
                scan.addr.eq(self.r_word),
                self.r_levels[place * width:(place + 1) * width].eq(scan.data),
                dump.addr.eq(self.d_group[place_bits:]),
            ]
            dumped.append(dump.data)
        m.d.comb += self.d_levels.eq(select_field(Cat(dumped), self.d_group[:place_bits], width))
        return m
