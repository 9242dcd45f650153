"""Every system and option that is said to work, as a random network on the Verilated gateware."""

import pytest

from spikeloom.arch.presets import preset
from spikeloom.driver.device import Device
from spikeloom_sim.machine import open_machine

from ..test_systems import RUNNABLE, compare


@pytest.fixture(scope="module")
def device():
    machine = preset("tiny")
    with Device(open_machine(machine, scramble=True), machine, deadline_s=120) as opened:
        yield opened


@pytest.mark.parametrize("row", RUNNABLE, ids=lambda row: row.name)
def test_runs_on_rtl(row, seed, device):
    report = compare(device, row, seed % 1000)
    assert report.compared > 100 and report.mismatches == 0, report.first
