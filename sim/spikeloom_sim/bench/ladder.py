"""What each idea of the machine is worth: the same image and the same tokens, by the cycle model with the ideas switched off.

The machine has no switches for most of them, so the rungs are counterfactuals made of the cycle model's own parts:

* planes one by one: a row is asked for once per binary plane in which its level has a bit (dense: once per plane of the tensor);
* Q, K and V apart: three commands, each with a scan, a drain and a dispatch of its own;
* nothing overlaps: every tile drains before the next begins, and attention scans only when keys and values are made;
* all V rows: the value rows of all positions are walked, one per cycle, instead of those of the K winners;
* nothing chained: a FIRE is a command like any other, and a LINEAR waits for the end of the one before.

The last rung and the dense mode are measured in RTL too; the model must agree with both to the cycle.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from spikeloom.arch.commands import Attention, Command, Memory, Opcode, Sink
from spikeloom.arch.config import WEIGHT_BITS, AcceleratorConfig, ceil_div
from spikeloom.arch.cycles import SKIPPED, TOKEN_OVERHEAD, Border, command_cycles, most_hits
from spikeloom.arch.layout import Image
from spikeloom.arch.run_cycles import SpikeBuffers, Token, run_report, token_steps
from spikeloom.arch.streamed_cycles import MemoryTiming
from spikeloom.arch.sweeps import Prefill, prompt_blocks, sweeps
from spikeloom.model.command_check import memory_shape

#: Cycles between a tile's last event and its drain, where nothing else goes on meanwhile.
_TURN = 4


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A machine with some of the ideas."""

    name: str
    what: str = ""
    bits: int = 8
    skip: bool = False
    merged: bool = False
    fused: bool = False
    overlap: bool = False
    winners: bool = False
    chained: bool = False
    events: int = 1


LADDER = (
    Rung(name="dense, int8", what="every row of every plane is read and added"),
    Rung(name="int4", what="the same rows in half the bytes", bits=4),
    Rung(name="row skip", what="silent rows are neither read nor added", bits=4, skip=True),
    Rung(name="planes merged", what="a level is one addition of a multiple, not one per binary plane", bits=4, skip=True, merged=True),
    Rung(name="Q, K, V in one row", what="one command instead of three", bits=4, skip=True, merged=True, fused=True),
    Rung(name="overlap", what="tiles drain, fire and are scored while the next accumulate", bits=4, skip=True, merged=True, fused=True,
         overlap=True),
    Rung(name="K winners", what="the values of the winners alone are added up", bits=4, skip=True, merged=True, fused=True, overlap=True,
         winners=True),
    Rung(name="commands chained", what="a FIRE follows its LINEAR by itself, a LINEAR begins on the first spikes of the one before", bits=4,
         skip=True, merged=True, fused=True, overlap=True, winners=True, chained=True),
    Rung(name="two rows per cycle", what="resident rows are added in pairs", bits=4, skip=True, merged=True, fused=True, overlap=True,
         winners=True, chained=True, events=2),
)


@dataclass
class Cost:
    """Of one or more tokens."""

    tokens: int = 0
    cycles: int = 0
    #: Of weight rows, and of value rows that attention read.
    row_bytes: int = 0
    value_bytes: int = 0

    def summary(self) -> dict:
        """Means per token."""
        n = max(1, self.tokens)
        return {"cycles": round(self.cycles / n, 1), "row_bytes": round(self.row_bytes / n), "value_bytes": round(self.value_bytes / n)}


