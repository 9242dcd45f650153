"""Runs a tool with its words in a log, says now and then how far it is, and ends it with all its children in time."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

#: Seconds between two remarks about a tool that is still running.
REMARK_S = 20
#: Lines of logs that say where a tool is: a pass of Yosys, a step of nextpnr.
_MILESTONE = re.compile(r"^(?:\d+(?:\.\d+)*\. Executing .*|Info: .*)$", re.MULTILINE)


class TookTooLong(RuntimeError):
    """The deadline passed; the tool has been ended."""


def milestone(log: Path) -> str:
    """The last line of a log that says how far the tool is; empty when there is none near its end."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65536))
        found = _MILESTONE.findall(file.read().decode("utf-8", errors="replace"))
    return found[-1].strip() if found else ""


def run(command: list[str], log: Path, *, folder: Path, deadline_s: float, say: Callable[[str], None] | None = None) -> int:
    """Run a command in a folder; returns its exit code.

    Parameters
    ----------
    log : Path
        Receives what it prints.
    deadline_s : float
        Seconds after which it is ended, and whatever it has started with it.
    say : callable, optional
        Is told every `REMARK_S` seconds how far it is.

    Raises
    ------
    TookTooLong
        When it was ended.
    """
    started = remarked = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while (left := started + deadline_s - time.monotonic()) > 0:
                try:
                    return process.wait(min(left, 1.0))
                except subprocess.TimeoutExpired:
                    if say and time.monotonic() - remarked >= REMARK_S:
                        remarked = time.monotonic()
                        say(f"{remarked - started:.0f} s: {milestone(log)}")
            raise TookTooLong(f"did not end within {deadline_s:.0f} s")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
