"""A released model on held-out stories, on the Verilated machine: cycles, bytes, and that nothing differs.

Protocol. Each story is scored token by token (teacher forced, begun by the end token) over positions 0 to 127, with the
logits of every position, on one machine. The device's own counters tell the cycles; the cycle model must predict each run to
the cycle, and takes off the one further token that scoring 128 positions needs. The bound is counted from the spikes of the
integer model alone. Every score is compared with the integer model, and so is every command's checksum of a greedy
generation from the first words of each story.
"""

import hashlib
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from spikeloom.arch.config import AcceleratorConfig, ModelConfig
from spikeloom.arch.cycles import TOKEN_OVERHEAD, run_end_cycles
from spikeloom.arch.layout import Image, read_image, tiles_for, write_image
from spikeloom.arch.numerics import pick
from spikeloom.arch.run_cycles import Token, token_steps
from spikeloom.arch.streamed_cycles import MemoryTiming
from spikeloom.compiler.image import compile_model
from spikeloom.driver.device import Device
from spikeloom.driver.errors import PromptError
from spikeloom.driver.text import Text
from spikeloom.driver.verify import Report, verify
from spikeloom.model import corpus, store
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.tensors import head_rows, input_levels
from spikeloom.model.text_sources import PIECE

POSITIONS = 128
#: Tokens of a story that a generation goes on from.
PROMPT = 16


@dataclass
class Tally:
    """Sums over the stories of one way to run."""

    positions: int = 0
    #: Of the positions asked for; and of whole runs, counted and predicted.
    cycles: int = 0
    counted: int = 0
    predicted: int = 0
    mismatches: int = 0
    compared: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    counters: Counter = field(default_factory=Counter)
    #: By label of the command, over the positions asked for.
    label_cycles: Counter = field(default_factory=Counter)
    label_adding: Counter = field(default_factory=Counter)
    row_bytes: int = 0
    #: Of the integer model: rows that spoke, rows that did not, and rows that spoke times column tiles; over whole runs and
    #: over the positions asked for.
    spoke: int = 0
    silent: int = 0
    bound: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(**{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__})

    @property
    def cycles_per_token(self) -> float:
        """Mean over the positions asked for."""
        return self.cycles / max(1, self.positions)

    @property
    def bound_per_token(self) -> float:
        """Event bound, mean over the positions asked for."""
        return self.bound / max(1, self.positions)

    @property
    def adding(self) -> int:
        """Cycles in which the engine adds the rows asked for, over the positions asked for: the bound of this machine."""
        return sum(self.label_adding.values())

    @property
    def bytes_per_token(self) -> float:
        """Bytes of weight rows, mean over the positions asked for."""
        return self.row_bytes / max(1, self.positions)

    def summary(self) -> dict:
        """Means per token and what was compared."""
        return {
            "positions": self.positions, "cycles_per_token": round(self.cycles_per_token, 1),
            "event_bound_per_token": round(self.bound_per_token, 1), "adding_per_token": round(self.adding / max(1, self.positions), 1),
            "bytes_per_token": round(self.bytes_per_token, 1),
            "rows_wanted": self.counters["rows_wanted"], "rows_skipped": self.counters["rows_skipped"],
            "rows_silent": self.silent, "cycles_counted": self.counted, "cycles_predicted": self.predicted,
            "compared": self.compared, "mismatches": self.mismatches,
            "cycles_by_label": {label: round(cycles / max(1, self.positions), 2) for label, cycles in self.label_cycles.items()},
            "adding_by_label": {label: round(adding / max(1, self.positions), 2) for label, adding in self.label_adding.items()},
        }


class Bound:
    """What the spikes of a model ask of a machine, counted from the integer model's traces and from nothing else.

    Parameters
    ----------
    config, tensors
        The model.
    cfg : AcceleratorConfig
        Its columns make the tiles.
    """

    def __init__(self, config: ModelConfig, tensors: dict[str, np.ndarray], cfg: AcceleratorConfig):
        self._inputs, self._tiles = {}, {}
        for name in input_levels(config):
            weights = tensors[f"{name}.weight"]
            rows, outputs = (head_rows(config, weights) if name == "head" else weights).shape
            self._inputs[name], self._tiles[name] = rows, tiles_for(outputs, config.weight_bits, cfg)
        self._steps = {name: config.steps if name != "head" else 1 for name in self._inputs}

    def events(self, trace, names=None) -> int:
        """Rows that spoke times column tiles, over the commands of a token (embedding, neurons and attention are not in it)."""
        return sum(int(trace.counters[f"events.{name}"]) * self._tiles[name] for name in names or self._tiles)

    def spoke(self, trace, names=None) -> int:
        """Rows that spoke."""
        return sum(int(trace.counters[f"events.{name}"]) for name in names or self._tiles)

    def rows(self, names=None, *, head: bool = True) -> int:
        """Rows of a token."""
        return sum(self._inputs[name] * self._steps[name] for name in names or self._tiles if head or name != "head")

    def dense(self) -> int:
        """The same as `events`, if every row were asked for."""
        return sum(rows * self._steps[name] * self._tiles[name] for name, rows in self._inputs.items())


