"""Fake quantisation of weights with a straight-through gradient, and the integers behind it.

Weights are input-major [in, out], symmetric: +-127 (8 bits), +-7 (4 bits), +-1 (2 bits, ternary; the scale is the mean
magnitude as in arXiv 2402.17764). The scale is

* `channel`: one float per output channel (a threshold follows, which absorbs it),
* `power`: one power of two per output channel (a residual writer, whose shift it becomes),
* `common`: one float for the whole matrix (logits must stay comparable),
* `power_common`: one power of two for the whole matrix (the embedding).

With 8 bits nothing clips. With 4 bits the scale is the one of a few that leaves the least squared error, since clipping a large weight
costs less there than rounding all others coarsely.

A scale that is chosen anew at every step jumps when another one errs less, and the whole column with it; `Quantiser.hold` ends that.
"""

import torch
from torch import nn

LARGEST = {8: 127, 4: 7, 2: 1}
#: Scales tried for 4 bits, as shares of the one that clips nothing.
SHARES, POWER_SHARES = (1.0, 0.85, 0.7, 0.55), (1.0, 0.5)


def scale_of(weight: torch.Tensor, bits: int, kind: str, largest_exponent: int | None = None) -> torch.Tensor:
    """Value of one integer unit: [1, out] for `channel` and `power`, [1, 1] otherwise.

    A power of two is rounded up so that nothing clips (of 8 bits); `largest_exponent` bounds it all the same, because a residual
    writer can shift right only.
    """
    magnitude = weight.detach().abs()  # [in, out]
    if kind in ("common", "power_common"):
        magnitude = magnitude.reshape(-1, 1)
    if bits == 2:
        scale = magnitude.mean(0, keepdim=True)
    else:
        scale = magnitude.amax(0, keepdim=True) / LARGEST[bits]
    scale = scale.clamp_min(1e-8)
    if kind.startswith("power"):
        exponent = torch.log2(scale)
        exponent = exponent.round() if bits == 2 else exponent.ceil()
        if largest_exponent is not None:
            exponent = exponent.clamp_max(largest_exponent)
        scale = torch.exp2(exponent.clamp_min(-24))
    if bits == 4:
        scale = _least_error(weight.detach(), scale, POWER_SHARES if kind.startswith("power") else SHARES)
    return scale


def _least_error(weight: torch.Tensor, scale: torch.Tensor, shares: tuple[float, ...]) -> torch.Tensor:
    """Of the scales `scale * share` those of least squared error, per column or for the whole matrix."""
    best, least = scale, None
    for share in shares:
        squares = (weight - to_integers(weight, scale * share, 4) * (scale * share)).square()
        error = squares.sum(0, keepdim=True) if scale.shape[1] > 1 else squares.sum().reshape(1, 1)
        if least is None:
            least = error
        else:
            best, least = torch.where(error < least, scale * share, best), torch.minimum(error, least)
    return best


def to_integers(weight: torch.Tensor, scale: torch.Tensor, bits: int) -> torch.Tensor:
    """The integers (as floats) that the device stores."""
    return torch.round(weight / scale).clamp(-LARGEST[bits], LARGEST[bits])


def straight_through(exact: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """`exact` to the last bit forward (ties in later roundings depend on it), the gradient goes to `value`."""
    return exact + (value - value.detach())


def fake_quantise(weight: torch.Tensor, bits: int, kind: str, largest_exponent: int | None = None) -> torch.Tensor:
    """The weight as the device sees it; the gradient passes straight through."""
    scale = scale_of(weight, bits, kind, largest_exponent)
    return straight_through(to_integers(weight.detach(), scale, bits) * scale, weight)


class Quantiser(nn.Module):
    """Weight float [in, out] as the device sees it; its scale is chosen anew at every step until it is held.

    Parameters
    ----------
    columns : outputs
    bits, kind, largest_exponent : as for `scale_of`
    """

    def __init__(self, columns: int, bits: int, kind: str, largest_exponent: int | None = None):
        super().__init__()
        self.bits, self.kind, self.largest_exponent, self.holding = bits, kind, largest_exponent, False
        #: The held scale; zeros as long as none is.
        self.register_buffer("held", torch.zeros(1, columns if kind in ("channel", "power") else 1))

    def scale(self, weight: torch.Tensor) -> torch.Tensor:
        """Value of one integer unit: [1, out] or [1, 1], as `scale_of`."""
        return self.held if self.holding else scale_of(weight, self.bits, self.kind, self.largest_exponent)

    def integers(self, weight: torch.Tensor) -> torch.Tensor:
        """The integers [in, out] (as floats) that the device stores."""
        return to_integers(weight.detach(), self.scale(weight), self.bits)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        scale = self.scale(weight)
        return straight_through(to_integers(weight.detach(), scale, self.bits) * scale, weight)

    def hold(self, weight: torch.Tensor) -> None:
        """Keep the scale that the weight has now; one that is held already stays."""
        if not self.holding:
            self.held.copy_(self.scale(weight))
            self.holding = True

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        # Models of before scales could be held have none.
        state_dict.setdefault(prefix + "held", torch.zeros_like(self.held))
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.holding = bool(self.held.all())


def round_to(value: torch.Tensor, unit) -> torch.Tensor:
    """Round half up to multiples of `unit`, straight through."""
    return straight_through(torch.floor(value.detach() / unit + 0.5) * unit, value)
