"""A board without pynq behind the driver's transport: registers through UIO or /dev/mem, memory through u-dma-buf.

For Linux systems that bring their own way of loading a bitstream (fpga_manager, a boot image). Needs a device tree node
for the core bound to `uio_pdrv_genirq` (or rights on /dev/mem), and the kernel module `u-dma-buf`.
"""

import mmap
import os
import select
import struct
import time
from pathlib import Path

import numpy as np

from ..arch.registers import WINDOW_BYTES, register_map
from .errors import DeviceGone, SpikeloomError

PAGE_BYTES = 4096
#: How long to sleep between two looks at the status register where there is no interrupt.
POLL_S = 0.0002
#: `sync_direction` of u-dma-buf.
_TO_DEVICE, _FROM_DEVICE = 1, 2


class NotConfigured(SpikeloomError):
    """Linux does not show the core or the buffer under the name that was given."""

    remedy = "See docs/boards.md for the device tree node and the kernel module that this needs."


class Window:
    """The register window of a mapped file: 32-bit accesses only.

    Parameters
    ----------
    path : Path
        `/dev/uioN`, or `/dev/mem`.
    offset : int
        Of the window in the file: 0, or the physical address.
    """

    def __init__(self, path: Path, offset: int = 0):
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_SYNC)
        except OSError as error:
            raise NotConfigured(f"The registers cannot be reached through {path}: {error.strerror}.") from error
        self._map = mmap.mmap(self.fd, WINDOW_BYTES, offset=offset)
        self._words = np.frombuffer(self._map, np.uint32)

    def __getitem__(self, index: int) -> int:
        return int(self._words[index])

    def __setitem__(self, index: int, value: int) -> None:
        self._words[index] = value

    def close(self) -> None:
        """Unmap."""
        self._words = None
        self._map.close()
        os.close(self.fd)


class UioInterrupt:
    """The interrupt of a UIO device: Linux masks it when it comes, a write unmasks it.

    Parameters
    ----------
    fd : int
        Of the open device.
    """

    def __init__(self, fd: int):
        self._fd = fd

    def wait(self, seconds: float) -> bool:
        """Unmask and wait; False when it did not come in time. One that came before counts as well."""
        os.write(self._fd, struct.pack("=I", 1))
        ready, _, _ = select.select([self._fd], [], [], max(0.0, seconds))
        if ready:
            os.read(self._fd, 4)
        return bool(ready)


