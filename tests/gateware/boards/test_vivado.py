"""The Vivado scripts against the model: all boards pass, and a script that is changed for the worse does not."""

import shutil

import pytest

from spikeloom_hw.boards import vivado, vivado_tcl
from spikeloom_hw.boards.boards import TARGETS, target
from spikeloom_hw.boards.vivado_tcl import TclError

SCRIPTS = ("vivado_build.tcl", "vivado_package.tcl", "vivado_design.tcl", "vivado_implement.tcl")


def has_tcl():
    try:
        import tkinter  # noqa: F401
    except ImportError:
        return shutil.which("tclsh") is not None
    return True


pytestmark = pytest.mark.skipif(not has_tcl(), reason="tcl: neither tclsh nor Python's tkinter is here; for example: apt install tcl")


@pytest.fixture
def prepared(tmp_path, hollow):
    """Settings of a board for a hollow core, and a copy of the scripts that a test may change."""
    def prepare(name, *changes, managers=("m_axi",), **more):
        board = target(name)
        core = hollow(axi3=board.board.zynq7, managers=managers, data_width=64 if board.board.zynq7 else 128)
        scripts = tmp_path / "scripts with blanks"
        scripts.mkdir()
        for script in SCRIPTS:
            text = (vivado.SCRIPTS / script).read_text()
            for where, old, new in changes:
                if where in script:
                    assert old in text, f"{script} has no {old!r}"
                    text = text.replace(old, new)
            (scripts / script).write_text(text)
        folders = vivado.Folders(tmp_path / "work", tmp_path / "output")
        folders.reports.mkdir(parents=True)
        values = vivado.settings(board, board.machine, core, folders, scripts=scripts) | more
        vivado.write_settings(values, tmp_path / "settings.tcl")
        return tmp_path / "settings.tcl", values, core
    return prepare


@pytest.mark.parametrize("name", TARGETS)
def test_the_scripts_hold_for_every_board(prepared, name):
    vivado.audit(*prepared(name))


@pytest.mark.parametrize("name", ["pynq_z2", "kv260"])
def test_more_managers_take_ports_of_their_own(prepared, name):
    arguments = prepared(name, managers=("m_axi", "m_axi1", "m_axi2"))
    vivado.audit(*arguments)
    model = vivado.check(*arguments)
    ports = {end for path, end in model.joined.items() if "S_AXI_HP" in end}
    assert ports == {f"ps/{port}" for port in TARGETS[name].memory_ports[:3]}


@pytest.mark.parametrize("name", ["pynq_z2", "kv260"])
def test_the_tcl_of_tkinter_serves_too(prepared, name, monkeypatch):
    pytest.importorskip("tkinter")
    monkeypatch.setattr(vivado_tcl.shutil, "which", lambda program: None)
    vivado.audit(*prepared(name))


def test_the_tcl_of_tkinter_finds_faults_too(prepared, monkeypatch):
    pytest.importorskip("tkinter")
    monkeypatch.setattr(vivado_tcl.shutil, "which", lambda program: None)
    with pytest.raises(TclError, match="there is no cell nothing"):
        vivado.audit(*prepared("pynq_z2", ("design", "proc_sys_reset_0/peripheral_aresetn", "nothing/peripheral_aresetn")))


