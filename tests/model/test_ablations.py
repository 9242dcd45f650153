"""Ablations: every row is a network of its twin's size, runs are kept, and the report's gap is integers less twin."""

import json
from pathlib import Path

import pytest

from spikeloom.arch.config import ModelConfig
from spikeloom.model import ablation_table, ablations, quality_page, quality_sections
from spikeloom.model.ablation_table import BY_NAME, DATA, HEADLINES, VARIANTS, Data, Variant
from spikeloom.model.softmax_twin import SoftmaxTwin, spiking_parameters

from .test_train import SPLIT

SMALL = {"width": 32, "layers": 1, "heads": 2, "hidden": 16, "context": 16, "recency": [0, 2]}
HEADLINE = HEADLINES[0]
TWIN = BY_NAME[HEADLINE].against
RHYME = Data("shakespeare", lambda: SPLIT, 24, 3, 400)


def test_every_row_is_a_network_of_its_twins_size():
    """Configs are valid, names differ, teachers exist, the headline is a row, and parameters lie within two per cent."""
    assert len(BY_NAME) == len(VARIANTS) and set(HEADLINES) <= set(BY_NAME)
    for variant in VARIANTS:
        assert variant.teacher in ("", *BY_NAME) and BY_NAME[variant.against].kind == "softmax" and variant.group in quality_page.GROUPS
        config = ModelConfig.from_dict(variant.config(DATA["shakespeare"], 66)["model"])
        twin = SoftmaxTwin.matching(ModelConfig.from_dict(BY_NAME["twin"].config(DATA["shakespeare"], 66)["model"]))
        assert spiking_parameters(config) == pytest.approx(twin.parameters_in_all(), rel=0.02), variant.name


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(ablation_table, "BASE", {**ablation_table.BASE, "model": ablation_table.BASE["model"] | SMALL})


def test_runs_are_kept_and_reported(small, tmp_path):
    """A twin and two variants train, one with a teacher and one golden; again, they are only read; the report adds up."""
    pytest.importorskip("tokenizers", reason="tokenizers: not installed")
    bench = ablations.Bench(RHYME, tmp_path / "runs")
    taught = Variant("taught", "gradient", "with a teacher", teacher="twin", options={"ranked": True})
    golden = Variant("golden", "norm", "a golden model", golden={"norm": "power"})
    results = [ablations.run(bench, variant, 0) for variant in (taught, BY_NAME["twin"], BY_NAME["base"], golden)]
    assert all(result["training_tokens"] == results[1]["training_tokens"] for result in results)
    folder = bench.run_folder(taught, 0)
    before = (folder / "checkpoint.pt").stat().st_mtime_ns
    assert ablations.run(bench, taught, 0) == results[0] and (folder / "checkpoint.pt").stat().st_mtime_ns == before
    assert len(ablations.finished(tmp_path / "runs", ["shakespeare"])) == 4

    results = [ablations.with_cycles(bench, result) for result in results]
    document = quality_page.summarise(results, {"shakespeare": bench.about()})
    rows = {row["variant"]: row for row in document["ablations"]}
    gap = results[2]["integer"]["nats_per_token"] - results[1]["float"]["nats_per_token"]
    assert rows["base"]["gap_nats"] == pytest.approx(gap, abs=1e-5)
    assert rows["base"]["cycles_per_token"] > 0 and rows["twin"]["gap_nats"] is None
    text = quality_page.page({"command": "x", "protocol": "y", **document})
    assert "| `base` |" in text and f"{rows['base']['gap_nats']:+.3f}" in text


def test_seeds_are_summarised():
    """Gaps pair the seeds of variant and twin; the spread is their sample deviation; released models join the headline."""
    def result(variant, seed, nats):
        kind = {"float": {"nats_per_token": nats, "bits_per_byte": nats}}
        if variant != TWIN:
            kind["integer"] = {"nats_per_token": nats + 0.01, "bits_per_byte": nats}
        return {"data": "stories", "variant": variant, "seed": seed, "training_tokens": 10, "parameters": 5, **kind}

    results = [result(TWIN, 0, 2.0), result(TWIN, 1, 2.2), result(HEADLINE, 0, 2.1), result(HEADLINE, 1, 2.22)]
    document = quality_page.summarise(results, {"stories": {"name": "tinystories", "tokens": "x", "steps": 1, "held_out_bytes": 2}})
    headline = document["headline"][0]
    assert headline["gap_nats"] == pytest.approx((0.11 + 0.03) / 2) and headline["seeds"] == 2
    assert headline["gap_spread_nats"] == pytest.approx(0.08 / 2**0.5, abs=1e-5)


def test_the_page_is_that_of_the_results():
    """docs/quality.md holds what results/quality.json says."""
    root = Path(__file__).resolve().parents[2]
    document = json.loads((root / "results" / "quality.json").read_text(encoding="utf-8"))
    assert document["headline"] and document["ablations"] and document["stories_260k_bits_per_byte"] > 0
    for row in document["goals"]:
        assert row["met"] == (row["figure"] <= row["limit"]) and (row["met"] or row["why"])
    for name, figure in quality_page.exported(root / "results").items():
        assert document["integer_less_float_nats"][name] == figure, "run: spikeloom ablate --report"
    assert (root / "docs" / "quality.md").read_text(encoding="utf-8") == quality_page.page(document), "run: spikeloom ablate --report"


def test_rows_of_the_specification():
    """Every choice that the page promises to price is a row, on both data sets; reports name those that were not run."""
    asked = {"soft", "ssa", "sfsa", "k1", "k2", "k8", "equal", "by-score", "straight-through", "base", "factor-quarter", "distil",
             "no-recency", "d4", "d2", "d1", "t4", "batch-norm", "no-norm", "power-norm", "int4", "ternary", "residual-6", "residual-3"}
    assert all(set(BY_NAME[name].data) == set(DATA) for name in asked)
    assert all(BY_NAME[name].float_only for name in ("twin", "soft", "by-score")) and not BY_NAME["base"].float_only


def test_released_models_and_chance(tmp_path):
    """Float, integers, twin and gateware beside each other; a score beyond two standard errors of chance is named."""
    figures = {"bits_per_byte": 1.5, "nats_per_token": 2.0, "perplexity": 7.389}
    held = {"data": {"name": "rhymes", "texts": 1, "bytes": 2000, "tokens": 3}, "integer": figures, "float": figures,
            "softmax_twin": figures | {"perplexity": 4.0}, "character_6_gram": {"bits_per_byte": 2.5}}
    (tmp_path / "small.json").write_text(json.dumps(held), encoding="utf-8")
    device = {"small": figures | {"tokens": 9, "tokens_per_cpu_second": 6.4, "device": "rtl", "mismatches": 0, "compared": 1234}}
    row = quality_sections.released_lines(quality_sections.released_figures(tmp_path), device)[-2]
    assert row == ("| `small` | rhymes, 2,000 bytes | 1.500 (7.39) | 1.500 (7.39) | 1.500 (4.00) | 2.500 | 1.500 (7.39), 9 tokens at 6/s "
                   "| 0 of 1,234 |")
    tasks = {name: {"accuracy": accuracy, "chance": 0.5, "standard_error": 0.05} for name, accuracy in (("a", 0.45), ("b", 0.3))}
    (line,) = quality_sections.chance_lines({"small": {"models": {"integer": {"tasks": tasks}}}})
    assert line.endswith("all but b (below).")


def test_unknown_variants_are_named():
    with pytest.raises(ValueError, match="no variant nonsense"):
        ablations.chosen(["nonsense"], ["stories"])
