"""The cycle model over tokens, texts and runs: which rows each command asks for, and what it all costs.

A program is the list of `Command`s of an image; a trace holds, by label, what each operator wrote (as
`model.integer_model.Trace` does). What is not 0 in it are the events. SFSA also needs its scores that fired (`NAME.fired`), SSA its
scores (`NAME.raw`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import numpy as np

from .commands import SPIKE_BUFFERS, Attention, Command, Opcode, Sink
from .config import WEIGHT_BITS, AcceleratorConfig
from .cycles import (
    SKIPPED,
    SWEEP_OVERHEAD,
    TOKEN_OVERHEAD,
    Background,
    Border,
    Sampling,
    adding_cycles,
    command_cycles,
    most_hits,
    run_end_cycles,
)
from .streamed_cycles import MemoryTiming
from .sweeps import Prefill, prompt_blocks, sweeps


class Token(NamedTuple):
    """One token that was processed, and what each operator wrote."""

    trace: Mapping[str, np.ndarray]
    token: int
    position: int
    #: Commands flagged `head` ran.
    head: bool = True
    #: Of the text, where attention looks both ways.
    last_position: int | None = None


class Step(NamedTuple):
    """One command of one token."""

    command: Command
    #: Cycles, dispatch included.
    cycles: int
    #: Weight rows asked for times tiles.
    event_tiles: int = 0
    #: Bytes of these rows.
    row_bytes: int = 0
    #: Cycles in which the engine adds them: fewer, where they come in pairs.
    adding: int = 0


class SpikeBuffers:
    """Which neurons spoke, as far as it matters to the commands after them.

    Parameters
    ----------
    cfg : AcceleratorConfig
    dense : bool
        Silent neurons count too.
    """

    def __init__(self, cfg: AcceleratorConfig, *, dense: bool = False):
        self._cfg, self._dense = cfg, dense
        self._spoke = np.zeros((SPIKE_BUFFERS, cfg.max_neurons), bool)

    def rows(self, command: Command, it: Token) -> np.ndarray:
        """Rows that a command asks for."""
        if command.opcode == Opcode.EMBED:
            return np.array([it.token] + [command["n_in"] + it.position] * command["position_row"])
        if command.opcode != Opcode.LINEAR:
            return np.zeros(0, np.int64)
        return np.arange(command["n_in"]) if self._dense else np.flatnonzero(self._spoke[command["src"], :command["n_in"]])

    def write(self, command: Command, it: Token) -> None:
        """What a command makes neurons say."""
        spiking = command.opcode in (Opcode.EMBED, Opcode.FIRE, Opcode.LINEAR, Opcode.ATTEND)
        if not spiking or command["sink"] not in (Sink.SPIKES, Sink.QKV, Sink.SET_SPIKES):
            return
        lanes, size = self._cfg.lanes, command["groups"] * self._cfg.lanes
        start = command["base_group"] * lanes if command.opcode in (Opcode.FIRE, Opcode.LINEAR) else 0
        # A trace holds all blocks of a LINEAR.
        first = start if command.opcode == Opcode.LINEAR else 0
        levels = np.asarray(it.trace[command.label])[first:first + size]
        self._spoke[command["dst"], start:start + len(levels)] = levels != 0


def token_steps(cfg: AcceleratorConfig, program: Sequence[Command], it: Token, *, entry: int, dense: bool = False,
                memory: MemoryTiming | None = None, sampling: Sampling | None = None) -> list[Step]:
    """Every command of one token and what it costs; `TOKEN_OVERHEAD` comes beside them."""
    end = next(i for i in range(entry, len(program)) if program[i].opcode == Opcode.HALT)
    background = Background()
    steps = _steps(cfg, program[entry:end], it, SpikeBuffers(cfg, dense=dense), background, memory=memory, sampling=sampling)
    return steps + _waited(background)


def _waited(background):
    """What the end of a section or sweep, the next LOAD or streamed rows wait for a LOAD that goes on."""
    return [Step(background.command, background.settle())] if background.left else []


def _steps(cfg, commands, it, buffers, background, *, first=True, **options):
    out, border = [], Border()
    for command in commands:
        if command["head"] and not it.head or command.opcode == Opcode.LOAD and not first:
            out.append(Step(command, SKIPPED))
            background.work(SKIPPED, 0)
            border.pass_over()
            continue
        if command.opcode == Opcode.LOAD or command["streamed"]:
            out += _waited(background)
        rows = buffers.rows(command, it)
        cycles = command_cycles(cfg, command, rows=rows, position=it.position, last_position=it.last_position,
                                before=border.before, before_rows=border.rows, hits=_hits(cfg, command, it), **options)
        if command.opcode == Opcode.LOAD:
            cycles = background.begin(command, cycles, options.get("memory"))
        event_tiles = len(rows) * command["tiles"]
        adding = adding_cycles(cfg, command, rows) if event_tiles else 0
        out.append(Step(command, cycles + border.wait, event_tiles,
                        event_tiles * cfg.cols * WEIGHT_BITS[command["weight_code"]] // 8, adding))
        background.work(cycles + border.wait, adding)
        buffers.write(command, it)
        border.follow(command, rows, cycles)
    return out


def _hits(cfg, command, it):
    """What an ATTEND that does not compete waits for."""
    if command.opcode != Opcode.ATTEND or command["attention"] == Attention.WTA:
        return ()
    name, at, step = command.label.partition("@")
    found = it.trace[f"{name}.{'fired' if command['attention'] == Attention.SFSA else 'raw'}{at}{step}"]
    return most_hits(cfg, found != 0)


def token_cycles(cfg: AcceleratorConfig, program: Sequence[Command], it: Token, **options) -> int:
    """Cycles of one token; options as those of `token_steps`."""
    return TOKEN_OVERHEAD + sum(step.cycles for step in token_steps(cfg, program, it, **options))


def event_bound(steps: Iterable[Step]) -> int:
    """Rows that spoke times column tiles, over all commands: the bound of one event per cycle, whatever the machine."""
    return sum(step.event_tiles for step in steps)


def machine_bound(steps: Iterable[Step]) -> int:
    """Cycles in which this machine's engine adds, over all commands: half the event bound and more where rows come in pairs."""
    return sum(step.adding for step in steps)


