"""The core as a board's build sees it: its Verilog, the hash of that, and the ports to connect."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from spikeloom.arch.config import AcceleratorConfig
from spikeloom.board.boards import CLOCK, INTERRUPT, MEMORY, REGISTERS, RESET

from ..export import WAIVED, Port, verilog_file
from ..shell import Shell
from ..top import Top


def module_ports(verilog: str, top: str) -> list[Port]:
    """Ports of a module of the Verilog that Yosys writes, in the order of its header.

    Raises
    ------
    ValueError
        When there is no such module.
    """
    found = re.search(rf"^module {re.escape(top)}\(([^)]*)\);(.*?)^endmodule", verilog, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"The Verilog has no module {top!r}.")
    declared = {name: Port(name, int(high) + 1 if high else 1, direction) for direction, high, name
                in re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", found[2], re.MULTILINE)}
    return [declared[name.strip()] for name in found[1].split(",")]


@dataclass(frozen=True)
class CorePorts:
    """What a board connects: the core's ports by interface."""

    #: Name of the exported module.
    module: str
    ports: tuple[Port, ...]

    def __post_init__(self):
        others = {port.name for port in self.ports if not port.name.startswith((REGISTERS + "_", MEMORY))}
        if others != set(self.singles):
            raise ValueError(f"Boards connect {', '.join(self.singles)}; {self.module} has {', '.join(sorted(others))}.")
        if not self.managers or not self.signals(REGISTERS):
            raise ValueError(f"{self.module} needs a port {REGISTERS} and at least one that begins with {MEMORY}.")

    @property
    def managers(self) -> tuple[str, ...]:
        """Names of the AXI managers, in order."""
        names = {port.name.rpartition("_")[0] for port in self.ports if port.name.startswith(MEMORY)}
        return tuple(sorted(names))

    @property
    def singles(self) -> tuple[str, str, str]:
        """Clock, reset and interrupt: the ports that belong to no interface."""
        return CLOCK, RESET, INTERRUPT

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Names of all AXI interfaces: registers, then managers."""
        return REGISTERS, *self.managers

    def signals(self, interface: str) -> dict[str, Port]:
        """Ports of one interface by the name of their AXI signal, such as ``awaddr``."""
        return {port.name.rpartition("_")[2]: port for port in self.ports if port.name.rpartition("_")[0] == interface}

    def is_axi3(self, manager: str) -> bool:
        """True for a manager that speaks AXI3."""
        return "wid" in self.signals(manager)


def stub(core: CorePorts) -> str:
    """Verilog of a core's ports, for tools that look at what is around it."""
    declarations = "".join(f"  {port.direction} {f'[{port.width - 1}:0] ' if port.width > 1 else ''}{port.name};\n" for port in core.ports)
    return f"(* blackbox *)\nmodule {core.module} ({', '.join(port.name for port in core.ports)});\n{declarations}endmodule\n"


@dataclass(frozen=True)
class ExportedCore:
    """A core's Verilog on disk."""

    path: Path
    #: See `verilog_hash`.
    sha256: str
    ports: CorePorts


def module_name(cfg: AcceleratorConfig) -> str:
    """Name of the exported module of a machine."""
    return f"spikeloom_{cfg.name}"


def verilog_hash(text: str) -> str:
    """SHA-256 of a Verilog file as `verilog_file` writes it, without the head that tells of the machine's uses."""
    return hashlib.sha256(text.split("\n", 2 + len(WAIVED))[-1].encode()).hexdigest()


def export_core(cfg: AcceleratorConfig, folder: Path) -> ExportedCore:
    """Write the Verilog of a machine to ``folder`` and read its ports back from it."""
    name = module_name(cfg)
    about = f"Machine {cfg.name}, fingerprint {cfg.fingerprint:#010x}: {cfg.board}."
    text = verilog_file(Shell(Top(cfg)), name, about=about)
    path = folder / f"{name}.v"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return ExportedCore(path, verilog_hash(text), CorePorts(name, tuple(module_ports(text, name))))
