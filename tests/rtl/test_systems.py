"""Every system and option that is said to work, as a random network on the Verilated gateware."""

import pytest

from spikeloom.arch.presets import preset
from spikeloom.driver.device import Device
from spikeloom_sim.machine import open_machine

from ..test_systems import RUNNABLE, compare


@pytest.fixture(scope="module")
def devices():
    """Device of a preset, opened once."""
    opened = {}

    def of(name):
        if name not in opened:
            machine = preset(name)
            opened[name] = Device(open_machine(machine, scramble=name == "tiny"), machine, deadline_s=120)
        return opened[name]

    yield of
    for device in opened.values():
        device.close()


@pytest.mark.parametrize("row", RUNNABLE, ids=lambda row: row.name)
def test_runs_on_rtl(row, seed, devices):
    report = compare(devices(row.preset), row, seed % 1000)
    assert report.compared > 100 and report.mismatches == 0, report.first
