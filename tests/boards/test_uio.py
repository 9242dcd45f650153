"""`driver.uio_backend` on files that stand for those of Linux, and on gates behind them with memory that must be handed over."""

import mmap
import socket
import struct

import pytest

from spikeloom.arch.presets import preset
from spikeloom.arch.registers import WINDOW_BYTES, register_map
from spikeloom.compiler import compile_model
from spikeloom.driver.device import Device
from spikeloom.driver.errors import DeviceGone, ForeignBitstream, SpikeloomError
from spikeloom.driver.uio_backend import DmaMemory, NotConfigured, UioInterrupt, UioTransport, Window, find_uio
from spikeloom.driver.verify import verify
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import random_model

TINY = preset("tiny")
MAP = register_map(TINY)
PHYSICAL, NBYTES = 0x1800_0000, 1 << 20


class Linux:
    """A temporary folder with the files that UIO, u-dma-buf and fpga_manager show."""

    def __init__(self, root, kind="u-dma-buf"):
        self.sysfs, self.dev = root / "sys", root / "dev"
        self.folder = self.sysfs / "class" / kind / "udmabuf0"
        self.folder.mkdir(parents=True)
        (self.folder / "phys_addr").write_text(f"{PHYSICAL:#018x}\n")
        (self.folder / "size").write_text(f"{NBYTES}\n")
        self.dev.mkdir()
        (self.dev / "udmabuf0").write_bytes(bytes(NBYTES))
        for number, name in enumerate(("axi_gpio", "spikeloom")):
            uio = self.sysfs / "class" / "uio" / f"uio{number}"
            (uio / "maps" / "map0").mkdir(parents=True)
            (uio / "name").write_text(f"{name}\n")
            (uio / "maps" / "map0" / "size").write_text("0x00010000\n")
            (self.dev / f"uio{number}").write_bytes(bytes(0x10000))
        self.places = {"sysfs": self.sysfs, "dev": self.dev}


@pytest.fixture
def linux(tmp_path):
    return Linux(tmp_path)


def test_registers_are_words_of_the_mapped_file(linux):
    with UioTransport.from_uio(**linux.places) as transport:
        transport.write32(8, 0xDEADBEEF)
        assert transport.read32(8) == 0xDEADBEEF and transport.cycles is None
        assert (linux.dev / "uio1").read_bytes()[8:12] == bytes.fromhex("efbeadde")
        with pytest.raises(ForeignBitstream, match="magic register reads 0x00000000"):
            Device(transport, TINY)
    with pytest.raises(DeviceGone):
        transport.read32(0)
    transport.close()


def test_the_device_is_found_by_name_and_its_window_must_be_large_enough(linux):
    assert find_uio("spikeloom", **linux.places).name == "uio1"
    with pytest.raises(NotConfigured, match="no UIO device 'other'; there are: axi_gpio, spikeloom"):
        find_uio("other", **linux.places)
    (linux.sysfs / "class" / "uio" / "uio1" / "maps" / "map0" / "size").write_text("0x100\n")
    with pytest.raises(NotConfigured, match=f"has 256 bytes; the core's has {WINDOW_BYTES}"):
        find_uio("spikeloom", **linux.places)
    with pytest.raises(NotConfigured, match="cannot be reached"):
        Window(linux.dev / "missing")


def test_physical_memory_works_as_well(linux):
    (linux.dev / "mem").write_bytes(bytes(3 * mmap.PAGESIZE))
    with UioTransport.from_memory(mmap.PAGESIZE, **linux.places) as transport:
        transport.write32(4, 7)
    assert (linux.dev / "mem").read_bytes()[mmap.PAGESIZE + 4] == 7


@pytest.mark.parametrize("kind", ["u-dma-buf", "udmabuf"])
def test_memory_is_given_out_in_pages_and_joined_again(tmp_path, kind):
    memory = DmaMemory("udmabuf0", **Linux(tmp_path, kind).places)
    a, b, c = (memory.allocate(size) for size in (1, 4097, 4096))
    assert [x.address - PHYSICAL for x in (a, b, c)] == [0, 4096, 3 * 4096]
    assert [len(x.array) for x in (a, b, c)] == [1, 4097, 4096]
    b.free()
    b.free()
    assert memory.allocate(8192).address == PHYSICAL + 4096
    with pytest.raises(MemoryError, match="no room"):
        memory.allocate(NBYTES)
    for buffer in (a, c):
        buffer.free()
    assert memory.allocate(NBYTES - 3 * 4096).address == PHYSICAL + 3 * 4096
    with pytest.raises(NotConfigured, match="no u-dma-buf of the name udmabuf7"):
        DmaMemory("udmabuf7", **Linux(tmp_path / "other").places)


