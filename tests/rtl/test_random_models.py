"""Random networks of many shapes: RTL, emulator and integer model agree in every token and every command's checksum."""

from collections import Counter

import pytest

from spikeloom.arch.layout import read_image, write_image
from spikeloom.compiler.image import compile_model
from spikeloom.driver.device import Device
from spikeloom.driver.verify import verify
from spikeloom.model.emulator import Emulator
from spikeloom.model.integer_model import IntegerModel
from spikeloom_sim.random_cases import LOGIT_SCALE, cases
from spikeloom_sim.transport import Stalls

pytestmark = pytest.mark.rtl

#: Counters of the integer model, summed over the cases that ran.
SEEN = Counter()
RAN = []


class Counting(IntegerModel):
    """An integer model that keeps the sum of its counters."""

    def clear(self):
        super().clear()
        self.counts = getattr(self, "counts", Counter())

    def step(self, *args, **kwargs):
        trace = super().step(*args, **kwargs)
        self.counts.update(trace.counters)
        return trace


@pytest.mark.parametrize("case", cases(), ids=str)
def test_every_bit_agrees(case, open_device):
    print(f"seed {case.seed}: {case}")
    config, tensors = case.network()
    image = read_image(write_image(compile_model(config, tensors, case.machine, logit_scale=LOGIT_SCALE, streamed=case.streamed)))
    prompt, n_new = case.prompt, case.n_new
    run = dict(temperature=case.temperature, top_k=case.top_k, seed=case.seed, dense=case.dense)

    device, transport = open_device(case.machine.name, stalls=Stalls(everywhere=case.stall), seed=case.seed + 1)
    reference = Counting(config, tensors)
    reports = []
    for name, it in (("rtl", device), ("emulator", Device(Emulator(case.machine), case.machine))):
        it.load(image)
        it.clear_counters()
        report = verify(it, reference, prompt, n_new, **run)
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
