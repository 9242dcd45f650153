"""GLUE tasks for the encoder, read from a folder of the sets' original files; nothing of them comes with the project.

A sentence is `<|end|>` and its tokens, a pair has a second `<|end|>` between its two. The last `WATCH` examples of the training
file only watch the training; figures are of the official development file. Characters that the tokenizer never saw are dropped
(after accents and typographic signs were spelled out), and texts longer than the context are cut: both are counted.
"""

import csv
import gzip
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .. import corpus
from ..tokenizer import Tokenizer
from .pairs import equal_length
from .tasks import Task, answers

#: Examples that only watch, and texts per batch where nothing is learned.
WATCH, BATCH = 400, 64
_SPELLED = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "`": "'"})


@dataclass(frozen=True)
class Source:
    """Files and columns of one set.

    Parameters
    ----------
    train, development : str
        Paths in the folder.
    columns : tuple of int
        Of the one or two texts.
    label : int
        Column of the class.
    classes : tuple of str
        What that column says, class 0 first.
    header : bool
        Whether the first line names the columns.
    """

    train: str
    development: str
    columns: tuple[int, ...]
    label: int
    classes: tuple[str, ...]
    header: bool = True


SOURCES = {
    "SST-2": Source("SST-2/train.tsv.gz", "SST-2/test.tsv", (0,), 1, ("0", "1")),
    "CoLA": Source("CoLA/in_domain_train.tsv", "CoLA/in_domain_dev.tsv", (3,), 1, ("0", "1"), header=False),
    "MRPC": Source("MRPC/msr_paraphrase_train.txt", "MRPC/msr_paraphrase_test.txt", (3, 4), 0, ("0", "1")),
    "RTE": Source("RTE/train.tsv.gz", "RTE/dev.tsv", (1, 2), 3, ("not_entailment", "entailment")),
}


def folder() -> Path:
    """Where the sets lie.

    Raises
    ------
    FileNotFoundError
        Says how to name the folder.
    """
    data = corpus.data_folder()
    if data is None or not (data / "glue").is_dir():
        raise FileNotFoundError("There is no folder of GLUE sets: set SPIKELOOM_DATA to a folder that holds glue/SST-2 and its like.")
    return data / "glue"


def read(path: Path, source: Source) -> list[tuple[tuple[str, ...], int]]:
    """(texts, class) of every line."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
        lines = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [(tuple(line[c] for c in source.columns), source.classes.index(line[source.label]))
            for line in lines[source.header:] if line]


def spelled(text: str) -> str:
    """Typographic signs as their plain forms, letters without accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.translate(_SPELLED)) if not unicodedata.combining(c))


@dataclass
class Cut:
    """What a set lost on its way to token ids."""

    characters: int = 0
    dropped: int = 0
    texts: int = 0
    shortened: int = 0


def encode(examples: list[tuple[tuple[str, ...], int]], tokenizer: Tokenizer, end_token: int, context: int,
           cut: Cut) -> list[tuple[list[int], int]]:
    """(ids, class) of examples, at most `context` ids each; the texts of a pair share the room, the shorter one keeps what it needs."""
    known, out = tokenizer.alphabet, []
    plain = [[spelled(text) for text in texts] for texts, _ in examples]
    kept = [["".join(c for c in text if c in known) for text in texts] for texts in plain]
    cut.characters += sum(len(text) for texts in plain for text in texts)
    cut.dropped += sum(len(text) for texts in plain for text in texts) - sum(len(text) for texts in kept for text in texts)
    for texts, (_, label) in zip(kept, examples):
        parts = tokenizer.encode_all(texts)
        room = context - len(parts)
        cut.texts += 1
        cut.shortened += sum(map(len, parts)) > room
        while sum(map(len, parts)) > room:
            max(parts, key=len).pop()
        out.append(([token for part in parts for token in (end_token, *part)], label))
    return out


class Glue(Task):
    """A classifier of one GLUE set, `training.glue`; read at position 0. Batches hold texts of equal length, so that nothing is padded."""

    mask = True

    def __init__(self, *arguments):
        super().__init__(*arguments)
        c = self.config
        source, self.cut = SOURCES[self.settings["glue"]], Cut()
        if c.classes != len(source.classes):
            raise ValueError(f"{self.settings['glue']} has {len(source.classes)} classes, the config {c.classes}.")
        train, official = ([*encode(read(folder() / path, source), self.tokenizer, c.end_token, c.context, self.cut)]
                           for path in (source.train, source.development))
        order = np.random.default_rng(3).permutation(len(train))  # the files have an order of their own
        self.watch, self.official = [train[i] for i in order[:WATCH]], official
        self.lengths = defaultdict(list)
        for i in order[WATCH:]:
            self.lengths[len(train[i][0])].append(train[i])
        self.sizes = np.array(sorted(self.lengths))
        self.share = np.array([len(self.lengths[n]) for n in self.sizes]) / (len(train) - WATCH)

    def batch(self, random):
        group = self.lengths[int(random.choice(self.sizes, p=self.share))]
        chosen = [group[i] for i in random.permutation(len(group))[: self.settings["batch_pairs"]]]
        ids, labels = equal_length(chosen, len(chosen), random)
        return torch.tensor(ids), torch.tensor(labels)

    def loss(self, logits, targets):
        return F.cross_entropy(logits[:, 0], targets)

    @torch.no_grad()
    def said(self, model: Callable, examples: list[tuple[list[int], int]]) -> tuple[np.ndarray, np.ndarray, float]:
        """Classes that a model names, those that are right, int [examples], and nats per example."""
        named, right, total = [], [], 0.0
        groups = defaultdict(list)
        for example in examples:
            groups[len(example[0])].append(example)
        for group in (many[at : at + BATCH] for many in groups.values() for at in range(0, len(many), BATCH)):
            logits = answers(model, torch.tensor([ids for ids, _ in group]))[:, 0]
            labels = torch.tensor([label for _, label in group])
            total += F.cross_entropy(logits, labels, reduction="sum").item()
            named += logits.argmax(-1).tolist()
            right += labels.tolist()
        return np.array(named), np.array(right), total / len(examples)

    def development(self, model, examples=None):
        named, right, nats = self.said(model, examples or self.watch)
        return {"development_nats": round(nats, 4), "accuracy": round(float((named == right).mean()), 4)}


def scores(named: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Accuracy, Matthews' correlation (CoLA's measure) and F1 of class 1 (MRPC's), of classes 0 and 1."""
    hit, miss = int(((named == 1) & (right == 1)).sum()), int(((named == 0) & (right == 1)).sum())
    false, clear = int(((named == 1) & (right == 0)).sum()), int(((named == 0) & (right == 0)).sum())
    root = float((hit + false) * (hit + miss) * (clear + false) * (clear + miss)) ** 0.5
    return {"accuracy": round((hit + clear) / len(right), 4), "matthews": round((hit * clear - false * miss) / root, 4) if root else 0.0,
            "f1": round(2 * hit / max(1, 2 * hit + false + miss), 4)}
