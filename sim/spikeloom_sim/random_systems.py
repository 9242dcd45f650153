"""The systems of the papers as draws: for each, random options of a network that belongs to it."""

from collections.abc import Callable
from dataclasses import replace

from spikeloom.arch.config import HEADS, LEAK_OFF, NEURONS, RECENCY_OFF, RESIDUALS, TENSORS, AcceleratorConfig, ModelConfig

#: Neurons with a membrane, and so with time steps.
STATEFUL = NEURONS[1:]


def _steps(rng, least=2):
    return int(rng.integers(least, 5))


def _leak(rng):
    return int(rng.choice([1, 2, 3, 5, LEAK_OFF]))


def _bispikclm(rng):
    return {"neuron": "lif_subtract", "steps": _steps(rng), "leak": _leak(rng), "attention": "sfsa", "residual": "spike_sum",
            "embedding": "spikes", "spike_shift": int(rng.integers(0, 4)), "head": str(rng.choice(["accumulate", "average"]))}


def _spikedecoder(residual):
    def draw(rng):
        return {"neuron": "lif_hard", "steps": _steps(rng), "leak": 1, "attention": "ssa", "residual": residual,
                "spike_shift": int(rng.integers(1, 5)), "embedding": str(rng.choice(["current", "spikes"])), "head": str(rng.choice(HEADS))}
    return draw


def _encoder(**changes):
    def draw(rng):
        return {"neuron": "t_lif", "steps": _steps(rng), "leak": _leak(rng), "bidirectional": True, "head": str(rng.choice(HEADS)),
                "overlap": bool(rng.integers(2)), **changes}
    return draw


def _asn(neuron):
    def draw(rng):
        return {"neuron": neuron, "steps": _steps(rng), "leak": _leak(rng), "overlap": bool(rng.integers(2)),
                "head": str(rng.choice(HEADS))}
    return draw


def _signed(**changes):
    def draw(rng):
        kinds = ("in", *(kind for kind in TENSORS[1:] if rng.integers(4)))
        levels = {f"level_{kind}": int(rng.integers(2, 9)) for kind in kinds}
        return {"signed": kinds, **levels, "overlap": bool(rng.integers(2)), **changes}
    return draw


def _anything(rng):
    """Options of any papers, as far as they go together."""
    neuron, both_ways = str(rng.choice(STATEFUL)), bool(rng.integers(2))
    residuals = [name for name, (replaces_in, *_) in RESIDUALS.items() if not (both_ways and replaces_in)]
    return {"neuron": neuron, "steps": _steps(rng, 1), "leak": _leak(rng), "bidirectional": both_ways,
            "attention": str(rng.choice(["wta", "sfsa"] if neuron == "i_lif" else ["wta", "sfsa", "ssa"])),
            "residual": str(rng.choice(residuals)), "spike_shift": int(rng.integers(0, 5)), "head": str(rng.choice(HEADS)),
            "embedding": str(rng.choice(["current", "spikes"])), "classes": int(rng.integers(2, 6)) if both_ways and rng.integers(2) else 0}


#: Name of a system -> options of `ModelConfig`, drawn.
SYSTEMS: dict[str, Callable] = {
    "WD-Spikingformer": lambda rng: {},
    "BiSpikCLM": _bispikclm,
    "SpikeDecoder, residual 0": _spikedecoder("membrane"),
    "SpikeDecoder, residual 1": _spikedecoder("mlp_spikes"),
    "SpikeDecoder, residual 2": _spikedecoder("all_spikes"),
    "WE-Spikingformer, masked text": _encoder(),
    "WE-Spikingformer, classification": _encoder(classes=3),
    "encoder of NI-LIF": _encoder(neuron="ni_lif", steps=1),
    "encoder with SSA": _encoder(neuron="lif_hard", attention="ssa"),
    "encoder with SFSA": _encoder(neuron="lif_soft", attention="sfsa", residual="spike_sum"),
    "LIF, soft reset": _asn("lif_soft"),
    "T-LIF decoder": _asn("t_lif"),
    "I-LIF": _asn("i_lif"),
    "NI-LIF with SFSA": lambda rng: {"attention": "sfsa"},
    "NI-LIF with SSA": lambda rng: {"attention": "ssa", "level_v": 1},
    "mixed": _anything,
    "levels of both signs": _signed(),
    "levels of both signs with SFSA": _signed(attention="sfsa"),
    "encoder with levels of both signs": _signed(bidirectional=True),
}


def draw_system(rng, machine: AcceleratorConfig, system: str, seed: int) -> ModelConfig:
    """A network of a system that fits the machine: short texts, so that every time step has its keys and values."""
    changes = SYSTEMS[system](rng)
    steps, layers = changes.get("steps", 1), int(rng.integers(1, 3))
    positions = machine.kv_positions // (layers * steps) // machine.score_banks * machine.score_banks
    if changes.get("bidirectional"):
        positions = min(positions, machine.residual_slots // steps)
    head_steps = 1 if changes.get("head") == "final" else steps
    widest = min(machine.max_width, machine.max_neurons // max(3, head_steps) // machine.lanes * machine.lanes)
    unit = max(machine.lanes, machine.segment)
    # Narrower ones have too little to say.
    width = int(rng.choice([w for w in range(unit, widest + 1, unit) if 2 * w >= widest]))
    heads = [width // (machine.segment << level) for level in range(machine.head_levels) if width % (machine.segment << level) == 0]
    head_count = int(rng.choice(heads))
    top_k = int(rng.integers(1, machine.k_max + 1))
    levels = {f"level_{kind}": int(rng.integers(1, machine.level_max + 1)) for kind in TENSORS}
    base = ModelConfig(
        name=f"system{seed}", vocabulary=int(rng.integers(20, min(machine.max_vocabulary, 60) + 1)),
        context=min(machine.max_context, positions, int(rng.integers(12, 25))), width=width, layers=layers, heads=head_count,
        hidden=machine.lanes * int(rng.integers(1, min(8, machine.max_neurons // machine.lanes) + 1)), top_k=top_k,
        rank_shifts=tuple(range(top_k)) if rng.integers(2) else (0,) * top_k,
        recency=tuple(int(k) for k in rng.choice([0, 1, 2, 4, RECENCY_OFF], head_count)), weight_bits=int(rng.choice([8, 8, 4, 2])),
        embed_shift=int(rng.integers(0, 5)), position_table=bool(rng.integers(2)), **levels)
    return replace(base, **changes)
