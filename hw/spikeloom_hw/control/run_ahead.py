"""Lets the rows of the next LINEAR begin while the neurons of the present one still fire."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.commands import COMMAND_BITS, Opcode, Sink
from spikeloom.arch.config import AcceleratorConfig

from .command_check import fields_of


class RunAhead(wiring.Component):
    """Chooses the command whose rows are scheduled: the one being run, or the next one where that is known to be safe.

    A LINEAR with resident rows may begin when the LINEAR before it, which writes the spikes that it reads, has handed its last
    event to the engine, and its first scan word is complete. It goes on with the words as they come; its sums wait in the other
    bank until its own pass of the neuron unit begins. An error of its rows waits until the command is the one being run.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    command, next_command : In(256), next_valid : In(1), take : In(1)
        From the sequencer.
    go : In(1)
        The rows of `command` (EMBED, LINEAR) are to be scheduled.
    front_busy : In(1)
        Events are on their way to the engine.
    written : In(1)
        A group of spikes of `command` is being written.
    error_valid, error_address : In
        From the row source.
    front : Out(256)
        The command whose rows are, or are to be, scheduled.
    start : Out(1)
        To the row scheduler.
    ready_words : Out
        To the row scheduler.
    fault, fault_address : Out
        An error of the rows of `command`.

    Latency
    -------
    Two cycles from the first scan word's last write to `start`, one from an error to `fault`.

    Reference
    ---------
    `arch.cycles`: cycles only, no result depends on it.
    """

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        super().__init__({
            "command": In(COMMAND_BITS), "next_command": In(COMMAND_BITS), "next_valid": In(1), "take": In(1), "go": In(1),
            "front_busy": In(1), "written": In(1), "error_valid": In(1), "error_address": In(40),
            "front": Out(COMMAND_BITS), "start": Out(1), "ready_words": Out(17 - exact_log2(cfg.cols)),
            "fault": Out(1), "fault_address": Out(40),
        })

    def elaborate(self, platform):
        m = Module()
        c, coming = fields_of(self.command), fields_of(self.next_command)
        #: The rows of `command` were started; those of `next_command` are to be started now; they were.
        begun, early, ahead = Signal(), Signal(), Signal()
        #: They were before the command itself: its `go` starts nothing.
        started = Signal()
        groups, place_bits = Signal(16), exact_log2(self.cfg.groups_per_tile)
        follows, chosen, begin = Signal(), Signal(), Signal()
        m.d.comb += [
            follows.eq((c.opcode == Opcode.LINEAR) & (c.sink == Sink.SPIKES) & ~c.streamed & self.next_valid
                       & (coming.opcode == Opcode.LINEAR) & ~coming.streamed & (coming.src == c.dst)),
            chosen.eq(early | ahead),
            begin.eq(follows & begun & ~chosen & ~self.front_busy & (groups[place_bits:] != 0) & ~self.take),
            self.start.eq(early | (self.go & ~started)),
            self.ready_words.eq(Mux(chosen, groups >> place_bits, (1 << len(self.ready_words)) - 1)),
        ]
        m.d.sync += early.eq(begin)
        # Of both the next command is the one: no choice lies on the way from here to the row memory.
        with m.If(begin | self.take):
            m.d.sync += self.front.eq(self.next_command)
        with m.If(self.go):
            m.d.sync += [begun.eq(1), started.eq(0)]
        with m.If(self.take):
            m.d.sync += [groups.eq(coming.base_group), begun.eq(chosen), started.eq(chosen), ahead.eq(0)]
        with m.Else():
            m.d.sync += groups.eq(groups + self.written)
            with m.If(early):
                m.d.sync += ahead.eq(1)
        self._build_fault(m, chosen)
        return m

    def _build_fault(self, m, chosen):
        """Hold the first error of the next command's rows."""
        held, address = Signal(), Signal(40)
        with m.If(chosen & self.error_valid & ~held):
            m.d.sync += [held.eq(1), address.eq(self.error_address)]
        # Registers: a fault stops everything, and rows that fail are long before the end of their command.
        m.d.sync += [
            self.fault.eq(~chosen & (held | self.error_valid)),
            self.fault_address.eq(Mux(held, address, self.error_address)),
        ]
