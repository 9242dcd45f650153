"""The command line, on a random model with a tokenizer of single characters."""

import json
import re
import shutil
from dataclasses import replace

import pytest

pytest.importorskip("typer")
tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("safetensors")

from typer.testing import CliRunner

from spikeloom.arch.layout import read_image, write_image
from spikeloom.cli import app
from spikeloom.commands.common import machine_for
from spikeloom.commands.machine import REGISTERS_FILE
from spikeloom.driver.errors import DeviceGone
from spikeloom.model import store
from spikeloom.model.random_model import TINY, random_model

KEYS = ("text tokens token_ids mismatches cycles_per_token bytes_per_token rows_wanted rows_skipped utilisation seconds "
        "device preset model seed").split()
ALPHABET = " abcdefghijklmnopqrstuvwxyz.é"


def character_tokenizer() -> str:
    vocabulary = {"<|end|>": 0, **{c: i + 1 for i, c in enumerate(ALPHABET)}}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.decoder = tokenizers.decoders.Fuse()
    tokenizer.add_special_tokens(["<|end|>"])
    return tokenizer.to_str()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config, tensors = random_model(11, replace(TINY, name="toy", vocabulary=1 + len(ALPHABET)))
    path = tmp_path_factory.mktemp("models") / "toy"
    store.save(path, store.StoredModel(config, tensors, 64.0, character_tokenizer()))
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_stored_models_come_back_as_they_were(folder):
    model = store.load(folder)
    config, tensors = random_model(11, model.config)
    assert model.logit_scale == 64.0 and all((model.tensors[name] == tensors[name]).all() for name in tensors)


def test_generate(folder, tmp_path):
    result = tmp_path / "out.json"
    done = run("generate", "a bee", "--model", folder, "--preset", "tiny", "--tokens", 12, "--ignore-end", "--json", result)
    assert done.exit_code == 0, done.output
    fields = json.loads(result.read_text())
    assert list(fields) == KEYS
    assert fields["tokens"] == len(fields["token_ids"]) == 12 and fields["mismatches"] == 0
    assert fields["text"].strip() and fields["text"] in done.output.replace("\n", "") and "a bee" in done.output
    tokens_alone = run("generate", "a bee", "--model", folder, "--preset", "tiny", "--tokens", 12, "--ignore-end", "--no-trace")
    compared = [int(re.search(r"0 of (\d+) values", run.output)[1]) for run in (done, tokens_alone)]
    assert compared[0] > 5 * compared[1] >= 5 * 12
    assert fields["bytes_per_token"] > 0 and fields["rows_skipped"] > 0 and fields["device"] == "emulator"


def test_dense_and_sparse_say_the_same(folder, tmp_path):
    results = []
    for flag in ("--dense", "--no-dense"):
        run("generate", "", "--model", folder, "--preset", "tiny", "--tokens", 9, "--ignore-end", flag, "--json", tmp_path / "r.json")
        results.append(json.loads((tmp_path / "r.json").read_text()))
    assert results[0]["token_ids"] == results[1]["token_ids"]
    assert results[0]["bytes_per_token"] > results[1]["bytes_per_token"] and results[0]["rows_skipped"] == 0


def test_sampling_depends_on_the_seed_alone(folder, tmp_path):
    texts = []
    for seed in (1, 1, 2):
        done = run("generate", "a", "--model", folder, "--preset", "tiny", "--tokens", 20, "--temperature", 1.5, "--seed", seed,
                   "--ignore-end", "--json", tmp_path / "r.json")
        assert done.exit_code == 0, done.output
        texts.append(json.loads((tmp_path / "r.json").read_text())["text"])
    assert texts[0] == texts[1] != texts[2]


def test_compile_info_and_generate_from_the_image(folder, tmp_path):
    image = tmp_path / "toy.loom"
    assert run("compile", folder, "--preset", "tiny", "--output", image, "--streamed", "head,layer0.up").exit_code == 0
    described = run("info", image, "--program")
    assert described.exit_code == 0 and "head, layer0.up" in described.output and "layer1.attn" in described.output
    done = run("generate", "b", "--image", image, "--preset", "tiny", "--tokens", 5)
    assert done.exit_code == 0, done.output


def test_a_difference_is_an_exit_code(folder, tmp_path, monkeypatch):
    from spikeloom.model.integer_model import IntegerModel
    honest = IntegerModel.step

    def wrong(self, token, position, *, head=True):
        trace = honest(self, token, position, head=head)
        if head:
            trace["logits"] = trace["logits"][::-1]
        return trace

    monkeypatch.setattr(IntegerModel, "step", wrong)
    done = run("generate", "b", "--model", folder, "--preset", "tiny", "--tokens", 5, "--json", tmp_path / "r.json")
    assert done.exit_code == 1 and "differ from the integer model" in done.output
    assert json.loads((tmp_path / "r.json").read_text())["mismatches"] > 0


