"""What a machine costs on an FPGA, by Yosys: counts before placement, upper bounds where later tools merge more.

`python -m spikeloom_hw.boards.area pynq_z2` exports the machine, maps it unit by unit, and notes the figures in
`results/area.json`. A unit that has not changed since it was mapped last is not mapped again.
"""

import argparse
import json
import sys
from pathlib import Path

from spikeloom.arch.config import AcceleratorConfig
from spikeloom.arch.presets import PRESETS, preset

from ..export import to_verilog
from . import yosys
from .area_units import Unit, cut
from .boards import TARGETS, Target
from .core import ExportedCore, export_core, stub
from .openxc7 import TOP, Zynq7Top
from .openxc7_netlist import check_netlist, doubts

#: Where the figures are kept, from the root of a checkout.
RESULT = Path("results/area.json")
#: Look-up tables that a cell of LUT memory or a shift register occupies.
LUT_MEMORY = {
    "RAM32X1S": 1, "RAM64X1S": 1, "RAM32X1D": 2, "RAM64X1D": 2, "RAM32X2S": 2, "RAM128X1S": 2, "RAM128X1D": 4, "RAM256X1S": 4,
    "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM64X8SW": 8, "RAM256X1D": 8, "RAM512X1S": 8,
    "SRL16": 1, "SRL16E": 1, "SRLC16E": 1, "SRLC32E": 1,
}
#: Logic cells. An inverter of its own takes a look-up table unless a later tool merges it.
LOGIC = {"LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6", "INV"}
FLIP_FLOPS = {"FDRE", "FDSE", "FDCE", "FDPE", "FDRE_1", "FDSE_1", "FDCE_1", "FDPE_1", "LDCE", "LDPE"}
#: In 36-kilobit blocks.
BLOCK_RAMS = {"RAMB36E1": 1.0, "RAMB36E2": 1.0, "RAMB18E1": 0.5, "RAMB18E2": 0.5}
MULTIPLIERS = {"DSP48E1", "DSP48E2"}
#: Cells that cost nothing of what is counted here.
FREE = {"CARRY4", "CARRY8", "MUXF7", "MUXF8", "MUXF9", "BUFG", "PS7", "IBUF", "OBUF", "$scopeinfo"}
KINDS = ("lut", "lut_memory", "ff", "bram", "uram", "dsp")
#: Arithmetic that the core must not hold; Yosys may make it of look-up tables, so it is looked for before mapping.
FORBIDDEN = ("$mul", "$macc", "$div", "$mod", "$divfloor", "$modfloor", "$pow")


def cost(cells: dict[str, int]) -> dict[str, float]:
    """Resources of cells by type; ``lut`` includes ``lut_memory``.

    Raises
    ------
    ValueError
        Names a type that this table does not know: nothing is left out in silence.
    """
    total = dict.fromkeys(KINDS, 0)
    for kind, count in cells.items():
        if kind in LOGIC:
            total["lut"] += count
        elif kind in LUT_MEMORY:
            total["lut"] += count * LUT_MEMORY[kind]
            total["lut_memory"] += count * LUT_MEMORY[kind]
        elif kind in FLIP_FLOPS:
            total["ff"] += count
        elif kind in BLOCK_RAMS:
            total["bram"] += count * BLOCK_RAMS[kind]
        elif kind == "URAM288":
            total["uram"] += count
        elif kind in MULTIPLIERS:
            total["dsp"] += count
        elif kind not in FREE:
            raise ValueError(f"Yosys made cells of type {kind}, whose size is not known here; add it to spikeloom_hw.boards.area.")
    return total


