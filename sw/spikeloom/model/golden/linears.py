"""Linear layers on spikes, fake-quantised at every step: before neurons, into the residual stream, and as the head.

Weights are input-major [in, out]. Before neurons the scale is free per channel, since thresholds absorb it; a residual
writer's is a power of two, which becomes its shift; the head's is common, since logits are compared.
"""

import torch
from torch import nn

from spikeloom.arch.config import ModelConfig

from ..quantize import fake_quantise, round_to, scale_of, to_integers
from .neurons import NeuronLayer
from .norms import build_norm
from .options import GoldenOptions


def matrix(rows: int, columns: int, deviation: float) -> nn.Parameter:
    """A weight [in, out] with normal entries."""
    return nn.Parameter(torch.randn(rows, columns) * deviation)


def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x W, [.., in] x [in, out] -> [.., out]: float32, although mixed precision computes it in bfloat16."""
    y = x @ weight
    return y.float() if y.dtype == torch.bfloat16 else y


class LinearNeurons(nn.Module):
    """s' = SN(norm(s W)); spikes [T, B, N, in] (in units) -> whole levels [T, B, N, out]."""

    def __init__(self, config: ModelConfig, options: GoldenOptions, rows: int, sizes: tuple[int, ...], levels: tuple[int, ...], *,
                 shifted: bool = False):
        super().__init__()
        self.weight, self.bits = matrix(rows, sum(sizes), rows**-0.5), config.weight_bits  # [in, out]
        self.neurons = NeuronLayer(config, options, sizes, levels, signed=True, shifted=shifted)

    def forward(self, spikes: torch.Tensor) -> torch.Tensor:
        return self.neurons(product(spikes, fake_quantise(self.weight, self.bits, "channel")))


class FloatLinear(nn.Module):
    """y = norm(x W): the same layer where nothing spikes; [.., in] -> [.., out]."""

    def __init__(self, options: GoldenOptions, rows: int, columns: int, deviation: float | None = None):
        super().__init__()
        self.weight = matrix(rows, columns, rows**-0.5 if deviation is None else deviation)  # [in, out]
        self.norm = build_norm(options.norm, columns, torch.ones(columns), signed=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(product(x, self.weight))


class ResidualWriter(nn.Module):
    """y = round((s W' + b') / 2^-f) 2^-f, where a norm after the linear is folded: W' = a W, b' = b - a mean.

    W' is what is quantised, to one power of two per output channel. While statistics still move, W' takes the running
    gain and y the batch's, so that both forms see the same rounding of weights.

    Parameters
    ----------
    unit : float
        Value of one input level.
    """

    def __init__(self, config: ModelConfig, options: GoldenOptions, rows: int, unit: float):
        super().__init__()
        columns = config.width
        self.bits, self.fraction, self.unit = config.weight_bits, options.fraction, unit
        behind = options.norm if options.norm_at == "linears" else "none"
        start = 0.5 if behind != "none" else 1.0
        self.weight = matrix(rows, columns, (1.0 if behind != "none" else 0.5) * rows**-0.5)  # [in, out]
        self.norm = build_norm(behind, columns, torch.full((columns,), start), signed=True)
        if behind == "none":
            self.norm.raw_gain.requires_grad_(False)  # the weight is its own gain
        # A right shift needs scale * unit <= 2^-f.
        self.largest_exponent = -self.fraction - round(torch.log2(torch.tensor(unit)).item())

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """W' [in, out] and b' [out] in float."""
        a, b = self.norm.affine()
        return self.weight * a, b

    def scale(self, weight: torch.Tensor) -> torch.Tensor:
        """Power of two per channel [1, out] of one integer of W'."""
        return scale_of(weight, self.bits, "power", self.largest_exponent)

    def integers(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """weight [in, out], bias [out] at the accumulator's scale, shift [out]: whole numbers, float64."""
        weight, bias = (x.detach() for x in self.folded())
        scale = self.scale(weight)
        unit = scale[0].double() * self.unit
        return (to_integers(weight, scale, self.bits).double(), torch.floor(bias.double() / unit + 0.5),
                torch.round(-torch.log2(unit) - self.fraction))

    def forward(self, spikes: torch.Tensor) -> torch.Tensor:
        weight, bias = self.folded()
        quantised = fake_quantise(weight, self.bits, "power", self.largest_exponent)
        if self.training and not self.norm.frozen and type(self.norm).__name__ != "Norm":
            a = self.norm.affine()[0].detach()
            y = self.norm(product(spikes, quantised / torch.where(a.abs() < 1e-6, 1e-6, a)))
        else:
            y = product(spikes, quantised) + round_to(bias, self.scale(weight)[0] * self.unit)
        return round_to(y, 2.0**-self.fraction)


class Head(nn.Module):
    """Logits of the final spikes of T steps, [T, B, N, C] (in units) -> [B, N, outputs].

        accumulate    sum_t s_t W + b
        average       mean_t s_t W + b
        concatenate   [s_1, .., s_T] W + b, W [T C, outputs]
        final         s_T W + b
    """

    def __init__(self, config: ModelConfig, unit: float):
        super().__init__()
        c = config
        rows = c.width * (c.steps if c.head == "concatenate" else 1)
        self.kind, self.bits, self.unit = c.head, c.weight_bits, unit / (c.steps if c.head == "average" else 1)
        self.weight = matrix(rows, c.outputs, 0.5 * rows**-0.5)  # [in, outputs]
        self.bias = nn.Parameter(torch.zeros(c.outputs))  # [outputs]

    def read(self, spikes: torch.Tensor) -> torch.Tensor:
        """[T, B, N, C] -> [B, N, in]."""
        if self.kind == "accumulate":
            return spikes.sum(0)
        if self.kind == "average":
            return spikes.mean(0)
        if self.kind == "final":
            return spikes[-1]
        return spikes.movedim(0, -2).flatten(-2)

    def forward(self, spikes: torch.Tensor) -> torch.Tensor:
        scale = scale_of(self.weight, self.bits, "common")
        weight = fake_quantise(self.weight, self.bits, "common")
        return product(self.read(spikes), weight) + round_to(self.bias, scale[0] * self.unit)
