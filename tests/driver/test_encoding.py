"""Encoders on the device: whole texts, masks, classes, and every way to refuse."""

from dataclasses import replace

import pytest

from spikeloom.arch.commands import Command, Opcode
from spikeloom.arch.layout import Image, pack_program
from spikeloom.arch.numerics import pick
from spikeloom.arch.registers import Mode, Reason
from spikeloom.driver import errors
from spikeloom.driver.verify import Machine, check_encoding, verify_encoding
from spikeloom.model.random_model import TINY

BOTH_WAYS = replace(TINY, name="both-ways", bidirectional=True, context=16, layers=1, neuron="t_lif", steps=2, leak=2)
CLASSES = replace(BOTH_WAYS, name="sorter", classes=3)
TEXT = [5, 9, 1, 1, 30, 7, 2]


def without_trace(b, ids, **options):
    return [token.id for token in b.device.encode(ids, **options)]


# -- answers ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("config", [BOTH_WAYS, CLASSES, replace(BOTH_WAYS, neuron="ni_lif", steps=1)], ids=["text", "classes", "levels"])
@pytest.mark.parametrize("streamed", ["none", "all"])
def test_every_operator_of_every_sweep_is_the_models(bench, config, streamed):
    b = bench(1, config, streamed=streamed)
    for ids in (TEXT, TEXT[:1], list(range(config.context))):
        report = verify_encoding(b.device, b.model, ids)
        assert report.mismatches == 0, report.first
        # Embedding, sweep before attention, sweep after it; final spikes, logits and a token wherever the head reads; two totals.
        read = len(report.tokens)
        assert report.compared == len(ids) * config.steps * (1 + 2 + 7) + read * (config.steps + 2) + 2
        assert b.device.reason == Reason.ENCODED and b.device.position == 0
        assert [t.position for t in report.tokens] == ([0] if config.classes else list(range(len(ids))))


def test_a_text_leaves_nothing_behind(bench):
    b = bench(1, BOTH_WAYS)
    first = without_trace(b, TEXT)
    assert without_trace(b, TEXT[::-1]) != first[::-1] or without_trace(b, TEXT[:3]) != first[:3]
    assert without_trace(b, TEXT) == first == without_trace(b, TEXT, dense=True)


def test_later_words_matter(bench):
    b = bench(1, BOTH_WAYS)
    logits = [token.best_logit for token in b.device.encode(TEXT)]
    changed = [token.best_logit for token in b.device.encode(TEXT[:-1] + [17])]
    assert logits[:3] != changed[:3]


def test_counters_count_each_token_once(bench):
    b = bench(1, BOTH_WAYS)
    without_trace(b, TEXT)
    assert b.device.counters()["tokens"] == len(TEXT)


def test_a_changed_weight_is_seen(bench):
    b = bench(1, BOTH_WAYS, streamed="all")
    rows = bytes(x ^ 0x44 if i % 7 == 3 else x for i, x in enumerate(b.image.sections["streamed"]))
    b.device.load(Image(b.image.fingerprint, {**b.image.sections, "streamed": rows}))
    report = verify_encoding(b.device, b.model, TEXT)
    assert report.mismatches > 0 and "position" in report.first


# -- refusals ---------------------------------------------------------------------------------------------------

def test_kinds_are_told_apart_in_words(bench):
    encoder, decoder, sorter = bench(1, BOTH_WAYS), bench(), bench(1, CLASSES)
    for call in (lambda: encoder.device.generate([1], 2), lambda: encoder.device.score([1, 2])):
        with pytest.raises(errors.WrongKind, match="both-ways is an encoder"):
            call()
    for call in (lambda: decoder.device.encode([1]), lambda: decoder.device.fill("a <mask>"), lambda: decoder.device.classify("a")):
        with pytest.raises(errors.WrongKind, match="random is a decoder"):
            call()
    with pytest.raises(errors.WrongKind, match="both-ways has no classes"):
        encoder.device.classify("a")
    with pytest.raises(errors.WrongKind, match="sorter fills no masks: it classifies"):
        sorter.device.fill("a <mask>")
    with pytest.raises(errors.WrongKind, match="both-ways fills no masks"):
        encoder.device.fill("a <mask>")


