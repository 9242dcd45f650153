"""`boards.running`: tools end in time, with what they have started, and say how far they are."""

import os
import sys
import time

import pytest

from spikeloom_hw.boards import running


def python(text):
    return [sys.executable, "-c", text]


def test_exit_codes_and_words_come_back(tmp_path):
    log = tmp_path / "log"
    assert running.run(python("print('words'); raise SystemExit(3)"), log, folder=tmp_path, deadline_s=60) == 3
    assert log.read_text() == "words\n"


def test_what_a_tool_has_started_ends_with_it(tmp_path):
    child = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(600)"
    started = time.monotonic()
    with pytest.raises(running.TookTooLong, match="did not end within 4 s"):
        running.run(python(parent), tmp_path / "log", folder=tmp_path, deadline_s=4)
    assert time.monotonic() - started < 60
    for _ in range(100):
        if not alive(int((tmp_path / "pid").read_text())):
            return
        time.sleep(0.1)
    raise AssertionError("the child goes on")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def test_it_says_how_far_the_tool_is(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "REMARK_S", 0)
    said = []
    running.run(python("import time\nprint('2.46. Executing ABC9 pass.', flush=True)\nprint('more', flush=True)\ntime.sleep(3)"),
                tmp_path / "log", folder=tmp_path, deadline_s=60, say=said.append)
    assert said and said[-1].endswith("s: 2.46. Executing ABC9 pass.")
    (tmp_path / "log").write_text("Info: routed 5\nother\n")
    assert running.milestone(tmp_path / "log") == "Info: routed 5"
