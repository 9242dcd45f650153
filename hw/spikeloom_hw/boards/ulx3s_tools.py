"""From Verilog to a routed ECP5-85F and its bitstream: Yosys, nextpnr-ecp5 and ecppack, all from PyPI."""

import hashlib
import json
import lzma
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import running, yosys

REMEDY = 'pip install "spikeloom[hw,synth,ecp5]"'
#: The chip as nextpnr names it, and its speed grade (6 is the slowest).
DEVICE, PACKAGE, SPEED = "85k", "CABGA381", 6
#: What the chip has, by the names of nextpnr's report.
CAPACITY = {"TRELLIS_COMB": 83640, "TRELLIS_FF": 83640, "TRELLIS_RAMW": 10455, "DP16KD": 208, "MULT18X18D": 156}
#: The other one, router1, does not come to an end on a full chip.
ROUTER = "router2"
#: More weight on slow paths: `ulx3s`, placed, came to 36.2 MHz in place of 33.6, with 5% more wire.
PLACER = ("--placer-heap-critexp", "4", "--placer-heap-timingweight", "30")
#: Memories that only a LOAD writes, when nothing uses what is read of them: reading what is being written may give anything,
#: which spares a register and a choice per bit beside the block RAM.
LOADED = ("*.parameters/m:*", "*.core.rows/m:*")
#: Cells of Yosys that are block RAM.
BLOCK_RAMS = ("DP16KD", "PDPW16KD")


class FlowError(RuntimeError):
    """A tool is missing, failed, or took too long; or the design does not fit. The message names the log."""


def program(name: str) -> str:
    """Path of a tool: the one of this environment from PyPI (``yowasp-...``), else one of the system.

    Raises
    ------
    FlowError
        When there is none; says how to get one.
    """
    for candidate in (f"yowasp-{name}", name):
        for folder in (str(Path(sys.executable).parent), None):
            found = shutil.which(candidate, path=folder)
            if found:
                return found
    raise FlowError(f"There is no {name} here; get one with: {REMEDY}")


class Deadline:
    """Seconds that several steps share."""

    def __init__(self, seconds: float):
        self.seconds, self._end = seconds, time.monotonic() + seconds

    @property
    def spent(self) -> float:
        """Seconds since it was set."""
        return self.seconds - (self._end - time.monotonic())

    @property
    def left(self) -> float:
        """Seconds until it passes, at least one."""
        return max(1.0, self._end - time.monotonic())


class OutOfTime(FlowError):
    """The deadline passed: no fault of the design, a busy or slow computer is enough."""


def out_of_time(tool: str, deadline: Deadline, log: Path) -> OutOfTime:
    """What is said when time is up."""
    return OutOfTime(f"{tool} did not end in time: {deadline.seconds:.0f} s for all steps; its log is {log}. "
                     "A busy or slow computer needs a longer --deadline; what is mapped already is not mapped again.")


def run(command: list[str], log: Path, deadline: Deadline, *, folder: Path, say: Callable[[str], None] | None = None) -> None:
    """Run a tool with its words in a log.

    Raises
    ------
    FlowError
        With the last error of the log, or the deadline.
    """
    tool = Path(command[0]).name
    try:
        code = running.run(command, log, folder=folder, deadline_s=deadline.left, say=say)
    except running.TookTooLong as error:
        raise out_of_time(tool, deadline, log) from error
    if code:
        words = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if "ERROR" in line]
        raise FlowError(f"{tool}: {words[-1] if words else 'no reason given'}; its log is {log}.")


def kept_log(log: Path) -> bytes:
    """A log as it is committed: compressed, and without the folder that Python's environment lies in on this computer."""
    return lzma.compress(log.read_text(encoding="utf-8", errors="replace").replace(sys.prefix, "VENV").encode())


def synthesise(verilog: str, top: str, folder: Path, deadline: Deadline, *, say: Callable[[str], None] | None = None) -> dict[str, int]:
    """Map Verilog to the cells of an ECP5, unless the folder holds what the same Verilog was mapped to; leaves
    ``netlist.json`` in the folder and returns the number of each cell.

    Raises
    ------
    FlowError
        When Yosys is missing or fails, or the block RAM is more than the chip has.
    """
    loaded = "".join(f"setattr -set no_rw_check 1 {memories}\n" for memories in LOADED)
    script = f"read_verilog top.v\n{loaded}synth_ecp5 -top {top}\ntee -o cells.json stat -json\nwrite_json netlist.json\n"
    stamp = folder / "netlist.sha256"
    try:
        tool = yosys.find()
        key = hashlib.sha256("\0".join((verilog, script, tool.version)).encode()).hexdigest()
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != key:
            stamp.unlink(missing_ok=True)
            (folder / "top.v").write_text(verilog, encoding="utf-8")
            tool.run(script, folder, name="synth", deadline_s=deadline.left, say=say)
            stamp.write_text(key, encoding="utf-8")
    except yosys.YosysError as error:
        if isinstance(error.__cause__, running.TookTooLong):
            raise out_of_time("Yosys", deadline, folder / "synth.log") from error
        raise FlowError(str(error)) from error
    modules = json.loads((folder / "cells.json").read_text(encoding="utf-8"))["modules"]
    cells = next(module["num_cells_by_type"] for name, module in modules.items() if name.lstrip("\\") == top)
    blocks = sum(cells.get(kind, 0) for kind in BLOCK_RAMS)
    if blocks > CAPACITY["DP16KD"]:
        raise FlowError(f"The design takes {blocks} block RAMs, an ECP5-85F has {CAPACITY['DP16KD']}: "
                        "choose a machine with smaller memories.")
    return {kind: count for kind, count in sorted(cells.items()) if not kind.startswith("$")}


