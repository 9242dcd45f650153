"""Dependencies go one way: what a board imports needs no tools of the gateware, the model or the simulator."""

import os
import subprocess
import sys

import pytest

TOOLS = {"amaranth", "torch", "cocotb", "pynq"}


@pytest.mark.parametrize("module, forbidden", [
    ("spikeloom", TOOLS | {"numpy"}),
    ("spikeloom.arch", TOOLS),
    ("spikeloom.arch.config", TOOLS),
    ("spikeloom.arch.numerics", TOOLS),
    ("spikeloom.arch.layout", TOOLS),
    ("spikeloom.driver.transport", TOOLS),
    ("spikeloom.driver.device", TOOLS | {"spikeloom_hw", "spikeloom_sim", "spikeloom.model"}),
    ("spikeloom.compiler", TOOLS),
    ("spikeloom.model.integer_model", TOOLS),
    ("spikeloom.model.emulator", TOOLS),
    ("spikeloom_hw.bus.csr", {"torch", "cocotb", "pynq", "spikeloom_sim", "spikeloom.driver", "spikeloom.model"}),
    ("spikeloom_sim.transport", {"torch", "cocotb", "pynq", "spikeloom.model"}),
])
def test_imports_only_what_lies_below(module, forbidden):
    if module.startswith(("spikeloom_hw", "spikeloom_sim")):
        pytest.importorskip("amaranth")
    code = f"import sys, {module}; print(*sorted(set({sorted(forbidden)!r}) & sys.modules.keys()))"
    # This interpreter's import path, so that the test works with and without an installed project.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [], f"importing {module} loads {result.stdout.strip()}"
