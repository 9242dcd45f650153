"""Seeded random networks for comparing the Verilated machines with the integer model."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from spikeloom.arch.config import RECENCY_OFF, AcceleratorConfig, ModelConfig
from spikeloom.arch.layout import Image, read_image, write_image
from spikeloom.arch.numerics import noise_table, pick
from spikeloom.arch.presets import preset
from spikeloom.compiler.image import compile_model
from spikeloom.driver.device import Device
from spikeloom.driver.verify import Report, verify
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import random_model

NEW_TOKENS = 32
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

    @property
    def prompt(self) -> list[int]:
        """Token ids."""
        # The last token made needs no position.
        length = min(1 + self.seed % 5, self.model.context - NEW_TOKENS + 1)
        return [(self.seed * 7 + 3 * i) % self.model.vocabulary for i in range(length)]

    @property
    def n_new(self) -> int:
        """Tokens to generate."""
        return NEW_TOKENS

    def network(self) -> tuple[ModelConfig, dict[str, np.ndarray]]:
        """Config and tensors: the first draw that neither falls silent, nor shouts, nor repeats itself."""
        for attempt in range(20):
            try:
                config, tensors = random_model(self.seed + 1000 * attempt, self.model, **self.options)
            except RuntimeError:
                continue
            counts, said = self._listen(IntegerModel(config, tensors))
            if 0.05 <= counts["fired"] / counts["neurons"] <= 0.60 and len(set(said)) >= 4:
                return config, tensors
        raise RuntimeError(f"No draw of {self} is fit for a comparison.")

    def image(self, network: tuple[ModelConfig, dict[str, np.ndarray]]) -> Image:
        """The network compiled for the machine, through its bytes."""
        return read_image(write_image(compile_model(*network, self.machine, logit_scale=LOGIT_SCALE, streamed=self.streamed)))

    def compare(self, device: Device, image: Image, reference: IntegerModel) -> Report:
        """Run the case on a device, and compare every token and every command's checksum."""
        device.load(image)
        device.clear_counters()
        return verify(device, reference, self.prompt, self.n_new, temperature=self.temperature, top_k=self.top_k, seed=self.seed,
                      dense=self.dense)

    def _listen(self, model: IntegerModel):
        sampling = {}
        if self.temperature:
            sampling = {"noise": noise_table(self.temperature, LOGIT_SCALE), "top_k": self.top_k, "seed": self.seed}
        counts, said = Counter(), []
        for position in range(len(self.prompt) + self.n_new - 1):
            head = position >= len(self.prompt) - 1
            trace = model.step((self.prompt + said)[position], position, head=head)
            counts.update(trace.counters)
            if head:
                said.append(pick(trace["logits"], position=position, **sampling))
        return counts, said

    def __str__(self) -> str:
        m = self.model
        return (f"{self.machine.name}-{self.seed}-{m.layers}x{m.width}h{m.heads}f{m.hidden}k{m.top_k}b{m.weight_bits}"
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
    level = [int(rng.integers(1, machine.level_max + 1)) for _ in range(6)]
    return ModelConfig(
        name=f"random{seed}", vocabulary=int(rng.integers(20, min(machine.max_vocabulary, 300))),
        context=int(rng.integers(min(longest, 40), longest + 1)) if longest > 40 else longest, width=width, layers=layers, heads=head_count,
        hidden=machine.lanes * int(rng.integers(1, min(16, machine.max_neurons // machine.lanes) + 1)),
        level_in=level[0], level_v=level[1], level_attn=level[2], level_mid=level[3], level_hidden=level[4], level_final=level[5],
        top_k=top_k, rank_shifts=tuple(range(top_k)) if rising else (0,) * top_k,
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