# -- one run ------------------------------------------------------------------------------------------------------

@dataclass
class RunReport:
    """Sums over the tokens of a run."""

    tokens: int = 0
    cycles: int = 0
    event_tiles: int = 0
    row_bytes: int = 0
    adding: int = 0
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
        """Rows that spoke times column tiles, mean."""
        return self.event_tiles / max(1, self.tokens)

    @property
    def machine_bound_per_token(self) -> float:
        """Cycles in which the engine adds, mean."""
        return self.adding / max(1, self.tokens)

    def add(self, steps: Iterable[Step], overhead: int) -> None:
        """Count the commands of a token or of a position, and the sequencer's cycles beside them."""
        self.by_label["overhead"] += overhead
        for step in steps:
            self.by_label[step.command.label] += step.cycles
            self.event_tiles += step.event_tiles
            self.row_bytes += step.row_bytes
            self.adding += step.adding

    def finish(self, end: int) -> "RunReport":
        """Count the end of the run."""
        self.by_label["overhead"] += end
        self.cycles = sum(self.by_label.values())
        return self


def run_report(cfg: AcceleratorConfig, program: Sequence[Command], tokens: Iterable[Token], *, entry: int, scoring: bool = False,
               dense: bool = False, memory: MemoryTiming | None = None, sampling: Sampling | None = None,
               prefill: Prefill | None = None, room: int = 1 << 16) -> RunReport:
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
    prefill : Prefill, optional
        The tokens without a head that a generation begins with, those of its prompt but the last one, are read in blocks.
    room : int
        Positions left.
    """
    report = RunReport()
    blocks, others = _blocks(tokens, None if scoring else prefill, room)
    for block in blocks:
        add_block(report, cfg, program, block, prefill, dense=dense, memory=memory)
    for it in others:
        report.add(token_steps(cfg, program, it, entry=entry, dense=dense, memory=memory, sampling=sampling), TOKEN_OVERHEAD)
        report.tokens += 1
    return report.finish(run_end_cycles(cfg, scoring=scoring, memory=memory))


def _blocks(tokens, prefill, room):
    """(tokens of each block, those that come after them)."""
    tokens, ahead, blocks = iter(tokens), [], []
    for it in tokens if prefill else ():
        ahead.append(it)
        if it.head:
            break
    # Where no token has a head, the last one is not part of a block either.
    for size in prompt_blocks(len(ahead), prefill, room):
        blocks.append(ahead[:size])
        ahead = ahead[size:]
    return blocks, chain(ahead, tokens)


def add_block(report: RunReport, cfg: AcceleratorConfig, program: Sequence[Command], block: Sequence[Token], prefill: Prefill, *,
              dense: bool = False, memory: MemoryTiming | None = None) -> None:
    """Count the sweeps over a block of prompt tokens."""
    buffers, background = SpikeBuffers(cfg, dense=dense), Background()
    for first, end in sweeps(program, prefill.entry):
        for place, it in enumerate(block):
            report.add(_steps(cfg, program[first:end], it, buffers, background, first=place == 0, memory=memory), SWEEP_OVERHEAD)
            background.work(SWEEP_OVERHEAD, 0)
        report.add(_waited(background), 0)
    report.tokens += len(block)


def encoding_report(cfg: AcceleratorConfig, program: Sequence[Command], traces: Sequence[Mapping[str, np.ndarray]], ids: Sequence[int],
                    *, entry: int, dense: bool = False, memory: MemoryTiming | None = None) -> RunReport:
    """What a whole ENCODE run costs: its sweeps, then its end.

    Parameters
    ----------
    traces, ids
        Of every position, as `model.integer_model.IntegerModel.encode` gives them.
    cfg, program, entry, dense, memory
        As in `run_report`.
    """
    report, buffers, background = RunReport(tokens=len(ids)), SpikeBuffers(cfg, dense=dense), Background()
    for first, end in sweeps(program, entry):
        for position in range(len(ids) if program[end].opcode == Opcode.SWEEP else 1):
            it = Token(traces[position], ids[position], position, last_position=len(ids) - 1)
            # A HALT alone is reached before the last token's record is in memory: the end of the run covers it.
            report.add(_steps(cfg, program[first:end], it, buffers, background, first=position == 0, memory=memory),
                       SWEEP_OVERHEAD if end > first else 0)
        report.add(_waited(background), 0)
    return report.finish(run_end_cycles(cfg, memory=memory))
