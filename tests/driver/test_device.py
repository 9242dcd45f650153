"""The device's face: conversations, ends, streaming, scoring, and every way to fail."""

import itertools
from dataclasses import replace

import pytest

from spikeloom.arch.commands import Command, Opcode
from spikeloom.arch.layout import Image, pack_program, unpack_program, write_image
from spikeloom.arch.presets import preset
from spikeloom.arch.registers import Reason
from spikeloom.driver import errors
from spikeloom.driver.device import Device
from spikeloom.model.emulator import Emulator
from spikeloom.model.random_model import TINY


def ids(tokens):
    return [token.id for token in tokens]


# -- conversations ----------------------------------------------------------------------------------------------

def test_a_conversation_goes_on(bench):
    b = bench()
    first = ids(b.device.generate([3, 4, 5], 6, ignore_end=True))
    second = ids(b.device.generate([7, 8], 6, ignore_end=True))
    b.model.clear()
    assert first == b.model.generate([3, 4, 5], 6)
    assert second == b.model.generate([first[-1], 7, 8], 6, start=8)
    assert b.device.position == 8 + 3 + 5


def test_a_conversation_goes_on_without_new_words(bench):
    b = bench()
    halves = ids(b.device.generate([3], 5, ignore_end=True)) + ids(b.device.generate([], 5, ignore_end=True))
    b.device.clear()
    assert halves == ids(b.device.generate([3], 10, ignore_end=True))


def test_clear_forgets(bench):
    b = bench()
    first = ids(b.device.generate([3, 4], 6, ignore_end=True))
    b.device.clear()
    assert ids(b.device.generate([3, 4], 6, ignore_end=True)) == first
    b.device.clear()
    with pytest.raises(errors.PromptError, match="empty"):
        b.device.generate([], 3)


def test_leaving_early_stops_and_keeps_the_conversation_whole(bench):
    b = bench()
    taken = ids(itertools.islice(stream := b.device.generate([3], 25, ignore_end=True), 4))
    stream.close()
    assert b.device.reason == Reason.STOPPED
    position = b.device.position
    assert 4 <= position < 25
    rest = ids(b.device.generate([], 5, ignore_end=True))
    b.device.clear()
    whole = ids(b.device.generate([3], position + 5, ignore_end=True))
    assert whole[:4] == taken and whole[position:position + 5] == rest


def test_an_iterator_that_nobody_followed_loses_nothing(bench):
    b = bench()
    b.device.generate([3], 6, ignore_end=True)
    while b.device.registers.fields("status")["busy"]:
        pass
    rest = ids(b.device.generate([], 5, ignore_end=True))
    assert rest == b.model.generate([3], 11)[6:]


def test_an_old_iterator_ends_when_another_run_begins(bench):
    b = bench()
    old = b.device.generate([3], 6, ignore_end=True)
    first = next(old).id
    while b.device.registers.fields("status")["busy"]:
        pass
    rest = ids(b.device.generate([], 5, ignore_end=True))
    assert list(old) == [] and [first, *rest] == [b.model.generate([3], 11)[i] for i in (0, 6, 7, 8, 9, 10)]


def test_stop_inside_the_prompt_keeps_what_was_not_read(bench):
    b = bench()
    stream = b.device.generate(list(range(1, 11)), 5, ignore_end=True)
    b.device.stop()
    assert ids(stream) == [] and b.device.reason == Reason.STOPPED
    b.model.clear()
    assert ids(b.device.generate([], 5, ignore_end=True)) == b.model.generate(list(range(1, 11)), 5)


# -- ends -------------------------------------------------------------------------------------------------------

def test_reasons(bench):
    b = bench()
    probe = ids(b.device.generate([3], 8, ignore_end=True))
    assert b.device.reason == Reason.COUNT
    end = probe[3]
    c = bench(config=replace(TINY, end_token=end))
    stopped = ids(c.device.generate([3], 8))
    assert stopped == probe[:probe.index(end) + 1] and c.device.reason == Reason.END_TOKEN
    c.device.clear()
    assert ids(c.device.generate([3], 8, ignore_end=True)) == probe
    c.device.clear()
    assert len(ids(c.device.generate([3], 100, ignore_end=True))) == TINY.context
    assert c.device.reason == Reason.CONTEXT_FULL and c.device.position == TINY.context


def test_tokens_come_one_by_one(bench):
    b = bench()
    stream = b.device.generate([3], 10, ignore_end=True)
    next(stream)
    assert b.device.registers.fields("status")["busy"]
    assert b.device.position < 10
    stream.close()