#: Board, script, what stands there, what it becomes, what the check says about it.
MUTATIONS = [
    ("pynq_z2", "design", "save_bd_design", "save_bd_desing", 'invalid command name "save_bd_desing"'),
    ("pynq_z2", "design", "validate_bd_design\n", "", "the design was not validated"),
    ("pynq_z2", "design", " smartconnect_0/aclk", " smartconnect_0/aclk0", "smartconnect_0 has no pin aclk0"),
    ("pynq_z2", "design", " axi_intc_0/s_axi_aclk", "", "axi_intc_0/s_axi_aclk is not connected"),
    ("pynq_z2", "design", " $cell/$clock", "", "spikeloom_0/aclk is not connected"),
    ("pynq_z2", "design", "{*}$memory_clocks", "", "ps/S_AXI_HP0_ACLK is not connected"),
    ("kv260", "design", "{*}$memory_clocks", "", "ps/saxihp0_fpd_aclk is not connected"),
    ("pynq_z2", "design", "[list $cell/$reset", "[list", "spikeloom_0/aresetn is not connected"),
    ("kv260", "design", "lappend resettable smartconnect_$number/aresetn", "", "smartconnect_1/aresetn is not connected"),
    ("pynq_z2", "design", "get_bd_pins proc_sys_reset_0/peripheral_aresetn", "get_bd_pins $rstn", "is not synchronised"),
    ("pynq_z2", "design", "[get_bd_pins $clk] [get_bd_pins $pin]", "[get_bd_pins $rstn] [get_bd_pins $pin]", "is a reset, .* a clock"),
    ("pynq_z2", "design", "[get_bd_pins $rstn] [get_bd_pins proc", "[get_bd_pins $clk] [get_bd_pins proc", "is a clock, .* a reset"),
    ("pynq_z2", "design", "connect_bd_net [get_bd_pins $cell/$interrupt] [get_bd_pins axi_intc_0/intr]\n", "",
     "drives nothing|intr is not connected"),
    ("pynq_z2", "design", "connect_bd_net [get_bd_pins axi_intc_0/irq] [get_bd_pins $irq]\n", "", "is not connected|drives nothing"),
    ("pynq_z2", "design", "CONFIG.C_IRQ_CONNECTION {1}", "CONFIG.C_IRQ_CONNECTION {0}", "axi_intc_0 has no pin irq"),
    ("pynq_z2", "design", "CONFIG.PCW_IRQ_F2P_INTR {1}", "CONFIG.PCW_IRQ_F2P_INTR {0}", "ps has no pin IRQ_F2P"),
    ("pynq_z2", "design", "CONFIG.PCW_USE_S_AXI_HP", "CONFIG.PCW_USE_S_AXI_HPX", "processing_system7 has no setting"),
    ("pynq_z2", "design", "_DATA_WIDTH $data_width", "_DATA_WIDTH 32", "differ: .* bits"),
    ("kv260", "design", "$number + 2", "$number + 3", "ps has no pin saxihp0_fpd_aclk|ps has no interface S_AXI_HP0_FPD"),
    ("kv260", "design", "CONFIG.PSU__USE__M_AXI_GP1 {0}", "CONFIG.PSU__USE__M_AXI_GP1 {1}", "maxihpm1_fpd_aclk is not connected"),
    ("kv260", "design", "CONFIG.PSU__USE__IRQ0 {1}", "CONFIG.PSU__USE__IRQ0 {0}", "ps has no pin pl_ps_irq0"),
    ("kv260", "design", "set_property board_part", "set_property bord_part", "no property bord_part"),
    ("pynq_z2", "design", "PCW_FPGA0_PERIPHERAL_FREQMHZ $clock_mhz", "PCW_FPGA0_PERIPHERAL_FREQMHZ 50",
     "clock is 50 MHz, the machine's 125 MHz"),
    ("pynq_z2", "design", "smartconnect_0/M00_AXI] [get_bd_intf_pins $cell/$registers]",
     "smartconnect_0/M01_AXI] [get_bd_intf_pins $cell/$registers]",
     "connected already"),
    ("pynq_z2", "design", "CONFIG.NUM_MI {2}", "CONFIG.NUM_MI {3}", "smartconnect_0/M02_AXI is not connected"),
    ("pynq_z2", "design", "[get_bd_intf_pins $cell/$bus] [get_bd_intf_pins $ps/$port]",
     "[get_bd_intf_pins $ps/$port] [get_bd_intf_pins $ps/$port]",
     "are not two sides"),
    ("pynq_z2", "design", "-offset $base_address", "-offset 0x43c00000", "software looks at 0x40000000"),
    ("pynq_z2", "design", "-offset $interrupt_address", "-offset $base_address", "overlaps"),
    ("pynq_z2", "design", "assign_bd_address\n", "", "memory has no addresses"),
    ("pynq_z2", "design", "axi_intc_0/S_AXI/Reg", "axi_intc_0/S_AXI/reg", "no address segment"),
    ("pynq_z2", "design", 'make_external "FIXED_IO, DDR"', 'make_external "DDR"', "unexpected configuration"),
    ("pynq_z2", "design", "update_ip_catalog\n", "", "the catalogue has no spikeloom:user:spikeloom:1.0"),
    ("pynq_z2", "package", "    ipx::associate_bus_interfaces -busif $bus -clock $clock $core\n", "", "s_axil has no clock"),
    ("pynq_z2", "package", "ipx::associate_bus_interfaces -clock $clock -reset $reset $core\n", "", "aclk has no reset"),
    ("pynq_z2", "package", "POLARITY ACTIVE_LOW", "POLARITY ACTIVE_HIGH", "POLARITY of aresetn must be ACTIVE_LOW"),
    ("pynq_z2", "package", "set_bus_parameter $interrupt SENSITIVITY LEVEL_HIGH\n", "", "SENSITIVITY of irq"),
    ("pynq_z2", "package", "set_bus_parameter $bus PROTOCOL $protocol", "set_bus_parameter $bus PROTOCOL AXI4",
     "PROTOCOL of m_axi must be AXI3"),
    ("pynq_z2", "package", "ipx::update_checksums $core\n", "", "checksums and integrity come first"),
    ("pynq_z2", "package", "ipx::save_core $core\n", "", "holds no component.xml"),
    ("pynq_z2", "package", "set_property name $name", "set_property nam $name", "no property nam"),
    ("pynq_z2", "package", "-import_files", "-import_file", "unknown option -import_file"),
    ("pynq_z2", "package", "set_property top $top", "set_property top other", "there is no module other"),
    ("pynq_z2", "package", "    ipx::remove_bus_parameter FREQ_HZ $interface\n", "", "the clock has a frequency of its own"),
    ("pynq_z2", "package", "        ipx::infer_bus_interface [dict get", "        list [dict get", "is no aximm|there is no interface"),
    ("pynq_z2", "package", "close_project\n", "", "project package is still open"),
    ("pynq_z2", "implement", "$setup < 0", "$setup < -1", "make a bitstream although Vivado says: misses its clock"),
    ("pynq_z2", "implement", "|| $hold < 0", "", "make a bitstream although Vivado says: misses its clock"),
    ("pynq_z2", "implement", 'ne "100%"', 'eq "0%"', "is not complete"),
    ("pynq_z2", "implement", "finish impl_1 write_bitstream\n", "wait_on_run impl_1\n", "there is no bitstream yet"),
    ("pynq_z2", "implement", "set hold [get_property STATS.WHS [get_runs impl_1]]", "set hold 0",
     "before setup, hold and pulse slack were read"),
    ("pynq_z2", "implement", "-to_step route_design", "-to_step route", "no step route"),
    ("pynq_z2", "implement", "hw_handoff $design.hwh] $hwh_file", "hwh $design.hwh] $hwh_file", "does not exist"),
    ("pynq_z2", "implement", "$design.hwh] $hwh_file", "$design.hwh] $bit_file", "without bitstream and description in place"),
    ("pynq_z2", "implement", "set_property top ${design}_wrapper [current_fileset]\n", "", "the top is not the design's wrapper"),
    ("pynq_z2", "build", "< 0} {", "< -1} {", "make a bitstream although Vivado says: 2019.1"),
    ("kv260", "design", 'error "Vivado has no board definition', 'puts "Vivado has no board definition', "Instead of 'board definition'"),
]