class Climber:
    """Costs of tokens on a machine with the ideas of a rung.

    Parameters
    ----------
    cfg : AcceleratorConfig
    rung : Rung
    memory : MemoryTiming, optional
        For streamed rows.
    """

    def __init__(self, cfg: AcceleratorConfig, rung: Rung, memory: MemoryTiming | None = None):
        self.cfg, self.rung, self.memory = replace(cfg, events=min(rung.events, cfg.events)), rung, memory

    def cost(self, program: Sequence[Command], tokens: Iterable[Token], entry: int, levels_of) -> Cost:
        """Of these tokens; `levels_of(trace, command)` gives the levels that a LINEAR reads and their largest."""
        end = next(i for i in range(entry, len(program)) if program[i].opcode == Opcode.HALT)
        out, buffers = Cost(), SpikeBuffers(self.cfg, dense=not self.rung.skip)
        for it in tokens:
            out.tokens, out.cycles, border = out.tokens + 1, out.cycles + TOKEN_OVERHEAD, Border()
            for command in program[entry:end]:
                if command["head"] and not it.head:
                    out.cycles += SKIPPED
                    border.pass_over()
                    continue
                rows = self._planes(buffers.rows(command, it), command, levels_of(it.trace, command))
                cycles = self._command(command, rows, it, border.before, border.rows)
                out.cycles += cycles + border.wait
                out.row_bytes += len(rows) * command["tiles"] * self.cfg.cols * WEIGHT_BITS[command["weight_code"]] // 8
                out.value_bytes += self._values(command, it)
                buffers.write(command, it)
                border.follow(command, rows, cycles)
        return out

    def _planes(self, rows, command, levels):
        """A row once, or once per plane in which it has a bit."""
        if self.rung.merged or command.opcode != Opcode.LINEAR:
            return rows
        values, most = levels
        if not self.rung.skip:
            return np.repeat(rows, int(most).bit_length())
        return np.repeat(rows, [int(abs(value)).bit_count() for value in values[rows]])

    def _command(self, command, rows, it, before, before_rows):
        options = {"memory": self.memory, "position": it.position, "last_position": it.last_position}
        if command.opcode == Opcode.ATTEND:
            if not self.rung.winners:
                command = Command(command.opcode, command.fields | {"attention": Attention.SFSA}, command.label)
                options["hits"] = most_hits(self.cfg, np.ones((1, it.position + 1), bool))
        if not self._sees(command):
            before, before_rows = None, ()
        if command.opcode == Opcode.LINEAR and not self.rung.fused and command["sink"] == Sink.QKV:
            tiles = ceil_div(command["attn_groups"], self.cfg.groups_per_tile)
            part = Command(command.opcode, command.fields | {"tiles": tiles, "groups": command["attn_groups"]}, command.label)
            return 3 * self._one(part, rows, options, None, ())
        return self._one(command, rows, options, before, before_rows)

    def _sees(self, command):
        """Whether a command makes use of the one before."""
        return {Opcode.ATTEND: self.rung.overlap, Opcode.PICK: True}.get(command.opcode, self.rung.chained)

    def _one(self, command, rows, options, before, before_rows):
        cycles = command_cycles(self.cfg, command, rows=rows, before=before, before_rows=before_rows, **options)
        if command.opcode == Opcode.LINEAR and not self.rung.overlap:
            cycles += (command["tiles"] - 1) * (self.cfg.groups_per_tile + _TURN)
        return cycles

    def _values(self, command, it):
        if command.opcode != Opcode.ATTEND:
            return 0
        read = min(command["top_k"], it.position + 1) if self.rung.winners else it.position + 1
        return read * command["groups"] * self.cfg.lanes * self.cfg.level_bits // 8


def climb(cfg: AcceleratorConfig, images: Mapping[int, Image], tokens: list[Token], levels_of, memory: MemoryTiming | None = None,
          rungs: Sequence[Rung] = LADDER) -> list[dict]:
    """Every rung's means per token; `images` by weight bits."""
    out = []
    for rung in rungs:
        image = images[rung.bits]
        cost = Climber(cfg, rung, memory).cost(image.program, tokens, image.card["entries"]["token"], levels_of)
        out.append({"rung": rung.name, "what": rung.what, **cost.summary()})
    return out


def prompt(cfg: AcceleratorConfig, image: Image, tokens: Sequence[Token], memory: MemoryTiming) -> list[dict]:
    """Reading a prompt of streamed rows one token at a time and in blocks: cycles and bytes of weights per token."""
    entry, prefill, n = image.card["entries"]["token"], Prefill.of(image.card), len(tokens)
    tokens = [it._replace(head=place == n - 1) for place, it in enumerate(tokens)]
    apart, blocks = (run_report(cfg, image.program, tokens, entry=entry, memory=memory, prefill=how) for how in (None, prefill))
    loads = [command for first, end in sweeps(image.program, prefill.entry) for command in image.program[first:end]
             if command.opcode == Opcode.LOAD]
    loaded = sum(command["l_words"] for command in loads) * memory_shape(Memory.RESIDENT, cfg)[1]
    last = token_steps(cfg, image.program, tokens[-1], entry=entry, memory=memory)
    embedding = sum(step.row_bytes for step in last if step.command.opcode == Opcode.EMBED)
    sizes = prompt_blocks(n, prefill, n)
    read = loaded * len(sizes) + embedding * sum(sizes) + sum(step.row_bytes for step in last)
    return [{"rung": "prompt, token by token", "cycles": round(apart.cycles_per_token, 1), "row_bytes": round(apart.bytes_per_token)},
            {"rung": f"prompt, blocks of {prefill.block}", "cycles": round(blocks.cycles_per_token, 1), "row_bytes": round(read / n)}]


def reader_of_levels(levels: dict[str, np.ndarray]):
    """`levels_of` for programs of a decoder with one time step: a LINEAR reads what was written last into its buffer."""
    source = {"qkv": "in", "out": "attn", "up": "mid", "down": "up", "logits": "final"}

    def levels_of(trace, command):
        layer, _, kind = command.label.rpartition(".")
        if kind not in source:
            return np.zeros(0, np.int64), 1
        name = f"{layer}.{source[kind]}" if layer else source[kind]
        return np.asarray(trace[name]), int(np.max(levels[name]))
    return levels_of
