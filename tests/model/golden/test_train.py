"""Golden training in seconds: each task learns something, resumes, fine-tunes, distils, and its export measures like its float form."""

import contextlib
import csv
import json
import re
import sys
import types

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spikeloom.model import corpus, reference, store
from spikeloom.model.golden import export, pairs, tasks
from spikeloom.model.golden.train import is_golden, main, train
from spikeloom.model.integer_torch import IntegerSequences
from spikeloom.model.softmax_twin import SoftmaxTwin, spiking_parameters
from spikeloom.model.tokenizer import Tokenizer
from spikeloom.model.train import build_model, load_config
from spikeloom.model.workers import Workers

pytest.importorskip("tokenizers", reason="tokenizers: not installed")

PRESETS = ("wd-spikingformer", "bispikclm", "spikedecoder", "we-spikingformer", "we-spikingformer-pairs")
LINES = ("The cat sat down upon the mat,", "And then the dog came in at last,", "Upon the hill the king stood still,",
         "He saw the sea and all the ships,")
SPLIT = corpus.Split("rhyme", ["\n".join(LINES * 12)] * 3, ["\n".join(LINES * 6)], ["\n".join(LINES * 6)])
SETTINGS = {"learning_rate": 0.01, "muon": 1.0, "weight_decay": 0.01, "batch_tokens": 256, "batch_pairs": 16, "short_context": 16,
            "anneal_until": 0.4, "freeze_from": 0.7, "warmup_steps": 3}
MODEL = {"name": "tiny", "vocabulary": 27, "context": 16, "width": 16, "layers": 1, "heads": 2, "hidden": 24, "level_v": 1,
         "neuron": "lif_soft", "steps": 2, "leak": 1, "position_table": True}
GOLDEN = {"position": "learned", "offsets": [1, 0]}


def config_of(task, **changes):
    return {"model": MODEL | changes, "golden": GOLDEN,
            "training": SETTINGS | {"task": task, "corpus": "characters" if task == "causal" else "shakespeare"}}


ENCODER = {"vocabulary": 64, "context": 48, "neuron": "t_lif", "leak": 2, "bidirectional": True}


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    folder = tmp_path_factory.mktemp("causal")
    train(config_of("causal"), run=folder, steps=60, split=SPLIT, quiet=True)
    return folder


def rows(folder):
    return list(csv.DictReader((folder / "log.csv").read_text().splitlines()))


def test_next_tokens_are_learned_and_exported(causal, tmp_path):
    """Loss far below a uniform guess (3.3 nats); integers lose no more than 0.02 nats per token."""
    last = rows(causal)[-1]
    assert float(last["development_nats"]) < 2.6 and 0 < float(last["firing_rate"]) < 1
    export.export_run(causal, tmp_path / "tiny")
    stored, model = store.load(tmp_path / "tiny"), reference.load(causal)[0]
    tokens = torch.randint(27, (6, 16), generator=torch.Generator().manual_seed(0))
    integer = IntegerSequences(stored.tensors, stored.config)
    with torch.no_grad():
        got, want = integer(tokens) / stored.logit_scale, model(tokens)
    targets = tokens.roll(-1, 1)[..., None]
    losses = [-torch.log_softmax(x, -1).gather(-1, targets).mean().item() for x in (got, want)]
    assert losses[0] == pytest.approx(losses[1], abs=0.02)


def test_training_resumes(causal):
    before = torch.load(causal / "checkpoint.pt", weights_only=False)["step"]
    train(config_of("causal"), run=causal, steps=before + 2, split=SPLIT, quiet=True)
    assert torch.load(causal / "checkpoint.pt", weights_only=False)["step"] == before + 2


def test_spad_from_a_twin(causal, tmp_path):
    """A student beside its twin: the gradient norm of every loss is logged."""
    twin = tmp_path / "twin"
    twin.mkdir()
    (twin / "tokenizer.json").write_bytes((causal / "tokenizer.json").read_bytes())
    train(config_of("causal"), run=twin, kind="softmax", steps=3, split=SPLIT, quiet=True)
    train(config_of("causal"), run=tmp_path / "student", teacher=twin, steps=3, split=SPLIT, quiet=True)
    logged = list(csv.DictReader((tmp_path / "student" / "gradients.csv").read_text().splitlines()))
    assert set(logged[-1]) == {"step", "ea", "saa", "sfa", "sta", "hta"} and float(logged[-1]["hta"]) > 0


