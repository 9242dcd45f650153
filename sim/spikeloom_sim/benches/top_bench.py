"""Cocotb bench of the whole core: the shipped driver talks to the Verilog through bus models by other authors.

Everything the driver needs is a `Transport`; this one turns its blocking calls into cocotb's waiting ones.
"""

import os
import random
from dataclasses import replace

import cocotb
import numpy as np
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, First, RisingEdge
from cocotbext.axi import MemoryRegion

from spikeloom.arch.presets import preset
from spikeloom.compiler import compile_model
from spikeloom.driver import errors
from spikeloom.driver.device import Device
from spikeloom.driver.verify import verify, verify_encoding
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import TINY, random_model

from .buses import Buses

CFG = preset(os.environ.get("SPIKELOOM_MACHINE", "tiny"))
MEMORY_BYTES = 1 << 20
PAGE_BYTES = 4096
#: Ternary neurons over two time steps, attention both ways.
ENCODER = replace(TINY, bidirectional=True, context=8, layers=1, neuron="t_lif", steps=2, leak=2)


class CocotbBuffer:
    """Bytes of the modelled memory; the host sees a copy, as on a board without coherence."""

    def __init__(self, region: MemoryRegion, address: int, nbytes: int):
        self.address = address
        self.array = np.zeros(nbytes, np.uint8)
        self._region = region

    def flush(self) -> None:
        """Host to device."""
        self._region.mem[self.address:self.address + len(self.array)] = self.array.tobytes()

    def invalidate(self) -> None:
        """Device to host."""
        self.array[:] = np.frombuffer(bytes(self._region.mem[self.address:self.address + len(self.array)]), np.uint8)

    def free(self) -> None:
        """Memory is never used twice in a bench."""


class CocotbTransport(Buses):
    """A `spikeloom.driver.transport.Transport` over cocotbext-axi.

    Parameters
    ----------
    idle, backpressure : float
        Chance that whoever drives a channel, or whoever takes from it, waits in a cycle.
    """

    def __init__(self, dut, idle: float = 0.0, backpressure: float = 0.0):
        super().__init__(dut, idle, backpressure, memory_bytes=MEMORY_BYTES)
        self._next = PAGE_BYTES

    cycles = None

    @resume
    async def read32(self, offset: int) -> int:
        """Read a register."""
        return await self.host.read_dword(offset)

    @resume
    async def write32(self, offset: int, value: int) -> None:
        """Write a register."""
        await self.host.write_dword(offset, value)

    def allocate(self, nbytes: int) -> CocotbBuffer:
        """A page-aligned buffer."""
        address = self._next
        self._next += -(-nbytes // PAGE_BYTES) * PAGE_BYTES
        if self._next > MEMORY_BYTES:
            raise MemoryError("The modelled memory is full.")
        return CocotbBuffer(self.region, address, nbytes)

    @resume
    async def wait_interrupt(self, deadline_s: float, cycles: int | None = None) -> bool:
        """Wait for the line, 2,000 cycles at most: simulated time is what counts here."""
        if not int(self.dut.irq.value):
            await First(RisingEdge(self.dut.irq), ClockCycles(self.dut.aclk, 2000))
        return bool(int(self.dut.irq.value))

    def reset(self) -> None:
        """Not used by these benches."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to give back."""


def network(seed: int, streamed, config=TINY):
    """A random network, its image and its integer model."""
    config, tensors = random_model(seed, config)
    return compile_model(config, tensors, CFG, logit_scale=50.0, streamed=streamed), IntegerModel(config, tensors)


@cocotb.test(timeout_time=20, timeout_unit="ms")
@cocotb.parametrize(idle=[0.0, 0.4], backpressure=[0.0, 0.4], streamed=["none", "all"])
async def writes_what_the_model_writes(dut, idle, backpressure, streamed):
    """Tokens and checksums of a generation, whoever waits."""
    seed = random.Random(f"{cocotb.RANDOM_SEED} {idle} {backpressure} {streamed}").randrange(8)
    image, model = network(seed, streamed)
    transport = CocotbTransport(dut, idle, backpressure)
    await transport.start()

    @bridge
    def host():
        device = Device(transport, CFG, deadline_s=600)
        device.load(image)
        return verify(device, model, [1, 2], 3)

    report = await host()
    assert report.mismatches == 0, f"seed {seed}: {report.first}"
    assert len(report.tokens) == 3 and report.compared > 3 * 14


@cocotb.test(timeout_time=20, timeout_unit="ms")
@cocotb.parametrize(waits=[0.0, 0.4], streamed=["none", "all"])
async def reads_what_the_model_reads(dut, waits, streamed):
    """Tokens and checksums of every sweep over a text, whoever waits."""
    seed = random.Random(f"{cocotb.RANDOM_SEED} {waits} {streamed}").randrange(8)
    image, model = network(seed, streamed, ENCODER)
    transport = CocotbTransport(dut, waits, waits)
    await transport.start()

    @bridge
    def host():
        device = Device(transport, CFG, deadline_s=600)
        device.load(image)
        return verify_encoding(device, model, [1, 7, 2])

    report = await host()
    assert report.mismatches == 0, f"seed {seed}: {report.first}"
    assert len(report.tokens) == 3 and report.compared > 3 * 2 * 10


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def a_bus_error_is_typed_and_cured(dut):
    """SLVERR on a weight row, then a reset, then the right text."""
    image, model = network(5, "all")
    transport = CocotbTransport(dut, 0.2, 0.2)
    await transport.start()

    @bridge
    def host():
        device = Device(transport, CFG, deadline_s=600)
        device.load(image)
        base = device._buffers["image"].address
        transport.region.low, transport.region.high = base + PAGE_BYTES, base + (1 << 18)
        try:
            list(device.generate([1, 2], 2, ignore_end=True))
            caught = None
        except errors.BusError as error:
            caught = error
        transport.region.low = transport.region.high = 0
        device.reset()
        return caught, verify(device, model, [1, 2], 2)

    caught, report = await host()
    assert caught is not None and caught.state["error"] == "BUS_READ"
    assert report.mismatches == 0, report.first


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def the_interrupt_is_a_level_that_the_host_lowers(dut):
    """irq rises when a run ends and stays until acknowledged."""
    image, _ = network(5, "none")
    transport = CocotbTransport(dut)
    await transport.start()

    @bridge
    def host():
        device = Device(transport, CFG, deadline_s=600)
        device.load(image)
        device._run(0, [1], 1, ignore_end=True)
        while not device.registers.fields("status")["done"]:
            pass
        before = transport.wait_interrupt(1)
        device.registers.write("control", acknowledge=1)
        return before, device.registers.fields("status")

    before, after = await host()
    assert before and not after["done"] and not after["interrupt"] and not int(dut.irq.value)
