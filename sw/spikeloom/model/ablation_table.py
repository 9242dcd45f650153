"""What the ablations vary: data sets, the common shape, and one row per run.

Every run of a data set shares tokens, steps, batch, optimiser and tokenizer, and has the parameters of its softmax twin within two
per cent. A variant is a set of changes to `BASE`.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field

from spikeloom.arch.config import TENSORS

from . import corpus

#: The recipe that variants are compared with.
BASE = {
    "model": {"context": 64, "width": 64, "layers": 2, "heads": 4, "hidden": 192,
              **{f"level_{kind}": 8 for kind in TENSORS},
              "top_k": 4, "rank_shifts": [0, 1, 2, 3], "recency": [0, 2, 4, 6], "weight_bits": 8},
    "fraction": 9,
    "float": {},
    "training": {"learning_rate": 0.004, "muon": 1.0, "weight_decay": 0.05, "batch_tokens": 1024, "short_context": 64, "long_from": 0.0,
                 "anneal_until": 0.55, "freeze_from": 0.88, "warmup_steps": 50, "real_share": 1.0},
}
#: The variants that the headline is about: with levels from 0, and of both signs.
HEADLINES = ("recipe", "signed")


@dataclass(frozen=True)
class Data:
    """A data set of the ablations."""

    name: str
    load: Callable[[], corpus.Split]
    #: Tokens; 0: the characters of the text and `<|end|>`.
    vocabulary: int
    steps: int
    #: Held-out texts are measured up to this many bytes.
    held_out_bytes: int


DATA = {data.name: data for data in (
    Data("shakespeare", corpus.load_tiny_shakespeare, 0, 1500, 20_000),
    Data("stories", corpus.load_default, 512, 1500, 30_000),
)}


@dataclass(frozen=True)
class Variant:
    """One row: what changes against BASE, and what it is there to answer."""

    name: str
    #: Rows of one question stand together.
    group: str
    about: str
    model: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    #: Options of a softmax twin.
    twin: dict = field(default_factory=dict)
    #: Fields of `GoldenOptions`: the run is a golden model's (time steps, other attentions).
    golden: dict | None = None
    kind: str = "spiking"
    #: Name of the softmax twin that a gap is taken to.
    against: str = "twin"
    #: Name of the variant whose finished run teaches.
    teacher: str = ""
    #: Measured with the softmax over the scores instead of winners.
    soft: bool = False
    #: Repeated with these seeds.
    seeds: tuple[int, ...] = (0,)
    data: tuple[str, ...] = ("shakespeare", "stories")
    #: One unit of the residual stream is 2^-fraction.
    fraction: int = 9

    @property
    def float_only(self) -> bool:
        """Whether there are no integers of it."""
        return self.kind == "softmax" or self.soft or self.options.get("by_score", False)

    def config(self, data: Data, vocabulary: int) -> dict:
        """A config that `train.train` (or `golden.train.train`) takes."""
        config = deepcopy(BASE)
        config["model"] |= {"name": f"{data.name}-{self.name}", "vocabulary": vocabulary} | self.model
        config["training"] |= self.training
        config["float"] |= self.options
        config |= {"twin": self.twin} if self.twin else {}
        config["fraction"] = self.fraction
        if self.golden is not None:
            config["golden"] = {"fraction": 9, **self.golden}
            config["training"] |= {"task": "causal", "corpus": "as it is"}
            del config["float"], config["fraction"]
        return config


def levels(count: int) -> dict:
    """D of every tensor that has levels."""
    return {f"level_{kind}": count for kind in TENSORS}


def by_rank(*shifts: int) -> dict:
    """K winners with these shifts."""
    return {"top_k": len(shifts), "rank_shifts": list(shifts)}


_LIF = {"norm": "batch", "norm_at": "neurons"}
_FAST = {"learning_rate": 0.02}
_HEAD = {"head_gain": 4.0}
_SIGNED = {"signed": ["in", "v", "attn", "mid", "final"]}
_SIGNED_SUMS = {"signed": ["v", "attn", "final"]}
_RECIPE = _HEAD | {"ranked": True, "centre_values": 0.5, "centre_final": 0.5}

VARIANTS = (
    # What the rest is compared with.
    Variant("twin", "reference", "softmax twin: GPT of equal size", kind="softmax", seeds=(0, 1, 2)),
    Variant("twin-binary", "reference", "the twin with queries and keys of 0 and 1", kind="softmax", twin={"binary": True}),
    Variant("base", "reference", "top-4 by rank: 1, 1/2, 1/4, 1/8; annealed from softmax until 55%", seeds=(0, 1, 2)),
    # The recipe of the released models, change by change; the twin has its own best rate too.
    Variant("twin-rate", "recipe", "the twin at rate 0.01, its best of five on stories", kind="softmax", training={"learning_rate": 0.01},
            seeds=(0, 1, 2)),
    Variant("rate", "recipe", "rate 0.02", training=_FAST, against="twin-rate"),
    Variant("head", "recipe", "fast head: four times as large, four times the rate", options=_HEAD),
    Variant("head-rate", "recipe", "rate 0.02, fast head", training=_FAST, options=_HEAD, against="twin-rate"),
    Variant("head-ranked", "recipe", "rate 0.02, fast head, `ranked`", training=_FAST, options=_HEAD | {"ranked": True},
            against="twin-rate"),
    Variant("recipe", "recipe", "rate 0.02, fast head, `ranked`; values, their sums, last neurons from mid-range",
            training=_FAST, options=_RECIPE, seeds=(0, 1, 2), against="twin-rate"),
    Variant("priced", "recipe", "`recipe` and a price of 0.3 nats on all synaptic operations",
            training=_FAST | {"sparsity": 0.3}, options=_RECIPE, against="twin-rate"),
    Variant("priced-1", "recipe", "`recipe` and a price of 1 nat", training=_FAST | {"sparsity": 1.0}, options=_RECIPE,
            against="twin-rate"),
    # The gradient of the competition, and how training comes to it.
    Variant("ranked", "gradient", "gradient of one softmax per rank", options={"ranked": True}),
    Variant("distil", "gradient", "half of the loss from the twin's predictions", teacher="twin",
            training={"distillation": {"weight": 0.5}}),
    Variant("straight-through", "gradient", "winners alone from the first step", training={"anneal_until": 0}),
    Variant("late", "gradient", "annealed until 85%", training={"anneal_until": 0.85}),
    Variant("factor-1", "gradient", "scores' factor 1 for good, none learned per head", options={"temperature": 1.0}),
    Variant("factor-quarter", "gradient", "scores' factor 1/4 for good: four times the temperature", options={"temperature": 0.25}),
    # Neurons that read the stream.
    Variant("centre", "neurons", "stream neurons start in mid-range", options={"centre": 0.5}),
    Variant("quiet", "neurons", "stream neurons start a quarter of their range below", options={"centre": -0.25}),
    # The form of the attention.
    Variant("soft", "attention", "softmax on spikes (float; no winners)", training={"anneal_until": 1e9}, soft=True),
    Variant("k8", "attention", "top-8, shifts 0 1 1 2 2 3 3 3", model=by_rank(0, 1, 1, 2, 2, 3, 3, 3)),
    Variant("heads2", "attention", "2 heads of 32 in place of 4 of 16", model={"heads": 2, "recency": [1, 5]}),
    Variant("position", "position", "learned position table as well (hidden 176)",
            model={"position_table": True, "hidden": 176}),
    Variant("k1", "attention", "hard: one winner", model=by_rank(0)),
    Variant("k2", "attention", "top-2 by rank", model=by_rank(0, 1)),
    Variant("k8-steep", "attention", "top-8 by rank, shifts 0 to 7", model=by_rank(*range(8))),
    Variant("equal", "attention", "top-4, equal weights", model=by_rank(0, 0, 0, 0)),
    Variant("by-score", "attention", "top-4, weighted by the softmax over their scores (float)", options={"by_score": True}),
    Variant("sfsa", "attention", "SFSA: threshold per head, all that reach it (golden model)", model={"attention": "sfsa"}, golden=_LIF),
    Variant("ssa", "attention", "SSA: values times scores (golden model, D of values 1)", model={"attention": "ssa", "level_v": 1},
            golden=_LIF),
    Variant("no-recency", "position", "no recency bias", model={"recency": [15] * 4}),
    # Precision.
    Variant("d4", "levels", "D = 4", model=levels(4)),
    Variant("d2", "levels", "D = 2", model=levels(2)),
    Variant("d1", "levels", "D = 1", model=levels(1)),
    Variant("signed", "levels", "`recipe` with levels of both signs, -7..8, but for hidden, queries and keys", model=_SIGNED,
            training=_FAST, options=_RECIPE, seeds=(0, 1, 2), against="twin-rate"),
    Variant("signed-priced", "levels", "`signed` and a price of 0.3 nats on all synaptic operations", model=_SIGNED,
            training=_FAST | {"sparsity": 0.3}, options=_RECIPE, against="twin-rate"),
    Variant("signed-sums", "levels", "`recipe` with levels of both signs for values, their sums and the last neurons alone",
            model=_SIGNED_SUMS, training=_FAST, options=_RECIPE, against="twin-rate"),
    Variant("signed-sums-priced", "levels", "`signed-sums` and a price of 0.3 nats on all synaptic operations",
            model=_SIGNED_SUMS, training=_FAST | {"sparsity": 0.3}, options=_RECIPE, against="twin-rate"),
    Variant("t4", "levels", "LIF (soft reset), T = 4, D = 1 (golden model)", golden=_LIF,
            model={"neuron": "lif_soft", "steps": 4, "leak": 1, **levels(1)}),
    Variant("int4", "precision", "int4 weights", model={"weight_bits": 4}),
    Variant("int4-held", "precision", "int4 weights, scales held from 50%", model={"weight_bits": 4}, training={"hold_scales_from": 0.5},
            seeds=(0, 1, 2)),
    Variant("ternary", "precision", "ternary weights", model={"weight_bits": 2}),
    Variant("residual-6", "precision", "residual stream in steps of 2^-6 in place of 2^-9", fraction=6),
    Variant("residual-3", "precision", "residual stream in steps of 2^-3", fraction=3),
    Variant("batch-norm", "norm", "`base` as a golden model, which those beside it change", golden=_LIF),
    Variant("no-norm", "norm", "no norm (golden model)", golden=_LIF | {"norm": "none"}),
    Variant("power-norm", "norm", "PowerNorm in place of BatchNorm (golden model)", golden=_LIF | {"norm": "power"}),
)
BY_NAME = {variant.name: variant for variant in VARIANTS}
