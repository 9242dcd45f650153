"""`make route`: how fast the whole core is on an ECP5-85F, routed with open tools, and what keeps it from being faster.

The core of the preset `sim` with its buses left open would need more pins and more memory than the chip has. So it is
routed behind the serial link, as on the board, and with memories cut to what fits. What then still takes 99% of the look-up
tables, which no router ends with, is halved: lanes, score banks and winners. Columns, events per cycle and widths are
those of `sim`. The result says so.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from spikeloom.arch.config import AcceleratorConfig
from spikeloom.arch.presets import preset
from spikeloom.driver.uart import BAUD

from ..export import to_verilog
from ..shell import Shell
from . import ulx3s_tools as tools
from .serial_core import SerialCore
from .ulx3s_build import sha256, versions

RESULT, LOG = Path("results/route.json"), Path("results/route.log.xz")
TOP = "spikeloom_route"
GOAL_MHZ = 100
#: What differs from `sim`: bytes kept on chip, how many lanes and lists work side by side; and addresses that fit the serial link.
CUT = dict(lanes=8, score_banks=2, k_max=4, resident_words=2048, kv_positions=1280, max_vocabulary=512, program_words=128,
           parameter_words=512, membrane_words=16, residual_slots=1, address_width=32)


def announce(text: str) -> None:
    """Progress, for people."""
    print(f"route: {text}", file=sys.stderr, flush=True)


def machine() -> AcceleratorConfig:
    """`sim`, cut to the chip."""
    return replace(preset("sim"), name="sim_cut", **CUT)


def verilog() -> str:
    """Verilog of what is routed."""
    return to_verilog(Shell(SerialCore(machine(), clock_hz=GOAL_MHZ * 1e6, baud=BAUD)), TOP)


def measure(work: Path, deadline_s: float, seed: int) -> dict:
    """Route and describe. Raises `FlowError`."""
    work.mkdir(parents=True, exist_ok=True)
    deadline, started = tools.Deadline(deadline_s), time.monotonic()
    text = verilog()
    cells = tools.synthesise(text, TOP, work, deadline, say=lambda words: announce(f"Yosys, {words}"))
    routed = tools.place_and_route(work, "", deadline, seed=seed, mhz=GOAL_MHZ, say=lambda words: announce(f"nextpnr, {words}"))
    full = asdict(preset("sim"))
    return {
        "fmax_mhz_ecp5": {
            "value": routed.core_mhz, "goal": GOAL_MHZ, "label": "[route]", "command": "make route",
            "what": "core of preset sim behind the serial link, memories, lanes and lists cut to the chip; "
                    f"ECP5-85F, speed grade {tools.SPEED}, after routing, seed {seed}",
        },
        "differs_from_sim": {name: [full[name], value] for name, value in CUT.items() if full[name] != value},
        "used": {name: [count, tools.CAPACITY[name]] for name, count in routed.used.items()}, "cells": cells,
        "slowest_paths": [tools.describe_path(path) for path in routed.paths[:4]],
        "verilog_sha256": sha256(text.encode()), "versions": versions(),
        "wall_seconds": round(time.monotonic() - started), "log": LOG.as_posix(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 done or fresh, 1 failed, 4 stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/route"))
    parser.add_argument("--deadline", type=float, default=2 * 3600, help="seconds for all steps")
    parser.add_argument("--seed", type=int, default=1, help="of the placer")
    parser.add_argument("--check", action="store_true", help="only say whether the figure belongs to the Verilog of now")
    options = parser.parse_args(arguments)
    if options.check:
        known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else None
        fresh = known is not None and known["verilog_sha256"] == sha256(verilog().encode())
        print("route: fresh" if fresh else "route: STALE or never measured, run: make route")
        return 0 if fresh else 4
    try:
        record = measure(options.work, options.deadline, options.seed)
    except tools.FlowError as error:
        announce(str(error))
        return 1
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    LOG.write_bytes(tools.kept_log(options.work / "route.log"))
    figure = record["fmax_mhz_ecp5"]
    print(f"route: {figure['value']:g} MHz, goal {figure['goal']}; slowest path: {record['slowest_paths'][0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
