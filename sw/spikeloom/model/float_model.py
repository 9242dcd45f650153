"""The golden model: WD-Spikingformer with winner-take-all attention and a membrane shortcut, in PyTorch.

    x = embed(token) [+ position]
    per layer: s = SN_in(x)
               q, k, v = SN_qkv(s W_qkv)              q, k binary
               x += SN_attn(WTA(q, k, v)) W_out + b_out
               h = SN_hidden(SN_mid(x) W_up)
               x += h W_down + b_down
    logits = SN_final(x) W_head + b_head

Pre-activation membrane shortcut: arXiv 2304.11954; WTA attention: arXiv 2604.11321; SN: `neurons`. Weights are
input-major and fake-quantised at every step; residual writers round to the residual's unit 2^-f exactly as the
integer model does, so that evaluation form and integers differ by the rounding of thresholds only.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from spikeloom.arch.config import ModelConfig

from . import fast_attention
from .attention import AnnealedWinners, distance_penalty, recency_penalty
from .neurons import Neurons, unit_of
from .quantize import Quantiser, round_to, scale_of, straight_through, to_integers


def matrix(rows: int, columns: int, deviation: float) -> nn.Parameter:
    """A weight [in, out] with normal entries."""
    return nn.Parameter(torch.randn(rows, columns) * deviation)


def neurons_of(config: ModelConfig, size: int, kind: str, centre: float = 0.0) -> Neurons:
    """Neurons of a tensor, with its levels."""
    return Neurons((size,), (config.level(kind),), centre=centre, lows=(config.low(kind),))


def events(spikes: torch.Tensor, neurons: Neurons) -> torch.Tensor:
    """Neurons that speak, per token: [B, T, C] -> scalar.

    Its gradient reaches silent and once-speaking neurons alone; of neurons with levels of both signs those that speak once, since a
    silent one has no side to be pushed to.
    """
    levels = spikes / neurons.unit
    return torch.where(neurons.low < 0, levels.abs(), levels).clamp(0, 1).sum(-1).mean()


@dataclass(frozen=True, kw_only=True)
class FloatOptions:
    """Choices of training that integers know nothing of."""

    #: The scores' gradient is that of one softmax per rank, weighted as the winners are, in place of one softmax for all.
    ranked: bool = False
    #: Where neurons that read the stream begin: a channel at its mean speaks with this share of the levels. At 0 half of the
    #: values are silent, at 0.5 both signs are heard and nearly no row is skipped.
    centre: float = 0.0
    #: The same for values and for the neurons that hear the winners: half of what a value says lies below its mean.
    centre_values: float = 0.0
    #: The same for the last neurons, which the head reads; None: as the others that read the stream.
    centre_final: float | None = None
    #: The head starts, and learns, so many times larger. Levels are small numbers of a bounded range, so that logits grow by the
    #: head alone, and a slow head drives the last neurons into their bounds.
    head_gain: float = 1.0
    #: The scores' softmax, of which winners are made, has this factor on its scores for good; None: each head learns its own, from 1.
    temperature: float | None = None
    #: Winners weigh what the softmax over their scores gives them, in place of shifts by rank. A float reference, which has no integers:
    #: it takes exponentials and a division.
    by_score: bool = False

    @classmethod
    def from_dict(cls, fields: dict) -> "FloatOptions":
        """Fields of a config's `float`; unknown ones are refused by name."""
        unknown = sorted(set(fields) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"Unknown options of the float model: {', '.join(unknown)}.")
        return cls(**fields)


class ResidualWriter(nn.Module):
    """y = round((s W + b) / 2^-f) 2^-f with one power-of-two weight scale per output channel."""

    def __init__(self, rows: int, columns: int, level: int, fraction: int, bits: int, deviation: float):
        super().__init__()
        self.weight = matrix(rows, columns, deviation)  # [in, out]
        self.bias = nn.Parameter(torch.zeros(columns))  # [out]
        self.fraction, self.unit = fraction, unit_of(level)
        # A right shift needs scale * unit <= 2^-f.
        largest_exponent = -fraction - round(torch.log2(torch.tensor(self.unit)).item())
        self.quantise = Quantiser(columns, bits, "power", largest_exponent)

    def scale(self) -> torch.Tensor:
        """Power of two per channel [out]."""
        return self.quantise.scale(self.weight)[0]

    def forward(self, spikes: torch.Tensor) -> torch.Tensor:
        weight = self.quantise(self.weight)
        bias = round_to(self.bias, self.scale() * self.unit)
        return round_to((spikes @ weight).float() + bias, 2.0**-self.fraction)