# -- scoring ----------------------------------------------------------------------------------------------------

def test_scores_are_the_models_logits(bench):
    b = bench()
    text = [3, 7, 1, 4, 4, 9, 30]
    scores = b.device.score(text)
    assert b.device.reason == Reason.SCORED and len(scores) == len(text) - 1
    b.model.clear()
    for position, score in enumerate(scores):
        logits = b.model.step(text[position], position)["logits"]
        expected = (text[position + 1], position, logits[text[position + 1]], logits.argmax(), logits.max())
        assert (score.target, score.position, score.logit, score.best, score.best_logit) == expected


def test_scoring_goes_on_from_a_conversation(bench):
    b = bench()
    made = ids(b.device.generate([3, 4], 4, ignore_end=True))
    scores = b.device.score([5, 6])
    assert [s.target for s in scores] == [5, 6] and scores[0].position == 5
    assert made[-1] is not None and b.device.position == 8


# -- sampling ---------------------------------------------------------------------------------------------------

def test_top_one_is_greedy(bench):
    b = bench()
    greedy = ids(b.device.generate([3], 10, ignore_end=True))
    b.device.clear()
    assert ids(b.device.generate([3], 10, ignore_end=True, temperature=3.0, top_k=1, seed=4)) == greedy
    b.device.clear()
    everything = ids(b.device.generate([3], 10, ignore_end=True, temperature=3.0, top_k=0, seed=4))
    for more in (9, 16, 1000):
        b.device.clear()
        assert ids(b.device.generate([3], 10, ignore_end=True, temperature=3.0, top_k=more, seed=4)) == everything


# -- refusals ---------------------------------------------------------------------------------------------------

def test_a_foreign_bitstream_is_refused_in_words(tiny):
    with pytest.raises(errors.ForeignBitstream, match="'sim' has 64"):
        Device(Emulator(tiny), preset("sim"))


def test_no_core_at_all(tiny):
    emulator = Emulator(tiny)
    emulator.read32 = lambda offset: 0xFFFF_FFFF
    with pytest.raises(errors.ForeignBitstream, match="magic register reads 0xffffffff"):
        Device(emulator, tiny)


def test_a_foreign_image_is_refused(bench):
    b = bench()
    with pytest.raises(errors.ForeignImage, match="compiled for machine 'tiny'"):
        b.device.load(Image(b.image.fingerprint ^ 1, b.image.sections))


@pytest.mark.parametrize("damage", ["magic", "version", "cut", "table", "program", "params", "resident", "card"])
def test_damaged_images_are_refused_before_anything_is_sent(bench, damage):
    b = bench(load=False)
    data = bytearray(write_image(b.image))
    at = {"magic": 0, "version": 4, "table": 40}.get(damage)
    if damage == "cut":
        data = data[:len(data) - 4096]
    elif at is None:
        at = bytes(data).index(b.image.sections[damage][:32])
    if at is not None:
        data[at] ^= 1
    written = []
    b.emulator.write32 = lambda *a: written.append(a)
    with pytest.raises(errors.BadImage):
        b.device.load(bytes(data))
    assert not written


def test_a_missing_file_and_a_broken_card(bench, tmp_path):
    b = bench()
    with pytest.raises(errors.BadImage, match="cannot be read"):
        b.device.load(tmp_path / "none.loom")
    for card in (b"{}", b"[]", b"not json", b'{"model": {"name": "x"}}'):
        with pytest.raises(errors.BadImage, match="card"):
            b.device.load(Image(b.image.fingerprint, {**b.image.sections, "card": card}))


def test_prompts(bench):
    b = bench()
    with pytest.raises(errors.PromptError, match="empty"):
        b.device.generate([], 3)
    with pytest.raises(errors.PromptError, match="99"):
        b.device.generate([1, 99], 3)
    with pytest.raises(errors.PromptError, match="two tokens"):
        b.device.score([1])
    with pytest.raises(errors.ContextFull, match="33 tokens after 0"):
        b.device.generate([1] * 33, 3)
    ids(b.device.generate([1] * 30, 2, ignore_end=True))
    with pytest.raises(errors.ContextFull, match="after 31"):
        b.device.generate([1], 3)
    for bad in ({"n_new": 0}, {"n_new": 1, "top_k": -1}, {"n_new": 1, "temperature": -1.0}, {"n_new": 1, "temperature": 1e9},
                *({"n_new": 1, "temperature": float(text)} for text in ("nan", "inf", "1e308", "1e17"))):
        b.device.clear()
        with pytest.raises(ValueError):
            b.device.generate([1], **bad)


