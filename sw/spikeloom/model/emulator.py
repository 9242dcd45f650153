"""A device without gates: registers, memory and an interpreter of the program behind the driver's transport face."""

import time
from collections import Counter

import numpy as np

from ..arch.commands import COMMAND_WORDS, Opcode, decode
from ..arch.config import NOISE_ENTRIES, NOISE_WIDTH, AcceleratorConfig, FitError
from ..arch.cycles import SKIPPED, TOKEN_OVERHEAD, Sampling, command_cycles, run_end_cycles
from ..arch.layout import RING_RECORD, TRACE_RECORD
from ..arch.numerics import checksum, pick
from ..arch.registers import COUNTERS, MAGIC, VERSION, Access, ErrorCode, Mode, Reason, State, register_map
from .command_check import check_command
from .interpreter import Fault, Interpreter

_PAGE = 4096
_FIRST_ADDRESS = 0x1000_0000


class EmulatedBuffer:
    """Memory of the emulated device; host and device share it at once."""

    def __init__(self, owner: "Emulator", address: int, nbytes: int):
        self._owner, self.address = owner, address
        self.array = np.zeros(nbytes, np.uint8)

    def flush(self) -> None:
        """Nothing to do: there is no cache."""

    def invalidate(self) -> None:
        """Nothing to do: there is no cache."""

    def free(self) -> None:
        """The device can no longer reach it."""
        self._owner.buffers.pop(self.address, None)