class Block(nn.Module):
    """One layer; x float [B, T, width] -> the same."""

    def __init__(self, config: ModelConfig, fraction: int, options: FloatOptions, kernel: bool = True):
        super().__init__()
        c, d, centre, values = config, config.width, options.centre, options.centre_values
        self.ranked, self.by_score = options.ranked, options.by_score
        self.heads, self.rank_shifts, self.overlap = c.heads, list(c.rank_shifts), c.overlap
        self.fast = kernel and not options.by_score and fast_attention.available(c.head_width)
        self.sn_in = neurons_of(c, d, "in", centre)
        self.qkv = matrix(d, 3 * d, d**-0.5)  # [d, 3d]
        self.quantise_qkv = Quantiser(3 * d, c.weight_bits, "channel")
        self.sn_qkv = Neurons((2 * d, d), (1, c.level_v), centre=(0.0, values), lows=(0, c.low("v")))
        factor = 1.0 if options.temperature is None else options.temperature
        self.log_temperature = nn.Parameter(torch.full((c.heads,), math.log(factor)), requires_grad=options.temperature is None)  # [H]
        self.sn_attn = neurons_of(c, d, "attn", values)
        self.out = ResidualWriter(d, d, c.level_attn, fraction, c.weight_bits, 0.5 * d**-0.5)
        self.sn_mid = neurons_of(c, d, "mid", centre)
        self.up = matrix(d, c.hidden, d**-0.5)  # [d, f]
        self.quantise_up = Quantiser(c.hidden, c.weight_bits, "channel")
        self.sn_hidden = neurons_of(c, c.hidden, "hidden")
        self.down = ResidualWriter(c.hidden, d, c.level_hidden, fraction, c.weight_bits, 0.5 * c.hidden**-0.5)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:  # [B, T, d] -> [B, H, T, d/H]
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _attend(self, spikes, penalty, hardness):  # [B, T, 3d] -> [B, T, d]
        temperature = self.log_temperature.exp()
        if self.fast:
            return fast_attention.winners(spikes, penalty, temperature, hardness, self.rank_shifts, self.overlap, self.ranked)[0]
        with torch.autocast(spikes.device.type, enabled=False):  # mixed precision stops before the winners
            q, k, v = (self._heads(part) for part in spikes.chunk(3, -1))
            y = AnnealedWinners.apply(q, k, v, penalty, temperature, hardness, self.rank_shifts, self.overlap, self.ranked, self.by_score)
        return y.transpose(1, 2).flatten(-2)

    def forward(self, x, penalty, hardness):
        """Stream [B, T, d] -> (stream [B, T, d], synaptic operations per token, a scalar)."""
        before = self.sn_in(x)  # [B, T, d]
        spikes = self.sn_qkv(before @ self.quantise_qkv(self.qkv))  # [B, T, 3d]
        attended = self.sn_attn(self._attend(spikes, penalty, hardness))  # [B, T, d]
        x = x + self.out(attended)
        middle = self.sn_mid(x)  # [B, T, d]
        hidden = self.sn_hidden(middle @ self.quantise_up(self.up))  # [B, T, f]
        d, f = self.qkv.shape[0], self.up.shape[1]
        operations = (events(before, self.sn_in) * 3 * d + events(attended, self.sn_attn) * d
                      + events(middle, self.sn_mid) * f + events(hidden, self.sn_hidden) * d)
        return x + self.down(hidden), operations


