"""The emulated device's sequencer: the program over tokens or sweeps, ends, errors, and what it all counts."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from ..arch.commands import COMMAND_WORDS, Command, Opcode, decode
from ..arch.config import NOISE_ENTRIES, NOISE_WIDTH, AcceleratorConfig, FitError, ceil_div
from ..arch.cycles import (
    SKIPPED,
    SWEEP_OVERHEAD,
    TOKEN_OVERHEAD,
    Background,
    Border,
    Sampling,
    adding_cycles,
    command_cycles,
    run_end_cycles,
)
from ..arch.layout import STRIPE_BYTES, unstripe
from ..arch.numerics import checksum, pick
from ..arch.registers import ErrorCode, Mode, Reason, State
from ..arch.sweeps import Prefill, prompt_blocks
from .command_check import check_command
from .emulated_records import HostMemory, Recorder
from .emulated_registers import RegisterFile
from .interpreter import Fault, Interpreter, Place


class Sequencer:
    """Runs programs, a token (or a position of a sweep) at each `advance`.

    Parameters
    ----------
    cfg : AcceleratorConfig
    registers : RegisterFile
        What the host wrote.
    memory : HostMemory
    """

    def __init__(self, cfg: AcceleratorConfig, registers: RegisterFile, memory: HostMemory):
        self.cfg, self.registers, self._memory = cfg, registers, memory
        self.counters = Counter()
        self.records = Recorder(registers, memory, cfg.beat_bytes, self.counters)
        self.program = np.zeros(cfg.program_words * COMMAND_WORDS, np.uint32)
        self.prompt = np.zeros(cfg.max_context + 1, np.int64)
        self.noise = np.zeros(NOISE_ENTRIES, np.int64)
        self.machine = Interpreter(cfg, self._read_image, self.counters)
        #: By index, and whether it is part of a block's sweeps: that allows other commands.
        self._commands: dict[tuple[int, bool], Command] = {}
        self.reset()

    def reset(self) -> None:
        """What a soft reset clears: run, error, context and records; not memories and counters."""
        self._run: Iterator[None] | None = None
        self.state, self.reason, self.done = State.IDLE, Reason.NONE, False
        self.error, self.error_position, self.error_address = ErrorCode.NONE, 0, 0
        self.index, self.position, self._stop, self._recorded = 0, 0, False, False
        self._picked, self._target = 0, None
        #: A LOAD that goes on behind other commands, its index and place; what it writes is there when they have waited for it.
        self._background, self._loading = Background(), None
        self.records.clear()

    @property
    def busy(self) -> bool:
        """A run goes on."""
        return self._run is not None

    @property
    def opcode(self) -> int:
        """Of the command that runs, or ran last."""
        return int(self.program[self.index * COMMAND_WORDS]) & 15 if self.index < self.cfg.program_words else 0

    def write_window(self, window: str, index: int, value: int) -> None:
        """A word of the program, prompt or noise memory; past its end nothing happens."""
        memory = {"prompt": self.prompt, "program": self.program, "noise": self.noise}[window]
        if index < len(memory):
            memory[index] = value - ((value >> (NOISE_WIDTH - 1)) << NOISE_WIDTH) if window == "noise" else value

    def clear_context(self) -> None:
        """Position 0, unless a run goes on."""
        if not self.busy:
            self.position = 0

    def stop(self) -> None:
        """End the run after its current token or position."""
        self._stop = True
        if self.busy:
            self.state = State.STOPPING

    def start(self) -> None:
        """Begin the run that the registers ask for; after an error there is none."""
        if self.busy:
            return
        if self.state == State.ERROR:
            self.done = True
            return
        get = self.registers.get
        self.done, self._stop, self.reason, self.state = False, False, Reason.NONE, State.RUN
        self.records.clear()
        self._recorded = False
        self.machine.forget()  # the host may have written to the image
        self._commands.clear()
        self._mode = Mode(get("mode", "run"))
        entry, block = get("prefill", "entry"), get("prefill", "block")
        self._prefill, self._in_block = Prefill(entry, block) if entry else None, False
        self.machine.dense = bool(get("mode", "dense"))
        self.machine.image_bytes = get("image_bytes")
        self._run = {Mode.BOOT: self._boot, Mode.ENCODE: self._encode}.get(self._mode, self._tokens)()

    def advance(self) -> None:
        """Process one token or position of the run, if there is one."""
        if self._run is None:
            return
        try:
            next(self._run)
        except StopIteration as end:
            if end.value != Reason.BOOTED:
                self.counters["cycles"] += run_end_cycles(self.cfg, scoring=not self._recorded)
            self._finish(end.value, State.IDLE)
        except Fault as fault:
            self.error, self.error_position, self.error_address = fault.code, self.position, fault.address
            self._finish(Reason.FAILED, State.ERROR)

    def _finish(self, reason, state):
        self._run, self.reason, self.state, self.done = None, reason, state, True

    # -- runs -------------------------------------------------------------------------------------------------

    def _boot(self):
        self._section(self.registers.get("entries", "boot"), Place(), wanted=True)
        self._settle()
        return Reason.BOOTED
        yield  # a generator, like the runs over tokens

    def _tokens(self):
        """The token loop; yields after each token, and each position of a block's sweeps; returns the Reason."""
        get, scoring = self.registers.get, self._mode == Mode.SCORE
        n_prompt, n_new, context = get("run", "n_prompt"), get("run", "n_new"), get("limits", "context")
        index, made, picked = 0, 0, self._picked
        while True:
            if self._stop:
                return Reason.STOPPED
            if scoring and index >= n_prompt:
                return Reason.SCORED
            if not scoring and index >= n_prompt and made >= n_new:
                return Reason.COUNT
            if self.position >= context:
                return Reason.CONTEXT_FULL
            blocks = [] if scoring else prompt_blocks(n_prompt - index, self._prefill, context - self.position)
            if blocks:
                yield from self._block(index, blocks[0])
                index += blocks[0]
                continue
            token = self._checked(int(self.prompt[index]) if index < n_prompt else picked)
            last = index + 1 >= n_prompt
            wanted = not last if scoring else last and n_new > 0
            self._target = int(self.prompt[index + 1]) if scoring and wanted else None
            self._section(get("entries", "token"), Place(token, self.position, self.position), wanted)
            self._settle()
            picked = self._picked
            made += wanted
            self.counters["tokens"] += 1
            self.counters["cycles"] += TOKEN_OVERHEAD
            self.position += 1
            index += 1
            if wanted and not scoring and picked == get("end_token", "id") and not get("mode", "ignore_end"):
                return Reason.END_TOKEN
            yield

    def _block(self, start, size):
        """Sweeps over a block of the prompt from that index on; yields after each position of each."""
        first, base, self._in_block, self._target = self._prefill.entry, self.position, True, None
        while self._in_block:
            for place in range(size):
                self.position = base + place
                token = self._checked(int(self.prompt[start + place]))
                end = self._section(first, Place(token, self.position, self.position, place), wanted=False)
                self.counters["cycles"] += SWEEP_OVERHEAD
                self._background.work(SWEEP_OVERHEAD, 0)
                self.counters["tokens"] += self.opcode == Opcode.HALT
                if place + 1 == size:
                    self._settle()
                yield
            first, self._in_block = end + 1, self.opcode == Opcode.SWEEP
        self.position = base + size

    def _encode(self):
        """Sweeps over all given tokens; yields after each position of each, returns the Reason."""
        get = self.registers.get
        n_prompt, sweep, first = get("run", "n_prompt"), get("entries", "token"), True
        self.position, self._target = 0, None
        if n_prompt == 0:
            return Reason.ENCODED
        if n_prompt > get("limits", "context"):
            return Reason.CONTEXT_FULL
        while True:
            token = self._checked(int(self.prompt[self.position]))
            end = self._section(sweep, Place(token, self.position, n_prompt - 1, self.position), wanted=True)
            self.counters["cycles"] += SWEEP_OVERHEAD if end > sweep else 0
            if self.opcode == Opcode.HALT or self.position + 1 == n_prompt:
                self._settle()
            if self.opcode == Opcode.HALT:
                self.position = 0
                return Reason.ENCODED
            self.counters["tokens"] += first
            self.position += 1
            if self.position == n_prompt:
                self.position, sweep, first = 0, end + 1, False
            if self._stop:
                self._settle()
                self.position = 0
                return Reason.STOPPED
            yield

    def _checked(self, token):
        get, cfg = self.registers.get, self.cfg
        if (token >= get("limits", "vocabulary") or get("limits", "vocabulary") > cfg.max_vocabulary
                or get("limits", "context") > cfg.max_context):
            raise Fault(ErrorCode.BAD_TOKEN, token)
        return token

    # -- commands ---------------------------------------------------------------------------------------------

    def _section(self, index, at, wanted):
        """Run commands until HALT or SWEEP; returns the index of that command."""
        get, counters, border, first = self.registers.get, self.counters, Border(), index
        trace, self.machine.logits_end, records = get("mode", "trace"), 0, self.records.tokens
        while True:
            self.index = index
            command = self._fetch(index)
            if command.opcode in (Opcode.HALT, Opcode.SWEEP):
                # Nothing but a HALT: the record of the section before may still be on its way.
                self._recorded = self.records.tokens > records or index == first and self._recorded
                return index
            index += 1
            if command["head"] and not wanted or command.opcode == Opcode.LOAD and at.slot:
                counters["cycles"] += SKIPPED
                self._background.work(SKIPPED, 0)
                border.pass_over()
                continue
            before = counters["saturations"]
            if command.opcode == Opcode.LOAD or command["streamed"]:
                self._settle()
            self._count_cycles(command, at, border)
            if command["l_ahead"]:
                self._loading = self.index, command, at
            else:
                self._execute(command, at, trace)
            if counters["saturations"] > before and get("mode", "stop_on_saturation"):
                raise Fault(ErrorCode.SATURATION)
            counters["commands"] += 1

    def _settle(self):
        """Wait for a LOAD that goes on."""
        self.counters["cycles"] += self._background.settle()
        if self._loading:
            index, position, (self.index, command, at) = self.index, self.position, self._loading
            self._loading, self.position = None, at.position
            self.machine.execute(self.index, command, at)
            self.index, self.position = index, position

    def _execute(self, command, at, trace):
        if command.opcode == Opcode.DUMP:
            self.records.dump(self.machine.dump(command, at).reshape(-1, self.cfg.lanes))
        elif command.opcode == Opcode.PICK:
            self._picked = self._record()
        else:
            output = self.machine.execute(self.index, command, at)
            if output is not None and trace:
                self.records.trace(checksum(output, self.cfg.lanes), self.index, self.position)

    def _count_cycles(self, command, at, border):
        """Before the command runs."""
        rows, sampling = (), None
        if command.opcode == Opcode.EMBED:
            rows = [at.token] + [command["n_in"] + at.position] * command["position_row"]
        elif command.opcode == Opcode.LINEAR:
            levels = self.machine.spikes[command["src"], :command["n_in"]]
            rows = np.arange(command["n_in"]) if self.machine.dense else np.flatnonzero(levels)
        elif command.opcode == Opcode.PICK and self.registers.get("mode", "sample"):
            sampling = Sampling(top_k=self.registers.get("mode", "top_k"), vocabulary=self.registers.get("limits", "vocabulary"))
        cycles = command_cycles(self.cfg, command, rows=rows, position=at.position, last_position=at.last_position,
                                sampling=sampling, before=border.before, before_rows=border.rows, hits=self.machine.hits(command, at))
        if command.opcode == Opcode.LOAD:
            cycles = self._background.begin(command, cycles)
        self._background.work(border.wait + cycles, adding_cycles(self.cfg, command, rows) if len(rows) else 0)
        self.counters["cycles"] += border.wait + cycles
        border.follow(command, rows, cycles)

    def _fetch(self, index):
        if index >= self.cfg.program_words:
            raise Fault(ErrorCode.BAD_PROGRAM, index)
        if (index, self._in_block) not in self._commands:
            get = self.registers.get
            words = self.program[index * COMMAND_WORDS:(index + 1) * COMMAND_WORDS]
            try:
                command = decode(int.from_bytes(words.astype("<u4").tobytes(), "little"))
            except FitError as error:
                raise Fault(ErrorCode.BAD_PROGRAM, index) from error
            context, encoding = get("limits", "context"), self._mode == Mode.ENCODE
            code = check_command(command, self.cfg, context=context, image_bytes=get("image_bytes"), sweeping=encoding or self._in_block,
                                 slots=context if encoding else max(1, self._prefill.block) if self._in_block else 1)
            if code != ErrorCode.NONE:
                raise Fault(code, index)
            self._commands[index, self._in_block] = command
        return self._commands[index, self._in_block]

    def _read_image(self, offset, size):
        if not size:
            return b""
        base = self.registers.wide("image_base")
        if self.cfg.ports == 1:
            return self._memory.find(base + offset, size, ErrorCode.BUS_READ).tobytes()
        block = self.cfg.ports * STRIPE_BYTES
        first, end = offset // block * block, ceil_div(offset + size, block) * block
        blocks = unstripe(self._memory.find(base + first, end - first, ErrorCode.BUS_READ), self.cfg)
        return blocks[offset - first:offset - first + size].tobytes()

    def _record(self):
        """PICK: one token record (scoring: about the token that follows); returns the token picked."""
        get = self.registers.get
        # A head with fewer outputs than the vocabulary leaves the rest to nobody.
        logits = self.machine.logits[:min(get("limits", "vocabulary"), self.machine.logits_end or self.cfg.max_vocabulary)]
        best = pick(logits)
        token = best
        if self._target is None and get("mode", "sample"):
            token = pick(logits, top_k=get("mode", "top_k"), noise=self.noise, seed=get("seed"), position=self.position)
        about = token if self._target is None else self._target
        self.records.token(token if self._target is None else best, self.position, int(logits[about]), int(logits[best]))
        return token