@pytest.mark.parametrize("name, script, old, new, words", MUTATIONS, ids=[f"{m[1]}-{number}" for number, m in enumerate(MUTATIONS)])
def test_a_script_changed_for_the_worse_is_caught(prepared, name, script, old, new, words):
    with pytest.raises(TclError, match=words):
        vivado.audit(*prepared(name, (script, old, new)))


def test_settings_that_fit_no_board_are_refused(hollow, tmp_path):
    folders = vivado.Folders(tmp_path, tmp_path)
    with pytest.raises(ValueError, match=r"speak AXI3: machine 'pynq_z2' needs axi3=True"):
        vivado.settings(target("pynq_z2"), target("pynq_z2").machine, hollow(axi3=False), folders)
    with pytest.raises(ValueError, match=r"has 5 managers; KV260 has 4 memory ports"):
        managers = tuple(f"m_axi{n}" for n in range(5))
        vivado.settings(target("kv260"), target("kv260").machine, hollow(axi3=False, managers=managers), folders)
    bad = vivado.settings(target("kv260"), target("kv260").machine, hollow(axi3=False), vivado.Folders(tmp_path / "{", tmp_path))
    with pytest.raises(ValueError, match="holds a brace"):
        vivado.write_settings(bad, tmp_path / "settings.tcl")


