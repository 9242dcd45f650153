"""What tests of exported golden models share."""

import pytest

from spikeloom.model import integer_torch
from spikeloom.model.golden import export


@pytest.fixture
def fine_thresholds(monkeypatch):
    """Thresholds to 2^-18 of a sum, in exporter and integers alike, so that hardly anything is left that the forms differ by.

    Sums are whole, and leaks over a few steps leave sixteenths and the like: a threshold that lies next to one of these is met again and
    again, and either form may fire. At 2^-14 one in 500 thresholds does, so that a network has one of them or none; at 2^-18 one in 8,000.
    """
    bits = 18
    monkeypatch.setattr(export, "ONE", 2.0**bits)
    monkeypatch.setattr(export, "STEP_MAX", 2**31 - 1)
    monkeypatch.setattr(export, "MEMBRANE_WIDTH", 60)
    monkeypatch.setattr(integer_torch, "THRESHOLD_FRACTION", bits)
