"""Perplexity of a device: held-out text scored on it, teacher forced, and compared with the integer model by `==`.

A device reports the logit of each given token and the best one, not the sum over all tokens that a probability needs; that sum comes from
the integer model's logits, after the checksum over all of the device's logits (and over what every other command wrote) was found to be
the integer model's, at every position. Where one differs the figure is not given. Tokens per processor second are the device's alone,
the records of its trace included: of a simulator, how fast it is; of a board, how much it keeps its computer busy.
"""

import math
import time

import numpy as np

from ..arch.layout import Image
from ..arch.numerics import pick
from ..arch.sweeps import sweeps
from ..driver.device import Device
from ..driver.verify import Machine, Report
from .integer_model import IntegerModel
from .store import StoredModel
from .tokenizer import Tokenizer


def log_probability(logits: np.ndarray, token: int, scale: float) -> float:
    """Natural logarithm of a token's probability; logits int [V], `scale` units per nat."""
    z = np.asarray(logits, np.float64) / scale
    return float(z[token] - z.max() - np.log(np.exp(z - z.max()).sum()))


def measure(device: Device, image: Image, stored: StoredModel, texts: list[str], count: int, progress=lambda what, total: lambda done: None,
            most: int = 128) -> dict:
    """Score the first `most` tokens of `count` texts on a device that holds the image."""
    model, tokenizer = IntegerModel(stored.config, stored.tensors), Tokenizer.from_text(stored.tokenizer_json)
    machine = Machine.of(image, lanes=device.cfg.lanes, acc_width=device.cfg.acc_width)
    report, nats, tokens, size, busy = Report(), 0.0, 0, 0, 0.0
    advance = progress("scoring on the device", len(texts[:count]))
    for text in texts[:count]:
        ids = [stored.config.end_token, *tokenizer.encode(text)][: min(most, stored.config.context)]
        device.clear()
        began = time.process_time()
        scores = device.score(ids, trace=True)
        busy += time.process_time() - began
        model.clear()
        traces = [model.step(token, position, head=position < len(ids) - 1) for position, token in enumerate(ids)]
        for position, score in enumerate(scores):
            logits, target = traces[position]["logits"], ids[position + 1]
            best = pick(logits)
            report.check((target, int(logits[target]), best, int(logits[best])), (score.target, score.logit, score.best, score.best_logit),
                         lambda position=position: f"position {position} (target, its logit, best, its logit)")
            nats -= log_probability(logits, target, stored.logit_scale)
        head = range(*sweeps(machine.program, machine.entry)[0])
        machine.compare(report, ((index, position, trace) for position, trace in enumerate(traces) for index in head
                                 if position < len(ids) - 1 or not machine.program[index]["head"]), device.trace_records())
        tokens += len(scores)
        size += len(tokenizer.decode(ids[1:]).encode())
        advance(1)
    result = {"texts": len(texts[:count]), "tokens": tokens, "bytes": size, "compared": report.compared, "mismatches": report.mismatches,
              "first_mismatch": report.first, "tokens_per_cpu_second": round(tokens / busy, 1) if busy else None}
    if not report.mismatches:
        result |= {"nats_per_token": round(nats / tokens, 5), "perplexity": round(math.exp(nats / tokens), 4),
                   "bits_per_byte": round(nats / math.log(2) / size, 5)}
    return result
