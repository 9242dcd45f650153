"""Attention of an integer model: keys and values of all positions, and the three back ends over them."""

import numpy as np

from ..arch.config import ModelConfig
from .kernels import WinnerTakeAll, score_gather, threshold_gather


class IntegerAttention:
    """Keys and values by layer and time step, and what a query gathers from them.

        raw_j = q . k_j per head, j <= i (causal) or all j (bidirectional)
        wta     sum over the top_k best positions of v << shift of the rank      (CWSSA, WSSA: arXiv 2604.11321)
        sfsa    sum of v over the positions with raw >= theta of the head        (arXiv 2605.13859)
        ssa     sum of raw times v over all of them                              (SMHA of arXiv 2606.12287)

    Parameters
    ----------
    config : ModelConfig
    tensors : dict of str to integer arrays
        `layerI.attn.theta` where the config says sfsa.
    """

    def __init__(self, config: ModelConfig, tensors: dict[str, np.ndarray]):
        c = self.config = config
        most = max(c.rank_shifts)
        self._winners = WinnerTakeAll(c.top_k, [most - s for s in c.rank_shifts], c.recency, c.overlap, c.context)
        self._theta = [tensors.get(f"layer{layer}.attn.theta") for layer in range(c.layers)]
        self._keys = np.zeros((c.layers, c.steps, c.heads, c.context, c.head_width), np.float32)
        self._values = np.zeros((c.layers, c.steps, c.context, c.heads, c.head_width), np.float32)
        #: Values that are not 0, per position and head.
        self._spoke = np.zeros((c.layers, c.steps, c.context, c.heads), np.int64)
        self._head = np.arange(c.heads)[:, None]

    def clear(self) -> None:
        """Forget all positions."""
        self._keys[:] = 0
        self._values[:] = 0

    def store(self, layer: int, step: int, position: int, keys: np.ndarray, values: np.ndarray) -> None:
        """Keep the keys and values [d] of a position."""
        heads = (self.config.heads, self.config.head_width)
        self._keys[layer, step, :, position] = keys.reshape(heads)
        self._values[layer, step, position] = values.reshape(heads)
        self._spoke[layer, step, position] = (self._values[layer, step, position] != 0).sum(axis=1)

    def gather(self, layer: int, step: int, query: np.ndarray, position: int, last: int) -> tuple[np.ndarray, dict, dict]:
        """What the query of a position gathers from positions 0..last, itself among them.

        Parameters
        ----------
        query : float32 [d]
        position, last : int
            Equal unless attention looks both ways.

        Returns
        -------
        gathered : float32 [d]
        found : dict
            `raw` [H, n]; of wta also `biased` [H, n] and `winners` [H, m] (-1: none), of sfsa `fired` [H, n].
        counters : dict
            As in `integer_trace.Trace`.
        """
        c = self.config
        q = query.reshape(c.heads, c.head_width, 1)              # [H, dh, 1]
        keys = self._keys[layer, step, :, :last + 1]             # [H, n, dh]
        values = self._values[layer, step, :last + 1]            # [n, H, dh]
        spoke = self._spoke[layer, step, :last + 1]              # [n, H]
        raw = np.matmul(keys, q)[:, :, 0]                        # [H, n]
        met = raw if c.neuron != "t_lif" else np.matmul(np.abs(keys), np.abs(q))
        found = {"raw": raw.astype(np.int64)}
        if c.attention == "wta":
            gathered, counters = self._compete(raw, values, spoke, position, found)
        elif c.attention == "sfsa":
            gathered, fired = threshold_gather(raw, values, self._theta[layer])
            found["fired"] = fired
            counters = {"winners": int(fired.sum()), "sops.attention": int(spoke[fired.T].sum())}
        else:
            gathered = score_gather(raw, values)
            counters = {"winners": np.count_nonzero(raw), "sops.attention": int(spoke[raw.T != 0].sum())}
        counters["sops.attention"] += int(met.sum())
        return gathered.reshape(-1), found, counters

    def _compete(self, raw, values, spoke, position, found):
        positions, valid, ties, found["biased"] = self._winners.choose(raw, position)  # [H, m], [H, m], int, [H, n]
        found["winners"] = np.where(valid, positions, -1)
        won = valid.sum(axis=1)                                                        # [H]
        counters = {"winners": int(won.sum()), "ties": ties, "rows_without_winner": int((won == 0).sum()),
                    "rows_short": int((won < self.config.top_k).sum()),
                    "sops.attention": int((spoke[positions, self._head] * valid).sum())}
        return self._winners.gather(values, positions, valid), counters
