"""Golden float model to integers, by the names of `model.tensors`.

    python -m spikeloom.model.golden.export --run RUN --out sw/spikeloom/models/NAME

A neuron compares u = a y + b with its threshold 1 (levels: d - 1/2), y = slope acc. In units of 2^-F of the sum:

    step = round(2^F / (a slope))
    base = ceil(2^F (1 - b) / (a slope))            one threshold
    base = ceil(2^F (1/2 + low - b) / (a slope))    levels; NASN's levels start above `low`

Where a is negative (only behind a linear) the weights of that channel flip their signs. NASN's `low` levels, which every
position has always, are added by what follows: low sum_i W_ij, to the base of neurons or to the bias of a writer.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from spikeloom.arch.config import MEMBRANE_WIDTH, THRESHOLD_FRACTION, ModelConfig, require

from .. import store
from ..export import STEP_MAX
from ..quantize import scale_of, to_integers
from ..tokenizer import MASK
from . import pairs
from .linears import LinearNeurons, ResidualWriter
from .neurons import LEVELED, NeuronLayer
from .transformer import SpikingTransformer

ONE = 2.0**THRESHOLD_FRACTION
INT32 = np.iinfo(np.int32)


class ExportError(ValueError):
    """A golden model holds what integers cannot carry; the message says what to choose instead."""


def demand(condition: bool, sentence: str) -> None:
    """`require` with this module's error."""
    require(condition, sentence, ExportError)


def check_exportable(model: SpikingTransformer) -> None:
    """Refuse models that have no integer form.

    Raises
    ------
    ExportError
        Names the option and the remedy.
    """
    c, o = model.config, model.options
    demand(o.degree == 4, f"{c.name}: spike degree {o.degree} keeps multiplications of real numbers; only degree 4 has an integer form.")
    demand(o.norm != "layer", f"{c.name}: LayerNorm divides by each vector's own deviation, which no threshold can hold; train with "
           "norm 'batch', 'power' or 'none'.")
    demand(o.scores == "config", f"{c.name}: {o.scores} attention divides; it is a float reference. Use scores 'config'.")
    demand(o.beta is None or o.beta == replace(o, beta=None).decay(c),
           f"{c.name}: beta {o.beta} is not the decay 1 - 2^-leak of leak {c.leak}, which is a shift; leave beta out and train with it.")


def thresholds(neurons: NeuronLayer, slope: torch.Tensor | float, offset: np.ndarray | float = 0.0,
               room: float = 2.0**31) -> tuple[np.ndarray, np.ndarray]:
    """base int32 [C], step int32 [C] for sums whose unit is worth `slope` (float or [C]) and which miss `offset` units.

    A step that leaves its format takes the base of levels with it, so that they keep their place around a sum of 0.

    `room` is what a membrane has for base and steps (`membrane_room`): larger ones are cut, far outside what sums reach, so that
    such a neuron stays as silent, or as talkative, as it was.
    """
    gain, shift = (x.detach().double() for x in neurons.affine())  # [C]
    a = (gain * torch.as_tensor(slope, dtype=torch.float64)).abs()
    one = ONE / a.clamp_min(1e-12)
    leveled, most = neurons.kind in LEVELED, min(STEP_MAX, room / 2 / (neurons.level.max().item() + 1))
    if leveled:
        one = torch.where((neurons.level > 1) | (neurons.kind == "i_lif"), one.clamp_max(most), one)
    first = 0.5 + neurons.low().item() if leveled else 1.0
    base = torch.ceil((first - shift) * one - ONE * torch.as_tensor(offset))
    step = torch.round(one)
    if leveled:
        step = torch.where((neurons.level > 1) | (neurons.kind == "i_lif"), step, 0.0)
    base = base.clamp(max(-room / 2, INT32.min), min(room / 2, INT32.max))
    step = step.clamp(0, most)
    return torch.trunc(base).numpy().astype(np.int32), torch.trunc(step).numpy().astype(np.int32)


def membrane_room(config: ModelConfig, reach: float) -> float:
    """What sums up to `reach` leave of a 32-bit membrane for base and steps, so that T of them cannot overflow it."""
    if config.neuron == "ni_lif":
        return 2.0**32
    return 2.0 ** (MEMBRANE_WIDTH - 1) / config.steps - reach * ONE - 1


def linear_integers(layer: LinearNeurons) -> tuple[np.ndarray, torch.Tensor]:
    """weight int8 [in, out], signs flipped where the gain is negative, and the positive scale [out]."""
    weight = layer.weight.detach()
    scale = scale_of(weight, layer.bits, "channel")
    sign = torch.where(layer.neurons.affine()[0].detach() < 0, -1.0, 1.0)
    return (to_integers(weight, scale, layer.bits) * sign).numpy().astype(np.int8), scale[0].double()


