"""Query register, key and value cache and the back ends of attention, as the emulator's datapath has them."""

import numpy as np

from ..arch.commands import Attention, Command
from ..arch.config import AcceleratorConfig
from ..arch.numerics import biased_scores, gather, raw_scores, sfsa_gather, ssa_gather, winners
from .kernels import WinnerTakeAll

#: Largest left shift of a winner.
_MOST = 7


class CachedAttention:
    """What ATTEND reads and QKV writes. Of queries and keys it keeps the sign: -1, 0, 1.

    Parameters
    ----------
    cfg : AcceleratorConfig
    """

    def __init__(self, cfg: AcceleratorConfig):
        self.cfg = cfg
        self._query = np.zeros(cfg.max_width, np.float32)
        self._keys = np.zeros((cfg.kv_positions, cfg.max_width), np.float32)
        self._values = np.zeros((cfg.kv_positions, cfg.max_width), np.float32)
        self._competitions = {}

    def forget(self) -> None:
        """Drop what was decoded from commands: they may have changed."""
        self._competitions.clear()

    def write(self, command: Command, levels: np.ndarray, position: int) -> None:
        """Keep query, key and value of a position. levels float32 [Q|K|V]; the last part may be short."""
        width, at = command["attn_groups"] * self.cfg.lanes, command["kv_base"] + position
        query, key, value = (levels[i * width:(i + 1) * width] for i in range(3))
        self._query[:len(query)] = np.sign(query)
        self._keys[at, :len(key)] = np.sign(key)
        self._values[at, :len(value)] = value

    def attend(self, index: int, command: Command, position: int, last_position: int) -> tuple[np.ndarray, int]:
        """One row of attention.

        Parameters
        ----------
        index : int
            Of the command in its program.
        position, last_position : int
            Of the query; the last one that competes (bidirectional).

        Returns
        -------
        gathered : float32 [heads x head width]
        won : int
            Winners (WTA), scores that fired (SFSA), or positions (SSA), over all heads.
        """
        c, head = command, self.cfg.segment << command["head_level"]
        heads = -(-c["groups"] * self.cfg.lanes // head)
        region = slice(c["a_kv_base"], c["a_kv_base"] + (last_position if c["bidirectional"] else position) + 1)
        keys = self._keys[region, :heads * head].reshape(-1, heads, head)      # [n, H, d]
        values = self._values[region, :heads * head].reshape(-1, heads, head)  # [n, H, d]
        query = self._query[:heads * head].reshape(heads, head)
        nibbles = np.array([c["recency"] >> (4 * h) & 15 for h in range(heads)])
        if c["attention"] == Attention.WTA and not c["bidirectional"]:
            return self._newest_last(index, c, query, keys, values, nibbles)
        raw = raw_scores(query, keys)
        if c["attention"] == Attention.WTA:
            gathered, won = self._both_ways(c, raw, values, nibbles, position)
        elif c["attention"] == Attention.SFSA:
            gathered, won = sfsa_gather(values, raw, np.ones(len(keys), bool), nibbles), np.count_nonzero(raw >= nibbles[:, None])
        else:
            gathered, won = ssa_gather(values, raw, np.ones(len(keys), bool)), raw.size
        return gathered.reshape(-1).astype(np.float32), int(won)

    def _newest_last(self, index, c, query, keys, values, recency):
        """The causal competition, in its fast form."""
        if index not in self._competitions:
            self._competitions[index] = WinnerTakeAll(c["top_k"], _shifts(c), recency.tolist(), c["overlap"], self.cfg.max_context)
        unit = self._competitions[index]
        raw = np.matmul(keys.transpose(1, 0, 2), query[:, :, None])[:, :, 0]
        positions, valid, _, _ = unit.choose(raw)
        return unit.gather(values, positions, valid).reshape(-1), int(valid.sum())

    def _both_ways(self, c, raw, values, recency, position):
        biased = biased_scores(raw, np.abs(np.arange(raw.shape[1]) - position), recency)
        eligible = raw > 0 if c["overlap"] else np.ones(raw.shape, bool)
        chosen = winners(biased, eligible, c["top_k"])
        # `numerics.gather` shifts by the distance to the largest of its shifts, here _MOST.
        return gather(values, chosen, [_MOST - s for s in _shifts(c)] + [_MOST]), sum(len(row) for row in chosen)


def _shifts(c):
    """Left shift of the winner of each rank."""
    return [c["gather_shifts"] >> (3 * rank) & _MOST for rank in range(c["top_k"])]
