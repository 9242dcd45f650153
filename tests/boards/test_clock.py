"""`board.clock` on the gateware: the clock is what it is, a wrong one is refused or warned of, and the device is as before."""

import warnings
from dataclasses import replace

import pytest

pytest.importorskip("amaranth")

from spikeloom.arch.presets import PRESETS, preset
from spikeloom.board.clock import Clock, ClockTooFast, ClockWarning, busy_program, measure_clock
from spikeloom.compiler import compile_model
from spikeloom.driver.device import Device
from spikeloom.driver.errors import DeadlineExpired, SpikeloomError
from spikeloom.driver.verify import verify
from spikeloom.model.emulator import Emulator
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import random_model

TINY = preset("tiny")


@pytest.fixture(scope="module")
def opened():
    """A device of gates whose wall clock follows the fabric at 100 MHz."""
    from spikeloom_sim.machine import open_machine

    with open_machine(TINY, scramble=True) as transport:
        transport.mhz = 100.0
        transport.now = lambda: transport.cycles / (transport.mhz * 1e6)
        transport.sleep = lambda seconds: transport.run(round(seconds * transport.mhz * 1e6))
        yield transport


@pytest.mark.rtl
@pytest.mark.parametrize("mhz", [100.0, 99.5, 80.0, 142.857])
def test_the_clock_is_measured(opened, mhz):
    opened.mhz = mhz
    clock = measure_clock(Device(opened, TINY), seconds=3e-4)
    assert clock.mhz == pytest.approx(mhz, rel=2e-3) and clock.goal_mhz == 100.0


@pytest.mark.rtl
def test_an_interval_longer_than_the_busy_program_is_no_measurement(opened):
    opened.mhz = 100.0
    shorter = replace(TINY, max_context=2)
    device = Device(opened, TINY)
    device.cfg = shorter
    with pytest.raises(DeadlineExpired, match="could not be measured"):
        measure_clock(device, seconds=1e-3)


@pytest.mark.rtl
def test_the_device_works_as_before(opened):
    opened.mhz = 100.0
    config, tensors = random_model(1)
    device = Device(opened, TINY, deadline_s=120)
    measure_clock(device, seconds=1e-4)
    assert not any(device.counters().values())
    assert not device.registers.fields("status")["busy"] and device.position == 0
    device.load(compile_model(config, tensors, TINY, logit_scale=64.0))
    assert verify(device, IntegerModel(config, tensors), [1, 2], 4).mismatches == 0
    with pytest.raises(SpikeloomError, match="before an image is loaded"):
        measure_clock(device)


def test_a_clock_that_stands_still_is_said():
    class Still(Emulator):
        def now(self):
            self.time = getattr(self, "time", 0.0) + 1.0
            return self.time

        def sleep(self, seconds):
            """No cycles come."""

    with Device(Still(TINY), TINY) as device:
        device.registers.counter = lambda name: 7
        with pytest.raises(DeadlineExpired, match="its counter stands still, or this computer was too busy"):
            measure_clock(device, seconds=1e-4)


def test_verdicts():
    for mhz in (99.5, 100.0, 100.5):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert Clock(mhz, 100.0).check().mhz == mhz
    with pytest.raises(ClockTooFast, match=r"runs at 125.00 MHz; the bitstream was built for 100 MHz. Load the .hwh"):
        Clock(125.0, 100.0).check()
    with pytest.warns(ClockWarning, match="right, but late"):
        Clock(50.0, 100.0).check()
    assert str(Clock(99.0, 100.0)) == "99.00 MHz measured, 100 MHz built for (-1.00%)"


@pytest.mark.parametrize("name", PRESETS)
def test_the_busy_program_fits_every_machine_and_lasts(name):
    cfg = preset(name)
    size = len(busy_program(cfg)) // 32
    assert 2 <= size <= cfg.program_words
    if name not in ("tiny", "twin", "d288", "d768"):  # simulated alone
        assert (size - 1) * min(cfg.max_neurons, cfg.resident_words) * cfg.max_context > 0.1 * cfg.clock_mhz * 1e6
