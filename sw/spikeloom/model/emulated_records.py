"""Memory behind the emulated device, and the records that it writes there: tokens, checksums, dumps."""

from collections import Counter

import numpy as np

from ..arch.layout import RING_RECORD, TRACE_RECORD
from ..arch.registers import ErrorCode
from .emulated_registers import RegisterFile
from .interpreter import Fault

_PAGE = 4096
_FIRST_ADDRESS = 0x1000_0000


class EmulatedBuffer:
    """Memory of the emulated device; host and device share it at once."""

    def __init__(self, owner: "HostMemory", address: int, nbytes: int):
        self._owner, self.address = owner, address
        self.array = np.zeros(nbytes, np.uint8)

    def flush(self) -> None:
        """Nothing to do: there is no cache."""

    def invalidate(self) -> None:
        """Nothing to do: there is no cache."""

    def free(self) -> None:
        """The device can no longer reach it."""
        self._owner.buffers.pop(self.address, None)


class HostMemory:
    """Buffers by address; whatever lies outside of them answers with a bus error."""

    def __init__(self):
        self.buffers: dict[int, EmulatedBuffer] = {}
        self._next_address = _FIRST_ADDRESS

    def allocate(self, nbytes: int) -> EmulatedBuffer:
        """A buffer of at least one byte."""
        buffer = EmulatedBuffer(self, self._next_address, max(1, nbytes))
        self._next_address += -(-(nbytes + 1) // _PAGE) * _PAGE
        self.buffers[buffer.address] = buffer
        return buffer

    def find(self, address: int, size: int, code: ErrorCode) -> np.ndarray:
        """The bytes there, uint8. Raises Fault."""
        for buffer in self.buffers.values():
            if buffer.address <= address and address + size <= buffer.address + len(buffer.array):
                return buffer.array[address - buffer.address:address - buffer.address + size]
        raise Fault(code, address & 0xFFFF_FFFF)


class Recorder:
    """Writes records where the registers say, and counts them.

    Parameters
    ----------
    registers : RegisterFile
    memory : HostMemory
    beat_bytes : int
        Of the bus.
    counters : Counter
        Where the bytes written are counted.
    """

    def __init__(self, registers: RegisterFile, memory: HostMemory, beat_bytes: int, counters: Counter):
        self._registers, self._memory, self._beat, self._counters = registers, memory, beat_bytes, counters
        self.clear()

    def clear(self) -> None:
        """A run begins."""
        #: Token records, trace records, bytes dumped; whether any of the latter two were lost.
        self.tokens, self.traces, self.dumped, self.full = 0, 0, 0, False

    def token(self, token: int, position: int, logit: int, best_logit: int) -> None:
        """One token record. Raises Fault."""
        place = self.tokens % max(1, self._registers.get("ring_records"))
        self._write("ring", place * RING_RECORD.size, RING_RECORD.pack(token, position, logit, best_logit))
        self.tokens += 1

    def trace(self, checksum: int, index: int, position: int) -> None:
        """The checksum of a command. Raises Fault."""
        if (self.traces + 1) * TRACE_RECORD.size > self._registers.get("trace_bytes"):
            self.full = True
            return
        self._write("trace", self.traces * TRACE_RECORD.size, TRACE_RECORD.pack(checksum, index, position))
        self.traces += 1

    def dump(self, groups: np.ndarray) -> None:
        """Groups of channels, int [n, lanes]. Raises Fault."""
        for group in groups:
            data = group.astype("<i4").tobytes()
            if self.dumped + len(data) > self._registers.get("dump_bytes"):
                self.full = True
                return
            self._write("dump", self.dumped, data)
            self.dumped += len(data)

    def _write(self, region, offset, data):
        address = self._registers.wide(f"{region}_base") + offset
        self._memory.find(address, len(data), ErrorCode.BUS_WRITE)[:] = np.frombuffer(data, np.uint8)
        self._counters["bytes_bus_written"] += -(-len(data) // self._beat) * self._beat
