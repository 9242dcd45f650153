"""Training on CPU in seconds: it learns, resumes, and its export measures like its float form."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spikeloom.arch.config import ModelConfig
from spikeloom.model import corpus, evaluate, export, reference, store
from spikeloom.model.float_model import FloatModel, FloatOptions
from spikeloom.model.muon import Muon
from spikeloom.model.softmax_twin import SoftmaxTwin, spiking_parameters
from spikeloom.model.train import build_model, build_optimisers, load_config, price_at, train

CONFIG = {
    "model": {"name": "tiny", "vocabulary": 24, "context": 32, "width": 16, "layers": 2, "heads": 2, "hidden": 24,
              "recency": [0, 2]},
    "fraction": 9,
    "training": {"learning_rate": 0.01, "muon": 1.0, "weight_decay": 0.05, "batch_tokens": 256, "short_context": 16,
                 "long_from": 0.8, "anneal_until": 0.5, "freeze_from": 0.8, "warmup_steps": 5, "real_share": 1.0},
}
SPLIT = corpus.Split("rhyme", ["the cat sat on the mat. the dog sat on the cat.\n" * 8] * 4,
                     ["the dog sat on the mat.\n" * 6], ["the cat sat on the dog.\n" * 6] * 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    pytest.importorskip("tokenizers", reason="tokenizers: not installed")
    folder = tmp_path_factory.mktemp("run")
    train(CONFIG, run=folder, steps=150, split=SPLIT, compiled=False, quiet=True, report_every=2.0)
    return folder


def test_training_learns_and_measures(run, tmp_path):
    """Loss falls far below a uniform guess; exported integers lose no more than 0.005 nats per token."""
    export.export_run(run, tmp_path / "tiny")
    figures, sampled = evaluate.measure(tmp_path / "tiny", run=run, split=SPLIT, samples=2)
    assert figures["integer"]["nats_per_token"] < 1.5
    assert all(figures[form]["perplexity"] == round(np.exp(figures[form]["nats_per_token"]), 3) for form in ("integer", "float"))
    assert figures["integer"]["nats_per_token"] == pytest.approx(figures["float"]["nats_per_token"], abs=0.005)
    assert figures["integer"]["saturations"] == 0 and len(sampled) == 2
    assert 0 < figures["firing_rates"]["all"]["nonzero"] < 1


def test_training_resumes(run):
    """A second call in the same folder continues from the checkpoint."""
    before = torch.load(run / "checkpoint.pt", weights_only=False)
    train(CONFIG, run=run, steps=before["step"] + 3, split=SPLIT, compiled=False, quiet=True)
    after = torch.load(run / "checkpoint.pt", weights_only=False)
    assert after["step"] == before["step"] + 3 and after["tokens"] > before["tokens"]
    assert len((run / "log.csv").read_text().splitlines()) >= 1


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, stopping):
    """Weights, optimisers and the random stream go on to the bit."""
    whole = train(CONFIG, run=tmp_path / "whole", steps=12, split=SPLIT, compiled=False, quiet=True)
    with stopping(5):
        train(CONFIG, run=tmp_path / "parts", steps=12, split=SPLIT, compiled=False, quiet=True)
    assert torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=False)["step"] == 6
    parts = train(CONFIG, run=tmp_path / "parts", steps=12, split=SPLIT, compiled=False, quiet=True).state_dict()
    assert all(torch.equal(value, parts[name]) for name, value in whole.state_dict().items())


def test_another_model_in_the_folder_is_refused(run, tmp_path):
    """Another kind or shape than the checkpoint's; the run's config stays."""
    before = (run / "config.json").read_text()
    wide = CONFIG | {"model": CONFIG["model"] | {"width": 32}}
    for changes, sentence in (({"kind": "softmax"}, "holds a spiking model"), ({"config": wide}, "another shape")):
        with pytest.raises(ValueError, match=sentence):
            train(**{"config": CONFIG, "run": run, "steps": 999, "split": SPLIT, "compiled": False, "quiet": True} | changes)
    with pytest.raises(ValueError, match="another shape"):
        train(wide, run=tmp_path / "new", start=run, steps=1, split=SPLIT, compiled=False, quiet=True)
    assert (run / "config.json").read_text() == before


def test_models_without_an_integer_form_are_refused(tmp_path):
    train(CONFIG, run=tmp_path / "twin", kind="softmax", steps=1, split=SPLIT, compiled=False, quiet=True)
    with pytest.raises(ValueError, match="softmax model, which has no integer form"):
        export.export_run(tmp_path / "twin", tmp_path / "out")


@pytest.mark.parametrize("content", [None, b"", b"zzz"])
def test_damaged_float_models_are_refused(content, tmp_path):
    (tmp_path / "run").mkdir()
    for path in (tmp_path / "float.safetensors", tmp_path / "run" / "checkpoint.pt"):
        if content is None:
            save_file({"a": torch.zeros(2)}, path)
        else:
            path.write_bytes(content)
    for source in (tmp_path / "float.safetensors", tmp_path / "run"):
        with pytest.raises(ValueError, match="holds no float model"):
            reference.state_of(source)


def test_a_run_starts_from_a_finished_one(run, tmp_path):
    """It begins with the other's weights, winners alone and the settings that `continued` replaces; another kind is refused."""
    train(CONFIG | {"continued": {"learning_rate": 0.0, "anneal_until": 0}}, run=tmp_path / "more", start=run, steps=2, split=SPLIT,
          compiled=False, quiet=True)
    before, after = (torch.load(folder / "checkpoint.pt", weights_only=False) for folder in (run, tmp_path / "more"))
    assert after["step"] == 2 and after["tokens"] == before["tokens"] + 2 * 256
    assert after["config"]["training"]["learning_rate"] == 0.0
    for name, value in before["model"].items():
        if "weight" in name or name in ("embed", "head"):
            torch.testing.assert_close(after["model"][name], value, rtol=0, atol=0)
    with pytest.raises(ValueError, match="holds a spiking model"):
        train(CONFIG, run=tmp_path / "twin", kind="softmax", start=run, steps=1, split=SPLIT, compiled=False, quiet=True)


