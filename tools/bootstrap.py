#!/usr/bin/env python3
"""Makes an environment with the extras that a make target needs. Standard library only.

It checks what pip cannot install, says in one line how to get it, creates the virtual environment, and installs the
project with the named extras. When nothing has changed since the last time it does nothing.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 10), (3, 13)
#: Program to look for and Debian's package that brings it, by extra.
PROGRAMS = {"sim": {"make": "make", "g++": "g++", "perl": "perl"}}


def fail(text):
    """End with words."""
    sys.exit(f"bootstrap: {text}")


def check_python():
    """Refuse a Python that the project was not made for."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        here, low, high = (".".join(map(str, version[:2])) for version in (sys.version_info, OLDEST, NEWEST))
        fail(f"Spikeloom needs Python {low} to {high}; {sys.executable} is Python {here}. "
             f"Install one of them and call: make PYTHON=python{high}")


def missing_packages(extras):
    """Debian packages of what is not installed and what pip cannot install."""
    missing = [package for extra in extras for program, package in PROGRAMS.get(extra, {}).items() if not shutil.which(program)]
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        missing.append("python3-venv")
    return sorted(set(missing))


def check_system(extras, install):
    """Say which line brings what is missing, or run it."""
    missing = missing_packages(extras)
    if not missing:
        return
    line = f"apt-get install -y {' '.join(missing)}"
    if not (install and shutil.which("apt-get") and os.geteuid() == 0):
        fail(f"programs are missing. Run: sudo {line}")
    print(f"bootstrap: {line}", flush=True)
    subprocess.run(["apt-get", "update", "-q"], check=True)
    subprocess.run(line.split(), check=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def wanted_state(extras):
    """What the stamp of an up-to-date environment says."""
    contents = (ROOT / "pyproject.toml").read_bytes()
    return {"pyproject": hashlib.sha256(contents).hexdigest(), "python": sys.version, "extras": sorted(extras)}


def is_current(stamp, wanted):
    """True when the environment already has all that is wanted."""
    try:
        found = json.loads(stamp.read_text())
    except (OSError, ValueError):
        return None, False
    same = all(found.get(key) == wanted[key] for key in ("pyproject", "python"))
    return found, same and set(wanted["extras"]) <= set(found.get("extras", []))


#: Neurons by other authors, which the tests compare ours with. They need no more than torch for that, but would bring
#: gigabytes.
WITHOUT_DEPENDENCIES = ("spikingjelly==2.0.0; python_version >= '3.11'",)


def install(venv, extras):
    """Create the environment where needed and install the project into it."""
    stamp = venv / ".spikeloom.json"
    wanted = wanted_state(extras)
    found, current = is_current(stamp, wanted)
    if current:
        return
    python = venv / "bin" / "python"
    if found is not None and found.get("python") != sys.version or not python.exists():
        print(f"bootstrap: creating {venv}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        found = None
    if found is not None and found.get("pyproject") == wanted["pyproject"]:
        wanted["extras"] = sorted({*wanted["extras"], *found["extras"]})
    print(f"bootstrap: installing {', '.join(sorted(extras))} into {venv}; the first time takes a minute or more", flush=True)
    stamp.unlink(missing_ok=True)
    target = f"{ROOT}[{','.join(sorted(extras))}]"
    result = subprocess.run([str(python), "-m", "pip", "install", "--disable-pip-version-check", "-q", "--editable", target])
    if not result.returncode and "dev" in extras:
        command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "-q", "--no-deps", *WITHOUT_DEPENDENCIES]
        result = subprocess.run(command)
    if result.returncode:
        fail("pip could not install what is needed; its words are above. Check the network and call again.")
    stamp.write_text(json.dumps(wanted))


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extras", nargs="*", help="extras of pyproject.toml")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--apt", action="store_true", help="install missing Debian packages where this is allowed")
    parser.add_argument("--system-only", action="store_true", help="check programs, leave the environment alone")
    arguments = parser.parse_args()
    check_python()
    check_system(arguments.extras, arguments.apt)
    if not arguments.system_only:
        install(arguments.venv, arguments.extras)


if __name__ == "__main__":
    main()
