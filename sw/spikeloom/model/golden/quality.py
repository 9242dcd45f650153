"""Held-out figures of a golden model's integers, of its float form and of its softmax twin, by the task that it was trained on.

    spikeloom eval --model bispikclm

Beside them what counting reaches: tokens alone, and a token after its predecessor, in the training texts. `spikeloom systems` lists the
models; `docs/systems.md` shows these figures of all of them.
"""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .. import reference, store
from ..corpus import Split
from ..integer_torch import IntegerSequences
from . import pairs
from .tasks import TASKS, MaskedToken, NextToken

#: Held-out tokens that are measured at most, batches of masked windows, and pairs.
HELD_OUT_TOKENS, WINDOWS, PAIRS = 24_000, 6, 400


def is_golden(run: Path | None) -> bool:
    """Whether that run, or file of `model.reference`, holds a golden model."""
    return run is not None and "golden" in reference.state_of(run)["config"]


def measure(folder: Path, run: Path, twin: Path | None = None, split: Split | None = None) -> dict:
    """Figures of an exported golden model, of its float form `run` and of its softmax twin.

    Parameters
    ----------
    folder : Path
    run, twin : Path
        A training run's folder, or a file that `model.reference` wrote.
    split : Split, optional
        Texts in place of the task's own.
    """
    stored = store.load(folder)
    golden, state = reference.load(run)
    settings = state["config"]["training"]
    task = TASKS[settings["task"]].open(stored.config, settings, folder, split)
    integer = IntegerSequences(stored.tensors, stored.config)
    forms = {"integer": lambda tokens: integer(tokens).double() / stored.logit_scale, "golden": golden}
    found = {"tokens": state["tokens"], "parameters": sum(tensor.size for tensor in stored.tensors.values())}
    if twin:
        forms["softmax_twin"], state = reference.load(twin)
        found |= {"twin_parameters": forms["softmax_twin"].parameters_in_all(), "twin_tokens": state["tokens"]}
    if not stored.config.classes:
        found |= context_free(task)
        forms |= {"unigram": lambda tokens: found["_unigram"].expand(*tokens.shape, -1)}
        if isinstance(task, NextToken):
            forms |= {"bigram": lambda tokens: found["_bigram"][tokens]}
    for name, form in forms.items():
        if isinstance(task, NextToken):
            found[name] = _next_token(task, form)
        elif isinstance(task, MaskedToken):
            held = np.concatenate([np.array(ids) for ids in task.tokenizer.encode_all(task.split.held_out)])
            found[name] = task.development(form, held, batches=WINDOWS)
        else:
            found[name] = _pairs(task, form)
    found["saturations"] = integer.saturations
    return {name: value for name, value in found.items() if not name.startswith("_")}


def context_free(task) -> dict:
    """Log-probabilities of a token alone [V], and after its predecessor [V, V]: counts of the training text, one added to each."""
    size, counts = task.config.vocabulary, None
    for ids in task.tokenizer.encode_all(task.split.train):
        stream = np.array([task.config.end_token, *ids])
        seen = np.bincount(stream[:-1] * size + stream[1:], minlength=size * size)
        counts = seen if counts is None else counts + seen
    bigram = torch.from_numpy(counts.reshape(size, size)).double() + 1
    unigram = bigram.sum(0)
    return {"_unigram": (unigram / unigram.sum()).log(), "_bigram": (bigram / bigram.sum(1, keepdim=True)).log()}


def _next_token(task, form) -> dict:
    """Nats per token and bits per byte over windows of the held-out text; every token of a window is scored.

    Raises
    ------
    ValueError
        When no text is as long as a window.
    """
    c, total, count, bytes_read = task.config, 0.0, 0, 0
    share = HELD_OUT_TOKENS // max(1, len(task.split.held_out))
    with torch.no_grad():
        for ids in task.tokenizer.encode_all([text[: 2 * share] for text in task.split.held_out]):
            ids = ids[:share]
            for start in range(0, len(ids) - c.context, c.context):
                part = ids[start:start + c.context]
                tokens = torch.tensor([[c.end_token, *part[:-1]]])
                total += F.cross_entropy(form(tokens)[0].double(), torch.tensor(part), reduction="sum").item()
                count += len(part)
                bytes_read += len(task.tokenizer.decode(part).encode())
    if not count:
        raise ValueError(f"A window takes more than {c.context} tokens, and none of the {len(task.split.held_out)} held-out texts holds so "
                         f"many (up to {share} of each are read): give fewer and longer texts.")
    return {"nats_per_token": round(total / count, 4), "bits_per_byte": round(total / math.log(2) / bytes_read, 4), "tokens": count}


def _pairs(task, form) -> dict:
    lines = pairs.lines_of(task.split.held_out)
    examples = pairs.fixed(lines, PAIRS, task.tokenizer.encode_all, task.config.end_token, task.config.context)
    labels = [label for _, label in examples]
    figures = task.development(form, examples)
    return {"nats": figures["development_nats"], "accuracy": figures["accuracy"],
            "majority": round(max(labels.count(label) for label in set(labels)) / len(labels), 4), "examples": len(examples)}
