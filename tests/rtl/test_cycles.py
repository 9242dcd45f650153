"""The cycle model against the cycle counter of the Verilated machines."""

import pytest

from spikeloom.arch.cycles import Sampling, command_cycles
from spikeloom.arch.layout import read_image, write_image
from spikeloom.arch.registers import Mode
from spikeloom.arch.run_cycles import Token, encoding_report, run_report
from spikeloom.arch.streamed_cycles import MemoryTiming
from spikeloom.arch.sweeps import Prefill
from spikeloom.compiler.image import compile_model
from spikeloom.driver.device import Device
from spikeloom.model.emulator import Emulator
from spikeloom.model.integer_model import IntegerModel
from spikeloom_sim.random_cases import LOGIT_SCALE, cases, system_cases
from spikeloom_sim.transport import Memory

pytestmark = pytest.mark.rtl

CASES, SYSTEM_CASES, NEW_TOKENS = cases(), system_cases(1), 12


def predict(case, image, network, ids, head, **options):
    """The report of a run over these tokens."""
    model = IntegerModel(*network)
    tokens = (Token(model.step(token, position, head=head(position)), token, position, head(position))
              for position, token in enumerate(ids))
    return run_report(case.machine, image.program, tokens, entry=image.card["entries"]["token"], prefill=Prefill.of(image.card),
                      room=case.model.context, **options)


def check_counters(counters, report):
    """What the machine counted and the model predicted, beside the cycles."""
    assert (counters["tokens"], counters["event_tiles"], counters["bytes_rows"]) == (
        report.tokens, report.event_tiles, report.row_bytes)


def compare(case, open_device, streamed, timing, dense=False):
    """(cycles counted, cycles predicted) of a generation and of the same text scored, or of every text encoded."""
    print(f"seed {case.seed}: {case}")
    network = case.network()
    image = read_image(write_image(compile_model(*network, case.machine, logit_scale=LOGIT_SCALE, streamed=streamed,
                                                 prefill_ahead=False)))
    memory = Memory(latency=timing.latency, rate=timing.rate, outstanding=timing.outstanding)
    device, _ = open_device(case.machine.name, memory=memory)
    device.load(image)
    if case.model.bidirectional:
        return [compare_text(device, network, text, timing, dense) for text in case.texts]
    prompt = case.prompt
    n_new = min(NEW_TOKENS, case.n_new)
    options = {"temperature": case.temperature, "top_k": case.top_k, "seed": case.seed, "dense": dense}
    made = list(device.generate(prompt, n_new, ignore_end=True, **options))
    counters = device.counters()
    ids = prompt + [token.id for token in made[:-1]]
    sampling = Sampling(top_k=case.top_k, vocabulary=case.model.vocabulary) if case.temperature else None
    first = predict(case, image, network, ids, lambda p: p >= len(prompt) - 1, memory=timing, sampling=sampling, dense=dense)
    check_counters(counters, first)

    device.clear()
    device.clear_counters()
    device.score(ids)
    scored = device.counters()
    second = predict(case, image, network, ids, lambda p: p < len(ids) - 1, memory=timing, scoring=True)
    check_counters(scored, second)
    return [(counters["cycles"], first.cycles), (scored["cycles"], second.cycles)]


def compare_text(device, network, text, timing, dense):
    """(cycles counted, cycles predicted) of one text."""
    device.clear_counters()
    device.encode(text, dense=dense)
    counters = device.counters()
    report = encoding_report(device.cfg, device.image.program, IntegerModel(*network).encode(text), text,
                             entry=device.image.card["entries"]["token"], dense=dense, memory=timing)
    check_counters(counters, report)
    return counters["cycles"], report.cycles


@pytest.mark.parametrize("dense", [False, True], ids=["events", "dense"])
@pytest.mark.parametrize("case", [CASES[n] for n in (0, 1, 4, 9, 14)], ids=str)
def test_resident_rows_take_exactly_the_predicted_cycles(case, dense, open_device):
    for counted, predicted in compare(case, open_device, "none", MemoryTiming(), dense):
        assert counted == predicted


@pytest.mark.parametrize("case, latency", [(CASES[n], latency) for n, latency in ((0, 24), (1, 24), (3, 64), (6, 64))],
                         ids=str)
def test_streamed_rows_take_exactly_the_predicted_cycles(case, latency, open_device):
    for counted, predicted in compare(case, open_device, "all", MemoryTiming(latency=latency)):
        assert counted == predicted


@pytest.mark.parametrize("streamed, latency", [("none", 24), ("all", 64)])
@pytest.mark.parametrize("case", SYSTEM_CASES[1:3] + SYSTEM_CASES[5:10] + SYSTEM_CASES[11:13], ids=str)
def test_systems_take_exactly_the_predicted_cycles(case, streamed, latency, open_device):
    """Time steps, SFSA, SSA, spikes that are added, encoders."""
    dense = streamed == "none" and case.seed % 2 == 1
    for counted, predicted in compare(case, open_device, streamed, MemoryTiming(latency=latency), dense):
        assert counted == predicted


@pytest.mark.parametrize("case, rate", [(CASES[0], 0.5), (CASES[3], 0.3)], ids=str)
def test_a_slow_memory_is_predicted_within_two_parts_in_a_thousand(case, rate, open_device):
    # What a memory saved up in one command it may spend in the next; the model begins each command anew.
    for counted, predicted in compare(case, open_device, "all", MemoryTiming(latency=64, rate=rate)):
        assert counted == pytest.approx(predicted, rel=0.002)


@pytest.mark.parametrize("case", [CASES[9], SYSTEM_CASES[2], SYSTEM_CASES[5], SYSTEM_CASES[6]], ids=str)
def test_the_emulator_counts_the_same_cycles(case, open_device):
    image = compile_model(*case.network(), case.machine, logit_scale=LOGIT_SCALE, streamed=case.streamed, prefill_ahead=False)
    seen = []
    for device in (open_device(case.machine.name)[0], Device(Emulator(case.machine), case.machine)):
        device.load(image)
        if case.model.bidirectional:
            device.encode(case.texts[-1])
            device._run(Mode.ENCODE, [])
            device._await_end()
        else:
            list(device.generate(case.prompt, 8, temperature=0.7, top_k=3, ignore_end=True))
            device.clear()
            device.score(case.prompt + [1, 2])
        seen.append(device.counters()["cycles"])
    assert seen[0] == seen[1] > 0


def test_booting_takes_the_predicted_cycles(open_device):
    case = CASES[1]
    image = compile_model(*case.network(), case.machine, logit_scale=LOGIT_SCALE, streamed="none")
    device, _ = open_device(case.machine.name)
    device.load(image)
    device._run(Mode.BOOT)
    device._await_end()
    loads = image.program[:image.card["entries"]["token"]]
    assert 0 <= device.counters()["cycles"] - sum(command_cycles(case.machine, command) for command in loads) <= 8
