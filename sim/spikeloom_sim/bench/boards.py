"""Tokens per second of shapes that no simulator can run, on their boards, by the cycle model `[model]`.

Rates of speaking neurons are those of the trained model. Counted beside the rows of weights, as if none of it stayed on chip:
every channel's parameters, all cached keys, the winners' values, what is written to the cache, and the embedding's row. The
clock is the preset's, an assumption: Yosys gives no timing for these chips.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from spikeloom.arch.config import AcceleratorConfig, ModelConfig
from spikeloom.arch.dram import Dram
from spikeloom.arch.presets import SHAPES
from spikeloom.arch.run_cycles import run_report
from spikeloom.arch.streamed_cycles import MemoryTiming
from spikeloom.arch.sweeps import Prefill

from .shapes import forced_tokens, machine_for, program_of, table_bytes

#: Share of a DRAM's peak that a dense engine is granted, and ours.
SUSTAINED = 0.75
#: Cycles from an address to its first beat, and reads that a port has open.
LATENCY, OUTSTANDING = 40, 8
#: Tokens whose spikes are drawn; seed.
TOKENS, SEED = 4, 1
#: Tokens of a prompt, and of its blocks; the first block size is the one of the goal.
PROMPT, BLOCKS = 128, (16, 4, 8, 32, 64)


@dataclass(frozen=True, kw_only=True)
class Board:
    """A shape, the preset of the machine it runs on, and that board's memory."""

    name: str
    shape: ModelConfig
    preset: str
    ports: int
    #: Bytes per second at most.
    dram: float
    #: What others publish for the same chip, with the differences named.
    context: str
    #: Whether the machine of the figure can be built for the chip.
    built: str
    #: A preset that does fit it and holds the shape when its tables are widened, if there is any.
    fits: str = ""


BOARDS = (
    Board(name="PYNQ-Z2", shape=SHAPES["d288"], preset="d288", ports=2, dram=2.1e9,
          context="Torch2RISCV publishes 17.6 tok/s for stories15M on this chip: dense int8, vocabulary 32,000, 50 MHz, on a board",
          built="Preset d288 was not mapped for this chip: `sim`, as large but for its tables, takes 135% of its block "
                "RAM [synth].", fits="pynq_z2"),
    Board(name="KV260", shape=SHAPES["d768"], preset="d768", ports=4, dram=19.2e9,
          context="Torch2RISCV publishes 27.0 tok/s for SmolLM2-135M on this board: dense int8, vocabulary 49,152, 100 MHz, four ports",
          built="Preset d768 does not fit this chip: tables and lists on chip at 256 columns take 135% of the look-up tables and eight "
                "times the block RAM by Yosys. It has to be narrowed, its tables streamed; what fits, kv260 with 128 columns, is too "
                "narrow for Q, K and V of this shape."),
)


def machine(board: Board, shape: ModelConfig | None = None) -> AcceleratorConfig:
    """The machine of a board, for its shape or for another one."""
    return machine_for(shape or board.shape, board.preset, ports=board.ports)


def timing(board: Board, cfg: AcceleratorConfig) -> MemoryTiming:
    """The board's memory: its latency, and beats per cycle at no more than the share of its peak that is granted."""
    most = cfg.bus_bytes * cfg.clock_mhz * 1e6
    return MemoryTiming(latency=LATENCY, outstanding=OUTSTANDING, rate=min(1.0, SUSTAINED * board.dram / most))


