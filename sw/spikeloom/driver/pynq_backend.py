"""A PYNQ board behind the driver's transport.

The one module of the driver that speaks to pynq, which it imports when a buffer is allocated. It is the same on pynq 3.0,
3.1 and 4.0, on Zynq-7000 and on Zynq UltraScale+.
"""

import asyncio
import time
import warnings
from collections.abc import Callable

import numpy as np

from ..arch.registers import register_map
from .errors import DeviceGone, SpikeloomError

#: How long to sleep between two looks at the status register where there is no interrupt.
POLL_S = 0.0002
PAGE_BYTES = 4096


class OutOfReach(SpikeloomError, MemoryError):
    """A buffer lies where the device's memory ports cannot reach."""

    remedy = ("Allocate it in the low 2 GB: on a KV260 let CMA lie there (kernel argument cma=512M@0-0x7fffffff), or map the high "
              "half of the memory in the block design.")


class PynqBuffer:
    """A `driver.transport.Buffer` of `pynq.allocate`.

    Parameters
    ----------
    memory : pynq.buffer.PynqBuffer
        One-dimensional, uint8.
    """

    def __init__(self, memory):
        self._memory = memory
        self._address = int(memory.device_address)
        self._array = memory.view(np.ndarray)

    def _alive(self):
        if self._memory is None:
            raise DeviceGone("This buffer was given back.", remedy="Allocate another one.")
        return self._memory

    @property
    def address(self) -> int:
        """Address of the first byte as the device sees it."""
        return self._address

    @property
    def array(self) -> np.ndarray:
        """The host's view of the bytes."""
        self._alive()
        return self._array

    def flush(self) -> None:
        """Make what the host wrote visible to the device."""
        self._alive().flush()

    def invalidate(self) -> None:
        """Make what the device wrote visible to the host."""
        self._alive().invalidate()

    def free(self) -> None:
        """Give the memory back as soon as nobody looks at it any more."""
        # pynq unmaps a buffer with its last reference; unmapping it earlier would make other views of it deadly.
        self._memory = self._array = None


class PynqTransport:
    """A `driver.transport.Transport` over a `pynq.MMIO`.

    A register access that nobody answers stops the processor of a Zynq: no deadline can help there. It happens when the
    fabric has no clock or holds another design than the description beside the bitstream says; `board.overlay` therefore
    loads both together.

    Parameters
    ----------
    mmio : pynq.MMIO
        The register window.
    device : pynq.Device, optional
        Where buffers are allocated; pynq's active device unless told.
    interrupt : pynq.Interrupt, optional
        Of the core; without one the status register is polled.
    download : callable, optional
        Loads the bitstream again: the only reset of the fabric.
    address_width : int
        Bits of an address that the device can put on its memory ports.
    """

    def __init__(self, mmio, *, device=None, interrupt=None, download: Callable[[], None] | None = None, address_width: int = 40):
        self._mmio, self._device, self._interrupt, self._download = mmio, device, interrupt, download
        self._reach = 1 << address_width
        self._buffers: list[PynqBuffer] = []
        registers = register_map(None)
        self._status, self._line = registers.address("status"), 1 << registers["status"].position_of("interrupt")[0]
        # A simulated device has a time of its own; on a board time is what the wall says.
        self.now = getattr(device, "now", time.perf_counter)
        self.sleep = getattr(device, "sleep", time.sleep)

    def __enter__(self) -> "PynqTransport":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _open(self):
        if self._mmio is None:
            raise DeviceGone("The board was closed.")
        return self._mmio

    @property
    def cycles(self) -> int | None:
        """None: only the device's own counters know."""
        return None

    def read32(self, offset: int) -> int:
        """Read one register."""
        return self._open().read(offset)

    def write32(self, offset: int, value: int) -> None:
        """Write one register."""
        self._open().write(offset, int(value))  # pynq takes no integers of numpy

    def allocate(self, nbytes: int) -> PynqBuffer:
        """Allocate contiguous memory.

        Raises
        ------
        MemoryError
            When there is none, or none that the device can reach (`OutOfReach`).
        """
        import pynq

        self._open()
        if nbytes < 1:
            raise ValueError(f"A buffer has at least one byte, not {nbytes}.")
        try:
            buffer = PynqBuffer(pynq.allocate((nbytes,), np.uint8, target=self._device))
        except (RuntimeError, OSError, MemoryError) as error:
            raise MemoryError(f"The board has no {nbytes:,} bytes of contiguous memory left ({error}). Free other buffers, or give CMA "
                              "more memory (kernel argument cma=).") from error
        if buffer.address + nbytes > self._reach:
            raise OutOfReach(f"The buffer at {buffer.address:#x} lies above {self._reach:#x}, the end of what the device can address.")
        if buffer.address % PAGE_BYTES:
            raise MemoryError(f"pynq gave a buffer at {buffer.address:#x}, which is not the start of a page.")
        self._buffers.append(buffer)
        return buffer

    @property
    def interrupt(self) -> bool:
        """Level of the interrupt line, as the status register tells it."""
        return bool(self.read32(self._status) & self._line)

    def wait_interrupt(self, deadline_s: float, cycles: int | None = None) -> bool:
        """Wait until the interrupt line is high; False when the deadline passed first."""
        end = time.monotonic() + deadline_s
        loop = self._loop()
        while not self.interrupt:
            left = end - time.monotonic()
            if left <= 0:
                return False
            if loop is None:
                self.sleep(min(POLL_S, left))
            else:
                loop.run_until_complete(self._wait(left))
        return True

    def _loop(self):
        """The event loop that pynq's interrupts live in, where it can be run from here; None: poll.

        In a notebook the loop is running already, for as long as the cell does.
        """
        if self._interrupt is None:
            return None
        try:
            asyncio.get_running_loop()
            return None
        except RuntimeError:
            pass
        try:
            with warnings.catch_warnings():  # Python 3.12 has one for those who want a loop before there is one; pynq makes it so, too
                warnings.simplefilter("ignore", DeprecationWarning)
                return asyncio.get_event_loop_policy().get_event_loop()
        except RuntimeError:
            return None  # another thread than the one that opened the overlay

    async def _wait(self, seconds):
        try:
            await asyncio.wait_for(self._interrupt.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    def reset(self) -> None:
        """Load the bitstream again.

        Raises
        ------
        DeviceGone
            When the transport was not told how.
        """
        self._open()
        if self._download is None:
            raise DeviceGone("This transport cannot reset the fabric.", remedy="Load the bitstream again and open the device anew.")
        self._download()

    def close(self) -> None:
        """Give all buffers back; the bitstream stays. Twice is once."""
        for buffer in self._buffers:
            buffer.free()
        self._buffers.clear()
        self._mmio = None
