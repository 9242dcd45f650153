"""`control.command_check`: good commands pass, each limit is kept, and the emulator decides the same."""

import random

import pytest

from spikeloom.arch.commands import FIELDS, FORMAT, SINKS, Attention, Command, Memory, Neuron, Opcode, Order, Sink, decode, encode
from spikeloom.arch.config import FitError
from spikeloom.arch.presets import preset
from spikeloom.arch.registers import ErrorCode
from spikeloom.model.command_check import check_command
from spikeloom_hw.control.command_check import CommandCheck
from spikeloom_sim.pysim import simulate

# Fewer membranes than parameters, fewer slots than positions: else their limits would hide behind others.
CFG = preset("tiny").__class__(**preset("tiny").to_dict() | {"membrane_words": 100, "residual_slots": 40})
CONTEXT, IMAGE_BYTES = 16, 1024
FIRE = dict(groups=4, level=4)
LINEAR = dict(groups=4, level=4, tiles=2, n_in=16, sink=Sink.SPIKES, dst=1)
QKV = dict(groups=12, level=4, tiles=6, n_in=16, sink=Sink.QKV, dst=1, attn_groups=4)
ATTEND = dict(groups=4, level=4, top_k=3)
LOAD = dict(l_offset=64, l_memory=Memory.PARAMETERS, l_address=0, l_words=4)
EMBED = dict(groups=4, tiles=2, sink=Sink.SET)
TERNARY = dict(neuron=Neuron.T_LIF, level=1)
GOOD = [(Opcode.HALT, {}), (Opcode.PICK, {}), (Opcode.FIRE, FIRE), (Opcode.LINEAR, LINEAR), (Opcode.LINEAR, QKV), (Opcode.ATTEND, ATTEND),
        (Opcode.LOAD, LOAD), (Opcode.DUMP, dict(groups=1)), (Opcode.DUMP, dict(groups=1, d_buffer=5)), (Opcode.EMBED, EMBED),
        (Opcode.LINEAR, LINEAR | dict(sink=Sink.RESIDUAL, groups=2, base_group=2)),
        (Opcode.LINEAR, LINEAR | dict(sink=Sink.LOGITS, base_group=12)),
        (Opcode.LINEAR, LINEAR | dict(streamed=1, order=Order.ROWS)),
        (Opcode.LINEAR, LINEAR | dict(streamed=1, order=Order.TILES, tiles=1, groups=2)),
        (Opcode.LINEAR, LINEAR | dict(src=2)), (Opcode.LINEAR, LINEAR | dict(src=1, dst=2)),
        (Opcode.LINEAR, LINEAR | dict(sink=Sink.RESIDUAL, src=1)),  # no spike buffer written
        (Opcode.LOAD, LOAD | dict(l_address=CFG.parameter_words - 4)),
        (Opcode.FIRE, FIRE | TERNARY), (Opcode.FIRE, FIRE | TERNARY | dict(params=96)), (Opcode.FIRE, FIRE | dict(params=97)),
        (Opcode.FIRE, FIRE | dict(neuron=Neuron.I_LIF, level=8)), (Opcode.FIRE, FIRE | dict(base_group=12, dst=2)),
        (Opcode.FIRE, FIRE | dict(sink=Sink.SET_SPIKES, embed_shift=8)), (Opcode.FIRE, FIRE | dict(stream=39)),
        (Opcode.LINEAR, LINEAR | TERNARY | dict(sink=Sink.ADD_SPIKES, embed_shift=8)), (Opcode.ATTEND, ATTEND | TERNARY),
        (Opcode.ATTEND, ATTEND | dict(attention=Attention.SSA, top_k=0)), (Opcode.ATTEND, ATTEND | dict(attention=Attention.SFSA, top_k=9)),
        (Opcode.ATTEND, ATTEND | dict(bidirectional=1)), (Opcode.EMBED, EMBED | TERNARY | dict(sink=Sink.SET_SPIKES))]
GOOD_ENCODING = [(Opcode.SWEEP, {}), (Opcode.FIRE, FIRE | dict(stream=24)), (Opcode.EMBED, EMBED | dict(stream=24)),
                 (Opcode.ATTEND, ATTEND | dict(stream=255)), (Opcode.PICK, {})]
BAD = [(Opcode.FIRE, FIRE | change) for change in (
    dict(groups=0), dict(groups=5), dict(level=0), dict(level=9), dict(neuron=Neuron.T_LIF), dict(neuron=7, level=1),
    dict(neuron=Neuron.I_LIF, level=9), TERNARY | dict(params=97), dict(params=CFG.parameter_words - 3), dict(dst=3), dict(base_group=13),
    dict(sink=Sink.QKV), dict(sink=Sink.SET), dict(sink=Sink.RESIDUAL), dict(sink=Sink.LOGITS), dict(sink=Sink.ADD_SPIKES), dict(sink=7),
    dict(sink=Sink.SET_SPIKES, embed_shift=9), dict(stream=40))]
BAD += [(Opcode.LINEAR, LINEAR | change) for change in (
    dict(tiles=0), dict(tiles=17), dict(tiles=1), dict(n_in=0), dict(n_in=65),
    dict(dst=0), dict(dst=3), dict(src=3), dict(sink=7), dict(weight_code=3),
    dict(base_group=13), dict(sink=Sink.RESIDUAL, base_group=1), dict(sink=Sink.LOGITS, base_group=13), dict(streamed=1, order=Order.TILES),
    dict(sink=Sink.SET), dict(sink=Sink.SET_SPIKES), dict(sink=Sink.ADD_SPIKES, base_group=1), dict(sink=Sink.ADD_SPIKES, embed_shift=9),
    dict(sink=Sink.ADD_SPIKES, level=0), TERNARY | dict(sink=Sink.ADD_SPIKES, params=97), dict(sink=Sink.RESIDUAL, stream=40))]
