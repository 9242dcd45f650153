"""Texts for training, development and evaluation, as one token stream from which windows are drawn.

The data folder is `SPIKELOOM_DATA`, or `../shared/data` beside the repository where it exists; the stories lie in its
`tinystories/tiny-stories.json.gz`. Without such a folder the project's own Shakespeare is used (`data/` beside this
file). Held out and never trained on: the last 300 stories, or the last tenth of each play.
"""

import gzip
import json
import lzma
import os
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import torch

HELD_OUT = 300
DEVELOPMENT = 30
SHAKESPEARE = Path(__file__).parent / "data" / "shakespeare.txt.xz"


@dataclass(frozen=True)
class Split:
    """Texts of one corpus, each complete in itself."""

    name: str
    train: list[str]
    development: list[str] = field(repr=False)
    held_out: list[str] = field(repr=False)


def data_folder() -> Path | None:
    """The folder of training data, or None where there is none."""
    named = os.environ.get("SPIKELOOM_DATA")
    if named:
        return Path(named)
    beside = Path(__file__).resolve().parents[3].parent / "shared" / "data"
    return beside if beside.is_dir() else None


def load_stories(folder: Path) -> Split:
    """3,000 TinyStories; the last 300 are held out, the 30 before them only watch the training."""
    with gzip.open(folder / "tinystories" / "tiny-stories.json.gz", "rt", encoding="utf-8") as file:
        texts = json.load(file)["texts"]
    cut = len(texts) - HELD_OUT
    return Split("tinystories", texts[: cut - DEVELOPMENT], texts[cut - DEVELOPMENT : cut], texts[cut:])


def load_shakespeare(path: Path = SHAKESPEARE) -> Split:
    """The complete Shakespeare (texts divided by form feeds); the last tenth of each is held out."""
    texts = lzma.decompress(path.read_bytes()).decode("utf-8").split("\f")
    train, development, held_out = [], [], []
    for text in texts:
        first, second = int(len(text) * 0.89), int(len(text) * 0.9)
        train.append(text[:first])
        development.append(text[first:second])
        held_out.append(text[second:])
    return Split("shakespeare", train, development, held_out)


def load_tiny_shakespeare() -> Split:
    """The 1.1 MB of tiny Shakespeare, its last tenth held out; where there is no data folder, as much of the project's own."""
    folder = data_folder()
    path = folder / "tinyshakespeare" / "input.txt" if folder else None
    if path is not None and path.is_file():
        text = path.read_text(encoding="utf-8")
        first, second = int(len(text) * 0.89), int(len(text) * 0.9)
        watched = [text[at : min(at + 512, second)] for at in range(first, second, 512)]
        return Split("tinyshakespeare", [text[:first]], watched, [text[second:]])
    own = load_shakespeare()
    parts = (own.train[:7], own.development[:7], own.held_out[:7])
    allowed = set().union(*own.train[:7])
    return Split("shakespeare, seven plays", *([text for text in part if allowed.issuperset(text)] for part in parts))


def load_default() -> Split:
    """Stories where a data folder has them, else Shakespeare."""
    folder = data_folder()
    if folder is not None and (folder / "tinystories" / "tiny-stories.json.gz").is_file():
        return load_stories(folder)
    return load_shakespeare()


def corpus_of(name: str) -> Split:
    """What a model of that name was trained on: stories, or the characters of tiny Shakespeare for `shakespeare`."""
    return load_tiny_shakespeare() if name.startswith("shakespeare") else load_default()


def load_practice(path: Path) -> list[dict]:
    """Stories written by `spikeloom.model.practice`: {"text", "complete"}."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return json.load(file)["stories"]


def pack_texts(texts: list[list[int]], complete: list[bool] | None = None) -> dict[str, np.ndarray]:
    """Token ids of texts side by side: `tokens` int32 [N], `sizes` int32 [texts], `complete` bool [texts]."""
    sizes = np.array([len(ids) for ids in texts], np.int32)
    flat = np.fromiter(chain.from_iterable(texts), np.int32, int(sizes.sum()))
    return {"tokens": flat, "sizes": sizes, "complete": np.ones(len(texts), bool) if complete is None else np.array(complete, bool)}


def encode_practice(path: Path, tokenizer) -> dict[str, np.ndarray]:
    """A practice file as `pack_texts` lays it out; kept beside it, where that can be written, until the file is written again.

    Texts with characters that the tokenizer never saw are dropped.
    """
    kept = path.with_name(f"{path.name.partition('.')[0]}.{tokenizer.digest}.npz")
    if kept.exists() and kept.stat().st_mtime >= path.stat().st_mtime:
        with np.load(kept) as file:
            return dict(file)
    stories = [s for s in load_practice(path) if s["text"] and not tokenizer.unknown(s["text"])]
    packed = pack_texts(tokenizer.encode_all([s["text"] for s in stories]), [s["complete"] for s in stories])
    if os.access(path.parent, os.W_OK):
        partial = kept.with_suffix(f".{os.getpid()}.part")
        with open(partial, "wb") as file:
            np.savez(file, **packed)
        partial.rename(kept)
    return packed


class TokenStream:
    """Texts side by side, each begun by the end token, from which windows of tokens and targets are drawn."""

    def __init__(self, end_token: int):
        self.end_token = end_token
        self.tokens = np.zeros(0, np.int32)  # [N]
        self.targets = np.zeros(0, np.int32)  # [N]; -100 where the next token is unknown
        self.start = np.zeros(0, np.int32)  # [N] first token of the text that holds position n
        self.stop = np.zeros(0, np.int32)  # [N] one past its last token

    def extend(self, texts: list[list[int]], complete: list[bool] | None = None) -> None:
        """Append texts; the last target of an incomplete text is masked."""
        self.extend_packed(pack_texts(texts, complete))

    def extend_packed(self, *parts: dict[str, np.ndarray]) -> None:
        """Append what `pack_texts` made."""
        columns = [[self.tokens], [self.targets], [self.start], [self.stop]]
        at = len(self.tokens)
        for part in parts:
            ids, sizes = part["tokens"], part["sizes"].astype(np.int64) + 1
            stop = np.cumsum(sizes)
            start = stop - sizes
            tokens, targets = np.empty(len(ids) + len(sizes), np.int32), np.empty(len(ids) + len(sizes), np.int32)
            inner = np.ones(len(tokens), bool)
            inner[start] = False
            tokens[start], tokens[inner] = self.end_token, ids
            targets[:-1], targets[stop - 1] = tokens[1:], np.where(part["complete"], self.end_token, -100)
            for column, values in zip(columns, (tokens, targets, np.repeat(at + start, sizes), np.repeat(at + stop, sizes))):
                column.append(values.astype(np.int32))
            at += len(tokens)
        self.tokens, self.targets, self.start, self.stop = (np.concatenate(column) for column in columns)

    def __len__(self) -> int:
        return len(self.tokens)

    def windows(self, count: int, context: int, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and targets int64 [count, context], drawn so that a window crosses a text's border only where it must.

        Raises
        ------
        ValueError
            When all texts together are shorter than a window.
        """
        if len(self) < context:
            raise ValueError(f"The texts hold {len(self)} tokens, a window takes {context}: train on more text, or with a shorter context.")
        centre = random.integers(0, len(self), count)
        first, last = self.start[centre], np.maximum(self.start[centre], self.stop[centre] - context)
        begin = np.clip(centre - context // 2, first, last)
        begin = np.minimum(begin, len(self) - context)
        index = begin[:, None] + np.arange(context)
        return torch.from_numpy(self.tokens[index].astype(np.int64)), torch.from_numpy(self.targets[index].astype(np.int64))
