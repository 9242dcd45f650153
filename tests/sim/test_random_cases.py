"""Random networks of every system: they fit their machine, and the emulator agrees with the integer model on them."""

import pytest

from spikeloom.arch.config import check_fit
from spikeloom.driver.device import Device
from spikeloom.model.emulator import Emulator
from spikeloom_sim.random_cases import Counting, cases, system_cases
from spikeloom_sim.random_systems import SYSTEMS

SYSTEM_CASES = system_cases(1)


def test_draws_fit_and_cover_every_system():
    drawn = cases() + system_cases(4)
    for case in drawn:
        check_fit(case.model, case.machine)
    assert {case.system for case in drawn} == set(SYSTEMS)
    for field, least in (("neuron", 6), ("attention", 3), ("residual", 4), ("embedding", 2), ("head", 4), ("bidirectional", 2)):
        assert len({getattr(case.model, field) for case in drawn}) == least, field


def test_draws_are_the_same_every_time():
    assert system_cases(2) == system_cases(2) and len({str(case) for case in system_cases(2)}) == 2 * len(SYSTEMS)


@pytest.mark.parametrize("case", SYSTEM_CASES, ids=str)
def test_the_emulator_agrees(case):
    print(f"seed {case.seed}: {case}")
    network = case.network()
    with Device(Emulator(case.machine), case.machine) as device:
        report = case.compare(device, case.image(network), Counting(*network))
    assert report.mismatches == 0, report.first
    assert report.compared > 10 * case.model.steps