def test_spad_resumes_with_its_projections(causal, tmp_path, stopping):
    """Of a teacher of another width: they learn, so a run that was stopped ends as one that was not."""
    wide = config_of("causal", width=32)
    for name, config, more in (("twin", wide, {"kind": "softmax"}), ("whole", config_of("causal"), {"teacher": tmp_path / "twin"})):
        train(config, run=tmp_path / name, steps=6, split=SPLIT, quiet=True, **more)
    with stopping(2):
        train(config_of("causal"), run=tmp_path / "parts", teacher=tmp_path / "twin", steps=6, split=SPLIT, quiet=True)
    train(config_of("causal"), run=tmp_path / "parts", teacher=tmp_path / "twin", steps=6, split=SPLIT, quiet=True)
    whole, parts = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=False) for name in ("whole", "parts"))
    assert parts["step"] == 6 and whole["spad"]
    for part in ("model", "spad"):
        assert all(torch.equal(value, parts[part][name]) for name, value in whole[part].items()), part


def test_masked_tokens_then_pairs(tmp_path):
    """An encoder is trained on masked text, then on pairs from its own weights; it names its mask and its classes."""
    masked, fine = tmp_path / "masked", tmp_path / "pairs"
    train(config_of("masked", **ENCODER), run=masked, steps=25, split=SPLIT, quiet=True)
    assert float(rows(masked)[-1]["development_nats"]) < 4.0  # uniform: 4.2
    export.export_run(masked, tmp_path / "filler")
    assert store.load(tmp_path / "filler").mask_token == 1
    model = train(config_of("pairs", **ENCODER, classes=2), run=fine, init=masked, steps=3, split=SPLIT, quiet=True)
    assert tuple(model.head.weight.shape) == (16, 2)
    export.export_run(fine, tmp_path / "classifier")
    assert store.load(tmp_path / "classifier").class_names == pairs.CLASSES


def test_hiding_follows_bert(seed):
    """15% are targets, 8 in 10 of them hidden; position 0 never, and nothing else is a target."""
    random = np.random.default_rng(seed)
    tokens = torch.from_numpy(random.integers(2, 500, (200, 64)))
    inputs, targets = tasks.hide(tokens, 1, 500, random)
    chosen = targets >= 0
    assert not chosen[:, 0].any() and torch.equal(targets[chosen], tokens[chosen])
    assert torch.equal(inputs[~chosen], tokens[~chosen])
    assert chosen.float().mean().item() == pytest.approx(tasks.MASKED * 63 / 64, abs=0.01)
    assert (inputs[chosen] == 1).float().mean().item() == pytest.approx(0.8, abs=0.03)


def test_pairs_are_balanced_and_hold_the_same_letters(seed):
    """Either class as often; the natural line is where the label says, the other has its letters, word by word, ends in their places."""
    lines = pairs.lines_of(SPLIT.train)
    assert set(lines) == {line for line in LINES if sum(map(pairs.mixable, line.split())) >= pairs.MIXABLE}
    signs = sorted(set("".join(LINES)))

    def encode_all(texts):  # one id per character
        return [[1 + signs.index(c) for c in text] for text in texts]

    examples = pairs.fixed(lines, 300, encode_all, 0, 99)
    assert 0.4 < np.mean([label for _, label in examples]) < 0.6
    for ids, label in examples:
        middle = ids.index(0, 1)
        both = ["".join(signs[i - 1] for i in part) for part in (ids[1:middle], ids[middle + 1:])]
        natural, other = both[label], both[1 - label]
        assert natural in lines and other not in lines
        for word, mixed in zip(natural.split(), other.split(), strict=True):
            assert sorted(word) == sorted(mixed) and word[0] == mixed[0] and (word != mixed) == pairs.mixable(word)


