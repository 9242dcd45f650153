"""`boards.area` and `area_units`: what is counted, what is mapped again, and when figures are stale."""

import json
from importlib import metadata
from types import SimpleNamespace

import pytest

from spikeloom_hw.boards import area, area_units, yosys
from spikeloom_hw.boards.boards import TARGETS

#: As Yosys writes it: a top, its core, two parts, and an element that is there five times under two names.
VERILOG = """module it(aclk, o);
  input aclk;
  wire aclk;
  output [3:0] o;
  wire [3:0] o;
  \\it.core  core (
    .o(o)
  );
endmodule

module \\it.core (o);
  output [3:0] o;
  wire [3:0] o;
  \\it.core.left$12  left (
    .o(o[0])
  );
  \\it.core.right  right (
    .o(o[1])
  );
endmodule

module \\it.core.left$12 (o);
  output o;
  reg \\$auto$verilog_backend.cc:2355:dump_module$7  = 0;
  \\it.core.left$12.cell_0  a (
    .o(o)
  );
  \\it.core.left$12.cell_1  b (
    .o(o)
  );
endmodule

module \\it.core.left$12.cell_0 (o);
  output o;
  reg \\$auto$verilog_backend.cc:2355:dump_module$8  = 0;
endmodule

module \\it.core.left$12.cell_1 (o);
  output o;
  reg \\$auto$verilog_backend.cc:2355:dump_module$9  = 0;
endmodule

module \\it.core.right (o);
  output o;
  \\it.core.right.cell_0  a (
    .o(o)
  );
endmodule

module \\it.core.right.cell_0 (o);
  output o;
  assign o = 1'b1;
endmodule
"""


def with_more_cells(number):
    """The Verilog above with further equal cells."""
    text, instances = VERILOG, ""
    cell = VERILOG[VERILOG.index("module \\it.core.left$12.cell_1"):VERILOG.index("module \\it.core.right")]
    for index in range(2, number):
        text += cell.replace("cell_1", f"cell_{index}")
        instances += f"  \\it.core.left$12.cell_{index}  c{index} (\n    .o(o)\n  );\n"
    return text.replace("  \\it.core.left$12.cell_1  b (", instances + "  \\it.core.left$12.cell_1  b (")


def test_units_are_the_parts_of_the_core():
    units = area_units.cut(VERILOG)
    assert [unit.name for unit in units] == ["left", "right", "top"]
    assert units[0].text.count("endmodule") == 2  # itself and the cell, once for both
    assert units[0].text.count("\\it.core.left$12.cell_0  ") == 2
    assert units[2].text.count("endmodule") == 2 and units[2].stubs.count("blackbox") == 2
    assert "output o;" in units[2].stubs and "cell_0" not in units[2].stubs


def test_what_is_there_often_is_a_unit():
    units = area_units.cut(with_more_cells(5))
    assert [unit.name for unit in units] == ["left.cell_0", "left", "right", "top"]
    assert units[1].text.count("\\it.core.left$12.cell_0  ") == 5 and units[1].stubs.count("endmodule") == 1


def test_a_unit_is_mapped_again_only_when_it_changed():
    def keys(text):
        return {unit.name: unit.key("script") for unit in area_units.cut(text)}
    before = keys(VERILOG)
    assert keys(VERILOG.replace("dump_module$7", "dump_module$70")) == before
    changed = keys(VERILOG.replace("assign o = 1'b1", "assign o = 1'b0"))
    assert {name for name in before if before[name] != changed[name]} == {"right"}
    ports = keys(VERILOG.replace("module \\it.core.right (o);\n  output o;", "module \\it.core.right (o);\n  output [1:0] o;"))
    assert {name for name in before if before[name] != ports[name]} == {"right", "top"}
    assert area_units.cut(VERILOG)[0].key("other script") != before["left"]


def test_costs():
    total = area.cost({"LUT6": 3, "INV": 1, "RAM64M": 2, "SRLC32E": 1, "FDRE": 5, "RAMB18E1": 1, "RAMB36E1": 2, "DSP48E1": 1, "CARRY4": 9})
    assert total == {"lut": 13, "lut_memory": 9, "ff": 5, "bram": 2.5, "uram": 0, "dsp": 1}
    with pytest.raises(ValueError, match="type RAM1024X1D, whose size is not known"):
        area.cost({"RAM1024X1D": 1})


