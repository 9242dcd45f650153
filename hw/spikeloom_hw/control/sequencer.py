"""Runs the program over tokens: the token loop, blocks of a prompt, commands one after another, ends and errors."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from spikeloom.arch.commands import COMMAND_BITS, TRACED, Opcode
from spikeloom.arch.config import AcceleratorConfig
from spikeloom.arch.layout import RING_RECORD, TRACE_RECORD
from spikeloom.arch.registers import ErrorCode, Mode, Reason, State

from .command_check import fields_of
from .fetch import Fetch


class Sequencer(wiring.Component):
    """Dispatches commands to the units and loops them over tokens.

    GENERATE and SCORE run the token section once per token; ENCODE runs each of its sweeps (up to a SWEEP) once per
    position before the next one, from position 0, and forgets the context at its end. GENERATE reads a prompt in blocks
    where the program has sweeps for that: each runs for all tokens of a block before the next one, the last up to a HALT.
    A LOAD in a sweep runs for its first position alone. Touches no weights, spikes or sums. One command runs at a time,
    but for a LOAD with `l_ahead`, for which the next LOAD and the end of the section or sweep wait; each unit answers a start
    pulse with a done pulse.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    start, stop, clear_context : In(1)
        The host's pulses.
    run_mode, ignore_end, trace, boot_entry, token_entry, prefill_entry, prefill_block, vocabulary, context, n_prompt, n_new,
    end_token, watchdog, image_bytes : In
        Registers of the same names; static during a run.
    program_address, program_word : Out, In(256)
        Program memory, one cycle.
    prompt_address, prompt_token : Out, In(16)
        Prompt memory, one cycle.
    fault, fault_code, fault_address : In
        A unit or the bus reports an error.
    command, command_index : Out
        The command being run.
    next_command, next_valid : Out
        The command after it, once it is there, was found good and is not passed over. It still stands for a cycle after it was
        taken, but is not valid then.
    take : Out(1)
        In the next cycle it is the one being run.
    record_free : Out(1)
        The record of a command that ended now would be made at once.
    slot : Out(8)
        Slot of the residual store that the command works on; with `command`.
    token, position, target : Out(16)
        The token being processed, its position, and (scoring) the token that follows it.
    last_position : Out(16)
        Of the text: ENCODE: its last one; else `position`.
    go : Out(len(Opcode))
        Start pulse, one bit per opcode.
    unit_done : In(1)
        The unit of the running command is done; of one that the unit began by itself, from the cycle of `go` on or later.
    loading : In(1)
        A LOAD is not done.
    load_fault : In(1)
        A fault of this cycle, if it is one of reads, is that of the LOAD.
    first_logits : Out(1)
        Pulse before the first logits of a token.
    picked, picked_logit, best_id, best_logit, target_logit : In
        Result of PICK.
    o_token : Out(stream of token records), o_trace : Out(stream of trace records)
    checksum : In(32)
    flushed : In(1)
        Every record has reached memory.
    busy, finished, state, reason, error_code, error_command, error_position, error_address : Out
        For the status registers; `finished` is a pulse.
    token_done, command_done : Out(1)
        For the counters. ENCODE counts a token at its first SWEEP, a block at its last sweep.

    Latency
    -------
    One cycle from one command's done to the next one's start when the fetch is ahead, two where a command is passed over between
    them. A token takes nine cycles beside its commands (`arch.cycles`), and so does each pass of a sweep.
    """

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        logit = signed(cfg.acc_width)
        super().__init__({
            "start": In(1), "stop": In(1), "clear_context": In(1),
            "run_mode": In(2), "ignore_end": In(1), "trace": In(1), "boot_entry": In(16), "token_entry": In(16),
            "prefill_entry": In(16), "prefill_block": In(16),
            "vocabulary": In(16), "context": In(16), "n_prompt": In(16), "n_new": In(16), "end_token": In(16),
            "watchdog": In(32), "image_bytes": In(32),
            "program_address": Out(16), "program_word": In(COMMAND_BITS),
            "prompt_address": Out(16), "prompt_token": In(16),
            "fault": In(1), "fault_code": In(4), "fault_address": In(32),
            "command": Out(COMMAND_BITS), "command_index": Out(12), "slot": Out(8),
            "next_command": Out(COMMAND_BITS), "next_valid": Out(1), "take": Out(1), "record_free": Out(1),
            "token": Out(16), "position": Out(16), "target": Out(16), "last_position": Out(16),
            "go": Out(len(Opcode)), "unit_done": In(1), "first_logits": Out(1),
            "loading": In(1), "load_fault": In(1),
            "picked": In(16), "picked_logit": In(logit), "best_id": In(16), "best_logit": In(logit), "target_logit": In(logit),
            "o_token": Out(stream.Signature(8 * RING_RECORD.size)), "o_trace": Out(stream.Signature(8 * TRACE_RECORD.size)),
            "checksum": In(32), "flushed": In(1),
            "busy": Out(1), "finished": Out(1), "state": Out(3), "reason": Out(4), "error_code": Out(4),
            "error_command": Out(12), "error_position": Out(16), "error_address": Out(32),
            "token_done": Out(1), "command_done": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.fetch = fetch = Fetch(cfg=self.cfg)
        self._encoding = Signal()
        self._index, self._wanted, self._stop, self._failed = Signal(16), Signal(), Signal(), Signal()
        self._skip = Signal()
        #: A block of the prompt is being read; places of the sweep before this one; there is none.
        self._in_block, self._place, self._first = Signal(), Signal(16), Signal(init=1)
        following = fields_of(fetch.command)
        m.d.comb += [
            self._encoding.eq(self.run_mode == Mode.ENCODE),
            self._skip.eq((following.head & ~self._wanted) | ((following.opcode == Opcode.LOAD) & ~self._first)),
            self.program_address.eq(fetch.address), fetch.i_data.eq(self.program_word),
            fetch.context.eq(self.context), fetch.image_bytes.eq(self.image_bytes),
            fetch.sweeping.eq(self._encoding | self._in_block),
            fetch.slots.eq(Mux(self._encoding, self.context, Mux(self._in_block & (self.prefill_block != 0), self.prefill_block, 1))),
            self.take.eq(fetch.take), self.next_command.eq(fetch.command),
            self.next_valid.eq(fetch.valid & (fetch.code == ErrorCode.NONE) & ~self._skip),
        ]
        self._elapsed = Signal(32)
        self._own_fault, self._own_code, self._own_address = Signal(), Signal(4), Signal(32)
        #: Index of the command that a fault of this cycle belongs to.
        self._at_fault, self._position_at_fault = Signal(12), Signal(16)
        #: Of the last LOAD.
        self._load_index, self._load_position = Signal(12), Signal(16)
        m.d.comb += [self._at_fault.eq(self.command_index), self._position_at_fault.eq(self.position)]
        self._build_records(m)
        with m.If(self.busy):
            m.d.sync += self._elapsed.eq(self._elapsed + 1)
        with m.If(~self._failed):
            self._build_token_loop(m, fetch)
        self._build_faults(m)
        return m

    # -- records ------------------------------------------------------------------------------------------------

    def _build_records(self, m):
        """Hold one token record and one trace record until the recorder takes them."""
        self._token_push, self._trace_push, self._trace_wait = Signal(), Signal(), Signal()
        for out in (self.o_token, self.o_trace):
            with m.If(out.ready):
                m.d.sync += out.valid.eq(0)
        scoring = self.run_mode == Mode.SCORE
        token, logit, best = Signal(32), Signal(signed(32)), Signal(signed(32))
        m.d.comb += [token.eq(Mux(scoring, self.best_id, self.picked)),
                     logit.eq(Mux(scoring, self.target_logit, self.picked_logit)), best.eq(self.best_logit)]
        with m.If(self._token_push):
            m.d.sync += [self.o_token.valid.eq(1), self.o_token.payload.eq(Cat(token, self.position, Const(0, 16), logit, best))]
        # The checksum of a command is complete one cycle after its last result.
        index, position = Signal(12), Signal(16)
        #: A checksum waits for the record before it: the next command must not touch it.
        self._trace_stuck = Signal()
        m.d.comb += [
            self._trace_stuck.eq(self._trace_wait & self.o_trace.valid & ~self.o_trace.ready),
            self.record_free.eq(~self.trace | ~(self._trace_wait | self.o_trace.valid)),
        ]
        with m.If(self._trace_push):
            m.d.sync += [self._trace_wait.eq(1), index.eq(self.command_index), position.eq(self.position)]
        with m.If(self._trace_wait & (~self.o_trace.valid | self.o_trace.ready)):
            m.d.sync += [self._trace_wait.eq(0), self.o_trace.valid.eq(1),
                         self.o_trace.payload.eq(Cat(self.checksum, index, Const(0, 4), position))]

    # -- tokens and commands ------------------------------------------------------------------------------------

    def _build_token_loop(self, m, fetch):
        command = fields_of(fetch.command)
        scoring, booting, encoding = self.run_mode == Mode.SCORE, self.run_mode == Mode.BOOT, self._encoding
        last_of_prompt = self._index + 1 >= self.n_prompt
        opcode = Signal(4)
        m.d.comb += opcode.eq(self.command[:4])
        generated = Signal(16)
        entry, first_sweep = Signal(16), Signal()
        # Where a sweep begins, and whether it is at its last position: a block leaves the last token of a prompt to the token section.
        base_position, base_index, last_of_sweep, halted = Signal(16), Signal(16), Signal(), Signal()
        in_block, begins_block = self._in_block, Signal()
        m.d.comb += [
            last_of_sweep.eq(Mux(encoding, last_of_prompt, (self._place + 1 >= self.prefill_block)
                                 | (self._index + 2 >= self.n_prompt) | (self.position + 1 >= self.context))),
            begins_block.eq((self.run_mode == Mode.GENERATE) & (self.prefill_entry != 0) & (self._index + 3 <= self.n_prompt)),
            halted.eq(opcode == Opcode.HALT),
        ]
        m.d.sync += self.last_position.eq(Mux(encoding, self.n_prompt - 1, self.position))
        with m.If(self.stop):
            m.d.sync += self._stop.eq(1)
        with m.If(self.clear_context & ~self.busy):
            m.d.sync += self.position.eq(0)
        m.d.comb += self.prompt_address.eq(self._index)

        # A unit may be done with a command that it began by itself before it is told to start.
        done_before, unit_done = Signal(), Signal()
        m.d.comb += unit_done.eq(self.unit_done | done_before)
        plain = Signal()
        # What waits for a LOAD that goes on; a sweep waits at its end.
        waits, ahead = Signal(), Signal()
        m.d.comb += [
            waits.eq(self.loading & ((command.opcode == Opcode.LOAD) & ~self._skip | (command.opcode == Opcode.HALT) & ~in_block)),
            ahead.eq((opcode == Opcode.LOAD) & fields_of(self.command).l_ahead),
            plain.eq(self.next_valid & ~waits & (command.opcode != Opcode.HALT) & (command.opcode != Opcode.SWEEP)),
        ]

        def take():
            """Make the fetched command the one being run."""
            m.d.comb += fetch.take.eq(1)
            m.d.sync += [
                self.command.eq(fetch.command), self.command_index.eq(fetch.index), self._elapsed.eq(0),
                self.slot.eq(command.stream + self._place),
            ]

        def finish(reason):
            m.d.sync += [self.reason.eq(reason), self._elapsed.eq(0)]
            with m.If(encoding):
                m.d.sync += self.position.eq(0)
            m.next = "FLUSH"

        with m.FSM(name="sequencer") as fsm:
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += [self.reason.eq(Reason.NONE), self._index.eq(0), generated.eq(0), self._stop.eq(0),
                                 self._elapsed.eq(0), entry.eq(self.token_entry), first_sweep.eq(1), in_block.eq(0),
                                 self._place.eq(0), self._first.eq(1), base_position.eq(0), base_index.eq(0)]
                    m.d.comb += [fetch.redirect.eq(1), fetch.target.eq(self.boot_entry)]
                    m.next = "DISPATCH"
                    with m.If(~booting):
                        m.next = "NEXT"
                    with m.If(encoding):
                        m.d.sync += self.position.eq(0)
            with m.State("NEXT"):
                m.d.sync += self._elapsed.eq(0)
                m.next = "READ"
                with m.If(in_block):
                    pass  # to its end, whatever comes
                with m.Elif(self._stop):
                    finish(Reason.STOPPED)
                with m.Elif(scoring & (self._index >= self.n_prompt)):
                    finish(Reason.SCORED)
                with m.Elif(encoding & (self.n_prompt == 0)):
                    finish(Reason.ENCODED)
                with m.Elif(~scoring & (self._index >= self.n_prompt) & (generated >= self.n_new)):
                    finish(Reason.COUNT)
                with m.Elif(Mux(encoding, self.n_prompt > self.context, self.position >= self.context)):
                    finish(Reason.CONTEXT_FULL)
                with m.Elif(~encoding):
                    m.d.sync += [in_block.eq(begins_block), entry.eq(Mux(begins_block, self.prefill_entry, self.token_entry)),
                                 base_position.eq(self.position), base_index.eq(self._index)]
            with m.State("READ"):
                m.d.comb += self.prompt_address.eq(self._index + 1)
                m.d.sync += self.token.eq(Mux(self._index < self.n_prompt, self.prompt_token, self.picked))
                m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += [self.target.eq(self.prompt_token),
                             self._wanted.eq(Mux(scoring, ~last_of_prompt, encoding | last_of_prompt & (self.n_new != 0)))]
                m.d.comb += [fetch.redirect.eq(1), fetch.target.eq(entry), self.first_logits.eq(1)]
                m.next = "DISPATCH"
                with m.If((self.token >= self.vocabulary) | (self.vocabulary > self.cfg.max_vocabulary)
                          | (self.context > self.cfg.max_context)):
                    m.d.comb += [self._own_fault.eq(1), self._own_code.eq(ErrorCode.BAD_TOKEN), self._own_address.eq(self.token)]
            with m.State("DISPATCH"):
                with m.If(fetch.valid & (fetch.code != 0)):
                    m.d.sync += self.command_index.eq(fetch.index)
                    m.d.comb += [self._own_fault.eq(1), self._own_code.eq(fetch.code), self._own_address.eq(fetch.index),
                                 self._at_fault.eq(fetch.index)]
                with m.Elif(fetch.valid & ~waits):
                    take()
                    m.next = "START"
                    with m.If(command.opcode == Opcode.HALT):
                        m.next = "TOKEN_END"
                        with m.If(booting):
                            finish(Reason.BOOTED)
                        with m.Elif(encoding):
                            finish(Reason.ENCODED)
                        with m.Elif(in_block):
                            m.next = "SWEEP"
                    with m.Elif(command.opcode == Opcode.SWEEP):
                        m.next = "SWEEP"
                    with m.Elif(self._skip):
                        m.next = "DISPATCH"
            with m.State("START"):
                with m.If(self.unit_done):
                    m.d.sync += done_before.eq(1)
                with m.If(~self._trace_stuck):
                    m.d.comb += self.go.bit_select(opcode, 1).eq(1)
                    m.next = "RUN"
                    with m.If(opcode == Opcode.LOAD):
                        m.d.sync += [self._load_index.eq(self.command_index), self._load_position.eq(self.position)]
            with m.State("RUN"):
                with m.If(unit_done | ahead):
                    m.d.sync += done_before.eq(0)
                    m.d.comb += self.command_done.eq(1)
                    m.next = "DISPATCH"
                    traced = Cat(opcode == code for code in TRACED).any()
                    m.d.comb += self._trace_push.eq(self.trace & traced)
                    with m.If(opcode == Opcode.PICK):
                        m.next = "PICKED"
                    with m.Elif(plain):
                        take()
                        m.next = "START"
            with m.State("PICKED"):
                with m.If(~self.o_token.valid):
                    m.d.comb += self._token_push.eq(1)
                    m.next = "DISPATCH"
            with m.State("TOKEN_END"):
                m.d.comb += self.token_done.eq(1)
                m.d.sync += [self.position.eq(self.position + 1), self._index.eq(self._index + 1)]
                m.next = "NEXT"
                with m.If(~scoring & self._wanted):
                    m.d.sync += generated.eq(generated + 1)
                    with m.If((self.picked == self.end_token) & ~self.ignore_end):
                        finish(Reason.END_TOKEN)
            with m.State("SWEEP"):
                with m.If(~(last_of_sweep & self.loading)):
                    m.d.comb += self.token_done.eq(Mux(in_block, halted, first_sweep))
                    m.d.sync += [self.position.eq(self.position + 1), self._index.eq(self._index + 1),
                                 self._place.eq(self._place + 1), self._first.eq(0)]
                    m.next = "NEXT"
                    with m.If(last_of_sweep):
                        m.d.sync += [self._place.eq(0), self._first.eq(1), entry.eq(self.command_index + 1), first_sweep.eq(0)]
                        with m.If(in_block & halted):
                            m.d.sync += in_block.eq(0)
                        with m.Else():
                            m.d.sync += [self.position.eq(base_position), self._index.eq(base_index)]
            with m.State("FLUSH"):
                # A stop in the middle of a sweep may find a LOAD at work.
                with m.If(self.flushed & ~self.o_token.valid & ~self.o_trace.valid & ~self._trace_wait & ~self.loading):
                    m.d.comb += self.finished.eq(1)
                    m.next = "IDLE"
            idle = fsm.ongoing("IDLE")
        m.d.comb += [
            self.busy.eq(~idle),
            self.state.eq(Mux(idle, State.IDLE, Mux(self._stop, State.STOPPING, State.RUN))),
        ]

    # -- faults -------------------------------------------------------------------------------------------------

    def _build_faults(self, m):
        """The first fault freezes the sequencer until a reset; the watchdog is one of them."""
        code, address = Signal(4), Signal(32)
        expired = self.busy & (self._elapsed >= self.watchdog)
        with m.If(self._own_fault):
            m.d.comb += [code.eq(self._own_code), address.eq(self._own_address)]
        with m.Elif(self.fault & (self.busy | self.start | (self.fault_code == ErrorCode.BUS_DEAD))):
            m.d.comb += [code.eq(self.fault_code), address.eq(self.fault_address)]
            with m.If(self.load_fault & ((self.fault_code == ErrorCode.BUS_READ) | (self.fault_code == ErrorCode.BUS_DEAD))):
                m.d.comb += [self._at_fault.eq(self._load_index), self._position_at_fault.eq(self._load_position)]
        with m.Elif(expired):
            m.d.comb += code.eq(ErrorCode.WATCHDOG)
        with m.If((code != 0) & ~self._failed):
            # Kept: with its last result a command makes way for the next one.
            m.d.sync += [self._failed.eq(1), self.error_code.eq(code), self.error_address.eq(address),
                         self.error_command.eq(self._at_fault), self.error_position.eq(self._position_at_fault),
                         self.reason.eq(Reason.FAILED)]
            m.d.comb += self.finished.eq(1)
        with m.If(self._failed):
            m.d.comb += [self.state.eq(State.ERROR), self.finished.eq(self.start)]
