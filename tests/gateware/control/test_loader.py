"""`control.loader`: bytes of memory arrive as words of the tables."""

import random

import pytest

from spikeloom.arch.commands import Memory
from spikeloom.arch.cycles import LOAD_WORDS
from spikeloom.arch.presets import preset
from spikeloom_hw.control.loader import Loader
from spikeloom_sim.pysim import Checked, Stalls, simulate

CFG = preset("tiny")


@pytest.mark.parametrize("memory, word_bytes", [(Memory.RESIDENT, CFG.cols), (Memory.PARAMETERS, CFG.lanes * 8)])
@pytest.mark.parametrize("seed, stall, words", [(1, 0.0, 7), (2, 0.6, 7), (3, 0.0, LOAD_WORDS), (4, 0.0, 2 * LOAD_WORDS + 1)])
def test_copies_words(memory, word_bytes, seed, stall, words):
    """In requests as long as they may be."""
    print(f"seed {seed}")
    dut = Checked(Loader(cfg=CFG))
    image, requests = random.Random(seed).randbytes(64 + words * word_bytes), []
    written, pending = {}, []

    async def bus(ctx):
        stalls = Stalls(f"{seed} bus", stall)
        while True:
            ctx.set(dut.o_request.ready, 1)
            if ctx.get(dut.o_request.valid):
                address, beats = ctx.get(dut.o_request.payload.address), ctx.get(dut.o_request.payload.beats)
                requests.append(beats * 8 // word_bytes)
                pending.extend(image[address + 8 * i:address + 8 * i + 8] for i in range(beats))
            await ctx.tick()
            ctx.set(dut.o_request.ready, 0)
            if pending:
                for _ in range(stalls.draw()):
                    await ctx.tick()
                ctx.set(dut.i_beat.payload.data, int.from_bytes(pending.pop(0), "little"))
                ctx.set(dut.i_beat.valid, 1)
                await ctx.tick()
                ctx.set(dut.i_beat.valid, 0)

    async def bench(ctx):
        for name, value in {"offset": 64, "memory": memory, "address": 5, "words": words}.items():
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        while not ctx.get(dut.done):
            if ctx.get(dut.w_resident) or ctx.get(dut.w_parameters):
                assert ctx.get(dut.w_resident) == (memory == Memory.RESIDENT)
                written[ctx.get(dut.w_address)] = ctx.get(dut.w_data) & ((1 << 8 * word_bytes) - 1)
            await ctx.tick()

    simulate(dut, bench, background=[bus])
    assert written == {5 + i: int.from_bytes(image[64 + i * word_bytes:64 + (i + 1) * word_bytes], "little") for i in range(words)}
    assert requests == [LOAD_WORDS] * (words // LOAD_WORDS) + [words % LOAD_WORDS] * (words % LOAD_WORDS > 0)
