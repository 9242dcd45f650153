"""Measurements: each is made at most once in a run of `spikeloom bench`, however many figures it serves."""

import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

from spikeloom.arch.config import AcceleratorConfig, FitError
from spikeloom.arch.presets import TRIED, first_that_holds, preset
from spikeloom.arch.run_cycles import Token, encoding_report, token_steps
from spikeloom.arch.streamed_cycles import MemoryTiming
from spikeloom.driver.device import Device
from spikeloom.driver.text import Text
from spikeloom.model import corpus, store
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.tensors import neuron_levels

from ..machine import open_machine, verilog_of
from ..transport import Memory
from . import boards, ladder, layers, processor, sweep
from .shapes import program_of, rates_of
from .stories import POSITIONS, PROMPT, Bound, Tally, generate_checked, image_of, load_stories, score_stories

MODEL, MACHINE = "stories-260k", "sim"
#: The largest released model: its firing rates are those of larger shapes.
LARGEST = "stories-1m"
LATENCIES = (24, 64)
#: Where in a story the picture of a token is taken.
PICTURED = 64


@dataclass(frozen=True)
class Options:
    """How much is measured."""

    #: Stories scored and generated from, resident rows; those of dense mode and of streamed rows.
    stories: int = 6
    slow_stories: int = 2

    @classmethod
    def quick(cls) -> "Options":
        """A look, in a minute or two."""
        return cls(stories=1, slow_stories=1)


#: announce(what, steps) -> call after each step.
Announce = Callable[[str, int], Callable[[], None]]


def silent(what: str, steps: int) -> Callable[[], None]:
    """Tells nobody."""
    return lambda: None


