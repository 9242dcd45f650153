"""Reads the program ahead of the sequencer."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from spikeloom.arch.commands import COMMAND_BITS
from spikeloom.arch.config import AcceleratorConfig
from spikeloom.arch.registers import ErrorCode

from .command_check import CommandCheck


class Fetch(wiring.Component):
    """Keeps the next command and its check ready while the present one runs.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    redirect, target : In(1), In(16)
        Continue at `target`; what was read ahead is dropped.
    take : In(1)
        The command at the output was consumed; only while `valid`.
    context, image_bytes, sweeping, slots : In
        To `CommandCheck`.
    address, i_data : Out, In(256)
        Program memory, one cycle.
    valid, command, code, index : Out
        The next command, its `arch.registers.ErrorCode` and its place in the program.

    Latency
    -------
    `latency` cycles from `redirect` or `take` to `valid`.
    """

    latency = 4

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        super().__init__({
            "redirect": In(1), "target": In(16), "take": In(1), "context": In(16), "image_bytes": In(32),
            "sweeping": In(1), "slots": In(16),
            "address": Out(16), "i_data": In(COMMAND_BITS),
            "valid": Out(1), "command": Out(COMMAND_BITS), "code": Out(4), "index": Out(12),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.check = check = CommandCheck(cfg=self.cfg)
        age = Signal(range(self.latency + 1))
        past_end = Signal()
        # Much follows from a command in the cycle that it is seen in, and a block RAM answers late.
        held = Signal(COMMAND_BITS)
        m.d.sync += [held.eq(self.i_data), past_end.eq(self.address >= self.cfg.program_words)]
        m.d.comb += [
            check.command.eq(held), check.context.eq(self.context), check.image_bytes.eq(self.image_bytes),
            check.sweeping.eq(self.sweeping), check.slots.eq(self.slots),
            self.valid.eq(age == self.latency - 1), self.command.eq(held), self.index.eq(self.address),
            # Past the end of the memory there is nothing that could be a program.
            self.code.eq(Mux(past_end, ErrorCode.BAD_PROGRAM, check.code)),
        ]
        with m.If(self.redirect):
            m.d.sync += [self.address.eq(self.target), age.eq(0)]
        with m.Elif(self.take):
            m.d.sync += [self.address.eq(self.address + 1), age.eq(0)]
        with m.Elif(~self.valid):
            m.d.sync += age.eq(age + 1)
        return m
