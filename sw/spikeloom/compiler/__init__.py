"""From a trained integer model to the image of one machine: `compile_model`."""

from .image import compile_model

__all__ = ["compile_model"]
