"""The integers of a model by name: which there are, their shapes, and the level of every neuron."""

import numpy as np

from ..arch.config import RESIDUALS, ModelConfig, require


def neuron_levels(config: ModelConfig) -> dict[str, np.ndarray]:
    """Name -> largest level of each channel, int [C], of every neuron in order of execution.

    Queries and keys are binary (ternary) whatever the levels, and so are spikes that make up the residual stream:
    those of `embed`, `layerI.out` and `layerI.down` where the config has them.
    """
    return _of_neurons(config, config.level, 1)


def neuron_lows(config: ModelConfig) -> dict[str, np.ndarray]:
    """Name -> smallest level of each channel, int [C], of NI-LIF neurons: 0, or less where a tensor is `signed`; T-LIF's -1 is not here."""
    return _of_neurons(config, config.low, 0)


def _of_neurons(config, of, binary):
    """`of` each tensor, and `binary` for queries, keys and spikes of the stream."""
    d, f = config.width, config.hidden
    _, add_out, _, add_down = RESIDUALS[config.residual]
    table = {"embed": np.full(d, binary)} if config.embedding == "spikes" else {}
    for layer in range(config.layers):
        at = f"layer{layer}"
        table[f"{at}.in"] = np.full(d, of("in"))
        table[f"{at}.qkv"] = np.repeat([binary, binary, of("v")], d)
        table[f"{at}.attn"] = np.full(d, of("attn"))
        if add_out:
            table[f"{at}.out"] = np.full(d, binary)
        table[f"{at}.mid"] = np.full(d, of("mid"))
        table[f"{at}.up"] = np.full(f, of("hidden"))
        if add_down:
            table[f"{at}.down"] = np.full(d, binary)
    return {**table, "final": np.full(d, of("final"))}


def input_lows(config: ModelConfig) -> dict[str, int]:
    """Name of every LINEAR -> smallest level of its input."""
    return _of_inputs(config, lambda kind: -1 if config.neuron == "t_lif" else config.low(kind))


def input_levels(config: ModelConfig) -> dict[str, int]:
    """Name of every LINEAR -> largest level of its input."""
    return _of_inputs(config, config.level)


def _of_inputs(config, of):
    kinds = {"qkv": "in", "out": "attn", "up": "mid", "down": "hidden"}
    table = {f"layer{layer}.{name}": of(kind) for layer in range(config.layers) for name, kind in kinds.items()}
    return {**table, "head": of("final")}


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> (shape, dtype) of every tensor of a model; weights are input-major [n_in, n_out].

    A neuron has `base` and `step`, a residual writer without one `bias` and `shift`, SFSA a threshold `theta` per head.
    """
    d, f = config.width, config.hidden
    neurons = neuron_levels(config)
    shapes = {"embed.token": ((config.vocabulary, d), "int8")}
    if config.position_table:
        shapes["embed.position"] = ((config.context, d), "int8")
    for layer in range(config.layers):
        at = f"layer{layer}"
        for name, n_in, n_out in (("qkv", d, 3 * d), ("out", d, d), ("up", d, f), ("down", f, d)):
            shapes[f"{at}.{name}.weight"] = ((n_in, n_out), "int8")
        for name in ("out", "down"):
            if f"{at}.{name}" not in neurons:
                shapes[f"{at}.{name}.bias"], shapes[f"{at}.{name}.shift"] = ((d,), "int32"), ((d,), "uint8")
        if config.attention == "sfsa":
            shapes[f"{at}.attn.theta"] = ((config.heads,), "uint8")
    for name, levels in neurons.items():
        shapes[f"{name}.base"], shapes[f"{name}.step"] = (levels.shape, "int32"), (levels.shape, "int32")
    rows = d * config.steps if config.head == "concatenate" else d
    shapes["head.weight"], shapes["head.bias"] = ((rows, config.outputs), "int8"), ((config.outputs,), "int32")
    return shapes


def head_rows(config: ModelConfig, weights: np.ndarray) -> np.ndarray:
    """The head's matrix as it meets the final spikes of `head_steps` time steps side by side: [head_steps x d, outputs].

    "accumulate" and "average" add the steps up, which is the same rows again for each.
    """
    return weights if config.head == "concatenate" else np.tile(weights, (config.head_steps, 1))


def check_tensors(config: ModelConfig, tensors: dict[str, np.ndarray]) -> None:
    """Refuse tensors that are missing, of a wrong shape, or not integers.

    Raises
    ------
    ValueError
        Names the tensor.
    """
    for name, (shape, _) in tensor_shapes(config).items():
        require(name in tensors, f"{config.name}: tensor {name} is missing.", ValueError)
        got = tensors[name]
        require(got.shape == shape, f"{config.name}: {name} has shape {got.shape}, it must be {shape}.", ValueError)
        require(np.issubdtype(got.dtype, np.integer), f"{config.name}: {name} holds {got.dtype}, not integers.", ValueError)
