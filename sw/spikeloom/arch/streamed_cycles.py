"""The cycle model's memory side: what the reader, the assembler and a memory make of rows that come over the bus.

Every stage hands over in order, so the time of each thing is the latest of what it waits for. Times are cycles after the
start of a command.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from .config import AcceleratorConfig, ceil_div
from .dram import Dram, DramState

#: Beats and bursts that may be on their way (more than the latency in cycles), longest burst, bytes that no burst crosses.
BEATS_OPEN, BURSTS_OPEN, BURST, PAGE = 256, 32, 16, 4096
#: Beats of the longest request, and rows that wait for their beats.
MAX_REQUEST_BEATS, ROW_QUEUE = 1 << 16, 64


@dataclass(frozen=True, kw_only=True)
class MemoryTiming:
    """Memory behind the AXI manager, as `spikeloom_sim.transport.Memory` simulates it."""

    #: Cycles from an address to its first beat, at least.
    latency: int = 24
    #: Beats per cycle, at most 1.
    rate: float = 1.0
    #: Bursts accepted before the first of them is answered.
    outstanding: int = 16
    #: What adds to the latency; commands begin at moments drawn from the seed.
    dram: Dram | None = None
    seed: int = 0

    def at(self, position: int) -> "MemoryTiming":
        """The same memory at the moments of another token."""
        return replace(self, seed=(self.seed << 16) + position + 1) if self.dram else self


def bursts(start: int, beats: int, beat_bytes: int) -> list[int]:
    """Beats of each burst of a run that begins at a byte offset: 16 at most, none across a page."""
    out, at, page = [], start // beat_bytes, PAGE // beat_bytes
    while beats:
        length = min(beats, BURST, page - at % page)
        out.append(length)
        at, beats = at + length, beats - length
    return out


class _Port:
    """A memory port: when the bursts of its reader are accepted and answered."""

    def __init__(self, memory: MemoryTiming, dram: DramState | None):
        self.memory, self.dram = memory, dram
        #: When the last burst was issued, its address accepted, and when each burst ended.
        self.issued, self.accepted = 0, -1
        self.ends: list[int] = []
        # In 1/256 beat, as the harness counts them.
        self._rate, self._most = max(1, round(256 * memory.rate)), 256 * BURST
        self._credit, self._counted = self._most, 0

    def issue(self, earliest: int) -> None:
        """A burst is issued when the one before has been accepted and the reader may have another one open."""
        self.issued = max(self.issued + 1, self.accepted, earliest)
        if len(self.ends) >= BURSTS_OPEN:
            self.issued = max(self.issued, self.ends[-BURSTS_OPEN] + 1)

    def answer(self, address: int, length: int, beat_bytes: int) -> Sequence[int]:
        """Cycles in which the beats of the burst come."""
        ends = self.ends
        self.accepted = self.issued + 1
        if len(ends) >= self.memory.outstanding:
            self.accepted = max(self.accepted, ends[-self.memory.outstanding] + 1)
        served = self.accepted + 1
        if self.dram is not None:
            served = self.dram.serve(served, address, length * beat_bytes)
        first = max(served + self.memory.latency, ends[-1] + 1 if ends else 0)
        arrivals = range(first, first + length) if self._rate >= 256 else [first := self._offer(first) for _ in range(length)]
        ends.append(arrivals[-1])
        return arrivals

    def _offer(self, earliest):
        """The first cycle from `earliest` on in which the memory's rate allows a beat."""
        earliest = max(earliest, self._counted)
        short = max(0, 256 - self._after(earliest + 1 - self._counted))
        at = earliest + ceil_div(short, self._rate)
        self._credit, self._counted = self._after(at + 1 - self._counted) - 256, at + 1
        return at

    def _after(self, cycles):
        """Credit after that many cycles without a beat."""
        steps = max(0, ceil_div(self._most - self._credit, self._rate))
        return self._credit + min(cycles, steps) * self._rate


