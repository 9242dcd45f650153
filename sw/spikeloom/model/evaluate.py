"""Measures an exported model, its float form, the softmax twin and a character 6-gram on the same held-out stories.

    python -m spikeloom.model.evaluate --out results/stories-260k.json

Protocol. Every story stands alone and begins after `<|end|>`. All its tokens are scored, the closing `<|end|>` is not, so
the bytes are those of the text. A story longer than the context is read in windows that overlap by half: the first
window scores all its tokens, each later one only its second half, so that every scored token sees at least half a
context of earlier text where that exists. Bits per byte = summed negative log2-likelihood / UTF-8 bytes; perplexity =
exp(nats per token), which models of other tokenizers cannot be compared by.
"""

import argparse
import hashlib
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import torch

from spikeloom.arch import numerics
from spikeloom.arch.config import ModelConfig

from . import corpus, reference, store
from .golden.quality import is_golden
from .golden.quality import measure as measure_golden
from .integer_model import IntegerModel
from .integer_torch import IntegerSequences
from .ngram import CharacterNgram
from .tokenizer import Tokenizer, UnknownCharacter

WORD = re.compile(r"[A-Za-z']+")


def windows(ids: list[int], end_token: int, context: int) -> list[tuple[list[int], list[int], int]]:
    """(inputs, targets, first scored index) of one text; see the protocol above."""
    stream = [end_token, *ids]
    inputs, targets = stream[:-1], stream[1:]
    half, out, start, scored = context // 2, [], 0, 0
    while scored < len(targets):
        stop = min(start + context, len(targets))
        out.append((inputs[start:stop], targets[start:stop], scored - start))
        scored, start = stop, start + half
    return out


@torch.no_grad()
def summed_nats(log_probabilities, texts: list[list[int]], config: ModelConfig, batch: int = 24, watch=None) -> float:
    """Negative log-likelihood of texts; `log_probabilities` maps int64 [B, T] to float [B, T, V].

    `watch(mask)` is called after every batch with bool [B, T], true at the scored positions.
    """
    rows = [row for ids in texts for row in windows(ids, config.end_token, config.context)]
    rows.sort(key=lambda row: len(row[0]))
    total = 0.0
    for at in range(0, len(rows), batch):
        part = rows[at : at + batch]
        length = len(part[-1][0])
        inputs = torch.full((len(part), length), config.end_token)
        targets, mask = torch.zeros_like(inputs), torch.zeros(inputs.shape, dtype=torch.bool)
        for row, (tokens, following, first) in enumerate(part):
            inputs[row, : len(tokens)] = torch.tensor(tokens)
            targets[row, : len(tokens)] = torch.tensor(following)
            mask[row, first : len(tokens)] = True
        picked = log_probabilities(inputs).gather(-1, targets[..., None])[..., 0]
        total -= picked[mask].double().sum().item()
        if watch is not None:
            watch(mask)
    return total


class FiringRates:
    """Share of neurons that fire at all, and mean absolute level over D, per group of neurons, over scored positions."""

    GROUPS = ("in", "q", "k", "v", "attn", "mid", "up")

    def __init__(self, config: ModelConfig):
        c = self.config = config
        levels = dict(zip(self.GROUPS, (c.level_in, 1, 1, c.level_v, c.level_attn, c.level_mid, c.level_hidden)))
        self.levels = {f"layer{i}.{g}": d for i in range(c.layers) for g, d in levels.items()} | {"final": c.level_final}
        self.sums = {name: [0.0, 0.0, 0] for name in self.levels}
        self.trace: dict = {}

    def watch(self, mask: torch.Tensor) -> None:
        """Take in the trace of the latest batch."""
        for index in range(self.config.layers):
            names = [f"layer{index}.{g}" for g in ("q", "k", "v")]
            self.trace.update(zip(names, self.trace[f"layer{index}.qkv"].chunk(3, -1)))
        for name, level in self.levels.items():
            values = self.trace[name][mask]
            entry = self.sums[name]
            entry[0] += (values != 0).sum().item()
            entry[1] += values.abs().sum().item() / level
            entry[2] += values.numel()
        self.trace.clear()

    def summary(self) -> dict:
        """Per group {"nonzero", "level"}, and the mean over all neurons."""
        table = {n: {"nonzero": round(a / c, 4), "level": round(b / c, 4)} for n, (a, b, c) in self.sums.items()}
        a, b, c = (sum(entry[i] for entry in self.sums.values()) for i in range(3))
        return {"all": {"nonzero": round(a / c, 4), "level": round(b / c, 4)}, **table}


def sample(stored: store.StoredModel, tokenizer: Tokenizer, count: int, *, temperature: float = 0.8, top_k: int = 8,
           seed: int = 1) -> list[str]:
    """Texts from `<|end|>` on, one seed each, with the device's sampling rule, up to the context or the end token."""
    c, model = stored.config, IntegerModel(stored.config, stored.tensors)
    noise = numerics.noise_table(temperature, stored.logit_scale)
    texts = []
    for index in range(count):
        model.clear()
        ids = model.generate([c.end_token], c.context, ignore_end=False, top_k=top_k, noise=noise, seed=seed + index)
        texts.append(tokenizer.decode(ids))
    return texts


def sample_statistics(samples: list[str], training: list[str], length: int = 13) -> dict:
    """Shares of sampled words known from training, and of word n-grams copied from it."""
    def words(text):
        return [w.lower() for w in WORD.findall(text)]

    known, copied = set(), set()
    for text in training:
        line = words(text)
        known.update(line)
        copied.update(hash(tuple(line[i : i + length])) for i in range(len(line) - length + 1))
    # The last word of a sample that ran into the context's end may be cut.
    lines = [words(text)[:-1] for text in samples]
    flat = [w for line in lines for w in line]
    grams = [hash(tuple(line[i : i + length])) for line in lines for i in range(len(line) - length + 1)]
    return {"samples": len(samples), "words": len(flat), "known_words": sum(w in known for w in flat) / max(1, len(flat)),
            f"copied_{length}_grams": sum(g in copied for g in grams) / max(1, len(grams))}


