"""The table of SpAD's losses: arms are what they are called, and a short run logs a norm of each loss that is on."""

from dataclasses import replace

import pytest

from spikeloom.model import corpus
from spikeloom.model.golden import spad_report

pytest.importorskip("tokenizers", reason="tokenizers: not installed")


def test_arms_switch_losses():
    for name, on in spad_report.ARMS.items():
        weights = spad_report.config_of(on)["training"]["spad"]
        assert {loss for loss, weight in weights.items() if weight} == set(on), name
    assert {frozenset(on) for on in spad_report.ARMS.values()} >= {frozenset(spad_report.LOSSES), frozenset({"hta"})}
    assert all(any(loss not in on for on in spad_report.ARMS.values()) for loss in spad_report.LOSSES)


def test_a_short_run_measures_every_arm(tmp_path, monkeypatch):
    whole = corpus.load_shakespeare()
    monkeypatch.setattr(corpus, "load_shakespeare", lambda: replace(whole, train=whole.development))
    monkeypatch.setattr(spad_report, "ARMS", {"all": spad_report.LOSSES, "all but EA": ("saa", "sfa", "sta", "hta")})
    found = spad_report.measure(tmp_path, 2)
    assert [row["losses"] for row in found["each"]] == ["all", "all but EA"]
    for row in found["each"]:
        assert [norms["step"] for norms in row["gradient_norms"]] == [0, 2]
        assert all(norms[name] > 0 for norms in row["gradient_norms"] for name in row["on"])
        assert set(row["gradient_norms"][-1]) == {"step", *row["on"]}
