"""What a driver asked of a device, kept in a file, and a device made of such a file.

A recording is lines of JSON: first what was recorded, then one call each with its answer. A session on a board can so be
run again on any computer, as long as the driver makes exactly the same calls.
"""

import base64
import json
import time
import warnings
import zlib
from pathlib import Path

import numpy as np

from .. import __version__
from . import errors
from .transport import Transport

RECORDING_VERSION = 1


class BadRecording(errors.SpikeloomError):
    """The file is not a recording, is damaged, or of another version."""

    remedy = "Record the session again."


class ReplayDiverged(errors.SpikeloomError):
    """The driver asked for something else than when the session was recorded."""

    remedy = "Use the version of Spikeloom, the image and the calls of the recorded session."


def _pack(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(), 6)).decode()


def _unpack(text: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)


class Recorder:
    """A `driver.transport.Transport` that passes every call on to another and writes it down.

    Of what the host wrote to memory only the checksum is kept, of what the device wrote the contents.

    Parameters
    ----------
    transport : Transport
        Owned: `close` closes it.
    path : Path
        File to write.
    about : dict, optional
        Kept in the first line, for people.
    """

    def __init__(self, transport: Transport, path: Path, about: dict | None = None):
        self._transport, self._count = transport, 0
        self._file = open(path, "w", encoding="utf-8")
        self._write({"recording": RECORDING_VERSION, "spikeloom": __version__, "about": about or {}})

    def _write(self, record):
        if not self._file.closed:
            self._file.write(json.dumps(record, separators=(",", ":")) + "\n")

    def call(self, name: str, arguments: list, function, answer=lambda result: result):
        """Run a call and write it down, with the answer or the error that came of it."""
        try:
            result = function()
        except Exception as error:
            state = getattr(error, "state", {})
            self._write([name, arguments, None, {"type": type(error).__name__, "what": getattr(error, "what", str(error)),
                                                 "state": {key: _plain(value) for key, value in state.items()},
                                                 "remedy": getattr(error, "remedy", None)}])
            self._file.flush()
            raise
        self._write([name, arguments, answer(result)])
        return result

    @property
    def cycles(self) -> int | None:
        """Of the other transport."""
        return self.call("cycles", [], lambda: self._transport.cycles)

    def now(self) -> float:
        """Seconds, on the clock that the device lives by."""
        return self.call("now", [], getattr(self._transport, "now", time.perf_counter))

    def sleep(self, seconds: float) -> None:
        """Let time pass for the device."""
        self.call("sleep", [], lambda: getattr(self._transport, "sleep", time.sleep)(seconds))

    def read32(self, offset: int) -> int:
        """Read one register."""
        return self.call("read", [offset], lambda: self._transport.read32(offset), int)

    def write32(self, offset: int, value: int) -> None:
        """Write one register."""
        self.call("write", [offset, int(value)], lambda: self._transport.write32(offset, value))

    def allocate(self, nbytes: int) -> "_RecordedBuffer":
        """Allocate a buffer."""
        buffer = self.call("allocate", [nbytes], lambda: self._transport.allocate(nbytes), lambda made: made.address)
        buffer.array[:] = 0  # as in a replay: a flush keeps the checksum of all bytes
        self._count += 1
        return _RecordedBuffer(self, self._count - 1, buffer)

    def wait_interrupt(self, deadline_s: float, cycles: int | None = None) -> bool:
        """Wait until the interrupt line is high."""
        self._file.flush()  # what led to a crash of the board is then in the file
        return self.call("wait", [], lambda: self._transport.wait_interrupt(deadline_s, cycles), bool)

    def reset(self) -> None:
        """Reset the fabric."""
        self.call("reset", [], self._transport.reset)

    def close(self) -> None:
        """Close the other transport and the file. Twice is once."""
        if not self._file.closed:
            self.call("close", [], self._transport.close)
            self._file.close()
        else:
            self._transport.close()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class _RecordedBuffer:
    """Passes a buffer's calls on and writes them down."""

    def __init__(self, owner: Recorder, number: int, buffer):
        self._owner, self._number, self._buffer = owner, number, buffer
        self._seen = None

    @property
    def address(self) -> int:
        return self._buffer.address

    @property
    def array(self) -> np.ndarray:
        return self._buffer.array

    def flush(self) -> None:
        self._owner.call("flush", [self._number, zlib.crc32(self._buffer.array)], self._buffer.flush)

    def invalidate(self) -> None:
        self._owner.call("invalidate", [self._number], self._buffer.invalidate, lambda _: self._contents())

    def _contents(self):
        """What the device wrote; null where it is what was seen last."""
        packed = _pack(self._buffer.array)
        if packed == self._seen:
            return None
        self._seen = packed
        return packed

    def free(self) -> None:
        self._owner.call("free", [self._number], self._buffer.free)


def _plain(value):
    """A value of an error's state, as JSON can hold it."""
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)