def score_stories(device: Device, image: Image, model: IntegerModel, stories: list[list[int]], *, dense: bool = False,
                  timing: MemoryTiming | None = None, advance=lambda: None) -> Tally:
    """Score each story on the device, compare with the integer model, and predict its cycles."""
    tally, bound = Tally(), Bound(model.config, model.tensors, device.cfg)
    for ids in stories:
        device.clear()
        device.clear_counters()
        wall, cpu = time.perf_counter(), time.process_time()
        scores = device.score(ids, dense=dense)
        tally.seconds += time.perf_counter() - wall
        tally.cpu_seconds += time.process_time() - cpu
        counters = device.counters()
        tally.counted += counters["cycles"]
        tally.counters.update(counters)
        rest = _follow(device.cfg, image, model, bound, ids, scores, tally, dense, timing)
        tally.cycles += counters["cycles"] - rest
        tally.positions += len(ids) - 1
        advance()
    return tally


def _follow(cfg, image, model, bound, ids, scores, tally, dense, timing):
    """Compare and predict one story; returns the cycles that belong to no position asked for."""
    entry, last = image.card["entries"]["token"], len(ids) - 1
    model.clear()
    for position, token in enumerate(ids):
        head = position < last
        trace = model.step(token, position, head=head)
        spoke = bound.spoke(trace)
        tally.spoke += spoke
        tally.silent += bound.rows(head=head) - spoke
        steps = token_steps(cfg, image.program, Token(trace, token, position, head), entry=entry, dense=dense, memory=timing)
        cycles = TOKEN_OVERHEAD + sum(step.cycles for step in steps)
        tally.predicted += cycles
        if not head:
            rest = cycles + run_end_cycles(cfg, scoring=True)
            tally.predicted += rest - cycles
            return rest
        tally.bound += bound.dense() if dense else bound.events(trace)
        logits, score = trace["logits"], scores[position]
        best, target = pick(logits), ids[position + 1]
        tally.compared += 1
        tally.mismatches += (score.target, score.logit, score.best, score.best_logit) != (
            target, int(logits[target]), best, int(logits[best]))
        tally.label_cycles["sequencer"] += TOKEN_OVERHEAD
        for step in steps:
            tally.label_cycles[step.command.label] += step.cycles
            tally.label_adding[step.command.label] += step.adding
            tally.row_bytes += step.row_bytes
    raise AssertionError("a story has at least one token")


def generate_checked(device: Device, model: IntegerModel, stories: list[list[int]], advance=lambda: None) -> Report:
    """Go on greedily from the first words of each story, with a checksum of every command; compare all of it."""
    result = Report()
    for ids in stories:
        result.add(verify(device, model, ids[:PROMPT], POSITIONS - PROMPT))
        advance()
    return result


def load_stories(count: int, model: store.StoredModel) -> tuple[list[list[int]], dict]:
    """Held-out texts of the model's corpus that are long enough, as tokens begun by the end token, and what they are.

    A corpus that holds out one long text gives that text's pieces.
    """
    split = corpus.corpus_of(model.config.name)
    text, positions = Text(model.tokenizer_json), min(POSITIONS, model.config.context - 1)
    found, texts = [], split.held_out
    if len(texts) == 1:
        texts = [texts[0][at:at + PIECE] for at in range(0, len(texts[0]), PIECE)]
    for number, story in enumerate(texts):
        if len(found) == count:
            break
        try:
            ids = [model.config.end_token, *text.encode(story)]
        except PromptError:  # of another corpus, with characters that this model does not know
            continue
        if len(ids) > positions:
            found.append((number, ids[:positions + 1]))
    return [ids for _, ids in found], {
        "name": split.name, "part": "held out",
        "sha256_of_texts_joined_by_nul": hashlib.sha256("\0".join(split.held_out).encode()).hexdigest(),
        "stories": [number for number, _ in found], "positions": f"0..{positions - 1}", "tokens": "teacher forced"}


def image_of(model: store.StoredModel, cfg: AcceleratorConfig, streamed="none") -> Image:
    """The image of a model, as a file would hold it."""
    return read_image(write_image(compile_model(model.config, model.tensors, cfg, logit_scale=model.logit_scale, streamed=streamed)))
