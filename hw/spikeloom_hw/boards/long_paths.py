"""Where a cycle's logic is longest, from the netlist alone: seconds in place of the hour that placing and routing take.

`python -m spikeloom_hw.boards.long_paths build/route/netlist.json` lists the longest paths of what Yosys mapped for an ECP5, by the
registers that they lead between. Cells have the delays of the slowest speed grade; a wire has one that grows with its fan-out, as if
everything lay close together. So it ranks ways before they are placed; it does not say how fast a chip is (`make route` does).
"""

import argparse
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .ulx3s_tools import component_of
from .yosys import is_net

#: ns: a wire to one cell, and what each doubling of its fan-out adds.
WIRE, WIRE_PER_DOUBLING = 0.77, 0.22
#: ns from a clock edge to the outputs of a cell.
CLOCK_TO_OUTPUT = {"TRELLIS_FF": 0.52, "DP16KD": 5.6, "PDPW16KD": 5.6}
#: Ports where a path ends; block RAM ends it at every input.
ENDS = {"TRELLIS_FF": ("DI", "CE", "LSR", "M"), "TRELLIS_DPR16X4": ("DI", "WAD", "WRE"), "DP16KD": None, "PDPW16KD": None}
#: Cell -> output -> {input: ns}.
LOGIC = {
    "LUT4": {"Z": dict.fromkeys("ABCD", 0.24)},
    "PFUMX": {"Z": {"ALUT": 0.17, "BLUT": 0.17, "C0": 0.24}},
    "L6MUX21": {"Z": {"D0": 0.17, "D1": 0.17, "SD": 0.24}},
    "TRELLIS_DPR16X4": {"DO": {"RAD": 0.24}},
    "CCU2C": {
        "S0": dict.fromkeys(("A0", "B0", "C0", "D0"), 0.45) | {"CIN": 0.44},
        "S1": dict.fromkeys(("A0", "B0", "C0", "D0"), 0.7) | dict.fromkeys(("A1", "B1", "C1", "D1"), 0.45) | {"CIN": 0.5},
        "COUT": dict.fromkeys((port + half for port in "ABCD" for half in "01"), 0.45) | {"CIN": 0.07},
    },
}
#: Inputs that hang on no wire of the fabric.
DIRECT = {("PFUMX", "ALUT"), ("PFUMX", "BLUT"), ("L6MUX21", "D0"), ("L6MUX21", "D1"), ("CCU2C", "CIN")}


@dataclass(frozen=True)
class End:
    """Where a path ends, how late, and the net that arrives there."""

    delay_ns: float
    cell: str
    port: str
    net: int


