"""Float model to integers: the parameters that integer model, compiler and gates share.

    python -m spikeloom.model.export --run RUN --out sw/spikeloom/models/stories-260k

A threshold in units of the accumulator absorbs norm, gain, shift and every scale before it:

    u = acc * unit * gain + shift >= d - 1/2   <=>   acc << F >= base + (d - 1) * step
    base = ceil(2^F (1/2 - shift) / (unit * gain)),  step = round(2^F / (unit * gain)),  F = THRESHOLD_FRACTION

Weights are input-major int8 [in, out]; the QKV columns are Q | K | V, inside each head after head.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from spikeloom.arch.config import THRESHOLD_FRACTION

from . import reference, store
from .float_model import FloatModel, ResidualWriter
from .neurons import Neurons
from .quantize import Quantiser, to_integers

STEP_MAX = (1 << 24) - 1
INT32 = np.iinfo(np.int32)


def thresholds(neurons: Neurons, unit: torch.Tensor | float) -> tuple[np.ndarray, np.ndarray]:
    """base int32 [C] and step int32 [C] for an accumulator whose unit is worth `unit` (float or [C]).

    A step that leaves its format takes the base with it: the levels keep their place around a sum of 0, where such a neuron's are.
    """
    gain, shift = (x.detach().double() for x in neurons.affine())  # [C]
    slope = gain * torch.as_tensor(unit, dtype=torch.float64)
    one = 2.0**THRESHOLD_FRACTION / slope.clamp_min(1e-12)
    one = torch.where(neurons.level > 1, one.clamp_max(STEP_MAX), one)
    base = torch.ceil((0.5 - shift) * one).clamp(INT32.min, INT32.max)
    step = torch.round(one).clamp(0, STEP_MAX)
    step = torch.where(neurons.level > 1, step, 0.0)
    return base.numpy().astype(np.int32), step.numpy().astype(np.int32)


def writer_integers(writer: ResidualWriter) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """weight int8 [in, out], bias int32 [out], shift uint8 [out] of a residual writer."""
    scale = writer.scale().double()
    weight = writer.quantise.integers(writer.weight)
    unit = scale * writer.unit
    # A channel without weights to speak of has so small a unit that its bias may leave the format.
    bias = torch.floor(writer.bias.detach().double() / unit + 0.5).clamp(INT32.min, INT32.max)
    shift = torch.round(-torch.log2(unit) - writer.fraction)
    return weight.numpy().astype(np.int8), bias.numpy().astype(np.int32), shift.numpy().astype(np.uint8)


def channel_integers(weight: torch.Tensor, quantise: Quantiser) -> tuple[np.ndarray, torch.Tensor]:
    """weight int8 [in, out] and its scale per output channel, float64 [out]."""
    return quantise.integers(weight).numpy().astype(np.int8), quantise.scale(weight)[0].double()


@torch.no_grad()
def to_stored(model: FloatModel, tokenizer_json: str | None = None) -> store.StoredModel:
    """Integer parameters by name, the configuration (with its `embed_shift`) and the logits' units per nat."""
    c, fraction = model.config, model.fraction
    if any(block.by_score for block in model.blocks):
        raise ValueError("Winners weighted by score take exponentials and a division, which integers do not have; train without by_score.")
    residual_unit = 2.0**-fraction
    table_scale = model.embed_scale()
    arrays = {"embed.token": to_integers(model.embed, table_scale, 8).numpy().astype(np.int8)}
    if model.position is not None:
        arrays["embed.position"] = to_integers(model.position, table_scale, 8).numpy().astype(np.int8)
    config = replace(c, embed_shift=round(torch.log2(table_scale).item()) + fraction)
    rank_total = sum(2.0**-s for s in c.rank_shifts)
    for index, block in enumerate(model.blocks):
        at = f"layer{index}."
        arrays[at + "in.base"], arrays[at + "in.step"] = thresholds(block.sn_in, residual_unit)
        arrays[at + "qkv.weight"], scale = channel_integers(block.qkv, block.quantise_qkv)
        arrays[at + "qkv.base"], arrays[at + "qkv.step"] = thresholds(block.sn_qkv, scale * block.sn_in.unit[0])
        gathered = block.sn_qkv.unit[-1].item() * 2.0 ** -max(c.rank_shifts) / rank_total
        arrays[at + "attn.base"], arrays[at + "attn.step"] = thresholds(block.sn_attn, gathered)
        arrays[at + "mid.base"], arrays[at + "mid.step"] = thresholds(block.sn_mid, residual_unit)
        arrays[at + "up.weight"], scale = channel_integers(block.up, block.quantise_up)
        arrays[at + "up.base"], arrays[at + "up.step"] = thresholds(block.sn_hidden, scale * block.sn_mid.unit[0])
        for name, writer in (("out", block.out), ("down", block.down)):
            weight, bias, shift = writer_integers(writer)
            arrays.update({f"{at}{name}.weight": weight, f"{at}{name}.bias": bias, f"{at}{name}.shift": shift})
    arrays["final.base"], arrays["final.step"] = thresholds(model.sn_final, residual_unit)
    unit = model.quantise_head.scale(model.head).item() * model.sn_final.unit[0].item()
    arrays["head.weight"] = model.quantise_head.integers(model.head).numpy().astype(np.int8)
    arrays["head.bias"] = np.floor(model.head_bias.double().numpy() / unit + 0.5).astype(np.int32)
    return store.StoredModel(config, arrays, 1 / unit, tokenizer_json)


def export_run(run: Path, out: Path) -> None:
    """Export the newest checkpoint of a training run, with its tokenizer.

    Raises
    ------
    ValueError
        When the run holds another kind of model.
    """
    model, state = reference.load(run)
    if not isinstance(model, FloatModel):
        golden = "golden" in state["config"] and state["kind"] == "spiking"
        raise ValueError(f"{run} holds a {state['kind']} model, which "
                         + ("`python -m spikeloom.model.golden.export` exports." if golden else "has no integer form."))
    store.save(Path(out), to_stored(model, (Path(run) / "tokenizer.json").read_text(encoding="utf-8")))
    # safetensors creates files that only their owner may read
    (Path(out) / "model.safetensors").chmod(0o644)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of a training run")
    parser.add_argument("--out", type=Path, required=True, help="folder of the exported model")
    options = parser.parse_args(arguments)
    export_run(options.run, options.out)


if __name__ == "__main__":
    main()