def test_a_run_that_goes_on_keeps_its_settings_where_it_is_resumed(run, tmp_path):
    """Those of `continued`, whoever names its start again or not; a run of its own has its own."""
    config = CONFIG | {"continued": {"learning_rate": 0.001}}
    for folder, start, rate in (("more", run, 0.001), ("alone", None, 0.01)):
        for steps, given in ((1, start), (2, None), (3, None)):
            train(config, run=tmp_path / folder, start=given, steps=steps, split=SPLIT, compiled=False, quiet=True)
            state = torch.load(tmp_path / folder / "checkpoint.pt", weights_only=False)
            assert state["step"] == steps and state["config"]["training"]["learning_rate"] == rate


def test_scales_are_held_and_kept(run, tmp_path):
    """From the progress that is given on, in checkpoint, reference file and integers; before, every weight has its newest scale."""
    config = CONFIG | {"model": CONFIG["model"] | {"weight_bits": 4}, "training": CONFIG["training"] | {"hold_scales_from": 0.5}}
    train(config, run=tmp_path / "run", start=run, steps=2, split=SPLIT, compiled=False, quiet=True)
    held = [value for name, value in reference.state_of(tmp_path / "run")["model"].items() if name.endswith(".held")]
    assert len(held) == 1 + 4 * 2 and all(value.all() for value in held)
    reference.save(tmp_path / "run", tmp_path / "float.safetensors")
    model = reference.load(tmp_path / "float.safetensors")[0]
    assert torch.equal(model.quantise_head.scale(2 * model.head), model.quantise_head.held)
    export.export_run(tmp_path / "run", tmp_path / "tiny")
    stored = store.load(tmp_path / "tiny")
    assert np.array_equal(stored.tensors["head.weight"], model.quantise_head.integers(model.head).numpy())
    train(config, run=tmp_path / "free", start=run, steps=1, split=SPLIT, compiled=False, quiet=True)
    assert not any(value.any() for name, value in reference.state_of(tmp_path / "free")["model"].items() if name.endswith(".held"))


@pytest.mark.parametrize("name", ["stories-260k", "shakespeare"])
def test_twin_has_the_spiking_models_size(name):
    """Within two per cent, and both within 290,000."""
    config = load_config(name)
    spiking = build_model(config, "spiking")
    stored = sum(array.size for array in export.to_stored(spiking.eval()).tensors.values())
    assert stored == spiking_parameters(spiking.config) <= 290_000
    twin = SoftmaxTwin.matching(spiking.config)
    assert twin.parameters_in_all() == pytest.approx(stored, rel=0.02)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"model": null}', '{"model": {}}', '{"model": {}, "training": 5}'])
def test_files_that_are_no_configs_are_refused(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match="is no config of a training"):
        load_config(str(tmp_path / "c.json"))


