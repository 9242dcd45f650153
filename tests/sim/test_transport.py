"""`spikeloom_sim.transport`: a device of bus parts behaves behind the driver's transport, and misbehaviour is seen."""

import time

import numpy as np
import pytest

from spikeloom.driver.errors import DeadlineExpired, DeviceGone
from spikeloom.driver.transport import Buffer, Transport

pytest.importorskip("amaranth")

from spikeloom_hw.export import port_list, to_verilog
from spikeloom_hw.shell import Shell
from spikeloom_sim import verilator
from spikeloom_sim.benches import copier, puppet
from spikeloom_sim.transport import Memory, ProtocolViolation, RtlTransport, Stalls

pytestmark = pytest.mark.rtl

SMALL = Memory(nbytes=1 << 20)


@pytest.fixture(scope="module")
def libraries():
    """Each simulator, built once, when it is asked for."""
    def build(core, name, **options):
        top = Shell(core)
        return verilator.build(to_verilog(top, name), port_list(top), name, verilator.Options(**options))

    class Libraries(dict):
        recipes = {
            "axi4-64": lambda: build(copier.Copier(data_width=64), "copier"),
            "axi3-64": lambda: build(copier.Copier(data_width=64, axi3=True), "copier"),
            "axi4-128": lambda: build(copier.Copier(data_width=128), "copier", scramble=True),
            "puppet": lambda: build(puppet.Puppet(), "puppet", trace=True),
        }

        def __missing__(self, name):
            self[name] = self.recipes[name]()
            return self[name]

    return Libraries()


class Host:
    """Drives one copier."""

    def __init__(self, transport):
        self.transport = transport

    def get(self, register, field):
        lsb, width = copier.REGISTERS[register].position_of(field)
        return self.transport.read32(copier.REGISTERS.address(register)) >> lsb & (1 << width) - 1

    def put(self, register, value):
        self.transport.write32(copier.REGISTERS.address(register), value)

    def start(self, source, target, beats):
        self.put("source", source)
        self.put("target", target)
        self.put("length", beats)
        self.put("control", 0b001)

    def copy(self, source, target, beats):
        self.start(source, target, beats)
        assert self.transport.wait_interrupt(30, cycles=100_000)
        self.put("control", 0b010)

    def drain(self):
        self.put("control", 0b100)
        for _ in range(1000):
            if self.get("status", "drained"):
                self.put("control", 0)
                return
        raise AssertionError("never drained")


@pytest.mark.parametrize("build", ["axi4-64", "axi3-64", pytest.param("axi4-128", marks=pytest.mark.builds)])
@pytest.mark.parametrize("stall", [0.0, 0.3, 0.7, 0.95])
def test_copies_under_stalls(libraries, build, stall, seed):
    rng = np.random.default_rng(seed)
    with RtlTransport.from_library(libraries[build], memory=SMALL, stalls=Stalls(everywhere=stall), seed=seed) as transport:
        host = Host(transport)
        assert host.get("id", "value") == copier.ID
        beat = int(build.split("-")[1]) // 8
        source, target = transport.allocate(1 << 16), transport.allocate(1 << 16)
        assert isinstance(source, Buffer) and isinstance(transport, Transport)
        for beats in (1, 16, 17, 300, int(rng.integers(2, 500))):
            source.array[:] = rng.integers(0, 256, source.array.size, dtype=np.uint8)
            target.array[:] = 0
            source.flush()
            target.flush()
            skip, jump = (int(n) * beat for n in rng.integers(0, 600, 2))
            host.copy(source.address + skip, target.address + jump, beats)
            target.invalidate()
            expected = np.zeros_like(target.array)
            expected[jump:jump + beats * beat] = source.array[skip:skip + beats * beat]
            assert np.array_equal(target.array, expected)
        assert not transport.violations


def test_same_seed_same_cycles(libraries):
    def cycles(seed):
        with RtlTransport.from_library(libraries["axi4-64"], memory=SMALL, stalls=Stalls(everywhere=0.4), seed=seed) as transport:
            Host(transport).copy(SMALL.base, SMALL.base + 8192, 200)
            return transport.cycles

    assert cycles(5) == cycles(5) != cycles(6)