def test_ranges_are_handed_over_by_name(linux):
    memory = DmaMemory("udmabuf0", **linux.places)
    memory.allocate(4096)
    buffer = memory.allocate(5000)
    buffer.array[:] = 9
    for call, owner, direction in ((buffer.flush, "device", 1), (buffer.invalidate, "cpu", 2)):
        call()
        read = {path.name: int(path.read_text()) for path in linux.folder.glob("sync_*")}
        assert (read["sync_offset"], read["sync_size"], read["sync_direction"], read[f"sync_for_{owner}"]) == (4096, 8192, direction, 1)
    assert (linux.dev / "udmabuf0").read_bytes()[4096:4096 + 5000] == bytes([9]) * 5000


def test_interrupts_are_unmasked_and_counted():
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, kernel:
        kernel.settimeout(5)
        interrupt = UioInterrupt(ours.fileno())
        assert not interrupt.wait(0.01)
        kernel.send(struct.pack("=I", 7))
        assert interrupt.wait(1.0) and not interrupt.wait(0.0)
        assert [kernel.recv(16) for _ in range(3)] == [struct.pack("=I", 1)] * 3


def test_the_fabric_is_reset_where_it_is_known_how(linux, tmp_path):
    with UioTransport.from_uio(**linux.places) as transport:
        with pytest.raises(DeviceGone, match="cannot reset"):
            transport.reset()
    with UioTransport.from_uio(firmware=tmp_path / "firmware", bitstream="spikeloom.bin", **linux.places) as transport:
        transport.reset()
    assert (tmp_path / "firmware").read_text() == "spikeloom.bin"


def test_waiting_follows_the_status_register(linux):
    (linux.dev / "mem").write_bytes(bytes(4096))
    with UioTransport.from_memory(0, **linux.places) as transport:
        assert not transport.wait_interrupt(0.002)
        transport.write32(MAP.address("status"), 1 << MAP["status"].position_of("interrupt")[0])
        assert transport.interrupt and transport.wait_interrupt(0.0)


# -- gates ------------------------------------------------------------------------------------------------------

class Gates:
    """A register window onto simulated gates."""

    def __init__(self, rtl):
        self.rtl = rtl

    def __getitem__(self, index):
        return self.rtl.read32(4 * index)

    def __setitem__(self, index, value):
        self.rtl.write32(4 * index, value)

    def close(self):
        """The gates live on."""


class Line:
    """The interrupt of simulated gates."""

    def __init__(self, rtl):
        self.rtl, self.waits = rtl, 0

    def wait(self, seconds):
        self.waits += 1
        return self.rtl.wait_interrupt(seconds, 2_000)


class Cached(DmaMemory):
    """A u-dma-buf whose cache is written back and forgotten only when it is told to."""

    def behind(self, rtl):
        self.rtl, self.buffer = rtl, rtl.allocate(self.nbytes)
        self.address = self.buffer.address
        self._bytes[:] = 0x5A

    def write_attribute(self, name, value):
        super().write_attribute(name, value)
        if name.startswith("sync_for_"):
            start, size = int(self._attribute("sync_offset")), int(self._attribute("sync_size"))
            host, device = self._bytes[start:start + size], self.buffer._device_view[start:start + size]
            if name == "sync_for_device":
                device[:] = host
            else:
                host[:] = device


@pytest.fixture
def run(linux):
    """run() -> report of a verified run through UIO on gates."""
    pytest.importorskip("amaranth")
    from spikeloom_sim.machine import open_machine

    config, tensors = random_model(2)
    image = compile_model(config, tensors, TINY, logit_scale=64.0, streamed="all")
    with open_machine(TINY, scramble=True) as rtl:
        memory = Cached("udmabuf0", **linux.places)
        memory.behind(rtl)
        line = Line(rtl)

        def go():
            device = Device(UioTransport(Gates(rtl), memory, interrupt=line), TINY, deadline_s=60)
            device.load(image)
            return verify(device, IntegerModel(config, tensors), [1, 2], 5), line.waits
        yield go


@pytest.mark.rtl
def test_gates_agree_with_the_model(run):
    report, waits = run()
    assert report.mismatches == 0 and len(report.tokens) == 5 and waits > 0, report.first


@pytest.mark.rtl
@pytest.mark.parametrize("forgotten", ["device", "cpu"])
def test_a_forgotten_sync_is_seen(run, monkeypatch, forgotten):
    sync = DmaMemory.sync
    monkeypatch.setattr(DmaMemory, "sync", lambda self, owner, *where: None if owner == forgotten else sync(self, owner, *where))
    try:
        report, _ = run()
    except (SpikeloomError, IndexError, ValueError):
        return
    assert report.mismatches > 0
