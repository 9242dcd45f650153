"""DRAM behind the memory ports: what the simulator makes of it, and what the cycle model expects of it.

Banks with one open page each, one data bus for all ports, refresh of all banks at once, and a controller that serves bursts
in the order in which their addresses come. It neither reorders nor writes. Times are cycles of the machine's clock.
"""

import random
from dataclasses import dataclass

_UNKNOWN, _CLOSED = -2, -1


@dataclass(frozen=True, kw_only=True)
class Dram:
    """A DRAM and its controller; as it stands the 16-bit DDR3-1050 of a PYNQ-Z2 beside a core of 125 MHz."""

    banks: int = 8
    #: Consecutive pages lie in consecutive banks.
    page_bytes: int = 2048
    #: Closing a page and opening another (tRP + tRCD, 27.5 ns); another bank's data may come meanwhile.
    miss: int = 4
    #: Of the data bus: 2,100 MB/s.
    bytes_per_cycle: float = 16.8
    #: Every 7.8 microseconds all banks close for 260 ns.
    refresh_every: int = 975
    refresh: int = 33
    #: Most further cycles that a burst waits for others' (the processor's), drawn evenly.
    jitter: int = 16

    @property
    def bytes_per_256(self) -> int:
        """Bytes of the data bus in 256 cycles, as the simulator counts."""
        return round(256 * self.bytes_per_cycle)


class DramState:
    """Serves bursts; begins at a moment drawn from the seed. The first page that a bank is asked for is open at even odds.

    Parameters
    ----------
    dram : Dram
    seed : object
    """

    def __init__(self, dram: Dram, seed: object):
        self._dram, self._random = dram, random.Random(f"dram {seed}")
        self._open, self._free = [_UNKNOWN] * dram.banks, [0] * dram.banks
        self._bus_free = self._refreshed = 0
        self._phase = self._random.randrange(dram.refresh_every) if dram.refresh_every else 0

    def serve(self, cycle: int, address: int, nbytes: int) -> int:
        """The cycle in which the first bytes of a burst leave, whose address came in that cycle."""
        dram = self._dram
        start = (cycle + self._phase + self._random.randrange(dram.jitter + 1)) * 256
        page = address // dram.page_bytes
        bank = page % dram.banks
        data = max(start, self._free[bank])
        if self._open[bank] != page and (self._open[bank] != _UNKNOWN or self._random.randrange(2)):
            data += dram.miss * 256
        data = max(data, self._bus_free)
        period = data // (dram.refresh_every * 256) if dram.refresh_every else 0
        if period > self._refreshed:
            self._refreshed = period
            self._open = [_CLOSED] * dram.banks
            data = max(data, (period * dram.refresh_every + dram.refresh) * 256) + dram.miss * 256
        self._open[bank] = page
        self._bus_free = self._free[bank] = data + nbytes * 65536 // dram.bytes_per_256
        return data // 256 - self._phase
