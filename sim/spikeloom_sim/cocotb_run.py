"""Runs cocotb benches on a design with Verilator; the build is kept as `verilator.build` keeps its own."""

import hashlib
import importlib.metadata
import os
import unittest.mock
from collections.abc import Callable, Mapping
from pathlib import Path

from amaranth.lib import wiring

from spikeloom_hw.export import to_verilog
from spikeloom_hw.shell import Shell

from . import verilator


class BenchFailed(AssertionError):
    """A cocotb test failed, or none ran; its words stand in the captured output."""


def run_bench(core: wiring.Component, name: str, bench: str, *, work: Path, seed: int = 1, test: str | None = None,
              variables: Mapping[str, str] | None = None, waves: bool = False,
              progress: Callable[[str], None] = verilator.announce) -> int:
    """Build a design and run the cocotb tests of a module on it; returns how many ran.

    Parameters
    ----------
    core : wiring.Component
        The design, with or without its `Shell`.
    name : str
        Name of the top module.
    bench : str
        Importable module of cocotb tests.
    work : Path
        Folder for results and waves.
    seed : int
        Seed of `random` in the bench.
    test : str, optional
        Regular expression: run only the tests whose names match.
    variables : Mapping, optional
        Further environment variables of the bench.
    waves : bool
        Write ``dump.vcd`` into ``work``.

    Raises
    ------
    BenchFailed
        If a test failed or none ran.
    """
    from cocotb_tools.runner import get_results, get_runner

    top = core if "aclk" in core.signature.members else Shell(core)
    text = to_verilog(top, name)
    tools = verilator.find()
    arguments = ["--assert", "--x-assign", "fast", "--x-initial", "unique", "-Wno-fatal", "-Wno-lint", "-Wno-style", "-CFLAGS", "-O0"]
    key = hashlib.sha256(repr((text, arguments, waves, tools.origin, tools.version, importlib.metadata.version("cocotb"))).encode())
    folder = verilator.cache_folder() / "cocotb" / f"{name}-{key.hexdigest()[:16]}"
    environment = {**tools.environment(), "COCOTB_LOG_LEVEL": os.environ.get("COCOTB_LOG_LEVEL", "WARNING")}
    environment.update({"COCOTB_RANDOM_SEED": str(seed), **(variables or {})})
    with unittest.mock.patch.dict(os.environ, environment):
        runner = get_runner("verilator")
        with verilator.locked(folder, lambda: progress(f"Waiting for another process that is building {name}.")):
            if not (folder / "built").exists():
                progress(f"Building the cocotb simulator of {name}, once per design.")
                folder.mkdir(parents=True, exist_ok=True)
                source = folder / f"{name}.v"
                source.write_text(text)
                runner.build(sources=[source], hdl_toplevel=name, build_dir=folder, build_args=arguments, waves=waves,
                             timescale=("1ns", "1ps"), log_file=folder / "build.log")
                (folder / "built").touch()
        results = work / "results.xml"
        try:
            runner.test(hdl_toplevel=name, hdl_toplevel_lang="verilog", test_module=bench, build_dir=folder, test_dir=work,
                        waves=waves, test_filter=test, results_xml=str(results))
        except SystemExit:
            if not results.exists():
                raise BenchFailed(f"The simulator of {name} ended before {bench} did; its words are above.") from None
    ran, failed = get_results(results)
    if failed or not ran:
        raise BenchFailed(f"{failed} of {ran} tests of {bench} failed with seed {seed}." if ran else f"{bench} ran no test.")
    return ran
