"""The contract's operators by hand, by property, and in distribution."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeloom.arch import numerics as n
from spikeloom.arch.config import NOISE_ENTRIES, RECENCY_OFF


@given(value=st.integers(-(1 << 40), 1 << 40), shift=st.integers(0, 31))
def test_rounding_is_half_up(value, shift):
    assert int(n.round_shift(value, shift)) == math.floor(value / 2**shift + 0.5)


def test_residuals_saturate_once():
    values, count = n.residual_add([32000, -32000, 5], [3000, -3000, 7], [0, 0, 1], [1, 1, 2])
    assert values.tolist() == [32767, -32768, 7] and count == 2


@given(acc=st.integers(-(1 << 22), 1 << 22), base=st.integers(-(1 << 31), (1 << 31) - 1), step=st.integers(0, (1 << 24) - 1),
       levels=st.integers(1, 8))
def test_neurons_count_thresholds(acc, base, step, levels):
    expected = sum(acc * 256 >= base + d * step for d in range(levels))
    assert n.ni_lif([acc], [base], [step], levels).tolist() == [expected]


def test_lif_by_hand():
    spike, v = n.lif([10, 10, 4], [0, 8, 8], [0, 0, 0], 12, 2, hard=False)
    assert spike.tolist() == [0, 1, 0] and v.tolist() == [10, 4, 10]
    spike, v = n.lif([10], [8], [0], 12, None, hard=True)
    assert spike.tolist() == [1] and v.tolist() == [0]
    assert n.lif([0], [-1], [0], 5, 1, hard=True)[1].tolist() == [0]  # the leak is a floor shift


def test_the_most_recent_wins_a_tie():
    biased = np.array([[3, 5, 5, 1], [0, 0, 0, 0]])
    assert [w.tolist() for w in n.winners(biased, np.ones_like(biased, bool), 3)] == [[2, 1, 0], [3, 2, 1]]


def test_ineligible_positions_never_win():
    biased = np.array([[9, -4, 2]])
    assert [w.tolist() for w in n.winners(biased, np.array([[False, True, True]]), 3)] == [[2, 1]]
    assert [w.tolist() for w in n.winners(biased, np.zeros((1, 3), bool), 3)] == [[]]


def test_recency_shifts_the_score():
    raw = np.array([[4, 4, 4, 4]] * 2)
    assert n.biased_scores(raw, np.array([3, 2, 1, 0]), [1, RECENCY_OFF]).tolist() == [[3, 3, 4, 4], [4, 4, 4, 4]]


def test_gathered_values_by_rank():
    values = np.array([[[1, 0]], [[2, 4]], [[8, 1]]])
    assert n.gather(values, [np.array([2, 0])], (0, 1)).tolist() == [[2 * 8 + 1, 2]]


def test_the_hash_is_a_bijection_on_samples():
    x = np.arange(1 << 16) * 65_537 & n.MASK32
    assert len(np.unique(n.hash32(x))) == len(x)


def test_noise_is_gumbel():
    table = n.noise_table(1.0, 1000.0)
    assert table.shape == (NOISE_ENTRIES,) and len(np.unique(table)) > 900
    assert abs(table.mean() / 1000 - 0.5772) < 0.01
    assert (n.noise_table(0, 50) == 0).all()
    for bad in (-1.0, 1e9):
        with pytest.raises(ValueError):
            n.noise_table(bad, 100.0)


@pytest.mark.parametrize("stride", [1, 50, 4000], ids=["seeds", "both", "positions"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampling_follows_softmax(temperature, stride):
    scale, draws = 64.0, 4000
    logits = np.array([100, 60, 60, 20, -10, -40, -100, -200])
    probability = np.exp(n.nats(logits / temperature, scale))
    noise = n.noise_table(temperature, scale)
    counts = np.zeros(len(logits))
    for draw in range(draws):
        counts[n.pick(logits, top_k=0, noise=noise, seed=draw // stride, position=draw % stride)] += 1
    expected = probability * draws
    chi = float(((counts - expected) ** 2 / expected).sum())
    assert chi < 24.3, (chi, counts, expected)  # 99.9% quantile of chi-square with 7 degrees of freedom


def test_top_k_keeps_the_best_and_breaks_ties_to_the_lowest_id():
    noise = n.noise_table(5.0, 64.0)
    logits = np.array([5, 9, 9, 7, 9])
    seen = {n.pick(logits, top_k=2, noise=noise, seed=s) for s in range(200)}
    assert seen == {1, 2}
    assert n.pick(logits) == 1


@given(st.lists(st.integers(-(1 << 23), (1 << 23) - 1), min_size=8, max_size=8))
@settings(max_examples=50)
def test_checksums_notice_any_changed_value(values):
    before = n.checksum(values, 4)
    for i in range(8):
        changed = list(values)
        changed[i] += 1
        assert n.checksum(changed, 4) != before


def test_checksum_by_hand():
    assert n.checksum([1, 1, 0, 0, 2, 0, 0, 0], 4) == ((1 | 1 << 2) << 5) ^ 2


def test_bits_per_byte():
    logits = np.zeros((10, 4))
    assert n.bits_per_byte(-n.nats(logits, 8.0)[:, 0].sum(), 10) == pytest.approx(2.0)