def test_where_memory_ends_nothing_that_was_given_back_is_used(bench, monkeypatch):
    b = bench()
    ids(b.device.generate([1], 1, ignore_end=True, trace=True))
    b.device.clear()
    with monkeypatch.context() as patched:
        patched.setattr(b.emulator, "allocate", lambda nbytes: (_ for _ in ()).throw(MemoryError("full")))
        with pytest.raises(MemoryError, match="full"):
            b.device.generate([1], 20, ignore_end=True, trace=True)
    ids(b.device.generate([1], 1, ignore_end=True, trace=True))
    assert len(b.device.trace_records())


def test_nothing_loaded_and_busy(bench):
    with pytest.raises(errors.SpikeloomError, match="No image"):
        bench(load=False).device.generate([1], 1)
    b = bench()
    stream = b.device.generate([1], 20, ignore_end=True)
    next(stream)
    with pytest.raises(errors.SpikeloomError, match="busy"):
        b.device.generate([1], 1)
    stream.close()


# -- failures of a run ------------------------------------------------------------------------------------------

def corrupt(bench, change, **options):
    """Load an image whose token section has one command changed (its CRC is right)."""
    b = bench(load=False, **options)
    program = b.image.program
    index, command = next((i, c) for i, c in enumerate(program) if change(c) is not None)
    program[index] = Command(command.opcode, {**command.fields, **change(command)}, command.label)
    b.device.load(Image(b.image.fingerprint, {**b.image.sections, "program": pack_program(program)}))
    return b, index


def on(label, **fields):
    return lambda command: fields if command.label == label else None


BAD_FIELDS = {
    "no groups": on("layer0.in", groups=0), "too many groups": on("layer0.in", groups=5),
    "parameters": on("layer0.in", params=254), "level": on("layer0.in", level=9), "no level": on("layer0.in", level=0),
    "neuron": on("layer0.in", neuron=7), "levels of a neuron without": on("layer0.mid", neuron=3, level=2),
    "slot": on("layer0.in", stream=64), "slot written": on("layer0.out", stream=64), "slot embedded": on("embed", stream=64),
    "third buffer": on("layer0.in", dst=3), "past the buffer": on("layer0.in", base_group=13), "tiles": on("layer0.up", tiles=17),
    "weights": on("layer0.up", weight_code=3), "own source": on("layer0.up", src=0, dst=0), "inputs": on("layer0.up", n_in=65),
    "source": on("layer0.up", src=3), "sink": on("layer0.up", sink=7), "sink of a fire": on("layer0.in", sink=2),
    "sink of an embedding": on("embed", sink=0), "spikes added": on("layer0.out", sink=4, level=0),
    "spike shift": on("layer0.in", sink=5, embed_shift=9), "attention": on("layer0.attn", attention=3),
    "winners": on("layer0.attn", top_k=5), "no winners": on("layer0.attn", top_k=0),
    "heads": on("layer0.attn", head_level=7), "region": on("layer0.attn", a_kv_base=128), "bank": on("layer0.qkv", kv_base=1),
    "logits": on("logits", base_group=40), "residual": on("layer0.out", base_group=3), "embedding": on("embed", embed_shift=9),
}


