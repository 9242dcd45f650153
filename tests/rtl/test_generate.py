"""`spikeloom generate --device rtl` with the model that the project ships: text, keys, and the same tokens as the emulator."""

import json

import pytest

pytest.importorskip("typer")
pytest.importorskip("tokenizers")

from typer.testing import CliRunner

from spikeloom.cli import app
from spikeloom.model import store

pytestmark = pytest.mark.rtl

KEYS = ("text tokens token_ids mismatches cycles_per_token bytes_per_token rows_wanted rows_skipped utilisation seconds device preset "
        "model seed").split()


@pytest.fixture(autouse=True)
def shipped():
    if "stories-260k" not in store.available():
        pytest.skip("model: stories-260k is not in this checkout")


def generate(tmp_path, device, *options):
    out = tmp_path / f"{device}.json"
    done = CliRunner().invoke(app, ["generate", "Once upon a time", "--device", device, "--tokens", "24", "--ignore-end",
                                    "--json", str(out), *options])
    assert done.exit_code == 0, done.output
    return json.loads(out.read_text()), done.output


@pytest.mark.parametrize("options", [
    (), ("--dense",), ("--temperature", "0.8", "--seed", "5"), ("--temperature", "1.0", "--top-k", "4", "--seed", "6", "--dense")],
    ids=["greedy", "dense", "sampled", "sampled-dense"])
def test_rtl_says_what_the_emulator_says(tmp_path, options):
    rtl, shown = generate(tmp_path, "rtl", *options)
    emulated, _ = generate(tmp_path, "emulator", *options)
    assert list(rtl) == KEYS
    for key in ("text", "tokens", "token_ids", "rows_wanted", "rows_skipped", "bytes_per_token", "model", "preset", "seed"):
        assert rtl[key] == emulated[key], key
    assert rtl["mismatches"] == emulated["mismatches"] == 0
    assert rtl["tokens"] == len(rtl["token_ids"]) == 24 and rtl["device"] == "rtl"
    assert "".join(rtl["text"].split()) in "".join(shown.split())
    assert rtl["cycles_per_token"] > 0 and 0 < rtl["utilisation"] <= 1


def test_the_counters_of_dense_and_sparse_differ_as_they_must(tmp_path):
    sparse, _ = generate(tmp_path, "rtl")
    dense, _ = generate(tmp_path, "rtl", "--dense")
    assert sparse["token_ids"] == dense["token_ids"]
    assert dense["rows_wanted"] == sparse["rows_wanted"] + sparse["rows_skipped"] and dense["rows_skipped"] == 0
    assert dense["cycles_per_token"] > 1.2 * sparse["cycles_per_token"]


def test_shakespeare_writes_characters(tmp_path):
    """The character model: 24 sampled characters from RTL, none of the compared values differs, and the emulator writes the same."""
    if "shakespeare" not in store.available():
        pytest.skip("model: shakespeare is not in this checkout")
    said = {}
    for device in ("rtl", "emulator"):
        out = tmp_path / f"{device}.json"
        done = CliRunner().invoke(app, ["generate", "ROMEO:", "--model", "shakespeare", "--device", device, "--tokens", "24",
                                        "--ignore-end", "--temperature", "0.8", "--seed", "1", "--json", str(out)])
        assert done.exit_code == 0, done.output
        said[device] = json.loads(out.read_text())
    assert said["rtl"]["mismatches"] == 0 and said["rtl"]["token_ids"] == said["emulator"]["token_ids"]
    assert len(said["rtl"]["text"]) == said["rtl"]["tokens"] == 24 and said["rtl"]["cycles_per_token"] > 0
