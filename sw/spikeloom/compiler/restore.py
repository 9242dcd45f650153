"""The way back: an image -> the integer model that it runs, so that any image can be checked without its model."""

import numpy as np

from ..arch.commands import Opcode, Sink
from ..arch.config import WEIGHT_BITS, AcceleratorConfig, ModelConfig
from ..arch.layout import Image, row_bytes, section_offsets, unpack_parameters, unpack_rows
from ..model.integer_model import tensor_shapes


def restore(image: Image, cfg: AcceleratorConfig) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """Config and tensors of the model that `compile_model` made an image from.

    Parameters
    ----------
    image : Image
    cfg : AcceleratorConfig
        The machine that it was compiled for.

    Raises
    ------
    ValueError
        When the program lacks an operator of the model.
    """
    config = ModelConfig.from_dict(image.card["model"])
    offsets = section_offsets({name: len(data) for name, data in image.sections.items()})
    parts: dict[str, list[np.ndarray]] = {}
    for command in image.program:
        if command.opcode == Opcode.EMBED:
            table = _weights(image, cfg, offsets, command, config.embedding_rows)
            parts["embed.token"] = [table[:config.vocabulary]]
            parts["embed.position"] = [table[config.vocabulary:]]
        elif command.opcode in (Opcode.FIRE, Opcode.LINEAR, Opcode.ATTEND):
            _collect(parts, image, cfg, offsets, command)
    tensors = {}
    for name, (shape, dtype) in tensor_shapes(config).items():
        if name not in parts:
            raise ValueError(f"The image's program has no operator for {name}.")
        whole = np.concatenate(parts[name], axis=-1)
        tensors[name] = whole[..., :shape[-1]].astype(dtype)
    return config, tensors


def _collect(parts, image, cfg, offsets, command):
    """Append a command's weights and parameters to what earlier blocks gave."""
    name = "head" if command.label == "logits" else command.label
    start, size = command["params"] * cfg.lanes * 8, command["groups"] * cfg.lanes * 8
    base, step, shift = unpack_parameters(image.sections["params"][start:start + size])
    found = {"base": base, "step": step}
    if command.opcode == Opcode.LINEAR:
        found["weight"] = _weights(image, cfg, offsets, command, command["n_in"])
        if command["sink"] in (Sink.RESIDUAL, Sink.LOGITS):
            found |= {"bias": base, "shift": shift}
    for kind, values in found.items():
        parts.setdefault(f"{name}.{kind}", []).append(values)


def _weights(image, cfg, offsets, command, n_in):
    bits, n_out = WEIGHT_BITS[command["weight_code"]], command["groups"] * cfg.lanes
    if command["streamed"]:
        data, start = image.sections["streamed"], command["address"] - offsets["streamed"]
    else:
        data, start = image.sections["resident"], command["address"] * cfg.cols * bits // 8
    size = n_in * row_bytes(command["tiles"], bits, cfg)
    return unpack_rows(data[start:start + size], n_in, n_out, bits, command["tiles"], cfg)
