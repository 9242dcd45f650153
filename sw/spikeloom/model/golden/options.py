"""What a golden model has beyond its `ModelConfig`: choices of training, of the papers' variants, and float references."""

from dataclasses import asdict, dataclass

from spikeloom.arch.config import LEAK_OFF, RESIDUALS, ModelConfig, require

SURROGATES = ("atan", "sigmoid", "triangle", "window")
NORMS = ("none", "batch", "power", "layer")
TOKEN_EMBEDDINGS = ("current", "one_hot", "two_hot", "binary", "learned")
POSITIONS = ("none", "learned", "binary", "static", "one_hot")
SCORE_FORMS = ("config", "sparsemax", "softmax")


@dataclass(frozen=True, kw_only=True)
class GoldenOptions:
    """Choices beside the network's shape; those that integers cannot carry are refused by `golden.export`, in words."""

    #: f: one unit of the integer residual is 2^-f.
    fraction: int = 8
    #: Derivative that stands for a binary spike's, its sharpness, and whether the reset has no gradient (papers.md 8.2).
    surrogate: str = "atan"
    sharpness: float = 2.0
    detach_reset: bool = True
    #: Membrane decay; None: 1 - 2^-leak of the config, which is what gates compute.
    beta: float | None = None
    #: Learn NASN's shift of the clipping window, one per tensor (arXiv 2604.12365 Eq. 12-17); NI-LIF only.
    learned_shift: bool = False
    #: One of NORMS, and whether it stands before every neuron (WD-Spikingformer) or after every linear (SpikeDecoder).
    norm: str = "batch"
    norm_at: str = "neurons"
    #: A norm before the neuron that reads attention, wherever the others stand: sums over positions are large and grow
    #: with them, and without it that neuron stays silent or always speaks.
    norm_attention: bool = True
    #: SpikeDecoder's spike degree: 0 ANN; 1 + embedding; 2 + attention; 3 + MLP; 4 + head.
    degree: int = 4
    #: Token and position embedding; all but "current" are bits. Joined in columns of their own, or summed and binarised.
    token: str = "current"
    position: str = "none"
    join: str = "sum"
    #: Columns of the position when concatenated.
    position_width: int = 0
    #: Attention: "config" as the config says, or a float reference on the same spikes.
    scores: str = "config"
    #: SSA's scale s; any power of two does, since a threshold or norm follows.
    scale: float = 0.125
    #: Start of learning: head h compares positions so that it looks `offsets[h]` tokens back (negative: ahead). Empty: queries and
    #: keys start at random. `seldom` lowers their currents, in deviations: rare spikes make unrelated scores small.
    offsets: tuple[int, ...] = ()
    seldom: float = 0.7
    #: Start of SFSA's thresholds.
    theta: float = 1.0

    def __post_init__(self):
        for name, choices in (("surrogate", SURROGATES), ("norm", NORMS), ("norm_at", ("neurons", "linears")),
                              ("token", TOKEN_EMBEDDINGS), ("position", POSITIONS), ("join", ("sum", "concatenate")),
                              ("scores", SCORE_FORMS)):
            require(getattr(self, name) in choices, f"{name} must be one of {', '.join(choices)}, it is {getattr(self, name)!r}.",
                    ValueError)
        object.__setattr__(self, "offsets", tuple(self.offsets))
        require(0 <= self.fraction <= 14, "fraction lies in 0..14.", ValueError)
        require(0 <= self.degree <= 4, "degree is SpikeDecoder's spike degree and lies in 0..4.", ValueError)
        require(self.sharpness > 0, "sharpness must be positive.", ValueError)
        require(self.beta is None or 0 <= self.beta <= 1, "beta lies in 0..1.", ValueError)

    def to_dict(self) -> dict:
        """JSON-ready fields."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict) -> "GoldenOptions":
        """Inverse of `to_dict`; unknown fields are refused by name."""
        unknown = sorted(set(fields) - set(cls.__dataclass_fields__))
        require(not unknown, f"Unknown golden options: {', '.join(unknown)}.", ValueError)
        return cls(**fields)

    def decay(self, config: ModelConfig) -> float:
        """beta of the membrane."""
        if self.beta is not None:
            return self.beta
        return 1.0 if config.leak == LEAK_OFF else 1 - 2.0**-config.leak

    def check(self, config: ModelConfig) -> None:
        """Refuse options that contradict the config.

        Raises
        ------
        ValueError
            Names both.
        """
        def demand(condition, sentence):
            require(condition, f"{config.name}: {sentence}", ValueError)

        demand(not config.signed, "golden models have no signed levels; the float model (`model.train`) has them.")
        bits = self.token != "current"
        demand(not bits or config.embedding == "spikes" or self.degree == 0,
               f"token embedding {self.token!r} is made of bits: set embedding to 'spikes', or token to 'current'.")
        demand(not bits or config.neuron != "t_lif",
               f"token embedding {self.token!r} is made of bits, which a ternary neuron does not repeat: use token "
               "'current' or another neuron.")
        demand(not self.learned_shift or config.neuron == "ni_lif", "learned_shift is NASN's, of NI-LIF neurons.")
        demand((self.position != "none") == config.position_table,
               f"position {self.position!r} and position_table {config.position_table} contradict each other.")
        demand(self.token != "one_hot" or config.width == config.vocabulary * config.context,
               "one_hot is joint over tokens and positions: width must be vocabulary x context.")
        demand(self.token != "two_hot" or config.width == config.vocabulary + config.context,
               "two_hot is token beside position: width must be vocabulary + context.")
        if self.token in ("one_hot", "two_hot"):
            demand(self.position == "one_hot" and self.join == "concatenate",
                   f"{self.token} holds the position: set position 'one_hot' and join 'concatenate'.")
        elif self.join == "concatenate":
            demand(bits and self.position != "none" and 0 < self.position_width < config.width,
                   "concatenated embeddings are bits of a token and of a position: give position_width its columns.")
        demand(not self.offsets or len(self.offsets) == config.heads and self.position == "learned",
               "offsets are one per head and start from learned positions.")
        demand(not any(RESIDUALS[config.residual]) or self.degree in (0, 4),
               f"residual {config.residual!r} is made of spikes: degree must be 4 (or 0, where nothing spikes).")
