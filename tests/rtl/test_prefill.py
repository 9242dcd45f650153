"""Blocks of prompt tokens on the Verilated machine: the bits of token by token, the cycles that are predicted, and every way to end."""

import json
from dataclasses import replace
from functools import cache

import pytest

from spikeloom.arch.commands import Command, Opcode
from spikeloom.arch.commands import Memory as Destination
from spikeloom.arch.layout import Image, pack_program
from spikeloom.arch.presets import preset
from spikeloom.arch.registers import ErrorCode, Mode, Reason
from spikeloom.arch.run_cycles import Token, run_report
from spikeloom.arch.streamed_cycles import MemoryTiming
from spikeloom.arch.sweeps import Prefill, prompt_blocks
from spikeloom.compiler import compile_model
from spikeloom.driver import errors
from spikeloom.driver.device import Device
from spikeloom.driver.verify import verify
from spikeloom.model.emulator import Emulator
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import TINY, random_model
from spikeloom_sim.transport import Memory, Stalls

pytestmark = pytest.mark.rtl

CFG = preset("tiny")
BLOCK, NEW = 4, 3
LEVELS = dict.fromkeys(("level_in", "level_v", "level_attn", "level_mid", "level_hidden", "level_final"), 1)
#: Shapes and what is streamed: formats, some matrices on chip, two time steps with spikes that are added, spikes as the stream.
NETWORKS = {
    "int8": (TINY, "all"),
    "int4 some": (replace(TINY, weight_bits=4), frozenset({"layer0.qkv", "layer1.up", "layer1.down", "head"})),
    "ternary": (replace(TINY, weight_bits=2, overlap=True), "all"),
    "two steps": (replace(TINY, neuron="lif_subtract", steps=2, leak=3, attention="sfsa", residual="spike_sum", spike_shift=4, **LEVELS),
                  "all"),
    "spikes": (replace(TINY, neuron="t_lif", steps=2, embedding="spikes", residual="all_spikes", spike_shift=3, **LEVELS), "all"),
}
LENGTHS = [1, 2, 3, BLOCK, BLOCK + 1, BLOCK + 2, 3 * BLOCK + 3]
#: What emulator and RTL count alike.
COUNTED = ("cycles", "tokens", "commands", "event_tiles", "rows_wanted", "rows_skipped", "level_tiles", "bytes_rows", "spikes", "fired",
           "neurons", "winners", "saturations")


@cache
def network(name):
    print(f"seed {len(name)}")
    return random_model(len(name), NETWORKS[name][0])


def image_of(name, ahead=True):
    image = compile_model(*network(name), CFG, logit_scale=50.0, streamed=NETWORKS[name][1], prefill_block=BLOCK, prefill_ahead=ahead)
    assert any(command["l_ahead"] for command in image.program) == ahead
    assert image.card["prefill"] == {"block": BLOCK}
    return image


def text(length, vocabulary=TINY.vocabulary):
    return [(5 * n + length) % vocabulary for n in range(length)]


def predicted(name, image, prompt, made, timing, **options):
    model = IntegerModel(*network(name))
    tokens = [Token(model.step(token, position, head=position >= len(prompt) - 1), token, position, position >= len(prompt) - 1)
              for position, token in enumerate(prompt + [token.id for token in made[:-1]])]
    return run_report(CFG, image.program, tokens, entry=image.card["entries"]["token"], prefill=Prefill.of(image.card), memory=timing,
                      room=TINY.context, **options)


@pytest.mark.parametrize("ahead", [False, True], ids=["in turn", "ahead"])
@pytest.mark.parametrize("dense", [False, True], ids=["events", "dense"])
@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_give_the_same_bits_in_the_predicted_cycles(name, dense, ahead, open_device):
    """To the cycle; where LOADs go on behind other commands within 2%."""
    image, timing = image_of(name, ahead), MemoryTiming(latency=40)
    device, _ = open_device("tiny", memory=Memory(latency=timing.latency, outstanding=timing.outstanding))
    emulated = Device(Emulator(CFG), CFG)
    for it in (device, emulated):
        it.load(image)
    model = IntegerModel(*network(name))
    for length in LENGTHS if not dense else LENGTHS[-1:]:
        counted = []
        for it in (device, emulated):
            it.clear_counters()
            report = verify(it, model, text(length), NEW, dense=dense)
            assert report.mismatches == 0, report.first
            device.clear()
            it.clear_counters()
            report = verify(it, model, text(length), NEW, dense=dense, trace=False)
            counted.append(it.counters())
        at_24 = predicted(name, image, text(length), report.tokens, None, dense=dense)
        at_40 = predicted(name, image, text(length), report.tokens, timing, dense=dense)
        print(length, counted[0]["cycles"], at_40.cycles)
        assert counted[1]["cycles"] == at_24.cycles
        assert abs(counted[0]["cycles"] - at_40.cycles) <= (0.02 * at_40.cycles if ahead else 0), length
        for key in COUNTED[1:]:
            assert counted[0][key] == counted[1][key], key
        assert (at_40.tokens, at_40.event_tiles, at_40.row_bytes) == tuple(
            counted[0][key] for key in ("tokens", "event_tiles", "bytes_rows"))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", ["int8", "two steps"])
