"""Whether a mapped netlist is one that the open flow can place: what is checked before anybody waits for a router."""

from .boards import Target
from .core import CorePorts
from .openxc7 import QUIET, TOP
from .yosys import is_net

#: LUT memory that nextpnr-xilinx packs; deeper or single-ported ones are refused by some of its versions.
PACKED = {"RAM32M", "RAM64M", "RAM32X1D", "RAM64X1D", "SRL16E", "SRLC32E"}
#: Width of a block RAM's port that the open flow is known to get wrong.
DOUBTFUL_WIDTHS = {1, 9}
_SHAKES = ("AWVALID", "WVALID", "ARVALID", "BREADY", "RREADY")
_REPLIES = ("AWREADY", "WREADY", "ARREADY", "BVALID", "RVALID")


def _undriven(module: dict) -> set:
    """Nets that some cell reads and none drives."""
    driven, read = set(), set()
    for cell in module["cells"].values():
        for pin, bits in cell["connections"].items():
            (driven if cell["port_directions"][pin] != "input" else read).update(filter(is_net, bits))
    return read - driven


def _check_ps(cells: dict, target: Target, core: CorePorts) -> list[str]:
    """Problems of how the processing system is connected."""
    ps, = (cell["connections"] for cell in cells.values() if cell["type"] == "PS7")
    buffer, = (cell["connections"] for cell in cells.values() if cell["type"] == "BUFG")
    problems = []
    if buffer["I"] != ps["FCLKCLK"][:1]:
        problems.append("The clock buffer is not fed by FCLKCLK[0].")
    memory = [port.replace("_", "") for _, port in zip(core.managers, target.memory_ports)]
    control = target.board.manager.replace("_", "")
    problems += [f"{prefix}ACLK is not on the buffered clock." for prefix in (*memory, control) if ps.get(f"{prefix}ACLK") != buffer["O"]]
    wanted = [prefix + name for prefix in memory for name in _SHAKES] + [control + name for name in _REPLIES]
    # A constant is possible for signals that never wait; a missing or unknown one is not.
    problems += [f"{pin} is not connected." for pin in wanted if not ps.get(pin) or "x" in ps[pin]]
    resting = {prefix + name for prefix in memory[1:] for name in ("AWVALID", "WVALID")}  # the first port alone writes
    problems += [f"{pin} is stuck at {ps[pin][0]}." for pin in wanted if pin.endswith("VALID") and ps.get(pin)
                 and ps[pin][0] in (("1",) if pin in resting else ("0", "1"))]
    if not is_net(ps["IRQF2P"][0]) or set(ps["IRQF2P"][1:]) != {"0"}:
        problems.append("The interrupt must drive IRQF2P[0], and zero the others.")
    used = {prefix + name for prefix in memory for name in _SHAKES}
    problems += [f"{pin} must be zero." for pin in QUIET if pin not in used and set(ps.get(pin, "x")) != {"0"}]
    return problems


def check_netlist(netlist: dict, target: Target, core: CorePorts) -> list[str]:
    """Problems of a flat netlist (Yosys's JSON) in full sentences; empty when it is fit for the open flow."""
    module = netlist["modules"].get(TOP)
    if module is None:
        return [f"It has no module {TOP}."]
    kinds = [cell["type"] for cell in module["cells"].values()]
    problems = [f"There must be one {kind}, there are {kinds.count(kind)}." for kind in ("PS7", "BUFG") if kinds.count(kind) != 1]
    if module["ports"]:
        problems.append(f"The design has pins: {', '.join(module['ports'])}.")
    for kind in sorted(set(kinds)):
        if kind.startswith("$"):
            problems.append(f"{kinds.count(kind)} cells of type {kind} were not mapped.")
        elif kind.startswith("DSP"):
            problems.append(f"There are {kinds.count(kind)} {kind}; the core needs none.")
    floating = _undriven(module)
    if floating:
        problems.append(f"{len(floating)} nets are read and driven by nothing.")
    return problems if problems else _check_ps(module["cells"], target, core)


def doubts(netlist: dict) -> list[str]:
    """What some versions of the open tools are known to handle badly, in full sentences."""
    cells = list(netlist["modules"][TOP]["cells"].values())
    found = []
    memories = sorted({cell["type"] for cell in cells if cell["type"].startswith(("RAM", "SRL"))} - PACKED)
    for kind in memories:
        if not kind.startswith("RAMB"):
            found.append(f"{sum(cell['type'] == kind for cell in cells)} {kind}: LUT memory that old versions of nextpnr-xilinx refuse.")
    for kind in ("RAMB18E1", "RAMB36E1"):
        widths = [{int(value, 2) for name, value in cell["parameters"].items() if name.startswith(("READ_WIDTH", "WRITE_WIDTH"))}
                  for cell in cells if cell["type"] == kind]
        count = sum(bool(found_widths & DOUBTFUL_WIDTHS) for found_widths in widths)
        if count:
            found.append(f"{count} {kind} with ports of 1 or 9 bits, which the open flow has got wrong.")
    return found
