"""The plain C loop says what the integer model says."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import TINY, random_model
from spikeloom_sim.bench import processor
from spikeloom_sim.bench.processor import PROCESSORS, Here, PlainLoop, UnknownProcessor, baseline, differences

if shutil.which("cc") is None:
    pytest.skip("cc: no C compiler", allow_module_level=True)

SHAPES = {
    "tiny": TINY,
    "recency and equal ranks": replace(TINY, rank_shifts=(0, 0, 0), recency=(1, 3)),
    "overlap": replace(TINY, overlap=True, top_k=2),
    "wide heads": replace(TINY, width=256, heads=2, hidden=64, layers=1, position_table=False, embed_shift=2),
    "one winner": replace(TINY, top_k=1, heads=4, recency=(0, 1, 2, 15)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_logit_is_that_of_the_integer_model(name, seed):
    config, tensors = random_model(seed, SHAPES[name])
    tokens = [(5 * i + seed) % config.vocabulary for i in range(config.context)]
    assert differences(PlainLoop(config, tensors), IntegerModel(config, tensors), tokens) == (len(tokens) * config.vocabulary, 0)


def test_a_wrong_weight_is_seen(seed):
    config, tensors = random_model(seed, TINY)
    other = dict(tensors, **{"head.bias": tensors["head.bias"] + 1})
    compared, wrong = differences(PlainLoop(config, other), IntegerModel(config, tensors), [1, 2, 3])
    assert wrong == compared == 3 * config.vocabulary


def test_clipped_streams_agree(seed):
    config, tensors = random_model(seed, TINY, saturate=True)
    assert differences(PlainLoop(config, tensors), IntegerModel(config, tensors), list(range(16)))[1] == 0


def test_other_kinds_of_models_are_refused():
    with pytest.raises(ValueError, match="WD-Spikingformer decoders alone"):
        PlainLoop(replace(TINY, neuron="lif_soft", steps=2), {})


def test_too_many_tokens_are_refused(seed):
    loop = PlainLoop(*random_model(seed, TINY))
    with pytest.raises(ValueError, match="do not fit"):
        loop.decode(np.zeros(TINY.context + 1, int))


HERE = Here("a processor", 20_000.0)


def test_boards_are_scaled_by_clock_and_cores(seed):
    record = baseline(PlainLoop(*random_model(seed, TINY)), [1, 2, 3, 4], seconds=0.01, here=HERE)
    assert (record["x86"], record["x86_coremark"]) == ("a processor", 20_000.0)
    for p in PROCESSORS:
        board = record["boards"][p.name]
        assert board["one_core"] == pytest.approx(record["x86_one_core"] / p.slower(HERE), rel=0.01)
        assert board["all_cores"] == pytest.approx(record["x86_all_cores"] / record["x86_cores"] * p.cores / p.slower(HERE), rel=0.01)
    assert PROCESSORS[0].slower(HERE) == pytest.approx(20_000 / (650 * 3.57))


def _cpuinfo(folder, model):
    path = folder / "cpuinfo"
    one = f"processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: {model}\nmodel name\t: AMD EPYC\n"
    path.write_text(one + "\n" + one.replace(f": {model}", ": 99"))
    return path


def test_the_processor_that_measures_is_looked_up(tmp_path, monkeypatch):
    monkeypatch.delenv(processor.VARIABLE, raising=False)
    for (vendor, family, model), score in processor.COREMARKS.items():
        assert Here.find(_cpuinfo(tmp_path, model)) == Here(f"{vendor}, family {family}, model {model}", score)


@pytest.mark.parametrize("path", ["unknown", "absent"])
def test_a_processor_of_unknown_coremark_measures_nothing(path, tmp_path, monkeypatch):
    monkeypatch.delenv(processor.VARIABLE, raising=False)
    cpuinfo = _cpuinfo(tmp_path, 77) if path == "unknown" else tmp_path / "absent"
    with pytest.raises(UnknownProcessor, match=processor.VARIABLE):
        Here.find(cpuinfo)
    monkeypatch.setenv(processor.VARIABLE, "12345.5")
    assert Here.find(cpuinfo).coremark == 12345.5
    for wrong in ("fast", "0", "-3", "inf", "nan"):
        monkeypatch.setenv(processor.VARIABLE, wrong)
        with pytest.raises(UnknownProcessor, match="iterations per second"):
            Here.find(cpuinfo)
