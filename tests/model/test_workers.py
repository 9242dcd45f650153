"""Training in several processes: two take the steps of one; devices and precisions that do not exist are refused."""

import json
import os
import subprocess
import sys

import pytest
import torch

from spikeloom.model.neurons import Neurons
from spikeloom.model.train import train
from spikeloom.model.workers import Workers, pick_device

from .test_train import CONFIG, SPLIT

#: Ends a program that ran in several processes: no thread of theirs is left that could want the interpreter while it ends. The
#: kernel lists a thread for a moment after it was joined, and no longer, so only those that stay count.
ALONE = """
import pathlib, time
def left():
    names = []
    for path in pathlib.Path("/proc/self/task").glob("*/comm"):
        try:
            names.append(path.read_text().strip())
        except OSError:  # it ended since it was listed
            pass
    return [name for name in names if "gloo" in name]

deadline = time.monotonic() + 5
while left() and time.monotonic() < deadline:
    time.sleep(0.01)
assert not left(), left()
"""
#: One step's gradients and statistics in every process's own rows; process 0 writes what all agreed on.
STEP = """
import sys, torch
from spikeloom.model.train import build_model
from spikeloom.model.workers import Workers
config, workers = torch.load(sys.argv[1]), Workers.join("cpu")

def learned(kind):
    torch.manual_seed(7)
    model = build_model(config, kind, kernel=False).train()
    batch = torch.randint(config["model"]["vocabulary"], (8, config["model"]["context"] + 1))
    tokens, targets = workers.own(batch[:, :-1], batch[:, 1:])
    learner = workers.wrap(model)
    logits = learner(tokens)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    return {name: p.grad for name, p in model.named_parameters()} | dict(model.named_buffers())

out = {kind: learned(kind) for kind in ("spiking", "softmax")}
if workers.first:
    torch.save(out, sys.argv[2])
workers.leave()
""" + ALONE
#: `python -m spikeloom.model.train`.
TRAIN = """
import sys
from spikeloom.model.train import main
main(sys.argv[1:])
""" + ALONE
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def launch(*arguments):
    """Run Python with this interpreter's import path and one thread."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *map(str, arguments)], env=environment, timeout=900, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path):
    """Through torchrun, on gloo: every gradient and every norm's statistics are those of the whole batch."""
    (tmp_path / "step.py").write_text(STEP)
    torch.save(CONFIG, tmp_path / "config.pt")
    launch(*TORCHRUN, tmp_path / "step.py", tmp_path / "config.pt", tmp_path / "two.pt")
    launch(tmp_path / "step.py", tmp_path / "config.pt", tmp_path / "one.pt")
    two, one = torch.load(tmp_path / "two.pt"), torch.load(tmp_path / "one.pt")
    for kind, tensors in one.items():
        assert tensors.keys() == two[kind].keys()
        for name, expected in tensors.items():
            # A bias before a norm has no gradient but the rounding of sums.
            assert (two[kind][name] - expected).norm() <= 1e-4 * expected.norm() + 1e-6, (kind, name)


@pytest.mark.slow
def test_torchrun_trains_and_resumes(tmp_path):
    """Two processes count the tokens of one, write one log, and go on where they stopped."""
    pytest.importorskip("tokenizers", reason="tokenizers: not installed")
    texts, folder = tmp_path / "texts.jsonl", tmp_path / "run"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in SPLIT.train * 5))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "train.py").write_text(TRAIN)
    for steps in (3, 5):
        launch(*TORCHRUN, tmp_path / "train.py", "--config", tmp_path / "config.json", "--run-folder", folder, "--steps", steps,
               "--data", texts, "--device", "cpu", "--no-compile", "--report-every", 0)
        state = torch.load(folder / "checkpoint.pt", weights_only=False)
        assert state["step"] == steps and state["tokens"] == steps * CONFIG["training"]["batch_tokens"]
    rows = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()]
    assert [row[0] for row in rows] == ["step", "1", "2", "3", "4", "5"]


def test_mixed_precision_learns_and_measures_in_float32(tmp_path):
    """bf16 changes how it learns, not what is stored: the run's model is float32 and near the float32 run's."""
    pytest.importorskip("tokenizers", reason="tokenizers: not installed")
    losses = {}
    for precision in ("float32", "bf16"):
        model = train(CONFIG, run=tmp_path / precision, steps=25, split=SPLIT, compiled=False, quiet=True, report_every=0.0,
                      workers=Workers(precision=precision))
        assert all(p.dtype == torch.float32 for p in model.parameters())
        rows = (tmp_path / precision / "log.csv").read_text().splitlines()
        last = dict(zip(rows[0].split(","), rows[-1].split(",")))
        losses[precision] = float(last["development_nats"])
        assert 0 < float(last["firing_rate"]) < 1 and float(last["gradient_norm"]) > 0 and 0 <= float(last["silent_neurons"]) < 1
    assert losses["bf16"] == pytest.approx(losses["float32"], abs=0.25) and losses["bf16"] != losses["float32"]


def test_rows_are_shared():
    """Every row of a batch goes to exactly one process."""
    batch = torch.arange(12)
    parts = [Workers(rank=rank, count=3).own(batch)[0] for rank in range(3)]
    assert sorted(torch.cat(parts).tolist()) == list(range(12))
    assert Workers(count=3).rows(10) == 9 and Workers(count=3).rows(1) == 3 and Workers().rows(10) == 10


def test_what_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="precision"):
        Workers.join("cpu", "int3")
    if not torch.cuda.is_available():
        assert pick_device() == torch.device("cpu")
        with pytest.raises(ValueError, match="no GPU"):
            pick_device("cuda")


def test_alone_the_norms_are_what_they_were(seed):
    """One process: batch statistics are those of torch's own batch norm."""
    torch.manual_seed(seed)
    x = torch.randn(40, 6) * 3 + 1
    neurons = Neurons((6,), (4,))
    reference = torch.nn.BatchNorm1d(6, affine=False)
    u = reference.train()(x) * torch.exp(neurons.log_gain)
    expected = torch.floor(u.clamp(0, 4) + 0.5) * neurons.unit
    assert (neurons.train()(x) == expected).float().mean() > 0.99
