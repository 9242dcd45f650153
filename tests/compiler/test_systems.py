"""Programs of every system: what they hold, what they write, and what the compiler proves or refuses."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from spikeloom.arch.commands import Attention, Neuron, Opcode, Sink
from spikeloom.arch.config import FitError, check_fit
from spikeloom.arch.layout import read_image, write_image
from spikeloom.arch.presets import preset
from spikeloom.arch.sweeps import encode_order
from spikeloom.compiler import compile_model
from spikeloom.compiler.restore import restore
from spikeloom.driver.device import Device
from spikeloom.driver.verify import verify, verify_encoding
from spikeloom.model.emulator import Emulator
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import TINY, random_model
from spikeloom.model.tensors import tensor_shapes
from spikeloom_sim.random_systems import SYSTEMS, draw_system

MACHINE = preset("tiny")
#: Two time steps, one layer: SpikeDecoder with spikes in its stream, BiSpikCLM, WE-Spikingformer.
DECODER = replace(TINY, neuron="lif_hard", steps=2, leak=1, layers=1, attention="ssa", level_v=1, residual="all_spikes", spike_shift=3,
                  embedding="spikes", head="concatenate")
SUMS = replace(TINY, neuron="lif_subtract", steps=2, leak=4, layers=1, attention="sfsa", residual="spike_sum", spike_shift=2)
ENCODER = replace(TINY, neuron="t_lif", steps=2, leak=2, layers=1, context=16, bidirectional=True)


def shape(number, system):
    return draw_system(np.random.default_rng([99, number]), MACHINE, system, number)


@cache
def drawn(number, system):
    return random_model(number, shape(number, system))


def empty(config):
    """A model of zeros, whose neurons are silent."""
    tensors = {name: np.zeros(shape, dtype) for name, (shape, dtype) in tensor_shapes(config).items()}
    for name in tensors:
        if name.endswith((".base", ".step")):
            tensors[name][:] = 256
    return tensors


def compiled(config, machine=MACHINE, change=lambda tensors: None, **options):
    tensors = empty(config)
    change(tensors)
    return compile_model(config, tensors, machine, logit_scale=64.0, **options)


def commands(config, label):
    """Commands of an operator, in order."""
    found = [c for c in compiled(config).program if c.label == label]
    assert found, label
    return found


# -- images -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("number, system", list(enumerate([*SYSTEMS, *["mixed"] * 4])), ids=str)
def test_an_image_holds_the_whole_model(number, system):
    config, tensors = drawn(number, system)
    streamed = ("auto", "none", "all")[number % 3]
    image = read_image(write_image(compile_model(config, tensors, MACHINE, logit_scale=64.0, streamed=streamed)))
    again, restored = restore(image, MACHINE)
    assert again == config and set(restored) == set(tensors)
    assert all((restored[name] == tensors[name]).all() and restored[name].dtype == tensors[name].dtype for name in tensors)
    kind = "classifier" if config.classes else "encoder" if config.bidirectional else "decoder"
    assert image.card["kind"] == kind


@pytest.mark.parametrize("number, system", list(enumerate(SYSTEMS)), ids=str)
def test_dumps_hold_every_intermediate(number, system):
    """What each command of a program with dumps left behind, at every position, is the integer model's."""
    config, tensors = drawn(number, system)
    model, tokens = IntegerModel(config, tensors), [3, 1, 4]
    image = compile_model(config, tensors, replace(MACHINE, program_words=512), logit_scale=64.0, trace_dumps=True)
    entry = image.card["entries"]["token"]
    machine = replace(MACHINE, program_words=512)
    with Device(Emulator(machine), machine) as device:
        device.load(image)
        if config.bidirectional:
            assert verify_encoding(device, model, tokens).mismatches == 0
            traces, order = model.encode(tokens), encode_order(image.program, entry, len(tokens))
        else:
            assert verify(device, model, tokens[:1], 1).mismatches == 0
            model.clear()
            traces, order = [model.step(tokens[0], 0)], ((index, 0) for index in range(entry, len(image.program)))
        words, at, dumped = device.dump_words(), 0, set()
    for index, position in order:
        command = image.program[index]
        if command.opcode == Opcode.DUMP:
            got = words[at:at + command["groups"] * machine.lanes]
            expected = traces[position][command.label.removeprefix("dump ")]
            assert (got[:len(expected)] == expected).all(), (position, command.label)
            at += len(got)
            dumped.add(command.label.removeprefix("dump "))
    assert at == len(words)
    ends = (".sum", ".raw", ".biased", ".winners", ".fired", ".spikes")
    parts = {f"final@{t}" for t in range(config.steps)}
    assert {name for name in traces[0] if not name.partition("@")[0].endswith(ends)} - parts == dumped