@pytest.mark.parametrize("budget, words", [({}, "Give a budget"), ({"steps": -1}, "would not end"), ({"minutes": -0.5}, "would not end"),
                                           ({"steps": 3, "minutes": -1.0}, "would not end")])
def test_a_budget_that_is_missing_or_never_ends_is_refused(tmp_path, budget, words):
    with pytest.raises(ValueError, match=words):
        train(CONFIG, run=tmp_path / "run", split=SPLIT, **budget)
    assert not (tmp_path / "run").exists()


def test_configs_are_named_when_missing():
    with pytest.raises(FileNotFoundError, match="stories-260k"):
        load_config("nowhere")


def test_muon_is_torchs_muon(seed):
    """The batched optimiser steps exactly as `torch.optim.Muon` does one matrix at a time."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("torch.optim.Muon: this torch has none")
    torch.manual_seed(seed)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 12), (12, 8), (8, 12))]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    pair = (Muon(ours, lr=0.02, weight_decay=0.1),
            torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"))
    for _ in range(3):
        for a, b in zip(ours, theirs):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for optimiser in pair:
            optimiser.step()
    for a, b in zip(ours, theirs):
        # Newton-Schulz runs in bfloat16, whose sums depend on the order of a batch.
        assert torch.allclose(a, b, atol=1e-3)


def test_a_temperature_may_be_fixed(tmp_path):
    """The factor on the scores is learned per head from 1, or stays as told."""
    learned, fixed = (train(CONFIG | {"float": options}, run=tmp_path / str(number), steps=3, split=SPLIT, compiled=False, quiet=True)
                      for number, options in enumerate(({}, {"temperature": 0.25})))
    assert all((block.log_temperature != 0).any() for block in learned.blocks)
    assert all((block.log_temperature.exp() == 0.25).all() for block in fixed.blocks)


def test_the_price_of_operations_may_change_on_the_way(tmp_path):
    """It is what the list says from each progress on, and is paid: a run at a changing price leaves that of the first price."""
    assert [price_at([[0, 0.4], [0.5, 0.1]], at) for at in (0, 0.49, 0.5, 1)] == [0.4, 0.4, 0.1, 0.1]
    assert price_at(0.3, 0.9) == 0.3 and price_at([[0.5, 0.1]], 0.2) == 0
    priced = {}
    for name, price in (("one", 0.4), ("same", [[0, 0.4]]), ("falling", [[0, 0.4], [0.5, 0.1]])):
        config = CONFIG | {"training": CONFIG["training"] | {"sparsity": price}}
        priced[name] = train(config, run=tmp_path / name, steps=4, split=SPLIT, compiled=False, quiet=True).head
    assert torch.equal(priced["one"], priced["same"]) and not torch.equal(priced["one"], priced["falling"])


def test_the_head_learns_faster_and_the_twin_at_its_own_rate(tmp_path):
    """`head_gain` scales start and rate of head and bias alone; levels start where told; a twin has its rate until it is continued."""
    config = load_config("stories-260k")
    plain, faster = (FloatModel(ModelConfig.from_dict(config["model"]), options=FloatOptions(head_gain=gain, centre_values=0.5))
                     for gain in (1.0, 4.0))
    assert (faster.head.std() / plain.head.std()).item() == pytest.approx(4, rel=0.05)
    rates = {id(p): group["peak"] for optimiser in build_optimisers(faster, config["training"]) for group in optimiser.param_groups
             for p in group["params"]}
    assert len(rates) == len(list(faster.parameters()))
    expected = config["training"]["learning_rate"]
    for name, parameter in faster.named_parameters():
        assert rates[id(parameter)] == pytest.approx(expected * (4 if name in ("head", "head_bias") else 1)), name
    qkv, values = faster.blocks[0].sn_qkv, 2 * faster.config.width
    assert not qkv.shift[:values].any() and (qkv.shift[values:] == 4).all() and not faster.sn_final.shift.any()

    rated = CONFIG | {"twin_training": {"learning_rate": 0.006}, "continued": {"learning_rate": 0.001}}
    for run, start in (("twin", None), ("more", tmp_path / "twin")):
        train(rated, run=tmp_path / run, kind="softmax", steps=1, split=SPLIT, start=start, compiled=False, quiet=True)
        kept = json.loads((tmp_path / run / "config.json").read_text())["training"]
        assert kept == rated["training"] | rated["continued" if start else "twin_training"]
