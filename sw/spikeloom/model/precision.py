"""What integers and what fewer weight bits cost a released model, on the same held-out text, in nats and in cycles.

    spikeloom eval --suite precision --model stories-260k

    float       the trained float model in evaluation form
    integer     its export, which is released and which the device computes
    int4        the released float weights rounded to four bits, nothing trained
    int4 (trained on)   the model NAME-int4 where there is one: trained on from the same weights with weights of four bits

Cycles and bytes per token come from the cycle model: the first tokens of the first texts, each text from position 0, on one machine, with
resident rows and with all rows streamed over its memory ports.
"""

from pathlib import Path

from spikeloom.arch.config import AcceleratorConfig, FitError
from spikeloom.arch.run_cycles import Token, run_report
from spikeloom.arch.streamed_cycles import MemoryTiming
from spikeloom.compiler.image import compile_model

from . import reference, store
from .evaluate import figures_of, log_softmax_of, log_softmax_of_integers, summed_nats
from .export import to_stored
from .integer_model import IntegerModel
from .integer_torch import IntegerSequences
from .tokenizer import Tokenizer
from .train import build_model

MEMORY = MemoryTiming()
#: Tokens of each text whose cycles are counted.
POSITIONS = 64


def cycles_of(stored: store.StoredModel, machine: AcceleratorConfig, texts: list[list[int]], positions: int = POSITIONS) -> dict:
    """Cycles and weight bytes per token over the first positions of each text; what does not fit says so."""
    model, tokens = IntegerModel(stored.config, stored.tensors), []
    for ids in texts:
        model.clear()
        stream = [stored.config.end_token, *ids][: min(positions, stored.config.context)]
        tokens += [Token(model.step(token, position), token, position) for position, token in enumerate(stream)]
    found = {}
    for key, streamed, memory in (("cycles_per_token", "none", None), ("streamed_cycles_per_token", "all", MEMORY)):
        try:
            image = compile_model(stored.config, stored.tensors, machine, logit_scale=stored.logit_scale, streamed=streamed)
        except FitError as error:
            found["does_not_fit"] = str(error)
            continue
        report = run_report(machine, image.program, tokens, entry=image.card["entries"]["token"], memory=memory)
        found |= {key: round(report.cycles_per_token, 1), "weight_bytes_per_token": round(report.bytes_per_token, 1)}
    return found


def rounded(run: Path, bits: int) -> store.StoredModel:
    """A float model's weights rounded to fewer bits, as integers."""
    model, state = reference.load(run)
    config = state["config"] | {"model": state["config"]["model"] | {"weight_bits": bits}}
    coarse = build_model(config, "spiking")
    coarse.load_state_dict(model.state_dict())
    return to_stored(coarse.eval())


def measure(folder: Path, texts: list[str], machine: AcceleratorConfig, limit: int = 100,
            progress=lambda what, total: lambda done: None) -> dict:
    """All figures, over the first `limit` texts; cycles over the first three."""
    texts, tokenizer = texts[:limit], Tokenizer.load(folder / "tokenizer.json")
    encoded = tokenizer.encode_all(texts)
    n_bytes, n_tokens = sum(len(text.encode()) for text in texts), sum(map(len, encoded))
    models = {"integer": store.load(folder), "int4": rounded(folder / "reference" / "float.safetensors", 4)}
    if f"{folder.name}-int4" in store.available():
        models["int4 (trained on)"] = store.load(store.find(f"{folder.name}-int4"))
    advance, found = progress("models", 1 + len(models)), {}

    def entry(log_probabilities, config):
        nats = summed_nats(log_probabilities, encoded, config)
        advance(1)
        return figures_of(nats, n_tokens, n_bytes)

    found["float"] = entry(log_softmax_of(reference.load(folder / "reference" / "float.safetensors")[0]), models["integer"].config)
    for name, stored in models.items():
        log_probabilities = log_softmax_of_integers(IntegerSequences(stored.tensors, stored.config), stored.logit_scale)
        found[name] = {"weight_bits": stored.config.weight_bits, **entry(log_probabilities, stored.config),
                       **cycles_of(stored, machine, encoded[:3])}
    nats = {name: row["nats_per_token"] for name, row in found.items()}
    return {"evidence": "[model]", "machine": machine.name, "texts": len(texts), "bytes": n_bytes, "tokens": n_tokens, "models": found,
            "integer_less_float_nats": round(nats["integer"] - nats["float"], 5),
            "int4_less_int8_nats": {name: round(value - nats["integer"], 5) for name, value in nats.items() if name.startswith("int4")}}
