"""The contract's operators by hand, by property, and in distribution."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeloom.arch import numerics as n
from spikeloom.arch.commands import Neuron
from spikeloom.arch.config import LEAK_OFF, NOISE_ENTRIES, PASS_NEURONS, RECENCY_OFF, lowest_level


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
    both = expected or -sum(acc * 256 < base - d * step for d in range(1, levels))  # below zero: thresholds that are missed
    assert n.neuron_step("signed_ni_lif", [acc], 0, [base], [step], levels=levels)[0].tolist() == [both]


def test_levels_of_both_signs_are_one_ladder():
    got = n.ni_lif(np.arange(-40, 40), [0], [3 * 256], 8, lowest_level(8))
    assert (got == np.clip(np.floor(np.arange(-40, 40) / 3) + 1, -7, 8)).all()


def step(kind, currents, *, base=0, step=4, levels=1, leak=1):
    """Spikes and membranes of one channel over time; currents, base and step in whole accumulator units."""
    membrane, out = 0, []
    for current in currents:
        (spike,), membrane = n.neuron_step(kind, [current], membrane, [base * 256], [step * 256], levels=levels, leak=leak)
        out.append((int(spike), membrane[0] / 256))
    return out


@pytest.mark.parametrize("kind, leak, expected", [
    # base = step: no bias, the threshold is 4. u = 3, 3 / 2 + 3, ...
    ("lif_hard", 1, [(0, 1.5), (1, 0), (0, 1.5), (1, 0)]),
    ("lif_soft", 1, [(0, 1.5), (1, 0.25), (0, 1.625), (1, 0.3125)]),
    ("lif_subtract", 1, [(0, 1.5), (1, -1.75), (0, 0.625), (0, 1.8125)]),
    ("lif_hard", LEAK_OFF, [(0, 3), (1, 0), (0, 3), (1, 0)]),
    ("lif_soft", LEAK_OFF, [(0, 3), (1, 2), (1, 1), (1, 0)]),
    ("lif_subtract", 2, [(0, 2.25), (1, -0.0625), (0, 2.203125), (1, -0.09765625)]),
])
def test_leaky_neurons_by_hand(kind, leak, expected):
    assert step(kind, [3, 3, 3, 3], base=4, leak=leak) == expected


def test_neurons_fire_on_equality():
    for kind in PASS_NEURONS:  # of one level: signed levels have none below zero then
        assert n.neuron_step(kind, [4, 3], 0, [4 * 256] * 2, [4 * 256] * 2)[0].tolist() == [1, 0]


def test_bias_moves_the_first_threshold():
    assert step("lif_soft", [0, 0, 0], base=2, leak=LEAK_OFF) == [(0, 2), (1, 0), (0, 2)]  # a bias of 4 - 2 at each step


def test_ternary_neurons_by_hand():
    assert step("t_lif", [4, -4, 3, -3, -3], base=4) == [(1, 0), (-1, 0), (0, 1.5), (0, -0.75), (0, -1.875)]


def test_integer_neurons_by_hand():
    # base = step / 2: rounds u / step half up; 9 = 2 x 4 + 1, 1 / 2 + 5 = 4 + 1.5
    assert step("i_lif", [9, 5, -3], base=2, levels=3) == [(2, 0.5), (1, 0.75), (0, -1.125)]
    assert step("i_lif", [100], base=2, levels=3) == [(3, 44)]


def test_leaks_are_floor_shifts():
    assert [int(n.leaked(v, 1)) for v in (-3, -1, 0, 1, 3)] == [-1, 0, 0, 1, 2]
    assert int(n.leaked(-7, LEAK_OFF)) == -7


@given(kind=st.sampled_from(PASS_NEURONS), acc=st.lists(st.integers(-(1 << 15), 1 << 15), min_size=8, max_size=8),
       base=st.integers(-(1 << 23), 1 << 23), step=st.integers(0, (1 << 20) - 1), levels=st.integers(1, 8),
       leak=st.sampled_from([1, 3, LEAK_OFF]))
def test_membranes_stay_within_what_the_compiler_proves(kind, acc, base, step, levels, leak):
    levels = levels if kind in ("ni_lif", "i_lif") else 1
    membrane, once = 0, (1 << 23) + abs(base) + levels * step + step
    for time, current in enumerate(acc, 1):
        _, membrane = n.neuron_step(kind, [current], membrane, [base], [step], levels=levels, leak=leak)
        assert abs(int(membrane[0])) <= time * once


def test_neurons_go_by_name_or_code():
    for kind in Neuron:
        assert PASS_NEURONS[kind] == kind.name.lower()
        by_name, by_code = (n.neuron_step(k, [9], [5], [300], [700], leak=2) for k in (kind.name.lower(), kind))
        assert [x.tolist() for x in by_name] == [x.tolist() for x in by_code]


def test_spikes_added_to_the_residual_saturate():
    values, count = n.add_spikes([32760, -32760, 5], [1, -1, -1], 4)
    assert values.tolist() == [32767, -32768, -11] and count == 2


def test_ternary_scores_count_agreement_less_disagreement():
    assert n.raw_scores([[1, -1, 1, 0]], [[[1, -1, -1, 1]], [[0, 0, 0, -1]]]).tolist() == [[1, 0]]


def test_values_that_reach_the_threshold_are_added():
    values = np.array([[[1], [2]], [[4], [-1]], [[8], [4]]])                # [n, H, d]
    raw, eligible = np.array([[3, 2, 5], [0, 1, 1]]), np.array([True, True, False])
    assert n.sfsa_gather(values, raw, eligible, [3, 1]).tolist() == [[1], [-1]]
    assert n.sfsa_gather(values, raw, np.ones(3, bool), [2, 0]).tolist() == [[13], [5]]


def test_values_are_multiplied_by_scores():
    values = np.array([[[1], [0]], [[-1], [1]], [[1], [1]]])
    assert n.ssa_gather(values, np.array([[3, 2, 5], [1, -2, 7]]), np.array([True, True, False])).tolist() == [[1], [-2]]


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
    for bad in (-1.0, 1e9, 1e17, 1e308, float("inf"), float("nan")):
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


def test_more_candidates_than_the_sampler_keeps_are_all():
    noise = n.noise_table(50.0, 1.0)
    logits = np.arange(32)
    for s in range(100):
        assert n.pick(logits, top_k=9, noise=noise, seed=s) == n.pick(logits, top_k=0, noise=noise, seed=s)
    assert [n.candidates(k) for k in (0, 1, 8, 9, 40)] == [0, 1, 8, 0, 0]
    with pytest.raises(ValueError, match="top_k"):
        n.candidates(-1)


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
