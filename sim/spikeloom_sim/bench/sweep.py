"""Random networks whose neurons speak at a forced rate, on the Verilated machine: measured cycles against the theory.

Theory. At rate r a token asks for r times the rows of dense mode, so that its cycles are those of the dense mode less
(1 - r) times the rows times their tiles, over the events that the engine takes per cycle; what does not depend on r (fills,
drains, neuron passes, attention) stays as it is at r = 0.
"""

from dataclasses import replace

from spikeloom.arch.config import WEIGHT_BITS, AcceleratorConfig, ModelConfig
from spikeloom.arch.layout import read_image, write_image
from spikeloom.arch.streamed_cycles import MemoryTiming
from spikeloom.compiler.image import compile_model
from spikeloom.driver.device import Device
from spikeloom.model.integer_model import IntegerModel

from .shapes import KINDS, forced_network
from .stories import score_stories

RATES = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
#: Five layers of 64 channels, as the stories model has them.
SHAPE = ModelConfig(name="sweep", vocabulary=512, context=256, width=64, layers=5, heads=4, hidden=192, level_in=4, level_v=4,
                    level_attn=4, level_mid=4, level_hidden=4, level_final=4)
#: Tokens of a measured text.
TOKENS = 24


def forced(rate: float) -> dict[str, float]:
    """The same rate everywhere."""
    return dict.fromkeys((*KINDS, "qkv"), rate)


def measure(device: Device, cfg: AcceleratorConfig, rate: float, seed: int, *, bits: int = 8,
            timing: MemoryTiming | None = None) -> dict:
    """One rate: cycles counted and predicted, bound, bytes, differences. Streamed where `timing` is given."""
    config, tensors = forced_network(replace(SHAPE, weight_bits=bits), forced(rate), seed)
    image = read_image(write_image(compile_model(config, tensors, cfg, logit_scale=64.0, streamed="all" if timing else "none")))
    device.load(image)
    ids = [(7 * i + seed) % config.vocabulary for i in range(TOKENS + 1)]
    tally = score_stories(device, image, IntegerModel(config, tensors), [ids], timing=timing)
    return {"rate": rate, "seed": seed, "weight_bits": bits, "rows_spoke": round(tally.spoke / (tally.spoke + tally.silent), 4),
            "cycles_per_token": round(tally.cycles_per_token, 1), "event_bound_per_token": round(tally.bound_per_token, 1),
            "machine_bound_per_token": round(tally.adding / tally.positions, 1),
            "bytes_per_token": round(tally.bytes_per_token, 1), "bytes_counted": tally.counters["bytes_rows"],
            "cycles_counted": tally.counted, "cycles_predicted": tally.predicted, "compared": tally.compared,
            "mismatches": tally.mismatches, "rows_silent": tally.silent,
            "rows_skipped": tally.counters["rows_skipped"]}


def run(device: Device, cfg: AcceleratorConfig, *, rates=RATES, seed: int = 1, advance=lambda: None) -> list[dict]:
    """All rates."""
    out = []
    for rate in rates:
        out.append(measure(device, cfg, rate, seed))
        advance()
    return out


def formats(device: Device, cfg: AcceleratorConfig, timing: MemoryTiming, *, rate: float = 0.5, seed: int = 1,
            advance=lambda: None) -> list[dict]:
    """One rate in every weight format, streamed: the bytes are the bus's, and the columns are fed as fast as it brings them."""
    out = []
    for bits in WEIGHT_BITS:
        out.append(measure(device, cfg, rate, seed, bits=bits, timing=timing))
        advance()
    return out


def theory(points: list[dict], rate: float) -> float:
    """Cycles per token at a rate, from the dense end and from what rests at rate 0."""
    silent, full = (min(points, key=lambda p, want=want: abs(p["rate"] - want)) for want in (0.0, 1.0))
    return silent["cycles_per_token"] + rate * (full["cycles_per_token"] - silent["cycles_per_token"])
