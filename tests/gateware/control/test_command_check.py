"""`control.command_check`: good commands pass, each limit is kept."""

import pytest

from spikeloom.arch.commands import Attention, Command, Memory, Neuron, Opcode, Order, Sink, encode
from spikeloom.arch.presets import preset
from spikeloom.arch.registers import ErrorCode
from spikeloom_hw.control.command_check import CommandCheck
from spikeloom_sim.pysim import simulate

CFG = preset("tiny")
FIRE = dict(groups=4, level=4)
LINEAR = dict(groups=4, level=4, tiles=2, n_in=16, sink=Sink.SPIKES, dst=1)
QKV = dict(groups=12, level=4, tiles=6, n_in=16, sink=Sink.QKV, dst=1, attn_groups=4)
ATTEND = dict(groups=4, level=4, top_k=3)
LOAD = dict(l_offset=64, l_memory=Memory.PARAMETERS, l_address=0, l_words=4)
GOOD = [(Opcode.HALT, {}), (Opcode.PICK, {}), (Opcode.FIRE, FIRE), (Opcode.LINEAR, LINEAR), (Opcode.LINEAR, QKV), (Opcode.ATTEND, ATTEND),
        (Opcode.LOAD, LOAD), (Opcode.DUMP, dict(groups=1)), (Opcode.EMBED, dict(groups=4, tiles=2)),
        (Opcode.LINEAR, LINEAR | dict(sink=Sink.RESIDUAL, groups=2, base_group=2)),
        (Opcode.LINEAR, LINEAR | dict(sink=Sink.LOGITS, base_group=12)),
        (Opcode.LINEAR, LINEAR | dict(streamed=1, order=Order.ROWS)),
        (Opcode.LINEAR, LINEAR | dict(streamed=1, order=Order.TILES, tiles=1, groups=2)),
        (Opcode.LOAD, LOAD | dict(l_address=CFG.parameter_words - 4))]
BAD = [(Opcode.FIRE, FIRE | change) for change in (
    dict(groups=0), dict(groups=5), dict(level=0), dict(level=9), dict(neuron=Neuron.T_LIF), dict(steps=2),
    dict(params=CFG.parameter_words - 3))]
BAD += [(Opcode.LINEAR, LINEAR | change) for change in (
    dict(tiles=0), dict(tiles=17), dict(tiles=1), dict(n_in=65), dict(dst=0), dict(sink=7), dict(weight_code=3), dict(base_group=13),
    dict(sink=Sink.RESIDUAL, base_group=1), dict(sink=Sink.LOGITS, base_group=13), dict(streamed=1, order=Order.TILES))]
BAD += [(Opcode.LINEAR, QKV | change) for change in (
    dict(attn_groups=0), dict(attn_groups=3), dict(attn_groups=5), dict(kv_base=1), dict(kv_base=CFG.kv_positions - 14))]
BAD += [(Opcode.ATTEND, ATTEND | change) for change in (
    dict(top_k=0), dict(top_k=5), dict(head_level=3), dict(attention=Attention.SSA), dict(bidirectional=1), dict(a_kv_base=126))]
BAD += [(Opcode.LOAD, LOAD | dict(l_words=0)), (Opcode.LOAD, LOAD | dict(l_memory=2)), (Opcode.LOAD, LOAD | dict(l_offset=4)),
        (Opcode.DUMP, dict(groups=0)), (Opcode.DUMP, dict(groups=1, d_buffer=5)), (Opcode.EMBED, dict(groups=5, tiles=3))]
OUTSIDE = [(Opcode.LOAD, LOAD | dict(l_words=40)), (Opcode.LOAD, LOAD | dict(l_address=CFG.parameter_words - 3)),
           (Opcode.LOAD, LOAD | dict(l_offset=1000)),
           (Opcode.LOAD, LOAD | dict(l_memory=Memory.RESIDENT, l_address=CFG.resident_words - 3))]


@pytest.mark.parametrize("expected, cases", [(ErrorCode.NONE, GOOD), (ErrorCode.BAD_PROGRAM, BAD), (ErrorCode.BAD_ADDRESS, OUTSIDE)])
def test_verdicts(expected, cases):
    dut = CommandCheck(cfg=CFG)

    async def bench(ctx):
        ctx.set(dut.context, 16)
        ctx.set(dut.image_bytes, 1024)
        words = [encode(Command(opcode, fields)) for opcode, fields in cases]
        if expected == ErrorCode.BAD_PROGRAM:
            words += range(len(Opcode), 16)
        for number, word in enumerate(words):
            ctx.set(dut.command, word)
            await ctx.tick().repeat(CommandCheck.latency)
            assert ctx.get(dut.code) == expected, cases[number] if number < len(cases) else word

    simulate(dut, bench)
