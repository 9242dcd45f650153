"""Seeded random networks for comparing the Verilated machines with the integer model."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from spikeloom.arch.config import RECENCY_OFF, TENSORS, AcceleratorConfig, ModelConfig
from spikeloom.arch.layout import Image, read_image, write_image
from spikeloom.arch.numerics import noise_table, pick
from spikeloom.arch.presets import preset
from spikeloom.compiler.image import compile_model
from spikeloom.driver.device import Device
from spikeloom.driver.verify import Report, verify, verify_encoding
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import random_model

from .random_systems import SYSTEMS, draw_system

#: Tokens that a decoder makes, those of a system with time steps, and texts that an encoder reads.
NEW_TOKENS, NEW_TOKENS_OF_SYSTEMS, TEXTS = 32, 12, 3
#: Units of a logit per nat that sampled cases assume.
LOGIT_SCALE = 60.0


class Counting(IntegerModel):
    """An integer model that keeps the sum of its counters."""

    def clear(self):
        super().clear()
        self.counts = getattr(self, "counts", Counter())

    def step(self, *args, **kwargs):
        trace = super().step(*args, **kwargs)
        self.counts.update(trace.counters)
        return trace

    def encode(self, tokens):
        traces = super().encode(tokens)
        for trace in traces:
            self.counts.update(trace.counters)
        return traces


@dataclass(frozen=True)
class Case:
    """One random network on one machine, and how it is run."""

    seed: int
    machine: AcceleratorConfig
    model: ModelConfig
    #: Options of `random_model`.
    options: dict = field(default_factory=dict)
    streamed: object = "auto"
    dense: bool = False
    temperature: float = 0.0
    top_k: int = 0
    #: Chance of a stall on every channel of every bus.
    stall: float = 0.0
    #: One of `random_systems.SYSTEMS`.
    system: str = "WD-Spikingformer"
    #: Tokens that a decoder makes.
    new_tokens: int = NEW_TOKENS

    @property
    def n_new(self) -> int:
        """Tokens to generate; encoders make none."""
        return 0 if self.model.bidirectional else min(self.new_tokens, self.model.context)

    @property
    def loudest(self) -> float:
        """Most neurons that may speak; with levels of both signs only one step in between is silent."""
        return 0.9 if self.model.signed else 0.6

    @property
    def prompt(self) -> list[int]:
        """Token ids."""
        # The last token made needs no position.
        length = min(1 + self.seed % 5, self.model.context - self.n_new + 1)
        return [(self.seed * 7 + 3 * i) % self.model.vocabulary for i in range(length)]

    @property
    def texts(self) -> list[list[int]]:
        """Token ids of what an encoder reads: a whole context, one token, and something between."""
        rng, m = np.random.default_rng(self.seed), self.model
        lengths = [m.context, 1, int(rng.integers(2, m.context + 1))][:TEXTS]
        return [rng.integers(m.vocabulary, size=length).tolist() for length in lengths]

    def network(self) -> tuple[ModelConfig, dict[str, np.ndarray]]:
        """Config and tensors: the first draw that neither falls silent, nor shouts, nor repeats itself."""
        for attempt in range(20):
            try:
                config, tensors = random_model(self.seed + 1000 * attempt, self.model, **self.options)
            except RuntimeError:
                continue
            counts, said = self._listen(Counting(config, tensors))
            if 0.05 <= counts["fired"] / counts["neurons"] <= self.loudest and len(set(said)) >= min(4, config.outputs):
                return config, tensors
        raise RuntimeError(f"No draw of {self} is fit for a comparison.")

    def image(self, network: tuple[ModelConfig, dict[str, np.ndarray]]) -> Image:
        """The network compiled for the machine, through its bytes."""
        return read_image(write_image(compile_model(*network, self.machine, logit_scale=LOGIT_SCALE, streamed=self.streamed)))

    def compare(self, device: Device, image: Image, reference: IntegerModel) -> Report:
        """Run the case on a device, and compare every token and every command's checksum."""
        device.load(image)
        device.clear_counters()
        if self.model.bidirectional:
            whole = Report()
            for text in self.texts:
                whole.add(verify_encoding(device, reference, text, dense=self.dense))
            return whole
        return verify(device, reference, self.prompt, self.n_new, temperature=self.temperature, top_k=self.top_k, seed=self.seed,
                      dense=self.dense)

    def _listen(self, model: "Counting"):
        model.clear()
        if self.model.bidirectional:
            said = [pick(trace["logits"]) for text in self.texts for trace in model.encode(text) if "logits" in trace]
            # Of a classifier three texts tell too little.
            return model.counts, said if not self.model.classes else range(self.model.outputs)
        sampling = {}
        if self.temperature:
            sampling = {"noise": noise_table(self.temperature, LOGIT_SCALE), "top_k": self.top_k, "seed": self.seed}
        said = []
        for position in range(len(self.prompt) + self.n_new - 1):
            head = position >= len(self.prompt) - 1
            trace = model.step((self.prompt + said)[position], position, head=head)
            if head:
                said.append(pick(trace["logits"], position=position, **sampling))
        return model.counts, said

    def __str__(self) -> str:
        m = self.model
        system = "" if self.system == "WD-Spikingformer" else f"{self.system.replace(', ', '-').replace(' ', '-')}-{m.neuron}-T{m.steps}-"
        return (f"{self.machine.name}-{self.seed}-{system}{m.layers}x{m.width}h{m.heads}f{m.hidden}k{m.top_k}b{m.weight_bits}"
                f"-{'some' if isinstance(self.streamed, frozenset) else self.streamed}")


