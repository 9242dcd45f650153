"""`arch.manifest`: what is written describes the machine, what is damaged is refused in words."""

import json

import pytest

from spikeloom.arch.manifest import ManifestError, manifest, read_manifest, write_manifest
from spikeloom.arch.presets import PRESETS, preset
from spikeloom.arch.registers import register_map


@pytest.mark.parametrize("name", PRESETS)
def test_round_trip(name, tmp_path):
    write_manifest(preset(name), tmp_path / "manifest.json")
    assert read_manifest(tmp_path / "manifest.json") == preset(name)


def test_registers_are_those_of_the_map():
    cfg = preset("tiny")
    registers = register_map(cfg)
    written = manifest(cfg, git="")["registers"]
    assert list(written) == list(registers)
    assert written["status"]["fields"]["reason"] == [*registers["status"].position_of("reason"), "ro"]
    assert written["status"]["address"] == registers.address("status")


@pytest.mark.parametrize("change, words", [
    (lambda r: r.update(manifest_version=99), "version 99"),
    (lambda r: r["config"].update(k_max=4), "fingerprint"),
    (lambda r: r["config"].update(cols=63), "power of two"),
    (lambda r: r["config"].update(colour=1), "no machine"),
    (lambda r: r.pop("fingerprint"), "not a manifest"),
])
def test_what_is_wrong_is_said(change, words, tmp_path):
    record = manifest(preset("sim"))
    change(record)
    (tmp_path / "m.json").write_text(json.dumps(record))
    with pytest.raises(ManifestError, match=words):
        read_manifest(tmp_path / "m.json")


def test_no_file_and_no_json(tmp_path):
    with pytest.raises(ManifestError):
        read_manifest(tmp_path / "none.json")
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(ManifestError):
        read_manifest(tmp_path / "m.json")
