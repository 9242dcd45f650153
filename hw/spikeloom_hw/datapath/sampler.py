"""Noise for sampling: the hash that indexes the noise table, without multiplications."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Hash32(wiring.Component):
    """Hash of 32-bit words by additions, shifts and exclusive ors: a new word every cycle.

    Members
    -------
    i : In(32)
        Word.
    o : Out(32)
        Its hash.

    Latency
    -------
    Four cycles.

    Reference
    ---------
    `arch.numerics.hash32`.
    """

    #: Cycles from a word to its hash.
    latency = 4

    i: In(32)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        stages = [Signal(32, name=f"stage_{k}") for k in range(1, self.latency + 1)]
        first, second, third, fourth = stages
        mixed, added = Signal(32), Signal(32)
        m.d.comb += [
            mixed.eq(first ^ 0xC761C23C ^ (first >> 19)),
            added.eq(third + 0xFD7046C5 + (third << 3)),
            self.o.eq(fourth),
        ]
        m.d.sync += [
            first.eq(self.i + 0x7ED55D16 + (self.i << 12)),
            second.eq(mixed + 0x165667B1 + (mixed << 5)),
            third.eq((second + 0xD3A2646C) ^ (second << 9)),
            fourth.eq(added ^ 0xB55A4F09 ^ (added >> 16)),
        ]
        return m