def test_character_text_keeps_to_its_signs():
    assert tasks.plain("All's well.\n& odd\nthat ends") == "All's well.\nthat ends"
    assert len(tasks.CHARACTERS) == 64
    assert all(re.fullmatch(r"[\n !',\-.:;?\[\]A-Za-z]", c) for c in tasks.CHARACTERS)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit_the_simulated_machine_and_have_twins(name):
    """Each named system is a config that the golden model builds, `sim` runs, and whose twin is as large within two per cent."""
    from spikeloom.arch.config import check_fit
    from spikeloom.arch.presets import preset

    config = load_config(name)
    model = build_model(config, "spiking")
    check_fit(model.config, preset("sim"))
    assert is_golden(["--config", name]) and not is_golden(["--config", "stories-260k"])
    stored = sum(array.size for array in export.to_stored(model.eval()).tensors.values())
    assert stored == spiking_parameters(model.config)
    twin = SoftmaxTwin.matching(model.config)
    assert twin.parameters_in_all() == pytest.approx(stored, rel=0.02)
    assert twin.blocks[0].causal != model.config.bidirectional


def test_runs_refuse_what_does_not_fit(causal, tmp_path):
    with pytest.raises(ValueError, match="budget"):
        train(config_of("causal"), run=tmp_path / "a", split=SPLIT)
    with pytest.raises(ValueError, match="would not end"):
        train(config_of("causal"), run=tmp_path / "a", split=SPLIT, steps=-1)
    with pytest.raises(ValueError, match="holds a spiking model"):
        train(config_of("causal"), run=tmp_path / "b", kind="softmax", init=causal, steps=1, split=SPLIT, quiet=True)
    with pytest.raises(ValueError, match="not a softmax twin"):
        train(config_of("causal"), run=tmp_path / "c", teacher=causal, steps=1, split=SPLIT, quiet=True)
    with pytest.raises(ValueError, match="knows 512 tokens"):
        train(config_of("causal"), run=tmp_path / "d", teacher="we-spikingformer", steps=1, split=SPLIT, quiet=True)


def command(tmp_path, config, *more):
    """`spikeloom train` of a config, three steps with a report after each."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    main(["--config", str(tmp_path / "config.json"), "--run", str(tmp_path / "run"), "--steps", "3", "--report-every", "0",
          "--device", "cpu", *map(str, more)])
    return tmp_path / "run"


@pytest.mark.parametrize("task", ["causal", "masked"])
def test_texts_of_ones_own(tmp_path, task):
    """`--data` trains on them, with the tokenizer of their signs; a model of characters leaves lines with other signs out."""
    (tmp_path / "own.jsonl").write_text("".join(json.dumps({"text": "\n".join([*LINES * 6, "0815"])}) + "\n" for _ in range(20)))
    run = command(tmp_path, config_of(task, **ENCODER if task == "masked" else {}), "--data", tmp_path / "own.jsonl")
    assert len(rows(run)) == 4
    assert set(LINES[0]) < Tokenizer.load(run / "tokenizer.json").alphabet
    assert ("0" in Tokenizer.load(run / "tokenizer.json").alphabet) == (task == "masked")


def test_data_that_do_not_fit_are_refused(tmp_path):
    """Of tasks with data of their own; texts without a line of a character model's signs; texts shorter than a window."""
    for task in ("pairs", "glue"):
        with pytest.raises(ValueError, match=f"'{task}', has its own"):
            command(tmp_path, config_of(task), "--data", tmp_path / "none.txt")
    with pytest.raises(FileNotFoundError, match="hf:NAME"):
        command(tmp_path, config_of("causal"), "--data", tmp_path / "none.txt")
    (tmp_path / "digits.txt").write_text("some 4 and 20 birds\n" * 2000)
    with pytest.raises(ValueError, match="too little for a model of characters"):
        command(tmp_path, config_of("causal"), "--data", tmp_path / "digits.txt")
    short = corpus.Split("short", SPLIT.train, ["The cat"], ["The cat"])
    with pytest.raises(ValueError, match="train on more text"):
        train(config_of("masked", **ENCODER), run=tmp_path / "short", steps=1, split=short, quiet=True)


def test_monitors_are_logged_for_tensorboard_too(causal, tmp_path, monkeypatch):
    """Norm of gradients, firing and silent neurons in `log.csv`; every figure of a row is a scalar of the board."""
    written = []

    class Writer:
        def __init__(self, folder):
            assert folder == str(tmp_path / "run")

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def flush(self):
            pass

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    train(config_of("causal"), run=tmp_path / "run", steps=1, split=SPLIT, quiet=True, tensorboard=True)
    row = rows(tmp_path / "run")[-1]
    assert float(row["gradient_norm"]) > 0 and 0 < float(row["firing_rate"]) < 1 and 0 <= float(row["silent_neurons"]) < 1
    assert {(name, float(value), 1) for name, value in row.items() if name != "step" and value} == set(written)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="TensorBoard is not installed"):
        train(config_of("causal"), run=tmp_path / "other", steps=1, split=SPLIT, quiet=True, tensorboard=True)


