"""Random networks of many shapes and of every system: RTL, emulator and integer model agree in every token and every
command's checksum, which is every operator at every time step and position."""

from collections import Counter

import pytest

from spikeloom.driver.device import Device
from spikeloom.model.emulator import Emulator
from spikeloom_sim.random_cases import Case, Counting, cases, system_cases
from spikeloom_sim.random_systems import SYSTEMS
from spikeloom_sim.transport import Stalls

pytestmark = pytest.mark.rtl

#: Counters of the integer model, summed over the cases that ran.
SEEN = Counter()
RAN = []


#: What RTL and emulator must count alike; `cycles` is compared in `test_cycles`.
COUNTED = ("tokens", "commands", "event_tiles", "rows_wanted", "rows_skipped", "level_tiles", "bytes_rows", "spikes", "fired",
           "neurons", "winners", "saturations")


def compare(case: Case, open_device):
    """Run a case on both devices; returns (report of the RTL, what the integer model counted on it)."""
    print(f"seed {case.seed}: {case}")
    network = case.network()
    image = case.image(network)
    device, _ = open_device(case.machine.name, stalls=Stalls(everywhere=case.stall), seed=case.seed + 1)
    reference = Counting(*network)
    rtl = case.compare(device, image, reference)
    counts, counters = Counter(reference.counts), device.counters()
    assert rtl.mismatches == 0, f"rtl: {rtl.first}"
    with Device(Emulator(case.machine), case.machine) as emulator:
        emulated = case.compare(emulator, image, reference)
        assert emulated.mismatches == 0, f"emulator: {emulated.first}"
        assert [t.id for t in rtl.tokens] == [t.id for t in emulated.tokens] and rtl.compared == emulated.compared
        expected = emulator.counters()
    for name in COUNTED:
        assert counters[name] == expected[name], name
    share = counts["fired"] / counts["neurons"]
    assert 0.05 <= share <= case.loudest, f"{share:.0%} of the neurons speak"
    return rtl, counts


@pytest.mark.parametrize("case", cases(), ids=str)
def test_every_bit_agrees(case, open_device):
    report, counts = compare(case, open_device)
    assert len(report.tokens) == case.n_new and report.compared > case.n_new * (8 * case.model.layers)
    assert len({t.id for t in report.tokens}) >= 4
    SEEN.update({k: counts[k] for k in ("ties", "rows_without_winner", "rows_short", "saturations")})
    RAN.append(str(case))


@pytest.mark.parametrize("case", system_cases(), ids=str)
def test_every_system_agrees(case, open_device):
    report, _ = compare(case, open_device)
    positions = sum(map(len, case.texts)) if case.model.bidirectional else case.n_new
    assert report.compared > positions * 8 * case.model.layers * case.model.steps


def test_no_system_is_left_out():
    assert {case.system for case in cases() + system_cases()} == set(SYSTEMS)


def test_the_set_met_what_is_rare():
    if len(RAN) < 20:
        pytest.skip(f"only {len(RAN)} of the random cases ran in this process")
    print(dict(SEEN))
    for name in ("ties", "rows_without_winner", "rows_short", "saturations"):
        assert SEEN[name] > 0, name
