"""`boards.core`: ports as the Verilog has them, gathered into interfaces."""

from dataclasses import replace

import pytest

from spikeloom.arch.presets import preset
from spikeloom_hw.boards.core import CorePorts, export_core, verilog_hash
from spikeloom_hw.export import Port, port_list, verilog_file
from spikeloom_hw.lib.stream import Queue
from spikeloom_hw.shell import Shell
from spikeloom_hw.top import Top


def test_interfaces_are_those_of_the_verilog(hollow):
    core = hollow(axi3=True, managers=("m_axi", "m_axi1")).ports
    assert core.managers == ("m_axi", "m_axi1") and core.interfaces == ("s_axil", "m_axi", "m_axi1")
    assert core.signals("m_axi1")["awaddr"] == Port("m_axi1_awaddr", 32, "output")
    assert core.signals("s_axil")["rdata"] == Port("s_axil_rdata", 32, "output")
    assert core.is_axi3("m_axi") and not hollow(axi3=False).ports.is_axi3("m_axi")


def test_a_port_that_no_board_connects_is_refused(hollow):
    core = hollow(axi3=True).ports
    with pytest.raises(ValueError, match=r"Boards connect aclk, aresetn, irq; .* has aclk, aresetn, irq, lamp\."):
        CorePorts(core.module, (*core.ports, Port("lamp", 1, "output")))
    with pytest.raises(ValueError, match=r"at least one that begins with m_axi"):
        CorePorts(core.module, tuple(port for port in core.ports if not port.name.startswith("m_axi")))


@pytest.mark.slow
def test_the_exported_core_has_the_ports_of_its_signature(tmp_path):
    cfg = replace(preset("tiny"), axi3=True, address_width=32)
    exported = export_core(cfg, tmp_path)
    assert set(exported.ports.ports) == set(port_list(Shell(Top(cfg))))
    assert exported.ports.managers[0] == "m_axi"


def test_the_hash_is_of_the_gates_alone():
    one, other = (verilog_file(Shell(Queue(8, depth=2)), "it", about=about) for about in ("One machine.", "Another."))
    assert one != other and verilog_hash(one) == verilog_hash(other)
    assert verilog_hash(one.replace("module", "moduel")) != verilog_hash(one)