@pytest.mark.parametrize("change", BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_bad_commands_are_refused(bench, change):
    b, index = corrupt(bench, change)
    with pytest.raises(errors.BadProgram, match=f"command {index} ") as caught:
        ids(b.device.generate([1], 2))
    assert caught.value.state["error"] == "BAD_PROGRAM" and caught.value.state["state"] == "ERROR"
    with pytest.raises(errors.BadProgram):
        b.device.generate([1], 2)
    b.device.reset()
    assert b.device.registers.fields("error")["code"] == 0


def test_unknown_opcodes(bench):
    b = bench(load=False)
    program = bytearray(b.image.sections["program"])
    program[b.image.card["entries"]["token"] * 32] = 0x0F
    b.device.load(Image(b.image.fingerprint, {**b.image.sections, "program": bytes(program)}))
    with pytest.raises(errors.BadProgram, match="embed"):
        ids(b.device.generate([1], 2))


@pytest.mark.parametrize("streamed, address", [("none", 1020), ("all", 1 << 30)])
def test_addresses_past_the_end(bench, streamed, address):
    b, _ = corrupt(bench, on("layer0.up", address=address), streamed=streamed)
    with pytest.raises(errors.BadProgram, match="past the end"):
        ids(b.device.generate([1], 2))


def test_loads_past_the_end(bench):
    with pytest.raises(errors.BadProgram, match="load parameters"):
        corrupt(bench, on("load parameters", l_words=4096))


def test_memory_that_went_away(bench):
    b = bench(streamed="all")
    b.device._buffers["image"].free()
    with pytest.raises(errors.BusError, match="read"):
        ids(b.device.generate([1], 2))
    c = bench()
    c.device._buffers["ring"].free()
    with pytest.raises(errors.BusError, match="write"):
        ids(c.device.generate([1], 2))


def test_saturation_can_be_an_error(bench):
    b = bench(5, saturate=True)
    with pytest.raises(errors.SaturationError, match="clipped in command"):
        ids(b.device.generate([1], 20, ignore_end=True, stop_on_saturation=True))
    b.device.reset()
    ids(b.device.generate([1], 20, ignore_end=True))
    assert b.device.counters()["saturations"] > 0


def test_a_device_that_stands_still(bench):
    b = bench()
    b.device.deadline_s = 0.02
    b.emulator.sequencer.advance = lambda: None
    with pytest.raises(errors.DeadlineExpired, match="no progress") as caught:
        ids(b.device.generate([1], 2))
    assert caught.value.state["busy"] == 1


def test_reset_after_a_failure_brings_the_device_back(bench):
    b = bench()
    good = ids(b.device.generate([3], 5, ignore_end=True))
    b.emulator.sequencer.program[b.image.card["entries"]["token"] * 8] = 0xF
    b.device.clear()
    with pytest.raises(errors.BadProgram):
        ids(b.device.generate([3], 5))
    b.device.load(b.image)
    assert ids(b.device.generate([3], 5, ignore_end=True)) == good


def test_closed_devices_are_gone(bench):
    b = bench()
    b.device.close()
    with pytest.raises(errors.DeviceGone):
        b.device.generate([1], 1)


def test_programs_hold_no_dumps_unless_asked(bench):
    assert not any(c.opcode == Opcode.DUMP for c in bench(load=False).image.program)


# -- runs that nobody looks after -------------------------------------------------------------------------------

def wait_until_idle(device):
    for _ in range(1000):
        if not device.registers.fields("status")["busy"]:
            return
        device.transport.wait_interrupt(1, 1000)
    raise AssertionError("still busy")


def test_clear_stops_a_run_that_is_under_way(bench):
    b = bench()
    stream = b.device.generate([1, 2, 3], 20, ignore_end=True)
    next(stream)
    b.device.clear()
    assert b.device.position == 0 and not list(stream)
    assert ids(b.device.generate([4], 5, ignore_end=True)) == b.model.generate([4], 5)


def test_an_iterator_that_was_never_started_takes_nothing_from_the_next(bench):
    b = bench()
    whole = b.model.generate([3], 10)
    old = b.device.generate([3], 6, ignore_end=True)
    wait_until_idle(b.device)
    new = b.device.generate([], 4, ignore_end=True)
    assert not ids(old)
    assert ids(new) == whole[6:]
    old = b.device.generate([], 2, ignore_end=True)
    wait_until_idle(b.device)
    b.device.score([1, 2, 3])
    assert not ids(old)


def test_an_image_that_did_not_boot_is_not_loaded(bench, tiny):
    b = bench()
    program = unpack_program(b.image.sections["program"])
    broken = Image(b.image.fingerprint, b.image.sections | {"program": pack_program(
        [replace(c, fields=c.fields | {"l_words": 0}) if c.opcode == Opcode.LOAD else c for c in program])})
    with pytest.raises(errors.BadProgram):
        b.device.load(write_image(broken))
    b.device.reset()
    with pytest.raises(errors.SpikeloomError, match="No image"):
        b.device.generate([1, 2], 3)
    b.device.load(b.image)
    assert ids(b.device.generate([3], 4, ignore_end=True)) == b.model.generate([3], 4)


def test_dumps_of_a_run_without_trace_go_nowhere(bench):
    b = bench(trace_dumps=True)
    list(b.device.generate([1, 2], 3, ignore_end=True, trace=True))
    b.device.load(b.image)
    mine = b.device.transport.allocate(1 << 16)
    mine.array[:] = 0
    mine.flush()
    list(b.device.generate([1, 2], 3, ignore_end=True))
    mine.invalidate()
    assert not mine.array.any()
