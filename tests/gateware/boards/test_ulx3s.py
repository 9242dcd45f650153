"""`boards.ulx3s`: its top, its pins, its clock, and what the flow makes of the tools' words."""

import json
import lzma
import re
import sys
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest

from spikeloom.arch.manifest import read_manifest
from spikeloom.arch.presets import preset
from spikeloom.driver.uart import BAUD
from spikeloom_hw.boards import build as boards_build
from spikeloom_hw.boards import running, status, yosys
from spikeloom_hw.boards import ulx3s_build as build
from spikeloom_hw.boards import ulx3s_tools as tools
from spikeloom_hw.boards.serial_core import SerialCore
from spikeloom_hw.boards.ulx3s import PINS, PllDividers, Ulx3s, constraints
from spikeloom_hw.export import port_list, to_verilog


def test_every_port_has_its_pins_and_no_pin_two_ports():
    ports = {port.name: port.width for port in port_list(Ulx3s(preset("ulx3s"), baud=BAUD))}
    assert ports == {name: len(pins) for name, (pins, _) in PINS.items()}
    sites = re.findall(r'^LOCATE COMP "(\S+)" SITE "(\w+)";$', constraints(), re.MULTILINE)
    assert len(sites) == sum(ports.values()) == len({site for _, site in sites}) == len({port for port, _ in sites})
    assert 'FREQUENCY PORT "clk_25mhz" 25 MHZ;' in constraints()


@pytest.mark.parametrize("mhz", [10, 25, 45, 50, 62.5, 100, 125])
def test_the_clock_is_exact_and_the_oscillator_in_its_range(mhz):
    dividers = PllDividers.of(mhz)
    assert 25 * dividers.feedback / dividers.input == mhz and 400 <= mhz * dividers.output <= 800


def test_a_clock_that_cannot_be_made_is_refused():
    with pytest.raises(ValueError, match="cannot make 51.3 MHz"):
        PllDividers.of(51.3)


def test_the_preset_is_one_the_link_can_serve():
    cfg = preset("ulx3s")
    assert cfg.address_width <= 32 and cfg.data_width == 64 and not cfg.axi3
    with pytest.raises(ValueError, match="AXI3"):
        SerialCore(preset("pynq_z2"), clock_hz=50e6, baud=BAUD)


def hop(kind, delay, cell, port="Z"):
    return {"type": kind, "delay": delay, "from": {"cell": "any", "loc": [1, 1], "port": "Q"},
            "to": {"cell": cell, "loc": [2, 1], "port": port}}


CLOCK = "$glbnet$clk_TRELLIS_IO"
REPORT = {
    "critical_paths": [
        {"from": f"posedge {CLOCK}", "to": f"posedge {CLOCK}", "path": [
            hop("clk-to-q", 0.5, "core.core.core.program.part0.0.1"), hop("routing", 2.0, "core.core.core.rows.sum_LUT4_Z"),
            hop("logic", 0.25, "core.core.core.rows.sum_LUT4_Z"), hop("logic", 0.0, "core.core.core.rows.sum_CCU2C_S1$CCU2_COMB1"),
            hop("routing", 1.0, "core.core.core.engine$12.pe0_1.x_TRELLIS_FF_Q"),
            hop("setup", 0.0, "core.core.core.engine$12.pe0_1.x_TRELLIS_FF_Q")]},
        {"from": f"posedge {CLOCK}", "to": "<async>", "path": [hop("clk-to-q", 99.0, "led_TRELLIS_FF_Q")]},
    ],
    "fmax": {CLOCK: {"achieved": 61.234, "constraint": 50.0}},
    "utilization": {"DP16KD": {"available": 208, "used": 201}, "TRELLIS_COMB": {"available": 83640, "used": 7}, "DCCA": {"used": 1}},
}


def test_the_routers_report():
    routed = tools.read_report(json.dumps(REPORT))
    assert routed.core_mhz == 61.23 and routed.meets and routed.used == {"DP16KD": 201, "TRELLIS_COMB": 7}
    assert tools.describe_path(routed.paths[0]) == {
        "delay_ns": 3.75, "wire_ns": 3.0, "cells": 1, "from": "core.core.core.program.part0.0.1",
        "to": "core.core.core.engine$12.pe0_1.x_TRELLIS_FF_Q", "through": ["program 0.5", "rows 2.2", "engine 1.0"]}
    assert len(routed.paths) == 1, "a path to a pin is none of the core's"
    slow = REPORT | {"fmax": {CLOCK: {"achieved": 49.9, "constraint": 50.0}}}
    assert not tools.read_report(json.dumps(slow)).meets


@pytest.mark.parametrize("cell, component", [
    ("core.core.core.attention.winner_tree.tree_1.x_LUT4_Z", "attention"), ("core.link.host.sequence_TRELLIS_FF_Q", "link"),
    ("command_TRELLIS_FF_Q_3", "command"), ("core.core.core.job$12.dst_LUT4_Z", "job")])
def test_cells_belong_to_components(cell, component):
    assert tools.component_of(cell) == component


def test_a_missing_tool_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(tools.FlowError, match=r"no nextpnr-ecp5 here; get one with: pip install .*ecp5\]"):
        tools.program("nextpnr-ecp5")


