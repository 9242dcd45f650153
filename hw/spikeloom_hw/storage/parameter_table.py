"""On-chip table of channel parameters."""

from amaranth.hdl import Module, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from spikeloom.arch.config import AcceleratorConfig


def parameter_layout() -> data.StructLayout:
    """One channel's record: `arch.layout.pack_parameters`."""
    return data.StructLayout({"base": 32, "step": 24, "shift": 5, "pad": 3})


class ParameterTable(wiring.Component):
    """Groups of `lanes` records, read one group per cycle.

    Does not interpret the records.

    Parameters
    ----------
    cfg : AcceleratorConfig
        `parameter_words` groups of `lanes` records.

    Members
    -------
    address : In(16)
        Group to read.
    o_records : Out(lanes * 64)
        Records of the group, lane 0 lowest.
    l_en, l_address, l_data : In
        Loader's write port, one group per cycle.

    Latency
    -------
    One cycle from `address` to `o_records`.
    """

    latency = 1

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        super().__init__({
            "address": In(16), "o_records": Out(cfg.lanes * 64),
            "l_en": In(1), "l_address": In(20), "l_data": In(cfg.lanes * 64),
        })

    def elaborate(self, platform):
        m = Module()
        for lane in range(self.cfg.lanes):
            m.submodules[f"lane{lane}"] = table = memory.Memory(shape=unsigned(64), depth=self.cfg.parameter_words, init=[])
            read, write = table.read_port(), table.write_port()
            m.d.comb += [
                read.addr.eq(self.address), read.en.eq(1), self.o_records.word_select(lane, 64).eq(read.data),
                write.addr.eq(self.l_address), write.en.eq(self.l_en), write.data.eq(self.l_data.word_select(lane, 64)),
            ]
        return m
