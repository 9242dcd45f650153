"""All neurons of an integer model: `arch.numerics.neuron_step` by name, NI-LIF in its fast form."""

import numpy as np

from ..arch.config import ModelConfig
from ..arch.numerics import neuron_step
from .kernels import fire, threshold_table
from .tensors import neuron_levels, neuron_lows


class IntegerNeurons:
    """Spikes from sums, for each neuron that `tensors.neuron_levels` lists.

    NI-LIF counts the thresholds that a sum reaches (arXiv 2604.12365 Eq. 12-13). The others keep a membrane from one
    time step to the next (LIF: Eq. 1-3; I-LIF: Eq. 4); the caller holds it, by name, and starts each token with none.

    Parameters
    ----------
    config : ModelConfig
    tensors : dict of str to integer arrays
    """

    def __init__(self, config: ModelConfig, tensors: dict[str, np.ndarray]):
        self.kind, self.leak = config.neuron, config.leak
        self._tables, self._lows, self._parts, lows = {}, {}, {}, neuron_lows(config)
        for name, levels in neuron_levels(config).items():
            base, step = (tensors[f"{name}.{kind}"].astype(np.int64) for kind in ("base", "step"))
            if self.kind == "ni_lif":
                self._tables[name], self._lows[name] = threshold_table(base, step, levels, lows[name]), lows[name].astype(np.float32)
            else:
                self._parts[name] = [(part, base[part], step[part], level) for part, level in _runs(levels)]

    def __call__(self, name: str, acc: np.ndarray, membranes: dict[str, np.ndarray]) -> np.ndarray:
        """One time step. acc float32 or int [C] -> spikes float32 [C]; `membranes` is read and written."""
        if self.kind == "ni_lif":
            return fire(acc, self._tables[name], self._lows[name])
        before, after = membranes.get(name), np.zeros(len(acc), np.int64)
        spikes = np.zeros(len(acc), np.float32)
        for part, base, step, level in self._parts[name]:
            spikes[part], after[part] = neuron_step(self.kind, acc[part].astype(np.int64), 0 if before is None else before[part],
                                                    base, step, levels=level, leak=self.leak)
        membranes[name] = after
        return spikes


def _runs(levels):
    """Slices of channels of equal level, and that level."""
    edges = [0, *(np.flatnonzero(np.diff(levels)) + 1).tolist(), len(levels)]
    return [(slice(start, end), int(levels[start])) for start, end in zip(edges, edges[1:])]