class Emulator:
    """One machine of a config, with the face of `driver.transport.Transport`.

    Time stands still except while the host polls: each read of `status` or `progress`, and each wait for the interrupt,
    lets the device process one token or more. It has no clock; its counter `cycles` is what the cycle model (`arch.cycles`)
    says of a device behind a memory of `MemoryTiming`'s defaults.

    Parameters
    ----------
    cfg : AcceleratorConfig
    """

    def __init__(self, cfg: AcceleratorConfig):
        self.cfg = cfg
        self.map = register_map(cfg)
        self._names = list(self.map)
        self._fields = {(r.name, f.name): r.position_of(f.name) for r in self.map.values() for f in r.fields}
        self.buffers: dict[int, EmulatedBuffer] = {}
        self._next_address = _FIRST_ADDRESS
        self.closed = False
        self.reset()

    # -- transport --------------------------------------------------------------------------------------------

    @property
    def cycles(self) -> int | None:
        """Cycles of runs so far; None: the emulator has no clock."""
        return None

    def reset(self) -> None:
        """Power-on state; buffers keep their contents."""
        cfg = self.cfg
        self._value = {name: sum(f.reset << self._fields[name, f.name][0] for f in register.fields)
                       for name, register in self.map.items()}
        self._program = np.zeros(cfg.program_words * COMMAND_WORDS, np.uint32)
        self._commands: dict[int, object] = {}
        self._prompt = np.zeros(cfg.max_context + 1, np.int64)
        self._noise = np.zeros(NOISE_ENTRIES, np.int64)
        self.machine = Interpreter(cfg, self._read_image)
        self._soft_reset()

    def _soft_reset(self):
        self._run = None
        self._state, self._reason, self._done = State.IDLE, Reason.NONE, False
        self._error = (ErrorCode.NONE, 0, 0, 0)
        self._index, self._position, self._records, self._stop = 0, 0, 0, False
        self._picked, self._target = 0, None
        self._trace_count, self._dump_count, self._full = 0, 0, False

    def read32(self, offset: int) -> int:
        """Read a register."""
        self._check_open()
        name = self._names[offset // 4] if offset % 4 == 0 and 0 <= offset // 4 < len(self._names) else None
        if name in ("status", "progress"):
            self._advance()
        return self._read(name) & 0xFFFF_FFFF if name else 0

    def write32(self, offset: int, value: int) -> None:
        """Write a register."""
        self._check_open()
        if offset % 4 or not 0 <= offset // 4 < len(self._names):
            return
        register = self.map[self._names[offset // 4]]
        if register.name == "control":
            return self._control(value)
        keep = 0
        for f in register.fields:
            if f.access in (Access.RW, Access.WO):
                lsb, width = self._fields[register.name, f.name]
                keep |= ((1 << width) - 1) << lsb
        self._value[register.name] = value & keep
        window = register.name.removesuffix("_data")
        if window != register.name and f"{window}_index" in self.map:
            self._write_window(window, value & keep)

    def allocate(self, nbytes: int) -> EmulatedBuffer:
        """A buffer of at least one byte."""
        self._check_open()
        buffer = EmulatedBuffer(self, self._next_address, max(1, nbytes))
        self._next_address += -(-(nbytes + 1) // _PAGE) * _PAGE
        self.buffers[buffer.address] = buffer
        return buffer

    def wait_interrupt(self, deadline_s: float, cycles: int | None = None) -> bool:
        """Process tokens until the interrupt line is high; with `cycles`, one token at most."""
        self._check_open()
        end = time.monotonic() + deadline_s
        while not self._interrupt and self._run is not None:
            self._advance()
            if cycles is not None or time.monotonic() >= end:
                break
        return self._interrupt

    def close(self) -> None:
        """Free everything."""
        self.closed = True
        self.buffers.clear()

    def __enter__(self) -> "Emulator":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _check_open(self):
        if self.closed:
            from ..driver.errors import DeviceGone
            raise DeviceGone("The emulated device was closed.")

    # -- registers --------------------------------------------------------------------------------------------

    def _get(self, name, field="value"):
        """A field as the host wrote it."""
        lsb, width = self._fields[name, field]
        return self._value[name] >> lsb & ((1 << width) - 1)

    def _pack(self, name, **fields):
        return sum(int(value) << self._fields[name, field][0] for field, value in fields.items())

    def _wide(self, name):
        return self._get(f"{name}_lo") | self._get(f"{name}_hi") << 32

    @property
    def _interrupt(self):
        return bool(self._done and self._get("mode", "interrupt_enable"))

    def _read(self, name):
        cfg, code = self.cfg, self._error
        counter, _, half = name.rpartition("_")
        if counter in COUNTERS:
            return self.machine.counters[counter] >> (32 if half == "hi" else 0)
        made = {
            "magic": lambda: MAGIC, "version": lambda: VERSION, "fingerprint": lambda: cfg.fingerprint,
            "shape": lambda: self._pack(name, cols=cfg.cols, rows=cfg.rows, lanes=cfg.lanes, k_max=cfg.k_max,
                                        level_max=cfg.level_max),
            "status": lambda: self._pack(name, busy=self._run is not None, done=self._done, state=self._state,
                                         reason=self._reason, trace_full=self._full, interrupt=self._interrupt),
            "error": lambda: self._pack(name, code=code[0], command=code[1], position=code[2]),
            "error_address": lambda: code[3],
            "progress": lambda: self._pack(name, position=self._position, records=self._records & 0xFFFF),
            "trace_count": lambda: self._trace_count, "dump_count": lambda: self._dump_count,
            "sequencer": lambda: self._pack(name, command=self._index, opcode=self._opcode(), phase=self._state),
        }
        return made[name]() if name in made else self._value[name]

    def _opcode(self):
        return int(self._program[self._index * COMMAND_WORDS]) & 15 if self._index < self.cfg.program_words else 0

    def _write_window(self, window, value):
        memory = {"prompt": self._prompt, "program": self._program, "noise": self._noise}[window]
        index = self._value[f"{window}_index"]
        if index < len(memory):
            if window == "noise":
                value -= (value >> (NOISE_WIDTH - 1)) << NOISE_WIDTH
            memory[index] = value
        self._value[f"{window}_index"] = index + 1 & 0xFFFF

    def _control(self, value):
        pulse = {f.name: value >> self._fields["control", f.name][0] & 1 for f in self.map["control"].fields}
        if pulse["reset"]:
            self._soft_reset()
        if pulse["clear_counters"]:
            self.machine.counters = Counter()
        if pulse["acknowledge"]:
            self._done = False
        if pulse["clear_context"] and self._run is None:
            self._position = 0
        if pulse["stop"]:
            self._stop = True
            if self._run is not None:
                self._state = State.STOPPING
        if pulse["start"] and self._run is None:
            self._start()

    # -- running ----------------------------------------------------------------------------------------------

    def _start(self):
        if self._state == State.ERROR:
            self._done = True
            return
        self._done, self._stop, self._reason = False, False, Reason.NONE
        self._records, self._trace_count, self._dump_count, self._full = 0, 0, 0, False
        self.machine.forget()  # the host may have written to the image
        self._commands.clear()
        self.machine.dense = bool(self._get("mode", "dense"))
        self.machine.image_bytes = self._get("image_bytes")
        self._state = State.RUN
        self._run = self._boot() if self._get("mode", "run") == Mode.BOOT else self._tokens()

    def _advance(self):
        """Process one token of the run, if there is one."""
        if self._run is None:
            return
        try:
            next(self._run)
        except StopIteration as end:
            if end.value != Reason.BOOTED:
                self.machine.counters["cycles"] += run_end_cycles(self.cfg, scoring=end.value == Reason.SCORED)
            self._finish(end.value, State.IDLE)
        except Fault as fault:
            self._error = (fault.code, self._index, self._position, fault.address)
            self._finish(Reason.FAILED, State.ERROR)

    def _finish(self, reason, state):
        self._run, self._reason, self._state, self._done = None, reason, state, True

    def _boot(self):
        self._section(self._get("entries", "boot"), token=0, wanted=True)
        return Reason.BOOTED
        yield  # a generator, like the runs over tokens

    def _tokens(self):
        """The token loop; yields after each token, returns the Reason."""
        scoring = self._get("mode", "run") == Mode.SCORE
        n_prompt, n_new = self._get("run", "n_prompt"), self._get("run", "n_new")
        context, vocabulary = self._get("limits", "context"), self._get("limits", "vocabulary")
        index, made, picked = 0, 0, self._picked
        while True:
            if self._stop:
                return Reason.STOPPED
            if scoring and index >= n_prompt:
                return Reason.SCORED
            if not scoring and index >= n_prompt and made >= n_new:
                return Reason.COUNT
            if self._position >= context:
                return Reason.CONTEXT_FULL
            token = int(self._prompt[index]) if index < n_prompt else picked
            if token >= vocabulary or vocabulary > self.cfg.max_vocabulary or context > self.cfg.max_context:
                raise Fault(ErrorCode.BAD_TOKEN, token)
            last = index + 1 >= n_prompt
            wanted = not last if scoring else last and n_new > 0
            self._target = int(self._prompt[index + 1]) if scoring and wanted else None
            self._section(self._get("entries", "token"), token, wanted)
            picked = self._picked
            made += wanted
            self.machine.counters["tokens"] += 1
            self.machine.counters["cycles"] += TOKEN_OVERHEAD
            self._position += 1
            index += 1
            if wanted and not scoring and picked == self._get("end_token", "id") and not self._get("mode", "ignore_end"):
                return Reason.END_TOKEN
            yield

    def _section(self, index, token, wanted):
        """Run commands until HALT."""
        trace, last = self._get("mode", "trace"), None
        while True:
            self._index = index
            command = self._fetch(index)
            index += 1
            if command.opcode == Opcode.HALT:
                return
            if command["head"] and not wanted:
                self.machine.counters["cycles"] += SKIPPED
                continue
            before = self.machine.counters["saturations"]
            self._count_cycles(command, token, last)
            last = command if command.opcode == Opcode.LINEAR else None
            if command.opcode == Opcode.DUMP:
                self._dump(command)
            elif command.opcode == Opcode.PICK:
                self._picked = self._record(self._target)
            else:
                output = self.machine.execute(self._index, command, token, self._position)
                if output is not None and trace:
                    self._trace(output)
            if self.machine.counters["saturations"] > before and self._get("mode", "stop_on_saturation"):
                raise Fault(ErrorCode.SATURATION)
            self.machine.counters["commands"] += 1

    def _count_cycles(self, command, token, last):
        """Before the command runs."""
        rows, sampling = (), None
        if command.opcode == Opcode.EMBED:
            rows = [token] + [command["n_in"] + self._position] * command["position_row"]
        elif command.opcode == Opcode.LINEAR:
            levels = self.machine.spikes[command["src"], :command["n_in"]]
            rows = np.arange(command["n_in"]) if self.machine.dense else np.flatnonzero(levels)
        elif command.opcode == Opcode.PICK and self._get("mode", "sample"):
            sampling = Sampling(top_k=self._get("mode", "top_k"), vocabulary=self._get("limits", "vocabulary"))
        self.machine.counters["cycles"] += command_cycles(self.cfg, command, rows=rows, position=self._position,
                                                          sampling=sampling, before=last)

    def _fetch(self, index):
        if index >= self.cfg.program_words:
            raise Fault(ErrorCode.BAD_PROGRAM, index)
        if index not in self._commands:
            words = self._program[index * COMMAND_WORDS:(index + 1) * COMMAND_WORDS]
            try:
                command = decode(int.from_bytes(words.astype("<u4").tobytes(), "little"))
            except FitError as error:
                raise Fault(ErrorCode.BAD_PROGRAM, index) from error
            code = check_command(command, self.cfg, context=self._get("limits", "context"), image_bytes=self._get("image_bytes"))
            if code != ErrorCode.NONE:
                raise Fault(code, index)
            self._commands[index] = command
        return self._commands[index]

    # -- memory -----------------------------------------------------------------------------------------------

    def _find(self, address, size, code):
        for buffer in self.buffers.values():
            if buffer.address <= address and address + size <= buffer.address + len(buffer.array):
                return buffer.array[address - buffer.address:address - buffer.address + size]
        raise Fault(code, address & 0xFFFF_FFFF)

    def _read_image(self, offset, size):
        return self._find(self._wide("image_base") + offset, size, ErrorCode.BUS_READ).tobytes() if size else b""

    def _write(self, address, data):
        self._find(address, len(data), ErrorCode.BUS_WRITE)[:] = np.frombuffer(data, np.uint8)
        beat = self.cfg.beat_bytes
        self.machine.counters["bytes_bus_written"] += -(-len(data) // beat) * beat

    def _record(self, target):
        """PICK: one token record (scoring: about the token that follows); returns the token picked."""
        logits = self.machine.logits[:self._get("limits", "vocabulary")]
        best = pick(logits)
        token = best
        if target is None and self._get("mode", "sample"):
            token = pick(logits, top_k=self._get("mode", "top_k"), noise=self._noise, seed=self._get("seed"),
                         position=self._position)
        about = token if target is None else target
        place = self._records % max(1, self._get("ring_records"))
        self._write(self._wide("ring_base") + place * RING_RECORD.size,
                    RING_RECORD.pack(token if target is None else best, self._position, int(logits[about]), int(logits[best])))
        self._records += 1
        return token

    def _trace(self, output):
        if (self._trace_count + 1) * TRACE_RECORD.size > self._get("trace_bytes"):
            self._full = True
            return
        self._write(self._wide("trace_base") + self._trace_count * TRACE_RECORD.size,
                    TRACE_RECORD.pack(checksum(output, self.cfg.lanes), self._index, self._position))
        self._trace_count += 1

    def _dump(self, command):
        for group in self.machine.dump(command).reshape(-1, self.cfg.lanes):
            data = group.astype("<i4").tobytes()
            if self._dump_count + len(data) > self._get("dump_bytes"):
                self._full = True
                return
            self._write(self._wide("dump_base") + self._dump_count, data)
            self._dump_count += len(data)
