"""A board that pynq believes in: a `pynq` Device whose programmable logic is a Verilated machine.

Everything goes through pynq's public faces (overlay, MMIO, allocate, flush, invalidate) but for two hooks that are private
to it: where interrupts of the processor come from, and who sets the fabric's clock. Host and device see different memory
until it is flushed or invalidated, and both start from poison, so that a forgotten call shows as it would on a board.
"""

import asyncio
import struct
from pathlib import Path

import numpy as np
import pynq.overlay
from pynq.buffer import PynqBuffer
from pynq.interrupt import _InterruptController
from pynq.pl_server.device import Device
from pynqmetadata.frontends import Metadata

from spikeloom.arch.presets import preset

from .machine import open_machine
from .transport import RtlTransport

try:  # pynq 4.0 moved it
    from pynqmetadata.views.runtime import RuntimeMetadataParser
except ImportError:
    from pynq.metadata.runtime_metadata_parser import RuntimeMetadataParser

#: What unflushed memory of the host reads as; the device's reads as 0xA5 (`transport.RtlBuffer`).
HOST_POISON = 0x5A
#: Cycles between two looks at the event loop while an interrupt is awaited, and most of one sleep.
_STEP, _LONGEST_SLEEP = 2_000, 60_000
_CONTROLLER = "axi_intc"


def write_bitstream(path: Path, machine: str) -> None:
    """A file that stands for the bitstream of a preset."""
    path.write_text(f"simulated {machine}\n")


class _Clocks:
    """Stands in for pynq's access to the clock dividers of a processor."""

    def __init__(self, board: "SimulatedBoard"):
        self._board = board

    def set_device(self, device) -> None:
        """pynq 4.0 says which device; there is one."""

    def set_pl_clk(self, number, div0=None, div1=None, clk_mhz=100.0) -> None:
        """pynq 3.1 sets dividers, 4.0 the clock."""
        if number == 0:
            self._board.mhz = float(clk_mhz) if div0 is None else self._board.pll_mhz / div0 / div1


class _Uio:
    """Stands in for `pynq.uio.UioController`: an interrupt input of the processor."""

    def __init__(self, board: "SimulatedBoard"):
        self._board = board
        self.waits = 0

    def add_event(self, event, number) -> None:
        """Call `event.set` once the line is high."""
        self.waits += 1
        asyncio.ensure_future(self._poll(event))

    async def _poll(self, event):
        while not self._board.processor_interrupt:
            self._board.rtl.wait_interrupt(1.0, _STEP)
            await asyncio.sleep(0)
        event.set()


class _Controller:
    """Registers of an AXI interrupt controller with one level-sensitive input."""

    ISR, IPR, IER, IAR, SIE, CIE, IVR, MER = range(0, 0x20, 4)

    def __init__(self, board: "SimulatedBoard"):
        self._board, self.enabled, self.master = board, 0, 0

    @property
    def pending(self) -> int:
        """Inputs that are high and enabled."""
        return int(self._board.rtl.interrupt) & self.enabled

    def read(self, offset: int) -> int:
        """One register."""
        return {self.ISR: int(self._board.rtl.interrupt), self.IPR: self.pending, self.IER: self.enabled, self.MER: self.master}[offset]

    def write(self, offset: int, value: int) -> None:
        """One register."""
        if offset in (self.IER, 0x08):
            self.enabled = value
        elif offset == self.SIE:
            self.enabled |= value
        elif offset == self.CIE:
            self.enabled &= ~value
        elif offset == self.MER:
            self.master = value


