"""The open flow for the Zynq-7020: what is around the core, the netlist that Yosys makes of it, and the check of that netlist."""

import copy
import json
import re

import pytest

from spikeloom.board.hwh import RANGE_BYTES
from spikeloom_hw.boards import area, openxc7
from spikeloom_hw.boards.area_units import cut
from spikeloom_hw.boards.boards import target
from spikeloom_hw.boards.openxc7_netlist import check_netlist, doubts
from spikeloom_hw.boards.yosys import YosysError, find
from spikeloom_hw.export import to_verilog

BOARD = target("pynq_z2")


def test_cores_that_do_not_fit_are_refused(hollow):
    with pytest.raises(ValueError, match=r"Memory ports of a Zynq-7000 speak AXI3, but m_axi of spikeloom_hollow speaks AXI4"):
        openxc7.Zynq7Top(BOARD, hollow(axi3=False).ports)
    with pytest.raises(ValueError, match="KV260 has no Zynq-7000"):
        openxc7.Zynq7Top(target("kv260"), hollow(axi3=True).ports)
    with pytest.raises(ValueError, match="has 5 managers; the board has 4 ports"):
        openxc7.Zynq7Top(BOARD, hollow(axi3=True, managers=tuple(f"m_axi{n}" for n in range(5))).ports)


def test_the_verilog_holds_processor_buffer_and_core(hollow):
    core = hollow(axi3=True, managers=("m_axi", "m_axi1"))
    text = to_verilog(openxc7.Zynq7Top(BOARD, core.ports), openxc7.TOP)
    assert f"module {openxc7.TOP}();" in text
    for cell in ("PS7 ps7 (", "BUFG clock_buffer (", f"{core.ports.module} core ("):
        assert text.count(cell) == 1
    for pin in ("SAXIHP0ARVALID", "SAXIHP2ARVALID", "MAXIGP0ACLK", "IRQF2P"):
        assert f".{pin}(" in text
    assert BOARD.board.base_address % RANGE_BYTES == 0


def test_commands_name_part_clock_and_files():
    text = openxc7.commands(BOARD, mhz=125.0, bit="spikeloom.bit")
    assert '"$database/xc7z020clg400-1/part.yaml"' in text
    for words in ("set -eu", "--freq 125 ", "--part xc7z020clg400-1 ", "--output_file spikeloom.bit"):
        assert words in text
    assert openxc7.constraints(125.0) == "create_clock -period 8.000 [get_nets {fclk[0]}]\n"


@pytest.fixture(scope="module")
def mapped(hollow, tmp_path_factory):
    """Folder, record and netlist of the hollow core, mapped by Yosys."""
    try:
        find()
    except YosysError:
        pytest.skip("pyosys: not installed here; make test-synth brings it")
    core = hollow(axi3=True, managers=("m_axi", "m_axi1"))
    folder = tmp_path_factory.mktemp("netlist")
    (folder / core.path.name).write_text(core.path.read_text())
    record = area.synthesise(BOARD.machine, core, folder, cache=folder / "units")
    return core, folder, record, json.loads((folder / f"{openxc7.TOP}.json").read_text())


@pytest.mark.slow
def test_yosys_makes_a_netlist_that_the_open_flow_takes(mapped):
    core, folder, record, netlist = mapped
    assert record["netlist"] == "checked" and check_netlist(netlist, BOARD, core.ports) == []
    assert record["cells"]["PS7"] == record["cells"]["BUFG"] == 1 and record["multipliers"] == 0
    assert record["lut"] == sum(part.get("lut", 0) for part in record["components"].values()) > 20
    # Ports of other widths than the primitive's would be cut or padded in silence.
    logs = list((folder / "units").glob("*/synth.log"))
    assert logs and not any("Resizing cell port" in log.read_text() for log in logs)
    cells = [cell["type"] for cell in netlist["modules"][openxc7.TOP]["cells"].values()]
    assert cells.count("FDRE") + cells.count("FDSE") == record["cells"]["FDRE"] + record["cells"].get("FDSE", 0)


@pytest.mark.slow
def test_what_was_mapped_once_is_not_mapped_again(mapped, monkeypatch):
    core, folder, record, _ = mapped
    monkeypatch.setattr(area.yosys.Yosys, "run", lambda *arguments, **options: pytest.fail("Yosys was called"))
    for unit in cut(core.path.read_text()):
        area.map_unit(find(), unit, "xc7", folder / "units", deadline_s=1)


