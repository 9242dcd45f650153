"""A core without gates, with the faces of the real one."""

import functools

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from spikeloom_hw.boards.core import CorePorts, ExportedCore, module_ports, verilog_hash
from spikeloom_hw.bus.axi import AxiLiteSignature, AxiSignature
from spikeloom_hw.export import to_verilog
from spikeloom_hw.shell import Shell

MODULE = "spikeloom_hollow"


class Hollow(wiring.Component):
    """Echoes what it is given, one cycle late, so that no port is constant."""

    def __init__(self, *, managers, **bus):
        self.managers = managers
        super().__init__({"s_axil": In(AxiLiteSignature(address_width=12)), "irq": Out(1)} |
                         {name: Out(AxiSignature(**bus)) for name in managers})

    def elaborate(self, platform):
        m = Module()
        seed = self.s_axil.wdata ^ self.s_axil.araddr ^ self.s_axil.awaddr ^ self.s_axil.awvalid
        for name in (*self.managers, "s_axil"):
            bus = getattr(self, name)
            for member, value in bus.signature.members.items():
                if value.flow is Out:
                    m.d.sync += getattr(bus, member).eq(seed ^ self.s_axil.arvalid)
        heard = [getattr(self, name).rdata.xor() ^ getattr(self, name).rvalid ^ getattr(self, name).awready for name in self.managers]
        m.d.sync += self.irq.eq(sum(heard)[0] ^ self.s_axil.wstrb.xor())
        return m


@pytest.fixture(scope="session")
def hollow(tmp_path_factory):
    """Exports hollow cores: hollow(axi3=..., managers=(...,), data_width=...); equal ones once."""
    @functools.cache
    def export(*, axi3, managers=("m_axi",), data_width=64):
        core = Hollow(managers=managers, axi3=axi3, data_width=data_width, address_width=32 if axi3 else 40)
        text = to_verilog(Shell(core), MODULE)
        path = tmp_path_factory.mktemp("hollow") / f"{MODULE}.v"
        path.write_text(text, encoding="utf-8")
        return ExportedCore(path, verilog_hash(text), CorePorts(MODULE, tuple(module_ports(text, MODULE))))
    return export
