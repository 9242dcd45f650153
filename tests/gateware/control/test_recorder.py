"""`control.recorder`: records land where the host looks for them, and count when memory has answered."""

import pytest

from spikeloom.arch.config import AcceleratorConfig
from spikeloom.arch.presets import preset
from spikeloom_hw.control.recorder import Recorder
from spikeloom_sim.pysim import Checked, Stalls, receive, send, simulate

CONFIGS = {64: preset("tiny"), 128: AcceleratorConfig(name="wide", cols=16, lanes=4, max_width=16, max_neurons=48, segment=4,
                                                      data_width=128, resident_words=64, max_context=32, kv_positions=64)}


@pytest.mark.parametrize("data_width", [64, 128])
@pytest.mark.parametrize("seed, stall", [(1, 0.0), (2, 0.6)])
def test_records_reach_memory(data_width, seed, stall):
    print(f"seed {seed}")
    cfg = CONFIGS[data_width]
    dut = Checked(Recorder(cfg=cfg))
    memory, done = {}, []
    tokens = [0x1111_2222_3333_4444_5555_6666_7777_0000 + i for i in range(6)]
    traces = [0xAAAA_0000_BBBB_0000 + i for i in range(11)]
    dumps = [sum((i * 16 + lane) << (32 * lane) for lane in range(cfg.lanes)) for i in range(3)]
    size = cfg.beat_bytes
    beats = 6 * (16 // size) + 8 + 2 * (cfg.lanes * 4 // size)

    async def setup(ctx):
        for name, value in {"ring_base": 0x1000, "ring_records": 4, "trace_base": 0x2000, "trace_bytes": 64,
                            "dump_base": 0x3000, "dump_bytes": 2 * cfg.lanes * 4}.items():
            ctx.set(getattr(dut, name), value)

    def feeder(port, payloads, name):
        async def run(ctx):
            await send(ctx, port, payloads, Stalls(f"{seed} {name}", stall))
        return run

    async def memory_side(ctx):
        await setup(ctx)
        address, fresh = 0, True
        for beat in await receive(ctx, dut.o, beats, Stalls(f"{seed} o", stall)):
            address = beat.address if fresh else address + size
            for byte in range(size):
                if beat.strobe >> byte & 1:
                    memory[(address // size) * size + byte] = beat.data >> (8 * byte) & 0xFF
            fresh = beat.last
            if beat.last:
                done.append(1)
        assert not ctx.get(dut.idle) and ctx.get(dut.records) == 0
        for number, _ in enumerate(done):
            ctx.set(dut.answered, 1)
            await ctx.tick()
            if number == 0:
                ctx.set(dut.answered, 0)
                await ctx.tick().repeat(3)
        ctx.set(dut.answered, 0)
        await ctx.tick().repeat(40)
        assert ctx.get(dut.idle) and ctx.get(dut.records) == 6 and ctx.get(dut.full)
        assert ctx.get(dut.trace_count) == 8 and ctx.get(dut.dump_count) == 2 * cfg.lanes * 4

    simulate(dut, feeder(dut.i_token, tokens, "token"), feeder(dut.i_trace, traces, "trace"), feeder(dut.i_dump, dumps, "dump"),
             memory_side)

    def word(at, n):
        return int.from_bytes(bytes(memory[at + i] for i in range(n)), "little")
    assert [word(0x1000 + 16 * (i % 4), 16) for i in range(2, 6)] == tokens[2:]
    assert [word(0x2000 + 8 * i, 8) for i in range(8)] == traces[:8]
    assert [word(0x3000 + cfg.lanes * 4 * i, cfg.lanes * 4) for i in range(2)] == dumps[:2]


def test_a_record_whose_write_failed_does_not_count():
    dut = Checked(Recorder(cfg=CONFIGS[64]))

    async def tokens(ctx):
        ctx.set(dut.ring_records, 4)
        await send(ctx, dut.i_token, [1, 2, 3])

    async def bench(ctx):
        await receive(ctx, dut.o, 6)
        for failed in (0, 1, 1):
            ctx.set(dut.failed, failed)
            ctx.set(dut.answered, 1)
            await ctx.tick()
            ctx.set(dut.answered, 0)
            await ctx.tick().repeat(2)
        assert ctx.get(dut.records) == 1 and ctx.get(dut.idle)
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        assert ctx.get(dut.records) == 0

    simulate(dut, tokens, bench)