def test_latency_and_rate_cost_cycles(libraries):
    def cycles(**settings):
        memory = Memory(nbytes=1 << 20, **settings)
        with RtlTransport.from_library(libraries["axi4-64"], memory=memory) as transport:
            before = transport.cycles
            Host(transport).copy(memory.base, memory.base + 8192, 500)
            return transport.cycles - before

    fast = cycles(latency=4)
    assert 500 < fast < 700
    assert cycles(latency=4, rate=0.25) > 4 * (500 - 16)
    assert cycles(latency=400) > fast + 700


def test_unflushed_writes_stay_with_the_host(libraries):
    with RtlTransport.from_library(libraries["axi4-64"], memory=SMALL) as transport:
        source, target = transport.allocate(64), transport.allocate(64)
        source.array[:] = 1
        Host(transport).copy(source.address, target.address, 8)
        assert not target.array.any()
        target.invalidate()
        assert (target.array == 0xA5).all()


def test_coherent_memory_needs_no_flush(libraries):
    with RtlTransport.from_library(libraries["axi4-64"], memory=Memory(nbytes=1 << 20, coherent=True)) as transport:
        source, target = transport.allocate(64), transport.allocate(64)
        source.array[:] = 7
        Host(transport).copy(source.address, target.address, 8)
        assert (target.array == 7).all()


def test_memory_is_given_back_and_merged(libraries):
    with RtlTransport.from_library(libraries["axi4-64"], memory=Memory(nbytes=16 * 4096)) as transport:
        buffers = [transport.allocate(4000) for _ in range(16)]
        assert len({buffer.address for buffer in buffers}) == 16
        with pytest.raises(MemoryError, match="no room for 1 more"):
            transport.allocate(1)
        for buffer in buffers[::2] + buffers[1::2] + buffers:
            buffer.free()
        whole = transport.allocate(16 * 4096)
        assert whole.address == transport.memory.base
        buffers[0].free()
        with pytest.raises(MemoryError, match="no room for 1 more"):
            transport.allocate(1)


def test_a_damaged_library_is_refused_in_words(tmp_path):
    (tmp_path / "libsim.so").write_bytes(b"cut")
    with pytest.raises(DeviceGone, match=f"Delete the folder {tmp_path}"):
        RtlTransport.from_library(tmp_path / "libsim.so")


@pytest.mark.parametrize("response", ["slverr", "decerr"])
def test_errors_reach_the_registers(libraries, response):
    with RtlTransport.from_library(libraries["axi4-64"], memory=SMALL) as transport:
        host = Host(transport)
        transport.fault("read_error", SMALL.base + 0x100, SMALL.base + 0x108, response=response)
        transport.fault("write_error", SMALL.base + 0x2080, SMALL.base + 0x2081, response=response)
        host.copy(SMALL.base, SMALL.base + 0x2000, 64)
        assert host.get("status", "read_error") and host.get("status", "write_error")
        assert host.get("read_error", "address") == SMALL.base + 0x100
        assert host.get("write_error", "address") == SMALL.base + 0x2080
        transport.heal()
        host.drain()
        host.copy(SMALL.base, SMALL.base + 0x2000, 64)
        assert not host.get("status", "read_error") and not host.get("status", "write_error")


def test_addresses_outside_of_memory_are_errors(libraries):
    with RtlTransport.from_library(libraries["axi4-64"], memory=SMALL) as transport:
        host = Host(transport)
        host.copy(SMALL.base + SMALL.nbytes - 8, SMALL.base, 2)
        assert host.get("status", "read_error")
        assert host.get("read_error", "address") == SMALL.base + SMALL.nbytes
        assert not transport.violations


@pytest.mark.parametrize("channel", ["ar", "r", "aw", "w", "b"])
def test_silence_is_declared_and_only_a_fabric_reset_heals(libraries, channel):
    with RtlTransport.from_library(libraries["axi4-64"], memory=SMALL) as transport:
        host = Host(transport)
        host.put("timeout", 200)
        transport.fault(channel, 1)
        host.start(SMALL.base, SMALL.base + 0x2000, 64)
        assert not transport.wait_interrupt(10, cycles=1000)
        assert host.get("status", "bus_dead")
        transport.heal()
        transport.run(1000)
        assert host.get("status", "bus_dead")
        transport.reset()
        assert not host.get("status", "bus_dead")
        host.copy(SMALL.base, SMALL.base + 0x2000, 64)


