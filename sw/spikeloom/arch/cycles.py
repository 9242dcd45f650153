"""The cycle model: what each command costs on a machine, in plain numbers, without gates.

Times follow the gateware stage by stage. A run comes out to the cycle with resident rows, and with streamed rows too where
the memory is what `MemoryTiming` says: answers in order, after a fixed latency, at a steady rate. Refresh, other managers
and stalls are not in it, nor are writes of records that wait for the bus.

A program is the list of `Command`s of an image; a trace holds, by label, what each operator wrote (as
`model.integer_model.Trace` does). Levels above 0 in it are the events.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .commands import Command, Memory, Opcode, Order, Sink
from .config import WEIGHT_BITS, AcceleratorConfig, ceil_div
from .streamed_cycles import MemoryTiming, Reader, streamed_markers

#: NEXT, READ, CHECK and the fetch of the first command, then HALT and TOKEN_END: cycles of a token beside its commands.
TOKEN_OVERHEAD = 8
#: DISPATCH and START: cycles of a command before its unit sees it.
COMMAND_OVERHEAD = 2
#: A command that is passed over costs the fetch of the next one.
SKIPPED = 4
#: Engine: from taking a marker to its drain request. Scheduler and row source come before it.
_DRAIN, _FOUND_TO_TAKEN = 2, 2
#: Neuron unit: from reading a group to its result.
_NEURON = 3
#: Attention: cycles of a row beside its scan and its winners.
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


# -- one command --------------------------------------------------------------------------------------------------

def command_cycles(cfg: AcceleratorConfig, command: Command, *, rows: Sequence[int] = (), position: int = 0,
                   memory: MemoryTiming | None = None, sampling: Sampling | None = None, before: Command | None = None) -> int:
    """Cycles from the dispatch of a command to that of the next.

    Parameters
    ----------
    cfg : AcceleratorConfig
    command : Command
    rows : ascending ints
        Rows asked for (EMBED, LINEAR): the neurons that spoke, or all in dense mode.
    position : int
        Of the token (ATTEND).
    memory : MemoryTiming, optional
        For streamed rows and LOAD.
    sampling : Sampling, optional
        For PICK; greedy where not given.
    before : Command, optional
        The LINEAR before a PICK, whose last logits it waits for.

    Returns
    -------
    int
        Exact, but for DUMP: about.
    """
    memory, opcode = memory or MemoryTiming(), command.opcode
    if opcode == Opcode.HALT:
        return 0  # in TOKEN_OVERHEAD
    if opcode == Opcode.FIRE:
        busy = command["groups"] + _NEURON
    elif opcode == Opcode.ATTEND:
        busy = position // cfg.score_banks + 1 + command["top_k"] + _ATTENTION + command["groups"] + _NEURON
    elif opcode == Opcode.PICK:
        busy = _pick(cfg, sampling, before) + 1
    elif opcode == Opcode.LOAD:
        busy = _load(cfg, command, memory)
    elif opcode == Opcode.DUMP:
        busy = command["groups"] * (_DUMP + cfg.lanes * 32 // cfg.data_width)
    else:
        busy = _rows(cfg, command, np.asarray(rows, np.int64), memory)
    return busy + COMMAND_OVERHEAD


def _rows(cfg, command, rows, memory):
    """EMBED and LINEAR: events, then the drain of every tile."""
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
    drained = 0
    for marker in markers:
        drained = max(drained, marker + _DRAIN) + cfg.groups_per_tile
    return drained - 1 + _NEURON


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


# -- one token ----------------------------------------------------------------------------------------------------

class Token(NamedTuple):
    """One token that was processed, and what each operator wrote."""

    trace: Mapping[str, np.ndarray]
    token: int
    position: int
    #: Commands flagged `head` ran.
    head: bool = True


class Step(NamedTuple):
    """One command of one token."""

    command: Command
    #: Cycles, dispatch included.
    cycles: int
    #: Weight rows asked for times tiles: cycles in which the engine adds.
    event_tiles: int = 0
    #: Bytes of these rows.
    row_bytes: int = 0


def rows_asked(cfg: AcceleratorConfig, program: Sequence[Command], it: Token, *, entry: int,
               dense: bool = False) -> list[tuple[Command, np.ndarray]]:
    """Every command from `entry` to before HALT, and the rows that it asks for."""
    spoke = np.zeros((2, cfg.max_neurons), bool)
    out = []
    for command in program[entry:]:
        rows = np.zeros(0, np.int64)
        if command.opcode == Opcode.HALT:
            break
        if command["head"] and not it.head:
            out.append((command, rows))
            continue
        linear = command.opcode == Opcode.LINEAR
        if command.opcode == Opcode.EMBED:
            rows = np.array([it.token] + [command["n_in"] + it.position] * command["position_row"])
        elif linear:
            rows = np.arange(command["n_in"]) if dense else np.flatnonzero(spoke[command["src"], :command["n_in"]])
        if command.opcode in (Opcode.FIRE, Opcode.ATTEND) or linear and command["sink"] in (Sink.SPIKES, Sink.QKV):
            start = command["base_group"] * cfg.lanes if linear else 0
            levels = np.asarray(it.trace[command.label])[start:start + command["groups"] * cfg.lanes]
            spoke[command["dst"], start:start + len(levels)] = levels > 0
        out.append((command, rows))
    return out


def token_steps(cfg: AcceleratorConfig, program: Sequence[Command], it: Token, *, entry: int, dense: bool = False,
                memory: MemoryTiming | None = None, sampling: Sampling | None = None) -> list[Step]:
    """Every command of one token and what it costs; `TOKEN_OVERHEAD` comes beside them."""
    out, before = [], None
    for command, rows in rows_asked(cfg, program, it, entry=entry, dense=dense):
        if command["head"] and not it.head:
            out.append(Step(command, SKIPPED))
            continue
        cycles = command_cycles(cfg, command, rows=rows, position=it.position, memory=memory, sampling=sampling, before=before)
        event_tiles = len(rows) * command["tiles"]
        out.append(Step(command, cycles, event_tiles, event_tiles * cfg.cols * WEIGHT_BITS[command["weight_code"]] // 8))
        before = command if command.opcode == Opcode.LINEAR else None
    return out


def token_cycles(cfg: AcceleratorConfig, program: Sequence[Command], it: Token, **options) -> int:
    """Cycles of one token; options as those of `token_steps`."""
    return TOKEN_OVERHEAD + sum(step.cycles for step in token_steps(cfg, program, it, **options))


def event_bound(steps: Iterable[Step]) -> int:
    """Rows asked for times tiles, over all commands: no machine with one engine needs fewer cycles."""
    return sum(step.event_tiles for step in steps)


# -- one run ------------------------------------------------------------------------------------------------------

@dataclass
class RunReport:
    """Sums over the tokens of a run."""

    tokens: int = 0
    cycles: int = 0
    event_tiles: int = 0
    row_bytes: int = 0
    #: Cycles by label of the command; the sequencer's own under `overhead`.
    by_label: Counter = field(default_factory=Counter)

    @property
    def cycles_per_token(self) -> float:
        """Mean, the end of the run included."""
        return self.cycles / max(1, self.tokens)

    @property
    def bytes_per_token(self) -> float:
        """Bytes of weight rows, mean."""
        return self.row_bytes / max(1, self.tokens)

    @property
    def event_bound_per_token(self) -> float:
        """Cycles in which the engine adds, mean."""
        return self.event_tiles / max(1, self.tokens)


def run_end_cycles(cfg: AcceleratorConfig, *, scoring: bool = False, memory: MemoryTiming | None = None) -> int:
    """Cycles from the last token's end to the run's: the record of a generated token must have reached memory."""
    return 2 if scoring else (memory or MemoryTiming()).latency + 6 + 128 // cfg.data_width


def run_report(cfg: AcceleratorConfig, program: Sequence[Command], tokens: Iterable[Token], *, entry: int, scoring: bool = False,
               dense: bool = False, memory: MemoryTiming | None = None, sampling: Sampling | None = None) -> RunReport:
    """What a whole run costs: its tokens one after another, then its end.

    Parameters
    ----------
    cfg, program : AcceleratorConfig, list of Command
    tokens : iterable of Token
        In order; the last one of a scored text has no `head`.
    entry : int
        First command of the token section.
    scoring : bool
        The run scores a given text; else it ends with a generated token.
    dense, memory, sampling
        As the run was made.
    """
    report = RunReport()
    for it in tokens:
        steps = token_steps(cfg, program, it, entry=entry, dense=dense, memory=memory, sampling=sampling)
        report.tokens += 1
        report.event_tiles += event_bound(steps)
        report.row_bytes += sum(step.row_bytes for step in steps)
        report.by_label["overhead"] += TOKEN_OVERHEAD
        for step in steps:
            report.by_label[step.command.label] += step.cycles
    report.by_label["overhead"] += run_end_cycles(cfg, scoring=scoring, memory=memory)
    report.cycles = sum(report.by_label.values())
    return report
