"""Runs Tcl scripts whose Vivado commands are answered by Python: by `tclsh`, else by the Tcl inside Python's tkinter."""

import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

#: Plain Tcl stays plain; what Tcl does not know, and what would change files, is asked; what would be
#: written goes nowhere.
_SHIM = """
rename file plain_file
proc file {sub args} {
    if {$sub in {copy delete mkdir rename}} { return [ask file $sub {*}$args] }
    uplevel 1 [list plain_file $sub {*}$args]
}
rename open plain_open
proc open {path {access r}} {
    if {$access ne "r"} { set path /dev/null }
    plain_open $path $access
}
proc unknown {args} { ask {*}$args }
proc exec {args} { error "The scripts start no programs." }
"""
#: Words cross the pipe in hexadecimal, so that they may hold anything.
_PIPE = """
proc ask {args} {
    set words {}
    foreach word $args { append words " x" [binary encode hex [encoding convertto utf-8 $word]] }
    puts "ask$words"
    flush stdout
    gets stdin answer
    lassign $answer verdict text
    set text [encoding convertfrom utf-8 [binary decode hex [string range $text 1 end]]]
    if {$verdict eq "error"} { error $text }
    return $text
}
"""


class TclError(RuntimeError):
    """A script stopped; the message is Tcl's, or that of what answered its commands."""


class NoTcl(RuntimeError):
    """There is no Tcl on this computer."""


Answer = Callable[..., str]


def run(script: Path, arguments: list[str], answer: Answer, *, deadline_s: float = 60) -> None:
    """Run a script to its end.

    Parameters
    ----------
    script : Path
    arguments : list of str
        Its ``argv``.
    answer : callable
        Is given the words of each command that Tcl does not know; returns its result or raises TclError.
    deadline_s : float
        Seconds, for `tclsh`.

    Raises
    ------
    TclError
        When the script ends with an error.
    NoTcl
        When there is nothing that runs Tcl.
    """
    if shutil.which("tclsh"):
        _run_tclsh(script, arguments, answer, deadline_s)
    else:
        _run_tkinter(script, arguments, answer)


def _words(items) -> str:
    """A Tcl list."""
    return " ".join("{" + str(item) + "}" for item in items)


def _run_tclsh(script, arguments, answer, deadline_s):
    program = f"""{_PIPE}{_SHIM}
set argv [list {_words(arguments)}]
if {{[catch {{source {{{script}}}}} reason]}} {{
    puts "failed x[binary encode hex [encoding convertto utf-8 $reason]]"
}} else {{
    puts "done"
}}
"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.tcl"
        path.write_text(program, encoding="utf-8")
        process = subprocess.Popen(["tclsh", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        alarm = threading.Timer(deadline_s, process.kill)
        alarm.start()
        try:
            _serve(process, answer)
        finally:
            alarm.cancel()
            process.kill()
            process.communicate()


def _serve(process, answer):
    """Answer until the script has ended; lines of other beginnings are what it prints."""
    for line in process.stdout:
        verb, *rest = line.split() or [""]
        if verb == "done":
            return
        if verb in ("ask", "failed"):
            words = [bytes.fromhex(word[1:]).decode() for word in rest]
            if verb == "failed":
                raise TclError(words[0])
            process.stdin.write(_reply(answer, words))
            process.stdin.flush()
    raise TclError("tclsh ended without a word, or ran past its deadline.")


def _reply(answer, words):
    try:
        return f"ok x{answer(*words).encode().hex()}\n"
    except TclError as error:
        return f"error x{str(error).encode().hex()}\n"


def _run_tkinter(script, arguments, answer):
    try:
        import tkinter
        interpreter = tkinter.Tcl()
    except ImportError as error:
        raise NoTcl("There is no Tcl here; install one, for example: apt install tcl") from error
    refusals = []

    def ask(*words):
        # What a Python exception says does not reach the script's caller through Tcl.
        try:
            return answer(*map(str, words))
        except TclError as error:
            refusals.append(str(error))
            raise

    interpreter.createcommand("ask", ask)
    try:
        interpreter.eval(_SHIM)
        interpreter.eval(f"set argv [list {_words(arguments)}]")
        interpreter.eval(f"source {{{script}}}")
    except tkinter.TclError as error:
        raise TclError(refusals[-1] if refusals else str(error)) from error
