"""The fast operators are the operators of `arch.numerics`."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeloom.arch import numerics
from spikeloom.arch.config import lowest_level
from spikeloom.model.kernels import WinnerTakeAll, fire, score_gather, sums, threshold_gather, threshold_table

SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS, levels=st.integers(1, 8), signed=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_fire_is_ni_lif(seed, levels, signed):
    rng = np.random.default_rng(seed)
    acc = rng.integers(-(1 << 23), 1 << 23, 40)
    near = acc * 256 + rng.integers(-300, 300, 40)
    base = np.where(rng.random(40) < 0.7, near, rng.integers(-(1 << 31), 1 << 31, 40)).clip(-(1 << 31), (1 << 31) - 1)
    step = rng.integers(0, 1 << rng.integers(1, 25), 40)
    low = lowest_level(levels) if signed else 0
    expected = numerics.ni_lif(acc, base, step, levels, low)
    assert (fire(acc.astype(np.float32), threshold_table(base, step, levels, low), np.float32(low)) == expected).all()


def test_levels_may_differ_between_channels():
    lows = np.array([0, 0, -2])
    table = threshold_table([0, 0, 0], [0, 0, 256], [1, 3, 3], lows)
    assert fire(np.float32([5, 5, 5]), table, lows).tolist() == [1, 3, 3]
    assert fire(np.float32([-5, -5, -5]), table, lows).tolist() == [0, 0, -2]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_sums_are_exact_whether_rows_are_skipped_or_not(share):
    rng = np.random.default_rng(7)
    levels = rng.integers(1, 9, 512) * (rng.random(512) < share)
    weights = rng.integers(-127, 128, (512, 512))
    assert (sums(levels.astype(np.float32), weights.astype(np.float32)) == levels @ weights).all()


@given(seed=SEEDS, overlap=st.booleans(), k=st.integers(1, 8), n=st.integers(1, 32), ternary=st.booleans(), both_ways=st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_competition(seed, overlap, k, n, ternary, both_ways):
    """Causal: the newest position is the last; both ways: the query may stand anywhere."""
    rng = np.random.default_rng(seed)
    heads, width, context = 3, 4, 32
    recency = rng.choice([0, 1, 3, 15], heads)
    shifts = rng.integers(0, 8, k)
    least = -1 if ternary else 0
    q, keys = rng.integers(least, 2, (heads, width)), rng.integers(least, 2, (n, heads, width))
    values = rng.integers(least, 9, (n, heads, width))
    position = int(rng.integers(n)) if both_ways else n - 1
    raw = numerics.raw_scores(q, keys)
    biased = numerics.biased_scores(raw, np.abs(np.arange(n) - position), recency)
    eligible = raw > 0 if overlap else np.ones_like(raw, bool)
    expected = numerics.winners(biased, eligible, k)

    unit = WinnerTakeAll(k, [int(shifts.max()) - s for s in shifts], recency, overlap, context)
    positions, valid, ties, got_biased = unit.choose(raw.astype(np.float32), position if both_ways else None)
    assert (got_biased == biased).all()
    assert [row[mask].tolist() for row, mask in zip(positions, valid)] == [row.tolist() for row in expected]
    gathered = unit.gather(values.astype(np.float32), positions, valid)
    assert (gathered == numerics.gather(values, expected, shifts)).all()
    longer = numerics.winners(biased, eligible, k + 1)
    assert ties == sum(len(row) > k and biased[h, row[k - 1]] == biased[h, row[k]] for h, row in enumerate(longer))


@given(seed=SEEDS, n=st.integers(1, 40), ternary=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_thresholds_and_products_of_scores(seed, n, ternary):
    rng, heads, width = np.random.default_rng(seed), 3, 4
    raw = rng.integers(-width if ternary else 0, width + 1, (heads, n))
    values = rng.integers(-1 if ternary else 0, 2 if ternary else 9, (n, heads, width))
    theta, every = rng.integers(0, width + 2, heads), np.ones(n, bool)
    gathered, fired = threshold_gather(raw.astype(np.float32), values.astype(np.float32), theta.astype(np.uint8))
    assert (gathered == numerics.sfsa_gather(values, raw, every, theta)).all() and (fired == (raw >= theta[:, None])).all()
    assert (score_gather(raw.astype(np.float32), values.astype(np.float32)) == numerics.ssa_gather(values, raw, every)).all()
