"""The golden model of every system: a spiking transformer in PyTorch that reads like the papers' equations.

    x = embed(token, position)                                            x [T, B, N, C]
    per layer: s = SN_in(x);  q, k, v = SN_qkv(s W_qkv)
               o = SN_attn(ATT(q, k, v));   x += o W_out + b     or  x += SN_out(o W_out)
               h = SN_up(SN_mid(x) W_up);   x += h W_down + b    or  x += SN_down(h W_down)
    logits = head(SN_final(x))                                            [B, N, V]

T time steps, B texts, N tokens, C channels, H heads, F hidden channels.

    WD-Spikingformer   CWSSA, NI-LIF, T = 1, membrane shortcut            arXiv 2604.11321, 2604.12365
    WE-Spikingformer   WSSA (bidirectional), T-LIF, T = 4, masked tokens  arXiv 2604.11321
    BiSpikCLM          SFSA, SFFN, LIF, spike sums                        arXiv 2605.13859
    SpikeDecoder       SSA (causal SMHA), LIF, binary embedding           arXiv 2606.12287

Weights are fake-quantised at every step and residual writers round to the stream's unit 2^-f, so the integers of
`golden.export` differ from this model only by the rounding of thresholds to 2^-8 of a sum and by the floor of the leak:
measured, the loss differs by less than 0.01 nats per token (`tests/model/golden/test_export.py`).
"""

import torch
import torch.nn.functional as F
from torch import nn

from spikeloom.arch.config import RESIDUALS, ModelConfig

from .attention import FloatAttention, SpikeAttention
from .embeddings import Embedding, learned_frequencies, start_of_positions
from .linears import FloatLinear, Head, LinearNeurons, ResidualWriter
from .neurons import NeuronLayer
from .norms import Norm
from .options import GoldenOptions


@torch.no_grad()
def start_at_offsets(qkv: LinearNeurons, config: ModelConfig, options: GoldenOptions) -> None:
    """Queries and keys that start as a comparison of positions, head h's shifted by `offsets[h]`.

    Of positions in sinusoids (sin w n, cos w n), the key a sin + b cos of position n - o is a linear map of those of n:
    (a cos w o + b sin w o) sin w n + (b cos w o - a sin w o) cos w n. Tokens weigh less at first.
    """
    c, d = config, config.width
    first = start_of_positions(c, options)
    keys = qkv.weight[first:, d : 2 * d]  # [columns, C]
    qkv.weight[:first, : 2 * d] *= 0.3
    even, odd = keys[0::2], keys[1::2]
    speed = learned_frequencies(keys.shape[0])[0::2, None]  # [columns / 2, 1]
    for head, offset in enumerate(options.offsets):
        own = slice(head * c.head_width, (head + 1) * c.head_width)
        angle = speed * offset
        qkv.weight[first::2, own] = even[:, own] * angle.cos() + odd[:, own] * angle.sin()
        qkv.weight[first + 1 :: 2, own] = odd[:, own] * angle.cos() - even[:, own] * angle.sin()
    norm = qkv.neurons.norm
    norm.shift[: 2 * d] -= options.seldom * norm.gain()[: 2 * d]


class SpikingAttentionBlock(nn.Module):
    """Stream [T, B, N, C] -> stream, through attention on spikes."""

    def __init__(self, config: ModelConfig, options: GoldenOptions):
        super().__init__()
        c, d = config, config.width
        self.replaces, self.adds = RESIDUALS[c.residual][:2]
        self.spike_value = 2.0 ** (c.spike_shift - options.fraction)
        stream_norm = options.norm if options.norm_at == "neurons" else "none"
        self.sn_in = NeuronLayer(c, options, (d,), (c.level("in"),), norm=stream_norm, shifted=True)
        self.qkv = LinearNeurons(c, options, d, (2 * d, d), (1, c.level("v")))
        self.attention = SpikeAttention(c, options)
        self.sn_attn = NeuronLayer(c, options, (d,), (c.level("attn"),),
                                   norm=options.norm if options.norm_attention else stream_norm, shifted=True)
        if self.adds:
            self.out = LinearNeurons(c, options, d, (d,), (1,))
        else:
            self.out = ResidualWriter(c, options, d, self.sn_attn.unit[0].item())
        if options.offsets:
            start_at_offsets(self.qkv, config, options)

    def forward(self, x: torch.Tensor, hardness: torch.Tensor, keep: dict | None = None, name: str = "") -> torch.Tensor:
        s = self.sn_in(x)  # [T, B, N, C]
        if self.replaces:
            x = s * self.spike_value
        qkv = self.qkv(self.sn_in.value(s))  # [T, B, N, 3 C]
        y = self.attention(self.qkv.neurons.value(qkv), hardness, keep, f"{name}.scores")  # [T, B, N, C]
        o = self.sn_attn.value(self.sn_attn(y))
        return x + (self.out(o) * self.spike_value if self.adds else self.out(o))


