"""The Vivado flow: settings for the scripts beside this file, a check of them against a model, and the run itself."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from spikeloom.arch.config import AcceleratorConfig
from spikeloom.board.boards import CELL, CLOCK, INTERRUPT, REGISTERS, RESET, VLNV
from spikeloom.board.hwh import CONTROLLER_OFFSET, RANGE_BYTES

from .boards import Target
from .core import ExportedCore
from .vivado_model import Scenario, Vivado
from .vivado_tcl import TclError, run

SCRIPTS = Path(__file__).parent
SCRIPT = "vivado_build.tcl"
#: Oldest Vivado whose files lie where the scripts look; the newest that they were written after the manuals of.
OLDEST, NEWEST = "2020.2", "2025.2"
PROJECT, DESIGN, PS_CELL = "spikeloom", "system", "ps"
#: Names that a build leaves for pynq, which wants one stem.
BIT, HWH = "spikeloom.bit", "spikeloom.hwh"


class VivadoError(RuntimeError):
    """Vivado is missing, too old or stopped; the message says which, and what to do."""


@dataclass(frozen=True)
class Folders:
    """Where a build reads and writes; absolute."""

    work: Path
    output: Path

    @property
    def reports(self) -> Path:
        """Reports of Vivado."""
        return self.work / "reports"


def _tcl(value) -> str:
    """A Tcl word. Paths may hold blanks but nothing that ends a word in braces."""
    if isinstance(value, (list, tuple)):
        return "[list " + " ".join(_tcl(item) for item in value) + "]"
    if isinstance(value, dict):
        return "[dict create " + " ".join(f"{_tcl(key)} {_tcl(item)}" for key, item in value.items()) + "]"
    text = str(value)
    if re.search(r"[{}\\]", text):
        raise ValueError(f"{text!r} holds a brace or a backslash, which the Tcl scripts do not take; use another folder.")
    return "{" + text + "}"


def settings(target: Target, cfg: AcceleratorConfig, core: ExportedCore, folders: Folders, *, scripts: Path = SCRIPTS,
             jobs: int = 4) -> dict:
    """What the scripts are told, by the names that they use."""
    board, ports = target.board, core.ports
    if len(ports.managers) > len(target.memory_ports):
        raise ValueError(f"{ports.module} has {len(ports.managers)} managers; {board.title} has {len(target.memory_ports)} memory ports.")
    protocols = {"AXI3" if ports.is_axi3(name) else "AXI4" for name in ports.managers}
    if board.zynq7 and protocols != {"AXI3"}:
        raise ValueError(f"Memory ports of {board.title} speak AXI3: machine {cfg.name!r} needs axi3=True.")
    return {
        "script_dir": scripts, "work_dir": folders.work, "report_dir": folders.reports, "ip_dir": folders.work / "ip",
        "bit_file": folders.output / BIT, "hwh_file": folders.output / HWH, "oldest_version": OLDEST, "jobs": jobs,
        "part": target.part, "device_family": board.family, "family": "zynq7" if board.zynq7 else "zynqmp",
        "board_definition": target.definition or "", "project": PROJECT, "design": DESIGN, "ps": PS_CELL, "cell": CELL, "vlnv": VLNV,
        "machine": cfg.name, "fingerprint": f"{cfg.fingerprint:#010x}", "clock_mhz": f"{cfg.clock_mhz:g}",
        "verilog": core.path, "top": ports.module, "clock": CLOCK, "reset": RESET, "interrupt": INTERRUPT, "registers": REGISTERS,
        "managers": ports.managers, "protocol": protocols.pop(), "data_width": ports.signals(ports.managers[0])["wdata"].width,
        "bus_ports": {name: [port.name for port in ports.signals(name).values()] for name in ports.interfaces},
        "memory_ports": target.memory_ports[:len(ports.managers)], "base_address": f"{board.base_address:#x}",
        "interrupt_address": f"{board.base_address + CONTROLLER_OFFSET:#x}", "range_bytes": f"{RANGE_BYTES:#x}",
    }


def write_settings(values: dict, path: Path) -> None:
    """Write settings as a Tcl script of `set`."""
    text = "".join(f"set {name} {_tcl(value)}\n" for name, value in values.items())
    path.write_text(f"# Written by spikeloom_hw.boards.vivado; do not edit.\n{text}", encoding="utf-8")


def check(settings_file: Path, values: dict, core: ExportedCore, scenario: Scenario | None = None) -> Vivado:
    """Run the scripts against the model.

    Returns
    -------
    Vivado
        The model at the end: a bitstream and its description were copied to where they belong.

    Raises
    ------
    TclError
        When a command would fail, or the design it makes would not work.
    NoTcl
        When this computer runs no Tcl.
    """
    model = Vivado(core.ports, scenario)
    run(Path(values["script_dir"]) / SCRIPT, [str(settings_file)], model.answer)
    if model.copied != {"bit": str(values["bit_file"]), "hwh": str(values["hwh_file"])}:
        raise TclError(f"The scripts end without bitstream and description in place; they copied {model.copied or 'nothing'}.")
    base, cell = int(values["base_address"], 0), values["cell"]
    if model.addresses.get(f"{cell}/{values['registers']}/reg0") != (base, int(values["range_bytes"], 0)):
        raise TclError(f"The registers lie at {model.addresses}, software looks at {base:#x}.")
    for manager, port in zip(values["managers"], values["memory_ports"]):
        reached = model.joined[f"{cell}/{manager}"]
        if not reached.endswith(f"/{port}"):
            through = reached.partition("/")[0]
            reached = model.joined.get(f"{through}/M00_AXI", "")
        if reached != f"{values['ps']}/{port}":
            raise TclError(f"{manager} reaches {reached or 'nothing'}, not {port}.")
    clock = next(value for key, value in model.cells[values["ps"]].configuration.items()
                 if key in ("PCW_FPGA0_PERIPHERAL_FREQMHZ", "PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ"))
    if clock != values["clock_mhz"]:
        raise TclError(f"The fabric's clock is {clock} MHz, the machine's {values['clock_mhz']} MHz.")
    return model


#: What must end a build, with a word that the reason must hold; the last only where a board definition is needed.
_FAILURES = (
    (Scenario(version="2019.1"), "2019.1"), (Scenario(setup=-0.2), "misses its clock"), (Scenario(hold=-0.01), "misses its clock"),
    (Scenario(pulse=-0.1), "misses its clock"), (Scenario(broken_step="route_design"), "stopped in route_design"),
    (Scenario(broken_step="write_bitstream"), "stopped in write_bitstream"), (Scenario(boards=()), "board definition"),
)


def audit(settings_file: Path, values: dict, core: ExportedCore) -> None:
    """`check` under every scenario: those that must succeed, and those in which no bitstream may come out.

    Raises
    ------
    TclError
        As `check` does, and when the scripts go on where they must stop.
    """
    hidden = (*values["managers"], values["registers"], values["interrupt"])
    for scenario in (Scenario(), Scenario(version="2025.2", hidden=hidden, fixed_frequency=True)):
        check(settings_file, values, core, scenario)
    for scenario, word in _FAILURES if values["board_definition"] else _FAILURES[:-1]:
        try:
            check(settings_file, values, core, scenario)
        except TclError as error:
            if word not in str(error):
                raise TclError(f"Instead of {word!r} the scripts say: {error}") from error
        else:
            raise TclError(f"The scripts make a bitstream although Vivado says: {word}.")


def version_of(program: str) -> str:
    """Version of a Vivado program, such as 2022.1."""
    shown = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=300)
    found = re.search(r"[Vv]ivado v(\d{4}\.\d+)", shown.stdout)
    if found is None:
        raise VivadoError(f"{program} does not say which Vivado it is: {shown.stdout.strip()[:200] or shown.stderr.strip()[:200]}")
    return found[1]


def judge(version: str) -> str:
    """A remark on a version; empty where there is nothing to say. Raises VivadoError when it is too old."""
    year, minor = map(int, version.split("."))
    if (year, minor) < tuple(map(int, OLDEST.split("."))):
        raise VivadoError(f"Vivado {version} is too old: the scripts need {OLDEST} or newer.")
    if (year, minor) > tuple(map(int, NEWEST.split("."))):
        return f"Vivado {version} is newer than {NEWEST}, the last that the scripts were written for; cells may have changed."
    return ""


def find() -> str | None:
    """The Vivado program on PATH."""
    return shutil.which("vivado")


def implement(program: str, settings_file: Path, folders: Folders, *, deadline_s: float = 6 * 3600) -> None:
    """Run Vivado. Raises VivadoError with its last error, or the deadline."""
    log = folders.work / "vivado.log"
    command = [program, "-mode", "batch", "-nojournal", "-log", str(log), "-notrace", "-source", str(SCRIPTS / SCRIPT),
               "-tclargs", str(settings_file)]
    try:
        done = subprocess.run(command, cwd=folders.work, timeout=deadline_s)
    except subprocess.TimeoutExpired as error:
        raise VivadoError(f"Vivado did not end within {deadline_s / 3600:g} hours; its log is {log}.") from error
    if done.returncode:
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        errors = [line for line in text.splitlines() if line.startswith("ERROR") or "misses its clock" in line]
        raise VivadoError(f"{errors[-1] if errors else 'Vivado stopped without a word'} (log: {log})")


#: What a utilisation report calls the resources, on either family.
_ROWS = {"lut": r"(?:Slice|CLB) LUTs", "ff": r"(?:Slice|CLB) Registers", "bram": "Block RAM Tile", "dsp": "DSPs"}


def read_reports(folder: Path) -> dict:
    """Figures of a routed design from Vivado's reports: slacks in ns, clock in MHz, resources used.

    Raises
    ------
    VivadoError
        When a report is missing or not of the kind that is known.
    """
    try:
        timing = dict(line.split(maxsplit=1) for line in (folder / "timing.txt").read_text().splitlines())
        text = (folder / "utilization.rpt").read_text(errors="replace")
    except OSError as error:
        raise VivadoError(f"Vivado left no report {error.filename}.") from error
    figures = {name: float(timing[name]) for name in ("setup", "hold", "pulse", "clock_mhz")} | {"vivado": timing["vivado"]}
    for name, row in _ROWS.items():
        found = re.search(rf"^\|\s*{row}\*?\s*\|\s*([\d.]+)\s*\|", text, re.MULTILINE)
        if found is None:
            raise VivadoError(f"{folder / 'utilization.rpt'} has no row for {name}.")
        figures[name] = float(found[1])
    return figures
