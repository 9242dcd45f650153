"""Shapes without weights: machines that hold them, spikes at forced rates, bytes of tables."""

from dataclasses import replace

import numpy as np
import pytest

from spikeloom.arch.config import ModelConfig, check_fit
from spikeloom.arch.presets import SHAPES, preset
from spikeloom.arch.run_cycles import token_steps
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.tensors import tensor_shapes
from spikeloom_sim.bench.boards import BOARDS, machine, matrices, timing
from spikeloom_sim.bench.shapes import KINDS, forced_network, forced_tokens, machine_for, program_of, rates_of, table_bytes

D288, D768 = SHAPES["d288"], SHAPES["d768"]
SMALL = ModelConfig(name="small", vocabulary=64, context=32, width=16, layers=2, heads=2, hidden=32, top_k=2)
RATES = {"in": 0.25, "attn": 0.5, "mid": 0.75, "up": 0.125, "final": 1.0, "qkv": 0.5}


def test_shapes_have_the_parameters_they_claim():
    def weights(shape):
        return sum(int(np.prod(size)) for name, (size, _) in tensor_shapes(shape).items() if name.endswith(".weight") or "embed" in name)
    assert weights(D288) == pytest.approx(8.3e6, rel=0.02) and weights(D768) == pytest.approx(162e6, rel=0.02)
    assert sum(rows * columns for rows, columns in matrices(D768)) == pytest.approx(123.3e6, rel=0.01)


@pytest.mark.parametrize("shape, name", [(D288, "pynq_z2"), (D768, "d768")], ids=str)
def test_a_machine_is_widened_and_nothing_else(shape, name):
    cfg = machine_for(shape, name)
    check_fit(shape, cfg)
    kept = ("cols", "lanes", "data_width", "clock_mhz", "score_banks", "segment", "axi3")
    assert all(getattr(cfg, field) == getattr(preset(name), field) for field in kept)


def test_forced_tokens_speak_at_the_rates():
    tokens = list(forced_tokens(SMALL, RATES, 3, 1))
    assert [token.position for token in tokens] == [5, 16, 26]
    assert rates_of(SMALL, (token.trace for token in tokens)) == {kind: RATES[kind] for kind in KINDS}


def test_a_forced_network_speaks_at_the_rates_whatever_it_reads():
    config, tensors = forced_network(SMALL, RATES, 3)
    model = IntegerModel(config, tensors)
    traces = [model.step(token, position) for position, token in enumerate((5, 9, 60, 1))]
    assert rates_of(config, traces) == {kind: RATES[kind] for kind in KINDS}
    assert all(np.count_nonzero(trace["layer0.qkv"]) == 24 for trace in traces)


def test_a_program_without_weights_asks_for_the_rows_that_speak():
    cfg = preset("tiny")
    image = program_of(SMALL, cfg)
    token = next(forced_tokens(SMALL, RATES, 1, 1))
    steps = token_steps(cfg, image.program, token, entry=image.card["entries"]["token"])
    events = {step.command.label: step.event_tiles for step in steps}
    assert events["layer0.qkv"] == 4 * 6 and events["layer1.down"] == 4 * 2 and events["logits"] == 16 * 8


def test_bytes_of_tables():
    found = table_bytes(SMALL, 10)
    channels = 2 * (16 + 48 + 16 + 16 + 32) + 16 + 2 * 2 * 16 + 64
    assert found["parameters"] == 8 * channels and found["keys"] == 2 * 10 * 2
    assert found["values"] == 2 * 2 * 16 * 3 / 8 and found["kv_written"] == 2 * 16 * 4 / 8


def test_a_memory_gives_no_more_than_its_share():
    for board in BOARDS:
        for ports in (1, 2, 4):
            cfg = replace(machine(board), ports=ports)
            rate = timing(board, cfg).rate
            used = rate * cfg.bus_bytes * cfg.clock_mhz * 1e6
            assert rate <= 1 and used <= 0.75 * board.dram * 1.001


def test_a_preset_that_holds_the_shape_is_taken_as_it_is():
    assert machine(BOARDS[0]) == preset("d288")
    assert machine(BOARDS[1]) == preset("d768")
    widened = machine_for(D288, "pynq_z2")
    assert widened.name == "pynq_z2_d288" and widened.parameter_words > preset("pynq_z2").parameter_words
