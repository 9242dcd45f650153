"""Which network (`ModelConfig`), which machine (`AcceleratorConfig`), and whether one fits the other (`check_fit`).

Choices are fields, consequences are properties; every check speaks in a sentence.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field

#: Fraction bits of a firing threshold (base and step) relative to the accumulator's unit.
THRESHOLD_FRACTION = 8
#: Width of the residual stream: signed, saturating.
RESIDUAL_WIDTH = 16
#: A block of output columns is at most this many tiles deep (accumulator depth per bank).
MAX_TILES = 16
#: Recency shift that switches the recency bias of a head off.
RECENCY_OFF = 15
#: Leak shift that switches the leak of a membrane off (IF).
LEAK_OFF = 15
#: Width of a membrane: signed, THRESHOLD_FRACTION fraction bits.
MEMBRANE_WIDTH = 32
#: Neurons of a model.
NEURONS = ("ni_lif", "lif_hard", "lif_soft", "t_lif", "lif_subtract", "i_lif")
#: Neurons of a pass: those, and NI-LIF with levels of both signs, which a model has per tensor (`ModelConfig.signed`). The position
#: is the code in a command (`arch.commands.Neuron`).
PASS_NEURONS = (*NEURONS, "signed_ni_lif")
#: Attention back ends; the position is the code in a command (`arch.commands.Attention`).
ATTENTIONS = ("wta", "sfsa", "ssa")
#: Forms of the residual: (spikes replace the stream before attention, attention adds spikes, spikes replace the stream before
#: the feed-forward block, the feed-forward block adds spikes).
RESIDUALS = {
    "membrane": (False, False, False, False),  #: membrane shortcut: Spikingformer, WTA, SpikeDecoder 0
    "mlp_spikes": (False, False, True, True),  #: SpikeDecoder 1
    "all_spikes": (True, True, True, True),    #: SpikeDecoder 2
    "spike_sum": (False, True, False, True),   #: BiSpikCLM
}
#: Tensors of levels, as fields and options name them; queries and keys are binary.
TENSORS = ("in", "v", "attn", "mid", "hidden", "final")
#: What the head reads of the final spikes of T time steps.
HEADS = ("accumulate", "average", "concatenate", "final")
#: Entries of the sampling noise table.
NOISE_ENTRIES = 1024
#: Width of one entry of the noise table, signed.
NOISE_WIDTH = 24
#: Weight formats and their bits; the position in this tuple is the code in a command.
WEIGHT_BITS = (8, 4, 2)


def lowest_level(level: int) -> int:
    """Smallest level of a signed neuron whose largest one is `level`; 0 of one with a single level, as queries and keys have."""
    return 1 - level


class FitError(ValueError):
    """A network, image or program does not fit a machine; the message names the limit and the remedy."""


def ceil_div(a: int, b: int) -> int:
    """Smallest integer not below a / b."""
    return -(-a // b)


def bits_for(largest: int) -> int:
    """Bits of an unsigned field that must hold 0..largest (at least one)."""
    return max(1, largest.bit_length())


def require(condition: bool, sentence: str, error: type[Exception] = FitError) -> None:
    """Raise `error(sentence)` unless the condition holds."""
    if not condition:
        raise error(sentence)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One network of the three papers; as it stands a WD-Spikingformer: causal, winner-take-all attention, NI-LIF neurons.

        x = embed(token) [+ position]                 `embedding`: as a current, or through a neuron (`embed`)
        per layer: s = SN_in(x); q, k, v = SN_qkv(s W_qkv)
                   o = SN_attn(ATT(q, k, v));         x += o W_out + b   | x += SN_out(o W_out)
                   h = SN_up(SN_mid(x) W_up);         x += h W_down + b  | x += SN_down(h W_down)
        logits = head(SN_final(x))

    With `steps` T > 1 all of it happens at every time step, with a residual stream, keys and values of its own per step;
    membranes connect the steps and are cleared at each token; the head joins the steps.

    Equations: arXiv 2604.11321 (WSSA, CWSSA), arXiv 2604.12365 Eq. 1-17 (neurons), arXiv 2605.13859 (SFSA, SFFN),
    arXiv 2606.12287 (SpikeDecoder).
    """

    name: str
    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    hidden: int
    #: Levels D of each NI-LIF tensor: 0..D spikes per neuron. Queries and keys are binary (D = 1).
    level_in: int = 4
    level_v: int = 4
    level_attn: int = 4
    level_mid: int = 4
    level_hidden: int = 4
    level_final: int = 4
    #: Tensors (`in`, `v`, `attn`, `mid`, `hidden`, `final`) whose levels have both signs: `lowest_level`..D in place of 0..D.
    signed: tuple[str, ...] = ()
    #: Winners per head and row.
    top_k: int = 4
    #: Winner of rank r weighs 2 ** -rank_shifts[r]; all zero is the paper's equal weights.
    rank_shifts: tuple[int, ...] = (0, 1, 2, 3)
    #: Recency shift per head (key = score - (distance >> shift)); RECENCY_OFF: no bias.
    recency: tuple[int, ...] = ()
    #: Only positions with a raw score above zero may win.
    overlap: bool = False
    #: Weight bits of each kind of matrix: 8, 4 or 2 (ternary).
    weight_bits: int = 8
    #: residual = embedding << embed_shift.
    embed_shift: int = 0
    #: The model adds a learned position table to the token embedding.
    position_table: bool = False
    #: Id of the end (and begin) token.
    end_token: int = 0
    #: Neuron of every tensor, one of NEURONS; T; leak shift (membrane - (membrane >> leak), LEAK_OFF: none).
    neuron: str = "ni_lif"
    steps: int = 1
    leak: int = LEAK_OFF
    #: One of ATTENTIONS; whether later positions compete too (an encoder: one pass over the whole text).
    attention: str = "wta"
    bidirectional: bool = False
    #: One of RESIDUALS; a spike in the stream is worth 1 << spike_shift.
    residual: str = "membrane"
    spike_shift: int = 0
    #: "current": the sum of table rows is the stream; "spikes": it drives the neuron `embed`, whose spikes are the stream.
    embedding: str = "current"
    #: One of HEADS. "average" is "accumulate" with another logit scale.
    head: str = "accumulate"
    #: Above 0: the head has this many outputs and is read once, at position 0 (classification; encoders only).
    classes: int = 0

    def __post_init__(self):
        object.__setattr__(self, "rank_shifts", tuple(self.rank_shifts))
        object.__setattr__(self, "recency", tuple(self.recency) or (RECENCY_OFF,) * self.heads)
        object.__setattr__(self, "signed", tuple(self.signed))
        for name in ("vocabulary", "context", "width", "layers", "heads", "hidden"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, it is {getattr(self, name)}.", ValueError)
        require(self.vocabulary >= 2 and self.context >= 2, "A vocabulary and a context hold at least two entries.", ValueError)
        require(self.width % self.heads == 0, f"width {self.width} must be a multiple of heads {self.heads}.", ValueError)
        for kind in TENSORS:
            require(1 <= getattr(self, f"level_{kind}") <= 8, f"level_{kind} is the number of spike levels D and lies in 1..8.", ValueError)
        require(1 <= self.top_k <= 8, f"top_k {self.top_k} must lie in 1..8.", ValueError)
        require(len(self.rank_shifts) >= self.top_k and all(0 <= s <= 7 for s in self.rank_shifts),
                "rank_shifts needs one shift in 0..7 for each of the top_k winners.", ValueError)
        object.__setattr__(self, "rank_shifts", self.rank_shifts[:self.top_k])
        require(len(self.recency) == self.heads and all(0 <= s <= RECENCY_OFF for s in self.recency),
                f"recency needs one shift in 0..{RECENCY_OFF} per head.", ValueError)
        require(self.weight_bits in WEIGHT_BITS, f"weight_bits must be one of {WEIGHT_BITS}.", ValueError)
        require(0 <= self.embed_shift <= 8, "embed_shift must lie in 0..8.", ValueError)
        require(0 <= self.end_token < self.vocabulary, "end_token must be a token of the vocabulary.", ValueError)
        for name, choices in (("neuron", NEURONS), ("attention", ATTENTIONS), ("residual", tuple(RESIDUALS)), ("head", HEADS),
                              ("embedding", ("current", "spikes"))):
            require(getattr(self, name) in choices, f"{name} must be one of {', '.join(choices)}, it is {getattr(self, name)!r}.",
                    ValueError)
        require(1 <= self.steps <= 8, f"steps {self.steps} must lie in 1..8.", ValueError)
        require(self.steps == 1 or self.neuron != "ni_lif", "NI-LIF has no state: it runs with steps = 1.", ValueError)
        require(1 <= self.leak <= LEAK_OFF, f"leak is a shift in 1..{LEAK_OFF - 1}, or {LEAK_OFF} for none.", ValueError)
        require(0 <= self.spike_shift <= 8, "spike_shift must lie in 0..8.", ValueError)
        require(self.attention != "ssa" or self.value_level == 1, "SSA takes binary or ternary values: set level_v to 1.", ValueError)
        require(all(kind in TENSORS and getattr(self, f"level_{kind}") > 1 for kind in self.signed),
                f"signed names tensors with more than one level, of {', '.join(TENSORS)}; it is {', '.join(self.signed)}.", ValueError)
        require(not self.signed or self.neuron == "ni_lif", "Levels of both signs are NI-LIF's: other neurons have a reset.", ValueError)
        require(not self.bidirectional or not RESIDUALS[self.residual][0],
                "An encoder visits the input of its attention twice: residual all_spikes, which replaces it, is for decoders.",
                ValueError)
        require(not self.classes or self.bidirectional, "Only an encoder (bidirectional) has a classification head.", ValueError)
        require(0 <= self.classes <= self.vocabulary, "classes must not exceed the vocabulary.", ValueError)

    @property
    def leveled(self) -> bool:
        """Whether neurons speak in levels 0..D; others in 0, 1 (or -1)."""
        return self.neuron in ("ni_lif", "i_lif")

    def level(self, kind: str) -> int:
        """Largest level of a tensor, one of TENSORS."""
        return getattr(self, f"level_{kind}") if self.leveled else 1

    def low(self, kind: str) -> int:
        """Smallest level of a tensor: 0, or `lowest_level` where it is `signed`."""
        return lowest_level(self.level(kind)) if kind in self.signed else 0

    @property
    def value_level(self) -> int:
        """Largest level of a value."""
        return self.level("v")

    @property
    def outputs(self) -> int:
        """Columns of the head."""
        return self.classes or self.vocabulary

    @property
    def head_steps(self) -> int:
        """Time steps whose final spikes the head reads."""
        return 1 if self.head == "final" else self.steps

    @property
    def head_width(self) -> int:
        """Channels of one head."""
        return self.width // self.heads

    def label(self, operator: str, step: int) -> str:
        """Name of an operator, or of an intermediate, at a time step: in programs, traces and reports."""
        return operator if self.steps == 1 else f"{operator}@{step}"

    @property
    def embedding_rows(self) -> int:
        """Rows of the embedding: one per token, then one per position where the model has a position table."""
        return self.vocabulary + (self.context if self.position_table else 0)

    def to_dict(self) -> dict:
        """JSON-ready fields."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict) -> "ModelConfig":
        """Inverse of `to_dict`; unknown fields are refused by name."""
        known = set(cls.__dataclass_fields__)
        unknown = sorted(set(fields) - known)
        require(not unknown, f"Unknown model fields: {', '.join(unknown)}.", ValueError)
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


@dataclass(frozen=True, kw_only=True)
class AcceleratorConfig:
    """One machine: the shape of the gateware. Hashed into the fingerprint that driver and images check."""

    name: str
    #: Grid rows of the spike engine: sums kept side by side for one fetched weight row (time steps or tokens).
    rows: int = 1
    #: Grid columns: weights added per cycle and grid row; one tile.
    cols: int = 64
    #: Resident rows added per cycle: 1, or pairs (2), which take a second adder per element and the second port of the row memory.
    events: int = 1
    #: Channels that the neuron unit handles per cycle; one group.
    lanes: int = 16
    #: Smallest head width; wider heads are power-of-two multiples of it.
    segment: int = 8
    #: Largest width of the residual stream and of attention.
    max_width: int = 64
    #: Largest number of neurons in one spike buffer (hidden layer, or Q|K|V).
    max_neurons: int = 512
    #: Largest vocabulary (logits buffer).
    max_vocabulary: int = 1024
    #: Positions that the KV cache holds over all layers.
    kv_positions: int = 2048
    #: Longest context (prompt memory, position counter).
    max_context: int = 256
    #: Most winners per head.
    k_max: int = 8
    #: Largest level D of a spike.
    level_max: int = 8
    #: Cached positions scored per cycle.
    score_banks: int = 4
    #: Tile rows of `cols` bytes held on chip.
    resident_words: int = 8192
    #: Groups of channel parameters (lanes x 64 bit) held on chip.
    parameter_words: int = 512
    #: Groups of channel parameters whose neurons may keep a membrane: the first ones of the table.
    membrane_words: int = 512
    #: Residual streams held: one for a decoder, time steps x positions for an encoder.
    residual_slots: int = 256
    #: Commands that the program memory holds.
    program_words: int = 512
    #: Accumulator width, signed.
    acc_width: int = 24
    #: AXI manager ports. Their read data side by side are one beat; only the first one writes.
    ports: int = 1
    #: Data and address width of a port, protocol.
    data_width: int = 64
    address_width: int = 40
    axi3: bool = False
    #: Clock that reports assume for tokens per second.
    clock_mhz: float = 100.0
    #: Board this preset is meant for (documents only).
    board: str = field(default="", compare=False)

    def __post_init__(self):
        def power(name):
            value = getattr(self, name)
            require(value >= 1 and value & (value - 1) == 0, f"{name} must be a power of two, it is {value}.", ValueError)
        for name in ("cols", "lanes", "segment", "score_banks", "max_context", "data_width"):
            power(name)
        require(self.rows >= 1, "rows must be at least 1.", ValueError)
        require(self.events in (1, 2), f"events is 1 or 2, it is {self.events}.", ValueError)
        require(self.lanes >= 2 and self.cols % self.lanes == 0 and self.cols > self.lanes,
                "cols must be a larger multiple of lanes, and lanes at least 2.", ValueError)
        require(self.score_banks >= 2, "score_banks must be at least 2.", ValueError)
        require(self.max_width % self.cols == 0 and self.max_width % self.segment == 0,
                "max_width must be a multiple of cols and of segment.", ValueError)
        require(self.max_neurons % self.cols == 0 and self.max_neurons >= 3 * self.max_width,
                "max_neurons must be a multiple of cols and hold Q|K|V (3 x max_width).", ValueError)
        require(self.max_vocabulary % self.lanes == 0, "max_vocabulary must be a multiple of lanes.", ValueError)
        require(self.kv_positions % self.score_banks == 0 and self.kv_positions >= self.max_context,
                "kv_positions must be a multiple of score_banks and hold one context.", ValueError)
        require(2 <= self.k_max <= 8 and 2 <= self.level_max <= 8, "k_max and level_max lie in 2..8.", ValueError)
        require(self.ports in (1, 2, 4), "ports must be 1, 2 or 4.", ValueError)
        require(self.data_width in (64, 128) and self.cols * 8 % self.bus_width == 0,
                "data_width must be 64 or 128, and all ports together must divide a tile row of cols bytes.", ValueError)
        require(self.lanes * 64 % self.bus_width == 0, "A parameter group must be a whole number of beats of all ports.", ValueError)
        require(1 <= self.membrane_words <= self.parameter_words, "membrane_words lies in 1..parameter_words.", ValueError)
        require(1 <= self.residual_slots <= 256, "residual_slots lies in 1..256.", ValueError)
        require(20 <= self.acc_width <= 24, "acc_width must lie in 20..24 (thresholds are 32 bits wide).", ValueError)

    @property
    def level_bits(self) -> int:
        """Bits of one stored level: level_max is at most half of the codes; those above half are levels below zero, all ones -1."""
        return bits_for(self.level_max - 1) + 1

    @property
    def segments(self) -> int:
        """Score segments: the most heads that the attention block runs side by side."""
        return self.max_width // self.segment

    @property
    def head_levels(self) -> int:
        """Supported head widths are segment << 0 .. segment << (head_levels - 1)."""
        return self.segments.bit_length()

    @property
    def groups_per_tile(self) -> int:
        """Neuron-unit groups in one tile of columns."""
        return self.cols // self.lanes

    @property
    def score_width(self) -> int:
        """Bits of a raw score: signed, ternary queries and keys."""
        return bits_for(self.max_width) + 1

    @property
    def gather_width(self) -> int:
        """Bits of a gathered value, signed: k_max winners of level_max, each shifted left by at most 7 (WTA); max_context
        values of level_max (SFSA), or times a score (SSA)."""
        most = max(self.k_max * (self.level_max << 7), self.max_context * max(self.level_max, self.max_width))
        return bits_for(most) + 1

    @property
    def beat_bytes(self) -> int:
        """Bytes of one AXI beat of one port."""
        return self.data_width // 8

    @property
    def bus_width(self) -> int:
        """Bits of one beat of all ports side by side."""
        return self.ports * self.data_width

    @property
    def bus_bytes(self) -> int:
        """Bytes of one beat of all ports: what memory gives per cycle at most."""
        return self.ports * self.beat_bytes

    def to_dict(self) -> dict:
        """JSON-ready fields, in a stable order."""
        return asdict(self)

    @property
    def fingerprint(self) -> int:
        """32-bit identity of this machine: of its shape and of the formats that software must know."""
        from . import commands, registers
        text = json.dumps({"config": {k: v for k, v in self.to_dict().items() if k not in ("board", "clock_mhz")},
                           "commands": commands.describe(), "registers": registers.describe()}, sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def check_fit(model: ModelConfig, machine: AcceleratorConfig) -> None:
    """Refuse a network that the machine cannot run, naming the limit.

    Raises
    ------
    FitError
        With one sentence that names the limit and the value.
    """
    def limit(value, most, what):
        require(value <= most, f"{model.name}: {what} is {value}, machine {machine.name!r} takes at most {most}.")
    limit(model.width, machine.max_width, "width")
    limit(max(model.hidden, 3 * model.width), machine.max_neurons, "the widest spike tensor")
    limit(model.vocabulary, machine.max_vocabulary, "the vocabulary")
    limit(model.context, machine.max_context, "the context")
    require(not model.position_table or model.vocabulary + model.context <= 1 << 16,
            f"{model.name}: {model.vocabulary} tokens and {model.context} positions are more than the {1 << 16} rows of an embedding; do "
            "without the position table.")
    limit(model.top_k, machine.k_max, "top_k")
    limit(max(map(model.level, TENSORS)), machine.level_max, "the largest spike level")
    limit(model.layers * model.steps * ceil_div(model.context, machine.score_banks) * machine.score_banks, machine.kv_positions,
          "layers x time steps x context (positions in the KV cache)")
    limit(model.steps * model.context if model.bidirectional else 1, machine.residual_slots,
          "time steps x positions of an encoder (residual slots)")
    limit(model.head_steps * model.width, machine.max_neurons, "time steps of the head x width")
    for name in ("width", "hidden"):
        require(getattr(model, name) % machine.lanes == 0,
                f"{model.name}: {name} {getattr(model, name)} must be a multiple of the {machine.lanes} neuron lanes of {machine.name!r}.")
    heads = [machine.segment << level for level in range(machine.head_levels)]
    require(model.head_width in heads,
            f"{model.name}: head width {model.head_width} is not one of {heads}, the widths machine {machine.name!r} scores.")
