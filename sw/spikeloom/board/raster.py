"""Which neurons fire while a text is made, as numbers and as a picture."""

from dataclasses import dataclass

import numpy as np

from ..arch.config import AcceleratorConfig
from ..driver.device import Device
from .dumps import by_operator
from .models import image_of

#: Side of one neuron at one position in the picture.
_CELL = 3
#: Last part of the names of the spike tensors that are shown, queries, keys and values left out.
_TENSORS = ("in", "attn", "mid", "up", "final")


@dataclass(frozen=True)
class Firing:
    """Levels of every neuron of a network over the positions of a text.

    In a notebook it shows as a raster: one column per position, one row per neuron, darker for more spikes.
    """

    #: Tensor, such as `layer0.up` -> int32 [positions, neurons].
    levels: dict[str, np.ndarray]
    #: Token read at each position, then those made.
    tokens: list[int]

    def rates(self) -> dict[str, float]:
        """Share of the neurons of each tensor that fire at a position."""
        return {name: float(np.count_nonzero(levels) / levels.size) for name, levels in self.levels.items()}

    def _repr_svg_(self) -> str:
        positions = max(len(levels) for levels in self.levels.values())
        left, parts, top = 150, [], 4
        most = max(1, *(int(levels.max()) for levels in self.levels.values()))
        for name, levels in self.levels.items():
            height = levels.shape[1] * _CELL
            parts.append(f'<text x="4" y="{top + 11}" font-size="11">{name} ({self.rates()[name]:.0%})</text>'
                         f'<rect x="{left}" y="{top}" width="{positions * _CELL}" height="{height}" fill="#f4f4f4"/>')
            for level in range(1, most + 1):
                marks = "".join(f"M{left + x * _CELL} {top + y * _CELL}h{_CELL}v{_CELL}h-{_CELL}z" for x, y in np.argwhere(levels == level))
                if marks:
                    parts.append(f'<path d="{marks}" fill="#1f3b73" fill-opacity="{level / most:.2f}"/>')
            top += height + 8
        width = left + positions * _CELL + 4
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" font-family="sans-serif">{"".join(parts)}</svg>'


def watch(device: Device, model: str, prompt: list[int], n_new: int) -> Firing:
    """Make tokens with a form of the model that dumps every intermediate.

    It takes the place of what was loaded; load that again afterwards.

    Parameters
    ----------
    model : str
        Of the package, or a folder.
    prompt : list of int
    n_new : int
        Tokens to make.
    """
    image = image_of(model, device.cfg, trace_dumps=True)
    device.load(image)
    made = [token.id for token in device.generate(prompt, n_new, ignore_end=True, trace=True)]
    return firing(device.dump_words(), image, prompt, made, device.cfg)


def firing(words: np.ndarray, image, prompt: list[int], made: list[int], cfg: AcceleratorConfig) -> Firing:
    """The spike tensors in the dumps of a run."""
    outputs = by_operator(words, image, len(prompt), len(made), cfg.lanes)
    levels = {name: values for name, values in outputs.items() if name.rpartition(".")[2] in _TENSORS}
    return Firing(levels, [*prompt, *made])