@dataclass
class Netlist:
    """Cells of one flat module of Yosys' JSON, and when each net settles."""

    cells: dict[str, dict]
    names: dict[int, str]
    _driver: dict[int, tuple[str, str]] = field(default_factory=dict, init=False)
    _fanout: Counter = field(default_factory=Counter, init=False)
    _arrival: dict[int, float] = field(default_factory=dict, init=False)
    #: Net -> the net that made it late; None where its path begins.
    before: dict[int, int | None] = field(default_factory=dict, init=False)

    def __post_init__(self):
        for name, cell in self.cells.items():
            for port, bits in cell["connections"].items():
                for bit in filter(is_net, bits):
                    if cell["port_directions"][port] == "output":
                        self._driver[bit] = (name, port)
                    else:
                        self._fanout[bit] += 1

    def wire(self, net: int) -> float:
        """ns along a net."""
        return WIRE + WIRE_PER_DOUBLING * (math.log2(1 + self._fanout[net]) - 1)

    def _inputs(self, net: int) -> Iterator[tuple[int, float]]:
        """(net, ns from there) of what a net depends on in its cycle."""
        name, output = self._driver[net]
        kind, connections = self.cells[name]["type"], self.cells[name]["connections"]
        for port, delay in LOGIC[kind][output].items():
            for bit in filter(is_net, connections.get(port, ())):
                yield bit, delay + (0.0 if (kind, port) in DIRECT else self.wire(bit))

    def arrival(self, net: int) -> float:
        """ns from the clock edge until a net has settled; without recursion, since carry chains are long."""
        waiting, open_nets = [net], set()
        while waiting:
            at = waiting[-1]
            if at in self._arrival:
                waiting.pop()
                continue
            kind = self.cells[self._driver[at][0]]["type"] if at in self._driver else None
            if kind not in LOGIC:
                self._arrival[at], self.before[at] = CLOCK_TO_OUTPUT.get(kind, 0.0), None
                continue
            inputs = list(self._inputs(at))
            missing = [bit for bit, _ in inputs if bit not in self._arrival]
            if missing and at not in open_nets:
                open_nets.add(at)
                waiting.extend(missing)
                continue
            if missing:
                raise ValueError(f"Net {self.names.get(at, at)!r} depends on itself: the netlist has a combinational loop.")
            late = max(((self._arrival[bit] + delay, bit) for bit, delay in inputs), default=(0.0, None))
            self._arrival[at], self.before[at] = late
        return self._arrival[net]

    def ends(self) -> list[End]:
        """Every end of a path, latest first."""
        found = []
        for name, cell in self.cells.items():
            if cell["type"] not in ENDS:
                continue
            for port in ENDS[cell["type"]] or (p for p, way in cell["port_directions"].items() if way == "input" and "CLK" not in p):
                for bit in filter(is_net, cell["connections"].get(port, ())):
                    if bit in self._driver:
                        found.append(End(self.arrival(bit) + self.wire(bit), name, port, bit))
        return sorted(found, key=lambda end: -end.delay_ns)

    def path(self, net: int) -> list[int]:
        """The nets of the latest path to a net, first one first."""
        nets = [net]
        while (previous := self.before.get(nets[-1])) is not None:
            nets.append(previous)
        return nets[::-1]


def read(text: str) -> Netlist:
    """The largest module of a netlist."""
    modules = json.loads(text)["modules"].values()
    module = max(modules, key=lambda m: len(m["cells"]))
    names: dict[int, str] = {}
    for name, entry in module["netnames"].items():
        for place, bit in enumerate(entry["bits"]):
            if is_net(bit) and (bit not in names or len(name) < len(names[bit])):
                names[bit] = f"{name}[{place}]"
    return Netlist(module["cells"], names)


def _family(name: str) -> str:
    """A signal of a component, whatever its number."""
    return re.sub(r"\d+", "#", component_of(name, depth=4))


def report(netlist: Netlist, lines: int) -> list[str]:
    """How many ends are how late, and the longest path of each pair of registers."""
    ends = netlist.ends()
    late = Counter(int(end.delay_ns) for end in ends)
    out = [f"{len(ends)} ends; by whole ns: " + ", ".join(f"{ns}: {late[ns]}" for ns in sorted(late, reverse=True)[:12])]
    pairs: dict[tuple[str, str, str], list] = {}
    for end in ends:
        kind, connections = netlist.cells[end.cell]["type"], netlist.cells[end.cell]["connections"]
        held = netlist.names.get(connections["Q"][0], end.cell) if kind == "TRELLIS_FF" else end.cell
        path = netlist.path(end.net)
        key = (_family(netlist.names.get(path[0], "?")), _family(held), end.port)
        pairs.setdefault(key, [end.delay_ns, 0, len(path)])[1] += 1
    for (start, held, port), (delay, count, cells) in list(pairs.items())[:lines]:
        out.append(f"{delay:5.1f} ns, {cells:2d} cells, {count:4d} ends: {start} -> {held}.{port}")
    return out


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("netlist", type=Path, nargs="?", default=Path("build/route/netlist.json"), help="what `make route` mapped")
    parser.add_argument("--lines", type=int, default=40)
    options = parser.parse_args(arguments)
    if not options.netlist.exists():
        parser.error(f"There is no {options.netlist}: make route, or make bitstream BOARD=ulx3s, leaves one.")
    print("\n".join(report(read(options.netlist.read_text(encoding="utf-8")), options.lines)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