class Reader:
    """The AXI readers of all ports and the memory behind them: when each beat (of all ports) of each request arrives.

    Parameters
    ----------
    cfg : AcceleratorConfig
    memory : MemoryTiming
    arrived : callable
        Told, after each burst, that `arrivals` has grown; it may add to `taken`.
    seed : object
        What a DRAM draws from.
    """

    def __init__(self, cfg: AcceleratorConfig, memory: MemoryTiming, arrived: Callable[[], None] = lambda: None, seed: object = 0):
        self._cfg, self._arrived = cfg, arrived
        dram = DramState(memory.dram, seed) if memory.dram else None
        #: Without a DRAM all ports do the same at the same time.
        self._ports = [_Port(memory, dram) for _ in range(cfg.ports if dram else 1)]
        #: First cycle in which the next request is accepted.
        self.free = 0
        #: Per beat: when it comes from memory, and when its user takes it (never before the cycle after).
        self.arrivals: list[int] = []
        self.taken: list[int] = []

    def request(self, accepted: int, start: int, nbytes: int) -> None:
        """Issue the bursts of a request that is accepted in that cycle."""
        cfg, ports = self._cfg, self._ports
        at = start // cfg.ports
        for port in ports:
            port.issued = accepted
        for length in bursts(at, ceil_div(nbytes, cfg.bus_bytes), cfg.beat_bytes):
            reserved = len(self.arrivals) + length - BEATS_OPEN
            room = self._handed_over(reserved - 1) + 1 if reserved > 0 else 0
            answers = []
            for number, port in enumerate(ports):
                port.issue(room)
                address = (at // PAGE * cfg.ports + number) * PAGE + at % PAGE
                answers.append(port.answer(address, length, cfg.beat_bytes))
            self.arrivals += answers[0] if len(ports) == 1 else map(max, *answers)
            at += length * cfg.beat_bytes
            self._arrived()
        self.free = max(port.issued for port in ports)

    def _handed_over(self, beat):
        """When a beat left the reader; where nobody told, as soon as it could."""
        return self.taken[beat] if beat < len(self.taken) else self.arrivals[beat] + 1


class _Run(NamedTuple):
    """Adjacent rows that are asked for in one request."""

    start: int
    nbytes: int


class StreamedCommand:
    """Rows of a streamed command, from the scheduler to the engine.

    Parameters
    ----------
    cfg : AcceleratorConfig
    memory : MemoryTiming
    address : int
        Byte offset of row 0.
    tiles, bits : int
        Of a row.
    """

    def __init__(self, cfg: AcceleratorConfig, memory: MemoryTiming, *, address: int, tiles: int, bits: int):
        self.address, self.tiles, self.row_bytes = address, tiles, tiles * cfg.cols * bits // 8
        #: Beats of a tile row, or tile rows of a beat.
        self.need, self.share = max(1, cfg.cols * bits // cfg.bus_width), max(1, cfg.bus_width // (cfg.cols * bits))
        self.reader = Reader(cfg, memory, self._take, seed=(memory.seed, address))
        self._most_bytes = MAX_REQUEST_BEATS // 2 * cfg.bus_bytes
        #: When the engine takes the last tile of each row, and the last tile row of all.
        self.ends: list[int] = []
        self._last, self._tile = 0, 0
        #: The request that waits for the reader, and from when on; what will be the next one.
        self._request: tuple[int, _Run] | None = None
        self._run: _Run | None = None
        #: Of the row before: when it was placed, staged, and gone to the queue.
        self._offered, self._placed, self._staged, self._gone = 1, 0, 0, 0
        self._before = -2
        self.rows = 0

    def ask(self, row: int, gap: int) -> None:
        """A row speaks, after so many empty scan words."""
        cycle = self._stage(gap)
        run = _Run(self.address + row * self.row_bytes, self.row_bytes)
        follows, self._before = row == self._before + 1, row
        while True:
            cycle = self._queued(cycle)
            if self._request is None:
                self._request = cycle + 1, run
                break
            taken = max(self._request[0], self.reader.free)
            if taken <= cycle:
                self._hand_over()
                if taken < cycle:
                    continue
                if self._request is None:
                    self._request = cycle + 1, run
                else:
                    self._run = run
                break
            if self._run is None:
                self._run = run
                break
            if follows and self._run.nbytes < self._most_bytes:
                self._run = _Run(self._run.start, self._run.nbytes + self.row_bytes)
                break
            cycle = taken
        self._gone = cycle
        self.rows += 1

    def finish(self, gap: int) -> list[int]:
        """No row is left; returns when the engine takes the marker of each tile."""
        cycle = self._queued(self._stage(gap))
        while self._request is not None:
            self._hand_over()
        first = max(cycle + 1, self._last + 1)
        return [first + tile for tile in range(self.tiles)]

    def _stage(self, gap):
        """The next event is found, placed and staged; returns the first cycle in which it may go on."""
        # The other tiles of the row before come first; they are passed over as they come.
        found = max(self._offered + gap, self._placed) if self.tiles == 1 or not self.rows else self._placed + self.tiles - 1 + gap
        self._offered = found + 1
        self._placed = max(found + 1, self._staged)
        self._staged = max(self._placed + 1, self._gone)
        return self._staged + 1

    def _queued(self, cycle):
        """The first cycle from there on in which the queue of rows has room."""
        full = self.rows - ROW_QUEUE
        if full < 0:
            return cycle
        while full >= len(self.ends):
            self._hand_over()
        return max(cycle, self.ends[full] + 1)

    def _hand_over(self):
        """The reader takes the request that waits."""
        since, run = self._request
        accepted = max(since, self.reader.free)
        self._request, self._run = (accepted + 1, self._run) if self._run else None, None
        self.reader.request(accepted, run.start, run.nbytes)

    def _take(self):
        """Beats have come: they go to the assembler, and whole tile rows to the engine."""
        reader, need, share = self.reader, self.need, self.share
        arrivals, taken = reader.arrivals, reader.taken
        if share == 1:
            taken += [arrival + 1 for arrival in arrivals[len(taken):]]
            whole = len(arrivals) // need
        else:
            whole = len(arrivals) * share
        done = len(self.ends) * self.tiles + self._tile
        for number in range(done, whole):
            self._last = max(arrivals[number // share * need + need - 1] + 2, self._last + 1)
            if share > 1 and number % share == 0:
                taken.append(self._last - 1)
            self._tile += 1
            if self._tile == self.tiles:
                self._tile = 0
                self.ends.append(self._last)


def streamed_markers(cfg: AcceleratorConfig, rows: Iterable[int], words: list[int], gaps: list[int], *, address: int,
                     tiles: int, bits: int, memory: MemoryTiming) -> list[int]:
    """Cycles in which the engine takes the marker of each tile of a streamed command.

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
    command, rows = StreamedCommand(cfg, memory, address=address, tiles=tiles, bits=bits), iter(rows)
    for count, gap in zip(words, gaps):
        for _ in range(count):
            command.ask(int(next(rows)), gap)
            gap = 0
    return command.finish(gaps[-1])
