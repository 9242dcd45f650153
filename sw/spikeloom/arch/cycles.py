"""The cycle model: what each command costs on a machine, in plain numbers, without gates.

Times follow the gateware stage by stage. A run (`run_cycles`) comes out to the cycle with resident rows, and with streamed
rows too where the memory is what `MemoryTiming` says: answers in order, after a fixed latency, at a steady rate. Refresh,
other managers and stalls are not in it, nor are writes of records that wait for the bus.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .commands import Attention, Command, Memory, Opcode, Order, Sink
from .config import WEIGHT_BITS, AcceleratorConfig, ceil_div
from .streamed_cycles import MemoryTiming, Reader, streamed_markers

#: NEXT, READ, CHECK and the fetch of the first command, then HALT and TOKEN_END: cycles of a token beside its commands.
TOKEN_OVERHEAD = 8
#: The same of a position in a sweep of an ENCODE run, with SWEEP in their place.
SWEEP_OVERHEAD = 8
#: DISPATCH and START: cycles of a command before its unit sees it.
COMMAND_OVERHEAD = 2
#: A command that is passed over costs the fetch of the next one.
SKIPPED = 4
#: Engine: from taking a marker to its drain request. Scheduler and row source come before it.
_DRAIN, _FOUND_TO_TAKEN = 2, 2
#: Neuron unit: from reading a group to its result; adding its spikes into the stream takes one more.
_NEURON, _ADD_SPIKES = 3, 1
#: Attention: cycles of a row beside its scan and its winners (WTA), or beside its walk over the positions.
_ATTENTION = 6
#: Hash of the sampler, and from a candidate to its place among the noisy ones.
_HASH, _NOISE = 4, 7
#: Dumper: cycles of a group beside its beats.
_DUMP = 4


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """PICK among the `top_k` best (0: all) of `vocabulary` tokens."""

    top_k: int = 0
    vocabulary: int = 2


def command_cycles(cfg: AcceleratorConfig, command: Command, *, rows: Sequence[int] = (), position: int = 0,
                   last_position: int | None = None, memory: MemoryTiming | None = None, sampling: Sampling | None = None,
                   before: Command | None = None, before_rows: Sequence[int] = ()) -> int:
    """Cycles from the dispatch of a command to that of the next.

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
        The LINEAR right before a PICK, whose last logits it waits for, or before an ATTEND, which scans while keys and
        values are made.
    before_rows : ascending ints
        Rows that this LINEAR asked for (ATTEND).

    Returns
    -------
    int
        Exact, but for DUMP: about.
    """
    memory, opcode = (memory or MemoryTiming()).at(position), command.opcode
    if opcode == Opcode.HALT:
        return 0  # in TOKEN_OVERHEAD
    if opcode == Opcode.FIRE:
        busy = command["groups"] + _NEURON
    elif opcode == Opcode.ATTEND:
        last = last_position if command["bidirectional"] and last_position is not None else position
        ahead = _ahead(cfg, command, before, np.asarray(before_rows, np.int64), memory)
        busy = _attention(cfg, command, last, ahead) + command["groups"] + _NEURON
    elif opcode == Opcode.PICK:
        busy = _pick(cfg, sampling, before) + 1
    elif opcode == Opcode.LOAD:
        busy = _load(cfg, command, memory)
    elif opcode == Opcode.DUMP:
        busy = command["groups"] * (_DUMP + cfg.lanes * 32 // cfg.data_width)
    else:
        busy = _rows(cfg, command, np.asarray(rows, np.int64), memory)
    return busy + COMMAND_OVERHEAD


def _attention(cfg, command, last, ahead):
    """WTA scans `score_banks` positions per cycle and pops its winners, SFSA and SSA walk from position to position.

    Up to `ahead` of these cycles were spent before, but none of the last row.
    """
    row, within = divmod(last, cfg.score_banks)
    if command["attention"] == Attention.WTA:
        return max(0, row - ahead) + 1 + command["top_k"] + _ATTENTION
    return max(within, last - ahead) + 1 + _ATTENTION


def _ahead(cfg, command, before, rows, memory):
    """Cycles between the last channel of the query and the ATTEND."""
    if before is None or before["sink"] != Sink.QKV or command["bidirectional"] or command["head"]:
        return 0
    ends, last_query = _drained(cfg, before, rows, memory), before["attn_groups"] - 1
    tile, group = divmod(last_query, cfg.groups_per_tile)
    return ends[-1] - (ends[tile] - cfg.groups_per_tile + group + 1) + COMMAND_OVERHEAD - 1


def _rows(cfg, command, rows, memory):
    """EMBED and LINEAR: events, the drain of every tile, neurons."""
    added = _ADD_SPIKES if command["sink"] == Sink.ADD_SPIKES else 0
    return _drained(cfg, command, rows, memory)[-1] - 1 + _NEURON + added


def _drained(cfg, command, rows, memory):
    """Cycle after which each tile's sums were read."""
    tiles = command["tiles"]
    if command.opcode == Opcode.EMBED:
        words = [len(rows)]
    else:
        words = np.bincount(rows // cfg.cols, minlength=ceil_div(command["n_in"], cfg.cols)).tolist()
    by_tile = command["order"] == Order.TILES
    gaps = _gaps(words, 1 if by_tile else tiles)
    if command["streamed"]:
        markers = streamed_markers(cfg, rows, words, gaps, address=command["address"], tiles=tiles,
                                   bits=WEIGHT_BITS[command["weight_code"]], memory=memory)
    elif by_tile:
        one_tile = len(rows) + sum(gaps) + 1
        markers = [(tile + 1) * one_tile + _FOUND_TO_TAKEN for tile in range(tiles)]
    else:
        last = len(rows) * tiles + sum(gaps) + _FOUND_TO_TAKEN
        markers = [last + 1 + tile for tile in range(tiles)]
    ends, drained = [], 0
    for marker in markers:
        drained = max(drained, marker + _DRAIN) + cfg.groups_per_tile
        ends.append(drained)
    return ends


def _gaps(words, hide):
    """Cycles without an event before the events of each scan word; last: before the marker.

    While the events of a word leave, `hide` cycles each, one empty word per cycle is passed over unseen. The last of these
    cycles loads the next word, empty or not.
    """
    gaps, gap, at = [0] * (len(words) + 1), 0, 0
    while at < len(words):
        following = at + 1
        if words[at]:
            gaps[at], gap = gap, 0
            unseen = min(len(words), following + words[at] * hide - 1)
            while following < unseen and not words[following]:
                following += 1
        elif following < len(words):  # with the last word comes the marker
            gap += 1
        at = following
    gaps[-1] = gap
    return gaps


def _pick(cfg, sampling, before):
    """The comparator tree may still be at work on the last logits when PICK starts."""
    tree = cfg.lanes.bit_length() // 2
    waits = 0 if before is None else max(0, tree - 1 - -before["groups"] % cfg.groups_per_tile)
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
    """A request per word, from the cycle after the start on."""
    size = cfg.cols if command["l_memory"] == Memory.RESIDENT else cfg.lanes * 8
    reader, accepted = Reader(cfg, memory), 0
    for word in range(command["l_words"]):
        accepted = max(accepted + 1, reader.free)
        reader.request(accepted, command["l_offset"] + word * size, size)
    return max(reader.arrivals, default=0) + 3


def run_end_cycles(cfg: AcceleratorConfig, *, scoring: bool = False, memory: MemoryTiming | None = None) -> int:
    """Cycles from the last token's end to the run's: the record of a generated token must have reached memory."""
    return 2 if scoring else (memory or MemoryTiming()).latency + 6 + 128 // cfg.data_width
