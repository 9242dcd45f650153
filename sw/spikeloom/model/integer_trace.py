"""What one position of an integer model leaves behind: its intermediates and its counts."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from ..arch.config import ModelConfig


@dataclass
class Trace(dict):
    """Every intermediate of one position by name: `embed`, `layer0.in`, `layer0.qkv`, ..., `final`, `logits`.

    `<name>.sum` is what a neuron compared or a residual writer shifted; residual writers themselves are named by the
    residual after them, their spikes (if they have a neuron) `<name>.spikes`. Where spikes replace the stream it is
    `<name>.residual`. With more than one time step all names but `final` and `logits` carry it (`layer0.in@2`);
    `final` is what the head reads: the final spikes of its time steps side by side.

    `counters` counts what papers and hardware disagree about most easily. An operator counts once per position and time
    step, though an encoder's program runs FIRE in and LINEAR qkv twice.
    """

    token: int = 0
    position: int = 0
    #: events.<linear> (non-zero inputs; with time steps also events.<linear>@t); spikes (sum of |level|), fired, neurons;
    #: winners (SFSA: scores that fired, SSA: those not 0), ties, rows_without_winner, rows_short; saturations;
    #: sops.linear (events x outputs), sops.levels (the same, a level d counted d times: `level_tiles` x cols of the LINEARs
    #: where no column is padding) and sops.attention (coincident spikes of query and keys, and spikes of the values that
    #: were added): synaptic operations, one addition of a weight or value each.
    counters: Counter = field(default_factory=Counter)


@dataclass
class Moment:
    """A position at a time step: where its operators leave what they did."""

    config: ModelConfig
    trace: Trace
    step: int
    #: Of every neuron, by name; those of the last time step.
    membranes: dict[str, np.ndarray]
    #: Of the neurons that fired last, the input of the next LINEAR: how many spoke, and the sum of their |level|.
    events: int = 0
    levels: int = 0

    def keep(self, name: str, value: np.ndarray) -> None:
        """Put an intermediate into the trace, under its name at this time step."""
        self.trace[self.config.label(name, self.step)] = value
