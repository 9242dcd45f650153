"""On-chip memory that the host fills through an index and a data register."""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2


class WindowMemory(wiring.Component):
    """`depth` words of `parts` x `part_width` bits; the host writes one part at a time, the core reads whole words.

    Used for the program, the prompt and the noise table. A write past the end is dropped.

    Parameters
    ----------
    depth, part_width, parts : int
        `parts` is a power of two.

    Members
    -------
    index, index_strobe : In
        Part index of the next write.
    data, data_strobe : In
        Write and advance.
    address : In
        Word to read.
    o_data : Out(parts * part_width)

    Latency
    -------
    One cycle from `address` to `o_data`.
    """

    latency = 1

    def __init__(self, *, depth: int, part_width: int, parts: int = 1):
        self.depth, self.part_width, self.parts = depth, part_width, parts
        super().__init__({
            "index": In(16), "index_strobe": In(1), "data": In(part_width), "data_strobe": In(1),
            "address": In(max(1, ceil_log2(depth))), "o_data": Out(parts * part_width),
        })

    def elaborate(self, platform):
        m = Module()
        # As wide as what the host may write, so that an index past the end stays past it.
        pointer = Signal(max(16, (self.depth * self.parts).bit_length()))
        split = exact_log2(self.parts)
        for part in range(self.parts):
            m.submodules[f"part{part}"] = words = memory.Memory(shape=unsigned(self.part_width), depth=self.depth, init=[])
            read, write = words.read_port(), words.write_port()
            m.d.comb += [
                read.addr.eq(self.address), read.en.eq(1), self.o_data.word_select(part, self.part_width).eq(read.data),
                write.addr.eq(pointer >> split), write.data.eq(self.data),
                write.en.eq(self.data_strobe & (pointer[:split] == part if split else 1) & (pointer < self.depth * self.parts)),
            ]
        with m.If(self.index_strobe):
            m.d.sync += pointer.eq(self.index)
        with m.Elif(self.data_strobe & (pointer < self.depth * self.parts)):
            m.d.sync += pointer.eq(pointer + 1)
        return m
