"""Every released model of the named systems on the Verilated gateware, through the commands that users type: no bit differs."""

import json

import pytest

pytest.importorskip("typer")
pytest.importorskip("tokenizers")

from typer.testing import CliRunner

from spikeloom.cli import app
from spikeloom.systems import ROWS

pytestmark = pytest.mark.rtl

DECODERS = ("wd-spikingformer", "bispikclm", "spikedecoder")


def run(tmp_path, *arguments):
    out = tmp_path / "said.json"
    done = CliRunner().invoke(app, [*arguments, "--json", str(out)])
    assert done.exit_code == 0, done.output
    return json.loads(out.read_text()), done.output


@pytest.mark.parametrize("model", DECODERS)
def test_decoders_write(model, tmp_path):
    said, shown = run(tmp_path, "generate", "ROMEO:", "--model", model, "--device", "rtl", "--tokens", "12", "--ignore-end")
    assert said["mismatches"] == 0 and said["tokens"] == 12 and said["model"] == model
    assert len(said["text"]) == 12 and said["text"].strip() in shown  # a token is a character
    assert said["cycles_per_token"] > 0


def test_the_encoder_fills(tmp_path):
    said, _ = run(tmp_path, "fill", "To be or not to <mask>, that is the <mask>", "--model", "we-spikingformer", "--device", "rtl")
    assert said["mismatches"] == 0 and len(said["masks"]) == 2 and "<mask>" not in said["text"]


@pytest.mark.parametrize("second", ["Slahl I cpmraoe tehe", "Shlal I cmorape tehe"])
def test_the_encoder_classifies(second, tmp_path):
    said, _ = run(tmp_path, "classify", "Shall I compare thee", second, "--model", "we-spikingformer-pairs", "--device", "rtl")
    assert said["mismatches"] == 0 and said["name"] in ("first", "second")


def test_these_are_the_commands_of_the_list():
    """`spikeloom systems` points each named system to its released model."""
    commands = {row.name: row.to_dict()["command"] for row in ROWS if row.model}
    assert {row.model for row in ROWS if row.model} == {*DECODERS, "we-spikingformer", "we-spikingformer-pairs"}
    for name, command in commands.items():
        assert "--model" in command and "--device rtl" in command, name
