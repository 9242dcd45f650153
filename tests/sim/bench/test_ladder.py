"""The ladder ends at the machine, and every rung is worth something."""

from dataclasses import replace

import numpy as np
import pytest

from spikeloom.arch.presets import preset
from spikeloom.arch.run_cycles import Token, token_cycles, token_steps
from spikeloom.arch.streamed_cycles import MemoryTiming
from spikeloom.compiler.image import compile_model
from spikeloom.driver.device import Device
from spikeloom.model.emulator import Emulator
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import TINY, random_model
from spikeloom.model.tensors import neuron_levels
from spikeloom_sim.bench.ladder import LADDER, Climber, climb, prompt, reader_of_levels
from spikeloom_sim.bench.shapes import program_of

CFG = replace(preset("tiny"), events=2)


@pytest.fixture(scope="module")
def climbed():
    config, tensors = random_model(1, TINY)
    model = IntegerModel(config, tensors)
    tokens = [Token(model.step(token, position), token, position) for position, token in enumerate((3, 9, 20, 7, 1, 30))]
    images = {bits: program_of(replace(config, weight_bits=bits), CFG, "none") for bits in (8, 4)}
    return config, images, tokens


@pytest.mark.parametrize("streamed, memory", [("none", None), ("all", MemoryTiming(latency=40))])
def test_the_last_rung_is_the_machine(climbed, streamed, memory):
    config, _, tokens = climbed
    images = {bits: program_of(replace(config, weight_bits=bits), CFG, streamed) for bits in (8, 4)}
    last = climb(CFG, images, tokens, reader_of_levels(neuron_levels(config)), memory)[-1]
    entry = images[4].card["entries"]["token"]
    expected = sum(token_cycles(CFG, images[4].program, token, entry=entry, memory=memory) for token in tokens) / len(tokens)
    assert last["cycles"] == pytest.approx(expected, abs=0.06)
    rows = sum(sum(step.row_bytes for step in token_steps(CFG, images[4].program, token, entry=entry)) for token in tokens)
    assert last["row_bytes"] == round(rows / len(tokens))


def test_no_rung_is_slower_or_reads_more(climbed):
    """Winners alone cost cycles where the context is as short as here; bytes they save everywhere."""
    config, images, tokens = climbed
    rungs = climb(CFG, images, tokens, reader_of_levels(neuron_levels(config)))
    assert [rung["rung"] for rung in rungs] == [rung.name for rung in LADDER]
    for before, after in zip(rungs, rungs[1:]):
        assert after["cycles"] <= before["cycles"] or after["rung"] == "K winners"
        assert after["row_bytes"] <= before["row_bytes"] and after["value_bytes"] <= before["value_bytes"]


def test_a_prompt_in_blocks_reads_each_row_once_a_block():
    config, tensors = random_model(1, TINY)
    model, ids = IntegerModel(config, tensors), [3, 9, 20, 7, 1, 30, 2, 8, 11]
    tokens = [Token(model.step(token, position), token, position) for position, token in enumerate(ids)]
    image = compile_model(config, tensors, CFG, logit_scale=50.0, streamed="all", prefill_block=4)
    apart, blocks = prompt(CFG, image, tokens, MemoryTiming(latency=40))
    assert apart["rung"] == "prompt, token by token" and blocks["rung"] == "prompt, blocks of 4" and blocks["cycles"] < apart["cycles"]
    with Device(Emulator(CFG), CFG) as device:
        device.load(image)
        device.clear_counters()
        list(device.generate(ids, 1))
        assert blocks["row_bytes"] == round(device.counters()["bytes_bus_read"] / len(ids))


def test_planes_one_by_one_ask_once_per_bit(climbed):
    config, images, tokens = climbed
    command = next(command for command in images[8].program if command.label == "layer0.up")
    levels = np.zeros(16, np.int64)
    levels[[1, 4, 5]] = 3, 4, 1
    rows = np.array([1, 4, 5])
    apart = Climber(CFG, LADDER[2])
    assert apart._planes(rows, command, (levels, 4)).tolist() == [1, 1, 4, 5]
    assert Climber(CFG, LADDER[0])._planes(np.arange(3), command, (levels, 4)).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert Climber(CFG, LADDER[3])._planes(rows, command, (levels, 4)).tolist() == [1, 4, 5]


def test_levels_are_those_of_the_writer(climbed):
    config, images, tokens = climbed
    levels_of = reader_of_levels(neuron_levels(config))
    trace = tokens[0].trace
    for label, writer in (("layer1.qkv", "layer1.in"), ("layer0.out", "layer0.attn"), ("layer0.down", "layer0.up"), ("logits", "final")):
        command = next(command for command in images[8].program if command.label == label)
        assert np.array_equal(levels_of(trace, command)[0], trace[writer])
