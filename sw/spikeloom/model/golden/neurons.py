"""Every neuron of the three papers over T time steps, in units of its threshold.

    name           potential               spike                     membrane after   source
    lif_hard       H = V + (X - V) / tau   Theta(H - 1)              H (1 - S)        Spikformer family (SpikingJelly's LIF)
    (IF, no leak)  H = V + X               Theta(H - 1)              H (1 - S)        SpikingJelly's IF
    lif_soft       U = V + X               Theta(U - 1)              beta (U - S)     arXiv 2604.12365 Eq. 1-3
    lif_subtract   U = V + X               Theta(U - 1)              beta U - S       arXiv 2605.13859: U_t = I + beta U_t-1 - S_t-1
    t_lif          U = V + X               Theta(U-1) - Theta(-U-1)  beta (U - S)     arXiv 2604.11321, after SpikeLM
    i_lif          U = V + X               clip(round U, 0, D)       beta (U - S)     arXiv 2604.12365 Eq. 4
    ni_lif         U = X                   clip(round U, 0, D)       none             arXiv 2604.12365 Eq. 12-13
    NASN           U = X                   clip(round U, a, a + D)   none             arXiv 2604.12365 Eq. 12-17

beta = 1 - 2^-leak and tau = 2^leak: the decay is a shift in gates, whose floor is here a fraction. round is half up.
`arch.numerics.neuron_step` is the same in integers: a current of gain a and offset b, u = a acc + b, fires where
acc 2^F + m >= base, base = 2^F (theta - b) / a, step = 2^F / a.
"""

import torch
from torch import nn

from spikeloom.arch.config import LEAK_OFF, ModelConfig

from ..neurons import unit_of
from . import fast_neurons
from .norms import Norm, build_norm
from .options import GoldenOptions
from .surrogates import CeilingThrough, Levels, heaviside

LEVELED = ("ni_lif", "i_lif")


def run_neurons(kind: str, x: torch.Tensor, beta: float, level: torch.Tensor, low: torch.Tensor, options: GoldenOptions) -> torch.Tensor:
    """Spikes [T, .., C] of currents [T, .., C], membranes start empty.

    Parameters
    ----------
    kind : str
        One of `arch.config.NEURONS`.
    beta : float
        Decay of the membrane; `lif_hard` takes currents already divided by tau.
    level, low : float [C], []
        Largest level D, and NASN's whole shift a (0 elsewhere).
    """
    keep = (lambda s: s.detach()) if options.detach_reset else (lambda s: s)
    if kind == "ni_lif":
        return Levels.apply(x, level, low)
    v, spikes = torch.zeros_like(x[0]), []  # [.., C]
    for x_t in x:
        u = v + x_t
        if kind == "i_lif":
            s = Levels.apply(u, level, low)
        else:
            s = heaviside(u - 1, options.surrogate, options.sharpness)
            if kind == "t_lif":
                s = s - heaviside(-u - 1, options.surrogate, options.sharpness)
        if kind == "lif_hard":
            v = beta * u * (1 - keep(s))
        elif kind == "lif_subtract":
            v = beta * u - keep(s)
        else:
            v = beta * (u - keep(s))
        spikes.append(s)
    return torch.stack(spikes)  # [T, .., C]


class NeuronLayer(nn.Module):
    """A foldable norm and neurons; group i of sizes[i] channels has levels[i].

        u = norm(x) gain + shift;   s = SN(u)                       [T, .., C] -> [T, .., C], in whole levels

    Parameters
    ----------
    sizes, levels : tuples of int
        Channels and largest level of each group.
    norm : str
        One of `options.NORMS`.
    signed : bool
        The gain may become negative: only behind a linear layer, whose weights then flip at export.
    """

    def __init__(self, config: ModelConfig, options: GoldenOptions, sizes: tuple[int, ...], levels: tuple[int, ...], *,
                 norm: str | None = None, signed: bool = False, shifted: bool = False):
        super().__init__()
        self.kind, self.options, self.beta = config.neuron, options, options.decay(config)
        channels = sum(sizes)
        level = torch.cat([torch.full((n,), float(d)) for n, d in zip(sizes, levels)])
        unit = torch.cat([torch.full((n,), unit_of(d)) for n, d in zip(sizes, levels)])
        self.register_buffer("level", level)  # [C]
        self.register_buffer("unit", unit)  # [C]: value of one level in the next layer
        self.all_ones = bool((unit == 1).all())
        #: tau of the Spikformer family's input gain 1 / tau; 1 elsewhere.
        self.tau = 2.0**config.leak if self.kind == "lif_hard" and config.leak != LEAK_OFF else 1.0
        # A current of 1.5 thresholds' deviation speaks about a third of the time.
        gain = level / 2 if self.kind in LEVELED else torch.full_like(level, 1.2 * self.tau)
        self.norm: Norm = build_norm(norm or options.norm, channels, gain, signed=signed)
        self.alpha = nn.Parameter(torch.zeros(())) if shifted and options.learned_shift else None
        self.fast = (self.alpha is None and options.detach_reset and fast_neurons.serves(self.kind, options.surrogate))

    def value(self, spikes: torch.Tensor) -> torch.Tensor:
        """Levels as the next layer meets them: times `unit`, 1 for binary and ternary spikes; [.., C]."""
        return spikes if self.all_ones else spikes * self.unit

    def low(self) -> torch.Tensor:
        """NASN's ceil(alpha), a whole scalar."""
        return CeilingThrough.apply(self.alpha) if self.alpha is not None else self.level.new_zeros(())

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(a, b), float [C]: u = a x + b under the running statistics, the threshold (or the step of a level) is 1."""
        a, b = self.norm.affine()
        return a / self.tau, b / self.tau

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        current = self.norm(x)  # [T, .., C]
        if self.tau != 1:
            current = current / self.tau
        if self.fast and current.is_cpu:
            return fast_neurons.run(current, self.kind, self.beta, self.level, self.options.surrogate, self.options.sharpness)
        return run_neurons(self.kind, current, self.beta, self.level, self.low(), self.options)
