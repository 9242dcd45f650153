"""Generated documents are those that the code generates now."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_the_register_document_is_up_to_date():
    pytest.importorskip("typer")
    from spikeloom.commands.machine import REGISTERS_FILE, registers_text

    assert (ROOT / REGISTERS_FILE).read_text(encoding="utf-8") == registers_text(), "run: spikeloom registers --write"


def test_the_table_of_the_readme_is_that_of_the_results():
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "readme_table.py"), "--check"], timeout=60)
    assert done.returncode == 0, "run: python tools/readme_table.py"


def test_the_page_of_commands_and_formats_is_up_to_date():
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "contract_pages.py"), "--check"], timeout=60)
    assert done.returncode == 0, "run: python tools/contract_pages.py"


def test_the_page_of_systems_is_that_of_the_results():
    pytest.importorskip("amaranth")
    from spikeloom_sim import systems_report
    from spikeloom_sim.systems_page import page

    results = json.loads((ROOT / systems_report.RESULTS).read_text(encoding="utf-8"))
    text = page(results, ROOT)
    assert (ROOT / systems_report.PAGE).read_text(encoding="utf-8") == text, "run: python -m spikeloom_sim.systems_report --page"
    assert {row["model"] for row in results["each"]} == set(systems_report.NAMED)
    assert all(row["mismatches"] == 0 and row["compared"] > 1000 for row in results["each"])
