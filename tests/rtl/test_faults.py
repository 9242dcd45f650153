"""What can go wrong on the Verilated machine: each fault a typed error, the device usable again, nothing hangs."""

import itertools
from dataclasses import replace
from functools import cache

import pytest

from spikeloom.arch.layout import TRACE_DTYPE, row_bytes
from spikeloom.arch.presets import preset
from spikeloom.arch.registers import ErrorCode, Reason, State
from spikeloom.compiler import compile_model
from spikeloom.driver import errors
from spikeloom.driver.verify import verify
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import TINY, random_model
from spikeloom_sim.transport import Memory, Stalls

pytestmark = pytest.mark.rtl

CFG = preset("tiny")
drawn = cache(random_model)


@pytest.fixture
def streamed(open_device):
    """(device, transport, model): a random network whose rows come from memory."""
    return bench(open_device, "all")


def bench(open_device, rows, **options):
    config, tensors = drawn(5)
    device, transport = open_device("tiny", **options)
    device.load(compile_model(config, tensors, CFG, logit_scale=50.0, streamed=rows))
    return device, transport, IntegerModel(config, tensors)


def works_again(device, model):
    report = verify(device, model, [1, 2, 3], 8)
    assert report.mismatches == 0, report.first
    assert len(report.tokens) == 8


def weights_of(device):
    """The buffer that holds the image, and the range of the streamed rows in it."""
    image, buffer = device.image, device._buffers["image"]
    start = bytes(buffer.array).find(image.sections["streamed"])
    assert start > 0
    return buffer, start, start + len(image.sections["streamed"])


def test_one_flipped_weight_bit_is_seen(streamed):
    device, _, model = streamed
    works_again(device, model)
    buffer, start, end = weights_of(device)
    program = device.image.program
    embed = next(c for c in program if c.label == "embed")
    weight = embed["address"] + 2 * row_bytes(embed["tiles"], 8, CFG) + 5  # token 2, channel 5
    assert start <= weight < end
    buffer.array[weight] ^= 0x40
    buffer.flush()
    report = verify(device, model, [1, 2, 3], 8)
    assert report.mismatches > 0 and "position 1" in report.first and "embed" in report.first
    buffer.array[weight] ^= 0x40
    buffer.flush()
    works_again(device, model)


@pytest.mark.parametrize("response", ["slverr", "decerr"])
def test_a_read_error_names_its_address(streamed, response):
    device, transport, model = streamed
    buffer, start, end = weights_of(device)
    low, high = buffer.address + start, buffer.address + end
    transport.fault("read_error", low, high, response=response)
    with pytest.raises(errors.BusError, match="read of address") as caught:
        list(device.generate([1, 2], 8, ignore_end=True))
    assert low <= caught.value.state["address"] < high
    assert caught.value.state["error"] == "BUS_READ"
    with pytest.raises(errors.BusError):
        list(device.generate([1], 1))
    transport.heal()
    device.reset()
    works_again(device, model)


def test_a_write_error_names_its_address(streamed):
    device, transport, model = streamed
    works_again(device, model)
    device.clear()
    ring = device._buffers["ring"].address
    transport.fault("write_error", ring, ring + 16)
    # A record that did not reach memory is never shown: what lies there is the earlier run's.
    stream, seen = device.generate([1, 2], 8, ignore_end=True), []
    with pytest.raises(errors.BusError, match="write to address"):
        for token in stream:
            seen.append(token)
    assert not seen
    transport.heal()
    device.reset()
    works_again(device, model)


@pytest.mark.parametrize("channel", ["ar", "r", "aw", "w", "b"])
def test_a_silent_bus_is_dead_until_the_fabric_is_reset(open_device, channel):
    device, transport, model = bench(open_device, "all")
    image = device.image
    works_again(device, model)
    device.clear()
    device.registers.write("bus_timeout", value=300)
    transport.fault(channel, 3)
    with pytest.raises(errors.BusDead) as caught:
        list(device.generate([1, 2, 3], 12, ignore_end=True))
    assert caught.value.state["bus_dead"]
    # A soft reset does not cure it, and work is refused.
    device.registers.write("control", reset=1)
    transport.run(2000)
    transport.heal()
    assert device.registers.fields("status")["bus_dead"]
    device.registers.write("control", start=1)
    transport.run(50)
    status = device.registers.fields("status")
    assert status["done"] and status["reason"] == Reason.FAILED
    assert device.registers.fields("error")["code"] == ErrorCode.BUS_DEAD
    transport.reset()
    device.load(image)
    works_again(device, model)


