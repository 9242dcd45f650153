"""The Verilated design behind the driver's transport."""

import bisect
import ctypes
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from amaranth.lib import wiring

from spikeloom.arch.dram import Dram
from spikeloom.driver.errors import BusError, DeadlineExpired, DeviceGone
from spikeloom_hw.export import port_list, to_verilog
from spikeloom_hw.shell import Shell

from . import verilator

PAGE_BYTES = 4096
#: Cycles run between two looks at the wall clock.
SLICE_CYCLES = 50_000
#: Order of the channels in ``Settings.stall`` of the harness.
CHANNELS = ("lite_aw", "lite_w", "lite_b", "lite_ar", "lite_r", "aw", "w", "b", "ar", "r")
_FAULTS = ("read_error", "write_error", "ar", "r", "aw", "w", "b")
_STATISTICS = ("read_bursts", "read_beats", "write_bursts", "write_beats", "most_outstanding", "lite_reads", "lite_writes",
               "page_misses", "refreshes", "least_latency", "most_latency", "total_latency")
_OKAY, _SLVERR, _DECERR = 0, 2, 3


class ProtocolViolation(AssertionError):
    """The gateware broke a rule of AXI, or one of its own assertions; the message lists what was seen."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The memory that the harness puts behind each AXI manager port."""

    #: Bytes; the host takes only the pages that are touched.
    nbytes: int = 64 << 20
    #: Address of its first byte, as the device sees it.
    base: int = 0x1000_0000
    #: Cycles from an address to its first answer, at least.
    latency: int = 24
    #: Read beats per cycle and port, at most.
    rate: float = 1.0
    #: Bursts accepted before the first of them is answered.
    outstanding: int = 16
    #: Host and device see the same bytes without flush and invalidate.
    coherent: bool = False
    #: Shared by all ports; what it takes comes before `latency`.
    dram: Dram | None = None


@dataclass(frozen=True, kw_only=True)
class Stalls:
    """Chance that a channel waits, per cycle; 0 never, 1 always."""

    #: For all channels that ``channels`` does not name.
    everywhere: float = 0.0
    #: By channel: any of `CHANNELS`.
    channels: Mapping[str, float] = field(default_factory=dict)

    def chances(self) -> list[int]:
        """In 1/256, in the order of `CHANNELS`."""
        unknown = sorted(set(self.channels) - set(CHANNELS))
        if unknown:
            raise ValueError(f"There are no channels {', '.join(unknown)}; there are: {', '.join(CHANNELS)}.")
        chances = [self.channels.get(name, self.everywhere) for name in CHANNELS]
        if not all(0 <= chance < 1 for chance in chances):
            raise ValueError("The chance of a stall lies from 0 up to, but not including, 1.")
        return [round(256 * chance) for chance in chances]


class Episode(NamedTuple):
    """A stretch of cycles in which reads were outstanding on any port; cycles count from the opening of the device."""

    #: The first address was accepted, the first and last beat came.
    first_address: int
    first_beat: int
    last_beat: int
    #: Of all ports.
    beats: int


class _DramSettings(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in
                ("banks", "page_bytes", "miss", "bytes_per_256", "refresh_every", "refresh", "jitter")]


class _Settings(ctypes.Structure):
    _fields_ = [("base", ctypes.c_uint64), ("bytes", ctypes.c_uint64), ("seed", ctypes.c_uint64),
                ("latency", ctypes.c_uint32), ("rate", ctypes.c_uint32), ("outstanding", ctypes.c_uint32),
                ("stall", ctypes.c_uint32 * len(CHANNELS)), ("dram", _DramSettings)]


class _Statistics(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in _STATISTICS]