class SimulatedBoard(Device):
    """A board of one device; `install` makes it the one that pynq finds.

    Parameters
    ----------
    options
        For `machine.open_machine`, once a bitstream is downloaded.
    """

    def __init__(self, **options):
        super().__init__("simulated")
        self.name, self.timestamp, self.bitfile_name = "Simulated", "", ""
        self.capabilities = {"REGISTER_RW": True, "CALLABLE": False}
        self.rtl: RtlTransport | None = None
        self.machine = ""
        #: Clock of the fabric, as pynq set it, and the PLL it comes from.
        self.mhz, self.pll_mhz = 100.0, 1000.0
        #: Downloads, flushes and invalidates that were seen.
        self.downloads, self.flushes, self.invalidates = 0, 0, 0
        self.controller, self.uio = _Controller(self), _Uio(self)
        self._options, self._windows = options, []

    # -- bitstream --------------------------------------------------------------------------------------------

    def get_bitfile_metadata(self, bitfile_name, partial=False):
        """As pynq's device of a board does it: the .hwh beside the bitstream."""
        parser = RuntimeMetadataParser(Metadata(input=Path(bitfile_name).with_suffix(".hwh")))
        # The graph is for `generate cache` only, which writes into pynq's own folder.
        parser.systemgraph = None
        return parser

    def download(self, bitstream, parser=None) -> None:
        """Become the machine that the bitstream stands for; memory keeps its contents."""
        parser = parser or self.get_bitfile_metadata(bitstream.bitfile_name)
        machine = Path(bitstream.bitfile_name).read_text().split()[1]
        self.downloads += 1
        if self.rtl is not None and machine == self.machine:
            self.rtl.reset()
        else:
            if self.rtl is not None:
                self.rtl.close()
            # The small machine starts from random registers, as a board might, and shares its build with other tests.
            options = {"scramble": machine == "tiny"} | self._options
            self.rtl, self.machine = open_machine(preset(machine), **options), machine
        self._windows = [(entry["phys_addr"], entry["addr_range"], _CONTROLLER in entry["type"])
                         for entry in parser.ip_dict.values() if "phys_addr" in entry]
        _InterruptController._uio_devices.clear()
        for controller in parser.interrupt_controllers.values():
            _InterruptController._uio_devices[controller["raw_irq"]] = self.uio
        self.post_download(bitstream, parser)

    # -- time -------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds of simulated time."""
        return self.rtl.cycles / (self.mhz * 1e6)

    def sleep(self, seconds: float) -> None:
        """Let simulated time pass: less where the interrupt comes first, or where it would take too long."""
        self.rtl.wait_interrupt(60.0, int(min(max(1, seconds * self.mhz * 1e6), _LONGEST_SLEEP)))

    @property
    def processor_interrupt(self) -> bool:
        """Level of the controller's output."""
        return self.controller.master & 1 == 1 and self.controller.pending != 0

    # -- registers --------------------------------------------------------------------------------------------

    def _find(self, address):
        for base, size, is_controller in self._windows:
            if base <= address < base + size:
                return address - base, is_controller
        raise MemoryError(f"A board would hang: nothing answers at {address:#x}.")

    def read_registers(self, address: int, length: int) -> bytes:
        """What pynq's MMIO asks for."""
        offset, is_controller = self._find(address)
        read = self.controller.read if is_controller else self.rtl.read32
        return b"".join(struct.pack("<I", read(offset + i)) for i in range(0, length, 4))

    def write_registers(self, address: int, data: bytes) -> None:
        """What pynq's MMIO asks for."""
        offset, is_controller = self._find(address)
        write = self.controller.write if is_controller else self.rtl.write32
        for i in range(0, len(data), 4):
            write(offset + i, int.from_bytes(bytes(data[i:i + 4]), "little"))

    # -- memory -----------------------------------------------------------------------------------------------

    def allocate(self, shape, dtype="u4", **_) -> PynqBuffer:
        """A buffer whose host side is a copy of its own."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = self.rtl.allocate(nbytes)
        memory.array[:] = HOST_POISON
        buffer = PynqBuffer(shape, dtype, buffer=memory.array.data, device=self, device_address=memory.address, bo=memory)
        buffer.pointer, buffer.return_to, buffer.memory, buffer.freed = memory, self, self, True
        return buffer

    def return_pointer(self, memory) -> None:
        """pynq gives a buffer back."""
        memory.free()

    def flush(self, memory, offset, _, nbytes) -> None:
        """Host to device."""
        self.flushes += 1
        memory._device_view[offset:offset + nbytes] = memory.array[offset:offset + nbytes]

    def invalidate(self, memory, offset, _, nbytes) -> None:
        """Device to host."""
        self.invalidates += 1
        memory.array[offset:offset + nbytes] = memory._device_view[offset:offset + nbytes]


def install(**options) -> SimulatedBoard:
    """Make a simulated board pynq's active device."""
    board = SimulatedBoard(**options)
    Device.active_device = board
    pynq.overlay.Clocks = _Clocks(board)
    return board