def test_a_command_that_takes_too_long_is_stopped_by_the_watchdog(streamed):
    device, transport, model = streamed
    device.registers.write("watchdog", value=40)
    with pytest.raises(errors.WatchdogExpired):
        list(device.generate([1, 2], 4, ignore_end=True))
    assert device.registers.fields("status")["state"] == State.ERROR
    device.registers.write("watchdog", value=1 << 24)
    device.reset()
    works_again(device, model)


def test_a_reset_in_mid_generation_forgets_the_context_only(open_device):
    for cycles in (137, 1003, 2222):
        device, transport, model = bench(open_device, "all", memory=Memory(latency=60))
        device._prepare_trace(16)
        device._run(0, [1, 2, 3], 12, ignore_end=True, trace=True)
        transport.run(cycles)
        device.reset()
        assert device.position == 0
        works_again(device, model)


@pytest.mark.parametrize("offset", range(12))
def test_no_interrupt_rises_from_a_soft_reset(streamed, offset):
    """Wherever the end of a run and a reset meet, the device is quiet afterwards."""
    device, transport, model = streamed
    cycles = device.registers.counters()["cycles"]
    device._run(0, [1], 1, ignore_end=True)
    device._await_end()
    length = device.registers.counters()["cycles"] - cycles
    device.clear()
    device._run(0, [1], 1, ignore_end=True)
    transport.run(length - 16 + offset)
    before = device.registers.fields("status")["done"]
    device.registers.write("control", reset=1)
    transport.run(300)
    assert not device.registers.fields("status")["done"] and not transport.interrupt, before
    works_again(device, model)


@pytest.mark.parametrize("memory, stalls", [
    (Memory(latency=200, outstanding=4), Stalls()), (Memory(latency=600, outstanding=4), Stalls()),
    (Memory(), Stalls(channels={"aw": 0.98}))])
def test_checksums_are_right_behind_a_slow_bus(open_device, memory, stalls):
    device, _, model = bench(open_device, "none", memory=memory, stalls=stalls)
    report = verify(device, model, list(range(1, 11)), 3)
    assert report.mismatches == 0, report.first


def test_stop_in_mid_generation_ends_after_a_token(streamed):
    device, _, model = streamed
    stream = device.generate([1, 2, 3], 25, ignore_end=True)
    taken = [t.id for t in itertools.islice(stream, 3)]
    stream.close()
    assert device.reason == Reason.STOPPED
    assert taken == model.generate([1, 2, 3], 3)
    device.clear()
    works_again(device, model)


def test_a_full_context_ends_with_its_own_reason(streamed):
    device, _, model = streamed
    context = device.model.context
    said = [t.id for t in device.generate([1, 2, 3], 100, ignore_end=True)]
    assert device.reason == Reason.CONTEXT_FULL and len(said) == context - 2
    model.clear()
    assert said == model.generate([1, 2, 3], context - 2)
    with pytest.raises(errors.ContextFull):
        list(device.generate([1], 1))
    device.clear()
    works_again(device, model)


def test_a_prompt_that_is_too_long_is_refused_before_anything_runs(streamed):
    device, _, model = streamed
    with pytest.raises(errors.ContextFull):
        list(device.generate([1] * (device.model.context + 1), 1))
    works_again(device, model)


def test_a_token_outside_the_vocabulary_is_refused_by_the_gates(streamed):
    device, transport, model = streamed
    vocabulary = device.model.vocabulary
    with pytest.raises(errors.PromptError):
        list(device.generate([vocabulary], 1))
    device.clear()
    device._run(0, [vocabulary], 1)
    with pytest.raises(errors.PromptError, match="vocabulary"):
        device._await_end()
    device.reset()
    works_again(device, model)


