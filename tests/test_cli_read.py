"""`spikeloom fill` and `spikeloom classify`, on random encoders with a small vocabulary."""

import json
from dataclasses import replace

import pytest

pytest.importorskip("typer")
tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("safetensors")

from typer.testing import CliRunner

from spikeloom.arch.presets import preset
from spikeloom.cli import app
from spikeloom.commands.common import build_image
from spikeloom.model import store
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import TINY, random_model

WORDS = ("<|end|>", "<mask>", "once", " upon", " a", " time", "a", " b", ".", " once")
CLOSING = "tokens mismatches cycles_per_token bytes_per_token rows_wanted rows_skipped utilisation seconds device preset model".split()
ENCODER = replace(TINY, name="reader", vocabulary=len(WORDS), bidirectional=True, context=12, layers=1, neuron="t_lif", steps=2, leak=2)
KINDS = {"filler": {"mask_token": 1}, "sorter": {"class_names": ("prose", "verse")}, "plain": {}}


def words() -> str:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<|end|>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r" ?[a-z]+|\."), "isolated")
    tokenizer.decoder = tokenizers.decoders.Fuse()
    tokenizer.add_special_tokens(["<|end|>", "<mask>"])
    return tokenizer.to_str()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Function: the folder of a model of that kind."""
    root = tmp_path_factory.mktemp("models")
    for kind, more in KINDS.items():
        config, tensors = random_model(3, replace(ENCODER, name=kind, classes=2 if kind == "sorter" else 0))
        store.save(root / kind, store.StoredModel(config, tensors, 64.0, words(), **more))
    return lambda kind: root / kind


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_folders_keep_what_a_model_is_for(folders):
    assert store.load(folders("filler")).mask_token == 1 and store.load(folders("filler")).class_names == ()
    assert store.load(folders("sorter")).class_names == ("prose", "verse") and store.load(folders("sorter")).mask_token is None
    config = folders("plain") / "config.json"
    assert set(json.loads(config.read_text())) == {"model", "logit_scale"}
    config.write_text(json.dumps({**json.loads(config.read_text()), "mask_token": 10}))
    with pytest.raises(ValueError, match="mask_token 10 is no token"):
        store.load(folders("plain"))


def test_boards_compile_the_same_image(folders):
    from spikeloom.board.models import image_of

    assert image_of(str(folders("filler")), preset("tiny")).card["mask_token"] == 1
    for kind in ("filler", "sorter"):
        assert image_of(str(folders(kind)), preset("tiny")) == build_image(str(folders(kind)), preset("tiny"))


def test_fill(folders, tmp_path):
    out = tmp_path / "out.json"
    done = run("fill", "once upon <mask> time <mask>.", "--model", folders("filler"), "--preset", "tiny", "--json", out)
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert list(found) == ["text", "masks", "token_ids", *CLOSING]
    assert found["masks"] == [3, 5] and found["mismatches"] == 0 and found["tokens"] == 7 and found["cycles_per_token"] > 0
    model = store.load(folders("filler"))
    given = [0, 2, 3, 1, 5, 1, 8]
    assert found["token_ids"] == IntegerModel(model.config, model.tensors).fill(given, [3, 5])
    said = "".join(WORDS[i] for i in found["token_ids"] if i > 1)
    assert found["text"] == said and said in done.output and "mismatches" in done.output


def test_dense_and_sparse_read_the_same(folders, tmp_path):
    results = []
    for flag in ("--dense", "--no-dense"):
        run("fill", "once <mask>", "--model", folders("filler"), "--preset", "tiny", flag, "--json", tmp_path / "r.json")
        results.append(json.loads((tmp_path / "r.json").read_text()))
    assert results[0]["text"] == results[1]["text"] and results[0]["bytes_per_token"] > results[1]["bytes_per_token"]


@pytest.mark.parametrize("texts, ids", [(["once upon a time"], [0, 2, 3, 4, 5]), (["once upon", "a time."], [0, 2, 3, 0, 6, 5, 8])])
def test_classify(folders, tmp_path, texts, ids):
    out = tmp_path / "out.json"
    done = run("classify", *texts, "--model", folders("sorter"), "--preset", "tiny", "--json", out)
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert list(found) == ["class", "name", "logit", *CLOSING]
    model = store.load(folders("sorter"))
    assert found["class"] == IntegerModel(model.config, model.tensors).classify(ids) and found["tokens"] == len(ids)
    assert found["name"] == ("prose", "verse")[found["class"]] and found["name"] in done.output and found["mismatches"] == 0


def test_from_an_image(folders, tmp_path):
    image = tmp_path / "reader.loom"
    assert run("compile", folders("filler"), "--preset", "tiny", "--output", image).exit_code == 0
    assert run("fill", "a <mask>", "--image", image, "--preset", "tiny").exit_code == 0


def test_a_difference_is_an_exit_code(folders, monkeypatch):
    honest = IntegerModel.encode

    def wrong(self, tokens):
        traces = honest(self, tokens)
        traces[-1]["layer0.up@1"] = traces[-1]["layer0.up@1"][::-1] + 1
        return traces

    monkeypatch.setattr(IntegerModel, "encode", wrong)
    done = run("fill", "once <mask>", "--model", folders("filler"), "--preset", "tiny")
    assert done.exit_code == 1 and "differ from the integer model" in done.output and "layer0.up@1" in done.output


@pytest.mark.parametrize("arguments, words", [
    (["fill", "a <mask>"], "Give --model NAME or --image FILE"),
    (["fill", "a time", "--model", "filler"], "The text has no <mask>"),
    (["fill", "", "--model", "filler"], "empty"),
    (["fill", "a xyz <mask>", "--model", "filler"], "no way to write"),
    (["fill", "a" + " once" * 20 + " <mask>", "--model", "filler"], "do not fit the context"),
    (["fill", "a <mask>", "--model", "sorter"], "it classifies"),
    (["classify", "a", "--model", "filler"], "has no classes"),
    (["classify", "", "--model", "sorter"], "empty"),
    (["generate", "a", "--model", "filler"], "filler is an encoder"),
    (["classify", "a", "--model", "sorter", "--device", "nothing"], "There is no device"),
], ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "")
def test_bad_input_is_one_error_in_words(folders, arguments, words):
    done = run(*(folders(a) if a in KINDS else a for a in arguments), "--preset", "tiny")
    assert done.exit_code == 2, done.output
    assert words in done.output.replace("\n", " ") and "Traceback" not in done.output