@pytest.mark.parametrize("arguments, words", [
    (["generate", "x", "--model", "nothing"], "There is no model 'nothing'"),
    (["generate", "x", "--preset", "nothing"], "There is no preset 'nothing'; there are: tiny"),
    (["generate", "a", "--device", "nothing"], "There is no device 'nothing'"),
    (["generate", "a", "--tokens", "0"], "number of new tokens"),
    (["generate", "a", "--top-k", "-1"], "top_k"),
    (["generate", "a", "--temperature", "-1"], "temperature"),
    (["generate", "aXé7"], "'X' (U+0058), '7' (U+0037)"),
    (["generate", "a" * 40], "do not fit the context"),
    (["generate", "a", "--image", "nothing.loom"], "cannot be read"),
    (["generate", "a", "--json", "/nowhere/x.json"], "No such file"),
    (["generate", "a", "--json", "/dev/null/x.json"], "Not a directory"),
    (["generate", "a\udcff"], "not valid UTF-8"),
    (["compile", "--output", "/dev/null/x.loom"], "Not a directory"),
    (["verilog", "--output", "/dev"], "Is a directory"),
    (["systems", "--json", "/dev/null/x"], "Not a directory"),
    (["selftest", "--models", "0"], "At least one model"),
    (["eval", "--suite", "minimal-pairs", "--limit", "-1"], "is no number of 1 or more"),
    (["compile", "nothing"], "There is no model"),
    (["info", "nothing.loom"], "cannot be read"),
    (["verilog", "--preset", "nothing"], "There is no preset"),
    (["selftest", "--device", "nothing"], "There is no device"),
], ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "")
def test_bad_input_is_one_error_in_words(folder, arguments, words):
    if arguments[0] == "generate":
        arguments = arguments + ([] if "--model" in arguments else ["--model", folder])
        arguments += [] if "--preset" in arguments else ["--preset", "tiny"]
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert words in done.output.replace("\n", " ") and "Traceback" not in done.output


def test_a_result_that_cannot_be_kept_is_refused_before_the_work(folder, tmp_path):
    for place in (tmp_path, tmp_path / "none" / "r.json"):
        done = run("generate", "a", "--model", folder, "--preset", "tiny", "--tokens", 3, "--json", place)
        assert done.exit_code == 2 and "cycles/token" not in done.output
    kept = tmp_path / "r.json"
    kept.write_text("kept")
    assert run("generate", "aX", "--model", folder, "--preset", "tiny", "--json", kept).exit_code == 2
    assert kept.read_text() == "kept"


@pytest.mark.parametrize("command", ["train", "distil", "eval", "eval --suite device", "ablate"])
def test_usage_names_the_command(command):
    pytest.importorskip("torch")
    done = run(*command.split(), "--help")
    assert done.exit_code == 0 and done.output.startswith(f"usage: spikeloom {command.split()[0]} ")


def test_what_was_made_before_an_interrupt_is_kept(folder, tmp_path, monkeypatch):
    from spikeloom.driver.device import Device

    def interrupted(self, *args, **kwargs):
        yield from list(honest(self, *args, **kwargs))[:2]
        raise KeyboardInterrupt

    honest = Device.generate
    monkeypatch.setattr(Device, "generate", interrupted)
    done = run("generate", "bee", "--model", folder, "--preset", "tiny", "--tokens", 3, "--ignore-end", "--json", tmp_path / "r.json")
    fields = json.loads((tmp_path / "r.json").read_text())
    assert done.exit_code == 130 and fields["interrupted"] and fields["tokens"] == len(fields["token_ids"]) == 2
    assert fields["text"] and fields["text"] in done.output and fields["model"] == "toy" and "mismatches" not in fields


def test_errors_have_a_line_of_their_own(folder, monkeypatch):
    """The prompt is not shown before it was checked; a device that fails leaves what it said on a line that ends."""
    done = run("generate", "bee", "--model", folder, "--preset", "tiny", "--tokens", 0)
    assert done.output.startswith("ValueError:"), done.output

    from spikeloom.driver.device import Device

    def fails(self, *args, **kwargs):
        yield from list(honest(self, *args, **kwargs))[:2]
        raise DeviceGone("It is gone.")

    honest = Device.generate
    monkeypatch.setattr(Device, "generate", fails)
    done = run("generate", "bee", "--model", folder, "--preset", "tiny", "--tokens", 3, "--ignore-end")
    assert done.exit_code == 3 and "\nDeviceGone: It is gone." in done.output and done.output.startswith("bee")


@pytest.mark.parametrize("raised, code, words", [
    (OSError(28, "No space left on device"), 2, "OSError: [Errno 28] No space left"), (MemoryError(), 3, "no memory left"),
    (MemoryError("The memory has no room."), 3, "has no room")])
