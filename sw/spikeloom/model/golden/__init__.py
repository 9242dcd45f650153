"""Golden models in PyTorch of every system of the three papers: `SpikingTransformer(config, options)`."""

from .options import GoldenOptions
from .transformer import SpikingTransformer

__all__ = ["GoldenOptions", "SpikingTransformer"]