class SpikingFeedForward(nn.Module):
    """Stream [T, B, N, C] -> stream, through F hidden neurons (BiSpikCLM's SFFN where spikes are added)."""

    def __init__(self, config: ModelConfig, options: GoldenOptions):
        super().__init__()
        c, d = config, config.width
        self.replaces, self.adds = RESIDUALS[c.residual][2:]
        self.spike_value = 2.0 ** (c.spike_shift - options.fraction)
        stream_norm = options.norm if options.norm_at == "neurons" else "none"
        self.sn_mid = NeuronLayer(c, options, (d,), (c.level("mid"),), norm=stream_norm, shifted=True)
        self.up = LinearNeurons(c, options, d, (c.hidden,), (c.level("hidden"),), shifted=True)
        if self.adds:
            self.down = LinearNeurons(c, options, c.hidden, (d,), (1,))
        else:
            self.down = ResidualWriter(c, options, c.hidden, self.up.neurons.unit[0].item())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s = self.sn_mid(x)  # [T, B, N, C]
        if self.replaces:
            x = s * self.spike_value
        h = self.up.neurons.value(self.up(self.sn_mid.value(s)))  # [T, B, N, F]
        return x + (self.down(h) * self.spike_value if self.adds else self.down(h))


class FloatAttentionBlock(nn.Module):
    """The ANN's attention of degrees 0 and 1: x += norm(softmax(q k^T / sqrt d) v W_out)."""

    def __init__(self, config: ModelConfig, options: GoldenOptions):
        super().__init__()
        d = config.width
        self.qkv, self.out = FloatLinear(options, d, 3 * d), FloatLinear(options, d, d, 0.5 * d**-0.5)
        self.attention = FloatAttention(config)

    def forward(self, x: torch.Tensor, hardness: torch.Tensor, keep: dict | None = None, name: str = "") -> torch.Tensor:
        return x + self.out(self.attention(self.qkv(x), hardness, keep, f"{name}.scores"))


class FloatFeedForward(nn.Module):
    """The ANN's MLP of degrees 0 to 2: x += norm(GELU(norm(x W_up)) W_down)."""

    def __init__(self, config: ModelConfig, options: GoldenOptions):
        super().__init__()
        d, f = config.width, config.hidden
        self.up, self.down = FloatLinear(options, d, f), FloatLinear(options, f, d, 0.5 * f**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(F.gelu(self.up(x)))


class Layer(nn.Module):
    """Attention, then feed-forward, each spiking or not by SpikeDecoder's degree."""

    def __init__(self, config: ModelConfig, options: GoldenOptions):
        super().__init__()
        self.attend = (SpikingAttentionBlock if options.degree >= 2 else FloatAttentionBlock)(config, options)
        self.feed = (SpikingFeedForward if options.degree >= 3 else FloatFeedForward)(config, options)

    def forward(self, x: torch.Tensor, hardness: torch.Tensor, keep: dict | None = None, name: str = "") -> torch.Tensor:
        x = self.feed(self.attend(x, hardness, keep, name))
        if keep is not None:
            keep[f"{name}.features"] = x
        return x


class SpikingTransformer(nn.Module):
    """Tokens int64 [B, N] -> logits float [B, N, outputs]; an encoder with classes is read at position 0.

    Parameters
    ----------
    config : ModelConfig
    options : GoldenOptions

    Members
    -------
    hardness : float tensor []
        WTA alone: 0 is softmax over the whole scores, 1 the winners (inference).

    Raises
    ------
    ValueError
        When options and config contradict each other.
    """

    def __init__(self, config: ModelConfig, options: GoldenOptions = GoldenOptions()):
        super().__init__()
        options.check(config)
        self.config, self.options = config, options
        self.embed = Embedding(config, options)
        self.blocks = nn.ModuleList(Layer(config, options) for _ in range(config.layers))
        spiking_head = options.degree == 4
        self.sn_final = None
        if spiking_head:
            norm = options.norm if options.norm_at == "neurons" else "none"
            self.sn_final = NeuronLayer(config, options, (config.width,), (config.level("final"),), norm=norm, shifted=True)
        self.head = Head(config, self.sn_final.unit[0].item() if spiking_head else 1.0)
        self.register_buffer("hardness", torch.ones(()))

    def freeze_norms(self, frozen: bool = True) -> None:
        """Switch every norm to its running statistics (or back)."""
        for module in self.modules():
            if isinstance(module, Norm):
                module.frozen = frozen

    def neurons(self) -> dict[str, NeuronLayer]:
        """Every neuron layer by its name in the exported model."""
        named = {}
        if self.embed.neurons is not None:
            named["embed"] = self.embed.neurons
        for index, block in enumerate(self.blocks):
            at = f"layer{index}."
            if isinstance(block.attend, SpikingAttentionBlock):
                part = block.attend
                named |= {at + "in": part.sn_in, at + "qkv": part.qkv.neurons, at + "attn": part.sn_attn}
                if part.adds:
                    named[at + "out"] = part.out.neurons
            if isinstance(block.feed, SpikingFeedForward):
                part = block.feed
                named |= {at + "mid": part.sn_mid, at + "up": part.up.neurons}
                if part.adds:
                    named[at + "down"] = part.down.neurons
        if self.sn_final is not None:
            named["final"] = self.sn_final
        return named

    def forward(self, tokens: torch.Tensor, keep: dict | None = None) -> torch.Tensor:
        """Logits; `keep` collects `embed`, `layerI.scores` [T, B, H, N, N], `layerI.features`, `final` [T, B, N, C]."""
        x = self.embed(tokens)  # [T, B, N, C]
        if keep is not None:
            keep["embed"] = x
        for index, block in enumerate(self.blocks):
            x = block(x, self.hardness, keep, f"layer{index}")
        if self.sn_final is not None:
            x = self.sn_final.value(self.sn_final(x))
        if keep is not None:
            keep["final"] = x
        return self.head(x)