_u32, _u64, _int, _handle = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int, ctypes.c_void_p
_FUNCTIONS = {
    "sim_open": (_handle, [ctypes.POINTER(_Settings), ctypes.c_char_p]),
    "sim_close": (None, [_handle]),
    "sim_memory": (ctypes.POINTER(ctypes.c_uint8), [_handle]),
    "sim_cycles": (_u64, [_handle]),
    "sim_irq": (_int, [_handle]),
    "sim_reset": (None, [_handle, _u64]),
    "sim_read32": (_int, [_handle, _u32, _u64, ctypes.POINTER(_u32), ctypes.POINTER(_int)]),
    "sim_write32": (_int, [_handle, _u32, _u32, _u64, ctypes.POINTER(_int)]),
    "sim_run": (_int, [_handle, _u64, _int]),
    "sim_fault": (None, [_handle, _int, _u64, _u64, _int, _int]),
    "sim_heal": (None, [_handle]),
    "sim_violations": (ctypes.c_size_t, [_handle]),
    "sim_violation": (ctypes.c_char_p, [_handle, ctypes.c_size_t]),
    "sim_statistics": (None, [_handle, ctypes.POINTER(_Statistics)]),
    "sim_episodes": (ctypes.c_size_t, [_handle]),
    "sim_episode": (ctypes.POINTER(_u64), [_handle]),
}


def _load(library: Path) -> ctypes.CDLL:
    try:
        loaded = ctypes.CDLL(str(library))
    except OSError as error:
        raise DeviceGone(f"The simulator cannot be loaded: {error}.",
                         remedy=f"Delete the folder {library.parent}; it is built again then.") from error
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


class RtlBuffer:
    """A `spikeloom.driver.transport.Buffer` in the simulated memory.

    Unless the memory is coherent, ``array`` is a copy of its own, so that a forgotten `flush` or `invalidate` shows here
    as it would on a board; what was never flushed reads as 0xA5 on the device.
    """

    def __init__(self, transport: "RtlTransport", address: int, nbytes: int, device_view: np.ndarray, coherent: bool):
        self._transport = transport
        self._device_view = device_view
        self._address = address
        self._array = device_view if coherent else np.zeros(nbytes, np.uint8)
        device_view[:] = 0xA5

    @property
    def address(self) -> int:
        """Address of the first byte as the device sees it."""
        return self._address

    @property
    def array(self) -> np.ndarray:
        """The host's view of the bytes."""
        return self._array

    def flush(self) -> None:
        """Make what the host wrote visible to the device."""
        self._transport._handle()
        if self._array is not self._device_view:
            self._device_view[:] = self._array

    def invalidate(self) -> None:
        """Make what the device wrote visible to the host."""
        self._transport._handle()
        if self._array is not self._device_view:
            self._array[:] = self._device_view

    def free(self) -> None:
        """Give the memory back."""
        self._transport._free(self)


