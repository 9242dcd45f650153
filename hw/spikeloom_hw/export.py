"""From a component to Verilog, and to the list of its ports."""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil, verilog
from amaranth.hdl import Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In


@dataclass(frozen=True)
class Port:
    """One port of an exported module."""

    name: str
    width: int
    #: "input" or "output".
    direction: str


def _flat(component: wiring.Component):
    for path, member, value in component.signature.flatten(component):
        yield "_".join(str(part) for part in path), member, Value.cast(value)


def port_list(component: wiring.Component) -> list[Port]:
    """Ports of the Verilog module that `to_verilog` makes of a component, in its order of members."""
    ports = [Port(name, len(value), "input" if member.flow is In else "output")
             for name, member, value in _flat(component)]
    names = [port.name for port in ports]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"Two members flatten to the same port name: {', '.join(twice)}.")
    empty = [port.name for port in ports if port.width == 0]
    if empty:
        raise ValueError(f"Ports of no bits cannot be exported: {', '.join(empty)}. Leave them out or make them one bit wide.")
    return ports


def to_verilog(component: wiring.Component, name: str) -> str:
    """Verilog of a component: the same text for the same design, whatever the process or folder.

    Port names are the paths of the members joined by single underscores, as Vivado's inference expects them.

    Parameters
    ----------
    component : wiring.Component
        The design; must define its own clock domains (see `shell.Shell`), else ``clk`` and ``rst`` become ports.
    name : str
        Name of the top module.
    """
    port_list(component)
    ports = {port: (value, None) for port, _, value in _flat(component)}
    netlist = rtlil.convert(component, name=name, ports=ports, emit_src=False)
    # Not public, but all that `verilog.convert` does beyond this line; a test holds it to that.
    return verilog._convert_rtlil_text(without_blank_memories(netlist), strip_internal_attrs=True)


#: The cell that gives a memory its first contents, when these are all zero.
_BLANK_MEMORY = re.compile(r"^  cell \$meminit_v2 [^\n]*\n(?:    [^\n]*\n)*?    connect \\DATA \d+'0+\n(?:    [^\n]*\n)*?  end\n", re.MULTILINE)


def without_blank_memories(netlist: str) -> str:
    """RTLIL without the zeros that memories start from.

    Nothing in the core relies on them, a board starts from zeros anyway, and they would be nine tenths of the Verilog.
    """
    return _BLANK_MEMORY.sub("", netlist)


def main(arguments: list[str] | None = None) -> None:
    """``python -m spikeloom_hw.export PRESET --output FOLDER`` writes ``spikeloom_top.v`` of a preset."""
    from spikeloom.arch.presets import PRESETS, preset

    from .shell import Shell
    from .top import Top

    parser = argparse.ArgumentParser(prog="spikeloom_hw.export", description=main.__doc__)
    parser.add_argument("preset", choices=sorted(PRESETS))
    parser.add_argument("--output", type=Path, default=Path("build/verilog"))
    options = parser.parse_args(arguments)
    text = to_verilog(Shell(Top(preset(options.preset))), "spikeloom_top")
    folder = options.output / options.preset
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "spikeloom_top.v"
    target.write_text(text)
    print(f"{target}: {text.count(chr(10)):,} lines")


if __name__ == "__main__":
    main()