def test_drains_in_the_middle_of_a_copy(libraries, seed):
    rng = np.random.default_rng(seed)
    with RtlTransport.from_library(libraries["axi4-64"], memory=SMALL, stalls=Stalls(everywhere=0.3), seed=seed) as transport:
        host = Host(transport)
        source, target = transport.allocate(1 << 14), transport.allocate(1 << 14)
        source.array[:] = rng.integers(0, 256, source.array.size, dtype=np.uint8)
        source.flush()
        for _ in range(10):
            host.start(source.address, target.address, 1000)
            transport.run(int(rng.integers(1, 600)))
            host.drain()
            host.copy(source.address, target.address, 100)
            target.invalidate()
            assert np.array_equal(target.array[:800], source.array[:800])


def test_register_accesses_have_a_deadline(libraries):
    with RtlTransport.from_library(libraries["axi4-64"], memory=SMALL, register_deadline=2) as transport:
        with pytest.raises(DeadlineExpired, match="read of register 0x000 failed: not answered within 2 cycles.*reset"):
            transport.read32(0)
        with pytest.raises(DeadlineExpired, match="write of register 0x004 failed: an earlier access is still unanswered"):
            transport.write32(4, 0)
        transport.reset()
        transport.register_deadline = 100
        assert Host(transport).get("id", "value") == copier.ID


def test_waiting_has_two_limits(libraries):
    with RtlTransport.from_library(libraries["axi4-64"], memory=SMALL) as transport:
        before = transport.cycles
        assert not transport.wait_interrupt(30, cycles=1234)
        assert transport.cycles == before + 1234
        began = time.monotonic()
        assert not transport.wait_interrupt(0.2)
        assert time.monotonic() - began < 5


def test_closed_devices_say_so(libraries):
    transport = RtlTransport.from_library(libraries["axi4-64"], memory=SMALL)
    buffer = transport.allocate(16)
    buffer.array[:] = 3
    transport.close()
    transport.close()
    for call in (lambda: transport.read32(0), lambda: transport.cycles, buffer.flush, lambda: transport.allocate(1)):
        with pytest.raises(DeviceGone, match="was closed"):
            call()
    assert (buffer.array == 3).all()
    buffer.free()


def test_two_devices_do_not_disturb_each_other(libraries):
    with RtlTransport.from_library(libraries["axi4-64"], memory=SMALL) as one, \
            RtlTransport.from_library(libraries["axi4-64"], memory=SMALL) as two, \
            RtlTransport.from_library(libraries["puppet"], memory=SMALL) as third:
        Host(one).put("source", 1)
        Host(two).put("source", 2)
        third.write32(puppet.REGISTERS.address("data"), 3)
        assert (Host(one).get("source", "address"), Host(two).get("source", "address")) == (1, 2)
        assert third.read32(puppet.REGISTERS.address("data")) == 3


class Strings:
    """Pulls the strings of a puppet."""

    def __init__(self, transport):
        self.transport = transport
        self.base = transport.memory.base

    def put(self, register, **fields):
        word = 0
        for field in puppet.REGISTERS[register].fields:
            lsb, _ = puppet.REGISTERS[register].position_of(field.name)
            word |= fields.pop(field.name, field.reset) << lsb
        assert not fields
        self.transport.write32(puppet.REGISTERS.address(register), word)


def stall_ar(strings):
    strings.transport.fault("ar")
    strings.put("valid", ar=1)


def drop_valid(strings):
    stall_ar(strings)
    strings.put("valid")


def change_payload(strings):
    stall_ar(strings)
    strings.put("address", value=strings.base + 8)


def change_data(strings):
    strings.put("valid", w=1)
    strings.put("data", value=5)


def long_burst(strings):
    strings.put("burst", len=16)
    strings.put("valid", ar=1)


