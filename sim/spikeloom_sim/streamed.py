"""Measures streamed rows on the Verilated machine `d288`, over one and two ports in front of a DRAM, as `results/streamed.json`.

Protocol. A network of the shape `d288` with random int4 weights, all of its rows in memory, reads two tokens and writes
two, sparse and dense. The memory is `arch.dram.Dram` (page misses, refresh, jitter) behind 40 cycles of latency, with eight
bursts outstanding per port, as a Zynq-7000 allows; sparse also behind 100 cycles, with sixteen bursts, as the machine's own
readers allow, and with eight, which are too few for that latency. Every token and every command's checksum are compared with the integer
model; bounds come from the integer model's spikes; the cycle model must predict each run to 2%. A command is one stretch of
outstanding reads, which the measurement checks; `stream_peak_fraction` is the bytes that came per cycle from the first to
the last beat of each stretch, over what the ports could carry.

`prefill_2_ports` reads a prompt of 128 tokens in blocks of 16 on the same machine and compares every token and every command's
checksum with the integer model, which knows nothing of blocks; its time is that up to the first token written, and the decoding
it is set against is that of `sparse_2_ports`.

    python -m spikeloom_sim.streamed
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from spikeloom.arch.commands import Opcode
from spikeloom.arch.config import AcceleratorConfig
from spikeloom.arch.dram import Dram
from spikeloom.arch.layout import Image, read_image, write_image
from spikeloom.arch.presets import SHAPES, preset
from spikeloom.arch.run_cycles import RunReport, Token, run_report
from spikeloom.arch.streamed_cycles import MemoryTiming
from spikeloom.arch.sweeps import Prefill, sweeps
from spikeloom.compiler.image import compile_model
from spikeloom.driver.device import Device
from spikeloom.driver.verify import verify
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import random_model

from .machine import open_machine
from .transport import Memory
from .versions import versions

EVIDENCE = "[sim]"
PROMPT, NEW_TOKENS, SEED = [1, 2], 2, 1
#: Tokens of the prompt that is read in blocks, and of a block.
LONG_PROMPT, BLOCK = 128, 16
#: What a Zynq-7000's memory port adds to the DRAM, and the reads that it has open.
LATENCY, OUTSTANDING = 40, 8
#: A slower memory, and the reads that the machine's readers have open where the memory allows it.
FAR, MANY = 100, 16
#: What is added to the names of runs behind it -> reads open.
SLOWER = {f"_{FAR}_cycles": MANY, f"_{FAR}_cycles_{OUTSTANDING}_reads": OUTSTANDING}


def machine_of(ports: int, name: str = "d288") -> AcceleratorConfig:
    """The machine with so many memory ports."""
    cfg = preset(name)
    return cfg if ports == cfg.ports else replace(cfg, name=f"{name}_{ports}", ports=ports)


class Bench:
    """A random network of a shape with all rows in memory, and the machines that run it.

    Parameters
    ----------
    shape : str
        Of `arch.presets.SHAPES`.
    machine : str
        Preset.
    seed : int
        Of network and memory.
    """

    def __init__(self, shape: str = "d288", machine: str = "d288", seed: int = SEED):
        self.machine, self.seed = machine, seed
        self.config, self.tensors = random_model(seed, SHAPES[shape])

    def image(self, cfg: AcceleratorConfig) -> Image:
        """The network for a machine."""
        return read_image(write_image(compile_model(self.config, self.tensors, cfg, logit_scale=50.0, streamed="all", prefill_block=BLOCK)))

    def measure(self, ports: int, *, dense: bool = False, dram: Dram | None = Dram(), latency: int = LATENCY,
                outstanding: int = OUTSTANDING, new_tokens: int = NEW_TOKENS) -> dict:
        """Run it on the Verilated machine and compare; means per token.

        Raises
        ------
        RuntimeError
            When a command's reads fell apart, so that idle cycles between them would not be counted.
        """
        cfg = machine_of(ports, self.machine)
        image, model = self.image(cfg), IntegerModel(self.config, self.tensors)
        memory = Memory(latency=latency, outstanding=outstanding, dram=dram)
        with Device(open_machine(cfg, memory=memory, seed=self.seed), cfg, deadline_s=3600) as device:
            device.load(image)
            transport, before = device.transport, device.transport.statistics
            skip, began = len(transport.episodes), time.process_time()
            report = verify(device, model, PROMPT, new_tokens, dense=dense)
            seconds = time.process_time() - began
            counters, after, episodes = device.counters(), transport.statistics, transport.episodes[skip:]
        timing = MemoryTiming(latency=latency, outstanding=outstanding, dram=dram, seed=self.seed)
        predicted = self.predict(cfg, image, PROMPT, report.tokens, dense=dense, memory=timing)
        if len(episodes) != self._streamed_commands(image, len(report.tokens)):
            raise RuntimeError(f"{len(episodes)} stretches of reads are not one per streamed command.")
        beats = sum(episode.beats for episode in episodes)
        reading = sum(episode.last_beat - episode.first_beat + 1 for episode in episodes)
        first = [episode.first_beat - episode.first_address for episode in episodes]
        n, bursts = counters["tokens"], after["read_bursts"] - before["read_bursts"]
        bound = max(predicted.event_tiles, predicted.row_bytes / cfg.bus_bytes)
        return {
            "evidence": EVIDENCE, "ports": ports, "dense": dense, "latency": latency, "outstanding": outstanding, "tokens": n,
            "compared": report.compared, "mismatches": report.mismatches,
            "first_mismatch": report.first, "cycles_per_token": round(counters["cycles"] / n, 1),
            "event_bound_per_token": round(predicted.event_bound_per_token, 1), "bytes_per_token": round(predicted.bytes_per_token, 1),
            "bytes_read_per_token": round(counters["bytes_bus_read"] / n, 1),
            "bound_per_token": round(bound / n, 1), "streamed_over_bound": round(counters["cycles"] / bound, 4),
            "stream_peak_fraction": round(beats / (ports * reading), 4),
            "stream_peak_fraction_with_first_beat": round(beats / (ports * (reading + sum(first))), 4),
            "first_beat_latency": {"mean": round(sum(first) / len(first), 1), "least": min(first), "most": max(first)},
            "commands_per_token": round(len(episodes) / n, 2), "beats_per_burst": round(beats / bursts, 2),
            "memory": {"least_latency": after["least_latency"], "most_latency": after["most_latency"],
                       "page_misses": after["page_misses"] - before["page_misses"], "refreshes": after["refreshes"] - before["refreshes"]},
            "cycles_counted": counters["cycles"], "cycles_predicted": predicted.cycles,
            "prediction_error": round(predicted.cycles / counters["cycles"] - 1, 5),
            "simulated_cycles_per_cpu_second": round(counters["cycles"] / max(1e-9, seconds)),
        }

    def measure_prefill(self, length: int = LONG_PROMPT, *, dram: Dram | None = Dram()) -> dict:
        """Read a prompt in blocks on the Verilated machine and compare."""
        cfg = machine_of(2, self.machine)
        image, model = self.image(cfg), IntegerModel(self.config, self.tensors)
        prompt = [(37 * place + self.seed) % self.config.vocabulary for place in range(length)]
        with Device(open_machine(cfg, memory=Memory(latency=LATENCY, outstanding=OUTSTANDING, dram=dram), seed=self.seed), cfg,
                    deadline_s=3600) as device:
            device.load(image)
            device.clear_counters()
            report = verify(device, model, prompt, 1)
            counters = device.counters()
        timing = MemoryTiming(latency=LATENCY, outstanding=OUTSTANDING, dram=dram, seed=self.seed)
        predicted = self.predict(cfg, image, prompt, report.tokens, memory=timing)
        return {
            "evidence": EVIDENCE, "ports": cfg.ports, "prompt": length, "block": image.card["prefill"]["block"],
            "compared": report.compared, "mismatches": report.mismatches,
            "first_mismatch": report.first, "cycles_per_token": round(counters["cycles"] / length, 1),
            "bytes_read_per_token": round(counters["bytes_bus_read"] / length, 1),
            "cycles_counted": counters["cycles"], "cycles_predicted": predicted.cycles,
            "prediction_error": round(predicted.cycles / counters["cycles"] - 1, 5),
        }

    def predict(self, cfg: AcceleratorConfig, image: Image, prompt: list[int], made: list, *, dense: bool = False,
                memory: MemoryTiming) -> RunReport:
        """The cycle model's report of the same run: its prompt, and the tokens made."""
        model, heads = IntegerModel(self.config, self.tensors), len(prompt) - 1
        tokens = (Token(model.step(token, position, head=position >= heads), token, position, position >= heads)
                  for position, token in enumerate(prompt + [token.id for token in made[:-1]]))
        return run_report(cfg, image.program, tokens, entry=image.card["entries"]["token"], dense=dense, memory=memory,
                          prefill=Prefill.of(image.card))

    @staticmethod
    def _streamed_commands(image, made):
        """Commands that read rows, over a run that makes so many tokens."""
        (first, end), = sweeps(image.program, image.card["entries"]["token"])
        program = image.program[first:end]
        streamed = [command for command in program if command.opcode in (Opcode.EMBED, Opcode.LINEAR) and command["streamed"]]
        return sum((made if command["head"] else len(PROMPT) + made - 1) for command in streamed)


