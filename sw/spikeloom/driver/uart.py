"""A board at the end of a serial line: its registers are asked for, its memory lies here.

The board has no memory of its own for images and records. What its AXI manager wants comes over the line as questions, and a
thread answers them from the buffers that were allocated here; so every image that the machine can run can be loaded,
whatever its size. pyserial is needed only by `UartTransport.open`.
"""

import contextlib
import queue
import random
import threading
import time
from typing import Protocol

import numpy as np

from ..arch.registers import WINDOW_BYTES, register_map
from ..arch.serial_link import BEAT_BYTES, LINK_MAGIC, LINK_VERSION, MAX_FRAME_BEATS, Deframer, Frame, Kind, answer_fields, encode_frame
from .errors import BusError, DeadlineExpired, DeviceGone, ForeignBitstream

#: Rate of the boards' bitstreams.
BAUD = 2_000_000
_PAGE = 4096
_FIRST_ADDRESS, _END_ADDRESS = 0x1000_0000, 1 << 32
_OKAY, _DECERR = 0, 3
#: Pause between two looks at the interrupt.
_POLL_S = 0.001
#: How long the thread waits for a byte before it looks whether it shall end.
READ_TIMEOUT_S = 0.05


class Line(Protocol):
    """What is asked of a serial port: pyserial's `Serial`, opened with a read timeout."""

    @property
    def in_waiting(self) -> int:
        """Bytes that can be read at once."""

    def read(self, size: int = 1) -> bytes:
        """Up to `size` bytes; fewer, or none, when the timeout passed."""

    def write(self, data: bytes) -> int | None:
        """Send bytes."""

    def close(self) -> None:
        """Release the port."""


class UartBuffer:
    """A `spikeloom.driver.transport.Buffer`: host memory that the board reads and writes by asking. There is no cache."""

    def __init__(self, owner: "UartTransport", address: int, nbytes: int):
        self._owner, self._address = owner, address
        self._array = np.zeros(nbytes, np.uint8)

    @property
    def address(self) -> int:
        """Address of the first byte as the board says it."""
        return self._address

    @property
    def array(self) -> np.ndarray:
        """The bytes."""
        return self._array

    def flush(self) -> None:
        """Nothing to do."""

    def invalidate(self) -> None:
        """Nothing to do."""

    def free(self) -> None:
        """From now on the board's accesses are answered with an error."""
        # The address may belong to another buffer by now: freeing twice is freeing once.
        if self._owner._buffers.get(self._address) is self:
            del self._owner._buffers[self._address]


