"""The integer operators, each exactly once: integer model, gateware tests and compiler call these.

All functions take and return numpy integer arrays (int64 unless said); shifts are arithmetic (floor).
"""

import math

import numpy as np

from .config import LEAK_OFF, NOISE_ENTRIES, NOISE_WIDTH, PASS_NEURONS, RECENCY_OFF, RESIDUAL_WIDTH, THRESHOLD_FRACTION, lowest_level

RESIDUAL_MAX = (1 << (RESIDUAL_WIDTH - 1)) - 1
RESIDUAL_MIN = -(1 << (RESIDUAL_WIDTH - 1))
MASK32 = 0xFFFF_FFFF

#: Most candidates that the sampler keeps in order.
TOP_K_MAX = 8


# -- residual ---------------------------------------------------------------------------------------------------

def round_shift(value, shift):
    """Round half up: (value + 2^(shift-1)) >> shift; shift 0 does not round."""
    value, shift = np.asarray(value, np.int64), np.asarray(shift, np.int64)
    return (value + np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)) >> shift


def saturate(value):
    """Clip to the residual's range; returns (clipped, number of saturated values)."""
    clipped = np.minimum(np.maximum(value, RESIDUAL_MIN), RESIDUAL_MAX)  # twice as fast as np.clip on short rows
    return clipped, int(np.count_nonzero(clipped != value))


def residual_add(residual, acc, bias, shift):
    """residual + ((acc + bias + half) >> shift), saturating once; returns (residual, saturations)."""
    return saturate(np.asarray(residual, np.int64) + round_shift(np.asarray(acc, np.int64) + bias, shift))


# -- neurons ----------------------------------------------------------------------------------------------------

def ni_lif(acc, base, step, levels, low=0):
    """NI-LIF 1xD: low + number of d in low+1..levels with acc 2^F >= base + (d-1) step (arXiv 2604.12365 Eq. 12-13, for low = 0).

    acc int [..., C]; base int32 [C], step uint24 [C], both with F = THRESHOLD_FRACTION fraction bits.
    Returns levels int64 [..., C] in low..levels.
    """
    scaled = np.asarray(acc, np.int64) << THRESHOLD_FRACTION
    base, step = np.asarray(base, np.int64), np.asarray(step, np.int64)
    return low + sum((scaled >= base + d * step).astype(np.int64) for d in range(low, levels))


def leaked(value, leak):
    """v - (v >> leak), floor shift; LEAK_OFF: v."""
    value = np.asarray(value, np.int64)
    return value if leak == LEAK_OFF else value - (value >> leak)


def neuron_step(kind, acc, membrane, base, step, *, levels=1, leak=LEAK_OFF):
    """One time step of any neuron, in units of 2^-F of the accumulator (F = THRESHOLD_FRACTION).

        d = acc 2^F + m - base                  base = first threshold - bias; m = 0 at the first time step
        S = #{j in 0..levels-1 : d >= j step}   (LIF kinds, T_LIF: levels 1, step is the threshold)
        u = d + step                            membrane potential before the reset (I_LIF: d + step / 2)

        kind            spikes                    membrane after
        ni_lif          S                         none
        signed_ni_lif   L + #{j in L..levels-1 : d >= j step}    none; L = lowest_level(levels)
        lif_hard        S                         S ? 0 : leak(u)              tau = 2: leak 1
        lif_soft        S                         leak(u - S step)             ASN Eq. 1-3
        lif_subtract    S                         leak(u) - S step             BiSpikCLM, snnTorch "subtract"
        t_lif           S - (u <= -step)          leak(u - spike step)
        i_lif           S                         leak(u - S step)             ASN Eq. 4

    papers.md 2.1-2.2. acc int [..., C], membrane int [..., C] or 0, base int32 [C], step uint24 [C]; kind is a name of
    PASS_NEURONS or an `arch.commands.Neuron`. Returns (spikes, membrane), int64 [..., C]; membranes fit MEMBRANE_WIDTH bits
    where the compiler has proved it.
    """
    kind = PASS_NEURONS[kind] if isinstance(kind, int) else kind
    acc, base, step = (np.asarray(x, np.int64) for x in (acc, base, step))
    if kind in ("ni_lif", "signed_ni_lif"):
        spikes = ni_lif(acc, base, step, levels, lowest_level(levels) if kind == "signed_ni_lif" else 0)
        return spikes, np.zeros_like(spikes)
    d = (acc << THRESHOLD_FRACTION) - base + membrane
    spikes = sum((d >= j * step).astype(np.int64) for j in range(levels))
    u = d + (step >> 1 if kind == "i_lif" else step)
    if kind == "t_lif":
        spikes = spikes - (u <= -step)
    if kind == "lif_hard":
        return spikes, np.where(spikes > 0, 0, leaked(u, leak))
    if kind == "lif_subtract":
        return spikes, leaked(u, leak) - spikes * step
    return spikes, leaked(u - spikes * step, leak)


