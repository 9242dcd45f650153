"""What blocks of prompt tokens that share each fetched row would cost: a prediction for a design that is not built.

The design. The sequencer runs the token section once per block of P prompt tokens. A spike buffer, residual slot and query per
token of the block; the scheduler asks for the union of the block's rows; a fetched tile row stays at the engine while the tokens
that want it take turns, `grid_rows` of them per cycle, each with sums of its own (P x tiles per element). All keys and values of the
block are written before its first ATTEND, and position p competes up to p, as one by one: the same integers, bit for bit.
"""

from collections.abc import Sequence

import numpy as np

from .commands import Command, Opcode
from .config import WEIGHT_BITS, AcceleratorConfig, ceil_div
from .cycles import TOKEN_OVERHEAD, command_cycles
from .run_cycles import SpikeBuffers, Token
from .streamed_cycles import MemoryTiming, streamed_markers

#: From the last tile row to the first result of its pass: engine, drain request, neuron unit.
_PASS = 6


def prefill_cycles(cfg: AcceleratorConfig, program: Sequence[Command], tokens: Sequence[Token], *, entry: int, block: int = 16,
                   grid_rows: int = 1, memory: MemoryTiming | None = None) -> int:
    """Cycles in which a prompt is read whose matrices are streamed.

    Parameters
    ----------
    cfg, program : AcceleratorConfig, list of Command
    tokens : sequence of Token
        Of the prompt; the last one alone has a `head`.
    entry : int
        First command of the token section.
    block : int
        Tokens that share rows.
    grid_rows : int
        Tokens of a block that a tile row is added for in one cycle.
    memory : MemoryTiming, optional
    """
    memory, total = memory or MemoryTiming(), 0
    end = next(i for i in range(entry, len(program)) if program[i].opcode == Opcode.HALT)
    for start in range(0, len(tokens), block):
        group = tokens[start:start + block]
        buffers = [SpikeBuffers(cfg) for _ in group]
        total += TOKEN_OVERHEAD
        for command in program[entry:end]:
            ones = [(it, spikes) for it, spikes in zip(group, buffers, strict=True) if it.head or not command["head"]]
            if ones and command.opcode in (Opcode.EMBED, Opcode.LINEAR):
                wanted = [spikes.rows(command, it) for it, spikes in ones]
                total += _shared(cfg, command, wanted, grid_rows, memory)
            else:
                total += sum(command_cycles(cfg, command, position=it.position) for it, _ in ones)
            for it, spikes in ones:
                spikes.write(command, it)
    return total


def _shared(cfg, command, wanted, grid_rows, memory):
    """A command of a block: rows come as fast as memory gives them or as the tokens that want them are served."""
    rows, tokens = np.unique(np.concatenate(wanted), return_counts=True)
    markers = streamed_markers(cfg, rows, [len(rows)], [0, 0], address=command["address"], tiles=command["tiles"],
                               bits=WEIGHT_BITS[command["weight_code"]], memory=memory)
    served = int(sum(ceil_div(int(count), grid_rows) for count in tokens)) * command["tiles"]
    first = memory.latency + _PASS
    return max(markers[-1], first + served) + _PASS + len(wanted) * command["groups"]