class Replay:
    """A `driver.transport.Transport` without a device: answers each call as it was answered when recorded.

    Parameters
    ----------
    path : Path
        File that a `Recorder` wrote. Where a crash cut its last line, the lines before it are kept, with a warning.

    Raises
    ------
    BadRecording
        When the file cannot be read.
    """

    def __init__(self, path: Path):
        try:
            lines = [json.loads(line) for line in _whole_lines(Path(path))]
            head, self._calls = lines[0], lines[1:]
            version = head["recording"]
            for number, call in enumerate(self._calls, 2):
                _check_call(call, number)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise BadRecording(f"{path} is not a recording: {error}.") from error
        if version != RECORDING_VERSION:
            raise BadRecording(f"{path} has recording version {version}, this software replays {RECORDING_VERSION}.")
        self.path, self.about = Path(path), head.get("about", {})
        self._next, self._count, self._closed, self._failed = 0, 0, False, False

    def call(self, name: str, arguments: list):
        """The recorded answer of the next call, which must be this one."""
        if self._closed:
            raise errors.DeviceGone("The recording was closed.")
        wanted = self._calls[self._next][:2] if self._next < len(self._calls) else None
        if wanted != [name, arguments]:
            self._failed = True
            then = f"{wanted[0]}{tuple(wanted[1])} was recorded" if wanted else "the recording ends"
            raise ReplayDiverged(f"Call {self._next + 1} of {self.path.name}: {then}, but now {name}{tuple(arguments)} is asked for.")
        record = self._calls[self._next]
        self._next += 1
        if len(record) > 3:
            raise _error(record[3])
        return record[2]

    @property
    def cycles(self) -> int | None:
        """As recorded."""
        return self.call("cycles", [])

    def now(self) -> float:
        """The recorded time."""
        return self.call("now", [])

    def sleep(self, seconds: float) -> None:
        """Takes no time."""
        self.call("sleep", [])

    def read32(self, offset: int) -> int:
        """As recorded."""
        return self.call("read", [offset])

    def write32(self, offset: int, value: int) -> None:
        """Must be the recorded write."""
        self.call("write", [offset, int(value)])

    def allocate(self, nbytes: int) -> "_ReplayedBuffer":
        """A buffer at the recorded address."""
        address = self.call("allocate", [nbytes])
        self._count += 1
        return _ReplayedBuffer(self, self._count - 1, address, nbytes)

    def wait_interrupt(self, deadline_s: float, cycles: int | None = None) -> bool:
        """As recorded, at once."""
        return self.call("wait", [])

    def reset(self) -> None:
        """As recorded."""
        self.call("reset", [])

    def close(self) -> None:
        """Ends the replay, at the point where the session was closed. Twice is once.

        Raises
        ------
        ReplayDiverged
            When there is more in the recording, unless the replay has failed before.
        """
        if not self._closed:
            if not self._failed:
                self.call("close", [])
            self._closed = True

    def __enter__(self) -> "Replay":
        return self

    def __exit__(self, kind, *_) -> None:
        self._failed = self._failed or kind is not None
        self.close()


class _ReplayedBuffer:
    """Memory that shows what the device wrote when it was recorded."""

    def __init__(self, owner: Replay, number: int, address: int, nbytes: int):
        self._owner, self._number, self.address = owner, number, address
        self.array = np.zeros(nbytes, np.uint8)
        self._seen = None

    def flush(self) -> None:
        self._owner.call("flush", [self._number, zlib.crc32(self.array)])

    def invalidate(self) -> None:
        packed = self._owner.call("invalidate", [self._number])
        if packed is not None:
            try:
                self._seen = _unpack(packed)
            except (ValueError, TypeError, zlib.error) as error:
                raise BadRecording(f"{self._owner.path.name} is damaged in the contents of buffer {self._number}: {error}.") from error
        if self._seen is None or len(self._seen) != len(self.array):
            raise BadRecording(f"{self._owner.path.name} lacks the contents of buffer {self._number}.")
        self.array[:] = self._seen

    def free(self) -> None:
        self._owner.call("free", [self._number])


def _whole_lines(path):
    """The lines of a recording, but for a last one that was cut. Raises OSError, ValueError."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if len(lines) > 1 and not text.endswith("\n") and not _is_json(lines[-1]):
        warnings.warn(f"The last line of {path} was cut, as when a computer crashes while it records; {len(lines) - 2} calls are kept.",
                      stacklevel=3)
        lines.pop()
    return lines


def _is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _check_call(call, number):
    """A line is [name, arguments, answer], and what the call raised where it did. Raises ValueError."""
    whole = isinstance(call, list) and len(call) in (3, 4) and isinstance(call[0], str) and isinstance(call[1], list)
    if not whole or len(call) == 4 and not (isinstance(call[3], dict) and {"type", "what", "state", "remedy"} <= call[3].keys()):
        raise ValueError(f"line {number} is no call")


def _error(fields):
    """The error that a call ended with, of the type that it had where the driver knows it."""
    kind = getattr(errors, fields["type"], None)
    if isinstance(kind, type) and issubclass(kind, errors.SpikeloomError):
        return kind(fields["what"], state=fields["state"], remedy=fields["remedy"])
    builtin = {"MemoryError": MemoryError, "ValueError": ValueError}.get(fields["type"], RuntimeError)
    return builtin(fields["what"])
