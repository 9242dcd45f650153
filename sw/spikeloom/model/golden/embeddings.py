"""Token and position to the stream: integer tables as a current, a current through neurons, or SpikeDecoder's bits.

Bits come from real tables, bit = Theta(token[v] + position[n]): the device adds two table rows and compares with 0. Columns that
a table has nothing to say about are 0 there, so that concatenation is a sum as well.

    one_hot   joint: width V N, column (v, n) is 0 for its own token and its own position, -2 for others: only 0 + 0 fires
    two_hot   V token columns beside N position columns, +1 or -1
    binary    ceil(log2) columns, +1 or -1, repeated over the columns there are
    learned   float table, Heaviside, its surrogate backward
    static    sin and cos of n / 10000^(i / columns)

SpikeDecoder (arXiv 2606.12287): its options of token and position; the same bits at every time step.
"""

import torch
import torch.nn.functional as F
from torch import nn

from spikeloom.arch.config import ModelConfig

from ..quantize import scale_of, straight_through, to_integers
from .neurons import NeuronLayer
from .options import GoldenOptions
from .surrogates import heaviside


def binary_code(rows: int, columns: int) -> torch.Tensor:
    """+1 or -1 by the bits of the row number, least significant first, repeated over the columns; [rows, columns]."""
    bits = max(1, (rows - 1).bit_length())
    if columns < bits:
        raise ValueError(f"A binary code of {rows} rows takes {bits} columns, there are {columns}.")
    code = torch.arange(rows)[:, None] >> (torch.arange(columns) % bits)[None, :] & 1
    return code.float() * 2 - 1


def frequencies(columns: int, fastest: float = 1.0, span: float = 10000) -> torch.Tensor:
    """Radians per position of each column, from `fastest` down to fastest / span; a sin and its cos share one. [columns]"""
    even = torch.arange(columns) // 2 * 2
    return fastest / span ** (even / columns)


def sinusoids(rows: int, speed: torch.Tensor) -> torch.Tensor:
    """sin at even columns, cos at odd ones, of n speed; [rows, columns]."""
    angle = torch.arange(rows)[:, None] * speed[None, :]
    return torch.where(torch.arange(len(speed)) % 2 == 0, angle.sin(), angle.cos())


def learned_frequencies(columns: int) -> torch.Tensor:
    """Where learned positions start: waves of 2.5 to 25 tokens, so that neighbours differ and distant positions have little in common."""
    return frequencies(columns, 2.5, 10)


def start_of_positions(config: ModelConfig, options: GoldenOptions) -> int:
    """First column that learned positions fill at the start: their own, or half of the columns where all are summed."""
    if options.join == "concatenate":
        return config.width - options.position_width
    return config.width // 2 if options.position == "learned" else config.width


class Tables(nn.Module):
    """The token table [V, C] and the position table [N, C] (or None), in float; learned where the options say so."""

    def __init__(self, config: ModelConfig, options: GoldenOptions):
        super().__init__()
        c, o = config, options
        left = c.width - o.position_width if o.join == "concatenate" else c.width
        self.pad_token, self.pad_position = 0, 0
        if o.join == "concatenate" and o.token not in ("one_hot", "two_hot"):
            self.pad_token, self.pad_position = o.position_width, left
        right = o.position_width if o.join == "concatenate" else c.width
        token, position = self._token(c, o, left), self._position(c, o, right)
        self._own("token", token, o.token in ("current", "learned"))
        self._own("position", position, o.position == "learned")

    def _token(self, c, o, columns):
        if o.token == "current":
            table = torch.randn(c.vocabulary, columns) * (0.6 if o.position == "learned" else 0.3)
            table[:, start_of_positions(c, o):] *= 0.3
            return table
        if o.token == "learned":
            return torch.randn(c.vocabulary, columns)
        if o.token == "binary":
            return binary_code(c.vocabulary, columns)
        own = torch.eye(c.vocabulary)
        if o.token == "one_hot":
            return (own * 2 - 2).repeat_interleave(c.context, 1)  # column v N + n
        return torch.cat((own * 2 - 1, torch.zeros(c.vocabulary, c.context)), 1)

    def _position(self, c, o, columns):
        if o.position == "none":
            return None
        if o.position == "learned":
            start = 0.1 * torch.randn(c.context, columns)
            first = start_of_positions(c, o) - (c.width - columns)
            start[:, first:] += sinusoids(c.context, learned_frequencies(columns - first))
            return start
        if o.position == "static":
            return sinusoids(c.context, frequencies(columns))
        if o.position == "binary":
            return binary_code(c.context, columns)
        own = torch.eye(c.context)
        if o.token == "one_hot":
            return (own * 2 - 2).repeat(1, c.vocabulary)
        if o.token == "two_hot":
            return torch.cat((torch.zeros(c.context, c.vocabulary), own * 2 - 1), 1)
        if columns != c.context:
            raise ValueError(f"A one-hot position takes {c.context} columns, there are {columns}.")
        return own * 2 - 1

    def _own(self, name, table, learned):
        if learned:
            self.register_parameter(name, nn.Parameter(table))
        else:
            self.register_buffer(name, table)

    def padded(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """token [V, C], position [N, C] or None."""
        position = None if self.position is None else F.pad(self.position, (self.pad_position, 0))
        return F.pad(self.token, (0, self.pad_token)), position


class Embedding(nn.Module):
    """Tokens int64 [B, N] -> stream [T, B, N, C]."""

    def __init__(self, config: ModelConfig, options: GoldenOptions):
        super().__init__()
        c, self.config, self.options = config, config, options
        self.tables = Tables(config, options)
        self.bits = options.token != "current"
        self.spikes = c.embedding == "spikes" and options.degree >= 1
        #: Value in the stream of one spike.
        self.spike_value = 2.0 ** (c.spike_shift - options.fraction)
        self.neurons = None
        if self.spikes and not self.bits:
            self.neurons = NeuronLayer(c, options, (c.width,), (1,), norm=None if options.norm_at == "neurons" else "none")

    def scale(self) -> torch.Tensor:
        """Value of one table integer: [1, C] before neurons, one power of two [1, 1] for a current."""
        token, position = self.tables.padded()
        both = token if position is None else torch.cat((token, position))  # [rows, C]
        if self.spikes:
            return scale_of(both, 8, "channel")
        low, fraction = 2.0**-self.options.fraction, self.options.fraction
        return scale_of(both, 8, "power_common").clamp(low, 2.0 ** (8 - fraction))

    def current(self, tokens: torch.Tensor) -> torch.Tensor:
        """Sum of quantised table rows, [B, N] -> [B, N, C]."""
        scale = self.scale()
        token, position = (None if table is None else straight_through(to_integers(table.detach(), scale, 8) * scale, table)
                           for table in self.tables.padded())
        x = F.embedding(tokens, token)  # [B, N, C]
        return x if position is None else x + position[: tokens.shape[1]]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x, steps = self.current(tokens), self.config.steps  # [B, N, C]
        if not self.spikes:
            return x.expand(steps, *x.shape)
        if self.bits:
            bits = heaviside(x, self.options.surrogate, self.options.sharpness)  # [B, N, C]
            return (bits * self.spike_value).expand(steps, *x.shape)
        return self.neurons(x.expand(steps, *x.shape)) * self.spike_value