def fake_vivado(folder, body):
    """A program of that name."""
    path = folder / "vivado"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("version, remark", [("2020.2", ""), ("2025.2", ""), ("2026.1", "newer than 2025.2")])
def test_versions_are_judged_in_words(tmp_path, version, remark):
    assert vivado.version_of(fake_vivado(tmp_path, f"echo 'Vivado v{version} (64-bit)'")) == version
    assert remark in vivado.judge(version) and bool(vivado.judge(version)) == bool(remark)


def test_a_version_too_old_or_none_is_refused(tmp_path):
    with pytest.raises(vivado.VivadoError, match=r"^Vivado 2019\.2 is too old: the scripts need 2020\.2 or newer\.$"):
        vivado.judge("2019.2")
    with pytest.raises(vivado.VivadoError, match="does not say which Vivado it is: hello"):
        vivado.version_of(fake_vivado(tmp_path, "echo hello"))


def test_the_last_error_of_vivado_is_passed_on(tmp_path):
    program = fake_vivado(tmp_path, "while [ $1 != -log ]; do shift; done; echo 'ERROR: [Common 17] no licence' > $2; exit 1")
    with pytest.raises(vivado.VivadoError, match=r"^ERROR: \[Common 17\] no licence \(log: .*vivado\.log\)$"):
        vivado.implement(program, tmp_path / "settings.tcl", vivado.Folders(tmp_path, tmp_path))


REPORT = """
| Site Type               |  Used | Fixed | Prohibited | Available | Util% |
| {slice} LUTs*           | 21034 |     0 |          0 |     53200 | 39.54 |
| {slice} Registers       | 18211 |     0 |          0 |    106400 | 17.12 |
| Block RAM Tile |  118.5 |     0 |          0 |       140 | 84.64 |
| DSPs           |    0 |     0 |          0 |       220 |  0.00 |
"""


@pytest.mark.parametrize("slice", ["Slice", "CLB"])
def test_reports_are_read(tmp_path, slice):
    (tmp_path / "timing.txt").write_text("setup 0.112\nhold 0.03\npulse 0.0\nclock_mhz 125\nvivado 2022.1\n")
    with pytest.raises(vivado.VivadoError, match=r"Vivado left no report .*utilization\.rpt"):
        vivado.read_reports(tmp_path)
    (tmp_path / "utilization.rpt").write_text(REPORT.format(slice=slice))
    assert vivado.read_reports(tmp_path) == {"setup": 0.112, "hold": 0.03, "pulse": 0.0, "clock_mhz": 125.0, "vivado": "2022.1",
                                             "lut": 21034.0, "ff": 18211.0, "bram": 118.5, "dsp": 0.0}
    (tmp_path / "utilization.rpt").write_text("nothing")
    with pytest.raises(vivado.VivadoError, match="has no row for lut"):
        vivado.read_reports(tmp_path)
