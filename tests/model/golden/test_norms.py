"""Norms: frozen ones are one affine map per channel, which is what thresholds fold."""

import pytest
import torch

from spikeloom.model.golden.norms import PowerNorm, build_norm


@pytest.mark.parametrize("kind", ["none", "batch", "power"])
@pytest.mark.parametrize("signed", [False, True])
def test_frozen_norm_is_affine(kind, signed, seed):
    torch.manual_seed(seed)
    norm = build_norm(kind, 6, torch.full((6,), 1.5), signed=signed)
    x = torch.randn(3, 50, 6) * 2 + 0.7
    for _ in range(5):
        norm.train()(x)
    a, b = norm.affine()
    assert torch.allclose(norm.eval()(x), a * x + b, atol=1e-6)
    norm.train().frozen = True
    assert torch.equal(norm(x), norm.eval()(x))


def test_batch_norm_is_torchs(seed):
    torch.manual_seed(seed)
    norm, x = build_norm("batch", 5, torch.ones(5), signed=True), torch.randn(4, 30, 5) * 3 + 1
    assert torch.allclose(norm(x), torch.nn.BatchNorm1d(5)(x.flatten(0, 1)).view(x.shape), atol=1e-5)


def test_power_norm_keeps_the_mean(seed):
    """y = g x / rms(x): batch moments first, running ones after the warm-up, no mean subtracted."""
    torch.manual_seed(seed)
    norm, x = build_norm("power", 4, torch.ones(4), signed=True), torch.randn(200, 4) + 2
    y = norm(x)
    assert torch.allclose(y.square().mean(0), torch.ones(4), atol=1e-3) and (y.mean(0) > 0.5).all()
    norm.steps.fill_(PowerNorm.WARM_UP)
    before = norm.moment.clone()
    z = norm(2 * x)
    assert not torch.equal(norm.moment, before)
    assert torch.allclose(z, 2 * x * torch.rsqrt(norm.moment + 1e-5), atol=1e-5)


def test_layer_norm_does_not_fold():
    norm = build_norm("layer", 4, torch.ones(4), signed=True)
    assert norm(torch.randn(3, 4)).mean(-1).abs().max() < 1e-5
    with pytest.raises(ValueError, match="does not fold"):
        norm.affine()