def cross_page(strings):
    strings.put("address", value=strings.base + 4096 - 8)
    strings.put("burst", len=1)
    strings.put("valid", ar=1)


def write_across_page(strings):
    strings.put("address", value=strings.base + 4096 - 64)
    strings.put("burst", len=8)
    strings.put("valid", aw=1)


def narrow_beats(strings):
    strings.put("burst", size=2)
    strings.put("valid", ar=1)


def unaligned(strings):
    strings.put("address", value=strings.base + 4)
    strings.put("valid", ar=1)


def second_id(strings):
    strings.put("burst", id=1)
    strings.put("valid", ar=1)


def locked(strings):
    strings.put("burst", lock=1)
    strings.put("valid", aw=1)


def early_last(strings):
    strings.put("burst", len=1, last=1)
    strings.put("valid", aw=1, w=1)


def no_last(strings):
    strings.put("valid", aw=1, w=1)


def arm(strings):
    strings.put("bomb", armed=1)


@pytest.mark.parametrize("misdeed, words", [
    (drop_valid, "m_axi AR: valid fell before the transfer"),
    (change_payload, "m_axi AR: the payload changed before the transfer"),
    (change_data, "m_axi W: the payload changed before the transfer"),
    (long_burst, "m_axi AR: a burst of 17 beats"),
    (cross_page, "m_axi AR: 2 beats from 0x10000ff8 cross a 4 KiB boundary"),
    (write_across_page, "m_axi AW: 9 beats from 0x10000fc0 cross a 4 KiB boundary"),
    (narrow_beats, "m_axi AR: size 2 and burst 1 are not full INCR beats"),
    (unaligned, "m_axi AR: address 0x10000004 is not aligned to a beat"),
    (second_id, "m_axi AR: id 1 and lock 0, not one plain stream"),
    (locked, "m_axi AW: id 0 and lock 1, not one plain stream"),
    (early_last, "m_axi W: WLAST is 1 with 2 beats left"),
    (no_last, "m_axi W: WLAST is 0 with 1 beats left"),
    (arm, "the design stopped itself"),
])
def test_misdeeds_are_seen(libraries, misdeed, words):
    with RtlTransport.from_library(libraries["puppet"], memory=SMALL) as transport:
        strings = Strings(transport)
        strings.put("address", value=strings.base)
        transport.run(10)
        with pytest.raises(ProtocolViolation, match=words):
            misdeed(strings)
            transport.run(100)
        with pytest.raises(ProtocolViolation):
            transport.read32(0)


def test_a_well_behaved_puppet_is_not_accused(libraries):
    with RtlTransport.from_library(libraries["puppet"], memory=SMALL, stalls=Stalls(everywhere=0.5)) as transport:
        strings = Strings(transport)
        strings.put("address", value=strings.base + 64)
        strings.put("data", value=0x1234)
        strings.put("burst", last=1)
        strings.put("valid", aw=1, w=1, r_ready=1, b_ready=1)
        strings.put("valid", ar=1, r_ready=1, b_ready=1)
        transport.run(200)
        assert transport.statistics["write_beats"] == transport.statistics["read_beats"] == 1
        assert transport._bytes[64:72].tolist() == [0x34, 0x12, 0, 0, 0, 0, 0, 0]


def test_waves_are_written(libraries, tmp_path):
    waves = tmp_path / "waves.vcd"
    with RtlTransport.from_library(libraries["puppet"], memory=SMALL, vcd=waves) as transport:
        transport.run(10)
    assert "m_axi_araddr" in waves.read_text()


def test_wrong_numbers_are_refused_in_words(libraries):
    with RtlTransport.from_library(libraries["axi4-64"], memory=SMALL) as transport:
        for call, words in [
            (lambda: transport.read32(2), "multiples of four"),
            (lambda: transport.write32(4096, 0), "below 4096"),
            (lambda: transport.write32(0, 1 << 32), "32 bits"),
            (lambda: transport.allocate(0), "at least one byte"),
            (lambda: transport.fault("x"), "There is no fault 'x'"),
        ]:
            with pytest.raises(ValueError, match=words):
                call()
    with pytest.raises(ValueError, match="There are no channels q"):
        Stalls(channels={"q": 0.5}).chances()