def test_stalls_change_nothing(name, seed, open_device):
    print(f"seed {seed}")
    device, _ = open_device("tiny", stalls=Stalls(everywhere=0.3), seed=seed)
    device.load(image_of(name))
    for length in (BLOCK + 2, 3 * BLOCK + 3):
        report = verify(device, IntegerModel(*network(name)), text(length), NEW)
        assert report.mismatches == 0, report.first


def test_a_prompt_goes_on_from_a_conversation(open_device):
    """Blocks of a second prompt begin where the first text ended, and with the token that it left unread."""
    image = image_of("int8")
    device, _ = open_device("tiny")
    device.load(image)
    said = []
    for prefill in (True, False):
        device.clear()
        said.append([token for prompt in (text(6), text(7)) for token in device.generate(prompt, NEW, ignore_end=True, prefill=prefill)])
    assert said[0] == said[1] and said[0][-1].position == 6 + 7 + 2 * NEW - 2


def run(device, prompt, n_new, *, stop_after=None):
    """A run that the driver would not begin; (reason, position, tokens counted)."""
    device.clear()
    device.clear_counters()
    device._sequence = None
    device._run(Mode.GENERATE, prompt, n_new, ignore_end=True)
    if stop_after is not None:
        device.transport.run(stop_after)
        device.stop()
    device._await_end()
    return device.reason, device.position, device.counters()["tokens"]


@pytest.mark.parametrize("extra", [0, 1, 2, BLOCK, BLOCK + 1])
def test_a_full_context_ends_a_block(extra, open_device):
    """Of a prompt that is longer than the context, what fits is read, as it is token by token."""
    image, prompt = image_of("int8", ahead=False), text(TINY.context + extra)
    device, _ = open_device("tiny")
    seen = []
    for it in (device, Device(Emulator(CFG), CFG)):
        it.load(image)
        seen.append((*run(it, prompt, 2), it.counters()["cycles"]))
    assert seen[0] == seen[1]
    assert seen[0][:3] == (Reason.CONTEXT_FULL, TINY.context, TINY.context)


def test_a_block_that_has_begun_is_read_to_its_end(open_device):
    """A stop leaves whole blocks: wherever it comes, what was read is read, and the conversation goes on from there."""
    image, prompt, model = image_of("int8"), text(3 * BLOCK + 3), IntegerModel(*network("int8"))
    device, _ = open_device("tiny")
    device.load(image)
    sizes = prompt_blocks(len(prompt), Prefill.of(image.card), TINY.context)
    ends = {sum(sizes[:n]) for n in range(len(sizes) + 1)}
    expected = verify(device, model, prompt, NEW).tokens
    seen = set()
    for cycles in (1, 200, 700, 1100, 1500, 2000, 2700):
        device.clear()
        stream = device.generate(prompt, NEW, ignore_end=True)
        device.transport.run(cycles)
        device.stop()
        list(stream)
        assert device.reason == Reason.STOPPED and device.position in ends
        seen.add(device.position)
        # The rest of the prompt comes first.
        made = list(device.generate([], NEW, ignore_end=True)) if device.position < len(prompt) else []
        assert made == expected
    assert len(seen) > 1


@pytest.mark.parametrize("place", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 1])
def test_a_bad_token_in_a_block_names_its_position(place, open_device):
    image, prompt = image_of("int8"), text(3 * BLOCK)
    prompt[place] = TINY.vocabulary
    device, _ = open_device("tiny")
    for it in (device, Device(Emulator(CFG), CFG)):
        it.load(image)
        with pytest.raises(errors.SpikeloomError):
            run(it, prompt, 2)
        error = it.registers.fields("error")
        assert (error["code"], error["position"]) == (ErrorCode.BAD_TOKEN, place)
        assert it.registers.read("error_address") == TINY.vocabulary
        it.reset()
        report = verify(it, IntegerModel(*network("int8")), text(9), NEW)
        assert report.mismatches == 0, report.first


