"""Texts of one's own for training: local files, or a data set of the Hugging Face hub.

    story.txt              one text; its last tenth is held out
    texts/                 every .txt in it, in the order of their names
    texts.jsonl, .json     one text per line or entry: a string, or an object with `text` (or `story`, `content`)
    hf:NAME, hf:NAME:CONF  the split `train` of a data set, through the library `datasets` (and its cache); local folders serve as NAME

Plain, or compressed as .gz. Of many texts the last tenth is held out, at most 300, and the 30 before them watch the training.
"""

import gzip
import json
import zlib
from pathlib import Path

from .corpus import DEVELOPMENT, HELD_OUT, Split

FIELDS = ("text", "story", "content")
#: A development text of a corpus that is one long text has this many characters.
PIECE = 512


def text_of(entry) -> str:
    """The text of a string or of an object.

    Raises
    ------
    ValueError
        When there is none; names the fields that are looked for.
    """
    if isinstance(entry, str):
        return entry
    for name in FIELDS:
        if isinstance(entry, dict) and isinstance(entry.get(name), str):
            return entry[name]
    raise ValueError(f"An entry holds no text: one of the fields {', '.join(FIELDS)} is needed.")


def _read(path: Path) -> list[str]:
    try:
        return _texts_in(path)
    except (UnicodeDecodeError, json.JSONDecodeError, gzip.BadGzipFile, zlib.error, EOFError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as texts: {error}. It must be UTF-8, plain or whole .gz, and hold what its name says."
                         ) from error


def _texts_in(path):
    opened = gzip.open if path.suffix == ".gz" else open
    kind = path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix
    with opened(path, "rt", encoding="utf-8") as file:
        if kind == ".txt":
            return [file.read()]
        if kind == ".jsonl":
            return [text_of(json.loads(line)) for line in file if line.strip()]
        if kind == ".json":
            held = json.load(file)
            return [text_of(entry) for entry in (held.get("texts", held.get("stories", [])) if isinstance(held, dict) else held)]
    raise ValueError(f"{path} is neither .txt, .json nor .jsonl (nor one of them with .gz).")


def _from_hub(name: str) -> list[str]:
    try:
        import datasets
    except ImportError as error:
        raise ValueError('The library `datasets` is not installed; get it with: pip install "spikeloom[train]"') from error
    name, _, configuration = name.partition(":")
    return [text_of(row) for row in datasets.load_dataset(name, configuration or None, split="train")]


def split_texts(name: str, texts: list[str]) -> Split:
    """Training, development and held-out part; one long text is cut, many are parted.

    Raises
    ------
    ValueError
        When there is too little to hold anything out.
    """
    texts = [text for text in texts if text.strip()]
    if len(texts) == 1 and len(texts[0]) >= 40 * PIECE:
        text = texts[0]
        first, second = int(len(text) * 0.88), int(len(text) * 0.9)
        watched = [text[at : min(at + PIECE, second)] for at in range(first, second, PIECE)]
        return known(Split(name, [text[:first]], watched, [text[second:]]))
    if len(texts) < 10:
        raise ValueError(f"{name} holds {len(texts)} texts; ten, or one of at least {40 * PIECE:,} characters, are needed to hold "
                         "some out.")
    held = min(HELD_OUT, max(1, len(texts) // 10))
    watched = min(DEVELOPMENT, max(1, held // 2))
    cut = len(texts) - held
    return known(Split(name, texts[: cut - watched], texts[cut - watched : cut], texts[cut:]))


def known(split: Split) -> Split:
    """Development and held-out texts without characters that training never shows, which a tokenizer would refuse."""
    alphabet = set().union(*split.train)

    def kept(texts):
        return ["".join(c for c in text if c in alphabet) for text in texts]

    return Split(split.name, split.train, kept(split.development), kept(split.held_out))


def load_texts(source: str) -> Split:
    """The texts that SOURCE names, split.

    Raises
    ------
    ValueError
        When the source is unknown, holds no text or too little; says what is taken.
    FileNotFoundError
        When there is no such file.
    """
    if source.startswith("hf:"):
        return split_texts(source[3:], _from_hub(source[3:]))
    path = Path(source)
    if path.is_dir():
        files = sorted(path.glob("*.txt"))
        if not files:
            raise ValueError(f"The folder {path} holds no .txt.")
        return split_texts(path.name, [text for file in files for text in _read(file)])
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}; give a file, a folder of .txt, or hf:NAME.")
    return split_texts(path.name, _read(path))