#: What goes wrong, and what the check says.
FAULTS = {
    "two buffers": (lambda cells: cells.update(other=copy.deepcopy(cell_of(cells, "BUFG"))), "There must be one BUFG, there are 2."),
    "no processor": (lambda cells: drop(cells, "PS7"), "There must be one PS7, there are 0."),
    "a multiplier": (lambda cells: cells.update(m=bare("DSP48E1")), "1 DSP48E1"),
    "an unmapped cell": (lambda cells: cells.update(m=bare("$mux")), r"type \$mux were not mapped"),
    "an open net": (lambda cells: cell_of(cells, "FDRE")["connections"].update(D=[10 ** 6]), "driven by nothing"),
    "no memory clock": (lambda cells: pins(cells).update(SAXIHP0ACLK=["0"]), "SAXIHP0ACLK is not on the buffered clock"),
    "no register clock": (lambda cells: pins(cells).update(MAXIGP0ACLK=["0"]), "MAXIGP0ACLK is not on the buffered clock"),
    "another clock": (lambda cells: pins(cells)["FCLKCLK"].reverse(), "not fed by FCLKCLK"),
    "a valid that is stuck": (lambda cells: pins(cells).update(SAXIHP2ARVALID=["0"]), "SAXIHP2ARVALID is stuck at 0"),
    "a first port that cannot write": (lambda cells: pins(cells).update(SAXIHP0AWVALID=["0"]), "SAXIHP0AWVALID is stuck at 0"),
    "a second port that always writes": (lambda cells: pins(cells).update(SAXIHP2WVALID=["1"]), "SAXIHP2WVALID is stuck at 1"),
    "an answer that is missing": (lambda cells: pins(cells).pop("MAXIGP0RVALID"), "MAXIGP0RVALID is not connected"),
    "no interrupt": (lambda cells: pins(cells).update(IRQF2P=["0"] * 20), r"must drive IRQF2P\[0\]"),
    "an interrupt that floats": (lambda cells: pins(cells)["IRQF2P"].__setitem__(3, "x"), r"must drive IRQF2P\[0\]"),
    "a port that floats": (lambda cells: pins(cells).update(SAXIACPAWVALID=["x"]), "SAXIACPAWVALID must be zero"),
}


def bare(kind):
    return {"type": kind, "connections": {}, "port_directions": {}}


def cell_of(cells, kind):
    return next(cell for cell in cells.values() if cell["type"] == kind)


def pins(cells):
    return cell_of(cells, "PS7")["connections"]


def drop(cells, kind):
    cells.pop(next(name for name, cell in cells.items() if cell["type"] == kind))


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_netlist_is_caught(mapped, fault):
    core, _, _, netlist = mapped
    broken = copy.deepcopy(netlist)
    change, words = FAULTS[fault]
    change(broken["modules"][openxc7.TOP]["cells"])
    problems = check_netlist(broken, BOARD, core.ports)
    assert problems and any(re.search(words, problem) for problem in problems), problems


@pytest.mark.slow
def test_further_ports_need_not_write(mapped):
    core, _, _, netlist = mapped
    quiet = copy.deepcopy(netlist)
    pins(quiet["modules"][openxc7.TOP]["cells"]).update(SAXIHP2AWVALID=["0"], SAXIHP2WVALID=["0"])
    assert check_netlist(quiet, BOARD, core.ports) == []


@pytest.mark.slow
def test_a_netlist_of_another_top_or_with_pins_is_caught(mapped):
    core, _, _, netlist = mapped
    assert check_netlist({"modules": {}}, BOARD, core.ports) == [f"It has no module {openxc7.TOP}."]
    broken = copy.deepcopy(netlist)
    broken["modules"][openxc7.TOP]["ports"]["led"] = {}
    assert "The design has pins: led." in check_netlist(broken, BOARD, core.ports)


def test_doubtful_cells_are_named():
    cells = {"a": {"type": "RAM256X1S", "parameters": {}}, "b": {"type": "RAM64M", "parameters": {}},
             "c": {"type": "RAMB36E1", "parameters": {"READ_WIDTH_A": "1001", "WRITE_WIDTH_B": "100100"}},
             "d": {"type": "RAMB36E1", "parameters": {"READ_WIDTH_A": "10010"}}}
    found = doubts({"modules": {openxc7.TOP: {"cells": cells}}})
    assert found[0].startswith("1 RAM256X1S") and found[1].startswith("1 RAMB36E1 with ports of 1 or 9 bits") and len(found) == 2
