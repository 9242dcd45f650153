"""How a run on a device ends for the user: a table of what it cost, a file with the result, an exit code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from .common import DIFFERS, console

if TYPE_CHECKING:
    from ..driver.verify import Report


def rates(counters: Mapping[str, int], *, events: int = 1) -> dict:
    """Per processed token, prompt included; None where the device has no clock. `events` rows can be added in a cycle."""
    processed, cycles = max(1, counters["tokens"]), counters["cycles"]
    return {
        "cycles_per_token": cycles / processed if cycles else None, "bytes_per_token": counters["bytes_rows"] / processed,
        "rows_wanted": counters["rows_wanted"], "rows_skipped": counters["rows_skipped"],
        "utilisation": counters["event_tiles"] / (cycles * events) if cycles else None,
    }


def keep(result: Mapping, json_file: Path | None) -> None:
    """Write a result, where a file is named."""
    if json_file:
        json_file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def close(result: Mapping, report: "Report", json_file: Path | None, *, reason: str) -> None:
    """Show and keep a result that holds `rates`; exit with DIFFERS where the device and the integer model differ.

    Parameters
    ----------
    result : mapping
        `tokens`, `seconds`, `mismatches` and the keys of `rates` are shown.
    reason : str
        Why the run ended.
    """
    _show(result, reason, report.compared)
    keep(result, json_file)
    if report.mismatches:
        console.print(f"[bold red]{report.mismatches} of {report.compared} values differ from the integer model.[/] {report.first}")
        raise typer.Exit(DIFFERS)


def _show(result, reason, compared):
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))

    def row(name, value):
        table.add_row(name, value, style="dim")

    rows = result["rows_wanted"] + result["rows_skipped"]
    row("tokens", f"{result['tokens']} ({reason.lower().replace('_', ' ')})")
    row("tokens/s on this computer", f"{result['tokens'] / max(result['seconds'], 1e-9):.1f}")
    row("cycles/token", "-" if result["cycles_per_token"] is None else f"{result['cycles_per_token']:.0f}")
    row("weight bytes/token", f"{result['bytes_per_token']:.0f}")
    row("rows read, skipped", f"{result['rows_wanted']}, {result['rows_skipped']} ({result['rows_skipped'] / max(1, rows):.0%})")
    row("utilisation", "-" if result["utilisation"] is None else f"{result['utilisation']:.0%}")
    row("mismatches", f"{result['mismatches']} of {compared:,} values compared")
    console.print(table)
