"""One layer of a large shape at full width on the Verilated machine, streamed, with random weights: what the cycle model's word for
the whole shape rests on."""

import time
from dataclasses import replace

from spikeloom.arch.config import AcceleratorConfig, ModelConfig
from spikeloom.arch.layout import read_image, write_image
from spikeloom.arch.run_cycles import Token, run_report
from spikeloom.compiler.image import compile_model
from spikeloom.driver.device import Device
from spikeloom.driver.verify import verify
from spikeloom.model.integer_model import IntegerModel

from .shapes import forced_network

#: Tokens read and made; the vocabulary of a layer alone.
PROMPT, NEW, VOCABULARY = 2, 2, 512


def one_layer(shape: ModelConfig) -> ModelConfig:
    """The shape with one layer and a small head."""
    return replace(shape, name=f"{shape.name}_layer", layers=1, vocabulary=min(shape.vocabulary, VOCABULARY), recency=())


def measure(device: Device, cfg: AcceleratorConfig, shape: ModelConfig, rates: dict, *, memory=None, dense: bool = False,
            seed: int = 1) -> dict:
    """A generation with every command's checksum compared, and its cycles predicted."""
    config, tensors = forced_network(one_layer(shape), rates | {"qkv": 0.3}, seed)
    image = read_image(write_image(compile_model(config, tensors, cfg, logit_scale=64.0, streamed="all")))
    device.load(image)
    model, prompt = IntegerModel(config, tensors), [1, 2][:PROMPT]
    cpu = time.process_time()
    report = verify(device, model, prompt, NEW, dense=dense)
    cpu, counters = time.process_time() - cpu, device.counters()
    ids = prompt + [token.id for token in report.tokens[:-1]]
    model.clear()
    tokens = (Token(model.step(token, position, head=position >= PROMPT - 1), token, position, position >= PROMPT - 1)
              for position, token in enumerate(ids))
    predicted = run_report(cfg, image.program, tokens, entry=image.card["entries"]["token"], memory=memory, dense=dense)
    return {"shape": shape.name, "machine": cfg.name, "columns": cfg.cols, "ports": cfg.ports, "layers": config.layers,
            "width": config.width, "hidden": config.hidden, "weight_bits": config.weight_bits, "seed": seed,
            "rates": {kind: round(float(rate), 4) for kind, rate in rates.items()}, "dense": dense,
            "tokens": len(ids), "cycles_counted": counters["cycles"], "cycles_predicted": predicted.cycles,
            "event_tiles_counted": counters["event_tiles"], "event_tiles_predicted": predicted.event_tiles,
            "bytes_counted": counters["bytes_rows"], "bytes_predicted": predicted.row_bytes,
            "compared": report.compared, "mismatches": report.mismatches, "first_mismatch": report.first,
            "cpu_seconds": round(cpu, 2)}
