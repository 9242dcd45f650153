"""Fake quantisation: exact integers forward, straight through backward, scales of the promised kind."""

import pytest
import torch

from spikeloom.model.quantize import LARGEST, Quantiser, fake_quantise, round_to, scale_of, to_integers

KINDS = ("channel", "power", "common", "power_common")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_round_trip(bits, kind, seed):
    """Integers times scale are the forward value to the last bit, lie in the symmetric range, and stay put when redone."""
    torch.manual_seed(seed)
    weight = torch.randn(24, 10) * torch.rand(10)
    scale = scale_of(weight, bits, kind)
    integers, forward = to_integers(weight, scale, bits), fake_quantise(weight, bits, kind)
    assert torch.equal(integers * scale, forward)
    assert integers.abs().max() <= LARGEST[bits] and torch.equal(integers, integers.round())
    assert torch.equal(to_integers(forward, scale, bits), integers)
    assert scale.shape == ((1, 10) if kind in ("channel", "power") else (1, 1))
    if kind.startswith("power"):
        assert torch.equal(torch.log2(scale), torch.log2(scale).round())
    if bits == 8:
        assert ((weight - forward).abs() <= scale / 2 * 1.0001).all()


@pytest.mark.parametrize("kind", KINDS)
def test_four_bits_err_least(kind, seed):
    """No column errs more than with the scale that clips nothing; where every column has its own, the whole errs less."""
    torch.manual_seed(seed)
    weight = torch.randn(64, 10)
    scale = scale_of(weight, 4, kind)
    own = scale.shape[1] > 1
    unclipped = weight.abs().amax(0 if own else (0, 1), keepdim=True) / LARGEST[4]
    unclipped = torch.exp2(torch.log2(unclipped).ceil()) if kind.startswith("power") else unclipped

    def error(scale):
        return (weight - to_integers(weight, scale, 4) * scale).square().sum(0 if own else (0, 1))

    assert (error(scale) <= error(unclipped)).all()
    if own:
        assert error(scale).sum() < 0.95 * error(unclipped).sum()


def test_gradient_passes_straight_through():
    """Whatever was rounded, the gradient is one."""
    weight = torch.randn(6, 5, requires_grad=True)
    fake_quantise(weight, 8, "channel").sum().backward()
    assert torch.equal(weight.grad, torch.ones(6, 5))
    value = torch.randn(7, requires_grad=True)
    round_to(value, 0.25).sum().backward()
    assert torch.equal(value.grad, torch.ones(7))


def test_round_half_up():
    """The rounding of residual writers."""
    assert round_to(torch.tensor([-1.5, -0.5, 0.5, 1.5, 1.49]), 1.0).tolist() == [-1, 0, 1, 2, 1]


def test_exponent_is_bounded():
    """A residual writer shifts right only: a scale above the bound clips the weight instead."""
    weight = torch.full((3, 2), 100.0)
    assert scale_of(weight, 8, "power", -3).tolist() == [[0.125, 0.125]]
    assert to_integers(weight, torch.tensor(0.125), 8).max() == 127


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_held_scale_stays(bits, kind, seed):
    """Free, it follows the weight; held, it stays, and so it does in a file. A file of before holds none."""
    torch.manual_seed(seed)
    weight, quantise = torch.randn(24, 10), Quantiser(10, bits, kind)
    before = {"held": quantise.held.clone()}
    assert torch.equal(quantise(weight), fake_quantise(weight, bits, kind))
    assert torch.equal(quantise.scale(4 * weight), 4 * scale_of(weight, bits, kind))
    quantise.hold(weight)
    quantise.hold(4 * weight)
    assert torch.equal(quantise.scale(4 * weight), scale_of(weight, bits, kind))
    assert torch.equal(quantise(4 * weight), quantise.integers(4 * weight) * scale_of(weight, bits, kind))
    assert quantise.integers(4 * weight).abs().max() == LARGEST[bits]
    again = Quantiser(10, bits, kind)
    again.load_state_dict(quantise.state_dict())
    assert torch.equal(again.scale(4 * weight), quantise.scale(weight))
    for old in (before, {}):
        again.load_state_dict(old)
        assert torch.equal(again.scale(4 * weight), scale_of(4 * weight, bits, kind))
