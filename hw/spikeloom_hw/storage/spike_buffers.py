"""Spikes of a few tensors: a level per neuron."""

from amaranth.hdl import Cat, Module, Mux, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from spikeloom.arch.commands import SPIKE_BUFFERS
from spikeloom.arch.config import AcceleratorConfig

from ..lib.arith import select_field


class SpikeBuffers(wiring.Component):
    """`SPIKE_BUFFERS` of `max_neurons` levels: written a group of `lanes` at a time, read a scan word of `cols` at a time.

    They share one LUT RAM: a buffer alone would fill a quarter of it. Nothing is ever cleared: what lies beyond the neurons
    of the current tensor is stale, and the scheduler masks it. Levels are `level_bits` wide, coded as in `levels`.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    w_en : In(1)
        Write strobe.
    w_buffer, w_group : In
        Buffer and group written.
    w_levels : In(lanes * level_bits)
        Its levels, lane 0 lowest.
    r_buffer, r_word : In
        Buffer and scan word read.
    r_levels : Out(cols * level_bits)
        Its levels, column 0 lowest.
    dump : In(1)
        Read what `d_group` says in place of `r_word`.
    d_group : In
        Group read for a dump.
    d_levels : Out(lanes * level_bits)
        Its levels.

    Latency
    -------
    Reads are asynchronous; a write is seen from the next cycle on.

    Reference
    ---------
    ``levels[buffer, word * cols : (word + 1) * cols]``.
    """

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        self.words = cfg.max_neurons // cfg.cols
        self.word_bits = max(1, ceil_log2(self.words))
        group, buffer = self.word_bits + exact_log2(cfg.groups_per_tile), ceil_log2(SPIKE_BUFFERS)
        super().__init__({
            "w_en": In(1), "w_buffer": In(buffer), "w_group": In(group), "w_levels": In(cfg.lanes * cfg.level_bits),
            "r_buffer": In(buffer), "r_word": In(self.word_bits), "r_levels": Out(cfg.cols * cfg.level_bits),
            "dump": In(1), "d_group": In(group), "d_levels": Out(cfg.lanes * cfg.level_bits),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        width, place_bits = cfg.lanes * cfg.level_bits, exact_log2(cfg.groups_per_tile)
        word = Mux(self.dump, self.d_group[place_bits:], self.r_word)
        for place in range(cfg.groups_per_tile):
            m.submodules[f"group{place}"] = levels = memory.Memory(
                shape=unsigned(width), depth=SPIKE_BUFFERS << self.word_bits, init=[])
            write, read = levels.write_port(), levels.read_port(domain="comb")
            m.d.comb += [
                write.addr.eq(Cat(self.w_group[place_bits:], self.w_buffer)),
                write.en.eq(self.w_en & (self.w_group[:place_bits] == place)),
                write.data.eq(self.w_levels),
                read.addr.eq(Cat(word, self.r_buffer)),
                self.r_levels[place * width:(place + 1) * width].eq(read.data),
            ]
        m.d.comb += self.d_levels.eq(select_field(self.r_levels, self.d_group[:place_bits], width))
        return m
