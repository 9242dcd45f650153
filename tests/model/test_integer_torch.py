"""The batched integer model equals the one that goes position by position, in every value."""

import numpy as np
import pytest
import torch

from spikeloom.arch.presets import preset
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.integer_torch import IntegerSequences
from spikeloom.model.random_model import random_model
from spikeloom_sim.random_systems import SYSTEMS, draw_system

#: Kept by position alone: rows of them have as many columns as positions were seen.
ROWS = (".raw", ".biased", ".fired", ".winners")


def draw(number, system, **changes):
    config = draw_system(np.random.default_rng([88, number]), preset("tiny"), system, number)
    return random_model(number, config, saturate=number % 5 == 3, **changes)


@pytest.mark.parametrize("number, system", list(enumerate([*SYSTEMS, *["mixed"] * 4])), ids=str)
def test_every_value_of_every_system(number, system):
    config, tensors = draw(number, system)
    rng = np.random.default_rng(number)
    texts = rng.integers(config.vocabulary, size=(2, min(10, config.context))).tolist()
    batched, got = IntegerSequences(tensors, config), {}
    logits = batched(torch.tensor(texts), got)
    model, saturations = IntegerModel(config, tensors), 0
    for row, text in enumerate(texts):
        model.clear()
        traces = model.encode(text) if config.bidirectional else [model.step(token, i) for i, token in enumerate(text)]
        for position, trace in enumerate(traces):
            saturations += trace.counters["saturations"]
            for name, value in trace.items():
                if not name.partition("@")[0].endswith(ROWS):
                    assert np.array_equal(got[name][row, position].numpy(), value), (row, position, name)
            if "logits" in trace:
                assert np.array_equal(logits[row, position].numpy(), trace["logits"])
    assert batched.saturations == saturations
    assert logits.shape == (2, 1 if config.classes else len(text), config.outputs)


def test_the_last_logits_alone():
    config, tensors = draw(0, "T-LIF decoder")
    tokens = torch.tensor([[1, 2, 3, 4]])
    batched = IntegerSequences(tensors, config)
    assert torch.equal(batched(tokens, only_last=True), batched(tokens)[:, -1:])


@pytest.mark.parametrize("system", ["WE-Spikingformer, masked text", "encoder with SSA", "encoder with SFSA"])
def test_padding_does_not_compete(system):
    config, tensors = draw(1, system)
    batched = IntegerSequences(tensors, config)
    texts = torch.from_numpy(np.random.default_rng(1).integers(config.vocabulary, size=(8, config.context)))
    short, padding, whole = 4, {}, {}
    padded = batched(texts, padding, lengths=torch.tensor([config.context] + [short] * 7))
    assert torch.equal(padded[:1], batched(texts[:1]))
    assert torch.equal(padded[1:, :short], batched(texts[1:, :short]))
    batched(texts, whole)
    gathered = [trace[config.label("layer0.attn.gather", 0)][1:, :short] for trace in (padding, whole)]
    assert not torch.equal(*gathered)
