"""The tooling keeps its promises: what a target installs, what the bootstrap says, what continuous integration runs."""

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

try:
    import tomllib
except ImportError:  # Python 3.10
    tomllib = None

ROOT = Path(__file__).resolve().parent.parent
#: Packages that make an installation large: never for those who only want to see text come out.
HEAVY = {"torch", "torchvision", "pynq", "cuda-python"}


@pytest.fixture
def bootstrap():
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "tools" / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def project():
    if tomllib is None:
        pytest.skip("python: tomllib needs Python 3.11")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def extras_of(target):
    """Extras that a make target asks the bootstrap for."""
    text = (ROOT / "Makefile").read_text()
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", text, re.MULTILINE)[1]
    return re.findall(r"\$\(call need,([\w ]*)\)", recipe)[0].split()


def names_installed(requirements):
    """Names of the requirements and, where they are installed here, of all that they require in turn."""
    seen, left = set(), [Requirement(text) for text in requirements]
    while left:
        requirement = left.pop()
        key = (requirement.name.lower(), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            further = map(Requirement, importlib.metadata.requires(requirement.name) or [])
        except importlib.metadata.PackageNotFoundError:
            continue
        contexts = [{"extra": extra} for extra in ("", *requirement.extras)]
        left += [needed for needed in further
                 if needed.marker is None or any(needed.marker.evaluate(context) for context in contexts)]
    return {name for name, _ in seen}


def test_generate_never_installs_torch(project):
    extras = extras_of("generate")
    assert extras == ["cli", "hw", "sim"]
    requirements = [text for extra in extras for text in project["optional-dependencies"][extra]] + project["dependencies"]
    names = names_installed(requirements)
    assert {"numpy", "amaranth", "typer"} <= names
    assert not names & HEAVY


def test_every_extra_that_a_target_names_exists(project):
    calls = re.findall(r"^\t\$\(call need,([\w ]*)\)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(calls) > 5
    assert {extra for call in calls for extra in call.split()} <= project["optional-dependencies"].keys()


def test_base_install_is_numpy_alone(project):
    assert [Requirement(text).name for text in project["dependencies"]] == ["numpy"]


def test_every_requirement_has_a_reason():
    text = (ROOT / "pyproject.toml").read_text()
    tables = text.partition("[project.optional-dependencies]")[2].partition("[project.scripts]")[0]
    lines = [line.strip() for line in tables.splitlines()]
    for before, line in zip(lines, lines[1:]):
        if line.startswith('"'):
            assert "  # " in line or before.startswith("# "), f"no reason beside {line}"


def test_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())
    shown = subprocess.run(["make", "-s", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in shown.splitlines() if line.strip()} >= phony


def test_bootstrap_speaks_of_an_unfit_python(bootstrap, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 8, 1))
    with pytest.raises(SystemExit, match=r"needs Python 3\.10 to 3\.13; .* is Python 3\.8\. .*make PYTHON=python3\.13"):
        bootstrap.check_python()


def test_bootstrap_names_one_line_for_all_that_is_missing(bootstrap, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"Run: sudo apt-get install -y g\+\+ make perl$"):
        bootstrap.check_system(["cli", "sim"], install=False)
    assert bootstrap.missing_packages(["cli"]) == []


def test_bootstrap_does_nothing_twice(bootstrap, monkeypatch, tmp_path):
    calls = []

    def run(command, **_):
        calls.append(command)
        if "venv" in command:
            (tmp_path / "venv" / "bin").mkdir(parents=True)
            (tmp_path / "venv" / "bin" / "python").touch()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(bootstrap.subprocess, "run", run)
    bootstrap.install(tmp_path / "venv", ["cli", "hw"])
    assert len(calls) == 2 and calls[1][-1].endswith("[cli,hw]")
    bootstrap.install(tmp_path / "venv", ["hw"])
    assert len(calls) == 2
    bootstrap.install(tmp_path / "venv", ["sim"])
    bootstrap.install(tmp_path / "venv", ["cli", "sim"])
    assert len(calls) == 3


def test_ci_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    calls = re.findall(r"^timed make (.*)$", script.read_text(), re.MULTILINE)
    assert calls[0] == "test" and "test-boards" in calls[1:]
    subprocess.run(["bash", "-n", str(script)], check=True)
