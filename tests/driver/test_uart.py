"""`driver.uart` against a board made of the emulator's registers: memory, retries, errors in words."""

import queue
import threading

import numpy as np
import pytest

from spikeloom.arch.presets import preset
from spikeloom.arch.registers import MAGIC, register_map
from spikeloom.arch.serial_link import LINK_MAGIC, LINK_VERSION, Deframer, Frame, Kind, encode_frame
from spikeloom.driver.errors import BusError, DeadlineExpired, DeviceGone, ForeignBitstream
from spikeloom.driver.transport import Buffer, Transport
from spikeloom.driver.uart import UartTransport
from spikeloom.model.emulator import Emulator

BASE = 0x1000_0000


class Board:
    """The far end as a pyserial-like line."""

    def __init__(self, hello=LINK_MAGIC << 16 | LINK_VERSION):
        self.core = Emulator(preset("tiny"))
        self.hello, self.interrupt, self.response = hello, 0, 0
        #: Frames to swallow before one is answered; frames seen, answers to the board's own questions.
        self.deaf, self.seen, self.replies = 0, [], queue.SimpleQueue()
        self.broken, self.closed = None, False
        self._out, self._cutter, self._ready = bytearray(), Deframer(), threading.Condition()

    @property
    def in_waiting(self):
        return len(self._out)

    def read(self, size=1):
        with self._ready:
            self._ready.wait_for(lambda: self._out or self.broken, timeout=0.02)
            if self.broken:
                raise self.broken
            data, self._out = bytes(self._out[:size]), self._out[size:]
            return data

    def write(self, data):
        for frame in self._cutter.push(data):
            self.seen.append(frame)
            if frame.kind in (Kind.DATA, Kind.STORED):
                self.replies.put(frame)
            elif self.deaf:
                self.deaf -= 1
            else:
                self.send(Frame(Kind.ANSWER, frame.sequence, self.response | self.interrupt << 2, self._carry_out(frame)))

    def _carry_out(self, frame):
        if frame.kind == Kind.HELLO:
            return self.hello
        if frame.kind == Kind.READ:
            return self.core.read32(frame.argument)
        if frame.kind == Kind.WRITE:
            self.core.write32(frame.argument, frame.value)
        if frame.kind == Kind.RESET:
            self.core.reset()
        return 0

    def send(self, frame):
        with self._ready:
            self._out += encode_frame(frame) if isinstance(frame, Frame) else frame
            self._ready.notify()

    def ask(self, kind, value, beats, payload=b"", sequence=7):
        """A question of the board's, and the host's reply."""
        self.send(Frame(kind, sequence, beats, value, payload))
        return self.replies.get(timeout=5)

    def close(self):
        self.closed = True


@pytest.fixture
def pair():
    """(board, transport)."""
    board = Board()
    with UartTransport(board, answer_s=0.1, attempts=4) as transport:
        yield board, transport


def test_is_a_transport(pair):
    _, transport = pair
    assert isinstance(transport, Transport) and isinstance(transport.allocate(1), Buffer)
    assert transport.cycles is None


def test_registers_and_the_cores_deadlines(pair):
    board, transport = pair
    registers = register_map(None)
    assert transport.read32(0) == MAGIC
    for _ in range(2):
        assert board.core.read32(registers.address("bus_timeout")) == 0
        assert board.core.read32(registers.address("watchdog")) == 0xFFFF_FFFF
        transport.reset()
    for offset in (2, 4096, -4):
        with pytest.raises(ValueError, match="multiples of four"):
            transport.read32(offset)
    with pytest.raises(ValueError, match="32 bits"):
        transport.write32(0, 1 << 32)


def test_a_lost_question_is_asked_again_with_the_same_number(pair):
    board, transport = pair
    board.deaf, board.seen[:] = 2, []
    assert transport.read32(0) == MAGIC and transport.repeated == 2
    assert len({frame.sequence for frame in board.seen}) == 1 and len(board.seen) == 3