@pytest.mark.parametrize("number, system", [(n, s) for n, s in enumerate(SYSTEMS) if not shape(n, s).bidirectional], ids=str)
def test_the_device_counts_what_the_model_counts(number, system):
    config, tensors = drawn(number, system)
    model, tokens = IntegerModel(config, tensors), [1, 2, 3]
    traces = [model.step(token, position, head=position == 2) for position, token in enumerate(tokens)]
    with Device(Emulator(MACHINE), MACHINE) as device:
        device.load(compile_model(config, tensors, MACHINE, logit_scale=64.0))
        device.clear_counters()
        assert len(list(device.generate(tokens, 1, ignore_end=True))) == 1
        counted = device.counters()
    for name in ("spikes", "fired", "neurons", "winners", "saturations"):
        assert counted[name] == sum(trace.counters[name] for trace in traces), name
    assert counted["rows_wanted"] == sum(n for trace in traces for name, n in trace.counters.items()
                                         if name.startswith("events.") and "@" not in name) + 3 * config.steps * (1 + config.position_table)


# -- decoders ---------------------------------------------------------------------------------------------------

def test_the_program_repeats_the_network_at_every_time_step():
    image = compiled(DECODER)
    labels = [c.label for c in image.program[image.card["entries"]["token"]:]]
    layer = [f"layer0.{kind}" for kind in ("in", "qkv", "attn", "out", "mid", "up", "down")]
    assert labels == [f"{name}@{t}" for t in range(2) for name in ("embed", *layer, "final")] + ["logits", "pick", "end"]
    assert [c.label for c in image.program if c["head"]] == ["final@0", "final@1", "logits", "pick"]
    spiking = [c for c in image.program if c["neuron"]]
    assert len(spiking) == 2 * 9 and all(c["neuron"] == Neuron.LIF_HARD and c["leak"] == 1 and c["level"] == 1 for c in spiking)
    assert all(c["first"] == c.label.endswith("@0") for c in spiking)
    assert not any(c["stream"] for c in image.program)


def test_keys_of_time_steps_lie_apart():
    config = replace(DECODER, layers=2, context=15)
    bases = [commands(config, f"layer{layer}.qkv@{t}")[0]["kv_base"] for layer in range(2) for t in range(2)]
    assert bases == [0, 16, 32, 48]
    assert bases == [commands(config, f"layer{layer}.attn@{t}")[0]["a_kv_base"] for layer in range(2) for t in range(2)]


def test_spikes_replace_the_stream_or_join_it():
    def sinks(config):
        return {c.label.removesuffix("@1"): (c["sink"], c["embed_shift"]) for c in compiled(config).program if c.label.endswith("@1")
                and c["sink"] in (Sink.SET, Sink.SET_SPIKES, Sink.ADD_SPIKES, Sink.RESIDUAL)}
    replaced, added = (Sink.SET_SPIKES, 3), (Sink.ADD_SPIKES, 3)
    assert sinks(DECODER) == {"embed": replaced, "layer0.in": replaced, "layer0.out": added, "layer0.mid": replaced,
                              "layer0.down": added}
    assert sinks(replace(DECODER, residual="mlp_spikes", embedding="current", embed_shift=5)) == {
        "embed": (Sink.SET, 5), "layer0.out": (Sink.RESIDUAL, 0), "layer0.mid": replaced, "layer0.down": added}
    assert sinks(SUMS) == {"embed": (Sink.SET, 0), "layer0.out": (Sink.ADD_SPIKES, 2), "layer0.down": (Sink.ADD_SPIKES, 2)}