def test_a_bus_that_dies_under_a_load_names_the_load(open_device):
    """Whatever runs meanwhile: no data come any more after so many beats."""
    image = image_of("int8")
    entry = image.card["entries"]["prefill"]
    loads = [index for index in range(entry, len(image.program)) if image.program[index].opcode == Opcode.LOAD]
    device, transport = open_device("tiny")
    device.load(image)
    device.registers.write("bus_timeout", value=100)
    first = sum(image.program[index]["l_words"] for index in loads if not image.program[index]["l_ahead"])
    transport.fault("r", first + 4 * BLOCK + 20)
    with pytest.raises(errors.SpikeloomError):
        list(device.generate(text(9), NEW))
    error = device.registers.fields("error")
    assert (error["code"], error["position"]) == (ErrorCode.BUS_DEAD, 0) and error["command"] in loads
    assert image.program[error["command"]]["l_ahead"]
    transport.heal()
    transport.reset()
    device.load(image)
    report = verify(device, IntegerModel(*network("int8")), text(9), NEW)
    assert report.mismatches == 0, report.first


@pytest.mark.parametrize("memory", Destination, ids=lambda memory: memory.name.lower())
def test_streamed_rows_wait_for_a_load_that_goes_on(memory, open_device):
    """In a program that no compiler writes: LOADs in a token section whose rows are streamed."""
    model = network("int8")
    image = compile_model(*model, CFG, logit_scale=50.0, streamed="all", prefill_block=0)
    entry, program = image.card["entries"]["token"], image.program
    rows = {"l_memory": memory, "l_address": 500, "l_words": 200, "l_offset": 0}
    fields = program[0].fields if memory == Destination.PARAMETERS else rows
    load = [Command(Opcode.LOAD, {**fields, "l_ahead": 1}, "load")]
    program = program[:entry] + load + program[entry:entry + 3] + load + program[entry + 3:]
    card = image.card | {"labels": [command.label for command in program]}
    image = Image(image.fingerprint, image.sections | {"program": pack_program(program), "card": json.dumps(card).encode()})
    cycles = []
    for device in (open_device("tiny")[0], Device(Emulator(CFG), CFG)):
        device.load(image)
        device.clear_counters()
        report = verify(device, IntegerModel(*model), text(4), NEW)
        assert report.mismatches == 0, report.first
        cycles.append(device.counters()["cycles"])
    assert cycles[0] == pytest.approx(cycles[1], rel=0.02)


def test_faults_of_a_block_name_command_and_position(open_device):
    """A block of more slots than there are is refused at its first command; a read error is the LOAD's; a watchdog counts for a LOAD."""
    image = image_of("int8")
    entry = image.card["entries"]["prefill"]
    device, transport = open_device("tiny")
    for it in (device, Device(Emulator(CFG), CFG)):
        it.load(image)
        it.registers.write("prefill", entry=entry, block=CFG.residual_slots + 1)
        with pytest.raises(errors.SpikeloomError):
            run(it, text(9), 2)
        error = it.registers.fields("error")
        embed = next(n for n in range(entry, len(image.program)) if image.program[n].label == "embed")
        assert (error["code"], error["command"], error["position"]) == (ErrorCode.BAD_PROGRAM, embed, 0)
        it.registers.write("prefill", entry=entry, block=BLOCK)
        it.reset()
    load = next(c for c in image.program[entry:] if c.label == "load layer1.up")
    low = device._buffers["image"].address + load["l_offset"]
    transport.fault("read_error", low, low + 8)
    with pytest.raises(errors.BusError) as caught:
        list(device.generate(text(9), NEW))
    assert caught.value.state["address"] == low
    error = device.registers.fields("error")
    assert (error["command"], error["position"]) == (image.program.index(load), 0)
    transport.heal()
    device.reset()
    device.registers.write("watchdog", value=30)
    with pytest.raises(errors.SpikeloomError):
        list(device.generate(text(9), NEW))
    error = device.registers.fields("error")
    assert (error["code"], error["command"], error["position"]) == (ErrorCode.WATCHDOG, entry, 0)
    device.registers.write("watchdog", value=1 << 24)
    device.reset()
    report = verify(device, IntegerModel(*network("int8")), text(9), NEW)
    assert report.mismatches == 0, report.first
