"""What golden models are trained on: next tokens, masked tokens, or classes of sentence pairs; all from one corpus.

A task gives batches, the loss of a batch, and the development figures. The corpus is the project's own Shakespeare: in
characters (lines with a rare sign are left out) or in byte pairs.
"""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from spikeloom.arch.config import ModelConfig

from .. import corpus
from ..text_sources import known
from ..tokenizer import MASK, Tokenizer
from ..train import Corpus, development_loss
from . import pairs

#: The signs of the character models: 64, with `<|end|>` a vocabulary of 65.
CHARACTERS = frozenset("\n !',-.:;?[]ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
#: Share of masked tokens; of these 8 in 10 are hidden, 1 replaced and 1 left (BERT).
MASKED = 0.15


def plain(text: str) -> str:
    """The text without the lines that hold other signs than CHARACTERS."""
    return "\n".join(line for line in text.split("\n") if CHARACTERS.issuperset(line))


def character_split(split: corpus.Split) -> corpus.Split:
    """A split in which every text is `plain`; texts of which nothing is left are none.

    Raises
    ------
    ValueError
        When a part of the split is left without texts.
    """
    parts = [[text for text in map(plain, part) if text] for part in (split.train, split.development, split.held_out)]
    if not all(parts):
        raise ValueError(f"{split.name} holds too little for a model of characters: lines with other signs than "
                         f"{''.join(sorted(CHARACTERS)).strip()} are left out. A config with `corpus` \"shakespeare\" takes any text.")
    return known(corpus.Split(split.name, *parts))


def answers(model, tokens: torch.Tensor) -> torch.Tensor:
    """Logits of tokens on the CPU, where tasks keep their targets, of a model on any device (or of a function)."""
    if isinstance(model, torch.nn.Module):
        tokens = tokens.to(next(model.parameters()).device)
    return model(tokens).cpu()


class Task:
    """Common part of all tasks: texts, tokenizer, random windows.

    Parameters
    ----------
    config : ModelConfig
    settings : dict
        The config's `training`.
    split : corpus.Split
    tokenizer : Tokenizer
    """

    mask = False

    def __init__(self, config: ModelConfig, settings: dict, split: corpus.Split, tokenizer: Tokenizer):
        self.config, self.settings, self.split, self.tokenizer = config, settings, split, tokenizer

    @classmethod
    def open(cls, config: ModelConfig, settings: dict, folder: Path, split: corpus.Split | None = None) -> "Task":
        """The task with the run's tokenizer, which is trained where there is none."""
        split = split or corpus.load_shakespeare()
        if settings.get("corpus", "characters") == "characters":
            split = character_split(split)
        path = folder / "tokenizer.json"
        if not path.exists():
            Tokenizer.train(split.train, config.vocabulary, mask=cls.mask).save(path)
        return cls(config, settings, split, Tokenizer.load(path))

    def batch(self, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs int64 [B, N] and targets (-100: none)."""
        raise NotImplementedError

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of logits [B, N, V] at targets [B, N]."""
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def development(self, model) -> dict[str, float]:
        """Figures of the texts that only watch, in evaluation form, winners alone."""
        raise NotImplementedError


class NextToken(Task):
    """Causal language modelling, windows of the whole context."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.data = Corpus(self.split, self.tokenizer, None, 1.0)
        self.watch = [ids[: self.config.context] for ids in self.tokenizer.encode_all(self.split.development)]
        self.bytes = sum(len(self.tokenizer.decode(ids).encode()) for ids in self.watch) / sum(map(len, self.watch))

    def batch(self, random):
        c = self.config
        return self.data.batch(max(1, self.settings["batch_tokens"] // c.context), c.context, random)

    def development(self, model):
        nats = development_loss(model, self.watch, self.config.end_token, self.config.context)
        return {"development_nats": round(nats, 4), "development_bits_per_byte": round(nats / math.log(2) / self.bytes, 4)}


def hide(tokens: torch.Tensor, mask_token: int, vocabulary: int, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Masked inputs and targets (-100 where nothing was masked) of [B, N]; position 0 holds `<|end|>` and stays."""
    draw = torch.from_numpy(random.random(tokens.shape))
    chosen = draw < MASKED
    chosen[:, 0] = False
    kind = torch.from_numpy(random.random(tokens.shape))
    other = torch.from_numpy(random.integers(2, vocabulary, tokens.shape))
    inputs = torch.where(chosen & (kind < 0.8), mask_token, tokens)
    inputs = torch.where(chosen & (kind >= 0.9), other, inputs)
    return inputs, torch.where(chosen, tokens, -100)


class MaskedToken(Task):
    """Masked language modelling after BERT: `<|end|>`, then a window of any length from half the context on."""

    mask = True

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.mask_token = self.tokenizer.backend.token_to_id(MASK)
        self.train_ids, self.watch_ids = (np.concatenate([np.array(ids) for ids in self.tokenizer.encode_all(texts)])
                                          for texts in (self.split.train, self.split.development))

    def _windows(self, ids, count, length, random):
        if len(ids) <= length:
            raise ValueError(f"A part of the texts holds {len(ids)} tokens, a window takes {length}: train on more text.")
        start = random.integers(0, len(ids) - length, count)
        rows = torch.from_numpy(ids[start[:, None] + np.arange(length - 1)])
        return torch.cat((torch.full((count, 1), self.config.end_token), rows), 1)  # [B, length]

    def batch(self, random):
        c = self.config
        length = int(random.integers(c.context // 2, c.context + 1)) if random.random() < 0.3 else c.context
        tokens = self._windows(self.train_ids, max(1, self.settings["batch_tokens"] // length), length, random)
        return hide(tokens, self.mask_token, c.vocabulary, random)

    @torch.no_grad()
    def development(self, model, ids=None, batches: int = 6):
        total, right, count = 0.0, 0, 0
        random, ids = np.random.default_rng(1), self.watch_ids if ids is None else ids
        for _ in range(batches):
            inputs, targets = hide(self._windows(ids, 32, self.config.context, random), self.mask_token,
                                   self.config.vocabulary, random)
            logits = answers(model, inputs)
            total += F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
            right += (logits.argmax(-1) == targets).sum().item()
            count += (targets >= 0).sum().item()
        return {"development_nats": round(total / count, 4), "accuracy": round(right / count, 4)}


class SentencePairs(Task):
    """Which of two lines is natural (`pairs`); read at position 0. Batches hold pairs of equal length, so that nothing is padded."""

    mask = True

    def __init__(self, *arguments):
        super().__init__(*arguments)
        c, encode = self.config, self.tokenizer.encode_all
        self.train_lines = pairs.lines_of(self.split.train)
        self.watch = pairs.fixed(pairs.lines_of(self.split.development), 400, encode, c.end_token, c.context)

    def batch(self, random):
        c = self.config
        many = pairs.draw(self.train_lines, 4 * self.settings["batch_pairs"], self.tokenizer.encode_all, c.end_token, c.context, random)
        ids, labels = pairs.equal_length(many, self.settings["batch_pairs"], random)
        return torch.tensor(ids), torch.tensor(labels)

    def loss(self, logits, targets):
        return F.cross_entropy(logits[:, 0], targets)

    @torch.no_grad()
    def development(self, model, examples=None):
        total, right, examples = 0.0, 0, examples or self.watch
        for length in sorted({len(ids) for ids, _ in examples}):
            group = [(ids, label) for ids, label in examples if len(ids) == length]
            logits = answers(model, torch.tensor([ids for ids, _ in group]))[:, 0]
            labels = torch.tensor([label for _, label in group])
            total += F.cross_entropy(logits, labels, reduction="sum").item()
            right += (logits.argmax(-1) == labels).sum().item()
        return {"development_nats": round(total / len(examples), 4), "accuracy": round(right / len(examples), 4)}


TASKS = {"causal": NextToken, "masked": MaskedToken, "pairs": SentencePairs}