@pytest.mark.parametrize("head, rows, places", [("accumulate", 32, [0, 4]), ("average", 32, [0, 4]), ("concatenate", 32, [0, 4]),
                                                ("final", 16, [0, 0])])
def test_heads_read_the_final_spikes_of_their_time_steps(head, rows, places):
    config = replace(DECODER, head=head)
    image = compiled(config, change=lambda t: t["head.weight"].__setitem__((slice(None), 5), np.arange(1, len(t["head.weight"]) + 1)))
    finals, logits = [c for c in image.program if c.label.startswith("final")], next(c for c in image.program if c.label == "logits")
    assert [(c["dst"], c["base_group"]) for c in finals] == [(2, place) for place in places]
    assert (logits["src"], logits["n_in"]) == (2, rows)
    assert restore(image, MACHINE)[1]["head.weight"][:, 5].tolist() == list(range(1, 17 if head != "concatenate" else 33))


def test_attention_fields():
    wta = replace(DECODER, attention="wta", top_k=2, rank_shifts=(0, 2), recency=(1, 15), overlap=True)
    (command,) = commands(wta, "layer0.attn@0")
    assert (command["attention"], command["top_k"], command["overlap"]) == (Attention.WTA, 2, 1)
    assert (command["gather_shifts"], command["recency"], command["bidirectional"]) == (2, 0xF1, 0)
    (command,) = commands(DECODER, "layer0.attn@0")
    assert command["attention"] == Attention.SSA and not any(command[name] for name in ("recency", "overlap", "gather_shifts"))
    image = compiled(SUMS, change=lambda t: t.__setitem__("layer0.attn.theta", np.array([3, 12], np.uint8)))
    assert [c["recency"] for c in image.program if c.opcode == Opcode.ATTEND] == [0xC3] * 2
    with pytest.raises(FitError, match="layer0.attn.theta leaves 0..15"):
        compiled(SUMS, change=lambda t: t.__setitem__("layer0.attn.theta", np.array([3, 16], np.uint8)))


# -- encoders ---------------------------------------------------------------------------------------------------

def test_the_sweeps_of_an_encoder():
    image = compiled(ENCODER)
    labels = [c.label for c in image.program[image.card["entries"]["token"]:]]
    project, mix = ["layer0.in", "layer0.qkv"], [f"layer0.{kind}" for kind in ("attn", "out", "mid", "up", "down")]

    def both(names):
        return [f"{name}@{t}" for t in range(2) for name in names]
    assert labels == [*both(["embed"]), "sweep", *both(project), "sweep", *both(project + mix), "sweep", *both(["final"]),
                      "logits", "pick", "sweep", "end"]
    assert [c["stream"] for c in image.program if c.label.endswith("@1") and c["sink"] not in (Sink.QKV,) and c.opcode != Opcode.ATTEND
            and not c.label.startswith("layer0.up")] == [16] * 7
    assert all(c["bidirectional"] for c in image.program if c.opcode == Opcode.ATTEND) and not any(c["head"] for c in image.program)
    assert [c.label for c in compiled(replace(ENCODER, classes=3)).program][-4:] == ["final@1", "logits", "pick", "end"]
    twice = commands(ENCODER, "layer0.qkv@1")
    assert len(twice) == 2 and {**twice[0].fields, "src": 0, "dst": 0} == {**twice[1].fields, "src": 0, "dst": 0}


# -- proofs and limits ------------------------------------------------------------------------------------------

def test_neurons_come_first_in_the_parameter_table():
    """Their membranes need no more words than there are groups of neurons."""
    config = replace(DECODER, residual="membrane", embedding="current")
    groups = (16 + 48 + 16 + 16 + 32 + 16) // 4
    image = compiled(config, replace(MACHINE, membrane_words=groups))
    assert max(c["params"] + c["groups"] for c in image.program if c["neuron"]) == groups
    with pytest.raises(FitError, match=f"membranes of its neurons take {groups} groups, machine 'tiny' has {groups - 1}"):
        compiled(config, replace(MACHINE, membrane_words=groups - 1))
    compiled(replace(config, neuron="ni_lif", steps=1, leak=15), replace(MACHINE, membrane_words=1))


