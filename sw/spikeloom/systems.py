"""Every system and option of the three papers, what of it runs where, and a small network that shows it.

A row whose state is `works` carries the changes that turn `SHAPE` into a network of that kind; `spikeloom systems --run NAME`
draws such a network, runs it on a device and compares every operator with the integer model. Where a row is about the golden
model's own options (norms, embeddings, NASN) the network is a golden one, exported. Tests run all of them on RTL, and compare
the golden form of every row with its integers.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from .arch.config import TENSORS, ModelConfig

WTA, BISPIKCLM, SPIKEDECODER = "arXiv 2604.11321", "arXiv 2605.13859", "arXiv 2606.12287"
ASN, SPIKINGFORMER = "arXiv 2604.12365", "arXiv 2304.11954"

#: Models that come with the package.
MODELS = Path(__file__).parent / "models"
#: A network that the smallest machine holds.
SHAPE = ModelConfig(name="system", vocabulary=32, context=16, width=16, layers=2, heads=2, hidden=32, top_k=3,
                    rank_shifts=(0, 1, 2), recency=(0, 2), position_table=True)

_STEPS = {"layers": 1, "steps": 4}
_LIF = {**_STEPS, "neuron": "lif_hard", "leak": 1}
_BITS = {**_LIF, "embedding": "spikes", "spike_shift": 8}


@dataclass(frozen=True)
class Row:
    """One system or option."""

    name: str
    paper: str
    #: Where the PyTorch golden model has it.
    golden: str
    #: What the gateware has of it.
    gateware: str
    #: `works`, `golden only` or `missing`.
    state: str = "works"
    #: Changes to `SHAPE`; None: there is no network of its own to run.
    changes: dict | None = None
    #: Golden options of its network, which is then a golden model's export (needs torch); None: drawn as integers.
    options: dict | None = None
    #: Machine that runs it.
    preset: str = "tiny"
    #: What to type; made from the name where not given.
    command: str = ""
    #: Released model of that system, and what to type once it is there.
    model: str = ""
    with_model: str = ""

    @property
    def config(self) -> ModelConfig | None:
        """Shape and options of its network."""
        return None if self.changes is None else replace(SHAPE, **self.changes)

    def network(self, seed: int):
        """(config, integers by name) of its network.

        Raises
        ------
        ValueError
            When the row has none, or its golden model needs torch, which is not there.
        """
        if self.config is None:
            raise ValueError(f"{self.name} has no network of its own to draw; it is shown by: {self.to_dict()['command']}")
        if self.options is None:
            from .model.random_model import random_model

            return random_model(seed, self.config)
        try:
            from .model.golden.samples import network
        except ModuleNotFoundError as missing:
            raise ValueError(f'{self.name} is drawn by the golden model, which needs {missing.name}: pip install "spikeloom[model]"') \
                from missing
        return network(seed, self.config, self.options)

    def to_dict(self) -> dict:
        """JSON-ready, with the command that shows it."""
        command = self.command or f'spikeloom systems --run "{self.name}" --device rtl'
        if self.model and (MODELS / self.model / "model.safetensors").is_file():
            command = self.with_model
        return {"name": self.name, "paper": self.paper, "golden": self.golden, "gateware": self.gateware, "state": self.state,
                "command": command}


_GOLDEN = "spikeloom.model.golden"
_TESTS = "python -m pytest tests/model/golden"


_GENERATE = 'spikeloom generate "ROMEO:" --temperature 0.7'


def _released(name, command):
    return {"model": name, "with_model": f"{command} --model {name} --device rtl"}


ROWS = (
    # Named systems: a released model where there is one, else a random network of their kind.
    Row("WD-Spikingformer", WTA, "config wd-spikingformer", "whole", changes={}, **_released("wd-spikingformer", _GENERATE)),
    Row("BiSpikCLM", BISPIKCLM, "config bispikclm", "whole", **_released("bispikclm", _GENERATE),
        changes={"layers": 2, "steps": 2, "neuron": "lif_subtract", "leak": 3, "attention": "sfsa", "residual": "spike_sum",
                 "embedding": "spikes", "spike_shift": 8}),
    Row("SpikeDecoder", SPIKEDECODER, "config spikedecoder", "whole", **_released("spikedecoder", _GENERATE),
        changes={**_LIF, "attention": "ssa", "head": "concatenate"}),
    Row("WE-Spikingformer, masked text", WTA, "config we-spikingformer", "whole",
        **_released("we-spikingformer", 'spikeloom fill "Come, my <mask>, let us go."'),
        changes={"layers": 1, "steps": 4, "neuron": "t_lif", "leak": 2, "bidirectional": True, "head": "concatenate"}),
    Row("WE-Spikingformer, classification", WTA, "config we-spikingformer-pairs", "whole",
        **_released("we-spikingformer-pairs", 'spikeloom classify "Shall I compare thee" "Slahl I cpmraoe tehe"'),
        changes={"layers": 1, "steps": 4, "neuron": "t_lif", "leak": 2, "bidirectional": True, "head": "concatenate", "classes": 2}),
    # Neurons.
    Row("LIF, tau 2, hard reset", f"{SPIKINGFORMER}, {SPIKEDECODER}", f"{_GOLDEN}.neurons", "state over T, leak by shift",
        changes=_LIF),
    Row("LIF, reset by the whole threshold after the leak", BISPIKCLM, f"{_GOLDEN}.neurons", "state over T, leak by shift",
        changes={**_STEPS, "neuron": "lif_subtract", "leak": 3}),
    Row("LIF, reset by subtraction before the leak", ASN, f"{_GOLDEN}.neurons", "state over T, leak by shift",
        changes={**_STEPS, "neuron": "lif_soft", "leak": 1}),
    Row("IF", ASN, f"{_GOLDEN}.neurons", "state over T", changes={**_STEPS, "neuron": "lif_soft"}),
    Row("NI-LIF 1x1", ASN, f"{_GOLDEN}.neurons", "comparators",
        changes=dict.fromkeys((f"level_{kind}" for kind in TENSORS), 1)),
    Row("NI-LIF 1x4", f"{ASN}, {WTA}", f"{_GOLDEN}.neurons", "comparators", changes={}),
    Row("NI-LIF 1x8", ASN, f"{_GOLDEN}.neurons", "comparators",
        changes=dict.fromkeys((f"level_{kind}" for kind in TENSORS), 8)),
    Row("I-LIF over T", ASN, f"{_GOLDEN}.neurons", "state over T, levels 0..D",
        changes={"layers": 1, "steps": 2, "neuron": "i_lif", "leak": 2}),
    Row("NASN", ASN, f"{_GOLDEN}.neurons", "its shift folded into the next biases", changes={},
        options={"position": "learned", "learned_shift": True}),
    Row("T-LIF", WTA, f"{_GOLDEN}.neurons", "plus and minus spikes, signed scores, state over T",
        changes={**_STEPS, "neuron": "t_lif", "leak": 2, "position_table": True}),
    # Attention.
    Row("CWSSA, hard", WTA, f"{_GOLDEN}.attention", "comparator tree, K = 1",
        changes={"top_k": 1, "rank_shifts": (0,), "recency": (15, 15)}),
    Row("CWSSA, top-K, equal weights", WTA, f"{_GOLDEN}.attention", "comparator tree, K = 3",
        changes={"rank_shifts": (0, 0, 0), "recency": (15, 15)}),
    Row("CWSSA, top-K, weights by rank", WTA, f"{_GOLDEN}.attention", "comparator tree, shifts by rank", changes={}),
    Row("WSSA, bidirectional", WTA, f"{_GOLDEN}.attention", "mask off, two sweeps per layer", changes={"bidirectional": True}),
    Row("CWSSA, sparsemax", WTA, f"{_GOLDEN}.attention",
        "none: its support needs a sort and two products per channel where top-K by rank is a list and a shift",
        state="golden only", command=f"{_TESTS} -k sparsemax"),
    Row("SFSA", BISPIKCLM, f"{_GOLDEN}.attention", "threshold per head", changes={"attention": "sfsa"}),
    Row("SSA, SMHA", f"{SPIKINGFORMER}, {SPIKEDECODER}", f"{_GOLDEN}.attention", "score times value by addition",
        changes={**_LIF, "attention": "ssa"}),
    Row("SSA, bidirectional", SPIKINGFORMER, f"{_GOLDEN}.attention", "score times value by addition",
        changes={"layers": 1, "steps": 4, "neuron": "lif_hard", "leak": 1, "attention": "ssa", "bidirectional": True}),
    Row("SSA in linear form", SPIKINGFORMER, f"{_GOLDEN}.attention",
        "none: the scan gives the same integers from the cache that is there (docs/architecture.md)", state="golden only",
        command=f"{_TESTS} -k linear"),
    # Blocks and residual.
    Row("SFFN and spike-sum residual", BISPIKCLM, f"{_GOLDEN}.transformer", "spikes added into the stream",
        changes={**_STEPS, "neuron": "lif_subtract", "leak": 3, "residual": "spike_sum", "embedding": "spikes",
                 "attention": "sfsa"}),
    Row("membrane shortcut, SpikeDecoder residual 0", f"{SPIKINGFORMER}, {SPIKEDECODER}", f"{_GOLDEN}.transformer",
        "16-bit stream", changes=_LIF),
    Row("SpikeDecoder residual 1", SPIKEDECODER, f"{_GOLDEN}.transformer", "stream replaced by its spikes before the MLP",
        changes={**_LIF, "residual": "mlp_spikes", "spike_shift": 4}),
    Row("SpikeDecoder residual 2", SPIKEDECODER, f"{_GOLDEN}.transformer", "stream replaced by its spikes before both blocks",
        changes={**_LIF, "residual": "all_spikes", "spike_shift": 4}),
    # Norms.
    Row("no norm", SPIKEDECODER, f"{_GOLDEN}.norms", "gain and offset folded into thresholds", changes={},
        options={"position": "learned", "norm": "none"}),
    Row("BatchNorm before neurons", f"{WTA}, {ASN}", f"{_GOLDEN}.norms", "folded into thresholds", changes={},
        options={"position": "learned"}),
    Row("BatchNorm after linears", f"{SPIKINGFORMER}, {SPIKEDECODER}", f"{_GOLDEN}.norms", "folded into thresholds, biases and weights",
        changes=_LIF, options={"position": "learned", "norm_at": "linears"}),
    Row("PowerNorm", SPIKEDECODER, f"{_GOLDEN}.norms", "folded into thresholds, biases and weights", changes=_LIF,
        options={"position": "learned", "norm": "power", "norm_at": "linears"}),
    Row("LayerNorm", SPIKEDECODER, f"{_GOLDEN}.norms", "none: depends on the data, refused by the exporter",
        state="golden only", command=f"{_TESTS} -k layer"),
    # Embeddings.
    Row("embedding as integer current", WTA, f"{_GOLDEN}.embeddings", "table rows added", changes={},
        options={"position": "learned"}),
    Row("token and position one-hot together", SPIKEDECODER, f"{_GOLDEN}.embeddings", "two table rows, compared with 0", preset="sim",
        changes={**_BITS, "vocabulary": 8, "context": 8, "width": 64, "heads": 4, "recency": (0, 1, 2, 3)},
        options={"token": "one_hot", "position": "one_hot", "join": "concatenate"}),
    Row("token and position two-hot", SPIKEDECODER, f"{_GOLDEN}.embeddings", "two table rows, compared with 0",
        changes={**_BITS, "vocabulary": 8, "context": 8}, options={"token": "two_hot", "position": "one_hot", "join": "concatenate"}),
    Row("token and position in binary code, concatenated", SPIKEDECODER, f"{_GOLDEN}.embeddings", "two table rows, compared with 0",
        changes=_BITS, options={"token": "binary", "position": "binary", "join": "concatenate", "position_width": 8}),
    Row("token learned, position linear, concatenated", SPIKEDECODER, f"{_GOLDEN}.embeddings", "two table rows, compared with 0",
        changes={**_BITS, "context": 8}, options={"token": "learned", "position": "one_hot", "join": "concatenate", "position_width": 8}),
    Row("token and position learned, concatenated", SPIKEDECODER, f"{_GOLDEN}.embeddings", "two table rows, compared with 0",
        changes=_BITS, options={"token": "learned", "position": "learned", "join": "concatenate", "position_width": 6}),
    Row("token learned, position static, summed and binarised", SPIKEDECODER, f"{_GOLDEN}.embeddings", "two table rows, compared with 0",
        changes=_BITS, options={"token": "learned", "position": "static"}),
    Row("embedding as a current through neurons", BISPIKCLM, f"{_GOLDEN}.embeddings", "table rows through a neuron over T",
        changes=_BITS, options={"position": "learned"}),
    # Heads.
    Row("head accumulate", f"{SPIKEDECODER}, {BISPIKCLM}", f"{_GOLDEN}.linears", "final spikes of all T, rows repeated", changes=_LIF),
    Row("head average", SPIKEDECODER, f"{_GOLDEN}.linears", "as accumulate, with another logit scale", changes={**_LIF, "head": "average"},
        options={"position": "learned"}),
    Row("head concatenate", SPIKEDECODER, f"{_GOLDEN}.linears", "rows of their own per time step",
        changes={**_LIF, "head": "concatenate"}),
    Row("head final", SPIKEDECODER, f"{_GOLDEN}.linears", "last time step",
        changes={**_LIF, "head": "final"}),
    # Degrees, training, account.
    Row("SpikeDecoder spike degrees 0-3", SPIKEDECODER, f"{_GOLDEN}.transformer",
        "none: they keep floating-point products", state="golden only", command=f"{_TESTS} -k degree"),
    Row("SpikeDecoder spike degree 4", SPIKEDECODER, f"{_GOLDEN}.transformer", "whole", **_released("spikedecoder", _GENERATE),
        changes={**_LIF, "attention": "ssa", "head": "concatenate"}),
    Row("SpAD: EA, SAA, SFA, STA, HTA", BISPIKCLM, "spikeloom.model.spad", "training only", state="golden only",
        command="python -m pytest tests/model/test_spad.py"),
    Row("energy account", f"{SPIKINGFORMER}, {WTA}, {BISPIKCLM}, {SPIKEDECODER}", "spikeloom.model.energy",
        "event, level, spike and winner counters", command="python -m pytest tests/model/test_energy.py"),
)


def find(name: str) -> Row:
    """The row of that name.

    Raises
    ------
    ValueError
        Names the rows that exist.
    """
    for row in ROWS:
        if row.name == name:
            return row
    raise ValueError(f"There is no system {name!r}; there are: {'; '.join(row.name for row in ROWS)}.")
