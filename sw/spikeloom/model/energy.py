"""Energy account: counted synaptic operations, and what a 45 nm projection makes of them.

    E_SNN = E_AC (SOP_linear + SOP_attention)        E_ANN = E_MAC MAC        E_AC = 0.9 pJ, E_MAC = 4.6 pJ

Arithmetic alone, 32-bit float figures of Horowitz (2014), as the papers use them (arXiv 2304.11954 Eq. 19-20): no memory
traffic, no control, not this hardware. It compares with the softmax twin of equal size, nothing larger.

Counting errors seen in public accounts, and how they are avoided here:

* rate x FLOPs instead of spikes: here operations are counted one by one while the model runs, padding and silence included;
* attention left out because only layers are hooked: scores and gathered values are counted;
* an integer spike billed as one binary spike: `level_sops` bills a level d as d additions, beside the count of events;
* an ANN formula with a slip in it, or an ANN several times larger: `ann_macs` follows the twin's own shapes;
* the saving quoted at the best T: time steps are part of the count.
"""

from collections import Counter
from dataclasses import asdict, dataclass

from ..arch.config import ModelConfig

#: Picojoule of one 32-bit floating-point addition, and of a multiply-accumulate, at 45 nm.
E_AC, E_MAC = 0.9, 4.6
LABEL = "45 nm Horowitz projection, arithmetic only"


@dataclass(frozen=True)
class Account:
    """Operations per token and their projected energy in nanojoule."""

    #: Additions of a weight: one per event and output.
    linear_sops: float
    #: Coincident spikes of queries and keys, and additions of gathered values.
    attention_sops: float
    #: As `linear_sops`, a level d counted d times (what binary planes over time would cost).
    level_sops: float
    #: Multiply-accumulates of the softmax twin at the same mean context.
    ann_macs: float
    snn_nanojoule: float
    ann_nanojoule: float
    ratio: float
    label: str = LABEL

    def to_dict(self) -> dict:
        """JSON-ready."""
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()}


def ann_macs(config: ModelConfig, context: float, hidden: int | None = None) -> float:
    """Multiply-accumulates of one token of a transformer of these shapes that sees `context` positions.

    Per layer: Q, K, V and output projections, scores and weighted values, two feed-forward matrices; then the head. Norms,
    softmax and activations are left out, in its favour.
    """
    d, f = config.width, hidden or config.hidden
    return config.layers * (4 * d * d + 2 * d * context + 2 * d * f) + d * config.outputs


def account(config: ModelConfig, counters: Counter, tokens: int, context: float, hidden: int | None = None) -> Account:
    """The account of `tokens` tokens.

    Parameters
    ----------
    counters : Counter
        Of `integer_model.Trace`, added up: `sops.linear`, `sops.attention`, `sops.levels`.
    tokens : int
    context : float
        Mean number of positions that a token saw, itself included.
    hidden : int, optional
        Feed-forward width of the twin; the model's own where not given.

    Raises
    ------
    ValueError
        When nothing was counted.
    """
    if tokens < 1 or not counters["sops.linear"]:
        raise ValueError("Nothing was counted: run at least one token that speaks.")
    linear, attention = counters["sops.linear"] / tokens, counters["sops.attention"] / tokens
    macs = ann_macs(config, context, hidden)
    snn, ann = (linear + attention) * E_AC / 1000, macs * E_MAC / 1000
    return Account(linear, attention, counters["sops.levels"] / tokens, macs, snn, ann, snn / ann)
