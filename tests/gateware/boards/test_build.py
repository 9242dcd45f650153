"""`boards.build`: what it makes, what it says where a tool is missing, and how it ends."""

import json
import os

import pytest

from spikeloom.arch.manifest import read_manifest
from spikeloom.arch.presets import preset
from spikeloom_hw.boards import build, status, yosys

#: Stands for Vivado: says its version, else leaves the reports and the files that the settings name.
VIVADO = """#!/bin/sh
if [ "$1" = -version ]; then echo "Vivado v{version} (64-bit)"; exit; fi
for settings; do :; done
value() {{ sed -n "s/^set $1 {{\\(.*\\)}}$/\\1/p" "$settings"; }}
{failure}
printf 'setup 0.25\\nhold 0.01\\npulse 0.0\\nclock_mhz 125\\nvivado {version}\\n' > "$(value report_dir)/timing.txt"
cat > "$(value report_dir)/utilization.rpt" <<END
| Slice LUTs      | 26600 | 0 |
| Slice Registers | 20000 | 0 |
| Block RAM Tile  | 119   | 0 |
| DSPs            | 0     | 0 |
END
echo bits > "$(value bit_file)"
echo description > "$(value hwh_file)"
"""


@pytest.fixture
def call(tmp_path, hollow, monkeypatch):
    """call(board, *options) -> exit code, with a hollow core and nothing on PATH but what `tmp_path / bin` holds."""
    def run(board, *options):
        zynq7 = board != "kv260"
        core = hollow(axi3=zynq7, data_width=64 if zynq7 else 128)
        monkeypatch.setattr(build, "export_core", lambda cfg, folder: core)
        # The shell's own programs stay reachable for the scripts that stand for tools.
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
        folders = ["--work", str(tmp_path / "work"), "--output", str(tmp_path / "out"), "--notes", str(tmp_path / "notes.json")]
        return build.main([board, *folders, *options])
    (tmp_path / "bin").mkdir()
    return run


def program(tmp_path, name, text):
    path = tmp_path / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def noted(tmp_path, board):
    return {column: entry["value"] for column, entry in status.read(tmp_path / "notes.json")[board].items()}


@pytest.mark.parametrize("board", ["pynq_z1", "pynq_z2", "kv260"])
def test_without_vivado_all_that_comes_before_is_made(call, tmp_path, board, capsys):
    assert call(board) == build.MISSING
    said = capsys.readouterr()
    assert "No bitstream: Vivado is not on this computer. Install Vivado 2020.2 to 2025.2 with support for xc" in said.err
    assert ("TOOLCHAIN=openxc7" in said.err) == (board != "kv260")
    assert (tmp_path / "work" / board / "settings.tcl").is_file()
    assert not any((tmp_path / "work" / board / "reports").iterdir())  # the check leaves nothing that looks like a result
    assert "holds against the model" in said.out or "not checked against the model" in said.out
    output = tmp_path / "out" / board
    assert read_manifest(output / "manifest.json") == preset("kv260" if board == "kv260" else "pynq_z2")
    assert (output / "spikeloom.hwh").is_file() and not (output / "spikeloom.bit").exists()
    needed = "needs Vivado" if board == "kv260" else "needs Vivado or openXC7"
    assert noted(tmp_path, board) == {"verilog": "yes", "route": needed, "bitstream": needed}


def test_with_vivado_a_bitstream_comes_out(call, tmp_path, capsys):
    program(tmp_path, "vivado", VIVADO.format(version="2022.1", failure=""))
    assert call("pynq_z2") == build.MADE
    output = tmp_path / "out" / "pynq_z2"
    assert (output / "spikeloom.bit").read_text() == "bits\n" and (output / "spikeloom.hwh").read_text() == "description\n"
    made = json.loads((output / "manifest.json").read_text())["build"]
    assert (made["toolchain"], made["setup"], made["vivado"], made["label"]) == ("vivado", 0.25, "2022.1", "[route]")
    assert noted(tmp_path, "pynq_z2") == {"verilog": "yes", "netlist": "yes", "utilisation": "50% LUT, 85% BRAM [route]",
                                          "route": "129.0 MHz for 125 [route]", "bitstream": "yes"}
    # A later build that fails leaves no bitstream of other Verilog beside its manifest.
    program(tmp_path, "vivado", VIVADO.format(version="2022.1", failure="exit 1"))
    assert call("pynq_z2") == build.FAILED
    assert not (output / "spikeloom.bit").exists()
    assert "Vivado stopped without a word" in capsys.readouterr().err


def test_an_old_vivado_is_refused(call, tmp_path, capsys):
    program(tmp_path, "vivado", VIVADO.format(version="2018.3", failure=""))
    assert call("pynq_z2") == build.FAILED
    assert "Vivado 2018.3 is too old: the scripts need 2020.2 or newer." in capsys.readouterr().err