@pytest.mark.parametrize("rows", ["none", "all"])
@pytest.mark.parametrize("silent", ["layer0.in", "layer1.hidden", "everything"])
def test_silent_layers_end(open_device, rows, silent):
    config, tensors = drawn(7)
    tensors = {name: t.copy() for name, t in tensors.items()}
    names = {"layer0.in": ["layer0.in.base"], "layer1.hidden": ["layer1.up.base"],
             "everything": [n for n in tensors if n.endswith(".base")]}[silent]
    for name in names:
        tensors[name][:] = (1 << 31) - 1
    device, _ = open_device("tiny")
    device.load(compile_model(config, tensors, CFG, logit_scale=50.0, streamed=rows))
    report = verify(device, IntegerModel(config, tensors), [1, 2, 3], 8)
    assert report.mismatches == 0 and len(report.tokens) == 8, report.first
    if silent == "everything":
        assert device.counters()["spikes"] == 0 and device.counters()["rows_wanted"] == 2 * 10  # token and position


def test_records_that_do_not_fit_are_reported(streamed):
    device, _, model = streamed
    device._prepare_trace(4)
    device.registers.write("trace_bytes", value=5 * TRACE_DTYPE.itemsize)
    device._run(0, [1, 2], 3, ignore_end=True, trace=True)
    device._await_end()
    assert device.registers.fields("status")["trace_full"] and device.registers.read("trace_count") == 5
    device.reset()
    works_again(device, model)


def test_clipping_is_an_error_when_asked(open_device):
    config, tensors = drawn(3, saturate=True)
    device, _ = open_device("tiny")
    device.load(compile_model(config, tensors, CFG, logit_scale=50.0))
    with pytest.raises(errors.SaturationError):
        list(device.generate([1, 2], 20, ignore_end=True, stop_on_saturation=True))
    device.reset()
    assert verify(device, IntegerModel(config, tensors), [1, 2], 8).mismatches == 0


@pytest.mark.parametrize("seed", range(3))
def test_registers_that_start_from_anything(open_device, seed):
    """No register's first value matters: all that counts is set by reset or written before it is read."""
    print(f"seed {seed}")
    device, _, model = bench(open_device, "auto", scramble=True, seed=seed + 1, stalls=Stalls(everywhere=0.3))
    works_again(device, model)


def test_scores_are_the_models(streamed):
    device, _, model = streamed
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    scores = device.score(ids)
    model.clear()
    for position, (score, target) in enumerate(zip(scores, ids[1:], strict=True)):
        logits = model.step(ids[position], position)["logits"]
        assert (score.logit, score.best, score.best_logit) == (logits[target], logits.argmax(), logits.max())
    assert device.reason == Reason.SCORED


def test_dumps_hold_every_intermediate(open_device):
    config, tensors = drawn(5)
    device, _ = open_device("tiny")
    device.load(compile_model(config, tensors, CFG, logit_scale=50.0, trace_dumps=True))
    model = IntegerModel(config, tensors)
    report = verify(device, model, [1, 2, 3], 4)
    assert report.mismatches == 0, report.first
    words, at = device.dump_words(), 0
    model.clear()
    sequence = [1, 2, 3] + [t.id for t in report.tokens]
    compared = 0
    for position in range(6):
        trace = model.step(sequence[position], position, head=position >= 2)
        for command in device.image.program:
            if command.opcode.name == "DUMP" and not (command["head"] and position < 2):
                n = command["groups"] * CFG.lanes
                expected = trace[command.label.removeprefix("dump ")].reshape(-1)
                assert (words[at:at + len(expected)] == expected).all(), (position, command.label)
                at += n
                compared += 1
    assert at == len(words) and compared > 6 * 8 * config.layers


def test_another_machine_is_refused(open_device):
    config, tensors = drawn(5)
    device, _ = open_device("tiny")
    other = replace(CFG, name="other", resident_words=512)
    with pytest.raises(errors.ForeignImage):
        device.load(compile_model(config, tensors, other, logit_scale=50.0, streamed="all"))
    assert TINY.width <= CFG.max_width
