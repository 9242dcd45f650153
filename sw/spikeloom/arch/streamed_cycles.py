"""The cycle model's memory side: what the reader, the assembler and a memory make of rows that come over the bus.

Every stage hands over in order, so the time of each thing is the latest of what it waits for. Times are cycles after the
start of a command.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from .config import AcceleratorConfig, ceil_div

#: Beats and bursts that may be on their way, longest burst, bytes that no burst crosses.
BEATS_OPEN, BURSTS_OPEN, BURST, PAGE = 256, 32, 16, 4096
#: Events that wait for their beats.
EVENT_QUEUE = 64


@dataclass(frozen=True, kw_only=True)
class MemoryTiming:
    """Memory behind the AXI manager, as `spikeloom_sim.transport.Memory` simulates it."""

    #: Cycles from an address to its first beat, at least.
    latency: int = 24
    #: Beats per cycle, at most 1.
    rate: float = 1.0
    #: Bursts accepted before the first of them is answered.
    outstanding: int = 16


def bursts(start: int, beats: int, beat_bytes: int) -> list[int]:
    """Beats of each burst of a run that begins at a byte offset: 16 at most, none across a page."""
    out, at, page = [], start // beat_bytes, PAGE // beat_bytes
    while beats:
        length = min(beats, BURST, page - at % page)
        out.append(length)
        at, beats = at + length, beats - length
    return out


class Reader:
    """The AXI reader and the memory behind it: when each beat of each request arrives.

    Parameters
    ----------
    cfg : AcceleratorConfig
    memory : MemoryTiming
    """

    def __init__(self, cfg: AcceleratorConfig, memory: MemoryTiming):
        self.beat_bytes, self.memory = cfg.beat_bytes, memory
        #: First cycle in which the next request is accepted.
        self.free = 0
        #: Per beat: when it comes from memory, and when its user takes it (never before the cycle after).
        self.arrivals: list[int] = []
        self.taken: list[int] = []
        self._ends: list[int] = []  # of each burst
        self._accepted = -1         # address of the burst before
        # In 1/256 beat, as the harness counts them.
        self._rate, self._most = max(1, round(256 * memory.rate)), 256 * BURST
        self._credit, self._counted = self._most, 0

    def request(self, accepted: int, start: int, nbytes: int) -> None:
        """Issue the bursts of a request that is accepted in that cycle."""
        issued, ends, outstanding = accepted, self._ends, self.memory.outstanding
        for length in bursts(start, ceil_div(nbytes, self.beat_bytes), self.beat_bytes):
            issued = max(issued + 1, self._accepted)
            if len(ends) >= BURSTS_OPEN:
                issued = max(issued, ends[-BURSTS_OPEN] + 1)
            reserved = len(self.arrivals) + length - BEATS_OPEN
            if reserved > 0:
                issued = max(issued, self._handed_over(reserved - 1) + 1)
            self._accepted = issued + 1
            if len(ends) >= outstanding:
                self._accepted = max(self._accepted, ends[-outstanding] + 1)
            first = max(self._accepted + 1 + self.memory.latency, ends[-1] + 1 if ends else 0)
            if self._rate >= 256:
                self.arrivals += range(first, first + length)
            else:
                for _ in range(length):
                    first = self._offer(first) + 1
            ends.append(self.arrivals[-1])
        self.free = issued

    def _handed_over(self, beat):
        """When a beat left the reader; one of the request in work leaves as it comes."""
        return self.taken[beat] if beat < len(self.taken) else self.arrivals[beat] + 1

    def _offer(self, earliest):
        """The first cycle from `earliest` on in which the memory's rate allows a beat."""
        short = max(0, 256 - self._after(earliest + 1 - self._counted))
        at = earliest + ceil_div(short, self._rate)
        self._credit, self._counted = self._after(at + 1 - self._counted) - 256, at + 1
        self.arrivals.append(at)
        return at

    def _after(self, cycles):
        """Credit after that many cycles without a beat."""
        steps = max(0, ceil_div(self._most - self._credit, self._rate))
        return self._credit + min(cycles, steps) * self._rate


def streamed_markers(cfg: AcceleratorConfig, rows: Iterable[int], words: list[int], gaps: list[int], *, address: int,
                     tiles: int, bits: int, memory: MemoryTiming) -> list[int]:
    """Cycles in which the engine takes the marker of each tile of a streamed command.

    An event is found by the scheduler, staged, gone to the queue of events, and taken by the engine.

    Parameters
    ----------
    rows : ints, ascending
        Rows asked for.
    words, gaps : lists of int
        Events in each scan word, and cycles without any before them (last: before the markers).
    address : int
        Byte offset of row 0.
    tiles, bits : int
        Of a row.
    """
    reader, row_bytes = Reader(cfg, memory), tiles * cfg.cols * bits // 8
    #: Beats of a tile row, or tile rows of a beat.
    need, share = max(1, cfg.cols * bits // cfg.data_width), max(1, cfg.data_width // (cfg.cols * bits))
    found, staged, gone, accepted = 0, -1, -1, 0
    taken = [0]
    rows = iter(rows)
    for count, gap in zip(words, gaps):
        for _ in range(count):
            start, first = address + int(next(rows)) * row_bytes, len(reader.arrivals)
            for tile in range(tiles):
                found, gap = max(found + 1 + gap, staged), 0
                staged = max(found + 1, gone)
                gone = max(staged, gone) + 1
                if len(taken) > EVENT_QUEUE:
                    gone = max(gone, taken[-EVENT_QUEUE] + 1)
                if tile == 0:
                    gone = max(gone, accepted)
                    accepted = max(gone + 1, reader.free)
                    reader.request(accepted, start, row_bytes)
                word = first + tile // share * need
                taken.append(max(reader.arrivals[word + need - 1] + 2, taken[-1] + 1))
                if share == 1:
                    reader.taken += [arrival + 1 for arrival in reader.arrivals[word:word + need]]
                elif tile % share == 0:
                    reader.taken.append(taken[-1] - 1)
    found += gaps[-1]
    for _ in range(tiles):
        found = max(found + 1, staged)
        staged = max(found + 1, gone)
        gone = staged + 1
        taken.append(max(gone + 1, taken[-1] + 1))
    return taken[-tiles:]
