"""`board.golden`, `board.selftest`, `board.raster`: a right device passes, and the first wrong value of a wrong one is named."""

from dataclasses import replace

import numpy as np
import pytest

from spikeloom.arch.commands import Opcode
from spikeloom.arch.config import ceil_div
from spikeloom.arch.presets import preset
from spikeloom.arch.registers import Mode, register_map
from spikeloom.board import golden
from spikeloom.board.dumps import by_operator
from spikeloom.board.raster import firing
from spikeloom.board.selftest import selftest
from spikeloom.compiler import compile_model
from spikeloom.driver.device import Device
from spikeloom.driver.errors import BusError
from spikeloom.model.emulator import Emulator
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import random_model

TINY = preset("tiny")
MODE = register_map(TINY).address("mode")
OPERATORS = {"EMBED", "FIRE NI_LIF", "FIRE SIGNED_NI_LIF", "FIRE LIF_HARD", "FIRE T_LIF", "FIRE LIF_SUBTRACT", "LINEAR QKV",
             "LINEAR RESIDUAL", "LINEAR SPIKES", "LINEAR ADD_SPIKES", "LINEAR LOGITS", "ATTEND WTA", "ATTEND SSA", "ATTEND SFSA", "PICK"}


@pytest.fixture(scope="module")
def cases():
    """Those of the smallest machine; making them takes seconds."""
    return list(golden.cases(TINY))


def test_every_operator_passes(cases):
    with Device(Emulator(TINY), TINY) as device:
        outcome = selftest(device, cases)
    assert outcome.passed and outcome.first == "", outcome
    assert set(outcome.operators) == OPERATORS
    assert sum(compared for compared, _ in outcome.operators.values()) > 300
    assert str(outcome).endswith("No difference.")


@pytest.mark.rtl
def test_the_gateware_passes(cases):
    pytest.importorskip("amaranth")
    from spikeloom_sim.machine import open_machine

    with Device(open_machine(TINY, scramble=True), TINY, deadline_s=120) as device:
        outcome = selftest(device, cases)
    assert outcome.passed, outcome


@pytest.mark.parametrize("label, channel", [("layer0.qkv", 40), ("layer1.up", 5), ("layer1.down", 3)])
def test_the_first_difference_is_named_to_the_channel(label, channel):
    config, tensors = random_model(4)
    right = golden.make("wrong weight", compile_model(config, tensors, TINY, logit_scale=64.0, trace_dumps=True),
                        IntegerModel(config, tensors), TINY)
    tensors[f"{label}.weight"][:, channel] = np.where(tensors[f"{label}.weight"][:, channel] > 0, -127, 127)
    case = replace(right, image=compile_model(config, tensors, TINY, logit_scale=64.0, trace_dumps=True))
    with Device(Emulator(TINY), TINY) as device:
        outcome = selftest(device, [case])
    assert not outcome.passed and not outcome.failed
    assert f", {label}) at position " in outcome.first and f"channel {channel}: expected" in outcome.first, outcome.first
    found, expected, got = _numbers(outcome.first)
    assert found == channel and expected != got


def _numbers(sentence):
    """channel, expected, got of a report."""
    tail = sentence.rpartition("channel ")[2].rstrip(".")
    channel, _, rest = tail.partition(": expected ")
    expected, _, got = rest.partition(", got ")
    return int(channel), int(expected), int(got)


def test_expected_values_that_are_wrong_are_reported_with_operator_and_channel(cases):
    case = cases[1]
    number = next(i for i, record in enumerate(case.records) if case.image.program[record["command"]].label == "layer0.attn")
    records = case.records.copy()
    records[number]["checksum"] ^= 1
    with Device(Emulator(TINY), TINY) as device:
        outcome = selftest(device, [replace(case, records=records)])
    assert outcome.operators["ATTEND WTA"][1] == 1 and "the dump shows no difference" in outcome.first
    tokens = case.tokens.copy()
    tokens[2, 2] += 1
    with Device(Emulator(TINY), TINY) as device:
        outcome = selftest(device, [replace(case, tokens=tokens)])
    assert outcome.operators["PICK"][1] == 1 and "token 2 (id, position, logit, best logit)" in outcome.first


