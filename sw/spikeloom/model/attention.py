"""Winner-take-all attention without softmax at inference (CWSSA, arXiv 2604.11321) under the integer rules of `arch`.

    raw_ij = popcount(q_i AND k_j)            per head, binary queries and keys
    key_ij = raw_ij - ((i - j) >> k_h)        the largest wins, equal: the most recent
    y_i    = sum_r 2^-s_r v_(winner r)        top-K winners, weights fall by rank

Training starts from softmax(temperature * key) and moves to the winners as `hardness` goes from 0 to 1; the gradient of
the scores is always the softmax's.
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


def winner_weights(biased: torch.Tensor, rank_shifts: tuple[int, ...]) -> torch.Tensor:
    """2^-s_r at the winner of rank r, 0 elsewhere. biased [..., T, N] with INELIGIBLE entries -> same shape.

    K rounds of max over the composite key score * N + position: exact in float32 while |score| * N < 2^24, and there
    are no ties left, so the rule "most recent wins" needs no sort.
    """
    n = biased.shape[-1]
    position = torch.arange(n, dtype=biased.dtype, device=biased.device)
    eligible = biased > INELIGIBLE / 2
    key = torch.where(eligible, biased * n + position, INELIGIBLE)
    weights = torch.zeros_like(biased)
    for shift in rank_shifts:
        best = key.amax(-1, keepdim=True)
        won = (key == best) & (best > INELIGIBLE / 2)
        weights = torch.where(won, 2.0**-shift, weights)
        key = torch.where(won, INELIGIBLE, key)
    return weights


class AnnealedWinners(torch.autograd.Function):
    """Gathered values from scores: forward mixes softmax and winners, backward is the softmax's.

    q, k, v [B, H, T, d]; penalty [H, T, T]; temperature [H]; hardness scalar -> [B, H, T, d].
    """

    @staticmethod
    def forward(ctx, q, k, v, penalty, temperature, hardness, rank_shifts, overlap):
        raw = q @ k.transpose(-1, -2)  # [B, H, T, T]
        biased = raw - penalty
        if overlap:
            biased = torch.where(raw > 0, biased, INELIGIBLE)
        total = sum(2.0**-s for s in rank_shifts)
        soft = torch.softmax(biased * temperature[:, None, None], -1)
        if overlap:
            soft = torch.where(biased > INELIGIBLE / 2, soft, 0.0)
        mixed = soft + hardness * (winner_weights(biased, rank_shifts) * (1 / total) - soft)
        ctx.save_for_backward(q, k, v, penalty, temperature, raw, soft, mixed)
        return mixed @ v

    @staticmethod
    def backward(ctx, gradient):
        q, k, v, penalty, temperature, raw, soft, mixed = ctx.saved_tensors
        grad_v = mixed.transpose(-1, -2) @ gradient
        grad_weights = gradient @ v.transpose(-1, -2)  # [B, H, T, T]
        inner = (grad_weights * soft).sum(-1, keepdim=True)
        grad_logits = soft * (grad_weights - inner)
        # soft is exactly zero where nothing is eligible, so the huge penalty there never reaches a gradient
        biased = torch.where(penalty > -INELIGIBLE / 2, 0.0, raw - penalty)
        grad_temperature = (grad_logits * biased).sum((0, 2, 3))
        grad_raw = grad_logits * temperature[:, None, None]
        return grad_raw @ k, grad_raw.transpose(-1, -2) @ q, grad_v, None, grad_temperature, None, None, None
