"""Winner-take-all attention without softmax at inference (CWSSA, arXiv 2604.11321) under the integer rules of `arch`.

    raw_ij = popcount(q_i AND k_j)            per head, binary queries and keys
    key_ij = raw_ij - ((i - j) >> k_h)        the largest wins, equal: the most recent
    y_i    = sum_r 2^-s_r v_(winner r)        top-K winners, weights fall by rank

Training starts from softmax(temperature * key) and moves to the winners as `hardness` goes from 0 to 1; the gradient of
the scores is always that of the soft form: one softmax, or one per rank.
"""

import torch

from spikeloom.arch.config import RECENCY_OFF

INELIGIBLE = -1.0e9


def distance_penalty(context: int, recency: tuple[int, ...]) -> torch.Tensor:
    """distance >> k_h as int32 [H, T]."""
    distance = torch.arange(context)
    return torch.stack([distance * 0 if k == RECENCY_OFF else distance >> k for k in recency]).int()


def recency_penalty(context: int, recency: tuple[int, ...]) -> torch.Tensor:
    """distance >> k_h as float [H, T, T] (row i, column j), INELIGIBLE * -1 above the diagonal."""
    position = torch.arange(context)
    distance = (position[:, None] - position[None, :]).clamp_min(0)  # [T, T]
    penalty = distance_penalty(context, recency)[:, distance].float()  # [H, T, T]
    return penalty.masked_fill(position[:, None] < position[None, :], -INELIGIBLE)


def winner_rounds(biased: torch.Tensor, ranks: int) -> list[torch.Tensor]:
    """Who wins which rank: bool [..., T, N] each, none where fewer positions are eligible. biased [..., T, N] with INELIGIBLE entries.

    K rounds of max over the composite key score * N + position: exact in float32 while |score| * N < 2^24, and there
    are no ties left, so the rule "most recent wins" needs no sort.
    """
    n = biased.shape[-1]
    position = torch.arange(n, dtype=biased.dtype, device=biased.device)
    key = torch.where(biased > INELIGIBLE / 2, biased * n + position, INELIGIBLE)
    rounds = []
    for _ in range(ranks):
        best = key.amax(-1, keepdim=True)
        won = (key == best) & (best > INELIGIBLE / 2)
        rounds.append(won)
        key = torch.where(won, INELIGIBLE, key)
    return rounds


def soft_rounds(biased: torch.Tensor, temperature: torch.Tensor, rounds: list[torch.Tensor]) -> list[torch.Tensor]:
    """Per rank, a softmax over the positions that won no earlier rank, [B, H, T, N] each; 0 where none is left."""
    logits = torch.where(biased > INELIGIBLE / 2, biased * temperature[:, None, None], -torch.inf)
    out = []
    for won in rounds:
        out.append(torch.softmax(logits, -1).nan_to_num(0.0))
        logits = torch.where(won, -torch.inf, logits)
    return out


class AnnealedWinners(torch.autograd.Function):
    """Gathered values from scores: forward mixes a soft form and the winners, backward is the soft form's.

    q, k, v [B, H, T, d]; penalty [H, T, T]; temperature [H]; hardness scalar -> [B, H, T, d].

    The soft form is one softmax over all scores or, if `ranked`, the sum over ranks of 2^-s_r times the softmax over those
    that won no earlier rank: it becomes the winners as the temperature rises, whatever the shifts are (`soft_rounds`).
    `by_score` weighs the winners by the softmax over their scores in place of shifts by rank: a float reference.
    """

    @staticmethod
    def forward(ctx, q, k, v, penalty, temperature, hardness, rank_shifts, overlap, ranked=False, by_score=False):
        raw = q @ k.transpose(-1, -2)  # [B, H, T, T]
        biased = raw - penalty
        if overlap:
            biased = torch.where(raw > 0, biased, INELIGIBLE)
        total = sum(2.0**-s for s in rank_shifts)
        weights = [2.0**-s / total for s in rank_shifts] if ranked else [1.0]
        won = winner_rounds(biased, len(rank_shifts))
        parts = soft_rounds(biased, temperature, won[: len(weights)])
        soft = sum(w * part for w, part in zip(weights, parts))
        if by_score:
            chosen = torch.stack(won).any(0)
            hard = torch.softmax(torch.where(chosen, biased * temperature[:, None, None], -torch.inf), -1).nan_to_num(0.0)
        else:
            hard = sum(each * (2.0**-shift / total) for each, shift in zip(won, rank_shifts))
        mixed = soft + hardness * (hard - soft)
        ctx.weights = weights
        ctx.save_for_backward(q, k, v, penalty, temperature, raw, mixed, *parts)
        return mixed @ v

    @staticmethod
    def backward(ctx, gradient):
        q, k, v, penalty, temperature, raw, mixed, *parts = ctx.saved_tensors
        grad_v = mixed.transpose(-1, -2) @ gradient
        grad_weights = gradient @ v.transpose(-1, -2)  # [B, H, T, T]
        grad_logits = sum(w * part * (grad_weights - (grad_weights * part).sum(-1, keepdim=True))
                          for w, part in zip(ctx.weights, parts))
        # The soft form is exactly zero where nothing is eligible, so the huge penalty there never reaches a gradient.
        biased = torch.where(penalty > -INELIGIBLE / 2, 0.0, raw - penalty)
        grad_temperature = (grad_logits * biased).sum((0, 2, 3))
        grad_raw = grad_logits * temperature[:, None, None]
        return grad_raw @ k, grad_raw.transpose(-1, -2) @ q, grad_v, None, grad_temperature, None, None, None, None, None
