"""Random networks of many shapes: RTL, emulator and integer model agree in every token and every command's checksum."""

from collections import Counter

import pytest

from spikeloom.driver.device import Device
from spikeloom.model.emulator import Emulator
from spikeloom_sim.random_cases import Counting, cases
from spikeloom_sim.transport import Stalls

pytestmark = pytest.mark.rtl

#: Counters of the integer model, summed over the cases that ran.
SEEN = Counter()
RAN = []


@pytest.mark.parametrize("case", cases(), ids=str)
def test_every_bit_agrees(case, open_device):
    print(f"seed {case.seed}: {case}")
    config, tensors = case.network()
    image, n_new = case.image((config, tensors)), case.n_new

    device, transport = open_device(case.machine.name, stalls=Stalls(everywhere=case.stall), seed=case.seed + 1)
    reference = Counting(config, tensors)
    reports = []
    for name, it in (("rtl", device), ("emulator", Device(Emulator(case.machine), case.machine))):
        report = case.compare(it, image, reference)
        assert report.mismatches == 0, f"{name}: {report.first}"
        reports.append((report, it.counters()))
    (rtl, rtl_counts), (emulated, emulator_counts) = reports
    assert [t.id for t in rtl.tokens] == [t.id for t in emulated.tokens]
    assert len(rtl.tokens) == n_new and rtl.compared == emulated.compared > n_new * (8 * config.layers)
    for name in ("tokens", "commands", "event_tiles", "rows_wanted", "rows_skipped", "level_tiles", "bytes_rows", "spikes", "fired",
                 "neurons", "winners", "saturations"):
        assert rtl_counts[name] == emulator_counts[name], name

    counts = reference.counts
    share = counts["fired"] / counts["neurons"]
    assert 0.05 <= share <= 0.60, f"{share:.0%} of the neurons speak"
    assert len({t.id for t in rtl.tokens}) >= 4
    SEEN.update({k: counts[k] for k in ("ties", "rows_without_winner", "rows_short", "saturations")})
    RAN.append(str(case))


def test_the_set_met_what_is_rare():
    if len(RAN) < 20:
        pytest.skip(f"only {len(RAN)} of the random cases ran in this process")
    print(dict(SEEN))
    for name in ("ties", "rows_without_winner", "rows_short", "saturations"):
        assert SEEN[name] > 0, name
