"""What a model does and holds, in NeuroBench's terms (Nature Communications 16, 1545, 2025), counted on held-out text.

    spikeloom eval --suite spiking --model stories-260k

    footprint             bytes of everything that is stored: weights, tables, thresholds, biases, shifts
    connection_sparsity   share of weights that are zero
    activation_sparsity   share of neurons that are silent, over all neurons, time steps and tokens
    synaptic_operations   per token. Dense: every weight once. Effective_MACs: real numbers multiplied, neither of them zero: none here.
                          Effective_ACs: a spike meets a weight that is not zero, one addition of a multiple of the weight;
                          level_additions bills a level d as d additions, as if levels were binary spikes over time.
                          Attention stands beside them: coincident spikes of queries and keys, and spikes of the gathered values.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from . import store
from .integer_model import IntegerModel
from .tensors import head_rows, tensor_shapes
from .tokenizer import Tokenizer

#: LINEAR -> the neurons that feed it.
FEEDS = {"qkv": "in", "out": "attn", "up": "mid", "down": "up"}


def measure(folder: Path, texts: list[str], tokens: int = 400) -> dict:
    """All figures, over the first `tokens` tokens of the texts (each text alone, up to the context)."""
    stored, tokenizer = store.load(folder), Tokenizer.load(folder / "tokenizer.json")
    c, arrays = stored.config, stored.tensors
    model = IntegerModel(c, arrays)
    weights = {f"layer{i}.{linear}": (f"layer{i}.{feed}", arrays[f"layer{i}.{linear}.weight"]) for i in range(c.layers)
               for linear, feed in FEEDS.items()}
    weights["head"] = ("final", head_rows(c, arrays["head.weight"]))
    present = {name: np.count_nonzero(weight, 1) for name, (_, weight) in weights.items()}  # [n_in]
    counters, sums, seen = Counter(), Counter(), 0
    for text in texts:
        if seen >= tokens:
            break
        model.clear()
        ids = [c.end_token, *tokenizer.encode(text)][: min(c.context, tokens - seen)]
        for position, token in enumerate(ids):
            trace = model.step(token, position)
            counters.update(trace.counters)
            for name, (feed, _) in weights.items():
                for step in range(c.steps if name != "head" else 1):
                    spikes = np.abs(np.asarray(trace[feed if name == "head" else c.label(feed, step)], np.int64))
                    sums["effective"] += int(present[name][spikes != 0].sum())
                    sums["levels"] += int((present[name] * spikes).sum())
        seen += len(ids)
    synapses = sum(weight.size for _, weight in weights.values())
    dense = sum(weight.size * (1 if name == "head" else c.steps) for name, (_, weight) in weights.items())
    footprint = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in tensor_shapes(c).values())
    return {"evidence": "[model]", "tokens": seen, "footprint_bytes": footprint,
            "connection_sparsity": round(1 - sum(int(p.sum()) for p in present.values()) / synapses, 4),
            "activation_sparsity": round(1 - counters["fired"] / counters["neurons"], 4),
            "synaptic_operations_per_token": {
                "Dense": dense, "Effective_MACs": 0, "Effective_ACs": round(sums["effective"] / seen),
                "level_additions": round(sums["levels"] / seen), "attention_ACs": round(counters["sops.attention"] / seen)}}
