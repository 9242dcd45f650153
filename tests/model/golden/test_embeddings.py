"""SpikeDecoder's embeddings: the bits they promise, from two integer tables."""

from dataclasses import replace

import pytest
import torch

from spikeloom.arch.config import ModelConfig
from spikeloom.model.golden import GoldenOptions
from spikeloom.model.golden.embeddings import Embedding, binary_code, frequencies, sinusoids

CONFIG = ModelConfig(name="t", vocabulary=11, context=8, width=16, layers=1, heads=1, hidden=8, neuron="lif_hard", steps=3, leak=1,
                     level_v=1, embedding="spikes", position_table=True, spike_shift=8)


def bits_of(options, **changes):
    embed = Embedding(replace(CONFIG, **changes), GoldenOptions(**options))
    return embed, embed(torch.arange(8)[None])  # [T, 1, 8, C]


def test_binary_code_counts():
    code = binary_code(11, 8)
    assert torch.equal((code[:, :4] > 0).long() @ torch.tensor([1, 2, 4, 8]), torch.arange(11))
    assert torch.equal(code[:, 4:], code[:, :4])
    with pytest.raises(ValueError, match="takes 4 columns"):
        binary_code(11, 3)


def test_joint_one_hot_is_one_column():
    _, x = bits_of({"token": "one_hot", "position": "one_hot", "join": "concatenate"}, width=88)
    assert torch.equal(x[0, 0].sum(-1), torch.ones(8))
    assert torch.equal(x[0, 0].argmax(-1), torch.arange(8) * 8 + torch.arange(8))  # column v N + n


def test_two_hot_is_token_beside_position():
    _, x = bits_of({"token": "two_hot", "position": "one_hot", "join": "concatenate"}, width=19)
    assert torch.equal(x[0, 0, :, :11].argmax(-1), torch.arange(8)) and torch.equal(x[0, 0, :, 11:].argmax(-1), torch.arange(8))
    assert torch.equal(x[0, 0].sum(-1), torch.full((8,), 2.0))


def test_concatenated_bits_keep_to_their_columns(seed):
    torch.manual_seed(seed)
    embed, x = bits_of({"token": "learned", "position": "binary", "join": "concatenate", "position_width": 6})
    assert torch.equal(x[0, 0, :, 10:], (binary_code(8, 6) > 0).float())
    assert torch.equal(x[0, 0, :, :10], (embed.tables.token[:8] >= 0).float())


def test_summed_bits_are_a_heaviside(seed):
    torch.manual_seed(seed)
    embed, x = bits_of({"token": "learned", "position": "static", "join": "sum"})
    want = (embed.tables.token[:8] + sinusoids(8, frequencies(16)) >= 0).float()
    assert (x[0, 0] == want).float().mean() > 0.97  # but for the rounding of tables to 8 bits
    assert torch.equal(x[0], x[1]) and torch.equal(x[0], x[2])
    x.sum().backward()
    assert embed.tables.token.grad[:8].abs().sum() > 0


def test_current_through_neurons_differs_over_time(seed):
    torch.manual_seed(seed)
    embed, _ = bits_of({"token": "current", "position": "learned"})
    assert embed.neurons is not None
    x = embed.eval()(torch.arange(8)[None])
    assert set(x.unique().tolist()) <= {0.0, 1.0} and not torch.equal(x[0], x[2])


@pytest.mark.parametrize("options, changes, message", [
    ({"token": "learned", "position": "learned"}, {"embedding": "current"}, "set embedding to 'spikes'"),
    ({"token": "learned", "position": "learned"}, {"neuron": "t_lif"}, "ternary"),
    ({"token": "one_hot", "position": "one_hot", "join": "concatenate"}, {}, "vocabulary x context"),
    ({"token": "two_hot", "position": "one_hot", "join": "concatenate"}, {}, "vocabulary \\+ context"),
    ({"token": "learned", "position": "learned", "join": "concatenate"}, {}, "position_width"),
    ({"token": "learned", "position": "none"}, {}, "contradict"),
    ({"learned_shift": True, "position": "learned"}, {}, "NASN"),
])
def test_contradictions_are_refused(options, changes, message):
    with pytest.raises(ValueError, match=message):
        GoldenOptions(**options).check(replace(CONFIG, **changes))