@pytest.mark.parametrize("cells, tables", [
    ({"LUT6": 3}, 3), ({"LUT5": 2, "INV": 1, "LUT1": 2}, 3), ({"LUT4": 2, "LUT2": 1}, 2), ({"LUT3": 3}, 2), ({"LUT3": 1, "LUT2": 1}, 1),
    ({"LUT2": 3}, 2), ({"LUT6": 1, "RAM64M": 1}, 5)])
def test_small_tables_share_large_ones(cells, tables):
    assert area.merged(cells) == tables


def test_units_add_up_to_the_total():
    units = {"top": {"LUT2": 1, "a": 2}, "a": {"b": 3, "FDRE": 1}, "b": {"LUT6": 10}}
    total, parts, cells = area.breakdown(units, "top")
    assert (total["lut"], total["ff"]) == (61, 2) and cells == {"LUT2": 1, "FDRE": 2, "LUT6": 60}
    assert parts["b"]["number"] == 6 and parts["b"]["lut"] == 60 and parts["a"]["lut"] == 0


def record(sha, lut=0.4, family="xc7"):
    return {"label": "[synth]", "family": family, "lut": 7, "lut_fraction": lut,
            "bram_fraction": 0.9, "multipliers": 0, "verilog_sha256": sha}


def test_the_result_has_the_keys_of_the_claim(tmp_path):
    path = tmp_path / "results" / "area.json"
    area.note(record("aa") | {"lut_fraction": 0.1}, "tiny", path)
    assert "z2_lut_fraction" not in json.loads(path.read_text())
    area.note(record("bb"), "pynq_z2", path)
    table = json.loads(path.read_text())
    assert (table["z2_lut_fraction"], table["z2_bram_fraction"], table["z2_multipliers"]) == (0.4, 0.9, 0)
    assert table["verilog_sha256"] == "bb" and set(table["machines"]) == {"tiny", "pynq_z2"}
    area.note(record("cc", family="xcup") | {"lut": 9}, "pynq_z2", path)
    table = json.loads(path.read_text())
    assert table["verilog_sha256"] == "bb" and table["machines"]["pynq_z2"]["lut"] == 7
    assert {family: totals["lut"] for family, totals in table["families"]["pynq_z2"].items()} == {"xc7": 7, "xcup": 9}


def test_figures_of_other_verilog_are_stale(tmp_path, hollow, monkeypatch, capsys):
    core = hollow(axi3=True)
    monkeypatch.setattr(area, "export_core", lambda cfg, folder: core)
    arguments = ["pynq_z2", "--check", "--work", str(tmp_path), "--result", str(tmp_path / "area.json")]
    assert area.main(arguments) == 4 and "never measured" in capsys.readouterr().out
    area.note(record("0" * 64), "pynq_z2", tmp_path / "area.json")
    assert area.main(arguments) == 4 and "pynq_z2: STALE, run: make area" in capsys.readouterr().out
    area.note(record(core.sha256), "pynq_z2", tmp_path / "area.json")
    assert area.main(arguments) == 0 and "pynq_z2: fresh" in capsys.readouterr().out


def test_without_yosys_it_says_how_to_get_one(monkeypatch, tmp_path, capsys, hollow):
    core = hollow(axi3=True)
    monkeypatch.setattr(area, "export_core", lambda cfg, folder: core)
    monkeypatch.setattr(yosys, "metadata", SimpleNamespace(version=missing, PackageNotFoundError=metadata.PackageNotFoundError))
    monkeypatch.setattr(yosys, "shutil", SimpleNamespace(which=lambda program: None))
    assert area.main(["pynq_z2", "--work", str(tmp_path), "--result", str(tmp_path / "area.json")]) == 1
    assert 'get one with: pip install "spikeloom[synth]"' in capsys.readouterr().err
    assert not (tmp_path / "area.json").exists()


def missing(package):
    raise metadata.PackageNotFoundError(package)


def test_families():
    families = {name: area.family_of(target.machine) for name, target in TARGETS.items()}
    assert families == {"pynq_z1": "xc7", "pynq_z2": "xc7", "kv260": "xcup"}