def test_what_the_computer_lacks_is_said_in_words(monkeypatch, raised, code, words):
    def lacking(*_):
        raise raised

    monkeypatch.setattr("spikeloom.commands.machine.open_device", lacking)
    done = run("selftest")
    assert done.exit_code == code and words in done.output and isinstance(done.exception, SystemExit)


@pytest.mark.parametrize("changed, of_model", [
    ({"model": None}, {}), ({"logit_scale": None}, {}), ({"logit_scale": "x"}, {}), ({"class_names": 5}, {}), ({"mask_token": "x"}, {}),
    ({}, {"width": "16"}), ({}, {"width": 16.0}), (None, None)])
def test_a_damaged_model_is_named(folder, tmp_path, changed, of_model):
    """By the command line and on boards, which read folders without the package safetensors."""
    from spikeloom.board import models

    shutil.copytree(folder, damaged := tmp_path / "damaged")
    config = damaged / "config.json"
    fields = json.loads(config.read_text())
    config.write_text(json.dumps([] if changed is None else {**fields, "model": {**fields["model"], **of_model}, **changed}))
    done = run("generate", "a", "--model", damaged, "--preset", "tiny")
    assert done.exit_code == 2 and f"The model folder {damaged} cannot be read" in done.output.replace("\n", "")
    with pytest.raises(ValueError, match="cannot be read"):
        models.image_of(str(damaged), machine_for("tiny"))


def test_names_with_brackets_are_shown_as_they_are(folder, tmp_path):
    model = store.load(folder)
    odd = replace(model, config=replace(model.config, name="toy[/] [red]"))
    store.save(tmp_path / "odd", odd)
    done = run("compile", tmp_path / "odd", "--preset", "tiny", "--output", tmp_path / "odd[red].loom")
    assert done.exit_code == 0 and "odd[red].loom" in done.output.replace("\n", "")
    done = run("info", tmp_path / "odd[red].loom")
    assert done.exit_code == 0 and "toy[/] [red]" in done.output


def test_images_for_other_machines_and_damaged_ones(folder, tmp_path):
    image = tmp_path / "toy.loom"
    run("compile", folder, "--preset", "tiny", "--output", image)
    assert "ForeignImage" in (done := run("generate", "a", "--image", image, "--preset", "sim")).output and done.exit_code == 2
    data = bytearray(image.read_bytes())
    data[9000] ^= 4
    image.write_bytes(data)
    assert "damaged" in (done := run("generate", "a", "--image", image, "--preset", "tiny")).output and done.exit_code == 2


def test_a_machine_is_chosen_where_none_is_named(folder, tmp_path):
    """That of an image; of a model the first that holds it; one that nothing holds is refused by the first."""
    image = tmp_path / "toy.loom"
    run("compile", folder, "--preset", "tiny", "--output", image)
    done = run("generate", "", "--image", image, "--tokens", 3, "--ignore-end", "--json", tmp_path / "r.json")
    assert done.exit_code == 0 and json.loads((tmp_path / "r.json").read_text())["preset"] == "tiny"
    for width, layers, chosen in ((64, 1, "sim"), (128, 2, "kv260"), (256, 1, "sim")):
        shape = replace(TINY, name="wide", vocabulary=1 + len(ALPHABET), width=width, heads=width // 16, layers=layers, hidden=width,
                        recency=())
        store.save(tmp_path / "wide", store.StoredModel(*random_model(3, shape), 64.0, character_tokenizer()))
        assert machine_for(None, model=str(tmp_path / "wide")).name == chosen
        assert machine_for("ulx3s", model=str(tmp_path / "wide")).name == "ulx3s"
    done = run("compile", tmp_path / "wide")
    assert done.exit_code == 2 and "width is 256, machine 'sim' takes at most 64" in done.output.replace("\n", " ")


def test_images_without_a_tokenizer_take_no_text(folder, tmp_path):
    image = tmp_path / "toy.loom"
    run("compile", folder, "--preset", "tiny", "--output", image)
    loom = read_image(image.read_bytes())
    del loom.sections["tokenizer"]
    image.write_bytes(write_image(loom))
    assert "no tokenizer" in run("generate", "a", "--image", image, "--preset", "tiny").output
    assert run("generate", "", "--image", image, "--preset", "tiny", "--tokens", 4).exit_code == 0


def test_selftest_doctor_info_and_registers(tmp_path, monkeypatch):
    assert run("selftest", "--models", 1, "--tokens", 4).exit_code == 0
    assert "numpy" in run("doctor").output
    assert "pynq_z2" in run("info").output
    assert "sequencer.command" in run("registers").output
    monkeypatch.chdir(tmp_path)
    assert run("registers", "--write").exit_code == 2
    REGISTERS_FILE.parent.mkdir()
    assert run("registers", "--write").exit_code == 0 and "| 0x000 | magic" in REGISTERS_FILE.read_text()
