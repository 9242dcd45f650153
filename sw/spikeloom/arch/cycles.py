"""The cycle model: what each command costs on a machine, in plain numbers, without gates.

Times follow the gateware stage by stage. A run (`run_cycles`) comes out to the cycle with resident rows, and with streamed
rows too where the memory is what `MemoryTiming` says: answers in order, after a fixed latency, at a steady rate. Refresh,
other managers and stalls are not in it, nor are writes of records that wait for the bus.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .commands import STATELESS, Attention, Command, Memory, Opcode, Order, Sink
from .config import WEIGHT_BITS, AcceleratorConfig, ceil_div
from .streamed_cycles import MemoryTiming, Reader, streamed_markers

#: NEXT, READ, CHECK, the fetch and the dispatch of the first command, then HALT and TOKEN_END: cycles of a token beside its
#: commands.
TOKEN_OVERHEAD = 9
#: The same of a position in a sweep of an ENCODE run, with SWEEP in their place.
SWEEP_OVERHEAD = 9
#: START: cycles of a command before its unit sees it.
COMMAND_OVERHEAD = 1
#: From the dispatch of a command to that of the next at the earliest.
FETCH = 4
#: A command that is passed over costs the fetch of the next one.
SKIPPED = FETCH
#: A command that cannot be dispatched with the end of the one before: after a PICK, after one that was passed over, or where the one
#: before took less than a fetch.
DISPATCH = 1
#: From an event found to the engine that takes it, less one: scheduler and row source.
_FOUND_TO_TAKEN = 2
#: Neuron unit: from reading a group to its result; adding its spikes into the stream takes one more.
_NEURON, _ADD_SPIKES = 3, 1
#: Attention: cycles of a row beside its scan and its winners, one less where there are no ranks; from asking for a row of keys to its
#: first hits (SFSA, SSA).
_ATTENTION, _HITS = 6, 4
#: Hash of the sampler, and from a candidate to its place among the noisy ones.
_HASH, _NOISE = 4, 7
#: Words of one request of a LOAD, a power of two.
LOAD_WORDS = 256
#: Dumper: cycles of a group beside its beats.
_DUMP = 4


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """PICK among the `top_k` best (0: all) of `vocabulary` tokens."""

    top_k: int = 0
    vocabulary: int = 2


@dataclass
class Border:
    """What a command of a section meets of those before it.

    Members
    -------
    before, rows : Command or None, ascending ints
        `before` and `before_rows` of `command_cycles`.
    wait : int
        Cycles until the command is dispatched, beside those of `command_cycles`.
    """

    before: Command | None = None
    rows: Sequence[int] = ()
    wait: int = 0
    _ran: bool = False

    def pass_over(self) -> None:
        """A command did not run. The first of a section is dispatched on its own anyway: the next one waits behind others alone."""
        self.before, self.rows, self.wait = None, (), DISPATCH * self._ran

    def follow(self, command: Command, rows: Sequence[int], cycles: int) -> None:
        """A command asked for these rows and ran for so many cycles, its wait aside."""
        self.before, self.rows = (command, rows) if command.opcode in (Opcode.LINEAR, Opcode.EMBED) else (None, ())
        self.wait, self._ran = DISPATCH * (command.opcode == Opcode.PICK or cycles < FETCH), True


@dataclass
class Background:
    """A LOAD that goes on behind the commands after it; streamed rows, the next LOAD and the end of the section or sweep wait for it.

    Each word of the resident rows takes a cycle of them, which the engine then goes without: of that the model knows the mean.

    Members
    -------
    left : int
        Cycles that the LOAD takes beside its start; 0: none goes on.
    command : Command or None
        The last such LOAD.
    """

    left: int = 0
    command: Command | None = None
    _quiet: int = 0
    _worked: int = 0
    _added: int = 0

    def begin(self, command: Command, cycles: int, memory: MemoryTiming | None = None) -> int:
        """Cycles after which the command behind a LOAD of so many cycles goes on: all of them, unless it is one of this kind."""
        if not command["l_ahead"]:
            return cycles
        self.left, self.command, self._worked, self._added = cycles, command, 0, 0
        self._quiet = min((memory or MemoryTiming()).latency, cycles - 1)
        return COMMAND_OVERHEAD + 1

    def work(self, cycles: int, adding: int) -> None:
        """Commands took so many cycles, in so many of which the engine added rows."""
        if self.left:
            self._worked, self._added = self._worked + cycles, self._added + adding

    def settle(self) -> int:
        """Cycles that it has cost beside those of the commands, where something waits for it."""
        if not self.left:
            return 0
        # Cycles of the rows that words take, and by which the commands are slower as long as words come.
        coming = self.left - self._quiet
        words = self.command["l_words"] * (self.command["l_memory"] == Memory.RESIDENT)
        share, adding = min(words / coming, 0.99), self._added / max(1, self._worked)
        slower = 1 + adding * share / (1 - share)
        done = self._quiet + coming / slower
        waited = self.left - self._worked if done > self._worked else self.left - done
        self.left = 0
        return round(waited)


def command_cycles(cfg: AcceleratorConfig, command: Command, *, rows: Sequence[int] = (), position: int = 0,
                   last_position: int | None = None, memory: MemoryTiming | None = None, sampling: Sampling | None = None,
                   before: Command | None = None, before_rows: Sequence[int] = (), hits: Sequence[int] = ()) -> int:
    """Cycles from the end of one command to the end of the next.

    Parameters
    ----------
    cfg : AcceleratorConfig
    command : Command
    rows : ascending ints
        Rows asked for (EMBED, LINEAR): the neurons that spoke, or all in dense mode.
    position, last_position : int
        Of the token (ATTEND); the last one of the text, where attention looks both ways.
    memory : MemoryTiming, optional
        For streamed rows and LOAD.
    sampling : Sampling, optional
        For PICK; greedy where not given.
    before : Command, optional
        The LINEAR or EMBED right before. A PICK waits for its last logits, an ATTEND scans while keys and values are made, and a
        FIRE of the stream that it writes needs no start of its own. The rows of a LINEAR begin on the first spikes of the one before
        (which itself is taken not to have begun early).
    before_rows : ascending ints
        Rows that this LINEAR asked for (ATTEND, LINEAR).
    hits : ints
        `most_hits` of an ATTEND that does not compete.

    Returns
    -------
    int
        Exact, but for DUMP: about.
    """
    memory, opcode = (memory or MemoryTiming()).at(position), command.opcode
    if opcode == Opcode.HALT:
        return 0  # in TOKEN_OVERHEAD
    if opcode == Opcode.FIRE:
        if _is_chained(before, command):
            added = before["sink"] == Sink.ADD_SPIKES
            first = _NEURON + added + 1
            groups = command["groups"] + max(added, first - before["tiles"] * cfg.groups_per_tile) - added
            return max(groups, FETCH - DISPATCH)
        busy = _fired(command)
    elif opcode == Opcode.ATTEND:
        last = last_position if command["bidirectional"] and last_position is not None else position
        ahead = _ahead(cfg, command, before, np.asarray(before_rows, np.int64), memory)
        busy = _attention(cfg, command, last, ahead, hits) + _fired(command)
    elif opcode == Opcode.PICK:
        busy = _pick(cfg, sampling, before) + 1
    elif opcode == Opcode.LOAD:
        busy = _load(cfg, command, memory)
    elif opcode == Opcode.DUMP:
        busy = command["groups"] * (_DUMP + cfg.lanes * 32 // cfg.data_width)
    else:
        markers = None
        if _runs_ahead(before, command):
            markers = _markers_ahead(cfg, command, rows, before, np.asarray(before_rows, np.int64), memory)
        busy = _rows(cfg, command, np.asarray(rows, np.int64), memory, markers)
    return busy + COMMAND_OVERHEAD


def _is_chained(before, command):
    """Whether a FIRE begins by itself behind the last group of the command before."""
    return (before is not None and before["sink"] in (Sink.RESIDUAL, Sink.ADD_SPIKES, Sink.SET, Sink.SET_SPIKES)
            and before["stream"] == command["stream"] and command["groups"] >= before["groups"]
            and (command["neuron"] in STATELESS or before["sink"] in (Sink.RESIDUAL, Sink.SET) or _apart(before, command)))


def _apart(before, command):
    """Whether two passes have membranes of their own."""
    (one, groups), (other, others) = ((c["params"], c["groups"]) for c in (before, command))
    return one + groups <= other or other + others <= one


def _fired(command):
    """Cycles of the neurons of a FIRE or ATTEND: a group per cycle, one more where there are membranes."""
    return command["groups"] + _NEURON + (command["neuron"] not in STATELESS)


def scan_cycles(last_row: int, ahead: int = 0, hits: Sequence[int] = ()) -> int:
    """Cycles in which attention scans rows of scores 0..last_row, one per cycle, once it has begun.

    Parameters
    ----------
    last_row : int
    ahead : int
        Cycles that were spent before, on all but the last row.
    hits : ints
        SFSA and SSA: per row, how many of its positions count for the head that has most of them. The scan waits for all but one.
    """
    held = np.maximum(np.asarray(hits, np.int64) - 1, 0)
    before = held[:last_row]
    begins = np.arange(len(before)) + _HITS + np.cumsum(before) - before
    waited = int(np.clip(ahead - begins, 0, before).sum())
    return max(0, last_row - (ahead - waited)) + 1 + int(held.sum()) - waited


def most_hits(cfg: AcceleratorConfig, counts: np.ndarray) -> np.ndarray:
    """`hits` of `scan_cycles`: counts bool [heads, positions], what counts (SFSA: the score fires, SSA: it is not 0)."""
    heads, n = counts.shape
    rows = ceil_div(n, cfg.score_banks)
    padded = np.zeros((heads, rows * cfg.score_banks), bool)
    padded[:, :n] = counts
    return padded.reshape(heads, rows, cfg.score_banks).sum(axis=2).max(axis=0)


def _attention(cfg, command, last, ahead, hits):
    """A scan of `score_banks` positions per cycle, then the winners one by one (WTA)."""
    ranks = command["top_k"] if command["attention"] == Attention.WTA else 0
    return scan_cycles(last // cfg.score_banks, ahead, hits) + (ranks or -1) + _ATTENTION


def _ahead(cfg, command, before, rows, memory):
    """Cycles between the last channel of the query and the ATTEND."""
    if before is None or before["sink"] != Sink.QKV or command["bidirectional"] or command["head"]:
        return 0
    ends, last_query = _drained(cfg, before, rows, memory), before["attn_groups"] - 1
    tile, group = divmod(last_query, cfg.groups_per_tile)
    return ends[-1] - (ends[tile] - cfg.groups_per_tile + group + 1) + COMMAND_OVERHEAD - 1


def _rows(cfg, command, rows, memory, markers=None):
    """EMBED and LINEAR: events, the drain of every tile, neurons."""
    added = _ADD_SPIKES if command["sink"] == Sink.ADD_SPIKES else 0
    return _drained(cfg, command, rows, memory, markers)[-1] - 1 + _NEURON + added


def _runs_ahead(before, command):
    """Whether the rows of a LINEAR may begin while the one before still fires."""
    return (before is not None and before.opcode == command.opcode == Opcode.LINEAR and before["sink"] == Sink.SPIKES
            and before["dst"] == command["src"] and not before["streamed"] and not command["streamed"]
            and command["order"] == Order.TILES)


def _markers_ahead(cfg, command, rows, before, before_rows, memory):
    """Cycles in which the engine takes what closes each tile, counted from the command's own start; None if that comes first."""
    last_taken = _markers(cfg, before, before_rows, memory)[-1]
    ends = _drained(cfg, before, before_rows, memory)
    words, base = _words(cfg, command, rows), before["base_group"] // cfg.groups_per_tile
    # A word is there when the last group of its tile was written, a partial one with the end; those of blocks before are there.
    whole = before["groups"] // cfg.groups_per_tile
    ready = [0 if word < base else (ends[word - base] if word - base < whole else ends[-1]) + _NEURON for word in range(len(words))]
    done = ends[-1] - 1 + _NEURON
    start = max(last_taken + 1, ready[0]) + 1
    if start > done:
        return None
    return [marker - done - 1 for marker in _scan(cfg, words, ready, start, command["tiles"])]