@pytest.mark.parametrize("name, value", [("layer0.in.base", 1 << 30), ("layer0.in.base", -(1 << 30)), ("layer0.qkv.base", 1 << 30),
                                         ("embed.base", 1 << 30), ("layer0.out.base", 1 << 30), ("final.base", 1 << 30)])
def test_membranes_are_proved_or_refused(name, value):
    def change(tensors):
        tensors[name][3] = value
    with pytest.raises(FitError, match=f"membranes of {name[:-5]} can reach"):
        compiled(DECODER, change=change)
    # Half of it, less what the sums add, stays within 32 bits.
    compiled(DECODER, change=lambda t: t[name].__setitem__(3, value // 2))


def test_the_bound_on_a_membrane_is_exact():
    def change(base):
        def to(tensors):
            tensors["layer0.qkv.weight"][:, 5] = 100
            tensors["layer0.qkv.base"][5], tensors["layer0.qkv.step"][5] = base, 1000
        return to
    once = (1 << 30) - 1  # twice that is the largest even membrane
    fits = once - (16 * 100 << 8) - 2 * 1000
    compiled(DECODER, change=change(fits))
    with pytest.raises(FitError, match=f"membranes of layer0.qkv can reach {2 * once + 2} in 2 time steps, they hold {(1 << 31) - 1}"):
        compiled(DECODER, change=change(fits + 1))


@pytest.mark.parametrize("attention, most", [("wta", 4 * 7), ("sfsa", 32 * 4), ("ssa", 32 * 8)])
def test_gathered_values_bound_their_membranes(attention, most):
    config = replace(DECODER, neuron="i_lif", attention=attention, level_v=1 if attention == "ssa" else 4, level_attn=1,
                     residual="membrane", embedding="current")
    fits = (1 << 30) - 1 - (most << 8) - 2 * 256
    compiled(config, change=lambda t: t["layer0.attn.base"].__setitem__(0, fits))
    with pytest.raises(FitError, match="membranes of layer0.attn"):
        compiled(config, change=lambda t: t["layer0.attn.base"].__setitem__(0, fits + 1))


def test_ternary_spikes_subtract_too():
    """Of a column of +122 and -122 binary spikes reach one half at most, ternary ones all."""
    machine = replace(preset("d768"), acc_width=20, membrane_words=4096, max_neurons=5120)
    config = replace(TINY, width=768, heads=24, hidden=5120, recency=(), neuron="lif_soft", leak=1, layers=1)

    def change(tensors):
        tensors["layer0.down.weight"][:, 7] = np.where(np.arange(5120) % 2, 122, -122)
    compiled(config, machine, change)
    with pytest.raises(FitError, match="sums of layer0.down can reach 624640"):
        compiled(replace(config, neuron="t_lif"), machine, change)


def test_sums_of_a_repeated_head_are_proved():
    """Accumulating four time steps quadruples what a logit can be."""
    machine = replace(preset("d768"), acc_width=20, membrane_words=4096)
    config = replace(TINY, width=768, heads=24, recency=(), neuron="i_lif", leak=1, layers=1, level_final=2, steps=4)

    def change(tensors):
        tensors["head.weight"][:, 7] = 100
    compiled(replace(config, steps=2), machine, change)
    compiled(replace(config, head="final"), machine, change)
    with pytest.raises(FitError, match="sums of head can reach 614400"):  # 4 x 768 x 2 x 100
        compiled(config, machine, change)


@pytest.mark.parametrize("changes, words", [
    ({"steps": 8, "layers": 2}, "layers x time steps x context"), ({"steps": 5, "context": 16}, "time steps of the head x width is 80"),
])
def test_time_steps_that_do_not_fit(changes, words):
    with pytest.raises(FitError, match=words):
        check_fit(replace(DECODER, **changes), MACHINE)


def test_encoders_need_a_stream_per_position():
    check_fit(replace(ENCODER, context=32), MACHINE)
    with pytest.raises(FitError, match=r"residual slots\) is 64, machine 'tiny' takes at most 63"):
        check_fit(replace(ENCODER, context=32), replace(MACHINE, residual_slots=63))
