"""Compiling and restoring, placement, and what does not fit."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from spikeloom.arch.commands import Opcode, Sink
from spikeloom.arch.config import FitError
from spikeloom.arch.layout import read_image, row_bytes, write_image
from spikeloom.arch.presets import PRESETS, SHAPES, preset
from spikeloom.arch.sweeps import Prefill, sweeps
from spikeloom.compiler import compile_model
from spikeloom.compiler.lower import padded_logit
from spikeloom.compiler.restore import restore
from spikeloom.model.integer_model import tensor_shapes
from spikeloom.model.random_model import TINY, random_model
from spikeloom_sim.bench.shapes import program_of

drawn = cache(random_model)
TINY_MACHINE = preset("tiny")


def build(config=TINY, machine=TINY_MACHINE, change=lambda tensors: {}, seed=0, **options):
    config, tensors = drawn(seed, config)
    return compile_model(config, {**tensors, **change(tensors)}, machine, logit_scale=64.0, **options)


@pytest.mark.parametrize("streamed", ["none", "all", "auto", {"layer1.qkv", "embed"}], ids=str)
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_an_image_holds_the_whole_model(bits, streamed):
    config = replace(TINY, weight_bits=bits, vocabulary=29)
    _, tensors = drawn(0, config)
    image = read_image(write_image(build(config, streamed=streamed)))
    again, restored = restore(image, TINY_MACHINE)
    assert again == config
    assert all((restored[name] == tensors[name]).all() and restored[name].dtype == tensors[name].dtype for name in tensor_shapes(config))


def test_the_program_of_a_token():
    image = build()
    program, entries = image.program, image.card["entries"]
    layer = [f"layer{i}.{k}" for i in range(2) for k in ("in", "qkv", "attn", "out", "mid", "up", "down")]
    assert [c.label for c in program[entries["token"]:]] == ["embed", *layer, "final", "logits", "pick", "end"]
    assert [c.opcode for c in program[:entries["token"]]] == [Opcode.LOAD, Opcode.LOAD, Opcode.HALT]
    assert [c.label for c in program if c["head"]] == ["final", "logits", "pick"]
    assert all(c["src"] != c["dst"] for c in program if c.opcode == Opcode.LINEAR and c["sink"] in (Sink.SPIKES, Sink.QKV))
    final, logits = program[-4:-2]
    assert final["dst"] == logits["src"] == 2 and program[entries["token"]]["sink"] == Sink.SET


@pytest.mark.parametrize("ahead", [False, True], ids=["in turn", "ahead"])
def test_the_sweeps_over_a_block(ahead):
    """Per layer two sweeps and their LOADs, each matrix behind the one before; slots of every time step side by side."""
    config = replace(TINY, weight_bits=4, neuron="lif_hard", steps=2, **dict.fromkeys(
        ("level_in", "level_v", "level_attn", "level_mid", "level_hidden", "level_final"), 1))
    image = build(config, streamed={"layer0.qkv", "layer0.up", "layer1.down"}, prefill_block=5, prefill_ahead=ahead)
    program, entry = image.program, image.card["entries"]["prefill"]
    assert image.card["prefill"] == {"block": 5} and program[entry - 1].label == "end"
    labels = [[c.label.partition("@")[0] for c in program[first:end]] for first, end in sweeps(program, entry)]
    mix, feed = ["in", "qkv", "attn", "out"], ["mid", "up", "down"]

    def layer(number, part):
        return 2 * [f"layer{number}.{kind}" for kind in part]

    up, down = ["load layer0.up"], ["load layer1.down"]
    assert labels == [["load layer0.qkv", "embed", "embed"], ahead * up + layer(0, mix), (not ahead) * up + layer(0, feed),
                      ahead * down + layer(1, mix), (not ahead) * down + layer(1, feed)]
    taken = len(image.sections["resident"]) // TINY_MACHINE.cols
    loads = [c for c in program[entry:] if c.opcode == Opcode.LOAD]
    size = loads[0]["l_words"]
    assert [load["l_address"] for load in loads] == [taken, taken + ahead * size, taken + ahead * size]
    assert [load["l_ahead"] for load in loads] == [0, ahead, ahead]
    for load in loads:
        linear = next(c for c in program[entry:] if c.label == load.label.removeprefix("load ") + "@0")
        start, words = load["l_offset"], load["l_words"]
        assert not linear["streamed"] and linear["address"] == 2 * load["l_address"]
        streamed = next(c for c in program[:entry] if c.label == linear.label)
        assert streamed["streamed"] and streamed["address"] == start and words * TINY_MACHINE.cols >= streamed["n_in"] * row_bytes(
            streamed["tiles"], 4, TINY_MACHINE)
    assert {c["stream"] for c in program[entry:] if c.opcode in (Opcode.EMBED, Opcode.FIRE)} == {0, 5}
    assert not any(c["head"] for c in program[entry:])


def test_sweeps_take_turns_where_words_are_scarce():
    """Two regions need the rows of two sweeps, one region those of the larger one."""
    images = {words: build(streamed="all", machine=replace(TINY_MACHINE, resident_words=words)) for words in (255, 256)}
    assert [any(c["l_ahead"] for c in image.program) for image in images.values()] == [False, True]
    assert all("block" in image.card["prefill"] for image in images.values())


def test_large_blocks_share_a_load():
    """What follows one another in memory is loaded in one run, a small gap up to the next page with it."""
    image = program_of(SHAPES["d288"], preset("d288"))
    program, entry = image.program, image.card["entries"]["prefill"]
    loads = [c for c in program[entry:] if c.opcode == Opcode.LOAD]
    assert len(loads) == 2 * SHAPES["d288"].layers and loads[0].label == "load layer0.qkv and layer0.out"
    assert [bool(load["l_ahead"]) for load in loads] == [False] + [True] * (len(loads) - 1)
    spans = [range(load["l_address"], load["l_address"] + load["l_words"]) for load in loads]
    assert all(set(a).isdisjoint(b) for a, b in zip(spans, spans[1:]))
    tokens = {(c.label, c["base_group"]): c for c in program[:entry] if c.opcode == Opcode.LINEAR}
    for (first, end), load in zip(sweeps(program, entry)[1:], loads):
        for c in program[first:end]:
            if c.opcode == Opcode.LINEAR:
                within = tokens[c.label, c["base_group"]]["address"] - load["l_offset"]
                assert within >= 0 and c["address"] == 2 * load["l_address"] + within * 2 // preset("d288").cols


@pytest.mark.parametrize("options, machine, why", [
    ({"streamed": "none"}, {}, "No layer is streamed."), ({"streamed": {"embed", "head"}}, {}, "No layer is streamed."),
    ({"streamed": "all"}, {"residual_slots": 1}, "has 1."), ({"streamed": "all", "prefill_block": 0}, {}, "not asked for"),
    ({"streamed": "all"}, {"program_words": 30}, "have 49 commands with it, machine 'tiny' holds 30"),
    ({"streamed": "all"}, {"resident_words": 100}, "layer0.qkv and layer0.out would take 128 words"),
], ids=["resident", "embedding", "slots", "off", "program", "words"])
def test_why_there_are_no_sweeps_over_blocks(options, machine, why):
    """The card says so, and nothing else differs."""
    machine = replace(TINY_MACHINE, **machine)
    image = build(machine=machine, **options)
    assert why in image.card["prefill"]["without"] and "prefill" not in image.card["entries"]
    assert image.program[-1].label == "end" and Prefill.of(image.card) is None


def test_equal_models_give_equal_images():
    _, tensors = drawn(0, TINY)
    shuffled = dict(sorted(tensors.items(), reverse=True))
    assert write_image(build()) == write_image(compile_model(TINY, shuffled, TINY_MACHINE, logit_scale=64.0))


def test_auto_keeps_small_matrices_and_streams_what_does_not_fit():
    sizes = {"layer0.qkv": 96, "layer0.out": 32, "layer0.up": 64, "layer0.down": 64, "head": 64, "embed": 128}  # tile rows
    assert build(machine=replace(TINY_MACHINE, resident_words=1024)).card["streamed"] == []
    total = 2 * sum(list(sizes.values())[:4]) + sizes["head"]
    assert build(machine=replace(TINY_MACHINE, resident_words=total)).card["streamed"] == ["embed"]
    assert build(machine=replace(TINY_MACHINE, resident_words=total - 1)).card["streamed"] == ["embed", "layer1.qkv"]
    with pytest.raises(FitError, match="resident rows take"):
        build(machine=replace(TINY_MACHINE, resident_words=total), streamed="none")


@pytest.mark.parametrize("streamed, words", [("some", "auto, none, all"), ({"layer9.up"}, "no matrix layer9.up")])
def test_unknown_places_are_refused(streamed, words):
    with pytest.raises(FitError, match=words):
        build(streamed=streamed)


@pytest.mark.parametrize("changes, words", [
    ({"width": 32, "heads": 4}, "width is 32"), ({"hidden": 128}, "widest spike tensor is 128"), ({"vocabulary": 65}, "vocabulary is 65"),
    ({"context": 64}, "context is 64"), ({"top_k": 5, "rank_shifts": (0,) * 5}, "top_k is 5"), ({"layers": 5}, "KV cache"),
    ({"hidden": 30}, "multiple of the 4 neuron lanes"), ({"heads": 8}, "head width 2"),
])
def test_models_that_do_not_fit(changes, words):
    config = replace(TINY, recency=(), **changes)
    tensors = {name: np.zeros(shape, dtype) for name, (shape, dtype) in tensor_shapes(config).items()}
    with pytest.raises(FitError, match=words):
        compile_model(config, tensors, TINY_MACHINE, logit_scale=1.0)


@pytest.mark.parametrize("limits, words", [
    ({"parameter_words": 20, "membrane_words": 20}, "92 parameter groups"), ({"program_words": 21}, "22 commands"),
], ids=["parameters", "program"])
def test_machines_that_are_too_small(limits, words):
    with pytest.raises(FitError, match=words):
        build(machine=replace(TINY_MACHINE, **limits))


def test_attention_wider_than_a_block_is_refused():
    config = replace(TINY, width=64, heads=2)
    machine = replace(TINY_MACHINE, max_width=64, max_neurons=256)
    tensors = {name: np.zeros(shape, dtype) for name, (shape, dtype) in tensor_shapes(config).items()}
    with pytest.raises(FitError, match="wider than one block"):
        compile_model(config, tensors, machine, logit_scale=1.0)


def test_overflow_is_proven_impossible_or_refused():
    machine = replace(PRESETS["d768"], acc_width=20)
    config = replace(TINY, width=768, heads=24, hidden=3072, recency=(), level_mid=8)
    tensors = {name: np.zeros(shape, dtype) for name, (shape, dtype) in tensor_shapes(config).items()}
    tensors["layer1.up.weight"][:, 7] = 85
    compile_model(config, tensors, machine, logit_scale=1.0)  # 768 x 8 x 85 < 2^19
    tensors["layer1.up.weight"][:400, 7] = -127
    tensors["layer1.up.weight"][400:, 7] = 127
    compile_model(config, tensors, machine, logit_scale=1.0)  # signs bound the two sides apart
    tensors["layer1.up.weight"][:, 7] = -86
    with pytest.raises(FitError, match="sums of layer1.up can reach 528384"):
        compile_model(config, tensors, machine, logit_scale=1.0)
    tensors["layer1.up.weight"][:, 7] = 86
    with pytest.raises(FitError, match="sums of layer1.up can reach 528384"):
        compile_model(config, tensors, machine, logit_scale=1.0)
    tensors["layer1.up.weight"][:520, 7] = 127
    tensors["layer1.up.weight"][520:, 7] = -127  # the whole sum is small, but its positive half may come first
    with pytest.raises(FitError, match="sums of layer1.up can reach 528320"):
        compile_model(config, tensors, machine, logit_scale=1.0)


@pytest.mark.parametrize("change, words", [
    (lambda t: {"head.bias": t["head.bias"] + (1 << 23)}, "sums of head"),
    (lambda t: {"layer0.up.step": t["layer0.up.step"] - (1 << 24)}, "layer0.up: A threshold step"),
    (lambda t: {"layer0.out.shift": t["layer0.out.shift"] + 32}, "layer0.out: A residual shift"),
    (lambda t: {"layer0.up.base": t["layer0.up.base"].astype(np.int64) + (1 << 32)}, "32 bits"),
    (lambda t: {"layer0.up.weight": np.full_like(t["layer0.up.weight"], -128)}, "symmetric 8-bit range"),
])
def test_numbers_that_leave_their_formats(change, words):
    with pytest.raises(FitError, match=words):
        build(change=change)


@pytest.mark.parametrize("change, words", [
    (lambda t: {"final.base": t["final.base"][:-1]}, "final.base has shape"),
    (lambda t: {"final.base": t["final.base"].astype(float)}, "not integers"),
])
def test_tensors_that_are_wrong(change, words):
    with pytest.raises(ValueError, match=words):
        build(change=change)


def test_missing_tensors_and_scales():
    config, tensors = drawn(0, TINY)
    with pytest.raises(ValueError, match="final.step is missing"):
        compile_model(config, {k: v for k, v in tensors.items() if k != "final.step"}, TINY_MACHINE, logit_scale=1.0)
    with pytest.raises(ValueError, match="logit scale"):
        compile_model(config, tensors, TINY_MACHINE, logit_scale=0)


def test_padded_logits_are_the_least():
    assert padded_logit(TINY_MACHINE) == -(1 << 23)