@dataclass(frozen=True)
class Hop:
    """A step of a path: through a cell, or along a wire to one."""

    kind: str
    #: Cell and port that it ends at.
    cell: str
    port: str
    delay_ns: float


@dataclass(frozen=True)
class Routed:
    """What became of a netlist on the chip."""

    #: Clock -> MHz that it can run at, and MHz that was asked for.
    fmax: dict[str, float]
    wanted: dict[str, float]
    #: Resource -> number used, of those in `CAPACITY`.
    used: dict[str, int]
    #: The slowest path of each pair of clocks, slowest first, without those from or to pins.
    paths: list[list[Hop]] = field(default_factory=list)

    @property
    def core_mhz(self) -> float:
        """MHz of the slowest clock: the core's."""
        return min(self.fmax.values())

    @property
    def meets(self) -> bool:
        """Every clock can run as fast as it was asked to."""
        return all(mhz >= self.wanted[clock] for clock, mhz in self.fmax.items())


def read_report(text: str) -> Routed:
    """nextpnr's JSON report."""
    report = json.loads(text)
    paths = [[Hop(hop["type"], hop["to"]["cell"], hop["to"]["port"], hop["delay"]) for hop in entry["path"]]
             for entry in report["critical_paths"] if "async" not in entry["from"] + entry["to"]]
    return Routed(
        fmax={_clock(name): round(entry["achieved"], 2) for name, entry in report["fmax"].items()},
        wanted={_clock(name): entry["constraint"] for name, entry in report["fmax"].items()},
        used={name: report["utilization"][name]["used"] for name in CAPACITY if name in report["utilization"]},
        paths=sorted(paths, key=lambda path: -sum(hop.delay_ns for hop in path)))


def _clock(name):
    return re.sub(r"^\$glbnet\$", "", name)


def place_and_route(folder: Path, constraints: str, deadline: Deadline, *, seed: int = 1, mhz: float | None = None,
                    say: Callable[[str], None] | None = None) -> Routed:
    """Place and route ``netlist.json``; leaves ``routed.config``, ``report.json`` and ``route.log``.

    Timing that is not met is told by the result, not by an error.

    Parameters
    ----------
    constraints : str
        The `.lpf` file. Without pins, the tool chooses some.
    mhz : float, optional
        Aim for clocks that the constraints do not name.

    Raises
    ------
    FlowError
        When the tool is missing or fails: the design does not fit, or cannot be routed.
    """
    (folder / "pins.lpf").write_text(constraints, encoding="utf-8")
    command = [program("nextpnr-ecp5"), f"--{DEVICE}", "--package", PACKAGE, "--speed", str(SPEED), "--json", "netlist.json",
               "--lpf", "pins.lpf", "--textcfg", "routed.config", "--report", "report.json", "--seed", str(seed),
               "--timing-allow-fail", "--lpf-allow-unconstrained", "--router", ROUTER, *PLACER]
    run([*command, *(["--freq", f"{mhz:g}"] if mhz else [])], folder / "route.log", deadline, folder=folder, say=say)
    return read_report((folder / "report.json").read_text(encoding="utf-8"))


def pack(folder: Path, deadline: Deadline, *, name: str) -> Path:
    """The bitstream of ``routed.config``, compressed as the chip itself can read it."""
    run([program("ecppack"), "--compress", "--input", "routed.config", "--bit", name], folder / "pack.log", deadline, folder=folder)
    return folder / name


def component_of(cell: str, depth: int = 1) -> str:
    """The part of the core that a cell belongs to, by its name: ``core.core.core.engine.pe0_3_LUT4_Z`` is ``engine``."""
    path = [re.sub(r"\$\d+$", "", step) for step in cell.replace("\\", "").split(".")]
    while path and path[0] == "core":
        path = path[1:]
    parts = path[:depth] if len(path) > 1 else [re.sub(r"_(LUT4|CCU2C|TRELLIS|PFUMX|L6MUX).*", "", path[0])] if path else ["top"]
    return ".".join(parts)


def describe_path(path: list[Hop], *, label: Callable[[str], str] = component_of) -> dict:
    """A path in few words: its delay, how much of it is wire, and the components that it passes through."""
    passed: list[list] = []
    for hop in path:
        if not passed or passed[-1][0] != label(hop.cell):
            passed.append([label(hop.cell), 0.0])
        passed[-1][1] += hop.delay_ns
    wire = sum(hop.delay_ns for hop in path if hop.kind == "routing")
    total = sum(hop.delay_ns for hop in path)
    return {
        "delay_ns": round(total, 2), "wire_ns": round(wire, 2), "cells": sum(hop.kind == "logic" and hop.delay_ns > 0 for hop in path),
        "from": path[0].cell, "to": path[-1].cell, "through": [f"{name} {delay:.1f}" for name, delay in passed],
    }