class Exporter:
    """Fills the tensors of one model.

    Parameters
    ----------
    model : SpikingTransformer
        In evaluation form.
    """

    def __init__(self, model: SpikingTransformer):
        self.model, self.config, self.options = model, model.config, model.options
        self.arrays: dict[str, np.ndarray] = {}

    def neuron(self, name: str, neurons: NeuronLayer, slope, offset=0.0, *, reach: float) -> None:
        """base and step of one neuron layer, whose sums lie within +-reach."""
        room = membrane_room(self.config, reach)
        demand(room > 0, f"{self.config.name}: sums of {name} up to {reach:.0f} overflow a membrane over {self.config.steps} steps; train "
               "with fewer steps or a narrower layer.")
        self.arrays[f"{name}.base"], self.arrays[f"{name}.step"] = thresholds(neurons, slope, offset, room)

    def stream(self, name: str, neurons: NeuronLayer) -> None:
        """Neurons that read the residual stream."""
        self.neuron(name, neurons, 2.0**-self.options.fraction, reach=2.0**15)

    def linear(self, name: str, layer: LinearNeurons, before: NeuronLayer) -> None:
        """A matrix and the neurons behind it; `before` made its input."""
        weight, scale = linear_integers(layer)
        low = before.low().item()
        self.arrays[f"{name}.weight"] = weight
        offset = low * weight.astype(np.int64).sum(0)  # what the lowest levels always add
        reach = float(np.abs(weight.astype(np.int64)).sum(0).max()) * before.level.max().item()
        self.neuron(name, layer.neurons, scale * before.unit[0].double(), offset, reach=reach)

    def writer(self, name: str, writer: ResidualWriter, before: NeuronLayer) -> None:
        """A matrix, its bias and its shift into the stream."""
        weight, bias, shift = writer.integers()
        bias = bias + before.low().item() * weight.sum(0)
        self.arrays[f"{name}.weight"] = weight.numpy().astype(np.int8)
        self.arrays[f"{name}.bias"] = bias.numpy().astype(np.int32)
        self.arrays[f"{name}.shift"] = shift.numpy().astype(np.uint8)

    def embedding(self) -> int:
        """Tables, and the neuron `embed` where there is one; returns embed_shift."""
        embed, scale = self.model.embed, self.model.embed.scale()
        token, position = (None if x is None else to_integers(x.detach(), scale, 8).numpy().astype(np.int8)
                           for x in embed.tables.padded())
        self.arrays["embed.token"] = token
        if position is not None:
            self.arrays["embed.position"] = position
        if not embed.spikes:
            return round(torch.log2(scale).item()) + self.options.fraction
        if embed.bits:  # Theta(sum): threshold 0 and nothing to subtract, the same spikes at every step
            zero = np.zeros(self.config.width, np.int32)
            self.arrays["embed.base"], self.arrays["embed.step"] = zero, zero.copy()
        else:
            self.neuron("embed", embed.neurons, scale[0].double(), reach=254.0)
        return self.config.embed_shift

    def layer(self, at: str, block) -> None:
        """One layer's tensors."""
        c, attend, feed = self.config, block.attend, block.feed
        self.stream(f"{at}in", attend.sn_in)
        self.linear(f"{at}qkv", attend.qkv, attend.sn_in)
        unit, kind = attend.qkv.neurons.unit[-1].item(), attend.attention.kind
        value = attend.qkv.neurons.level[-1].item()
        if kind == "wta":
            slope = unit * 2.0 ** -max(c.rank_shifts) / sum(2.0**-s for s in c.rank_shifts)
            reach = value * sum(2.0 ** (max(c.rank_shifts) - s) for s in c.rank_shifts)
        elif kind == "ssa":
            slope, reach = unit * self.options.scale, value * c.context * c.head_width
        else:
            slope, reach = unit, value * c.context
            self.arrays[f"{at}attn.theta"] = attend.attention.thresholds().detach().numpy().astype(np.uint8)
        self.neuron(f"{at}attn", attend.sn_attn, slope, reach=reach)
        self.stream(f"{at}mid", feed.sn_mid)
        self.linear(f"{at}up", feed.up, feed.sn_mid)
        for name, layer, before in (("out", attend.out, attend.sn_attn), ("down", feed.down, feed.up.neurons)):
            (self.linear if isinstance(layer, LinearNeurons) else self.writer)(f"{at}{name}", layer, before)

    def head(self) -> float:
        """The head's tensors; returns logit units per nat."""
        head, final = self.model.head, self.model.sn_final
        scale = scale_of(head.weight.detach(), head.bits, "common")
        weight = to_integers(head.weight.detach(), scale, head.bits)
        unit = scale.item() * head.unit
        repeats = self.config.steps if head.kind in ("accumulate", "average") else 1
        bias = torch.floor(head.bias.detach().double() / unit + 0.5) + final.low().item() * repeats * weight.double().sum(0)
        self.arrays["head.weight"] = weight.numpy().astype(np.int8)
        self.arrays["head.bias"] = bias.numpy().astype(np.int32)
        return 1 / unit


@torch.no_grad()
def to_stored(model: SpikingTransformer, tokenizer_json: str | None = None) -> store.StoredModel:
    """Integer parameters by name, the configuration (with its `embed_shift`) and the logits' units per nat.

    Raises
    ------
    ExportError
        When the model has no integer form.
    """
    check_exportable(model)
    made = Exporter(model)
    config = replace(model.config, embed_shift=made.embedding())
    for index, block in enumerate(model.blocks):
        made.layer(f"layer{index}.", block)
    made.stream("final", model.sn_final)
    added = json.loads(tokenizer_json)["added_tokens"] if tokenizer_json else []
    masks = [token["id"] for token in added if token["content"] == MASK and config.bidirectional and not config.classes]
    names = pairs.CLASSES if config.classes == len(pairs.CLASSES) else ()
    return store.StoredModel(config, made.arrays, made.head(), tokenizer_json, next(iter(masks), None), names)


def export_run(run: Path, out: Path) -> None:
    """Export the newest checkpoint of a training run, with its tokenizer."""
    from ..reference import load

    store.save(Path(out), to_stored(load(run)[0], (Path(run) / "tokenizer.json").read_text(encoding="utf-8")))
    (Path(out) / "model.safetensors").chmod(0o644)  # safetensors creates files that only their owner may read


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of a training run")
    parser.add_argument("--out", type=Path, required=True, help="folder of the exported model")
    options = parser.parse_args(arguments)
    export_run(options.run, options.out)


if __name__ == "__main__":
    main()
