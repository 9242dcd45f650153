"""The whole core keeps the rules of AXI, and writes the same text, when every channel is held back as far as it can be.

What the simulated memory checks in every run of every test is listed in `spikeloom_sim/harness.cpp`: stable payloads, full
aligned INCR beats, at most 16 of them inside 4 KiB, one id, no locks, WLAST and (AXI3) WID where they belong.
"""

from dataclasses import replace
from functools import cache

import pytest

from spikeloom.arch.presets import preset
from spikeloom.arch.streamed_cycles import BURSTS_OPEN
from spikeloom.compiler import compile_model
from spikeloom.driver.device import Device
from spikeloom.driver.verify import verify
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import random_model
from spikeloom_sim.machine import open_machine
from spikeloom_sim.transport import CHANNELS, Memory, Stalls

pytestmark = pytest.mark.rtl

CFG = preset("tiny")
AXI3 = replace(CFG, name="tiny_axi3", axi3=True, address_width=32)


@cache
def network(machine):
    config, tensors = random_model(7)
    return IntegerModel(config, tensors), compile_model(config, tensors, machine, logit_scale=50.0, streamed="all")


def check(device, transport):
    """A text with all rows streamed; every record and token compared."""
    model, image = network(device.cfg)
    device.load(image)
    report = verify(device, model, [1, 2, 3], 3)
    assert report.mismatches == 0 and report.compared > 50, report.first
    assert not transport.violations
    return transport.statistics


@pytest.mark.parametrize("stalls", [Stalls(everywhere=0.95), *(Stalls(channels={name: 0.98}) for name in CHANNELS)],
                         ids=["all", *CHANNELS])
def test_channels_held_back(open_device, stalls, seed):
    device, transport = open_device("tiny", stalls=stalls, seed=seed)
    check(device, transport)


def test_a_memory_that_takes_one_burst_at_a_time(open_device):
    device, transport = open_device("tiny", memory=Memory(outstanding=1, latency=40), stalls=Stalls(everywhere=0.5))
    assert check(device, transport)["most_outstanding"] == 1


def test_no_more_bursts_are_under_way_than_there_is_room_for(open_device):
    device, transport = open_device("tiny", memory=Memory(outstanding=10 * BURSTS_OPEN, latency=2000))
    assert 1 < check(device, transport)["most_outstanding"] <= BURSTS_OPEN


@pytest.mark.slow
@pytest.mark.builds
@pytest.mark.parametrize("stall", [0.0, 0.95])
def test_the_core_of_a_zynq_7000_keeps_to_axi3(stall, seed):
    with Device(open_machine(AXI3, stalls=Stalls(everywhere=stall), seed=seed), AXI3, deadline_s=120) as device:
        check(device, device.transport)
