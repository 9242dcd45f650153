"""Query register, key and value cache and the back ends of attention, as the emulator's datapath has them."""

import numpy as np

from ..arch.commands import Attention, Command
from ..arch.config import AcceleratorConfig
from .kernels import WinnerTakeAll, score_gather, threshold_gather


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
            Winners (WTA), scores that fired (SFSA), or that are not 0 (SSA), over all heads.
        """
        c = command
        raw, values = self._scores(c, position, last_position)
        if c["attention"] == Attention.WTA:
            unit = self._competition(index, c, len(raw))
            positions, valid, _, _ = unit.choose(raw, position)
            gathered, won = unit.gather(values, positions, valid), valid.sum()
        elif c["attention"] == Attention.SFSA:
            gathered, fired = threshold_gather(raw, values, _nibbles(c, len(raw)))
            won = fired.sum()
        else:
            gathered, won = score_gather(raw, values), np.count_nonzero(raw)
        return gathered.reshape(-1), int(won)

    def counts(self, command: Command, position: int, last_position: int) -> np.ndarray:
        """Whose value counts where nothing competes, bool [heads, positions]; arguments as of `attend`."""
        raw, _ = self._scores(command, position, last_position)
        if command["attention"] == Attention.SSA:
            return raw != 0
        return raw >= np.array(_nibbles(command, len(raw)))[:, None]

    def _scores(self, c, position, last_position):
        """Raw scores [heads, n] and values [n, heads, head width] of the positions that compete."""
        head = self.cfg.segment << c["head_level"]
        heads = -(-c["groups"] * self.cfg.lanes // head)
        region = slice(c["a_kv_base"], c["a_kv_base"] + (last_position if c["bidirectional"] else position) + 1)
        keys = self._keys[region, :heads * head].reshape(-1, heads, head)
        query = self._query[:heads * head].reshape(heads, head, 1)
        raw = np.matmul(keys.transpose(1, 0, 2), query)[:, :, 0]
        return raw, self._values[region, :heads * head].reshape(-1, heads, head)

    def _competition(self, index, c, heads):
        if index not in self._competitions:
            shifts = [c["gather_shifts"] >> (3 * rank) & 7 for rank in range(c["top_k"])]
            self._competitions[index] = WinnerTakeAll(c["top_k"], shifts, _nibbles(c, heads), c["overlap"], self.cfg.max_context)
        return self._competitions[index]


def _nibbles(c, heads):
    """The four bits of each head in `recency`."""
    return [c["recency"] >> (4 * head) & 15 for head in range(heads)]
