"""Golden models that nobody trained: parameters drawn, norms settled on random tokens, some gains negative; and their integers.

What `random_model` is to the contract this is to the golden model: it takes every option of training and of embeddings through
export.
"""

import numpy as np
import torch

from spikeloom.arch.config import ModelConfig

from . import export
from .norms import BatchNorm, PowerNorm
from .options import GoldenOptions
from .transformer import SpikingTransformer

#: Batches that norms see, texts in each, and how fast their statistics follow.
_BATCHES, _TEXTS, _MOMENTUM = 6, 8, 0.3


def sample(seed: int, config: ModelConfig, options: GoldenOptions = GoldenOptions()) -> SpikingTransformer:
    """A model in evaluation form whose parameters are nowhere special."""
    torch.manual_seed(seed)
    model = SpikingTransformer(config, options)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
        if name.endswith("raw_gain") and parameter.requires_grad and ("up." in name or "qkv." in name):
            parameter.data[::5] *= -1
        if name.endswith("alpha"):
            parameter.data.fill_(-0.7 if "sn_in" in name else -1.4)
    for module in model.modules():
        if isinstance(module, (BatchNorm, PowerNorm)):
            module.MOMENTUM = _MOMENTUM
    with torch.no_grad():
        for _ in range(_BATCHES):
            model.train()(torch.randint(config.vocabulary, (_TEXTS, config.context)))
    return model.eval()


def network(seed: int, config: ModelConfig, options: dict) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """Config and integers of a sample, as `random_model` gives them."""
    stored = export.to_stored(sample(seed, config, GoldenOptions.from_dict(options)))
    return stored.config, stored.tensors
