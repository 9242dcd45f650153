"""`make bitstream BOARD=...`: as far towards a bitstream as the tools on this computer reach.

Whatever comes before a missing tool is made and checked, and the exit code says how it ended: 0 a bitstream was made, 1 something
failed, 2 the call was wrong, 3 a tool is missing.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from spikeloom.arch.config import AcceleratorConfig
from spikeloom.arch.manifest import manifest
from spikeloom.board.boards import BOARDS
from spikeloom.board.hwh import NoDivisors, write_hwh

from . import area, openxc7, status, vivado, yosys
from .boards import Target, target
from .core import ExportedCore, export_core
from .vivado_tcl import NoTcl, TclError

MADE, FAILED, MISSING = 0, 1, 3
#: Programs of openXC7 and the variables that name its databases.
OPEN_TOOLS, OPEN_VARIABLES = ("nextpnr-xilinx", "fasm2frames", "xc7frames2bit"), ("CHIPDB", "PRJXRAY_DB_DIR")


def shown(path: Path) -> str:
    """A path as people like it: from the current folder where it lies inside."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


class Build:
    """One build: its folders, what it says, what it notes.

    Parameters
    ----------
    target : Target
    cfg : AcceleratorConfig
        The board's machine, perhaps at another clock.
    toolchain : str
        ``vivado`` or ``openxc7``; goes into the manifest.
    work, output : Path
        Where the tools work and where the result goes; a folder of the board's name is made in both.
    notes : Path
        See `status`.
    """

    def __init__(self, target: Target, cfg: AcceleratorConfig, toolchain: str, *, work: Path, output: Path, notes: Path):
        self.target, self.cfg, self.toolchain, self.notes = target, cfg, toolchain, notes
        self.name = target.board.name
        self.folders = vivado.Folders((work / self.name).resolve(), (output / self.name).resolve())
        self.cache = (work.parent / "area" / "units").resolve()
        self.core: ExportedCore | None = None

    def say(self, what: str, text: str) -> None:
        """One line about one step."""
        print(f"  {what:<11} {text}", flush=True)

    def note(self, **columns: str) -> None:
        """Note the columns of the board's row."""
        status.note(self.name, self.notes, of=self.core.sha256, **columns)

    def begin(self) -> None:
        """Verilog, manifest, and the description that pynq reads where no tool writes a better one."""
        self.folders.reports.mkdir(parents=True, exist_ok=True)
        self.folders.output.mkdir(parents=True, exist_ok=True)
        board = self.target.board
        print(f"{board.title} ({self.target.part}): machine {self.cfg.name} at {self.cfg.clock_mhz:g} MHz, by {self.toolchain}")
        self.core = export_core(self.cfg, self.folders.work)
        self.say("Verilog", shown(self.core.path))
        self.note(verilog="yes")
        bit = self.folders.output / vivado.BIT
        bit.unlink(missing_ok=True)  # what belongs to other Verilog must not stay beside this manifest
        self.write_manifest({})
        write_hwh(self.folders.output / vivado.HWH, board, self.cfg, full=self.toolchain == "vivado")
        self.say("hwh", f"{shown(self.folders.output / vivado.HWH)}, made by hand from the register map")

    def write_manifest(self, build: dict) -> None:
        """The manifest, with what is known of the build."""
        record = manifest(self.cfg) | {"build": {"board": self.name, "part": self.target.part, "toolchain": self.toolchain,
                                                 "verilog_sha256": self.core.sha256} | build}
        path = self.folders.output / "manifest.json"
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        self.say("manifest", shown(path))

    def missing(self, tool: str, remedy: str) -> int:
        """End for want of a tool; the notes name all that would serve."""
        needed = "needs Vivado or openXC7" if self.target.board.zynq7 else "needs Vivado"
        self.note(route=needed, bitstream=needed)
        print(f"No bitstream: {tool} is not on this computer. {remedy}\nAll that comes before it lies in {shown(self.folders.work)} "
              f"and {shown(self.folders.output)}.", file=sys.stderr)
        return MISSING