def _scan(cfg, words, ready, start, tiles):
    """The scheduler cycle by cycle, where words may not be there yet: when the engine takes what closes each tile."""
    words = [ceil_div(count, cfg.events) for count in words]
    taken, cycle, pending, fetch = [], start, words[0], 1
    scanned = fetch == len(words)
    fetch %= len(words)
    while len(taken) < tiles:
        cycle += 1
        there, free = ready[fetch] <= cycle or fetch == 0 and scanned, pending <= 1
        closing = free and scanned
        if closing:
            taken.append(cycle + _FOUND_TO_TAKEN)
        pending = max(0, pending - 1)
        if there and (closing or not scanned and (free or not words[fetch])):
            if free:
                pending = words[fetch]
            fetch += 1
            scanned = fetch == len(words)
            fetch %= len(words)
    return taken


def _drain(cfg):
    """Engine: from taking what closes a tile to its drain request."""
    return 2 + cfg.events


def _words(cfg, command, rows):
    """Events of each scan word, for each tile."""
    if command.opcode == Opcode.EMBED:
        return [len(rows)]
    return np.bincount(np.asarray(rows, np.int64) // cfg.cols, minlength=ceil_div(command["n_in"], cfg.cols)).tolist()


def adding_cycles(cfg: AcceleratorConfig, command: Command, rows: Sequence[int]) -> int:
    """Cycles in which the engine adds these rows (EMBED, LINEAR): resident ones in pairs where the machine has two events per cycle.

    Rows of one pair lie in one scan word, so a word with an odd number of them leaves half a cycle unused.
    """
    events = cfg.events if command["order"] == Order.TILES and not command["streamed"] else 1
    return command["tiles"] * sum(ceil_div(count, events) for count in _words(cfg, command, rows))


def _drained(cfg, command, rows, memory, markers=None):
    """Cycle after which each tile's sums were read, given when what closes it was taken."""
    ends, drained = [], 1
    for marker in markers or _markers(cfg, command, rows, memory):
        drained = max(drained, marker + _drain(cfg)) + cfg.groups_per_tile
        ends.append(drained)
    return ends


def _markers(cfg, command, rows, memory):
    """Cycles in which the engine takes what closes each tile."""
    tiles, words = command["tiles"], _words(cfg, command, rows)
    by_tile = command["order"] == Order.TILES
    if by_tile and not command["streamed"]:
        words = [ceil_div(count, cfg.events) for count in words]
    gaps, closed = _gaps(words, 1 if by_tile else tiles)
    if command["streamed"]:
        return streamed_markers(cfg, rows, words, gaps, address=command["address"], tiles=tiles,
                                bits=WEIGHT_BITS[command["weight_code"]], memory=memory)
    if by_tile:
        one_tile = sum(words) + sum(gaps) + (not closed)
        return [(tile + 1) * one_tile + _FOUND_TO_TAKEN for tile in range(tiles)]
    last = len(rows) * tiles + sum(gaps) + _FOUND_TO_TAKEN
    return [last + 1 + tile for tile in range(tiles)]


def _gaps(words, hide):
    """Cycles without an event before the events of each scan word, last: before the marker; and whether the scan has passed all
    words when the last event leaves, which then needs no marker.

    While the events of a word leave, `hide` cycles each, one empty word per cycle is passed over unseen. The last of these
    cycles loads the next word, empty or not.
    """
    gaps, gap, at, closed = [0] * (len(words) + 1), 0, 0, False
    while at < len(words):
        following, closed = at + 1, words[at] > 0
        if closed:
            gaps[at], gap = gap, 0
            unseen = min(len(words), following + words[at] * hide - 1)
            while following < unseen and not words[following]:
                following += 1
        elif following < len(words):  # with the last word comes the marker
            gap += 1
        at = following
    gaps[-1] = gap
    return gaps, closed


def _pick(cfg, sampling, before):
    """The comparator tree may still be at work on the last logits when PICK starts."""
    tree, unused = cfg.lanes.bit_length() // 2, 0 if before is None else before["tiles"] * cfg.groups_per_tile - before["groups"]
    waits = 0 if before is None else max(0, tree + 1 - COMMAND_OVERHEAD - unused)
    if sampling is None:
        return 2 + waits
    first, top_k, vocabulary = 2 + 2 * _HASH + waits, sampling.top_k, sampling.vocabulary
    if top_k == 0:
        return first + vocabulary + _NOISE + 1
    one_pass = (vocabulary - 1) // cfg.lanes + 1 + tree + 3
    if top_k <= vocabulary:
        return first + (top_k - 1) * one_pass + _NOISE + 1
    return first + vocabulary * one_pass + max(2, _NOISE + 1 - one_pass)


def _load(cfg, command, memory):
    """Requests of up to LOAD_WORDS words, from the cycle after the start on."""
    size = cfg.cols if command["l_memory"] == Memory.RESIDENT else cfg.lanes * 8
    reader, accepted = Reader(cfg, memory, seed=(memory.seed, command["l_offset"])), 0
    for word in range(0, command["l_words"], LOAD_WORDS):
        accepted = max(accepted + 1, reader.free)
        reader.request(accepted, command["l_offset"] + word * size, min(LOAD_WORDS, command["l_words"] - word) * size)
    return max(reader.arrivals, default=0) + 3


def run_end_cycles(cfg: AcceleratorConfig, *, scoring: bool = False, memory: MemoryTiming | None = None) -> int:
    """Cycles from the last token's end to the run's: the record of a generated token must have reached memory."""
    return 2 if scoring else (memory or MemoryTiming()).latency + 6 + 128 // cfg.data_width
