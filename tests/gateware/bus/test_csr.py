"""`bus.csr`: fields are ports; access rights, strobes, byte lanes and unknown addresses behave as documented."""

import random

import pytest

from spikeloom.arch.registers import Access, Field, Register, RegisterMap, register_map
from spikeloom_hw.bus.csr import RegisterFile
from spikeloom_sim.pysim import Stalls, simulate

MAP = RegisterMap([
    Register("id", (Field("value", 32, Access.RO),)),
    Register("mode", (Field("low", 4, Access.RW, 5), Field("state", 8, Access.RO), Field("high", 12, Access.RW))),
    Register("control", (Field("start", 1, Access.W1P), Field("stop", 1, Access.W1P))),
    Register("window", (Field("data", 24, Access.WO, strobe=True),)),
    Register("index", (Field("value", 16, Access.RW, strobe=True),)),
])


class Host:
    """AXI4-Lite manager for a bench, with seeded stalls on every channel."""

    def __init__(self, bus, seed=0, stall=0.0):
        self.bus = bus
        self.stalls = Stalls(seed, stall)

    async def _put(self, ctx, prefix, **payload):
        idle = self.stalls.draw()
        if idle:
            await ctx.tick().repeat(idle)
        for name, value in payload.items():
            ctx.set(getattr(self.bus, prefix + name), value)
        ctx.set(getattr(self.bus, prefix + "valid"), 1)
        await ctx.tick().until(getattr(self.bus, prefix + "ready"))
        ctx.set(getattr(self.bus, prefix + "valid"), 0)

    async def _take(self, ctx, prefix, *names):
        idle = self.stalls.draw()
        if idle:
            await ctx.tick().repeat(idle)
        ctx.set(getattr(self.bus, prefix + "ready"), 1)
        sampled = await ctx.tick().sample(*(getattr(self.bus, prefix + n) for n in names)).until(getattr(self.bus, prefix + "valid"))
        ctx.set(getattr(self.bus, prefix + "ready"), 0)
        return sampled

    async def write(self, ctx, address, value, strobe=0xF):
        channels = [("aw", {"addr": address}), ("w", {"data": value, "strb": strobe})]
        if self.stalls.draw():
            channels.reverse()
        for prefix, payload in channels:
            await self._put(ctx, prefix, **payload)
        response, = await self._take(ctx, "b", "resp")
        assert response == 0

    async def read(self, ctx, address):
        await self._put(ctx, "ar", addr=address)
        value, response = await self._take(ctx, "r", "data", "resp")
        assert response == 0
        return value


def run(bench, stall=0.0, seed=0, registers=MAP, background=()):
    dut = RegisterFile(registers)
    host = Host(dut.bus, seed, stall)
    simulate(dut, lambda ctx: bench(ctx, dut, host), background=[b(dut) for b in background])


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("seed", [1, 2])
def test_random_traffic_matches_a_model(stall, seed):
    print(f"seed {seed}")
    rng = random.Random(seed)

    async def bench(ctx, dut, host):
        model = {"mode_low": 5, "mode_high": 0, "index_value": 0}
        for _ in range(60):
            ctx.set(dut.id_value, rng.getrandbits(32))
            ctx.set(dut.mode_state, rng.getrandbits(8))
            name = rng.choice(list(MAP))
            address = MAP.address(name) + rng.randrange(4)
            if rng.randrange(2):
                value, strobe = rng.getrandbits(32), rng.choice([15, 15, rng.randrange(16)])
                await host.write(ctx, address, value, strobe)
                mask = sum(0xFF << 8 * lane for lane in range(4) if strobe >> lane & 1)
                for field in MAP[name].fields:
                    key = f"{name}_{field.name}"
                    lsb, width = MAP[name].position_of(field.name)
                    if key in model:
                        enabled = mask >> lsb & (1 << width) - 1
                        model[key] = (model[key] & ~enabled) | (value >> lsb & enabled)
            else:
                expected = {"id": ctx.get(dut.id_value), "control": 0, "window": 0, "index": model["index_value"],
                            "mode": model["mode_low"] | ctx.get(dut.mode_state) << 4 | model["mode_high"] << 12}
                assert await host.read(ctx, address) == expected[name], name
            for key, value in model.items():
                assert ctx.get(getattr(dut, key)) == value, key

    run(bench, stall, seed)


def pulse_recorder(log, *names):
    def make(dut):
        async def record(ctx):
            ports = [getattr(dut, name) for name in names]
            async for _, _, *values in ctx.tick().sample(*ports):
                log.append(tuple(values))
        return record
    return make


def test_write_one_pulses_last_one_cycle():
    log = []

    async def bench(ctx, dut, host):
        await host.write(ctx, MAP.address("control"), 0b10)
        await host.write(ctx, MAP.address("control"), 0b11)
        await host.write(ctx, MAP.address("control"), 0b11, strobe=0b1110)
        await host.write(ctx, MAP.address("id"), 0b11)

    run(bench, background=[pulse_recorder(log, "control_start", "control_stop")])
    assert [entry for entry in log if any(entry)] == [(0, 1), (1, 1)]


def test_strobes_come_with_the_data():
    log = []

    async def bench(ctx, dut, host):
        for value in (7, 7, 0xABCDEF):
            await host.write(ctx, MAP.address("window"), value)
        await host.write(ctx, MAP.address("window"), 0xFF00_0000, strobe=0b1000)
        await host.write(ctx, MAP.address("index"), 3)

    run(bench, background=[pulse_recorder(log, "window_data_strobe", "window_data", "index_value_strobe", "index_value")])
    assert [entry[1] for entry in log if entry[0]] == [7, 7, 0xABCDEF]
    assert [entry[3] for entry in log if entry[2]] == [3]


def test_unknown_addresses_read_zero_and_change_nothing():
    async def bench(ctx, dut, host):
        before = ctx.get(dut.mode_low)
        for address in (4 * len(MAP), 0x800, 0xFFC):
            await host.write(ctx, address, 0xFFFF_FFFF)
            assert await host.read(ctx, address) == 0
        assert ctx.get(dut.mode_low) == before

    run(bench)


def test_reset_values_are_read_back():
    registers = register_map(None)

    async def bench(ctx, dut, host):
        for name, register in registers.items():
            word = sum(field.reset << register.position_of(field.name)[0]
                       for field in register.fields if field.access is Access.RW)
            assert await host.read(ctx, registers.address(name)) == word, name

    run(bench, registers=registers)


def test_refuses_a_map_beyond_the_window():
    registers = RegisterMap([Register(f"r{n}", (Field("value", 32, Access.RW),)) for n in range(1025)])
    with pytest.raises(ValueError, match=r"^The map takes 4100 bytes, but the register window has 4096\.$"):
        RegisterFile(registers)
