"""Programs that no compiler writes, on RTL and emulator: what commands leave to each other at their borders."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("amaranth")

from spikeloom.arch.commands import Command, Memory, Neuron, Opcode, Order, Sink
from spikeloom.arch.layout import Image, pack_parameters, pack_program, section_offsets
from spikeloom.arch.presets import preset
from spikeloom.arch.registers import ErrorCode, Mode
from spikeloom.compiler import compile_model
from spikeloom.driver import errors
from spikeloom.driver.device import Device
from spikeloom.model.emulator import Emulator
from spikeloom.model.random_model import TINY, random_model

pytestmark = pytest.mark.rtl

CFG = preset("tiny")
CARD = compile_model(*random_model(5, TINY), CFG, logit_scale=50.0).card
#: Groups of a tile of columns.
TILE = CFG.groups_per_tile


def image_of(ops, rows, base=1 << 20):
    """These commands as the token section, over resident rows of these bytes; `base` of all channels of the parameter table, or each."""
    words, parameters = 128, 8
    boot = [Command(Opcode.LOAD, {"l_memory": Memory.PARAMETERS, "l_words": parameters}),
            Command(Opcode.LOAD, {"l_memory": Memory.RESIDENT, "l_words": words}), Command(Opcode.HALT, {})]
    program = [*boot, *ops, Command(Opcode.HALT, {})]
    card = json.dumps(CARD | {"labels": [f"c{i}" for i in range(len(program))], "entries": {"boot": 0, "token": len(boot)}})
    n = parameters * CFG.lanes
    sections = {"card": card.encode(), "program": bytes(32 * len(program)), "resident": rows * words,
                "params": pack_parameters(np.broadcast_to(base, n), np.full(n, 100), np.full(n, 8), lanes=CFG.lanes)}
    at = section_offsets({name: len(data) for name, data in sections.items()})
    boot[0], boot[1] = (replace(load, fields=load.fields | {"l_offset": at[name]}) for load, name in zip(boot, ("params", "resident")))
    return Image(CFG.fingerprint, sections | {"program": pack_program([*boot, *ops, Command(Opcode.HALT, {})])})


def embed(groups):
    return Command(Opcode.EMBED, {"sink": Sink.SET, "groups": groups, "tiles": -(-groups // TILE), "embed_shift": 8, "position_row": 1,
                                  "n_in": 32})


def fire(groups, **fields):
    return Command(Opcode.FIRE, {"groups": groups, "dst": 0, "level": 1} | fields)


#: Reads what the first group of a `fire` wrote; memory that was never written is random.
LINEAR = Command(Opcode.LINEAR, {"src": 0, "dst": 1, "sink": Sink.SPIKES, "groups": 1, "tiles": 1, "level": 1,
                                 "n_in": CFG.lanes, "order": Order.TILES})


@pytest.fixture
def both(open_device):
    """The same image on RTL and emulator."""
    def load(ops, rows=bytes(CFG.cols), **options):
        devices = open_device("tiny")[0], Device(Emulator(CFG), CFG)
        for device in devices:
            device.load(image_of(ops, rows, **options))
        return devices
    return load


@pytest.mark.parametrize("ops", [
    [embed(1), fire(3)], [embed(1), fire(1), LINEAR], [embed(1), fire(2), LINEAR, embed(1), fire(3), LINEAR],
    [fire(2, head=1), embed(1), fire(3), LINEAR], [embed(1), fire(1), fire(4, head=1), LINEAR],
    [fire(1, head=1), fire(1, head=1), embed(1), fire(3)],
], ids=lambda ops: " ".join(op.opcode.name.lower() + ("?" if op["head"] else "") for op in ops))
def test_short_and_skipped_commands_take_the_cycles_that_are_predicted(both, ops):
    """A command that ends before the next is fetched makes it wait; one that is passed over does so behind another alone."""
    cycles = []
    for device in both(ops):
        device.clear_counters()
        device._run(Mode.GENERATE, [1, 2, 3], 0, ignore_end=True)
        device._await_end()
        cycles.append(device.counters()["cycles"])
    assert cycles[0] == cycles[1]


@pytest.mark.parametrize("params", range(7))
def test_a_fire_reads_membranes_that_were_just_written(both, params, seed):
    """Spikes with membranes 2 and 3 into the stream, then neurons with two others, the same, or one of them: chained or not, all is as if
    one followed the other."""
    rng = np.random.default_rng([seed, params])
    neuron = {"neuron": Neuron.LIF_SUBTRACT, "leak": 1}
    add = Command(Opcode.LINEAR, {"src": 0, "sink": Sink.ADD_SPIKES, "groups": 2, "tiles": 1, "level": 1, "n_in": 16, "params": 2,
                                  "order": Order.TILES, "embed_shift": 6} | neuron)
    # The first two write membranes, which were never written.
    ops = [embed(4), *(fire(4, dst=2, params=at, first=1, **neuron) for at in (0, 4)),
           fire(4), add, fire(2, dst=1, params=params, **neuron)]
    made, tokens = [], rng.integers(0, 32, 12).tolist()
    rows, base = rng.integers(0, 256, CFG.cols, np.uint8).tobytes(), rng.integers(-9000, 9000, 8 * CFG.lanes)
    for device in both(ops, rows, base=base):
        device.clear_counters()
        device._run(Mode.GENERATE, tokens, 0, ignore_end=True)
        device._await_end()
        made.append({name: device.counters()[name] for name in ("cycles", "spikes", "fired", "saturations")})
    assert made[0] == made[1]


@pytest.mark.parametrize("after", [[], [fire(2)], [LINEAR]], ids=["the end", "fire", "linear"])
def test_a_fault_of_the_last_group_names_its_command(both, after):
    """With its last result a command makes way for the next one; a saturation of that result is still its own."""
    rows = bytes(CFG.lanes * (TILE - 1)) + b"\x7f" * CFG.lanes
    for device in both([embed(TILE), *after], rows):
        device._run(Mode.GENERATE, [1], 0, ignore_end=True, stop_on_saturation=True)
        with pytest.raises(errors.SpikeloomError):
            device._await_end()
        error = device.registers.fields("error")
        assert (error["code"], error["command"]) == (ErrorCode.SATURATION, 3)
