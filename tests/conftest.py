"""What all tests share: the seed, the data folder, and a summary that names what was skipped."""

import collections
import os
import random
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# The models are small: threads of torch wait for each other longer than they compute, worst beside another process.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=None, help="seed of the fixture `seed`; default: 1")
    parser.addoption("--all-builds", action="store_true", help="also run what needs further Verilator builds")


def pytest_collection_modifyitems(config, items):
    if "board" not in (config.option.markexpr or ""):
        for item in items:
            if "board" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="board: no board here; run on one with -m board"))
    if not config.getoption("--all-builds"):
        for item in items:
            if "builds" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="builds: further Verilator builds; run with --all-builds"))


@pytest.fixture
def seed(request) -> int:
    """Seed of a randomised test, printed with every failure; another one comes with ``--seed``."""
    value = request.config.getoption("--seed")
    value = 1 if value is None else value
    print(f"seed {value}")
    random.seed(value)
    return value


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of texts and small teachers: ``$SPIKELOOM_DATA``, else ``../shared/data`` beside the repository."""
    named = os.environ.get("SPIKELOOM_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"data: no folder {folder}" if named else "data: SPIKELOOM_DATA is not set and ../shared/data does not exist")
    return folder


def pytest_terminal_summary(terminalreporter):
    reasons = collections.Counter()
    for report in terminalreporter.stats.get("skipped", []):
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[text.removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section("skipped")
        for reason, count in sorted(reasons.items()):
            terminalreporter.line(f"{count:4d}  {reason}")