def measure(*, bench: Bench | None = None, progress=print) -> dict:
    """All figures: one and two ports, sparse and dense; sparse behind other memories."""
    bench, runs = bench or Bench(), {}
    wanted = [("", ports, dense, LATENCY, OUTSTANDING) for ports in (1, 2) for dense in (False, True)]
    wanted += [(suffix, ports, False, FAR, reads) for suffix, reads in SLOWER.items() for ports in (1, 2)]
    for suffix, ports, dense, latency, reads in wanted:
        name = f"{'dense' if dense else 'sparse'}_{ports}_port{'s' if ports > 1 else ''}{suffix}"
        progress(f"Running {name} on the Verilated machine.")
        runs[name] = bench.measure(ports, dense=dense, latency=latency, outstanding=reads)
    progress(f"Reading a prompt of {LONG_PROMPT} tokens in blocks.")
    prefill = bench.measure_prefill()
    prefill["prefill_over_decode"] = round(runs["sparse_2_ports"]["cycles_per_token"] / prefill["cycles_per_token"], 3)
    runs["prefill_2_ports"] = prefill
    cfg, dram = machine_of(2), Dram()
    return {
        "evidence": EVIDENCE, "shape": bench.config.name, "seed": bench.seed,
        "machine": {"preset": cfg.name, "fingerprint": f"{cfg.fingerprint:#010x}", "clock_mhz": cfg.clock_mhz},
        "memory": {"latency": LATENCY, "outstanding": OUTSTANDING, "dram": asdict(dram)},
        "versions": versions(), **runs, "mismatches": sum(run["mismatches"] for run in runs.values()),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spikeloom_sim.streamed", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/streamed.json"))
    options = parser.parse_args(arguments)
    result = measure(progress=lambda text: print(text, file=sys.stderr, flush=True))
    command = " ".join(["python -m spikeloom_sim.streamed", *(sys.argv[1:] if arguments is None else arguments)])
    protocol = " ".join(__doc__.split("Protocol. ")[1].split("\n\n")[0].split())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"command": command, "protocol": protocol} | result, indent=2) + "\n", encoding="utf-8")
    runs = [run for run in result.values() if isinstance(run, dict) and "prediction_error" in run]
    for run in runs:
        about = f"{run['ports']} port(s), {run['cycles_per_token']:,.0f} cycles per token"
        if "block" in run:
            print(f"{about}, prompt in blocks of {run['block']}: {run['prefill_over_decode']} times the tokens of writing.")
        else:
            about += f", {'dense' if run['dense'] else 'sparse'}, latency {run['latency']}, {run['outstanding']} reads open"
            print(f"{about}: {run['streamed_over_bound']:.3f} of the bound, {run['stream_peak_fraction']:.1%} of the ports' peak.")
    return int(result["mismatches"] > 0 or any(abs(run["prediction_error"]) > 0.02 for run in runs))


if __name__ == "__main__":
    sys.exit(main())
