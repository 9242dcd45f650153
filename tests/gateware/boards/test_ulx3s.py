"""`boards.ulx3s`: its top, its pins, its clock, and what the flow makes of the tools' words."""

import json
import re
import sys

import pytest

from spikeloom.arch.presets import preset
from spikeloom.driver.uart import BAUD
from spikeloom_hw.boards import ulx3s_tools as tools
from spikeloom_hw.boards.serial_core import SerialCore
from spikeloom_hw.boards.ulx3s import PINS, PllDividers, Ulx3s, constraints
from spikeloom_hw.export import port_list


def test_every_port_has_its_pins_and_no_pin_two_ports():
    ports = {port.name: port.width for port in port_list(Ulx3s(preset("ulx3s"), baud=BAUD))}
    assert ports == {name: len(pins) for name, (pins, _) in PINS.items()}
    sites = re.findall(r'^LOCATE COMP "(\S+)" SITE "(\w+)";$', constraints(), re.MULTILINE)
    assert len(sites) == sum(ports.values()) == len({site for _, site in sites}) == len({port for port, _ in sites})
    assert 'FREQUENCY PORT "clk_25mhz" 25 MHZ;' in constraints()


@pytest.mark.parametrize("mhz", [10, 25, 45, 50, 62.5, 100, 125])
def test_the_clock_is_exact_and_the_oscillator_in_its_range(mhz):
    dividers = PllDividers.of(mhz)
    assert 25 * dividers.feedback / dividers.input == mhz and 400 <= mhz * dividers.output <= 800


def test_a_clock_that_cannot_be_made_is_refused():
    with pytest.raises(ValueError, match="cannot make 51.3 MHz"):
        PllDividers.of(51.3)


def test_the_preset_is_one_the_link_can_serve():
    cfg = preset("ulx3s")
    assert cfg.address_width <= 32 and cfg.data_width == 64 and not cfg.axi3
    with pytest.raises(ValueError, match="AXI3"):
        SerialCore(preset("pynq_z2"), clock_hz=50e6, baud=BAUD)


def test_a_missing_tool_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(tools.FlowError, match=r"no nextpnr-ecp5 here; get one with: pip install .*ecp5\]"):
        tools.program("nextpnr-ecp5")


def test_a_tool_that_fails_or_takes_too_long_says_so(tmp_path):
    script = "print('INFO: well'); print('ERROR: too many cells'); raise SystemExit(1)"
    with pytest.raises(tools.FlowError, match="ERROR: too many cells; its log is"):
        tools.run([sys.executable, "-c", script], tmp_path / "log", tools.Deadline(60), folder=tmp_path)
    with pytest.raises(tools.FlowError, match="did not end in time: 0 s .* --deadline"):
        tools.run([sys.executable, "-c", "import time; time.sleep(30)"], tmp_path / "log", tools.Deadline(0), folder=tmp_path)