def speed(board: Board, rates: Mapping[str, float]) -> dict:
    """Tokens per second, sparse and dense, and what they are made of."""
    shape, cfg = board.shape, machine(board)
    image, memory = program_of(shape, cfg), timing(board, cfg)
    entry, hertz = image.card["entries"]["token"], cfg.clock_mhz * 1e6
    tables = table_bytes(shape, shape.context / 2)
    beside = sum(tables.values())
    bytes_per_cycle = cfg.bus_bytes * memory.rate
    out = {"board": board.name,
           "machine": {"preset": board.preset, "columns": cfg.cols, "ports": cfg.ports, "clock_mhz": cfg.clock_mhz, "clock": "assumed"},
           "memory": {"bytes_per_cycle": round(bytes_per_cycle, 2), "gb_per_s": round(bytes_per_cycle * hertz / 1e9, 3),
                      "dram_peak_gb_per_s": board.dram / 1e9, "latency": memory.latency},
           "firing_rates": {kind: round(float(rate), 4) for kind, rate in rates.items()},
           "table_bytes": {name: round(size) for name, size in tables.items()}}
    for name, dense in (("sparse", False), ("dense", True)):
        report = run_report(cfg, image.program, forced_tokens(shape, rates, 1 if dense else TOKENS, SEED), entry=entry, memory=memory,
                            dense=dense)
        cycles = report.cycles_per_token + beside / bytes_per_cycle
        bound = max(report.event_bound_per_token, (report.bytes_per_token + beside) / bytes_per_cycle)
        out[name] = {"tokens_per_second": round(hertz / cycles, 1), "cycles_per_token": round(cycles),
                     "row_bytes_per_token": round(report.bytes_per_token), "all_bytes_per_token": round(report.bytes_per_token + beside),
                     "event_bound": round(report.event_bound_per_token), "over_bound": round(cycles / bound, 3),
                     "tokens_per_second_with_tables_on_chip": round(hertz / report.cycles_per_token, 1)}
    if board.name == "PYNQ-Z2":  # `Dram` is that board's
        own = MemoryTiming(latency=LATENCY, outstanding=OUTSTANDING, dram=Dram())
        report = run_report(cfg, image.program, forced_tokens(shape, rates, TOKENS, SEED), entry=entry, memory=own)
        out["with_page_misses_and_refresh"] = {
            "tokens_per_second": round(hertz / (report.cycles_per_token + beside / cfg.bus_bytes), 1),
            "what": "the DRAM model of the RTL measurements in place of the granted share of the peak; nothing else on the board reads"}
    weights = shape.weight_bits * sum(rows * columns for rows, columns in matrices(shape)) / 8
    out["dense_roof"] = {"tokens_per_second": round(SUSTAINED * board.dram / weights, 1), "weight_bytes": round(weights),
                         "what": f"all weights of the layers and the head once per token at {SUSTAINED:.0%} of the DRAM's peak"}
    out["context"], out["built"] = board.context, board.built
    if board.fits:
        cfg = machine(replace(board, preset=board.fits))
        image = program_of(shape, cfg)
        report = run_report(cfg, image.program, forced_tokens(shape, rates, TOKENS, SEED), entry=image.card["entries"]["token"],
                            memory=timing(board, cfg))
        out["tokens_per_second_of_a_preset_that_fits"] = round(hertz / (report.cycles_per_token + beside / bytes_per_cycle), 1)
        out["built"] += (f" By the same model {board.fits}, which does fit, comes to {out['tokens_per_second_of_a_preset_that_fits']:,.0f} "
                         "tokens/s with its tables widened to hold the shape.")
    return out


def prefill(board: Board, rates: Mapping[str, float]) -> dict:
    """Reading a prompt, up to the first token written, against writing: tokens per second over those of decoding.

    In blocks of each of `BLOCKS` tokens, and one by one (`0`), where only the head is saved; `with_page_misses_and_refresh` in blocks
    of the first size where the DRAM model of the RTL measurements stands in for the granted share of its peak.
    """
    out = _prefill(board, rates, timing(board, machine(board)), (0, *BLOCKS))
    own = _prefill(board, rates, MemoryTiming(latency=LATENCY, outstanding=OUTSTANDING, dram=Dram()), BLOCKS[:1])
    return out | {"with_page_misses_and_refresh": own["blocks"][BLOCKS[0]] | {"decode_cycles_per_token": round(own["decode"])}}


def _prefill(board, rates, memory, blocks):
    shape, cfg = board.shape, machine(board)
    image = program_of(shape, cfg)
    options = {"entry": image.card["entries"]["token"], "memory": memory}
    decode = run_report(cfg, image.program, forced_tokens(shape, rates, TOKENS, SEED), **options).cycles_per_token
    prompt = [it._replace(position=place, head=place == PROMPT - 1)
              for place, it in enumerate(forced_tokens(shape, rates, PROMPT, SEED))]
    entry = Prefill.of(image.card)
    reading = {block: run_report(cfg, image.program, prompt, **options, prefill=entry._replace(block=block) if block else None)
               for block in blocks}
    return {"decode": decode, "blocks": {block: {
        "cycles_per_token": round(report.cycles_per_token), "prefill_over_decode": round(decode / report.cycles_per_token, 3)}
        for block, report in reading.items()}}


def matrices(shape: ModelConfig) -> list[tuple[int, int]]:
    """(rows, columns) of every matrix that a dense engine reads for a token."""
    d, f = shape.width, shape.hidden
    return shape.layers * [(d, 3 * d), (d, d), (d, f), (f, d)] + [(d, shape.outputs)]