def test_another_clock_reaches_everything(call, tmp_path):
    assert call("pynq_z2", "--clock", "100") == build.MISSING
    assert "set clock_mhz {100}" in (tmp_path / "work" / "pynq_z2" / "settings.tcl").read_text()
    assert read_manifest(tmp_path / "out" / "pynq_z2" / "manifest.json").clock_mhz == 100
    description = (tmp_path / "out" / "pynq_z2" / "spikeloom.hwh").read_text(encoding="utf-8-sig")
    assert 'VALUE="100.000000"' in description


def test_a_clock_that_no_divider_makes_is_refused(call, capsys):
    assert call("pynq_z2", "--clock", "700") == build.FAILED
    assert "cannot be divided to 700 MHz" in capsys.readouterr().err


def test_the_open_flow_is_for_7_series(call, capsys):
    with pytest.raises(SystemExit):
        call("kv260", "--toolchain", "openxc7")
    assert "openXC7 knows 7-series parts; KV260 has a xck26-sfvc784-2LV-c: use Vivado." in capsys.readouterr().err


def fake_synthesis(cfg, core, folder, *, cache):
    """A netlist without Yosys."""
    (folder / f"{build.openxc7.TOP}.json").write_text("{}")
    return {"lut_fraction": 0.41, "bram_fraction": 0.85, "doubts": ["Two of these."]}


def test_the_open_flow_stops_where_its_tools_are_missing(call, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build.area, "synthesise", fake_synthesis)
    assert call("pynq_z1", "--toolchain", "openxc7") == build.MISSING
    said = capsys.readouterr()
    assert "openXC7 is not on this computer. Not found: nextpnr-xilinx, fasm2frames, xc7frames2bit." in said.err
    assert "Two of these." in said.out
    work = tmp_path / "work" / "pynq_z1"
    assert os.access(work / "openxc7.sh", os.X_OK)
    assert (work / "spikeloom_openxc7.xdc").read_text() == "create_clock -period 8.000 [get_nets {fclk[0]}]\n"
    assert noted(tmp_path, "pynq_z1") == {"verilog": "yes", "netlist": "yes", "utilisation": "41% LUT, 85% BRAM [synth]",
                                          "route": "needs Vivado or openXC7", "bitstream": "needs Vivado or openXC7"}


def test_the_commands_of_the_open_flow_reach_the_bitstream(call, tmp_path, monkeypatch, capsys):
    """Programs that only check that their inputs are there and make their outputs."""
    monkeypatch.setattr(build.area, "synthesise", fake_synthesis)
    take = 'value() { while [ "$1" != "$k" ]; do shift; done; echo "$2"; }\n'
    program(tmp_path, "nextpnr-xilinx", f'#!/bin/sh\nset -e\n{take}k=--json; cat "$(value "$@")"; k=--xdc; cat "$(value "$@")"\n'
            'k=--chipdb; cat "$(value "$@")"; k=--fasm; echo fasm > "$(value "$@")"\n')
    program(tmp_path, "fasm2frames", '#!/bin/sh\nfor last; do :; done\ncat "$last"; echo frames\n')
    program(tmp_path, "xc7frames2bit", f'#!/bin/sh\nset -e\n{take}k=--frm_file; f="$(value "$@")"\n'
            'k=--part_file; cat "$(value "$@")" >/dev/null\nk=--output_file; cat "$f" > "$(value "$@")"\n')
    assert call("pynq_z2", "--toolchain", "openxc7") == build.MISSING
    assert "Not found: CHIPDB, PRJXRAY_DB_DIR." in capsys.readouterr().err
    (tmp_path / "chip.bin").touch()
    part = tmp_path / "db" / "zynq7" / "xc7z020clg400-1"
    part.mkdir(parents=True)
    monkeypatch.setenv("CHIPDB", str(tmp_path / "chip.bin"))
    monkeypatch.setenv("PRJXRAY_DB_DIR", str(tmp_path / "db"))
    assert call("pynq_z2", "--toolchain", "openxc7") == build.FAILED  # no part.yaml
    (part / "part.yaml").touch()
    assert call("pynq_z2", "--toolchain", "openxc7") == build.MADE
    assert (tmp_path / "out" / "pynq_z2" / "spikeloom.bit").read_text() == "fasm\nframes\n"


def test_without_yosys_the_open_flow_says_how_to_get_it(call, monkeypatch, capsys):
    def missing():
        raise yosys.YosysError("There is no Yosys here; get one.")
    monkeypatch.setattr(yosys, "find", missing)
    assert call("pynq_z2", "--toolchain", "openxc7") == build.MISSING
    assert 'Yosys is not on this computer. Get it with: pip install "spikeloom[synth]"' in capsys.readouterr().err
