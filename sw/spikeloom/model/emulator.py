"""A device without gates: registers, memory and an interpreter of the program behind the driver's transport face."""

import time

from ..arch.config import AcceleratorConfig
from ..arch.registers import COUNTERS, MAGIC, VERSION
from .emulated_records import EmulatedBuffer, HostMemory
from .emulated_registers import RegisterFile
from .emulated_sequencer import Sequencer


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
        self.registers = RegisterFile(cfg)
        self.memory = HostMemory()
        self.closed = False
        self.reset()

    @property
    def cycles(self) -> int | None:
        """Cycles of runs so far; None: the emulator has no clock."""
        return None

    def reset(self) -> None:
        """Power-on state; buffers keep their contents."""
        self.registers.reset()
        self.sequencer = Sequencer(self.cfg, self.registers, self.memory)

    def read32(self, offset: int) -> int:
        """Read a register."""
        self._check_open()
        names = self.registers.names
        name = names[offset // 4] if offset % 4 == 0 and 0 <= offset // 4 < len(names) else None
        if name in ("status", "progress"):
            self.sequencer.advance()
        return self._read(name) & 0xFFFF_FFFF if name else 0

    def write32(self, offset: int, value: int) -> None:
        """Write a register."""
        self._check_open()
        if offset % 4 or not 0 <= offset // 4 < len(self.registers.names):
            return
        name = self.registers.names[offset // 4]
        if name == "control":
            return self._control(self.registers.pulses(name, value))
        value = self.registers.store(name, value)
        window = name.removesuffix("_data")
        if window != name and f"{window}_index" in self.registers.map:
            index = self.registers.value[f"{window}_index"]
            self.sequencer.write_window(window, index, value)
            self.registers.value[f"{window}_index"] = index + 1 & 0xFFFF

    def allocate(self, nbytes: int) -> EmulatedBuffer:
        """A buffer of at least one byte."""
        self._check_open()
        return self.memory.allocate(nbytes)

    def wait_interrupt(self, deadline_s: float, cycles: int | None = None) -> bool:
        """Process tokens until the interrupt line is high; with `cycles`, one token at most."""
        self._check_open()
        end = time.monotonic() + deadline_s
        while not self._interrupt and self.sequencer.busy:
            self.sequencer.advance()
            if cycles is not None or time.monotonic() >= end:
                break
        return self._interrupt

    def close(self) -> None:
        """Free everything."""
        self.closed = True
        self.memory.buffers.clear()

    def __enter__(self) -> "Emulator":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _check_open(self):
        if self.closed:
            from ..driver.errors import DeviceGone
            raise DeviceGone("The emulated device was closed.")

    @property
    def _interrupt(self):
        return bool(self.sequencer.done and self.registers.get("mode", "interrupt_enable"))

    def _read(self, name):
        cfg, seq, pack = self.cfg, self.sequencer, self.registers.pack
        counter, _, half = name.rpartition("_")
        if counter in COUNTERS:
            return seq.counters[counter] >> (32 if half == "hi" else 0)
        made = {
            "magic": lambda: MAGIC, "version": lambda: VERSION, "fingerprint": lambda: cfg.fingerprint,
            "shape": lambda: pack(name, cols=cfg.cols, rows=cfg.rows, lanes=cfg.lanes, k_max=cfg.k_max, level_max=cfg.level_max),
            "status": lambda: pack(name, busy=seq.busy, done=seq.done, state=seq.state, reason=seq.reason,
                                   trace_full=seq.records.full, interrupt=self._interrupt),
            "error": lambda: pack(name, code=seq.error, command=seq.index, position=seq.error_position) if seq.error else 0,
            "error_address": lambda: seq.error_address,
            "progress": lambda: pack(name, position=seq.position, records=seq.records.tokens & 0xFFFF),
            "trace_count": lambda: seq.records.traces, "dump_count": lambda: seq.records.dumped,
            "sequencer": lambda: pack(name, command=seq.index, opcode=seq.opcode, phase=seq.state),
        }
        return made[name]() if name in made else self.registers.value[name]

    def _control(self, pulse):
        seq = self.sequencer
        if pulse["reset"]:
            seq.reset()
        if pulse["clear_counters"]:
            seq.counters.clear()
        if pulse["acknowledge"]:
            seq.done = False
        if pulse["clear_context"]:
            seq.clear_context()
        if pulse["stop"]:
            seq.stop()
        if pulse["start"]:
            seq.start()
