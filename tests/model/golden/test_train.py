"""Golden training in seconds: each task learns something, resumes, fine-tunes, distils, and its export measures like its float form."""

import csv
import os
import re
import signal

import numpy as np
import pytest
import torch

from spikeloom.model import corpus, reference, store
from spikeloom.model.golden import export, pairs, tasks
from spikeloom.model.golden.train import GoldenRun, is_golden, train
from spikeloom.model.integer_torch import IntegerSequences
from spikeloom.model.softmax_twin import SoftmaxTwin, spiking_parameters
from spikeloom.model.train import build_model, load_config

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


def test_spad_resumes_with_its_projections(causal, tmp_path, monkeypatch):
    """Of a teacher of another width: they learn, so a run that was stopped ends as one that was not."""
    wide = config_of("causal", width=32)
    for name, config, more in (("twin", wide, {"kind": "softmax"}), ("whole", config_of("causal"), {"teacher": tmp_path / "twin"})):
        train(config, run=tmp_path / name, steps=6, split=SPLIT, quiet=True, **more)
    learn = GoldenRun.learn

    def stopped(self, *batch):
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(GoldenRun, "learn", stopped)
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