def test_a_failing_device_ends_the_test_in_words(cases):
    class Dead(Emulator):
        def wait_interrupt(self, deadline_s, cycles=None):
            if self.read32(MODE) & 3 == Mode.GENERATE:
                raise BusError("Memory is gone.")
            return super().wait_interrupt(deadline_s, cycles)

    with Device(Dead(TINY), TINY) as device:
        outcome = selftest(device, cases)
    assert outcome.failed and not outcome.passed and "BusError" in outcome.first


def test_nothing_compared_is_no_pass():
    with Device(Emulator(TINY), TINY) as device:
        assert not selftest(device, []).passed


# -- files ------------------------------------------------------------------------------------------------------

def test_files_keep_everything(cases, tmp_path):
    golden.write(tmp_path / "g.npz", cases)
    for wanted, got in zip(cases, golden.read(tmp_path / "g.npz", TINY), strict=True):
        assert (got.name, got.prompt, got.sampling, got.image.sections) == (
            wanted.name, wanted.prompt, wanted.sampling, wanted.image.sections)
        for field in ("tokens", "records", "words", "known"):
            assert np.array_equal(getattr(got, field), getattr(wanted, field))


def test_files_of_others_are_refused(cases, tmp_path):
    path = tmp_path / "g.npz"
    golden.write(path, cases[:1])
    with pytest.raises(golden.BadGolden, match="for a machine of fingerprint"):
        golden.read(path, replace(TINY, resident_words=2048))
    for data in (b"", b"PK\x03\x04", path.read_bytes()[:500]):
        path.write_bytes(data)
        with pytest.raises(golden.BadGolden):
            golden.read(path, TINY)
    with pytest.raises(golden.BadGolden):
        golden.read(tmp_path / "missing", TINY)


# -- spikes -----------------------------------------------------------------------------------------------------

def test_the_raster_is_what_the_model_computes():
    config, tensors = random_model(3)
    image = compile_model(config, tensors, TINY, logit_scale=64.0, trace_dumps=True)
    with Device(Emulator(TINY), TINY) as device:
        device.load(image)
        prompt = [1, 2, 3]
        made = [token.id for token in device.generate(prompt, 5, ignore_end=True, trace=True)]
        words = device.dump_words()
    seen = firing(words, image, prompt, made, TINY)
    assert set(seen.levels) == {"final", *(f"layer{i}.{part}" for i in range(2) for part in ("in", "attn", "mid", "up"))}
    assert seen.tokens == prompt + made
    model = IntegerModel(config, tensors)
    for position, token in enumerate(seen.tokens[:-1]):
        trace = model.step(token, position)
        for name, levels in seen.levels.items():
            row = position if name != "final" else position - 2
            if row >= 0:
                assert np.array_equal(levels[row], trace[name]), (name, position)
    assert all(0 < rate < 1 for rate in seen.rates().values())
    picture = seen._repr_svg_()
    assert picture.startswith("<svg") and picture.count("<rect") == len(seen.levels) and "layer1.up" in picture


def test_dumps_that_were_cut_short_lose_whole_rows():
    config, tensors = random_model(3)
    image = compile_model(config, tensors, TINY, logit_scale=64.0, trace_dumps=True)
    groups = sum(c["groups"] for c in image.program if c.opcode == Opcode.DUMP and not c["head"])
    words = np.arange(groups * TINY.lanes * 2 - 3, dtype=np.int32)
    rows = by_operator(words, image, 3, 1, TINY.lanes)
    assert len(rows["layer0.in"]) == 2 and len(rows["layer1.down"]) == 1
    assert rows["embed"].shape == (2, ceil_div(config.width, TINY.lanes) * TINY.lanes)
