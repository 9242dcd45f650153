"""The frames between a host and a board that hang on one serial line: registers one way, the board's memory the other.

A frame is a header of eight bytes, beats of payload, and the CRC-32 of both, little-endian, between two `FLAG` bytes. `FLAG`
and `ESCAPE` never occur inside: they travel as `ESCAPE`, then the byte with `ESCAPE_XOR`. So whoever has lost the thread
finds it at the next `FLAG`, and a byte that was lost, added or changed costs its frame and no other.

Each side asks one question at a time and asks again when no answer comes; an answer carries the number of its question.
The board keeps its last answer, and a question that comes twice is answered twice but carried out once. The questions of
the board (memory) may be carried out twice: they only copy.
"""

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

#: Version of these rules; a board tells it in its answer to `HELLO`.
LINK_VERSION = 1
#: Upper half of the value that answers `HELLO`: this is the board's end of such a line.
LINK_MAGIC = 0x534C

FLAG, ESCAPE, ESCAPE_XOR = 0x7E, 0x7D, 0x20
#: Header: kind, sequence, argument, value.
HEADER = struct.Struct("<BBHI")
CRC = struct.Struct("<I")
#: Beats of payload in the longest frame: one AXI burst.
MAX_FRAME_BEATS = 16
#: Bytes of one beat of memory.
BEAT_BYTES = 8


class Kind(IntEnum):
    """What a frame is. Questions of the host are answered by `ANSWER`."""

    HELLO = 0x01    #: host asks: who is there? Starts the numbering
    READ = 0x02     #: host asks: register at byte offset `argument`
    WRITE = 0x03    #: host asks: `value` to the register at `argument`
    RESET = 0x04    #: host asks: reset the core, registers included
    DATA = 0x05     #: answer to FETCH: response in `argument`, the beats as payload
    STORED = 0x06   #: answer to STORE: response in `argument`
    ANSWER = 0x81   #: `value`, and in `argument` the fields of `answer_fields`
    FETCH = 0x82    #: board asks: `argument` beats of memory from address `value`
    STORE = 0x83    #: board asks: write `argument` beats from address `value`; each is its strobe byte and its data


#: Fields of the argument of `ANSWER`: name -> (lsb, width). `response` as on the bus, `interrupt` the level of the line,
#: `lost` the frames that the board had to drop since HELLO, at most 255.
ANSWER_FIELDS = {"response": (0, 2), "interrupt": (2, 1), "lost": (8, 8)}


class FrameError(ValueError):
    """Bytes between two flags that are no frame; the message says why."""


@dataclass(frozen=True)
class Frame:
    """One frame, without its flags, escapes and CRC."""

    kind: int
    sequence: int
    argument: int = 0
    value: int = 0
    payload: bytes = b""


def answer_fields(argument: int) -> dict[str, int]:
    """The fields in the argument of an `ANSWER`."""
    return {name: argument >> lsb & ((1 << width) - 1) for name, (lsb, width) in ANSWER_FIELDS.items()}


def encode_frame(frame: Frame) -> bytes:
    """The bytes of a frame as they travel, flags included."""
    body = HEADER.pack(frame.kind, frame.sequence, frame.argument, frame.value) + frame.payload
    body += CRC.pack(zlib.crc32(body))
    body = body.replace(bytes([ESCAPE]), bytes([ESCAPE, ESCAPE ^ ESCAPE_XOR])).replace(bytes([FLAG]), bytes([ESCAPE, FLAG ^ ESCAPE_XOR]))
    return bytes([FLAG]) + body + bytes([FLAG])


def decode_body(stuffed: bytes) -> Frame:
    """The frame between two flags.

    Raises
    ------
    FrameError
        When it is none, or a damaged one.
    """
    plain, escaped = bytearray(), False
    for byte in stuffed:
        if escaped:
            plain.append(byte ^ ESCAPE_XOR)
            escaped = False
        elif byte == ESCAPE:
            escaped = True
        else:
            plain.append(byte)
    if escaped:
        raise FrameError("The frame ends within an escape.")
    if len(plain) < HEADER.size + CRC.size:
        raise FrameError(f"{len(plain)} bytes are no frame: a header and its CRC take {HEADER.size + CRC.size}.")
    body, (crc,) = bytes(plain[:-CRC.size]), CRC.unpack(plain[-CRC.size:])
    if zlib.crc32(body) != crc:
        raise FrameError(f"The CRC of a frame of {len(plain)} bytes differs.")
    return Frame(*HEADER.unpack_from(body), body[HEADER.size:])


class Deframer:
    """Cuts a stream of bytes into frames; what is no frame is counted and forgotten."""

    def __init__(self):
        self._partial = bytearray()
        #: Runs of bytes that were no frame.
        self.dropped = 0

    def push(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete, in order."""
        *whole, rest = (bytes(self._partial) + data).split(bytes([FLAG]))
        # No frame is longer than twice its bytes; more without a flag is noise.
        self._partial = bytearray(rest[-4 * (HEADER.size + CRC.size + MAX_FRAME_BEATS * (BEAT_BYTES + 1)):])
        frames = []
        for stuffed in whole:
            if not stuffed:
                continue
            try:
                frames.append(decode_body(stuffed))
            except FrameError:
                self.dropped += 1
        return frames