BAD += [(Opcode.LINEAR, QKV | change) for change in (
    dict(attn_groups=0), dict(attn_groups=3), dict(attn_groups=5), dict(kv_base=1), dict(kv_base=CFG.kv_positions - 14), dict(dst=0))]
BAD += [(Opcode.ATTEND, ATTEND | change) for change in (
    dict(top_k=0), dict(top_k=5), dict(head_level=3), dict(attention=3), dict(a_kv_base=126), dict(dst=3), dict(groups=5),
    TERNARY | dict(params=97))]
BAD += [(Opcode.LOAD, LOAD | dict(l_words=0)), (Opcode.LOAD, LOAD | dict(l_memory=2)), (Opcode.LOAD, LOAD | dict(l_offset=4)),
        (Opcode.DUMP, dict(groups=0)), (Opcode.DUMP, dict(groups=1, d_buffer=6)), (Opcode.DUMP, dict(groups=1, stream=40)),
        (Opcode.SWEEP, {})]
BAD += [(Opcode.EMBED, EMBED | change) for change in (
    dict(groups=5, tiles=3), dict(sink=0), dict(embed_shift=9), dict(base_group=1), dict(stream=40), dict(sink=Sink.SET_SPIKES),
    TERNARY | dict(sink=Sink.SET_SPIKES, base_group=1), TERNARY | dict(sink=Sink.SET_SPIKES, dst=3))]
BAD_ENCODING = [(Opcode.FIRE, FIRE | dict(stream=25)), (Opcode.EMBED, EMBED | dict(stream=25)), (Opcode.DUMP, dict(groups=1, stream=25))]
OUTSIDE = [(Opcode.LOAD, LOAD | dict(l_words=40)), (Opcode.LOAD, LOAD | dict(l_address=CFG.parameter_words - 3)),
           (Opcode.LOAD, LOAD | dict(l_offset=1000)),
           (Opcode.LOAD, LOAD | dict(l_memory=Memory.RESIDENT, l_address=CFG.resident_words - 3))]


def judge(words, *, encoding):
    """Verdicts of the gates."""
    dut, verdicts = CommandCheck(cfg=CFG), []

    async def bench(ctx):
        ctx.set(dut.context, CONTEXT)
        ctx.set(dut.image_bytes, IMAGE_BYTES)
        ctx.set(dut.sweeping, encoding)
        ctx.set(dut.slots, CONTEXT if encoding else 1)
        for word in words:
            ctx.set(dut.command, word)
            await ctx.tick().repeat(CommandCheck.latency)
            verdicts.append(ctx.get(dut.code))

    simulate(dut, bench)
    return verdicts


def emulated(word, *, encoding):
    """Verdict of the emulator."""
    try:
        command = decode(word)
    except FitError:
        return ErrorCode.BAD_PROGRAM
    return check_command(command, CFG, context=CONTEXT, image_bytes=IMAGE_BYTES, sweeping=encoding, slots=CONTEXT if encoding else 1)


@pytest.mark.parametrize("expected, cases, encoding", [
    (ErrorCode.NONE, GOOD, False), (ErrorCode.NONE, GOOD_ENCODING, True), (ErrorCode.BAD_PROGRAM, BAD, False),
    (ErrorCode.BAD_PROGRAM, BAD_ENCODING, True), (ErrorCode.BAD_ADDRESS, OUTSIDE, False)])
def test_verdicts(expected, cases, encoding):
    words = [encode(Command(opcode, fields)) for opcode, fields in cases]
    if cases is BAD:
        words += range(len(Opcode), 16)
    for number, (word, verdict) in enumerate(zip(words, judge(words, encoding=encoding), strict=True)):
        name = cases[number] if number < len(cases) else word
        assert verdict == expected, name
        assert emulated(word, encoding=encoding) == expected, name


@pytest.mark.parametrize("encoding", [False, True])
def test_the_emulator_decides_the_same(encoding, seed):
    """Good commands with a few fields changed to values at and around their limits."""
    rng, words = random.Random(f"{seed} {encoding}"), []
    around = [0, 1, 2, 3, 4, 5, 8, 9, 15, 16, 40, CFG.membrane_words - 4, CFG.membrane_words, CFG.parameter_words, CFG.kv_positions - 16]
    for _ in range(1500):
        opcode, fields = rng.choice(GOOD + GOOD_ENCODING)
        fields = dict(fields)
        names = ["groups", "params", "level", "neuron", "sink", "src", "dst", "stream", *(f.name for f in FORMAT[opcode])]
        if opcode in SINKS and rng.random() < 0.5:
            fields["sink"] = rng.choice(SINKS[opcode])
        for name in rng.sample(names, rng.choice([1, 2, 3])):
            most = (1 << FIELDS[name].width) - 1
            fields[name] = rng.choice([value for value in (*around, most) if value <= most])
        words.append(encode(Command(opcode, fields)))
    seen = set()
    for word, verdict in zip(words, judge(words, encoding=encoding), strict=True):
        assert verdict == emulated(word, encoding=encoding), decode(word)
        seen.add(verdict)
    assert seen == {ErrorCode.NONE, ErrorCode.BAD_PROGRAM, ErrorCode.BAD_ADDRESS}