def merged(cells: dict[str, int]) -> int:
    """Look-up tables if small ones share a table wherever their inputs fit into one: a lower bound, where `cost` is an upper one.

    A table of six inputs serves as two of five with common inputs, so at least as one of five and one of one, of four and
    two, or of three and three.
    """
    left = {size: cells.get(f"LUT{size}", 0) + (cells.get("INV", 0) if size == 1 else 0) for size in range(1, 7)}
    tables = left[6] + left[5] + left[4]
    for large, small in ((5, 1), (4, 1), (4, 2)):
        pairs = min(left[large], left[small])
        left[large] -= pairs
        left[small] -= pairs
    for small in (1, 2):
        pairs = min(left[3], left[small])
        left[3] -= pairs
        left[small] -= pairs
        tables += pairs
    memory = sum(LUT_MEMORY.get(kind, 0) * count for kind, count in cells.items())
    return tables + (left[3] + 1) // 2 + (left[2] + left[1] + 1) // 2 + memory


def add_up(parts) -> dict[str, float]:
    """Sum of several costs."""
    return {kind: sum(part[kind] for part in parts) for kind in KINDS}


def breakdown(units: dict[str, dict[str, int]], top: str) -> tuple[dict, dict, dict]:
    """Total cost, cost and number of each unit, and count of each cell, from the cells of each unit.

    A unit's cost leaves out the units inside it, so that they add up to the total.

    Parameters
    ----------
    units : dict
        Cells by type of each module; a type that is a module here is an instance of it.
    top : str
        Module that holds all others.
    """
    numbers, cells = dict.fromkeys(units, 0), {}

    def visit(name, times):
        numbers[name] += times
        for kind, count in units[name].items():
            if kind in units:
                visit(kind, times * count)
            else:
                cells[kind] = cells.get(kind, 0) + times * count

    visit(top, 1)
    parts = {}
    for name, number in numbers.items():
        own = cost({kind: count for kind, count in units[name].items() if kind not in units})
        parts[name] = {"number": number} | {kind: value * number for kind, value in own.items()}
    return add_up(parts.values()), parts, cells


#: `synth_xilinx` with the older of Yosys's two mappers: abc9 of 0.70 ends in an assertion on some of our units. It is told to make as
#: few look-up tables as it can, for these are what is counted; as it stands it makes small ones for a placer to merge, which Yosys has not.
_COMMANDS = """read_verilog unit.v
{memories}tee -o forbidden.txt select -list {forbidden}
synth_xilinx -family {family}{ultra} -top {module} -flatten -noiopad -noclkbuf -run begin:map_luts
opt_expr -mux_undef -noclkinv
abc -luts 1,1,1,1,1,1,2,4
clean
xilinx_srl -fixed -minlen 3
techmap -map +/xilinx/lut_map.v -map +/xilinx/cells_map.v -D LUT_WIDTH=6
xilinx_dffopt
opt_lut_ins -tech xilinx
synth_xilinx -family {family} -top {module} -noiopad -noclkbuf -run finalize:
tee -o cells.json stat -json
select {module}
write_rtlil -selected mapped.il
"""


#: Rows on chip of UltraScale+ are UltraRAM: left to choose, Yosys 0.70 makes LUT memory of them, and ends in an error.
_ULTRA = {("rows", "xcup"): {"memories": 'setattr -set ram_style "ultra" */m:words*\n', "ultra": " -uram"}}


def map_unit(tool: yosys.Yosys, unit: Unit, family: str, cache: Path, *, deadline_s: float) -> tuple[Path, dict]:
    """Map one unit, unless `cache` has it already.

    Returns
    -------
    Path
        Folder with the unit's ``mapped.il``.
    dict
        ``cells`` by type and ``forbidden``, the arithmetic cells it had before mapping.

    Raises
    ------
    YosysError
        When Yosys fails or takes too long.
    """
    commands = _COMMANDS.format(family=family, module=unit.module, forbidden=" ".join(f"t:{kind}" for kind in FORBIDDEN),
                                **_ULTRA.get((unit.name, family), {"memories": "", "ultra": ""}))
    folder = cache / unit.key(commands, tool.version)[:24]
    record = folder / "record.json"
    if not record.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "unit.v").write_text(unit.stubs + unit.text, encoding="utf-8")
        tool.run(commands, folder, deadline_s=deadline_s)
        modules = {name.lstrip("\\"): entry for name, entry in json.loads((folder / "cells.json").read_text())["modules"].items()}
        cells = {kind.lstrip("\\"): count for kind, count in modules[unit.module.lstrip("\\")]["num_cells_by_type"].items()}
        forbidden = [line for line in (folder / "forbidden.txt").read_text().split() if "/" in line]
        record.write_text(json.dumps({"unit": unit.name, "cells": cells, "forbidden": forbidden}))
    return folder, json.loads(record.read_text())


