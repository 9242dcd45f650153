"""What the driver asks of any device: registers, buffers in the device's memory, one interrupt.

The emulator, the Verilated gateware, a recording and a PYNQ board each provide a `Transport`; the driver knows no other
way to reach them. Nothing here is imported by the providers for inheritance: the protocols are structural.
"""

from types import TracebackType
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Buffer(Protocol):
    """Contiguous memory that both host and device can reach.

    Host and device may see different contents until told otherwise: after writing ``array`` the host calls `flush`
    before it starts the device, and after the device has written the host calls `invalidate` before it reads ``array``.
    Contents are undefined until first written.
    """

    @property
    def address(self) -> int:
        """Address of the first byte as the device sees it, in bytes; aligned to at least 4,096."""

    @property
    def array(self) -> np.ndarray:
        """The host's view: one-dimensional, ``uint8``, writable, the same object for the life of the buffer."""

    def flush(self) -> None:
        """Make what the host wrote visible to the device."""

    def invalidate(self) -> None:
        """Make what the device wrote visible to the host; unflushed writes of the host are lost."""

    def free(self) -> None:
        """Give the memory back. The device must have been stopped or reset before; twice is once."""


@runtime_checkable
class Transport(Protocol):
    """Access to one device.

    Offsets are bytes from the start of the register window and multiples of four. A transport belongs to one thread.
    """

    @property
    def cycles(self) -> int | None:
        """Clock cycles of the fabric since it was opened, or None where only the device's own counters know."""

    def read32(self, offset: int) -> int:
        """Read one register. Raises `DeadlineExpired` if the bus does not answer."""

    def write32(self, offset: int, value: int) -> None:
        """Write one register, and return when the write was answered. Raises `DeadlineExpired` if it was not."""

    def allocate(self, nbytes: int) -> Buffer:
        """Allocate a buffer of at least one byte. Raises `MemoryError` if the device's memory is full."""

    def wait_interrupt(self, deadline_s: float, cycles: int | None = None) -> bool:
        """Wait until the interrupt line is high; False when the deadline passed first.

        Level, not edge: returns at once while the line is high. ``deadline_s`` is wall-clock time; ``cycles`` is a
        further limit in clock cycles, which transports without a clock of their own ignore.
        """

    def reset(self) -> None:
        """Reset the fabric: all that a bitstream load would reset except the contents of memory."""

    def close(self) -> None:
        """Release the device; every later call raises `DeviceGone`. Twice is once."""

    def __enter__(self) -> "Transport": ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None: ...