class FloatModel(nn.Module):
    """Tokens int64 [B, T] -> logits float [B, T, V].

    `fraction` is f: one unit of the integer residual is 2^-f. `hardness` 0 is softmax over the integer scores, 1 the
    winners alone (inference). Without `kernel` attention is made of tensors, as GPUs need it.
    """

    def __init__(self, config: ModelConfig, fraction: int = 9, options: FloatOptions = FloatOptions(), kernel: bool = True):
        super().__init__()
        self.config, self.fraction = config, fraction
        c = config
        self.embed = matrix(c.vocabulary, c.width, 0.3)  # [V, d]
        self.position = matrix(c.context, c.width, 0.1) if c.position_table else None  # [context, d]
        self.blocks = nn.ModuleList(Block(c, fraction, options, kernel) for _ in range(c.layers))
        final = options.centre if options.centre_final is None else options.centre_final
        self.sn_final = neurons_of(c, c.width, "final", final)
        self.head = matrix(c.width, c.vocabulary, 0.5 * options.head_gain * c.width**-0.5)  # [d, V]
        self.quantise_head = Quantiser(c.vocabulary, c.weight_bits, "common")
        self.head_bias = nn.Parameter(torch.zeros(c.vocabulary))  # [V]
        #: Parameters that learn faster than the rest, by this factor (`train.build_optimisers`).
        self.rates = {"head": options.head_gain, "head_bias": options.head_gain}
        self.dense_operations = c.layers * (4 * c.width**2 + 2 * c.width * c.hidden) + c.width * c.vocabulary
        self.fast = self.blocks[0].fast
        penalty = distance_penalty if self.fast else recency_penalty
        self.register_buffer("penalty", penalty(c.context, c.recency), persistent=False)  # [H, T] or [H, T, T]
        self.register_buffer("hardness", torch.ones(()))

    def neurons(self) -> dict[str, Neurons]:
        """Every neuron group by its name in the exported file."""
        named = {}
        for index, block in enumerate(self.blocks):
            for name in ("in", "qkv", "attn", "mid", "hidden"):
                named[f"layer{index}.{name}"] = getattr(block, f"sn_{name}")
        return {**named, "final": self.sn_final}

    def freeze_norms(self, frozen: bool = True) -> None:
        """Train on running statistics from here on, so that training form and evaluation form are one."""
        for group in self.neurons().values():
            group.frozen = frozen

    def hold_scales(self) -> None:
        """Keep every weight's scale as it is now (`Quantiser`); the embedding's, one for all, goes on as before."""
        self.quantise_head.hold(self.head)
        for block in self.blocks:
            block.quantise_qkv.hold(block.qkv)
            block.quantise_up.hold(block.up)
            block.out.quantise.hold(block.out.weight)
            block.down.quantise.hold(block.down.weight)

    def compile_blocks(self) -> None:
        """Compile the layers (they share one graph); worth it for runs of more than a few minutes."""
        for block in self.blocks:
            block.compile(dynamic=False)

    def embed_scale(self) -> torch.Tensor:
        """The power of two [1, 1] of one embedding integer; a multiple 2^embed_shift of the residual's unit."""
        tables = self.embed if self.position is None else torch.cat((self.embed, self.position))
        scale = scale_of(tables, 8, "power_common")
        return scale.clamp(2.0**-self.fraction, 2.0 ** (8 - self.fraction))

    def residual(self, tokens: torch.Tensor) -> torch.Tensor:
        """The stream before the first layer [B, T, d]."""
        scale = self.embed_scale()
        x = F.embedding(tokens, straight_through(to_integers(self.embed.detach(), scale, 8) * scale, self.embed))
        if self.position is not None:
            table = straight_through(to_integers(self.position.detach(), scale, 8) * scale, self.position)
            x = x + table[: tokens.shape[1]]
        return x

    def features(self, tokens: torch.Tensor) -> torch.Tensor:
        """Final spikes [B, T, d]."""
        length = tokens.shape[1]
        penalty = (self.penalty[:, :length] if self.fast else self.penalty[:, :length, :length]).contiguous()
        x, operations = self.residual(tokens), 0.0
        for block in self.blocks:
            x, more = block(x, penalty, self.hardness)
            operations = operations + more
        final = self.sn_final(x)
        #: Share of the dense synaptic operations that this batch caused (embedding and attention aside).
        self.density = (operations + events(final, self.sn_final) * self.head.shape[1]) / self.dense_operations
        return final

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        bias = round_to(self.head_bias, self.quantise_head.scale(self.head)[0] * self.sn_final.unit[0])
        return self.features(tokens) @ self.quantise_head(self.head) + bias
