"""The softmax twin: a pre-norm GPT (learned positions, LayerNorm, GELU) of the spiking model's size, for comparison.

An encoder's twin looks both ways, as BERT does.

It shares vocabulary, context, width, depth, heads, corpus, optimiser and number of tokens; its hidden width is chosen
so that its parameters come within two per cent of the spiking model's.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from spikeloom.arch.config import ModelConfig

from .tensors import tensor_shapes


def spiking_parameters(config: ModelConfig) -> int:
    """Every number of the exported spiking model: weights, tables, thresholds (base and step), biases, shifts."""
    return sum(math.prod(shape) for shape, _ in tensor_shapes(config).values())


class Binary(torch.autograd.Function):
    """1 where x > 0, else 0; the gradient passes where |x| < 1."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        x, = ctx.saved_tensors
        return torch.where(x.abs() < 1, gradient, 0.0)


class TwinBlock(nn.Module):
    """x [B, T, width] -> the same; with `binary` queries and keys are 0 or 1, and scores are halved."""

    def __init__(self, width: int, heads: int, hidden: int, causal: bool = True, binary: bool = False):
        super().__init__()
        self.heads, self.causal, self.binary = heads, causal, binary
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, T, width / H]
                   for part in self.qkv(self.norm_attention(x)).chunk(3, -1))
        if self.binary:
            q, k = Binary.apply(q), Binary.apply(k)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, scale=0.5 if self.binary else None)
        x = x + self.out(y.transpose(1, 2).flatten(-2))
        return x + self.down(F.gelu(self.up(self.norm_mlp(x))))


class SoftmaxTwin(nn.Module):
    """Tokens int64 [B, T] -> logits float [B, T, V] (or, of a classifier, [B, T, classes], read at position 0)."""

    def __init__(self, vocabulary: int, context: int, width: int, layers: int, heads: int, hidden: int, *,
                 causal: bool = True, outputs: int | None = None, binary: bool = False):
        super().__init__()
        self.embed, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(TwinBlock(width, heads, hidden, causal, binary) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs or vocabulary)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            for writer in (block.out, block.down):
                nn.init.normal_(writer.weight, std=0.02 / (2 * layers) ** 0.5)

    @classmethod
    def matching(cls, config: ModelConfig, **options) -> "SoftmaxTwin":
        """The twin of a spiking model, as near to its parameter count as the hidden width allows; `options` such as `binary`."""
        def build(hidden):
            return cls(config.vocabulary, config.context, config.width, config.layers, config.heads, hidden,
                       causal=not config.bidirectional, outputs=config.outputs, **options)

        state = torch.random.get_rng_state()
        empty = build(1).parameters_in_all()
        one = config.layers * (2 * config.width + 1)
        torch.random.set_rng_state(state)
        return build(max(1, 1 + round((spiking_parameters(config) - empty) / one)))

    def parameters_in_all(self) -> int:
        """Count of all parameters."""
        return sum(p.numel() for p in self.parameters())

    def compile_blocks(self) -> None:
        """Compile the layers (they share one graph)."""
        for block in self.blocks:
            block.compile(dynamic=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens) + self.position.weight[: tokens.shape[1]]  # [B, T, width]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