def build_with_vivado(build: Build) -> int:
    """IP, block design, implementation."""
    values = vivado.settings(build.target, build.cfg, build.core, build.folders)
    settings_file = build.folders.work / "settings.tcl"
    vivado.write_settings(values, settings_file)
    try:
        vivado.audit(settings_file, values, build.core)
        build.say("Tcl", f"{shown(vivado.SCRIPTS / vivado.SCRIPT)} with {shown(settings_file)}; holds against the model")
    except NoTcl as error:
        build.say("Tcl", f"{shown(settings_file)}; not checked against the model: {error}")
    program = vivado.find()
    if program is None:
        other = f" Or try the open flow: make bitstream BOARD={build.name} TOOLCHAIN=openxc7" if build.target.board.zynq7 else ""
        return build.missing("Vivado", f"Install Vivado {vivado.OLDEST} to {vivado.NEWEST} with support for {build.target.part}, put "
                             f"`vivado` on PATH and call this again.{other}")
    version = vivado.version_of(program)
    remark = vivado.judge(version)
    build.say("Vivado", f"{version}, {program}{'; ' + remark if remark else ''}")
    vivado.implement(program, settings_file, build.folders)
    figures = vivado.read_reports(build.folders.reports)
    build.write_manifest(figures | {"label": "[route]"})
    shares = f"{figures['lut'] / build.target.luts:.0%} LUT, {figures['bram'] / build.target.block_rams:.0%} BRAM [route]"
    fmax = 1000 / (1000 / figures["clock_mhz"] - figures["setup"])
    build.note(netlist="yes", utilisation=shares, route=f"{fmax:.1f} MHz for {figures['clock_mhz']:g} [route]", bitstream="yes")
    build.say("bitstream", f"{shown(build.folders.output / vivado.BIT)}; {shares}; slack {figures['setup']} ns")
    return MADE


def build_with_openxc7(build: Build) -> int:
    """Netlist by Yosys, then the tools of openXC7."""
    work, cfg = build.folders.work, build.cfg
    try:
        record = area.synthesise(cfg, build.core, work, cache=build.cache)
    except yosys.YosysError as error:
        if "There is no Yosys" not in str(error):
            raise
        return build.missing("Yosys", f"Get it with: {yosys.REMEDY}")
    shares = f"{record['lut_fraction']:.0%} LUT, {record['bram_fraction']:.0%} BRAM [synth]"
    build.note(netlist="yes", utilisation=shares)
    build.say("netlist", f"{shown(work / openxc7.TOP)}.json; {shares}; checked")
    for doubt in record["doubts"]:
        build.say("", doubt)
    script = work / "openxc7.sh"
    script.write_text(openxc7.commands(build.target, mhz=cfg.clock_mhz, bit=vivado.BIT), encoding="utf-8")
    script.chmod(0o755)
    (work / f"{openxc7.TOP}.xdc").write_text(openxc7.constraints(cfg.clock_mhz), encoding="utf-8")
    build.say("commands", shown(script))
    lacking = [name for name in OPEN_TOOLS if shutil.which(name) is None] or [name for name in OPEN_VARIABLES if name not in os.environ]
    if lacking:
        return build.missing("openXC7", f"Not found: {', '.join(lacking)}. Install openXC7, set {' and '.join(OPEN_VARIABLES)} and call "
                             f"this again; or run {shown(script)} where they are and copy {vivado.BIT} to {shown(build.folders.output)}.")
    if subprocess.run([str(script)], cwd=work).returncode:
        raise RuntimeError(f"openXC7 stopped; its words are above, its log is {work / 'nextpnr.log'}.")
    shutil.copy(work / vivado.BIT, build.folders.output / vivado.BIT)
    build.note(route="yes, timing unknown", bitstream="yes")
    build.say("bitstream", f"{shown(build.folders.output / vivado.BIT)}; openXC7's timing estimates are not to be trusted")
    return MADE


TOOLCHAINS = {"vivado": build_with_vivado, "openxc7": build_with_openxc7}


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="ulx3s, which open tools build, takes --deadline SECONDS, "
                                     "--may-be-late and --check as well: python -m spikeloom_hw.boards.ulx3s_build --help")
    parser.add_argument("board", choices=["ulx3s", *BOARDS], metavar="BOARD", help=", ".join(["ulx3s", *BOARDS]))
    parser.add_argument("--toolchain", choices=TOOLCHAINS, default="vivado", help="for Zynq boards")
    parser.add_argument("--clock", type=float, help="MHz, in place of the preset's")
    parser.add_argument("--work", type=Path, default=Path("build/bitstream"))
    parser.add_argument("--output", type=Path, default=Path("bitstreams"))
    parser.add_argument("--notes", type=Path, default=status.NOTES, help="where the outcome is noted")
    options, more = parser.parse_known_args(arguments)
    if options.board == "ulx3s":
        from . import ulx3s_build
        return ulx3s_build.main(["--work", str(options.work / "ulx3s"), "--output", str(options.output / "ulx3s"),
                                 "--notes", str(options.notes), *more])
    if more:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    chosen = target(options.board)
    if options.toolchain == "openxc7" and not chosen.board.zynq7:
        parser.error(f"openXC7 knows 7-series parts; {chosen.board.title} has a {chosen.part}: use Vivado.")
    cfg = chosen.machine if options.clock is None else replace(chosen.machine, clock_mhz=options.clock)
    build = Build(chosen, cfg, options.toolchain, work=options.work, output=options.output, notes=options.notes)
    try:
        build.begin()
        return TOOLCHAINS[options.toolchain](build)
    except (TclError, NoDivisors, RuntimeError, ValueError) as error:
        print(f"{options.board}: {error}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