def test_models_without_neurons_say_so(tmp_path):
    """A twin's row: everything speaks, nothing is silent."""
    train(config_of("causal"), run=tmp_path, kind="softmax", steps=1, split=SPLIT, quiet=True)
    row = rows(tmp_path)[-1]
    assert float(row["gradient_norm"]) > 0 and (row["firing_rate"], row["silent_neurons"]) == ("1.0", "0.0")


@pytest.mark.parametrize("task", ["causal", "masked", "pairs"])
def test_mixed_precision_learns_and_measures_in_float32(tmp_path, task):
    """bf16 changes how it learns, not what is stored: the model is float32, and learns as the float32 run does."""
    losses = {}
    for precision in ("float32", "bf16"):
        config = config_of(task, **{} if task == "causal" else ENCODER | ({"classes": 2} if task == "pairs" else {}))
        model = train(config, run=tmp_path / precision, steps=20, split=SPLIT, quiet=True, workers=Workers(precision=precision))
        assert all(value.dtype in (torch.float32, torch.int64) for value in model.state_dict().values())
        losses[precision] = float(rows(tmp_path / precision)[-1]["loss"])
    assert losses["bf16"] == pytest.approx(losses["float32"], abs=0.2) and losses["bf16"] != losses["float32"]


@pytest.mark.parametrize("name", PRESETS)
def test_mixed_precision_is_of_matrix_products_alone(name):
    """Streams, scores and what neurons hear and say are float32; the weights' gradients are, too."""
    model = build_model(load_config(name), "spiking").train()
    heard, kept = [], {}
    for layer in model.neurons().values():
        layer.register_forward_hook(lambda _, inputs, output: heard.extend((inputs[0].dtype, output.dtype)))
    tokens = torch.randint(model.config.vocabulary, (2, model.config.context), generator=torch.Generator().manual_seed(0))
    with Workers(precision="bf16").mixed():
        assert model(tokens).dtype == torch.float32 and model(tokens, kept).dtype == torch.float32
    assert set(heard) == {value.dtype for value in kept.values()} == {torch.float32}


def test_a_teacher_teaches_in_mixed_precision(causal, tmp_path):
    for run, more in (("twin", {"kind": "softmax"}), ("student", {"teacher": tmp_path / "twin"})):
        (tmp_path / run).mkdir()
        (tmp_path / run / "tokenizer.json").write_bytes((causal / "tokenizer.json").read_bytes())
        train(config_of("causal"), run=tmp_path / run, steps=2, split=SPLIT, quiet=True, workers=Workers(precision="bf16"), **more)
    assert float(rows(tmp_path / "student")[-1]["loss"]) > 0


class OneDevice(TorchDispatchMode):
    """Refuses operations between devices, as a GPU would (a number from the CPU may join)."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        devices = {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.ndim}
        assert len(devices) <= 1, f"{func} between {devices}"
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("name", PRESETS)
def test_models_lie_on_one_device(name, monkeypatch):
    """Forward and backward on another device than the CPU: the one without numbers, for want of a GPU."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # does not know that device
    config = load_config(name)
    config["model"]["layers"] = 1
    model = build_model(config, "spiking").to("meta").train()
    model.freeze_norms(model.options.norm == "power")  # else it asks for a number: of the steps that it saw
    tokens = torch.zeros(2, model.config.context, dtype=torch.long, device="meta")
    for keep in (None, {}):
        with OneDevice():
            model(tokens, keep).square().mean().backward()
        assert all(p.grad.device.type == "meta" for p in model.parameters() if p.grad is not None)


def test_one_process_trains(tmp_path, monkeypatch):
    """Several that torchrun started would write into one folder; the folder's second name is torchrun's."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    (tmp_path / "config.json").write_text(json.dumps(config_of("causal")))
    with pytest.raises(ValueError, match="one process"):
        main(["--config", str(tmp_path / "config.json"), "--run-folder", str(tmp_path / "run"), "--steps", "1", "--device", "cpu"])
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU: there is one")
def test_a_missing_gpu_is_said(tmp_path):
    with pytest.raises(ValueError, match="no GPU"):
        command(tmp_path, config_of("causal"), "--device", "cuda")