def test_a_tool_that_fails_or_takes_too_long_says_so(tmp_path):
    script = "print('INFO: well'); print('ERROR: too many cells'); raise SystemExit(1)"
    with pytest.raises(tools.FlowError, match="ERROR: too many cells; its log is"):
        tools.run([sys.executable, "-c", script], tmp_path / "log", tools.Deadline(60), folder=tmp_path)
    with pytest.raises(tools.FlowError, match="did not end in time: 0 s .* --deadline"):
        tools.run([sys.executable, "-c", "import time; time.sleep(30)"], tmp_path / "log", tools.Deadline(0), folder=tmp_path)


def test_memories_that_only_a_load_writes_are_known_by_their_names():
    top = Ulx3s(replace(preset("tiny"), address_width=32), baud=BAUD)
    modules = dict(re.findall(r"^module \\?(\S+) \((.*?)^endmodule", to_verilog(top, "top"), re.MULTILINE | re.DOTALL))
    for pattern in tools.LOADED:
        holders = [name for name in modules if fnmatchcase(name, pattern.removesuffix("/m:*"))]
        assert len(holders) == 1 and re.search(r"^  reg \[\d+:0\] \w+ \[\d+:0\];$", modules[holders[0]], re.MULTILINE), pattern


class Tools:
    """Stands for Yosys, nextpnr and ecppack."""

    version = "0.70"

    def __init__(self, mhz=(60.0,), slow=()):
        self.mhz, self.slow, self.calls = list(mhz), slow, []

    def run(self, script, folder, *, name, deadline_s, say):
        self.calls.append("map")
        if "map" in self.slow:
            raise yosys.YosysError("Yosys stopped") from running.TookTooLong()
        (folder / "cells.json").write_text(json.dumps({"modules": {f"\\{build.TOP}": {"num_cells_by_type": {"DP16KD": 201, "LUT4": 9}}}}))
        (folder / "netlist.json").write_text("{}")

    def route(self, folder, constraints, deadline, *, seed, say):
        self.calls.append(f"route {seed}")
        if "route" in self.slow and seed == self.slow[-1]:
            raise tools.out_of_time("nextpnr-ecp5", deadline, folder / "route.log")
        (folder / "route.log").write_text(f"routed with {sys.prefix}/bin/nextpnr-ecp5")
        mhz = self.mhz[seed - 1]
        return tools.Routed(fmax={"clk": mhz}, wanted={"clk": 50.0}, used={"DP16KD": 201, "TRELLIS_COMB": 41820})

    def pack(self, folder, deadline, *, name):
        self.calls.append("pack")
        (folder / name).write_bytes(b"bits")
        return folder / name


@pytest.fixture
def flow(monkeypatch, tmp_path):
    """flow(Tools, *options) -> exit code of `make bitstream BOARD=ulx3s`, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build, "board_verilog", lambda cfg: "module top();")

    def run(stand_in, *options):
        monkeypatch.setattr(tools.yosys, "find", lambda: stand_in)
        monkeypatch.setattr(tools, "place_and_route", stand_in.route)
        monkeypatch.setattr(tools, "pack", stand_in.pack)
        return boards_build.main(["ulx3s", "--toolchain", "vivado", *options])
    return run


def test_the_flow_leaves_bitstream_manifest_log_and_note(flow, tmp_path):
    stand_in = Tools(mhz=(49.9, 51.5))
    assert flow(stand_in) == 0 and stand_in.calls == ["map", "route 1", "route 2", "pack"]
    output = tmp_path / "bitstreams" / "ulx3s"
    assert {path.name for path in output.iterdir()} == {"spikeloom.bit", "manifest.json", "pins.lpf", "route.log.xz"}
    assert lzma.decompress((output / "route.log.xz").read_bytes()) == b"routed with VENV/bin/nextpnr-ecp5"
    made = json.loads((output / "manifest.json").read_text())["build"]
    assert (made["fmax_mhz"], made["seed"], made["label"], made["used"]["TRELLIS_COMB"]["fraction"]) == (51.5, 2, "[route]", 0.5)
    assert read_manifest(output / "manifest.json") == preset("ulx3s")
    assert status.read()["ulx3s"]["verilog"] == {"value": "yes", "of": made["verilog_sha256"]}
    again = Tools()
    assert flow(again) == 0 and again.calls == ["route 1", "pack"], "the same Verilog is not mapped twice"
    assert flow(Tools(), "--check") == 0


def test_a_flow_without_enough_time_stops_in_words_and_leaves_nothing(flow, tmp_path, capsys):
    assert flow(Tools(slow=("map",)), "--deadline", "7") == 1
    assert "Yosys did not end in time: 7 s for all steps; its log is" in capsys.readouterr().err
    assert flow(Tools(slow=("route", 1)), "--deadline", "7") == 1
    assert "nextpnr-ecp5 did not end in time: 7 s" in capsys.readouterr().err
    assert flow(Tools(slow=("route", 1)), "--deadline", "7", "--may-be-late") == 0
    assert "did not end in time: 7 s" in (said := capsys.readouterr().err) and "no bitstream was made" in said
    assert flow(Tools(mhz=(40.0,), slow=("route", 2))) == 1
    wanted = f"{preset('ulx3s').clock_mhz:g} MHz were missed"
    assert f"{wanted} (seed 1: 40 MHz)." in capsys.readouterr().err
    assert flow(Tools(mhz=(40.0, 41.0, 42.0)), "--may-be-late") == 1
    assert f"{wanted} (seed 1: 40 MHz, seed 2: 41 MHz, seed 3: 42 MHz). Lower clock_mhz" in capsys.readouterr().err
    assert not (tmp_path / "bitstreams").exists()
    assert flow(Tools(), "--check") == 4
