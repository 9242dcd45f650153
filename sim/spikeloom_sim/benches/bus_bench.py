"""Cocotb bench of the bus room: bus models by others than its authors, every channel idle and stalled in all combinations."""

import random

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from .bus_design import ID, REGISTERS
from .buses import Buses

MEMORY_BYTES = 1 << 16
PAGE_BYTES = 4096


class Bench(Buses):
    """Clock, reset, a host, a memory, and both streams of one design.

    Parameters
    ----------
    idle, backpressure : float
        Chance that whoever drives a channel, or whoever takes from it, waits in a cycle.
    """

    def __init__(self, dut, idle: float = 0.0, backpressure: float = 0.0):
        super().__init__(dut, idle, backpressure, memory_bytes=MEMORY_BYTES)
        self.random = random.Random(cocotb.RANDOM_SEED)
        self.beat_bytes = len(dut.beat_data) // 8
        self.bursts: list[tuple[str, int, int]] = []

    async def start(self):
        """Start clock and monitors, and reset."""
        dut = self.dut
        for name in ("request_valid", "request_address", "request_beats", "beat_ready", "write_valid", "write_address",
                     "write_data", "write_strobe", "write_last"):
            getattr(dut, name).value = 0
        cocotb.start_soon(self._watch_bursts("ar"))
        cocotb.start_soon(self._watch_bursts("aw"))
        await super().start()

    async def _watch_bursts(self, prefix: str):
        dut = self.dut
        signals = {name: getattr(dut, f"m_axi_{prefix}{name}") for name in ("valid", "ready", "addr", "len", "size", "burst")}
        while True:
            await RisingEdge(dut.aclk)
            if dut.aresetn.value == 1 and signals["valid"].value == 1 and signals["ready"].value == 1:
                address, beats = signals["addr"].value.to_unsigned(), signals["len"].value.to_unsigned() + 1
                assert beats <= 16 and signals["burst"].value == 1 and 1 << signals["size"].value.to_unsigned() == self.beat_bytes
                end = address + beats * self.beat_bytes - 1
                assert address // PAGE_BYTES == end // PAGE_BYTES, f"{prefix}: {beats} beats from {address:#x}"
                self.bursts.append((prefix, address, beats))

    def address_of(self, register: str) -> int:
        """Byte address of a register."""
        return REGISTERS.address(register)

    async def get(self, register: str, field: str) -> int:
        """Read one field."""
        lsb, width = REGISTERS[register].position_of(field)
        return await self.host.read_dword(self.address_of(register)) >> lsb & (1 << width) - 1

    async def put(self, register: str, value: int):
        """Write one register."""
        await self.host.write_dword(self.address_of(register), value)

    async def _wait(self, chance: float):
        while self.random.random() < chance:
            await RisingEdge(self.dut.aclk)

    async def _transfer(self, valid, ready):
        while True:
            await RisingEdge(self.dut.aclk)
            if valid.value == 1 and ready.value == 1:
                return

    async def ask(self, requests):
        """Send read requests: (address, beats)."""
        dut = self.dut
        for address, beats in requests:
            await self._wait(self.idle)
            dut.request_address.value = address
            dut.request_beats.value = beats
            dut.request_valid.value = 1
            await self._transfer(dut.request_valid, dut.request_ready)
            dut.request_valid.value = 0

    async def take(self, count: int) -> list[tuple[int, int]]:
        """Receive read beats: (data, last)."""
        dut, beats = self.dut, []
        while len(beats) < count:
            await self._wait(self.backpressure)
            dut.beat_ready.value = 1
            await self._transfer(dut.beat_valid, dut.beat_ready)
            beats.append((dut.beat_data.value.to_unsigned(), int(dut.beat_last.value)))
            dut.beat_ready.value = 0
        return beats

    async def give(self, writes):
        """Send write requests: (address, [(data, strobe), ...])."""
        dut = self.dut
        for address, beats in writes:
            for n, (value, strobe) in enumerate(beats):
                await self._wait(self.idle)
                dut.write_address.value = address if n == 0 else 0
                dut.write_data.value = value
                dut.write_strobe.value = strobe
                dut.write_last.value = n == len(beats) - 1
                dut.write_valid.value = 1
                await self._transfer(dut.write_valid, dut.write_ready)
                dut.write_valid.value = 0

    async def settle(self):
        """Wait until reader and writer are idle."""
        while not (await self.get("status", "read_idle") and await self.get("status", "write_idle")):
            pass

    def expected_beats(self, requests):
        """What reads must return, from the memory's contents."""
        size = self.beat_bytes
        return [(int.from_bytes(self.region.mem[a + n * size:a + (n + 1) * size], "little"), int(n == beats - 1))
                for a, beats in requests for n in range(beats)]


ALL_STALLS = cocotb.parametrize(idle=[0.0, 0.5], backpressure=[0.0, 0.5])


@cocotb.test(timeout_time=2, timeout_unit="ms")
@ALL_STALLS
async def registers_behave(dut, idle, backpressure):
    bench = Bench(dut, idle, backpressure)
    await bench.start()
    assert await bench.get("id", "value") == ID
    assert await bench.get("scratch", "low") == 0x123
    for _ in range(10):
        value = bench.random.getrandbits(32)
        await bench.put("scratch", value)
        assert await bench.host.read_dword(bench.address_of("scratch")) == value
    await bench.host.write(bench.address_of("scratch") + 1, b"\xAB")
    assert await bench.host.read_dword(bench.address_of("scratch")) == value & ~0xFF00 | 0xAB00
    for _ in range(3):
        await bench.put("control", 0b10)
    assert await bench.get("pulses", "value") == 3
    assert await bench.host.read_dword(0xFFC) == 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