def _draw_model(rng, machine: AcceleratorConfig, seed: int) -> ModelConfig:
    """A network that fits the machine."""
    while True:
        width = int(rng.choice(range(machine.lanes, machine.max_width + 1, machine.lanes)))
        heads = [width // (machine.segment << level) for level in range(machine.head_levels)
                 if width % (machine.segment << level) == 0 and width >= machine.segment << level]
        if heads:
            break
    head_count = int(rng.choice(heads))
    layers = int(rng.integers(1, 4))
    longest = min(machine.max_context, machine.kv_positions // layers)
    top_k = int(rng.integers(1, machine.k_max + 1))
    rising = bool(rng.integers(2))
    levels = {f"level_{kind}": int(rng.integers(1, machine.level_max + 1)) for kind in TENSORS}
    return ModelConfig(
        name=f"random{seed}", vocabulary=int(rng.integers(20, min(machine.max_vocabulary, 300))),
        context=int(rng.integers(min(longest, 40), longest + 1)) if longest > 40 else longest, width=width, layers=layers, heads=head_count,
        hidden=machine.lanes * int(rng.integers(1, min(16, machine.max_neurons // machine.lanes) + 1)),
        **levels, top_k=top_k, rank_shifts=tuple(range(top_k)) if rising else (0,) * top_k,
        recency=tuple(int(k) for k in rng.choice([0, 1, 2, 4, 6, RECENCY_OFF], head_count)),
        weight_bits=int(rng.choice([8, 8, 4, 2])), embed_shift=int(rng.integers(0, 5)), position_table=bool(rng.integers(2)))


def _draw_streamed(rng, model: ModelConfig):
    names = ["embed", "head"] + [f"layer{i}.{m}" for i in range(model.layers) for m in ("qkv", "out", "up", "down")]
    kind = rng.integers(3)
    if kind == 2:
        return frozenset(n for n in names if rng.integers(2)) or "all"
    return ("auto", "all")[kind]


def cases(count: int = 24, seed: int = 2026) -> list[Case]:
    """The same `count` cases for the same seed: two machines in turn, every option taken by some."""
    out = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        machine = preset(("tiny", "sim")[number % 2])
        model = _draw_model(rng, machine, number)
        options = {"saturate": number % 6 == 3, "tie": number % 4 == 1, "equal_ranks": number % 8 == 2, "overlap": number % 4 == 2}
        sampled = number % 5 == 4
        out.append(Case(number, machine, model, options, _draw_streamed(rng, model), dense=number % 7 == 5,
                        temperature=0.7 if sampled else 0.0, top_k=int(rng.integers(0, 9)) if sampled else 0,
                        stall=0.3 if number % 3 == 0 else 0.0))
    return out


def system_cases(each: int = 2, seed: int = 2027) -> list[Case]:
    """`each` networks of every system, on the small machine."""
    out, machine = [], preset("tiny")
    for number, system in enumerate(list(SYSTEMS) * each):
        rng = np.random.default_rng([seed, number])
        model = draw_system(rng, machine, system, number)
        options = {"saturate": number % 9 == 3, "tie": number % 7 == 1}
        sampled = number % 5 == 4 and not model.bidirectional
        out.append(Case(number, machine, model, options, _draw_streamed(rng, model), dense=number % 7 == 5,
                        temperature=0.7 if sampled else 0.0, top_k=int(rng.integers(0, 9)) if sampled else 0,
                        stall=0.3 if number % 3 == 0 else 0.0, system=system, new_tokens=NEW_TOKENS_OF_SYSTEMS))
    return out