class RtlTransport:
    """One simulated device: registers, memory and interrupt of a design with ``s_axil``, ``m_axi*`` and ``irq``.

    A `spikeloom.driver.transport.Transport`. Every access and wait has a deadline; a violation of the bus protocol raises
    `ProtocolViolation` at the next call, and nothing runs after it.

    Parameters
    ----------
    core : wiring.Component
        The design, with or without its `Shell`.
    name : str
        Name of the top module.
    memory : Memory
        What lies behind the manager ports.
    stalls : Stalls
        How often channels wait.
    seed : int
        Seed of stalls and of scrambled registers; shown in errors.
    vcd : path, optional
        Write waves to this file; another, slower build.
    scramble : bool
        Start registers from random values where only the reset gives them one; another build.
    register_deadline : int
        Cycles that a register access may take.
    progress : callable
        Told when a simulator is built.
    """

    def __init__(self, core: wiring.Component, name: str = "spikeloom_top", *, memory: Memory = Memory(),
                 stalls: Stalls = Stalls(), seed: int = 1, vcd: str | Path | None = None, scramble: bool = False,
                 register_deadline: int = 10_000, progress: Callable[[str], None] = verilator.announce):
        top = core if "aclk" in core.signature.members else Shell(core)
        options = verilator.Options(trace=vcd is not None, scramble=scramble)
        library = verilator.build(to_verilog(top, name), port_list(top), name, options, progress=progress)
        self._open(library, memory, stalls, seed, vcd, register_deadline)

    @classmethod
    def from_library(cls, library: Path, *, memory: Memory = Memory(), stalls: Stalls = Stalls(), seed: int = 1,
                     vcd: str | Path | None = None, register_deadline: int = 10_000) -> "RtlTransport":
        """A device of a library that `verilator.build` made before."""
        transport = cls.__new__(cls)
        transport._open(library, memory, stalls, seed, vcd, register_deadline)
        return transport

    def _open(self, library, memory, stalls, seed, vcd, register_deadline):
        if memory.base % PAGE_BYTES or memory.nbytes % PAGE_BYTES or memory.nbytes <= 0:
            raise ValueError(f"Base and size of the memory are multiples of {PAGE_BYTES} bytes.")
        if not 0 < memory.rate <= 1:
            raise ValueError("The memory's rate lies above 0 and is at most one beat per cycle.")
        self.library = library
        self.memory = memory
        self.seed = seed
        self.register_deadline = register_deadline
        self._lib = _load(library)
        settings = _Settings(memory.base, memory.nbytes, seed, memory.latency, max(1, round(256 * memory.rate)),
                             memory.outstanding, (ctypes.c_uint32 * len(CHANNELS))(*stalls.chances()),
                             _DramSettings(*(getattr(memory.dram, name, 0) for name, _ in _DramSettings._fields_)))
        self._device = self._lib.sim_open(ctypes.byref(settings), str(vcd or "").encode())
        self._bytes = np.ctypeslib.as_array(self._lib.sim_memory(self._device), (memory.nbytes,))
        self._buffers: dict[int, RtlBuffer] = {}
        self._holes = [(0, memory.nbytes)]
        self.reset()

    def _handle(self):
        if self._device is None:
            raise DeviceGone("The simulated device was closed.")
        return self._device

    def _raise_violations(self) -> None:
        found = self.violations
        if found:
            raise ProtocolViolation("\n".join([f"The gateware broke a rule (seed {self.seed}):", *found]))

    @property
    def violations(self) -> list[str]:
        """What was seen against the rules of the buses, or stopped by assertions; at most twenty."""
        device = self._handle()
        return [self._lib.sim_violation(device, n).decode() for n in range(self._lib.sim_violations(device))]

    @property
    def cycles(self) -> int:
        """Clock cycles since the device was opened."""
        return self._lib.sim_cycles(self._handle())

    @property
    def interrupt(self) -> bool:
        """Level of the interrupt line."""
        return bool(self._lib.sim_irq(self._handle()))

    @property
    def statistics(self) -> dict[str, int]:
        """What the harness has counted since the device was opened, resets included."""
        statistics = _Statistics()
        self._lib.sim_statistics(self._handle(), ctypes.byref(statistics))
        return {name: getattr(statistics, name) for name in _STATISTICS}

    @property
    def episodes(self) -> list[Episode]:
        """Every stretch in which reads were outstanding, since the device was opened."""
        count = self._lib.sim_episodes(self._handle())
        if not count:
            return []
        words = np.ctypeslib.as_array(self._lib.sim_episode(self._device), (4 * count,))
        return [Episode(*map(int, row)) for row in words.reshape(count, 4)]

    def read32(self, offset: int) -> int:
        """Read one register."""
        value, response = _u32(), _int()
        status = self._lib.sim_read32(self._handle(), self._offset(offset), self.register_deadline,
                                      ctypes.byref(value), ctypes.byref(response))
        self._judge(status, response.value, "read", offset)
        return value.value

    def write32(self, offset: int, value: int) -> None:
        """Write one register."""
        if not 0 <= value < 1 << 32:
            raise ValueError(f"A register holds 32 bits; {value:#x} does not fit.")
        response = _int()
        status = self._lib.sim_write32(self._handle(), self._offset(offset), value, self.register_deadline, ctypes.byref(response))
        self._judge(status, response.value, "write", offset)

    @staticmethod
    def _offset(offset: int) -> int:
        if offset % 4 or not 0 <= offset < 4096:
            raise ValueError(f"Register offsets are multiples of four below 4096; {offset:#x} is none.")
        return offset

    def _judge(self, status: int, response: int, what: str, offset: int) -> None:
        if status == 2:
            self._raise_violations()
        if status:
            why = "an earlier access is still unanswered" if status == 3 else f"not answered within {self.register_deadline} cycles"
            raise DeadlineExpired(f"The {what} of register {offset:#05x} failed: {why}.", state={"cycles": self.cycles},
                                  remedy="Call reset() of the transport; the register bus takes one access at a time.")
        if response != _OKAY:
            raise BusError(f"The {what} of register {offset:#05x} was answered with response {response}.", remedy="")

    def run(self, cycles: int) -> None:
        """Let the clock run."""
        self._lib.sim_run(self._handle(), cycles, 0)
        self._raise_violations()

    def wait_interrupt(self, deadline_s: float, cycles: int | None = None) -> bool:
        """Run until the interrupt line is high; False when the wall clock or the cycle limit said stop first."""
        device = self._handle()
        end = time.monotonic() + deadline_s
        left = cycles if cycles is not None else float("inf")
        while True:
            step = int(min(SLICE_CYCLES, left))
            high = bool(self._lib.sim_run(device, step, 1))
            self._raise_violations()
            left -= step
            if high or left <= 0 or time.monotonic() >= end:
                return high

    def allocate(self, nbytes: int) -> RtlBuffer:
        """Allocate a buffer, aligned to 4,096 bytes."""
        self._handle()
        if nbytes < 1:
            raise ValueError(f"A buffer has at least one byte, not {nbytes}.")
        pages = -(-nbytes // PAGE_BYTES) * PAGE_BYTES
        for n, (start, size) in enumerate(self._holes):
            if size >= pages:
                self._holes[n:n + 1] = [(start + pages, size - pages)] if size > pages else []
                address = self.memory.base + start
                buffer = RtlBuffer(self, address, nbytes, self._bytes[start:start + nbytes], self.memory.coherent)
                self._buffers[address] = buffer
                return buffer
        raise MemoryError(f"The simulated memory of {self.memory.nbytes:,} bytes has no room for {nbytes:,} more.")

    def _free(self, buffer: RtlBuffer) -> None:
        # The address may belong to another buffer by now: freeing twice is freeing once.
        if self._device is None or self._buffers.get(buffer.address) is not buffer:
            return
        del self._buffers[buffer.address]
        pages = -(-buffer.array.nbytes // PAGE_BYTES) * PAGE_BYTES
        bisect.insort(self._holes, (buffer.address - self.memory.base, pages))
        merged = self._holes[:1]
        for start, size in self._holes[1:]:
            last_start, last_size = merged[-1]
            if last_start + last_size == start:
                merged[-1] = (last_start, last_size + size)
            else:
                merged.append((start, size))
        self._holes = merged

    def fault(self, kind: str, low: int = 0, high: int = 0, *, response: str = "slverr", port: int = -1) -> None:
        """Make the memory misbehave until `heal`.

        Parameters
        ----------
        kind : str
            ``read_error`` and ``write_error``: accesses with ``low <= address < high`` are answered with ``response``
            (``slverr`` or ``decerr``). ``ar``, ``r``, ``aw``, ``w``, ``b``: after ``low`` more transfers the channel falls
            silent.
        port : int
            Which one falls silent; -1: all of them.
        """
        if kind not in _FAULTS:
            raise ValueError(f"There is no fault {kind!r}; there are: {', '.join(_FAULTS)}.")
        code = {"slverr": _SLVERR, "decerr": _DECERR}[response]
        self._lib.sim_fault(self._handle(), _FAULTS.index(kind), low, high, code, port)

    def heal(self) -> None:
        """Undo all faults."""
        self._lib.sim_heal(self._handle())

    def reset(self, cycles: int = 16) -> None:
        """Hold ``aresetn`` low; memory keeps its contents, the buses forget what was outstanding."""
        self._lib.sim_reset(self._handle(), cycles)
        self._raise_violations()

    def close(self) -> None:
        """End the simulation; what buffers show after that is undefined. Twice is once."""
        if self._device is not None:
            for buffer in self._buffers.values():
                buffer._array = buffer._array.copy()
                buffer._device_view = buffer._array
            self._buffers.clear()
            self._bytes = None
            self._lib.sim_close(self._device)
            self._device = None

    def __enter__(self) -> "RtlTransport":
        return self

    def __exit__(self, *_) -> None:
        self.close()