def add_spikes(residual, spikes, shift):
    """residual + (spikes << shift), saturating; returns (residual, saturations)."""
    return saturate(np.asarray(residual, np.int64) + (np.asarray(spikes, np.int64) << shift))


# -- attention --------------------------------------------------------------------------------------------------

def raw_scores(q, k):
    """q . k per head: popcount of q AND k for bits; ternary: agreeing less disagreeing. q [H, d], k [N, H, d] -> int64 [H, N]."""
    return np.einsum("hd,nhd->hn", np.asarray(q, np.int64), np.asarray(k, np.int64))


def biased_scores(raw, distance, recency):
    """raw - (distance >> k_h); recency int [H], RECENCY_OFF: no bias. raw [H, N], distance [N] -> [H, N]."""
    shift = np.asarray(recency, np.int64)[:, None]
    penalty = np.where(shift == RECENCY_OFF, 0, np.asarray(distance, np.int64)[None, :] >> shift)
    return np.asarray(raw, np.int64) - penalty


def winners(biased, eligible, k):
    """The k best positions per head, best first: larger score, equal: the most recent. Ineligible never win.

    biased int [H, N], eligible bool [H, N] -> list per head of int arrays of at most k positions.
    """
    n = biased.shape[1]
    key = np.asarray(biased, np.int64) * n + np.arange(n)[None, :]
    key = np.where(eligible, key, -(1 << 62))  # its negative still fits 64 bits
    order = np.argsort(-key, axis=1, kind="stable")[:, :k] if n else np.zeros((biased.shape[0], 0), np.int64)
    return [row[mask] for row, mask in zip(order, np.take_along_axis(eligible, order, axis=1))]


def gather(values, chosen, rank_shifts):
    """Sum over winners of v << (s_max - s_rank): values int [N, H, d], chosen from `winners` -> int64 [H, d]."""
    most = max(rank_shifts)
    out = np.zeros(values.shape[1:], np.int64)
    for head, positions in enumerate(chosen):
        for rank, position in enumerate(positions):
            out[head] += np.asarray(values[position, head], np.int64) << (most - rank_shifts[rank])
    return out


def sfsa_gather(values, raw, eligible, thresholds):
    """SFSA: sum of the values of every eligible position whose raw score reaches its head's threshold (arXiv 2605.13859).

    values int [N, H, d], raw int [H, N], eligible bool [N], thresholds int [H] -> int64 [H, d].
    """
    fired = (np.asarray(raw, np.int64) >= np.asarray(thresholds, np.int64)[:, None]) & eligible
    return np.einsum("hn,nhd->hd", fired.astype(np.int64), np.asarray(values, np.int64))


def ssa_gather(values, raw, eligible):
    """SSA: sum of raw score times value (-1, 0, 1) over eligible positions; masked scores are 0 (Spikformer; SpikeDecoder).

    values int [N, H, d], raw int [H, N], eligible bool [N] -> int64 [H, d].
    """
    return np.einsum("hn,nhd->hd", np.asarray(raw, np.int64) * eligible, np.asarray(values, np.int64))


# -- sampling ---------------------------------------------------------------------------------------------------

def hash32(x):
    """Add-shift-xor hash of 32-bit words (no multiplication): a bijection used to index the noise table.

    x uint32 as int64/int -> same shape. Six rounds, each one adder: cheap in gates.
    """
    x = np.asarray(x, np.int64) & MASK32
    x = (x + 0x7ED55D16 + (x << 12)) & MASK32
    x = x ^ 0xC761C23C ^ (x >> 19)
    x = (x + 0x165667B1 + (x << 5)) & MASK32
    x = ((x + 0xD3A2646C) ^ (x << 9)) & MASK32
    x = (x + 0xFD7046C5 + (x << 3)) & MASK32
    return x ^ 0xB55A4F09 ^ (x >> 16)


