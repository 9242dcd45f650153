"""Both buses of a design under cocotb, by bus models of other authors, with every channel able to wait."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AddressSpace, AxiBus, AxiLiteBus, AxiLiteMaster, AxiSlave, MemoryRegion


def waits(chance: float, seed: str):
    """Endless generator: 1 pauses a channel for a cycle."""
    generator = random.Random(seed)
    while True:
        yield generator.random() < chance


#: Channels that a design drives, and what must not change while one waits.
CHANNELS = {
    "s_axil_b": ("resp",), "s_axil_r": ("data", "resp"), "m_axi_ar": ("id", "addr", "len", "size", "burst", "lock", "cache", "prot"),
    "m_axi_aw": ("id", "addr", "len", "size", "burst", "lock", "cache", "prot"), "m_axi_w": ("data", "strb", "last"),
}


class FaultyRegion(MemoryRegion):
    """Memory that refuses accesses to a range of addresses; the bus model answers them with SLVERR."""

    low = high = 0

    def _refuse(self, address, length):
        if address < self.high and self.low < address + length:
            raise RuntimeError("refused")

    async def read(self, address, length, **options):
        """Read, or refuse."""
        self._refuse(address, length)
        return await super().read(address, length, **options)

    async def write(self, address, data, **options):
        """Write, or refuse."""
        self._refuse(address, len(data))
        await super().write(address, data, **options)


class Buses:
    """A host on ``s_axil`` and one memory behind ``m_axi``, and behind ``m_axi1`` where there is such a port.

    Parameters
    ----------
    idle, backpressure : float
        Chance that whoever drives a channel, or whoever takes from it, waits in a cycle.
    memory_bytes : int
        Size of the memory, from address 0.
    """

    def __init__(self, dut, idle: float = 0.0, backpressure: float = 0.0, *, memory_bytes: int):
        self.dut, self.idle, self.backpressure = dut, idle, backpressure
        reset = {"reset": dut.aresetn, "reset_active_level": False}
        self.host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.aclk, **reset)
        self.region = FaultyRegion(memory_bytes)
        space = AddressSpace(1 << 40)
        space.register_region(self.region, 0)
        self.memories = [AxiSlave(AxiBus.from_prefix(dut, name), dut.aclk, target=space, **reset)
                         for name in ("m_axi", "m_axi1") if hasattr(dut, f"{name}_araddr")]
        self.memory = self.memories[0]
        self.waited: set[str] = set()
        self._pause()

    async def _watch_stable(self, channel: str):
        """Once valid, a channel keeps valid and payload until the transfer, a fabric reset excepted."""
        valid, ready = getattr(self.dut, f"{channel}valid"), getattr(self.dut, f"{channel}ready")
        payload = [getattr(self.dut, channel + name) for name in CHANNELS[channel.replace("m_axi1", "m_axi")]]
        held = None
        while True:
            await RisingEdge(self.dut.aclk)
            if self.dut.aresetn.value != 1:
                held = None
                continue
            now = [signal.value for signal in payload] if valid.value == 1 else None
            assert held is None or now == held, f"{channel}: valid or payload changed before the transfer: {held}, then {now}"
            held = now if now is not None and ready.value == 0 else None
            if held is not None:
                self.waited.add(channel)

    def _pause(self):
        sources = [self.host.write_if.aw_channel, self.host.write_if.w_channel, self.host.read_if.ar_channel]
        sinks = [self.host.write_if.b_channel, self.host.read_if.r_channel]
        for memory in self.memories:
            sources += [memory.write_if.b_channel, memory.read_if.r_channel]
            sinks += [memory.write_if.aw_channel, memory.write_if.w_channel, memory.read_if.ar_channel]
        for channels, chance in ((sources, self.idle), (sinks, self.backpressure)):
            for n, channel in enumerate(channels):
                if chance:
                    channel.set_pause_generator(waits(chance, f"{cocotb.RANDOM_SEED} {n} {chance}"))

    async def start(self):
        """Clock and fabric reset."""
        self.dut.aresetn.value = 0
        for channel in [*CHANNELS, "m_axi1_ar"] if len(self.memories) > 1 else CHANNELS:
            cocotb.start_soon(self._watch_stable(channel))
        cocotb.start_soon(Clock(self.dut.aclk, 10, unit="ns").start())
        await ClockCycles(self.dut.aclk, 8)
        self.dut.aresetn.value = 1
        await ClockCycles(self.dut.aclk, 4)
