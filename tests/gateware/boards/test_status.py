"""`boards.status`: notes of runs and the page made of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from spikeloom_hw.boards import status

ROOT = Path(__file__).resolve().parents[3]
REPORT = """<testsuites><testsuite>
<testcase classname="tests.boards.test_hwh" name="test_pynq_finds_the_core[pynq_z2-False]"/>
<testcase classname="tests.boards.test_hwh" name="test_pynq_finds_the_core[kv260-False]">{kv260}</testcase>
<testcase classname="tests.boards.test_overlay" name="test_gates"/>
<testcase classname="tests.boards.test_overlay" name="test_other"><skipped/></testcase>
</testsuite></testsuites>"""


def row(text, title):
    """Cells of a board's row."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {title} "))
    return dict(zip(status.COLUMNS, [cell.strip() for cell in line.strip("|").split("|")][1:]))


def test_the_page_is_that_of_the_notes():
    done = subprocess.run([sys.executable, "-m", "spikeloom_hw.boards.status", "--check", "--root", str(ROOT)], cwd=ROOT / "hw",
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_check_sees_a_page_and_a_guide_of_other_notes(tmp_path, capsys):
    for path, text in ((status.PAGE, ""), (status.GUIDE, f"before\n{status.BEGIN}old\n{status.END}after\n")):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    arguments = ["--root", str(tmp_path)]
    assert status.main([*arguments, "--check"]) == 1
    assert {line.split()[0] for line in capsys.readouterr().err.splitlines()} == {str(status.PAGE), str(status.GUIDE)}
    assert status.main(arguments) == 0 and status.main([*arguments, "--check"]) == 0
    assert (tmp_path / status.GUIDE).read_text().startswith(f"before\n{status.BEGIN}| preset |")


def test_nothing_noted_is_said(tmp_path):
    assert set(row(status.page(tmp_path), "KV260").values()) == {"not run"}


def test_notes_show_and_go_stale(tmp_path):
    path = tmp_path / status.NOTES
    status.note("pynq_z2", path, of="aa", verilog="yes", utilisation="41% LUT [synth]")
    status.note("pynq_z2", path, route="needs Vivado")
    shown = row(status.page(tmp_path), "PYNQ-Z2")
    assert [shown[name] for name in ("verilog", "utilisation", "route", "hwh_31")] == ["yes", "41% LUT [synth]", "needs Vivado", "not run"]
    status.note("pynq_z2", path, of="bb", verilog="yes")
    assert row(status.page(tmp_path), "PYNQ-Z2")["utilisation"] == "41% LUT [synth] (stale)"
    with pytest.raises(ValueError, match="no board or column pynq_z3, colour"):
        status.note("pynq_z3", path, colour="red")


@pytest.mark.parametrize("inner, shown", [("", "2 passed [sim]"), ("<failure/>", "1 passed, 1 failed [sim]")])
def test_tests_of_the_serial_link_are_noted(tmp_path, inner, shown):
    (tmp_path / "tests.xml").write_text(
        f'<testsuites><testsuite><testcase classname="tests.rtl.test_uart" name="a">{inner}</testcase>'
        '<testcase classname="tests.driver.test_uart" name="b"/><testcase classname="tests.rtl.test_bus" name="c"/>'
        '</testsuite></testsuites>')
    status.note_serial_tests(tmp_path / "tests.xml", tmp_path / status.NOTES)
    assert row(status.page(tmp_path), "ULX3S 85F")["driver"] == shown


@pytest.mark.parametrize("kv260, shown", [("", "yes"), ("<failure/>", "1 failed")])
def test_board_tests_are_noted(tmp_path, kv260, shown):
    for version in ("3.1", "4.0"):
        (tmp_path / f"pynq-{version}.xml").write_text(REPORT.format(kv260=kv260))
    path = tmp_path / status.NOTES
    status.note_tests(tmp_path, path)
    page = status.page(tmp_path)
    assert row(page, "PYNQ-Z2")["hwh_31"] == "yes" and row(page, "PYNQ-Z1")["hwh_40"] == "not run"
    assert row(page, "KV260")["hwh_40"] == shown
    assert row(page, "KV260")["driver"] == ("3 passed [sim]" if not kv260 else "2 passed, 1 failed [sim]")


def test_areas_are_shown_and_noted(tmp_path):
    record = {"label": "[synth]", "yosys": "0.70", "family": "xc7", "part": "xc7z020clg400-1", "verilog_sha256": "aa", "lut": 21000,
              "lut_memory": 4000, "lut_merged": 17000,
              "ff": 18000, "bram": 118.5, "uram": 0, "dsp": 0, "multipliers": 0, "lut_fraction": 0.395,
              "bram_fraction": 0.846, "components": {"engine.pe0_0": {"number": 64, "lut": 7000}}}
    areas = tmp_path / status.AREAS
    areas.parent.mkdir()
    areas.write_text(json.dumps({"machines": {"pynq_z2": record}}))
    status.note_area(areas, tmp_path / status.NOTES)
    text = status.page(tmp_path)
    assert row(text, "PYNQ-Z1")["utilisation"] == "40% LUT, 85% BRAM [synth]"
    assert "| pynq_z2 | xc7z020clg400-1 | 21,000 | 17,000 | 4,000 | 18,000 | 118.5 | 0 | 0 |" in text
    assert "| engine.pe0_0 | 64 | 7,000 | 0 | 0 | 0 |" in text


def test_resources_of_every_preset_and_family():
    record = {"label": "[synth]", "lut": 21000, "lut_memory": 4000, "lut_merged": 17000, "ff": 18000, "bram": 118.5, "uram": 0,
              "multipliers": 0}
    build = {"label": "[route]", "used": {"TRELLIS_COMB": {"used": 50000}, "TRELLIS_RAMW": {"used": 1000}, "TRELLIS_FF": {"used": 20000},
                                          "DP16KD": {"used": 200}}}
    lines = status.resources({"families": {"sim": {"xc7": record, "xcup": record | {"uram": 3}}}}, build).splitlines()
    assert lines[2:] == ["| `sim` | xc7 | 21,000 | 17,000 | 4,000 | 18,000 | 118.5 | 0 | 0 | [synth] |",
                         "| `sim` | xcup | 21,000 | 17,000 | 4,000 | 18,000 | 118.5 | 3 | 0 | [synth] |",
                         "| `ulx3s` | ecp5 | 50,000 |  | 4,000 | 20,000 | 200 of 18 kbit |  | 0 | [route] |"]
