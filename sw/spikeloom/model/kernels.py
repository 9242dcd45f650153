"""Fast exact forms of the operators of `arch.numerics`, for one token; tests hold them equal to those.

Sums are float32: every integer here stays below 2^24 (`compiler.lower` proves 23 bits), so that BLAS adds exactly.
"""

import numpy as np

from ..arch.config import RECENCY_OFF, THRESHOLD_FRACTION

#: From this many weights on, silent rows are left out instead of multiplied by zero.
_SPARSE_FROM = 1 << 17


def threshold_table(base, step, levels, lows=0):
    """Integer thresholds of `numerics.ni_lif`, lowest first: acc reaches low + d + 1 iff acc >= table[d].

    base int32 [C], step uint24 [C]; levels and lows int, or int [C] when channels differ. Returns float32 [max(levels - lows), C];
    infinity where a channel has fewer levels.
    """
    base, step, levels, lows = (np.asarray(x, np.int64) for x in (base, step, levels, lows))
    depth = np.arange(int((levels - lows).max()))[:, None]
    scaled = base + (lows + depth) * step
    table = (-(-scaled >> THRESHOLD_FRACTION)).astype(np.float32)  # ceiling: acc 2^F >= T iff acc >= ceil(T / 2^F)
    return np.where(lows + depth < levels, table, np.float32(np.inf))


def fire(acc, table, lows=np.float32(0)):
    """Levels of each channel: the lowest, one more per threshold reached. acc float32 [C], table [D, C], lows float32 -> float32 [C]."""
    return lows + (acc >= table).sum(axis=0, dtype=np.float32)


def sums(levels, weights):
    """levels @ weights, leaving silent rows out where that pays. float32 [n_in], [n_in, n_out] -> [n_out]."""
    if weights.size >= _SPARSE_FROM:
        spoke = np.flatnonzero(levels)
        if 2 * spoke.size < levels.size:
            return levels[spoke] @ weights[spoke]
    return levels @ weights


class WinnerTakeAll:
    """The competition of one layer, for all heads at once.

    Parameters
    ----------
    k : int
        Winners per head.
    shifts : sequence of int
        Left shift of the winner of each rank.
    recency : sequence of int
        Recency shift per head; RECENCY_OFF: none.
    overlap : bool
        Winners need a raw score above zero.
    context : int
        Most positions.
    """

    def __init__(self, k, shifts, recency, overlap, context):
        self.k, self.overlap, self.heads = k, overlap, len(recency)
        self._weights = (1 << np.asarray(shifts[:k], np.int64)).astype(np.float32)[:, None]
        distance = np.abs(np.arange(2 * context - 1) - (context - 1))
        shift = np.asarray(recency, np.int64)[:, None]
        # By distance from -(context - 1) to context - 1: what any position sees is a part of this table.
        self._penalty = np.where(shift == RECENCY_OFF, 0, distance >> shift).astype(np.int64)
        self._context = context
        self._head = np.arange(self.heads)[:, None]

    def choose(self, raw, position=None):
        """Winners of each head, best first.

        raw float32 [H, n], all n positions unmasked; the query's own position is the last one unless told (bidirectional).
        Returns (positions int64 [H, m], valid bool [H, m], ties int, biased int64 [H, n]); m is at most k; ties counts
        heads whose last winner and first loser have equal scores.
        """
        n = raw.shape[1]
        first = self._context - (n if position is None else position + 1)
        biased = raw.astype(np.int64) - self._penalty[:, first:first + n]
        key = biased * n + np.arange(n)
        if self.overlap:
            key = np.where(raw > 0, key, np.iinfo(np.int64).min)
        if n > self.k + 1:
            best = np.argpartition(key, n - self.k - 1, axis=1)[:, n - self.k - 1:]
        else:
            best = np.broadcast_to(np.arange(n), (self.heads, n))
        order = np.argsort(-np.maximum(key[self._head, best], -(1 << 62)), axis=1)
        best = best[self._head, order]
        valid = raw[self._head, best] > 0 if self.overlap else np.ones(best.shape, bool)
        ties = 0
        if n > self.k:
            scores = biased[self._head, best[:, self.k - 1:self.k + 1]]
            ties = int(np.count_nonzero((scores[:, 0] == scores[:, 1]) & valid[:, self.k]))
        return best[:, :self.k], valid[:, :self.k], ties, biased

    def gather(self, values, positions, valid):
        """Sum over winners of v << shift of the rank. values float32 [N, H, d] -> float32 [H, d]."""
        won = values[positions, self._head] * self._weights[:positions.shape[1]]  # [H, m, d]
        if self.overlap:
            won = won * valid[:, :, None]
        return won.sum(axis=1)


def threshold_gather(raw, values, theta):
    """SFSA: values of the positions whose raw score reaches the head's threshold, added up.

    raw float32 [H, n], values float32 [n, H, d], theta int [H] -> (float32 [H, d], fired bool [H, n]).
    """
    fired = raw >= np.asarray(theta)[:, None]
    return np.matmul(fired[:, None, :].astype(np.float32), values.transpose(1, 0, 2))[:, 0], fired


def score_gather(raw, values):
    """SSA: values times raw score, added up. raw float32 [H, n], values float32 [n, H, d] -> float32 [H, d]."""
    return np.matmul(raw[:, None, :], values.transpose(1, 0, 2))[:, 0]