@ALL_STALLS
async def reads_and_writes_at_once(dut, idle, backpressure):
    bench = Bench(dut, idle, backpressure)
    await bench.start()
    size, half = bench.beat_bytes, MEMORY_BYTES // 2
    bench.region.mem[:] = bench.random.randbytes(MEMORY_BYTES)
    requests = [(PAGE_BYTES - size, 2), (PAGE_BYTES - 3 * size, 40), (0, 16), (16 * size, 17), (2 * PAGE_BYTES, 1)]
    requests += [(size * bench.random.randrange(half // size - 70), bench.random.randrange(1, 70)) for _ in range(6)]
    expected = bench.expected_beats(requests)
    image = bytearray(bench.region.mem[half:])
    writes = []
    for address, count in [(PAGE_BYTES - size, 3), (PAGE_BYTES - 5 * size, 33), (0, 16), (8 * PAGE_BYTES - size, 1), (4096 + 8 * size, 1)]:
        beats = [(bench.random.getrandbits(8 * size), bench.random.choice([(1 << size) - 1, 0x0F, bench.random.getrandbits(size)]))
                 for _ in range(count)]
        if address + count * size > half:
            continue
        writes.append((half + address, beats))
        for n, (value, strobe) in enumerate(beats):
            for lane, byte in enumerate(value.to_bytes(size, "little")):
                if strobe >> lane & 1:
                    image[address + n * size + lane] = byte
    tasks = [cocotb.start_soon(bench.ask(requests)), cocotb.start_soon(bench.give(writes))]
    assert await bench.take(len(expected)) == expected
    for task in tasks:
        await task
    await bench.settle()
    assert await bench.get("writes_done", "value") == len(writes)
    assert bytes(bench.region.mem[half:]) == bytes(image)
    assert not await bench.get("status", "read_error") and not await bench.get("status", "write_error")
    assert {prefix for prefix, _, _ in bench.bursts} == {"ar", "aw"}
    if backpressure:
        assert {"m_axi_ar", "m_axi_aw", "m_axi_w"} <= bench.waited, "no channel was made to wait"


@cocotb.test(timeout_time=2, timeout_unit="ms")
@ALL_STALLS
async def errors_are_reported_and_drained_away(dut, idle, backpressure):
    bench = Bench(dut, idle, backpressure)
    await bench.start()
    size = bench.beat_bytes
    bench.region.low, bench.region.high = 0x1000 + 2 * size, 0x1000 + 4 * size
    requests = [(0x1000 - 4 * size, 24)]
    reading = cocotb.start_soon(bench.ask(requests))
    assert [last for _, last in await bench.take(24)] == [0] * 23 + [1]
    await reading
    await bench.give([(0x1000 + 3 * size, [(1, 1)]), (0x2000, [(7, (1 << size) - 1)])])
    await bench.settle()
    for prefix, address in (("read", 0x1000 + 2 * size), ("write", 0x1000 + 3 * size)):
        assert await bench.get("status", f"{prefix}_error") and await bench.get("status", f"{prefix}_code") == 2
        assert await bench.get(f"{prefix}_error", "address") == address
    assert bench.region.mem[0x2000] == 7
    await bench.put("control", 1)
    while not (await bench.get("status", "read_drained") and await bench.get("status", "write_drained")):
        pass
    await bench.put("control", 0)
    assert not await bench.get("status", "read_error") and not await bench.get("status", "write_error")


@cocotb.test(timeout_time=2, timeout_unit="ms")
@ALL_STALLS
async def drains_in_the_middle(dut, idle, backpressure):
    bench = Bench(dut, idle, backpressure)
    await bench.start()
    bench.region.mem[:] = bench.random.randbytes(MEMORY_BYTES)
    for _ in range(3):
        asking = cocotb.start_soon(bench.ask([(0, 500)]))
        await bench.take(bench.random.randrange(1, 60))
        await asking
        await bench.put("control", 1)
        while not await bench.get("status", "read_drained"):
            pass
        await bench.put("control", 0)
        requests = [(0x100, 20), (0xFF0 & ~(bench.beat_bytes - 1), 5)]
        asking = cocotb.start_soon(bench.ask(requests))
        assert await bench.take(25) == bench.expected_beats(requests)
        await asking


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def a_silent_memory_is_dead_until_the_fabric_reset(dut):
    bench = Bench(dut)
    await bench.start()
    await bench.put("timeout", 100)
    bench.memory.read_if.r_channel.pause = True
    bench.memory.write_if.b_channel.pause = True
    await bench.ask([(0, 4)])
    await bench.give([(64, [(1, 1)])])
    await ClockCycles(dut.aclk, 200)
    assert await bench.get("status", "read_dead") and await bench.get("status", "write_dead")
    assert dut.request_ready.value == 0 and dut.write_ready.value == 0
    bench.memory.read_if.r_channel.pause = False
    bench.memory.write_if.b_channel.pause = False
    await ClockCycles(dut.aclk, 50)
    assert await bench.get("status", "read_dead") and await bench.get("status", "write_dead")
    dut.aresetn.value = 0
    await ClockCycles(dut.aclk, 8)
    dut.aresetn.value = 1
    await ClockCycles(dut.aclk, 4)
    assert not await bench.get("status", "read_dead") and not await bench.get("status", "write_dead")