class UartTransport:
    """A `spikeloom.driver.transport.Transport` over a serial line.

    A question that finds no answer is asked again; frames that were damaged on the way count in `lost`. On opening and after
    a `reset` the core's own bus deadline is switched off and its watchdog set to its longest: the line has deadlines of
    its own, and a line is slow.

    Parameters
    ----------
    line : Line
        An open serial port; closed by `close`.
    answer_s : float
        How long one question waits for its answer.
    attempts : int
        Times to ask.

    Raises
    ------
    DeadlineExpired
        When nobody answers.
    ForeignBitstream
        When somebody else answers.
    """

    def __init__(self, line: Line, *, answer_s: float = 0.25, attempts: int = 12):
        self.answer_s, self.attempts = answer_s, attempts
        self._line, self._writing = line, threading.Lock()
        self._buffers: dict[int, UartBuffer] = {}
        self._answers: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._sequence = random.randrange(256)
        self._interrupt, self._lost_by_board = False, 0
        self._deframer = Deframer()
        self._closed, self._broken = threading.Event(), None
        #: Bursts of the board's that were answered, and questions of ours that were asked more than once.
        self.bursts, self.repeated = 0, 0
        self._thread = threading.Thread(target=self._listen, name="spikeloom-uart", daemon=True)
        self._thread.start()
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, port: str, *, baud: int = BAUD, **options) -> "UartTransport":
        """A transport on a port of this computer, such as ``/dev/ttyUSB0`` or ``COM3``; `options` go to the constructor.

        Raises
        ------
        ModuleNotFoundError
            Without pyserial.
        DeviceGone
            When the port cannot be opened.
        """
        import serial

        try:
            line = serial.Serial(port, baud, timeout=READ_TIMEOUT_S, write_timeout=5)
        except (serial.SerialException, ValueError, OSError) as error:
            raise DeviceGone(f"The serial port {port} cannot be opened at {baud} baud: {error}.",
                             remedy="Check its name, the cable, and that you may use it (on Linux: group dialout).") from error
        # USB adapters gather bytes for 16 ms by default; not every driver can be asked not to.
        with contextlib.suppress(AttributeError, NotImplementedError, ValueError, OSError):
            line.set_low_latency_mode(True)
        return cls(line, **options)

    def _greet(self):
        answer = self._ask(Kind.HELLO)
        if answer.value >> 16 != LINK_MAGIC:
            raise ForeignBitstream(f"What answers on this line is not a Spikeloom board: it says {answer.value:#010x}.")
        version = answer.value & 0xFFFF
        if version != LINK_VERSION:
            raise ForeignBitstream(f"The board's serial link has version {version}, this driver speaks version {LINK_VERSION}.")
        self._relax()

    def _relax(self):
        registers = register_map(None)
        self.write32(registers.address("bus_timeout"), 0)
        self.write32(registers.address("watchdog"), 0xFFFF_FFFF)

    # -- the thread: answers the board's questions, hands answers to ours ----------------------------------------

    def _listen(self):
        try:
            while not self._closed.is_set():
                data = self._line.read(max(1, self._line.in_waiting))
                for frame in self._deframer.push(data) if data else ():
                    self._take(frame)
        except Exception as error:  # whatever a port raises when it is pulled out
            self._broken = error

    def _take(self, frame):
        if frame.kind == Kind.ANSWER:
            self._answers.put(frame)
        elif frame.kind == Kind.FETCH:
            data = self._memory(frame.value, frame.argument)
            response = _DECERR if data is None else _OKAY
            self._send(Frame(Kind.DATA, frame.sequence, response, 0, b"" if data is None else data.tobytes()))
        elif frame.kind == Kind.STORE:
            self._send(Frame(Kind.STORED, frame.sequence, self._store(frame)))

    def _memory(self, address, beats):
        """The bytes of a burst, a view of their buffer; None where there is no such memory."""
        if not 1 <= beats <= MAX_FRAME_BEATS:
            return None
        self.bursts += 1
        for base, buffer in list(self._buffers.items()):
            start = address - base
            whole = -(-len(buffer.array) // _PAGE) * _PAGE
            if 0 <= start and start + beats * BEAT_BYTES <= whole:
                part = buffer.array[start:start + beats * BEAT_BYTES]
                missing = beats * BEAT_BYTES - len(part)
                # Past the buffer's last byte, yet within its last page, there is nothing to be kept.
                return np.concatenate([part, np.zeros(missing, np.uint8)]) if missing else part
        return None

    def _store(self, frame):
        beats = np.frombuffer(frame.payload, np.uint8).reshape(-1, BEAT_BYTES + 1) if len(frame.payload) % (BEAT_BYTES + 1) == 0 else None
        if beats is None or len(beats) != frame.argument:
            return _DECERR
        memory = self._memory(frame.value, len(beats))
        if memory is None:
            return _DECERR
        enabled = np.unpackbits(beats[:, :1], axis=1, bitorder="little").reshape(-1).astype(bool)
        memory[enabled] = beats[:, 1:].reshape(-1)[enabled]
        return _OKAY

    def _send(self, frame):
        with self._writing:
            self._line.write(encode_frame(frame))

    # -- questions ----------------------------------------------------------------------------------------------

    def _ask(self, kind, argument=0, value=0):
        """Ask, as often as it takes, and return the answer."""
        self._sequence = (self._sequence + 1) & 0xFF
        question = Frame(kind, self._sequence, argument, value)
        for attempt in range(self.attempts):
            self.repeated += attempt > 0
            end = time.monotonic() + self.answer_s
            self._check_open()
            try:
                self._send(question)
            except Exception as error:
                self._broken = self._broken or error
            while (left := end - time.monotonic()) > 0:
                self._check_open()
                try:
                    answer = self._answers.get(timeout=min(left, READ_TIMEOUT_S))
                except queue.Empty:
                    continue
                if answer.sequence == question.sequence:
                    fields = answer_fields(answer.argument)
                    self._interrupt, self._lost_by_board = bool(fields["interrupt"]), fields["lost"]
                    if fields["response"] != _OKAY:
                        raise BusError(f"{kind.name} of register {argument:#05x} was answered with response {fields['response']}.",
                                       remedy="")
                    return answer
        raise DeadlineExpired(f"The board did not answer {self.attempts} times within {self.answer_s:g} s ({kind.name}, {argument:#05x}).",
                              state={"bad frames seen here": self._deframer.dropped},
                              remedy="Check cable, port and rate, and that the bitstream is loaded: the board's lamp 0 blinks then.")

    def _check_open(self):
        if self._closed.is_set():
            raise DeviceGone("The serial line was closed.")
        if self._broken is not None:
            raise DeviceGone(f"The serial line broke: {self._broken}.") from self._broken

    @property
    def lost(self) -> dict[str, int]:
        """Frames that were damaged: seen here since opening, and told by the board (at most 255)."""
        return {"here": self._deframer.dropped, "board": self._lost_by_board}

    @property
    def cycles(self) -> None:
        """Unknown: only the board's counters know."""
        return None

    @staticmethod
    def _offset(offset):
        if offset % 4 or not 0 <= offset < WINDOW_BYTES:
            raise ValueError(f"Register offsets are multiples of four below {WINDOW_BYTES}; {offset:#x} is none.")
        return offset

    def read32(self, offset: int) -> int:
        """Read one register."""
        return self._ask(Kind.READ, self._offset(offset)).value

    def write32(self, offset: int, value: int) -> None:
        """Write one register."""
        if not 0 <= value < 1 << 32:
            raise ValueError(f"A register holds 32 bits; {value:#x} does not fit.")
        self._ask(Kind.WRITE, self._offset(offset), value)

    def allocate(self, nbytes: int) -> UartBuffer:
        """A buffer of host memory at an address of its own."""
        self._check_open()
        if nbytes < 1:
            raise ValueError(f"A buffer has at least one byte, not {nbytes}.")
        address = _FIRST_ADDRESS
        for base, buffer in sorted(self._buffers.items()):
            if base - address >= nbytes:
                break
            address = -(-(base + len(buffer.array)) // _PAGE) * _PAGE
        if address + nbytes > _END_ADDRESS:
            raise MemoryError(f"No {nbytes:,} addresses in a row are left below 4 GiB.")
        buffer = self._buffers[address] = UartBuffer(self, address, nbytes)
        return buffer

    def wait_interrupt(self, deadline_s: float, cycles: int | None = None) -> bool:
        """Ask until the interrupt line is high; False when the deadline passed first. Every answer tells its level."""
        end = time.monotonic() + deadline_s
        while True:
            self._ask(Kind.READ)
            left = end - time.monotonic()
            if self._interrupt or left <= 0:
                return self._interrupt
            time.sleep(min(left, _POLL_S))

    def reset(self) -> None:
        """Reset the core with its registers; buffers keep their contents, the line stays."""
        self._ask(Kind.RESET)
        self._relax()

    def close(self) -> None:
        """Release the port; twice is once."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        self._line.close()
        self._buffers.clear()

    def __enter__(self) -> "UartTransport":
        return self

    def __exit__(self, *_) -> None:
        self.close()
