"""`shell` and `export`: clock, reset and names as Vivado's inference expects them."""

import re

import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from spikeloom_hw.bus.axi import AxiLiteSignature, AxiSignature
from spikeloom_hw.export import Port, port_list, to_verilog
from spikeloom_hw.shell import Shell


class Counter(wiring.Component):
    step: In(4)
    count: Out(8, init=3)
    o: Out(stream.Signature(8))

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.count.eq(self.count + self.step)
        return m


def test_reset_is_active_low_and_two_cycles_late():
    dut = Shell(Counter())
    seen = []

    async def bench(ctx):
        ctx.set(dut.step, 1)
        for cycle in range(14):
            ctx.set(dut.aresetn, 4 <= cycle < 9)
            seen.append(ctx.get(dut.count))
            ctx.set(dut.aclk, 1)
            await ctx.delay(5e-9)
            ctx.set(dut.aclk, 0)
            await ctx.delay(5e-9)

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()
    # Edge n acts between seen[n] and seen[n + 1]; the core is out of reset for edges 6 to 10.
    assert seen == [3, 3, 3, 3, 3, 3, 3, 4, 5, 6, 7, 8, 3, 3]


def test_names_are_flat_with_single_underscores():
    ports = port_list(Shell(Counter()))
    assert ports == [Port("aclk", 1, "input"), Port("aresetn", 1, "input"), Port("step", 4, "input"), Port("count", 8, "output"),
                     Port("o_payload", 8, "output"), Port("o_valid", 1, "output"), Port("o_ready", 1, "input")]
    text = to_verilog(Shell(Counter()), "counter")
    header = re.search(r"module counter\(([^)]*)\)", text)[1]
    assert {name.strip() for name in header.split(",")} == {port.name for port in ports}


def test_a_core_may_not_have_a_clock_of_that_name():
    with pytest.raises(ValueError, match=r"^The core already has a port named aclk\.$"):
        Shell(wiring.Component({"aclk": In(1)}))


def test_ports_of_no_bits_are_refused():
    with pytest.raises(ValueError, match=r"^Ports of no bits cannot be exported: nothing\."):
        port_list(wiring.Component({"nothing": In(0)}))


def test_colliding_names_are_refused():
    with pytest.raises(ValueError, match="flatten to the same port name: o_valid"):
        port_list(wiring.Component({"o": Out(stream.Signature(1)), "o_valid": Out(1)}))


@pytest.mark.parametrize("axi3, widths", [(False, {"awlen": 8, "awlock": 1}), (True, {"awlen": 4, "awlock": 2, "wid": 1, "arlen": 4})])
def test_axi_widths(axi3, widths):
    members = AxiSignature(address_width=32, data_width=64, axi3=axi3).members
    for name, width in widths.items():
        assert members[name].shape == width
    assert ("wid" in members) == axi3
    assert members["wstrb"].shape == 8 and members["rdata"].flow is In and members["rready"].flow is Out


def test_axi_halves_and_equality():
    whole = AxiSignature(address_width=32, data_width=64)
    read = AxiSignature(address_width=32, data_width=64, write=False)
    assert set(read.members) < set(whole.members) and not any(name.startswith(("aw", "w", "b")) for name in read.members)
    assert whole == AxiSignature(address_width=32, data_width=64) != read
    assert AxiLiteSignature(address_width=12) == AxiLiteSignature(address_width=12) != AxiLiteSignature(address_width=13)
    with pytest.raises(ValueError, match="data_width is 63"):
        AxiSignature(address_width=32, data_width=63)