class Measures:
    """The measurements of one run.

    Parameters
    ----------
    options : Options
    announce : callable
        Told of each measurement that begins, and how many steps it takes.
    """

    def __init__(self, options: Options = Options(), announce: Announce = silent):
        self.options, self.announce = options, announce
        self.machines = [preset(name) for name in TRIED]
        self._made: dict[tuple[str, str], object] = {}

    # -- what is measured -------------------------------------------------------------------------------------

    @property
    def cfg(self) -> AcceleratorConfig:
        """The machine of most figures."""
        return self.machines[0]

    def machine_of(self, name: str) -> AcceleratorConfig:
        """The first machine that holds a model; the first of all where none does."""
        return first_that_holds(self.stored(name).config, self.machines) or self.cfg

    def stored(self, name: str) -> store.StoredModel:
        """A released model."""
        return self._once("stored", name, lambda: store.load(store.find(name)))

    def _once(self, what, name, make):
        if (what, name) not in self._made:
            self._made[what, name] = make()
        return self._made[what, name]

    @cached_property
    def stories(self):
        """(texts as tokens, what they are) of the stories model."""
        return load_stories(self.options.stories, self.stored(MODEL))

    @property
    def machine_identity(self) -> dict:
        """What the figures of the gateware belong to."""
        return self._identity(self.cfg)

    def _identity(self, cfg):
        def make():
            text, _ = verilog_of(cfg)
            return {"preset": cfg.name, "fingerprint": f"{cfg.fingerprint:#010x}",
                    "verilog_sha256": hashlib.sha256(text.encode()).hexdigest()}
        return self._once("identity", cfg.name, make)

    def model_identity(self, name: str = MODEL) -> dict:
        """Which model a figure belongs to."""
        return {"model": name, "model_sha256": store.digest(store.find(name))}

    def of(self, name: str = MODEL) -> dict:
        """What a figure of a model on the gateware was measured on."""
        data = self.stories[1] if name == MODEL else load_stories(self.options.slow_stories, self.stored(name))[1]
        return self.model_identity(name) | {"machine": self._identity(self.machine_of(name)), "data": data}

    def _device(self, cfg, **options):
        return Device(open_machine(cfg, **options), cfg, deadline_s=600)

    # -- the stories model on the gateware ---------------------------------------------------------------------

    @cached_property
    def resident(self) -> tuple[Tally, Tally]:
        """(stories that dense mode reads too, all stories), resident rows."""
        return self._scored(MODEL)

    def _scored(self, name: str) -> tuple[Tally, Tally]:
        return self._once("scored", name, lambda: self._score(name))

    def _score(self, name):
        stored, few, cfg = self.stored(name), self.options.slow_stories, self.machine_of(name)
        stories = self.stories[0] if name == MODEL else load_stories(few, stored)[0]
        step, image = self.announce(f"{name}, resident rows", len(stories)), image_of(stored, cfg)
        with self._device(cfg) as device:
            device.load(image)
            model = IntegerModel(stored.config, stored.tensors)
            first = score_stories(device, image, model, stories[:few], advance=step)
            return first, first + score_stories(device, image, model, stories[few:], advance=step)

    def sparse(self, name: str) -> Tally:
        """A model on the stories that dense mode reads too."""
        return self._scored(name)[0]

    def dense(self, name: str = MODEL) -> Tally:
        """Dense mode: every row requested."""
        return self._once("dense", name, lambda: self._few_scored(name, dense=True))

    def from_dram(self, name: str, *, dense: bool = False, latency: int = LATENCIES[0]) -> Tally:
        """The same stories, all rows streamed over the machine's ports."""
        way = f"streamed, latency {latency}" + ", dense" * dense
        return self._once(way, name, lambda: self._few_scored(name, dense=dense, latency=latency))

    def _few_scored(self, name, *, dense, latency=None):
        stored, cfg = self.stored(name), self.machine_of(name)
        stories = load_stories(self.options.slow_stories, stored)[0]
        what = ", dense mode" * dense + f", streamed rows, latency {latency}" * (latency is not None)
        step, model = self.announce(name + what, len(stories)), IntegerModel(stored.config, stored.tensors)
        image = image_of(stored, cfg, "none" if latency is None else "all")
        with self._device(cfg, **({} if latency is None else {"memory": Memory(latency=latency)})) as device:
            device.load(image)
            return score_stories(device, image, model, stories, dense=dense, advance=step,
                                 timing=None if latency is None else MemoryTiming(latency=latency))

    @property
    def streamed(self) -> dict[int, Tally]:
        """The stories model, rows streamed over one port, by latency of the memory."""
        return {latency: self.from_dram(MODEL, latency=latency) for latency in LATENCIES}

    @cached_property
    def generation(self):
        """Greedy generations, every command's checksum compared."""
        stored, stories = self.stored(MODEL), self.stories[0]
        step, image = self.announce("generation, every checksum", len(stories)), image_of(stored, self.cfg)
        with self._device(self.cfg) as device:
            device.load(image)
            return generate_checked(device, IntegerModel(stored.config, stored.tensors), stories, step)

    @cached_property
    def speed(self) -> dict:
        """Text from the simulator: a device per core, each writing a story of its own; per processor second and by the clock."""
        stored, cores = self.stored(MODEL), 2
        step, image = self.announce("speed of the simulator", cores), image_of(stored, self.cfg)
        stories = load_stories(cores, stored)[0]
        ready = threading.Barrier(cores)

        def write(ids):
            with self._device(self.cfg) as device:
                device.load(image)
                device.clear_counters()
                ready.wait()
                wall, cpu = time.perf_counter(), time.thread_time()
                made = sum(1 for _ in device.generate(ids[:PROMPT], POSITIONS - PROMPT, ignore_end=True))
                wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
                step()
                return {"tokens": made, "read": PROMPT, "cycles": device.counters()["cycles"], "seconds": wall, "cpu_seconds": cpu}

        with ThreadPoolExecutor(cores) as pool:
            runs = list(pool.map(write, stories[:cores]))
        cycles, cpu = sum(run["cycles"] for run in runs), sum(run["cpu_seconds"] for run in runs)
        return {"cores": cores, "cycles_per_cpu_second": round(cycles / cpu),
                "tokens_per_second": round(sum(run["tokens"] / run["cpu_seconds"] for run in runs), 1),
                "tokens_per_second_by_the_clock": round(sum(run["tokens"] for run in runs) / max(run["seconds"] for run in runs), 1),
                "share_of_a_core_that_each_got": round(cpu / sum(run["seconds"] for run in runs), 2)}

    # -- all released models -----------------------------------------------------------------------------------

    @cached_property
    def released(self) -> dict[str, dict]:
        """Every released model that fits the machine with resident rows: cycles, bound and rows; or why it does not."""
        out = {}
        for name in store.available():
            config = self.stored(name).config
            try:
                tally = self._encoded(name) if config.bidirectional else self._scored(name)[1]
            except FitError as error:
                out[name] = {"left_out": str(error)}
                continue
            out[name] = {"preset": self.machine_of(name).name, "cycles_per_token": round(tally.cycles_per_token, 1),
                         "event_bound_per_token": round(tally.bound_per_token, 1),
                         "over_event_bound": tally.cycles / tally.bound, "over_machine_bound": tally.cycles / tally.adding,
                         "rows_silent": tally.silent,
                         "rows_skipped": tally.counters["rows_skipped"], "mismatches": tally.mismatches, "compared": tally.compared,
                         "cycles_counted": tally.counted, "cycles_predicted": tally.predicted}
        return out

    def _encoded(self, name: str) -> Tally:
        """An encoder: texts read whole. Q, K and V are commands of both sweeps of a layer."""
        stored, tally, cfg = self.stored(name), Tally(), self.machine_of(name)
        image, bound, config = image_of(stored, cfg), Bound(stored.config, stored.tensors, cfg), stored.config
        texts = self._texts(stored, self.options.slow_stories)
        step = self.announce(f"{name}, resident rows", len(texts))
        model = IntegerModel(config, stored.tensors)
        with self._device(cfg) as device:
            device.load(image)
            for ids in texts:
                device.clear_counters()
                device.encode(ids)
                counters, traces = device.counters(), model.encode(ids)
                report = encoding_report(cfg, image.program, traces, ids, entry=image.card["entries"]["token"])
                again = [f"layer{layer}.qkv" for layer in range(config.layers)]
                tally.positions += len(ids)
                tally.cycles += counters["cycles"]
                tally.counted += counters["cycles"]
                tally.predicted += report.cycles
                tally.label_adding["all"] += report.adding
                tally.counters.update(counters)
                read = {number: "logits" in trace for number, trace in enumerate(traces)}
                tally.bound += sum(bound.events(trace) + bound.events(trace, again) for trace in traces)
                spoke = sum(bound.spoke(trace) + bound.spoke(trace, again) for trace in traces)
                tally.spoke += spoke
                tally.silent += sum(bound.rows(head=read[number]) + bound.rows(names=again) for number in read) - spoke
                step()
        return tally

    def _texts(self, stored, count):
        text, room = Text(stored.tokenizer_json), stored.config.context
        held_out = corpus.load_default().held_out
        return [[stored.config.end_token, *text.encode(words)][:room] for words in held_out[:count]]

    # -- by the cycle model ------------------------------------------------------------------------------------

    @cached_property
    def tokens(self) -> list[Token]:
        """The first story, token by token, through the integer model."""
        stored = self.stored(MODEL)
        model = IntegerModel(stored.config, stored.tensors)
        return [Token(model.step(token, position), token, position) for position, token in enumerate(self.stories[0][0][:POSITIONS])]

    @cached_property
    def rates(self) -> dict[str, float]:
        """Firing rates of the largest model that was trained, by kind of neuron: of its first story."""
        stored = self.stored(LARGEST)
        model, (story, *_) = IntegerModel(stored.config, stored.tensors), load_stories(1, stored)[0]
        return rates_of(stored.config, (model.step(token, position) for position, token in enumerate(story[:POSITIONS])))

    @cached_property
    def ladder(self) -> dict[str, list[dict]]:
        """Every rung, with resident and with streamed rows; the story as a prompt."""
        stored = self.stored(MODEL)
        levels_of = ladder.reader_of_levels(neuron_levels(stored.config))
        single = {bits: replace(stored.config, weight_bits=bits) for bits in (8, 4)}
        out = {}
        step = self.announce("ladder, by the cycle model", 2)
        for streamed, tokens, memory in (("none", self.tokens, None), ("all", self.tokens[::8], MemoryTiming(latency=LATENCIES[0]))):
            images = {bits: program_of(config, self.cfg, streamed) for bits, config in single.items()}
            out["resident" if streamed == "none" else "streamed"] = ladder.climb(self.cfg, images, tokens, levels_of, memory)
            step()
        out["prompt"] = ladder.prompt(self.cfg, images[4], self.tokens, memory)
        return out

    @cached_property
    def picture(self) -> list[dict]:
        """Commands of one token: label, start, cycles, cycles in which rows are added."""
        image, at, out = image_of(self.stored(MODEL), self.cfg), 0, []
        for step in token_steps(self.cfg, image.program, self.tokens[PICTURED], entry=image.card["entries"]["token"]):
            out.append({"label": step.command.label, "start": at, "cycles": step.cycles, "adding": step.adding})
            at += step.cycles
        return out

    def board(self, shape: str) -> dict:
        """Tokens per second of a large shape on its board."""
        return self._once("board", shape, lambda: boards.speed(self._board(shape), self.rates))

    @staticmethod
    def _board(shape):
        return next(board for board in boards.BOARDS if board.shape.name == shape)

    @cached_property
    def prefill(self) -> dict:
        """Reading a prompt against writing, of the shape for a PYNQ-Z2."""
        return boards.prefill(boards.BOARDS[0], self.rates)

    # -- random networks on the gateware -----------------------------------------------------------------------

    @cached_property
    def sweep(self) -> list[dict]:
        """Cycles at forced firing rates."""
        step = self.announce("forced firing rates", len(sweep.RATES))
        with self._device(self.cfg) as device:
            return sweep.run(device, self.cfg, advance=step)

    @cached_property
    def formats(self) -> list[dict]:
        """Bytes and cycles of one network in three weight formats, streamed."""
        step = self.announce("weight formats", 3)
        with self._device(self.cfg, memory=Memory(latency=LATENCIES[0])) as device:
            return sweep.formats(device, self.cfg, MemoryTiming(latency=LATENCIES[0]), advance=step)

    def layer(self, shape: str) -> dict:
        """A layer of one shape on its board's machine."""
        return self._once("layer", shape, lambda: self._layer(self._board(shape)))

    def _layer(self, board):
        cfg = boards.machine(board, layers.one_layer(board.shape))
        step = self.announce(f"a layer of {board.shape.name} on {cfg.cols} columns", 1)
        limits = {"latency": boards.LATENCY, "outstanding": boards.OUTSTANDING}
        with self._device(cfg, memory=Memory(**limits)) as device:
            out = layers.measure(device, cfg, board.shape, self.rates, memory=MemoryTiming(**limits))
        step()
        return out

    # -- a processor -------------------------------------------------------------------------------------------

    @cached_property
    def processor(self) -> dict:
        """The plain C loop on the stories model, and whether it says the same."""
        stored, (ids, *_), step = self.stored(MODEL), self.stories[0], self.announce("plain C loop", 1)
        loop = processor.PlainLoop(stored.config, stored.tensors)
        compared, differ = processor.differences(loop, IntegerModel(stored.config, stored.tensors), ids[:POSITIONS])
        out = processor.baseline(loop, ids[:POSITIONS]) | {"compared": compared, "differ": differ}
        step()
        return out
