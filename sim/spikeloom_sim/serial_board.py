"""A Verilated board at a serial port of this computer: what a USB adapter would be, a pseudo-terminal is here."""

import ctypes
import os
import select
import threading
import time
import tty
from collections.abc import Callable
from pathlib import Path

from spikeloom.arch.config import AcceleratorConfig
from spikeloom_hw.boards.serial_core import SerialCore
from spikeloom_hw.export import port_list, to_verilog
from spikeloom_hw.shell import Shell

from . import verilator

HARNESS = Path(__file__).with_name("serial_harness.cpp")
#: Clock and rate of the simulated board: as few clocks per bit as the receiver can do with.
CLOCK_HZ, BAUD = 4_000_000, 1_000_000
#: Until it asks memory again: long beside what a thread of the host may sleep while the simulation runs on.
PATIENCE_S = 0.015
#: Cycles between two looks at the port, while bytes come and go.
_SLICE = 400
#: After so many cycles without a byte the simulation runs in longer slices, and leaves the processor to the host between them.
_QUIET, _QUIET_SLICE, _REST_S = 4_000, 2_000, 0.0005
_MOST = 4096
_u64, _int, _handle, _bytes = ctypes.c_uint64, ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p
_FUNCTIONS = {
    "serial_open": (_handle, [_u64, _int]), "serial_close": (None, [_handle]), "serial_cycles": (_u64, [_handle]),
    "serial_broken": (_u64, [_handle]), "serial_lamps": (_int, [_handle]), "serial_stopped": (_bytes, [_handle]),
    "serial_reset": (None, [_handle, _u64]), "serial_put": (None, [_handle, _bytes, _u64]), "serial_run": (None, [_handle, _u64]),
    "serial_get": (_u64, [_handle, _bytes, _u64]),
}


class SerialBoard:
    """`SerialCore`, Verilated, running in a thread of its own behind a pseudo-terminal.

    Parameters
    ----------
    cfg : AcceleratorConfig
    damage_in, damage_out : callable
        bytes -> bytes: what happens to bytes on their way to the board and from it; see `serial_line.Damage`.
    seed : int
        Registers without a reset start from random values of this seed.
    progress : callable
        Told when a simulator is built.
    """

    def __init__(self, cfg: AcceleratorConfig, *, damage_in: Callable[[bytes], bytes] = bytes,
                 damage_out: Callable[[bytes], bytes] = bytes, seed: int = 1, progress: Callable[[str], None] = verilator.announce):
        self.damage_in, self.damage_out = damage_in, damage_out
        top, name = Shell(SerialCore(cfg, clock_hz=CLOCK_HZ, baud=BAUD, patience_s=PATIENCE_S)), f"serial_{cfg.name}"
        library = verilator.build(to_verilog(top, name), port_list(top), name, verilator.Options(scramble=True),
                                  progress=progress, harness=HARNESS)
        self._lib = ctypes.CDLL(str(library))
        for function, (result, arguments) in _FUNCTIONS.items():
            getattr(self._lib, function).restype, getattr(self._lib, function).argtypes = result, arguments
        self._board = self._lib.serial_open(seed, CLOCK_HZ // BAUD)
        self._lib.serial_reset(self._board, 16)
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        #: The port to open.
        self.port = os.ttyname(self._slave)
        self._reset, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="spikeloom-serial-board", daemon=True)
        self._thread.start()

    def _run(self):
        taken, quiet = ctypes.create_string_buffer(_MOST), 0
        while not self._end.is_set() and not self.stopped:
            if self._reset.is_set():
                self._lib.serial_reset(self._board, 16)
                self._reset.clear()
            if select.select([self._master], [], [], _REST_S if quiet > _QUIET else 0)[0]:
                data = self.damage_in(os.read(self._master, _MOST))
                self._lib.serial_put(self._board, data, len(data))
                quiet = 0
            cycles = _QUIET_SLICE if quiet > _QUIET else _SLICE
            self._lib.serial_run(self._board, cycles)
            quiet += cycles
            count = self._lib.serial_get(self._board, taken, _MOST)
            if count:
                os.write(self._master, self.damage_out(taken.raw[:count]))
                quiet = 0

    @property
    def stopped(self) -> str:
        """Why the design stopped itself (an assertion); empty while it runs."""
        return self._lib.serial_stopped(self._board).decode()

    @property
    def cycles(self) -> int:
        """Clock cycles so far."""
        return self._lib.serial_cycles(self._board)

    @property
    def lamps(self) -> int:
        """The lamps of `SerialCore`."""
        return self._lib.serial_lamps(self._board)

    @property
    def broken_bytes(self) -> int:
        """Bytes that the board sent without a stop bit: none, unless it is wrong."""
        return self._lib.serial_broken(self._board)

    def press_reset(self) -> None:
        """Push the board's reset button."""
        self._reset.set()
        while self._reset.is_set() and self._thread.is_alive():
            time.sleep(0.001)

    def close(self) -> None:
        """End the simulation and take the port away."""
        if self._board is None:
            return
        self._end.set()
        self._thread.join(timeout=10)
        os.close(self._master)
        os.close(self._slave)
        self._lib.serial_close(self._board)
        self._board = None

    def __enter__(self) -> "SerialBoard":
        return self

    def __exit__(self, *_) -> None:
        self.close()
