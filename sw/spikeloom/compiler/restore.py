"""The way back: an image -> the integer model that it runs, so that any image can be checked without its model."""

import numpy as np

from ..arch.commands import TRACED, Opcode
from ..arch.config import WEIGHT_BITS, AcceleratorConfig, ModelConfig
from ..arch.layout import Image, row_bytes, section_offsets, unpack_parameters, unpack_rows
from ..arch.sweeps import sweeps
from ..model.tensors import tensor_shapes


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
    seen = set()
    # What a block of prompt tokens needs is loaded as it is wanted: the same operators once more.
    for command in image.program[:sweeps(image.program, image.card["entries"]["token"])[-1][1]]:
        name = "head" if command.label == "logits" else command.label.partition("@")[0]
        # Time steps and sweeps repeat operators; the blocks of a wide one differ in where they read.
        block = (name, command["params"], command["address"])
        if command.opcode in TRACED and block not in seen:
            seen.add(block)
            for kind, values in _found(image, cfg, config, offsets, command).items():
                parts.setdefault(f"{name}.{kind}", []).append(values)
    tensors = {}
    for name, (shape, dtype) in tensor_shapes(config).items():
        if name not in parts:
            raise ValueError(f"The image's program has no operator for {name}.")
        whole = np.concatenate(parts[name], axis=-1)
        # A head that adds time steps up has its rows once for each; padding comes after the last channel.
        tensors[name] = whole[..., :shape[-1]][:shape[0]].astype(dtype)
    return config, tensors


def _found(image, cfg, config, offsets, command):
    """A command's weights and parameters by kind."""
    start, size = command["params"] * cfg.lanes * 8, command["groups"] * cfg.lanes * 8
    base, step, shift = unpack_parameters(image.sections["params"][start:start + size])
    found = {"base": base, "step": step}
    if command.opcode == Opcode.EMBED:
        table = _weights(image, cfg, offsets, command, config.embedding_rows)
        found |= {"token": table[:config.vocabulary], "position": table[config.vocabulary:]}
    elif command.opcode == Opcode.LINEAR:
        found |= {"weight": _weights(image, cfg, offsets, command, command["n_in"]), "bias": base, "shift": shift}
    elif command.opcode == Opcode.ATTEND:
        found["theta"] = np.array([command["recency"] >> (4 * head) & 15 for head in range(config.heads)])
    return found


def _weights(image, cfg, offsets, command, n_in):
    bits, n_out = WEIGHT_BITS[command["weight_code"]], command["groups"] * cfg.lanes
    if command["streamed"]:
        data, start = image.sections["streamed"], command["address"] - offsets["streamed"]
    else:
        data, start = image.sections["resident"], command["address"] * cfg.cols * bits // 8
    size = n_in * row_bytes(command["tiles"], bits, cfg)
    return unpack_rows(data[start:start + size], n_in, n_out, bits, command["tiles"], cfg)