def figures_of(nats: float, tokens: int, size: int) -> dict[str, float]:
    """Bits per byte, nats per token and perplexity per token of a text of so many tokens and bytes."""
    per_token = round(nats / tokens, 5)
    return {"bits_per_byte": round(nats / math.log(2) / size, 5), "nats_per_token": per_token, "perplexity": round(math.exp(per_token), 3)}


def log_softmax_of(model) -> callable:
    """Log-probabilities of a float model."""
    return lambda tokens: torch.log_softmax(model(tokens), -1)


def log_softmax_of_integers(sequences: IntegerSequences, logit_scale: float, trace: dict | None = None) -> callable:
    """Log-probabilities of integers, `logit_scale` units per nat; intermediates go to `trace`."""
    return lambda tokens: torch.log_softmax(sequences(tokens, trace).double() / logit_scale, -1)


def measure(model_folder: Path, *, run: Path | None = None, twin: Path | None = None, practice: Path | None = None,
            split: corpus.Split | None = None, limit: int | None = None, characters: int | None = None,
            samples: int = 20) -> tuple[dict, list[str]]:
    """All figures of one model, and the sampled texts; of each text only the first `characters`.

    Raises
    ------
    UnknownCharacter
        When the texts are not those of the model's corpus.
    """
    stored = store.load(Path(model_folder))
    split = split or corpus.corpus_of(stored.config.name)
    texts = [text[:characters] for text in split.held_out[:limit]]
    arrays, config, scale = stored.tensors, stored.config, stored.logit_scale
    tokenizer = Tokenizer.load(model_folder / "tokenizer.json")
    try:
        encoded = tokenizer.encode_all(texts)
    except UnknownCharacter as error:
        where = corpus.data_folder()
        raise UnknownCharacter(f"The texts ({split.name}) are not of the corpus that the model was trained on. {error} Texts come from "
                               f"the data folder, {where or 'which is not there'}: SPIKELOOM_DATA names another.") from error
    n_bytes, n_tokens = sum(len(t.encode()) for t in texts), sum(map(len, encoded))
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()

    def entry(total):
        return figures_of(total, n_tokens, n_bytes)

    integer, rates = IntegerSequences(arrays, config), FiringRates(config)
    log_probabilities = log_softmax_of_integers(integer, scale, rates.trace)

    result = {"data": {"name": split.name, "texts": len(texts), "bytes": n_bytes, "tokens": n_tokens,
                       "sha256_of_texts_joined_by_nul": digest},
              "protocol": " ".join(__doc__.split("Protocol. ")[1].split()),
              "parameters": int(sum(a.size for a in arrays.values()))}
    result["integer"] = entry(summed_nats(log_probabilities, encoded, config, watch=rates.watch))
    result["integer"]["saturations"] = integer.saturations
    result["firing_rates"] = rates.summary()
    if run is not None:
        model, state = reference.load(run)
        result["float"] = entry(summed_nats(log_softmax_of(model), encoded, config)) | {"training_tokens": state["tokens"]}
    if twin is not None:
        softmax, state = reference.load(twin)
        result["softmax_twin"] = entry(summed_nats(log_softmax_of(softmax), encoded, config))
        result["softmax_twin"] |= {"parameters": softmax.parameters_in_all(), "training_tokens": state["tokens"]}
    written = []
    if practice is not None:
        files = sorted(Path(practice).glob("*.json.gz"))
        written = [story["text"] for path in files for story in corpus.load_practice(path)]
    ngram = CharacterNgram(6).train(split.train)
    nats = sum(ngram.nats(text) for text in texts)
    result["character_6_gram"] = {"bits_per_byte": round(nats / math.log(2) / n_bytes, 5)}
    sampled = sample(stored, tokenizer, samples)
    settings = {"temperature": 0.8, "top_k": 8, "seeds": f"1..{samples}"}
    result["samples"] = settings | sample_statistics(sampled, split.train + written)
    return result, sampled


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="spikeloom eval", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="stories-260k", help="model by name, or folder of an exported one")
    parser.add_argument("--run", type=Path, help="float model: a training run, or a file; default: the one beside the model")
    parser.add_argument("--twin", type=Path, help="softmax twin, likewise")
    parser.add_argument("--practice", type=Path, help="practice text, to tell copies from inventions")
    parser.add_argument("--limit", type=int, help="only the first texts")
    parser.add_argument("--characters", type=int, help="only the first characters of each text")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    np.seterr(all="raise")
    options.model = store.find(str(options.model))
    for name, file in (("run", "float.safetensors"), ("twin", "twin.safetensors")):
        kept = options.model / "reference" / file
        if getattr(options, name) is None and kept.exists():
            setattr(options, name, kept)
    if is_golden(options.run):
        result, sampled = measure_golden(options.model, options.run, options.twin), []
    else:
        result, sampled = measure(options.model, run=options.run, twin=options.twin, practice=options.practice,
                                  limit=options.limit, characters=options.characters, samples=options.samples)
    command = "python -m spikeloom.model.evaluate " + " ".join(arguments or sys.argv[1:])
    result = {"command": command, "model_sha256": store.digest(options.model), **result}
    print(json.dumps(result, indent=2))
    for text in sampled:
        print("---\n" + text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result | {"texts": sampled}, indent=2) + "\n")


if __name__ == "__main__":
    main()