def write_netlist(tool: yosys.Yosys, folders: list[Path], top: str, folder: Path, *, deadline_s: float) -> Path:
    """Join mapped units into one flat netlist (Yosys's JSON) for place and route."""
    script = ["read_verilog -lib -specify +/xilinx/cells_sim.v", "read_verilog -lib +/xilinx/cells_xtra.v",
              *(f"read_rtlil {(part / 'mapped.il').resolve()}" for part in folders),
              f"hierarchy -check -top {top}", "flatten -noscopeinfo", "delete t:$scopeinfo", "clean",
              f"select {top}", f"write_json -selected {top}.json"]
    tool.run("\n".join(script) + "\n", folder, name="netlist", deadline_s=deadline_s)
    return folder / f"{top}.json"


def family_of(cfg: AcceleratorConfig) -> str:
    """Family that a preset is mapped to: that of its board, xc7 where it has none."""
    target = target_of(cfg)
    return "xcup" if target and not target.board.zynq7 else "xc7"


def target_of(cfg: AcceleratorConfig) -> Target | None:
    """First board that a preset is for."""
    return next((target for target in TARGETS.values() if target.board.preset == cfg.name), None)


def synthesise(cfg: AcceleratorConfig, core: ExportedCore, folder: Path, *, cache: Path, deadline_s: float = 4 * 3600,
               family: str | None = None) -> dict:
    """Map one machine; on a Zynq-7000 with the processing system around it, whose flat netlist is left in ``folder`` and checked.

    Parameters
    ----------
    family : str, optional
        Another family than that of the machine's board: the core alone, compared with no part.

    Returns
    -------
    dict
        Of `results/area.json`, section ``machines``.

    Raises
    ------
    YosysError
        When Yosys is missing, fails or takes too long.
    ValueError
        When the netlist is not what the open flow can take; names what is wrong.
    """
    tool, target = yosys.find(), target_of(cfg) if family in (None, family_of(cfg)) else None
    family = family or family_of(cfg)
    units = cut(core.path.read_text(encoding="utf-8"))
    if target is not None and target.board.zynq7:
        text = to_verilog(Zynq7Top(target, core.ports), TOP)
        (folder / f"{TOP}.v").write_text(text, encoding="utf-8")
        units.append(Unit("processing system", TOP, text, stub(core.ports)))
    parts, folders, forbidden = {}, [], 0
    for number, unit in enumerate(units):
        print(f"{number + 1}/{len(units)} {unit.name}", flush=True)
        where, record = map_unit(tool, unit, family, cache, deadline_s=deadline_s)
        folders.append(where)
        parts[unit.module.lstrip("\\")] = record["cells"]
        forbidden += len(record["forbidden"])
    top = units[-1].module
    total, components, cells = breakdown(parts, top)
    names = {unit.module.lstrip("\\"): unit.name for unit in units}
    record = {
        "label": "[synth]", "yosys": tool.version, "family": family, "fingerprint": f"{cfg.fingerprint:#010x}",
        "verilog_sha256": core.sha256, **total, "lut_merged": merged(cells), "multipliers": int(total["dsp"]) + forbidden,
        "cells": dict(sorted(cells.items())),
        "components": {names[name]: {kind: value for kind, value in part.items() if value}
                       for name, part in sorted(components.items(), key=lambda item: -item[1]["lut"])},
    }
    if target is not None:
        limits = {"lut": target.luts, "ff": target.flip_flops, "bram": target.block_rams}
        record |= {"part": target.part} | {f"{kind}_fraction": round(total[kind] / limit, 4) for kind, limit in limits.items()}
    if top == TOP:
        netlist = json.loads(write_netlist(tool, folders, TOP, folder, deadline_s=deadline_s).read_text())
        problems = check_netlist(netlist, target, core.ports)
        if problems:
            raise ValueError("The netlist is not fit for the open flow: " + " ".join(problems))
        record |= {"netlist": "checked", "doubts": doubts(netlist)}
    return record


