"""Emulator and integer model agree in every token, logit and checksum; and a wrong bit is found."""

from dataclasses import replace

import numpy as np
import pytest

from spikeloom.arch.commands import Opcode
from spikeloom.arch.config import TENSORS
from spikeloom.compiler import compile_model
from spikeloom.driver.device import Device
from spikeloom.driver.verify import verify
from spikeloom.model.emulator import Emulator
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import TINY, random_model

PLACES = ["none", "all", {"embed", "layer0.up", "head"}]


@pytest.mark.parametrize("streamed", PLACES, ids=["resident", "streamed", "mixed"])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_agreement_over_weight_formats_and_places(bench, bits, streamed):
    b = bench(bits, replace(TINY, weight_bits=bits), streamed=streamed)
    report = verify(b.device, b.model, [1, 2, 3], 12)
    assert report.mismatches == 0, report.first
    assert len(report.tokens) == 12 and report.compared > 12 * 10


@pytest.mark.parametrize("options", [{"saturate": True}, {"tie": True}, {"equal_ranks": True}, {"overlap": True}],
                         ids=lambda options: next(iter(options)))
def test_agreement_in_the_corners(bench, options):
    b = bench(5, **options)
    report = verify(b.device, b.model, [4, 9], 20)
    assert report.mismatches == 0, report.first


SHAPES = {
    "one head": {"heads": 1, "recency": (3,)},
    "narrow heads": {"heads": 4, "recency": (0, 1, 2, 15)},
    "one winner": {"top_k": 1, "rank_shifts": (0,)},
    "one level": {"level_in": 1, "level_v": 1, "level_attn": 1, "level_mid": 1, "level_hidden": 1, "level_final": 1},
    "eight levels": {"level_in": 8, "level_v": 8, "level_attn": 8, "level_mid": 8, "level_hidden": 8, "level_final": 8},
    "levels of both signs": {"signed": TENSORS, "level_in": 8, "level_v": 2, "level_mid": 5},
    "odd vocabulary": {"vocabulary": 29},
    "shifted embedding": {"embed_shift": 3},
    "no position table": {"position_table": False},
    "wide hidden layer": {"hidden": 64},
    "odd context": {"context": 21},
}


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_agreement_over_shapes(bench, changes):
    b = bench(3, replace(TINY, **changes))
    report = verify(b.device, b.model, [4, 9], 16)
    assert report.mismatches == 0, report.first


def test_blocks_of_a_wide_head(tiny):
    machine = replace(tiny, max_vocabulary=256)
    config, tensors = random_model(1, replace(TINY, vocabulary=150))
    image = compile_model(config, tensors, machine, logit_scale=64.0)
    assert [c["base_group"] for c in image.program if c.label == "logits"] == [0, 32]
    with Device(Emulator(machine), machine) as device:
        device.load(image)
        report = verify(device, IntegerModel(config, tensors), [4, 140], 16)
    assert report.mismatches == 0, report.first
    assert max(token.id for token in report.tokens) >= 32


@pytest.mark.parametrize("temperature", [0.5, 2.0])
@pytest.mark.parametrize("top_k", [0, 1, 5, 17])
def test_agreement_when_sampling(bench, temperature, top_k):
    b = bench(2)
    report = verify(b.device, b.model, [4, 9], 16, trace=False, temperature=temperature, top_k=top_k, seed=77)
    assert report.mismatches == 0, report.first


def test_dense_says_the_same_from_more_bytes(bench):
    b = bench(2)
    sparse = verify(b.device, b.model, [4, 9], 16)
    skipping = b.device.counters()
    b.device.clear_counters()
    dense = verify(b.device, b.model, [4, 9], 16, dense=True)
    reading = b.device.counters()
    assert sparse.mismatches == dense.mismatches == 0
    assert [t.id for t in sparse.tokens] == [t.id for t in dense.tokens]
    assert reading["rows_skipped"] == 0 < skipping["rows_skipped"]
    assert reading["rows_wanted"] == skipping["rows_wanted"] + skipping["rows_skipped"]
    assert reading["bytes_rows"] > skipping["bytes_rows"]
    assert all(reading[name] == skipping[name] for name in ("spikes", "fired", "neurons", "winners", "level_tiles", "tokens"))


@pytest.mark.parametrize("streamed", ["none", "all"])
def test_a_flipped_weight_is_found(bench, streamed):
    b = bench(1, streamed=streamed)
    b.device.load(b.image)
    section = "resident" if streamed == "none" else "streamed"
    buffer = b.device._buffers["image"]
    data = b.image.sections[section]
    at = bytes(buffer.array).index(data[:64])
    buffer.array[at:at + len(data)] ^= 0x40
    if streamed == "none":
        b.device._run(2)
        b.device._await_end()
    report = verify(b.device, b.model, [4, 9], 16)
    assert report.mismatches > 0 and "expected" in report.first


def test_dumps_hold_every_intermediate(bench, tiny):
    b = bench(4, trace_dumps=True)
    report = verify(b.device, b.model, [4], 1)
    assert report.mismatches == 0, report.first
    b.model.clear()
    trace = b.model.step(4, 0)
    words, at = b.device.dump_words(), 0
    for command in b.image.program:
        if command.opcode == Opcode.DUMP:
            got = words[at:at + command["groups"] * tiny.lanes]
            expected = trace[command.label.removeprefix("dump ")]
            assert (got[:len(expected)] == expected).all(), command.label
            at += len(got)
    assert at == len(words) and np.any(words)
