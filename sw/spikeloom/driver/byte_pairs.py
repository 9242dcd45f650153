"""A tokenizer without further packages: byte-pair encoding as the project's own vocabularies need it.

Boards have numpy and pynq alone; elsewhere the package `tokenizers` does the same, and more. Tests hold both equal.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .errors import BadImage


class UnknownTokenizer(BadImage):
    """The tokenizer is of a kind that only the package `tokenizers` knows."""

    remedy = "Run: pip install tokenizers"


@dataclass(frozen=True)
class Encoded:
    """What `Tokenizer.encode` gives."""

    ids: list[int]


class Tokenizer:
    """The part of `tokenizers.Tokenizer` that `driver.text` uses, for byte-pair encoding over characters.

    Parameters
    ----------
    fields : dict
        Contents of a `tokenizer.json`: model BPE without byte fallback, pieces by one regular expression, no normalizer.

    Raises
    ------
    UnknownTokenizer
    """

    def __init__(self, fields: dict):
        model = fields["model"]
        self._check_kind(fields, model)
        self._ids = dict(model["vocab"])
        merges = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
        self._ranks = {merge: rank for rank, merge in enumerate(merges)}
        self._pieces = re.compile(fields["pre_tokenizer"]["pattern"]["Regex"]) if fields["pre_tokenizer"] else None
        self._special = {token["id"] for token in fields["added_tokens"] if token["special"]}
        self._texts = {number: text for text, number in self._ids.items()}
        self._kept: dict[str, list[int]] = {}

    @classmethod
    def from_str(cls, text: str) -> "Tokenizer":
        """From the text of a `tokenizer.json`. Raises UnknownTokenizer, and what a damaged text gives rise to."""
        return cls(json.loads(text))

    @staticmethod
    def _check_kind(fields, model):
        pieces, decoder = fields["pre_tokenizer"], fields["decoder"]
        known = (model["type"] == "BPE" and not model.get("byte_fallback") and not model.get("continuing_subword_prefix")
                 and not model.get("end_of_word_suffix") and not model.get("ignore_merges") and fields["normalizer"] is None
                 and (pieces is None or pieces["type"] == "Split" and pieces["behavior"] == "Isolated" and not pieces["invert"]
                      and "Regex" in pieces["pattern"]) and decoder is not None and decoder["type"] == "Fuse")
        if not known:
            raise UnknownTokenizer("The tokenizer of the image is of a kind that needs the package tokenizers.")

    def get_vocab(self) -> dict[str, int]:
        """Token -> id."""
        return dict(self._ids)

    def encode(self, text: str, add_special_tokens: bool = False) -> Encoded:
        """Token ids; characters that the vocabulary lacks are left out, and special tokens are never put in."""
        return Encoded([number for piece in self._split(text) for number in self._merge(piece)])

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids."""
        return "".join(self._texts.get(int(number), "") for number in ids
                       if not (skip_special_tokens and number in self._special))

    def _split(self, text):
        """Pieces that no merge crosses: matches of the pattern, and what lies between them."""
        if self._pieces is None:
            return [text]
        pieces, at = [], 0
        for match in self._pieces.finditer(text):
            pieces += [text[at:match.start()], match.group()]
            at = match.end()
        return [piece for piece in (*pieces, text[at:]) if piece]

    def _merge(self, piece):
        """Ids of a piece: the earliest learned pair is joined first, the leftmost of equals."""
        if piece not in self._kept:
            parts = [character for character in piece if character in self._ids]
            while len(parts) > 1:
                rank, at = min((self._ranks.get(pair, len(self._ranks)), i) for i, pair in enumerate(zip(parts, parts[1:])))
                if rank == len(self._ranks):
                    break
                parts[at:at + 2] = ["".join(parts[at:at + 2])]
            self._kept[piece] = [self._ids[part] for part in parts]
        return self._kept[piece]