def noise_index(seed, position, token):
    """Index into the noise table for (seed, position, token): order of evaluation does not matter."""
    stream = hash32((int(seed) & MASK32) ^ int(hash32(position)))
    return hash32(stream ^ np.asarray(token, np.int64)) >> (32 - (NOISE_ENTRIES.bit_length() - 1))


def noise_table(temperature, logit_scale):
    """Gumbel quantiles times temperature in units of a logit (logit_scale units per nat), rounded half up.

    In a scrambled order: indices of neighbouring tokens are hashed apart but not independent, and in ascending order
    that would show (the likeliest token came a tenth too seldom).
    Host side only (the device adds and compares). Returns int64 [NOISE_ENTRIES]; temperature 0 gives zeros.

    Raises
    ------
    ValueError
        When temperature is negative or no number, or so large that an entry leaves NOISE_WIDTH bits.
    """
    if temperature < 0:
        raise ValueError(f"The temperature must not be negative, it is {temperature}.")
    u = (np.argsort(hash32(np.arange(NOISE_ENTRIES))) + 0.5) / NOISE_ENTRIES
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        table = np.floor(-np.log(-np.log(u)) * temperature * logit_scale + 0.5)
    if not np.abs(table).max() < 1 << (NOISE_WIDTH - 1):
        raise ValueError(f"The temperature {temperature} is too large, or no number; 0 is greedy, 1 is what the model learned.")
    return table.astype(np.int64)


def candidates(top_k):
    """Candidates of sampling that the machine keeps when `top_k` are asked for: 1..TOP_K_MAX, or 0, which is all.

    Its sorted list has TOP_K_MAX places; more than that are all tokens.

    Raises
    ------
    ValueError
        When top_k is negative.
    """
    if top_k < 0:
        raise ValueError(f"top_k is the number of candidates, or 0 for all; it is {top_k}.")
    return top_k if top_k <= TOP_K_MAX else 0


def pick(logits, *, top_k=1, noise=None, seed=0, position=0):
    """The next token: greedy (noise None: largest, ties to the lowest id), or Gumbel-max.

    With noise: over the `candidates(top_k)` best by (logit, lowest id), or over all where that is 0. logit + noise is compared,
    ties again to the lowest id. logits int [V] -> int token id.
    """
    logits = np.asarray(logits, np.int64)
    if noise is None:
        return int(np.argmax(logits))
    ids = np.arange(logits.size)
    if kept := candidates(top_k):
        ids = np.sort(np.argsort(-logits, kind="stable")[:kept])
    key = logits[ids] + np.asarray(noise, np.int64)[noise_index(seed, position, ids)]
    return int(ids[np.argmax(key)])


# -- trace ------------------------------------------------------------------------------------------------------

def checksum(values, lanes):
    """32-bit checksum of one command's output, a group of `lanes` values at a time, as the device computes it.

    Lane i of a group is taken as a 32-bit word, rotated left by 2 i (mod 32), all lanes are xored; the running
    sum is rotated left by 5 and xored with it. values int [n], n a multiple of lanes -> int.
    """
    words = np.asarray(values, np.int64).reshape(-1, lanes) & MASK32
    turn = 2 * np.arange(lanes) % 32
    folded = np.bitwise_xor.reduce(((words << turn) | (words >> (32 - turn))) & MASK32, axis=1)
    turns = (5 * np.arange(len(words) - 1, -1, -1)) % 32
    rotated = np.where(turns > 0, ((folded << turns) | (folded >> (32 - turns))) & MASK32, folded)
    return int(np.bitwise_xor.reduce(rotated)) if len(words) else 0


def nats(logits, logit_scale):
    """Log-probabilities of integer logits (logit_scale units per nat), host side: float64, same shape."""
    x = np.asarray(logits, np.float64) / logit_scale
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def bits_per_byte(total_nats, n_bytes):
    """Bits per byte of text from summed negative log-likelihood in nats."""
    return total_nats / math.log(2) / n_bytes
