"""The list of systems: complete, honest, and every network of it equal to the integer model on the emulator."""

import json
import re
from pathlib import Path

import pytest

from spikeloom.arch.config import ATTENTIONS, HEADS, NEURONS, RESIDUALS, check_fit
from spikeloom.arch.presets import preset
from spikeloom.compiler import compile_model
from spikeloom.driver.device import Device
from spikeloom.driver.verify import verify, verify_encoding
from spikeloom.model.emulator import Emulator
from spikeloom.model.integer_model import IntegerModel
from spikeloom.systems import ROWS, find

ROOT = Path(__file__).resolve().parent.parent
RUNNABLE = [row for row in ROWS if row.changes is not None]


def compare(device: Device, row, seed: int):
    """A network of that row, never trained, on a device of the machine that it asks for."""
    if row.options is not None:
        pytest.importorskip("torch", reason="torch: not installed")
    config, tensors = row.network(seed)
    device.load(compile_model(config, tensors, device.cfg, logit_scale=64.0))
    reference = IntegerModel(config, tensors)
    if config.bidirectional:
        return verify_encoding(device, reference, list(range(3, 13)))
    return verify(device, reference, [1, 2], min(8, config.context - 2))


def test_names_are_unique_and_states_known():
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert {row.state for row in ROWS} <= {"works", "golden only", "missing"}
    assert all(set(row.to_dict()) >= {"name", "paper", "golden", "gateware", "state", "command"} for row in ROWS)
    with pytest.raises(ValueError, match="BiSpikCLM"):
        find("nothing")


def test_every_option_of_the_contract_is_in_some_network():
    configs = [row.config for row in RUNNABLE]
    for field, choices in (("neuron", NEURONS), ("attention", ATTENTIONS), ("residual", RESIDUALS), ("embedding", ("current", "spikes"))):
        assert {getattr(config, field) for config in configs} == set(choices), field
    assert {config.head for config in configs} == set(HEADS)
    assert {config.bidirectional for config in configs} == {False, True}
    assert any(config.steps > 1 for config in configs)


@pytest.mark.parametrize("row", RUNNABLE, ids=lambda row: row.name)
def test_runs_on_the_emulator(row, seed):
    machine = preset(row.preset)
    check_fit(row.config, machine)
    with Device(Emulator(machine), machine) as device:
        report = compare(device, row, seed % 1000)
    assert report.compared > 100 and report.mismatches == 0, report.first


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_a_row_points_to_exists(row):
    """Golden modules, configs, released models and test selections named in the list are there."""
    for module in re.findall(r"spikeloom(?:\.\w+)+", row.golden):
        path = ROOT / "sw" / Path(*module.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), module
    for config in re.findall(r"config ([\w-]+)", row.golden):
        assert (ROOT / "sw" / "spikeloom" / "model" / "configs" / f"{config}.json").is_file(), config
    command = row.to_dict()["command"]
    for model in re.findall(r"--model ([\w-]+)", command):
        assert (ROOT / "sw" / "spikeloom" / "models" / model / "model.safetensors").is_file(), model
    for path, word in re.findall(r"pytest (\S+)(?: -k (\w+))?", command):
        files = [ROOT / path] if (ROOT / path).is_file() else sorted((ROOT / path).rglob("test_*.py"))
        assert files and (not word or any(re.search(rf"def test_\w*{word}", f.read_text()) for f in files)), command


def test_the_command_lists_and_runs(tmp_path):
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from spikeloom.cli import app

    out = tmp_path / "systems.json"
    assert CliRunner().invoke(app, ["systems", "--json", str(out)]).exit_code == 0
    assert [row["name"] for row in json.loads(out.read_text())] == [row.name for row in ROWS]
    done = CliRunner().invoke(app, ["systems", "--run", "T-LIF"])
    assert done.exit_code == 0 and "0 differ" in done.output
    done = CliRunner().invoke(app, ["systems", "--run", "LayerNorm"])
    assert done.exit_code == 2