def note(record: dict, name: str, path: Path) -> None:
    """Add one machine's figures to the result file, with the keys that stand for the claim on the PYNQ-Z2.

    Figures of the family of the machine's board go to ``machines`` in full; the totals of every family to ``families``.
    """
    table = json.loads(path.read_text()) if path.exists() else {"label": "[synth]", "machines": {}}
    if record["family"] == family_of(preset(name)):
        table["machines"][name] = record
    totals = {key: record[key] for key in (*KINDS, "lut_merged", "multipliers", "yosys", "label", "verilog_sha256") if key in record}
    table.setdefault("families", {}).setdefault(name, {})[record["family"]] = totals
    z2 = table["machines"].get("pynq_z2")
    if z2:
        table |= {"z2_lut_fraction": z2["lut_fraction"], "z2_bram_fraction": z2["bram_fraction"],
                  "z2_multipliers": z2["multipliers"], "verilog_sha256": z2["verilog_sha256"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def text_of(record: dict, name: str) -> str:
    """A machine's figures for people."""
    part, version, verilog = record.get("part", record["family"]), record["yosys"], record["verilog_sha256"][:12]
    lines = [f"{name} on {part}, Yosys {version} {record['label']}, Verilog {verilog}"]
    for kind in KINDS:
        share = record.get(f"{kind}_fraction")
        lines.append(f"  {kind:<10} {record[kind]:>8g}" + (f"  {share:6.1%}" if share is not None else ""))
    lines.append(f"  at least   {record['lut_merged']:>8} LUT, if all small ones are merged that can be")
    lines.append(f"  multipliers {record['multipliers']:>7}")
    lines.append(f"  {'component':<28}{'number':>7}" + "".join(f"{kind:>11}" for kind in KINDS))
    for part, costs in record["components"].items():
        lines.append(f"  {part:<28}{costs['number']:>7}" + "".join(f"{costs.get(kind, 0):>11g}" for kind in KINDS))
    lines += [f"  {doubt}" for doubt in record.get("doubts", ())]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 done or fresh, 1 failed, 4 stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("presets", nargs="*", default=["pynq_z2"], metavar="PRESET", help=f"of {', '.join(PRESETS)}")
    parser.add_argument("--family", choices=("xc7", "xcup"), help="map to this one, in place of that of the preset's board")
    parser.add_argument("--check", action="store_true", help="only say whether the figures belong to the Verilog of now")
    parser.add_argument("--work", type=Path, default=Path("build/area"))
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--deadline", type=float, default=4 * 3600, help="seconds for one unit")
    options = parser.parse_args(arguments)
    code = 0
    for name in options.presets:
        cfg = preset(name)
        core = export_core(cfg, options.work / name)
        if options.check:
            known = json.loads(options.result.read_text())["machines"].get(name) if options.result.exists() else None
            fresh = known is not None and known["verilog_sha256"] == core.sha256
            print(f"{name}: {'fresh' if fresh else 'STALE, run: make area' if known else 'never measured, run: make area'}")
            code = code if fresh else 4
            continue
        try:
            record = synthesise(cfg, core, options.work / name, cache=options.work / "units", deadline_s=options.deadline,
                                family=options.family)
        except (yosys.YosysError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        note(record, name, options.result)
        print(text_of(record, name))
    return code


if __name__ == "__main__":
    sys.exit(main())
