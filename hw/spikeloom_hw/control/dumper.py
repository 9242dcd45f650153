"""Reads a buffer group by group and hands it to the recorder: the DUMP command."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from spikeloom.arch.commands import Buffer
from spikeloom.arch.config import RESIDUAL_WIDTH, AcceleratorConfig

from ..levels import is_minus

#: Cycles from a group number to its values that every buffer keeps to.
READ_CYCLES = 3
#: Dumped buffer of each spike buffer.
SPIKES = (Buffer.SPIKES_0, Buffer.SPIKES_1, Buffer.SPIKES_2)


class Dumper(wiring.Component):
    """Sends `groups` groups of a buffer, each channel as a signed 32-bit word.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    start, buffer, groups : In
        Begin; `arch.commands.Buffer`; number of groups (at least one).
    group : Out(16)
        Group wanted; all buffers answer within `READ_CYCLES`.
    spike_buffer : Out(2)
        Which spike buffer, if one is dumped.
    residual, spikes, logits, gather : In
        Their answers, lanes channels. Levels as `levels` codes them.
    o : Out(stream of lanes * 32 bits)
    done : Out(1)

    Latency
    -------
    `READ_CYCLES` + 2 cycles per group.

    Reference
    ---------
    The buffers themselves.
    """

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        super().__init__({
            "start": In(1), "buffer": In(4), "groups": In(14), "group": Out(16),
            "spike_buffer": Out(2), "residual": In(cfg.lanes * RESIDUAL_WIDTH), "spikes": In(cfg.lanes * cfg.level_bits),
            "logits": In(cfg.lanes * cfg.acc_width), "gather": In(cfg.lanes * cfg.gather_width),
            "o": Out(stream.Signature(cfg.lanes * 32)), "done": Out(1),
        })

    def _widened(self, m):
        """All buffers' answers as lanes 32-bit words."""
        words = Signal(self.cfg.lanes * 32)
        with m.Switch(self.buffer):
            for buffer, values in ((Buffer.RESIDUAL, self.residual), (Buffer.LOGITS, self.logits), (Buffer.GATHER, self.gather)):
                width = len(values) // self.cfg.lanes
                with m.Case(buffer):
                    for lane in range(self.cfg.lanes):
                        m.d.comb += words.word_select(lane, 32).eq(values.word_select(lane, width).as_signed())
            for number, buffer in enumerate(SPIKES):
                with m.Case(buffer):
                    m.d.comb += self.spike_buffer.eq(number)
                    for lane in range(self.cfg.lanes):
                        level = self.spikes.word_select(lane, self.cfg.level_bits)
                        m.d.comb += words.word_select(lane, 32).eq(Cat(level, is_minus(level)).as_signed())
        return words

    def elaborate(self, platform):
        m = Module()
        words = self._widened(m)
        wait = Signal(range(READ_CYCLES + 1))
        m.d.sync += self.done.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += [self.group.eq(0), wait.eq(READ_CYCLES)]
                    m.next = "READ"
            with m.State("READ"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.sync += [self.o.payload.eq(words), self.o.valid.eq(1)]
                    m.next = "SEND"
            with m.State("SEND"):
                with m.If(self.o.ready):
                    m.d.sync += [self.o.valid.eq(0), self.group.eq(self.group + 1), wait.eq(READ_CYCLES)]
                    with m.If(self.group + 1 >= self.groups):
                        m.d.sync += self.done.eq(1)
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "READ"
        return m
