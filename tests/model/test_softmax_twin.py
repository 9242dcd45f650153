"""The softmax twin, and its form with binary queries and keys, which the ablations set it against."""

import torch

from spikeloom.model.softmax_twin import SoftmaxTwin
from spikeloom.model.train import build_model

CONFIG = {"model": {"name": "twin", "vocabulary": 20, "context": 12, "width": 16, "layers": 2, "heads": 2, "hidden": 32, "recency": [0, 2]}}


def test_a_binary_twin_sees_signs_of_queries_and_keys_alone(seed):
    """Of equal size; scaling queries changes nothing, which it does in the plain twin; the gradient reaches what made them."""
    tokens = torch.randint(0, 20, (2, 12), generator=torch.Generator().manual_seed(seed))
    for binary in (False, True):
        torch.manual_seed(seed)
        twin = build_model(CONFIG | {"twin": {"binary": binary}}, "softmax")
        assert isinstance(twin, SoftmaxTwin)
        before = twin(tokens)
        before.square().sum().backward()
        query = twin.blocks[0].qkv.weight[:16]
        assert twin.blocks[0].qkv.weight.grad[:16].abs().sum() > 0
        with torch.no_grad():
            query *= 3
        assert torch.allclose(twin(tokens), before, atol=1e-6) == binary
    assert twin.parameters_in_all() == build_model(CONFIG, "softmax").parameters_in_all()


def test_a_twin_does_not_look_ahead(seed):
    torch.manual_seed(seed)
    twin = build_model(CONFIG | {"twin": {"binary": True}}, "softmax").eval()
    one, other = torch.arange(12)[None] % 20, torch.arange(12)[None] % 20
    other[0, 8:] = 19
    assert torch.equal(twin(one)[0, :8], twin(other)[0, :8]) and not torch.allclose(twin(one)[0, 8], twin(other)[0, 8])
