"""The energy account: counts by hand, the projection's arithmetic, nothing counted is refused."""

from collections import Counter

import numpy as np
import pytest

from spikeloom.arch.config import ModelConfig
from spikeloom.model import energy
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import random_model

SHAPE = ModelConfig(name="account", vocabulary=32, context=16, width=16, layers=2, heads=2, hidden=32, top_k=2, rank_shifts=(0, 1),
                    recency=(0, 2))


def test_macs_of_the_twin_by_hand():
    """Two layers of width 16 and hidden 32 that see 10 positions, and a head of 32."""
    assert energy.ann_macs(SHAPE, 10) == 2 * (4 * 256 + 2 * 16 * 10 + 2 * 16 * 32) + 16 * 32


def test_projection():
    """1,000 additions at 0.9 pJ against the twin's products at 4.6 pJ."""
    counts = Counter({"sops.linear": 1800, "sops.attention": 200, "sops.levels": 4000})
    account = energy.account(SHAPE, counts, tokens=2, context=10)
    assert (account.linear_sops, account.attention_sops, account.level_sops) == (900, 100, 2000)
    assert account.snn_nanojoule == pytest.approx(0.9)
    assert account.ann_nanojoule == pytest.approx(energy.ann_macs(SHAPE, 10) * 4.6e-3)
    assert account.ratio == pytest.approx(account.snn_nanojoule / account.ann_nanojoule)
    assert "45 nm" in account.to_dict()["label"]


def test_counts_are_events_times_outputs(seed):
    """Linear operations of a run are the events of each matrix times its columns."""
    config, tensors = random_model(seed % 1000, SHAPE)
    model, counts, linear = IntegerModel(config, tensors), Counter(), 0
    for position, token in enumerate([1, 2, 3]):
        trace = model.step(token, position)
        counts.update(trace.counters)
        for name, tensor in tensors.items():
            if name.endswith(".weight"):
                linear += trace.counters[f"events.{name.removesuffix('.weight')}"] * tensor.shape[1]
    account = energy.account(config, counts, 3, 2)
    assert account.linear_sops * 3 == pytest.approx(linear)
    assert account.level_sops >= account.linear_sops > 0 and np.isfinite(account.ratio)


def test_nothing_counted_is_refused():
    with pytest.raises(ValueError, match="Nothing was counted"):
        energy.account(SHAPE, Counter(), 0, 1)
