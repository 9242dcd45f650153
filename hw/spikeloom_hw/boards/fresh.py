"""Says which results belong to the gateware of now: exports the Verilog of every machine and compares hashes.

`python -m spikeloom_hw.boards.fresh` notes the hashes of now, so that `bitstreams/README.md` shows what is stale, and ends
with 4 where something is.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from spikeloom.arch.presets import PRESETS, preset
from spikeloom.board.boards import BOARDS

from . import status, ulx3s_build, ulx3s_route
from .core import export_core

STALE = 4


def hash_of(name: str) -> str:
    """Of the Verilog of a preset's core, as `area` and `build` note it."""
    with tempfile.TemporaryDirectory() as folder:
        return export_core(preset(name), Path(folder)).sha256


def machines(notes: dict, areas: dict) -> list[str]:
    """Presets that a result stands for."""
    wanted = {BOARDS[board].preset for board in notes if board in BOARDS} | set(areas.get("families", {}))
    return [name for name in PRESETS if name in wanted]


def judge(root: Path, hashes: Callable[[str], str], ulx3s: Callable[[], str], route: Callable[[], str]) -> list[tuple[str, bool]]:
    """(result, whether it is of now) of all results there are; the boards' notes learn the hashes of now.

    Parameters
    ----------
    hashes : callable
        Preset -> hash of its core's Verilog.
    ulx3s, route : callable
        Hashes of the Verilog of that board's top, and of what is routed by itself.
    """
    def read(path):
        return json.loads((root / path).read_text(encoding="utf-8")) if (root / path).exists() else {}

    notes, areas, found = read(status.NOTES), read(status.AREAS), []
    now = {name: hashes(name) for name in machines(notes, areas)}
    for board in notes:
        if board in BOARDS:
            status.note(board, root / status.NOTES, of=now[BOARDS[board].preset], verilog="yes")
    for name, families in areas.get("families", {}).items():
        found += [(f"area of {name} on {family}", record["verilog_sha256"] == now[name]) for family, record in families.items()]
    build = read("bitstreams/ulx3s/manifest.json").get("build")
    if build:
        current = ulx3s()
        status.note("ulx3s", root / status.NOTES, of=current, verilog="yes")
        found.append(("bitstream of ulx3s", build["verilog_sha256"] == current))
    routed = read(ulx3s_route.RESULT)
    if routed:
        found.append(("route of the core", routed["verilog_sha256"] == route()))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 all fresh, 4 something is stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("."), help="root of the checkout")
    options = parser.parse_args(arguments)
    print("exporting the machines that results stand for", file=sys.stderr, flush=True)
    found = judge(options.root, hash_of, lambda: ulx3s_build.sha256(ulx3s_build.board_verilog(preset("ulx3s")).encode()),
                  lambda: ulx3s_build.sha256(ulx3s_route.verilog().encode()))
    for name, fresh in found:
        print(f"{name}: {'fresh' if fresh else 'STALE'}")
    return 0 if all(fresh for _, fresh in found) else STALE


if __name__ == "__main__":
    sys.exit(main())