def test_texts_are_refused_before_anything_is_sent(bench):
    b = bench(1, BOTH_WAYS)
    with pytest.raises(errors.PromptError, match="empty"):
        b.device.encode([])
    with pytest.raises(errors.PromptError, match="99"):
        b.device.encode([1, 99])
    with pytest.raises(errors.ContextFull, match="17 tokens"):
        b.device.encode([1] * 17)
    with pytest.raises(errors.PromptError, match="no tokenizer"):
        bench(1, CLASSES).device.classify("a")
    with pytest.raises(errors.SpikeloomError, match="No image"):
        bench(1, BOTH_WAYS, load=False).device.encode([1])


def test_the_machine_itself_refuses(bench):
    """What the driver never asks for."""
    b = bench(1, BOTH_WAYS)
    b.device._run(Mode.ENCODE, [1] * 17)
    assert not list(b.device._follow()) and b.device.reason == Reason.CONTEXT_FULL
    b.device._run(Mode.ENCODE, [])
    assert not list(b.device._follow()) and b.device.reason == Reason.ENCODED
    b.device._run(Mode.ENCODE, [1, 2, 40])
    with pytest.raises(errors.PromptError, match="Token 40 at position 2"):
        b.device._await_end()
    b.device.reset()
    assert verify_encoding(b.device, b.model, TEXT).mismatches == 0


def test_a_sweep_belongs_to_encoders(bench):
    b = bench(1, BOTH_WAYS)
    b.device._run(Mode.GENERATE, [1, 2], 3)
    with pytest.raises(errors.BadProgram, match="sweep"):
        b.device._await_end()
    b.device.reset()
    assert verify_encoding(b.device, b.model, TEXT).mismatches == 0


@pytest.mark.parametrize("label, fields", [("embed@1", {"stream": 60}), ("layer0.out@0", {"stream": 49}), ("final@1", {"stream": 49})])
def test_slots_past_the_end_are_refused(bench, label, fields):
    b = bench(1, BOTH_WAYS, load=False)
    program = [Command(c.opcode, {**c.fields, **fields}, c.label) if c.label == label else c for c in b.image.program]
    b.device.load(Image(b.image.fingerprint, {**b.image.sections, "program": pack_program(program)}))
    with pytest.raises(errors.BadProgram, match=label):
        b.device.encode(TEXT)


def test_stop_is_honoured_at_a_sweep(bench):
    b = bench(1, BOTH_WAYS)
    b.device._run(Mode.ENCODE, TEXT)
    b.device.stop()
    assert not list(b.device._follow()) and b.device.reason == Reason.STOPPED
    assert b.device.position == 0
    assert verify_encoding(b.device, b.model, TEXT).mismatches == 0


def test_a_run_that_was_cut_short_is_an_error(bench):
    b = bench(1, BOTH_WAYS)
    run = b.device._run
    b.device._run = lambda *arguments, **options: (run(*arguments, **options), b.device.stop())
    with pytest.raises(errors.SpikeloomError, match="STOPPED"):
        b.device.encode(TEXT)


def test_a_missing_token_or_record_is_a_difference(bench):
    b = bench(1, BOTH_WAYS)
    tokens, machine = b.device.encode(TEXT, trace=True), Machine.of(b.image, lanes=b.device.cfg.lanes, acc_width=b.device.cfg.acc_width)
    records = b.device.trace_records()
    assert check_encoding(b.model, machine, TEXT, tokens, records).mismatches == 0
    assert "number of tokens" in check_encoding(b.model, machine, TEXT, tokens[:-1], records).first
    assert "number of checksum records" in check_encoding(b.model, machine, TEXT, tokens, records[:-1]).first


def test_a_device_that_stands_still(bench):
    b = bench(1, BOTH_WAYS)
    b.device.deadline_s = 0.02
    b.emulator.sequencer.advance = lambda: None
    with pytest.raises(errors.DeadlineExpired, match="no progress"):
        b.device.encode(TEXT)


def test_programs_hold_the_sweeps_of_the_plan(bench):
    for config, sweeps in ((BOTH_WAYS, 2 + 2 * BOTH_WAYS.layers), (CLASSES, 1 + 2 * CLASSES.layers)):
        program = bench(1, config, load=False).image.program
        assert sum(c.opcode == Opcode.SWEEP for c in program) == sweeps


def test_the_first_class_of_equal_ones_wins(bench):
    b = bench(1, CLASSES)
    token, = b.device.encode(TEXT)
    logits = b.model.encode(TEXT)[0]["logits"]
    assert len(logits) == 3 and token.id == pick(logits) < 3