class DmaMemory:
    """One u-dma-buf device, given out page by page.

    Parameters
    ----------
    name : str
        Such as `udmabuf0`.
    sysfs, dev : Path
        Where Linux shows devices.
    """

    def __init__(self, name: str, *, sysfs: Path = Path("/sys"), dev: Path = Path("/dev")):
        folders = [sysfs / "class" / kind / name for kind in ("u-dma-buf", "udmabuf")]
        self._folder = next((folder for folder in folders if folder.is_dir()), None)
        if self._folder is None:
            raise NotConfigured(f"There is no u-dma-buf of the name {name}.")
        self.address = int(self._attribute("phys_addr"), 0)
        self.nbytes = int(self._attribute("size"), 0)
        fd = os.open(dev / name, os.O_RDWR)
        try:
            self._map = mmap.mmap(fd, self.nbytes)
        finally:
            os.close(fd)
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._holes = [(0, self.nbytes // PAGE_BYTES * PAGE_BYTES)]

    def _attribute(self, name):
        return (self._folder / name).read_text().strip()

    def write_attribute(self, name: str, value: int) -> None:
        """Write a file of sysfs."""
        (self._folder / name).write_text(f"{value}\n")

    def sync(self, owner: str, offset: int, nbytes: int) -> None:
        """Hand a range over: to the `device` (write back) or to the `cpu` (forget what is cached)."""
        direction = _TO_DEVICE if owner == "device" else _FROM_DEVICE
        for name, value in (("sync_offset", offset), ("sync_size", nbytes), ("sync_direction", direction)):
            self.write_attribute(name, value)
        self.write_attribute(f"sync_for_{owner}", 1)

    def allocate(self, nbytes: int) -> "DmaBuffer":
        """The first hole that is large enough. Raises MemoryError."""
        pages = -(-nbytes // PAGE_BYTES) * PAGE_BYTES
        for number, (start, size) in enumerate(self._holes):
            if size >= pages:
                self._holes[number:number + 1] = [(start + pages, size - pages)] if size > pages else []
                return DmaBuffer(self, start, self._bytes[start:start + nbytes], pages)
        raise MemoryError(f"The u-dma-buf of {self.nbytes:,} bytes has no room for {nbytes:,} more; make it larger.")

    def give_back(self, start: int, pages: int) -> None:
        """Join a range with the holes beside it."""
        joined = []
        for hole, size in sorted([*self._holes, (start, pages)]):
            if joined and sum(joined[-1]) == hole:
                joined[-1] = (joined[-1][0], joined[-1][1] + size)
            else:
                joined.append((hole, size))
        self._holes = joined


class DmaBuffer:
    """A `driver.transport.Buffer`: whole pages of a `DmaMemory`."""

    def __init__(self, memory: DmaMemory, start: int, array: np.ndarray, pages: int):
        self._memory, self._start, self._array, self._pages = memory, start, array, pages

    @property
    def address(self) -> int:
        """Address of the first byte as the device sees it."""
        return self._memory.address + self._start

    @property
    def array(self) -> np.ndarray:
        """The host's view of the bytes."""
        return self._array

    def flush(self) -> None:
        """Make what the host wrote visible to the device."""
        self._memory.sync("device", self._start, self._pages)

    def invalidate(self) -> None:
        """Make what the device wrote visible to the host."""
        self._memory.sync("cpu", self._start, self._pages)

    def free(self) -> None:
        """Give the memory back; twice is once."""
        if self._pages:
            self._memory.give_back(self._start, self._pages)
            self._pages = 0


def find_uio(name: str, *, sysfs: Path = Path("/sys"), dev: Path = Path("/dev")) -> Path:
    """The device file of the UIO device of that name.

    Raises
    ------
    NotConfigured
        Names those that exist, or says that the register window of the one found is too small.
    """
    found = {(folder / "name").read_text().strip(): folder for folder in sorted((sysfs / "class" / "uio").glob("uio*"))}
    if name not in found:
        raise NotConfigured(f"There is no UIO device {name!r}; there are: {', '.join(found) or 'none'}.")
    size = int((found[name] / "maps" / "map0" / "size").read_text(), 0)
    if size < WINDOW_BYTES:
        raise NotConfigured(f"The register window of {name} has {size} bytes; the core's has {WINDOW_BYTES}.")
    return dev / found[name].name


class UioTransport:
    """A `driver.transport.Transport` over a register window and a `DmaMemory`.

    Parameters
    ----------
    window
        32-bit words by index: a `Window`.
    memory : DmaMemory
    interrupt : UioInterrupt, optional
        Without one the status register is polled.
    firmware : Path, optional
        `/sys/class/fpga_manager/fpga0/firmware`; with `bitstream`, how to reset the fabric.
    bitstream : str, optional
        Name of the file under /lib/firmware.
    """

    def __init__(self, window, memory: DmaMemory, *, interrupt: UioInterrupt | None = None, firmware: Path | None = None,
                 bitstream: str | None = None):
        self._window, self._memory, self._interrupt = window, memory, interrupt
        self._firmware, self._bitstream = firmware, bitstream
        registers = register_map(None)
        self._status, self._line = registers.address("status"), 1 << registers["status"].position_of("interrupt")[0]
        self.now, self.sleep = time.perf_counter, time.sleep

    @classmethod
    def from_uio(cls, name: str = "spikeloom", memory: str = "udmabuf0", *, sysfs: Path = Path("/sys"), dev: Path = Path("/dev"),
                 **options) -> "UioTransport":
        """Through the UIO device and the u-dma-buf of these names. Raises NotConfigured."""
        window = Window(find_uio(name, sysfs=sysfs, dev=dev))
        return cls(window, DmaMemory(memory, sysfs=sysfs, dev=dev), interrupt=UioInterrupt(window.fd), **options)

    @classmethod
    def from_memory(cls, address: int, memory: str = "udmabuf0", *, sysfs: Path = Path("/sys"), dev: Path = Path("/dev"),
                    **options) -> "UioTransport":
        """Through /dev/mem at a physical address, without an interrupt. Raises NotConfigured."""
        return cls(Window(dev / "mem", address), DmaMemory(memory, sysfs=sysfs, dev=dev), **options)

    def __enter__(self) -> "UioTransport":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _open(self):
        if self._window is None:
            raise DeviceGone("The board was closed.")
        return self._window

    @property
    def cycles(self) -> int | None:
        """None: only the device's own counters know."""
        return None

    def read32(self, offset: int) -> int:
        """Read one register."""
        return self._open()[offset >> 2]

    def write32(self, offset: int, value: int) -> None:
        """Write one register."""
        self._open()[offset >> 2] = value

    def allocate(self, nbytes: int) -> DmaBuffer:
        """Allocate pages of the u-dma-buf. Raises MemoryError."""
        self._open()
        if nbytes < 1:
            raise ValueError(f"A buffer has at least one byte, not {nbytes}.")
        return self._memory.allocate(nbytes)

    @property
    def interrupt(self) -> bool:
        """Level of the interrupt line, as the status register tells it."""
        return bool(self.read32(self._status) & self._line)

    def wait_interrupt(self, deadline_s: float, cycles: int | None = None) -> bool:
        """Wait until the interrupt line is high; False when the deadline passed first."""
        end = time.monotonic() + deadline_s
        while not self.interrupt:
            left = end - time.monotonic()
            if left <= 0:
                return False
            if self._interrupt is None:
                self.sleep(min(POLL_S, left))
            else:
                self._interrupt.wait(left)
        return True

    def reset(self) -> None:
        """Load the bitstream again through fpga_manager.

        Raises
        ------
        DeviceGone
            When the transport was not told how.
        """
        self._open()
        if self._firmware is None or self._bitstream is None:
            raise DeviceGone("This transport cannot reset the fabric.", remedy="Load the bitstream again and open the device anew.")
        self._firmware.write_text(self._bitstream)

    def close(self) -> None:
        """Unmap the registers. Twice is once."""
        if self._window is not None:
            self._window.close()
            self._window = None
