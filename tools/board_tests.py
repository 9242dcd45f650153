#!/usr/bin/env python3
"""Tests the board package with each version of pynq, on a simulated board. Standard library only.

For each version: an environment of its own, into which the wheel of this checkout is installed as on a board
(`spikeloom[board]`: numpy and pynq); what it brought is checked; then the tools of the simulation join it and the tests
of tests/boards run. torch is never in these environments.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 10), (3, 12)
#: Environment -> what a board with that version has: PYNQ-Z1 and PYNQ-Z2 (image 3.1), KV260 (4.0).
ENVIRONMENTS = {
    "pynq-3.1": ("pynq==3.1.2", "pynqmetadata<0.2", "pycparser<3"),
    "pynq-4.0": ("pynq==4.0.0",),
}
#: Python of those images; where it is not installed, the Python that runs this serves.
PYTHONS = {"pynq-3.1": (3, 10), "pynq-4.0": (3, 12)}
#: For all of them: pynq imports pkg_resources, which later versions of setuptools lack.
COMMON = ("setuptools<81",)
#: Extras and packages for the tests alone.
EXTRAS, TOOLS = "hw,sim", ("pytest>=8.0", "nbclient>=0.10", "ipykernel>=6.29")
#: What a wheel is made of.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "sw", "hw", "sim")


class Deadline:
    """Runs programs while there is time.

    Parameters
    ----------
    minutes : float
        For all of them together.
    """

    def __init__(self, minutes: float):
        self._minutes, self._end = minutes, time.monotonic() + 60 * minutes

    def run(self, *command, **options) -> None:
        """Run a program; end everything in words when it fails or time is up."""
        process = subprocess.Popen([str(part) for part in command], start_new_session=True, **options)
        try:
            code = process.wait(max(1.0, self._end - time.monotonic()))
        except subprocess.TimeoutExpired:
            fail(f"this took longer than {self._minutes:g} minutes, in: {' '.join(map(str, command))}")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code:
            fail(f"this failed with exit code {code}: {' '.join(map(str, command))}")


def fail(text):
    """End with words."""
    sys.exit(f"board tests: {text}")


def version_of(program) -> str:
    """What a Python says of itself; empty when there is none, or it does not run."""
    try:
        done = subprocess.run([str(program), "-c", "import ensurepip, sys; print(sys.version)"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout.strip()


def find_python(wanted: tuple[int, int]) -> str:
    """A Python of that version, from PATH or from pyenv; else the one that runs this."""
    name = ".".join(map(str, wanted))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for program in (f"python{name}", *sorted(pyenv.glob(f"{name}.*/bin/python{name}"), reverse=True)):
        if version_of(program).startswith(f"{name}."):
            return str(program)
    return sys.executable


def build_wheel(deadline: Deadline, python: Path, folder: Path) -> Path:
    """The wheel of this checkout, from a copy without leftovers of earlier builds."""
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as copy:
        for name in SOURCES:
            source, target = ROOT / name, Path(copy) / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy(source, target)
        deadline.run(python, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "-w", folder, copy)
    return next(folder.glob("*.whl"))


def state(pins, interpreter: str) -> dict:
    """What the stamp of an environment that is up to date says."""
    contents = (ROOT / "pyproject.toml").read_bytes() + repr((pins, COMMON, EXTRAS, TOOLS)).encode()
    return {"contents": hashlib.sha256(contents).hexdigest(), "python": version_of(interpreter)}


def prepare(deadline: Deadline, venv: Path, pins, dist: Path, interpreter: str) -> Path:
    """The Python of an environment with this checkout's wheel and all that its tests need."""
    python, stamp, wanted = venv / "bin" / "python", venv / ".spikeloom.json", state(pins, interpreter)
    check = (python, "-I", ROOT / "tests" / "boards" / "check_install.py")
    pip = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check")
    if stamp.is_file() and json.loads(stamp.read_text()) == wanted:
        wheel = build_wheel(deadline, python, dist)
        deadline.run(*pip, "--no-deps", "--force-reinstall", wheel)
        deadline.run(*check)
        return python
    print(f"board tests: making {venv}; pynq takes a minute or two", flush=True)
    deadline.run(interpreter, "-m", "venv", "--clear", venv)
    wheel = build_wheel(deadline, python, dist)
    deadline.run(*pip, f"{wheel}[board]", *pins, *COMMON)
    deadline.run(*check, "--clean")
    deadline.run(*pip, f"{wheel}[{EXTRAS}]", *TOOLS, *pins, *COMMON)
    stamp.write_text(json.dumps(wanted))
    return python


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "boards", help="where environments are kept")
    parser.add_argument("--only", choices=ENVIRONMENTS, help="one version instead of all")
    parser.add_argument("--python", help="for all environments, in place of the Python of each board's image")
    parser.add_argument("--minutes", type=float, default=30, help="deadline for everything")
    parser.add_argument("tests", nargs="*", default=["tests/boards"], help="files; further options are for pytest")
    arguments, options = parser.parse_known_args()
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        fail(f"pynq runs on Python 3.10 to 3.12, this is {sys.version.split()[0]}; call: make test-boards PYTHON=python3.12")
    deadline = Deadline(arguments.minutes)
    for name, pins in ENVIRONMENTS.items():
        if arguments.only in (None, name):
            interpreter = arguments.python or find_python(PYTHONS[name])
            python = prepare(deadline, arguments.folder / name, pins, arguments.folder / "dist", interpreter)
            print(f"board tests: {name}, Python {version_of(python).split()[0]}", flush=True)
            report = arguments.folder / f"{name}.xml"  # read by spikeloom_hw.boards.status
            deadline.run(python, "-m", "pytest", "-q", "--durations=5", f"--junitxml={report}", *arguments.tests, *options, cwd=ROOT)


if __name__ == "__main__":
    main()