def test_answers_to_earlier_questions_are_ignored(pair):
    board, transport = pair
    board.send(Frame(Kind.ANSWER, transport._sequence, 0, 1234))
    board.send(b"\x01\x02\x03\x7e")
    assert transport.read32(0) == MAGIC and transport.lost["here"] == 1


def test_the_boards_memory(pair):
    board, transport = pair
    first, second = transport.allocate(5000), transport.allocate(100)
    assert (first.address, second.address) == (BASE, BASE + 8192)
    first.array[:] = np.arange(5000) & 0xFF
    reply = board.ask(Kind.FETCH, BASE + 8, 2)
    assert reply == Frame(Kind.DATA, 7, 0, 0, bytes(range(8, 24)))
    beats = bytes([0b0000_0101, *range(100, 108)]) + bytes([0xFF, *range(200, 208)])
    assert board.ask(Kind.STORE, BASE + 16, 2, beats) == Frame(Kind.STORED, 7, 0)
    assert first.array[16:32].tolist() == [100, 17, 102, *range(19, 24), *range(200, 208)]
    assert board.ask(Kind.FETCH, second.address + 96, 1).payload == bytes(8), "the last page is whole"


def test_memory_that_nobody_allocated_is_refused(pair):
    board, transport = pair
    buffer = transport.allocate(100)
    for address, beats in ((BASE - 8, 1), (BASE + 4096, 1), (BASE + 4088, 2), (BASE, 17), (BASE, 0)):
        assert board.ask(Kind.FETCH, address, beats) == Frame(Kind.DATA, 7, 3)
    assert board.ask(Kind.STORE, BASE, 2, bytes(9)) == Frame(Kind.STORED, 7, 3)
    buffer.free()
    buffer.free()
    assert board.ask(Kind.FETCH, BASE, 1).argument == 3


def test_freed_addresses_are_given_again(pair):
    _, transport = pair
    buffers = [transport.allocate(5000) for _ in range(3)]
    buffers[1].free()
    assert transport.allocate(9000).address == BASE + 3 * 8192
    assert transport.allocate(8192).address == BASE + 8192
    with pytest.raises(ValueError, match="at least one byte"):
        transport.allocate(0)


def test_a_buffer_that_is_freed_twice_takes_no_other_with_it(pair):
    board, transport = pair
    first = transport.allocate(4096)
    first.free()
    second = transport.allocate(4096)
    first.free()
    assert second.address == first.address == BASE and board.ask(Kind.FETCH, BASE, 1).argument == 0


def test_interrupt(pair):
    board, transport = pair
    assert transport.wait_interrupt(0.01) is False
    board.interrupt = 1
    assert transport.wait_interrupt(10) is True


def test_errors_in_words(pair):
    board, transport = pair
    board.response = 2
    with pytest.raises(BusError, match="READ of register 0x000 was answered with response 2"):
        transport.read32(0)
    board.response, board.deaf = 0, 99
    with pytest.raises(DeadlineExpired, match="4 times within 0.1 s .*cable"):
        transport.read32(0)
    board.broken = OSError("unplugged")
    with pytest.raises(DeviceGone, match="unplugged"):
        transport.read32(0)
    transport.close()
    transport.close()
    assert board.closed
    with pytest.raises(DeviceGone, match="closed"):
        transport.allocate(1)


@pytest.mark.parametrize("hello, words", [(0xDEAD_BEEF, "not a Spikeloom board"), (LINK_MAGIC << 16 | 99, "version 99")])
def test_a_stranger_is_refused(hello, words):
    board = Board(hello)
    with pytest.raises(ForeignBitstream, match=words):
        UartTransport(board)
    assert board.closed


def test_a_port_that_cannot_be_opened():
    pytest.importorskip("serial", reason="serial: pyserial is not installed")
    with pytest.raises(DeviceGone, match="dialout"):
        UartTransport.open("/dev/there-is-none")
