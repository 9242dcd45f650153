"""Verilated machines for the tests of this folder: two builds, shared by all of them."""

import pytest

from spikeloom.arch.presets import preset
from spikeloom.driver.device import Device
from spikeloom_sim.machine import open_machine


@pytest.fixture
def open_device():
    """open_device(preset name, **transport options) -> (Device, transport); closed after the test."""
    opened = []

    def make(name, *, deadline_s=120.0, **options):
        # One build of the small machine serves all tests: it starts from random registers, as a board might.
        transport = open_machine(preset(name), **({"scramble": name == "tiny"} | options))
        opened.append(transport)
        return Device(transport, preset(name), deadline_s=deadline_s), transport

    yield make
    for transport in opened:
        transport.close()
