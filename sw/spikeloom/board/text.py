"""Text in and out without further packages: byte-pair encoding as the project's own tokenizers need it.

Boards have numpy and pynq alone. Where the package `tokenizers` is installed it is used instead; tests hold both equal.
"""

import importlib.util
import json
import re
from collections.abc import Iterable

from ..driver.errors import BadImage, PromptError
from ..driver.text import Text


class UnknownTokenizer(BadImage):
    """The tokenizer of the image is of a kind that only the package `tokenizers` knows."""

    remedy = "Run: pip install tokenizers"


def open_text(tokenizer_json: str) -> "Text | BoardText":
    """The tokenizer of an image, by the package `tokenizers` or by this module. Raises BadImage, UnknownTokenizer."""
    if importlib.util.find_spec("tokenizers") is not None:
        return Text(tokenizer_json)
    return BoardText(tokenizer_json)


class BoardText:
    """Same face and same answers as `driver.text.Text`, for byte-pair tokenizers over characters.

    Parameters
    ----------
    tokenizer_json : str
        Text of a `tokenizer.json`: model BPE without byte fallback, pieces by one regular expression, no normalizer.

    Raises
    ------
    BadImage, UnknownTokenizer
    """

    def __init__(self, tokenizer_json: str):
        try:
            fields = json.loads(tokenizer_json)
            model = fields["model"]
            self._check_kind(fields, model)
            self._ids = dict(model["vocab"])
            merges = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
            self._ranks = {merge: rank for rank, merge in enumerate(merges)}
            self._pieces = re.compile(fields["pre_tokenizer"]["pattern"]["Regex"]) if fields["pre_tokenizer"] else None
            special = {token["id"]: token["content"] for token in fields["added_tokens"] if token["special"]}
        except (ValueError, KeyError, TypeError, AttributeError, re.error) as error:
            raise BadImage(f"The tokenizer of the image is damaged: {error}.") from error
        self._special = set(special.values())
        self._texts = {number: text for text, number in self._ids.items() if number not in special}
        self._kept: dict[str, list[int]] = {}

    @staticmethod
    def _check_kind(fields, model):
        pieces, decoder = fields["pre_tokenizer"], fields["decoder"]
        known = (model["type"] == "BPE" and not model.get("byte_fallback") and not model.get("continuing_subword_prefix")
                 and not model.get("end_of_word_suffix") and not model.get("ignore_merges") and fields["normalizer"] is None
                 and (pieces is None or pieces["type"] == "Split" and pieces["behavior"] == "Isolated" and not pieces["invert"]
                      and "Regex" in pieces["pattern"]) and decoder is not None and decoder["type"] == "Fuse")
        if not known:
            raise UnknownTokenizer("The tokenizer of the image is of a kind that needs the package tokenizers.")

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without begin and end tokens.

        Raises
        ------
        PromptError
            When the text is empty, or names the characters that the vocabulary cannot say.
        """
        if not text:
            raise PromptError("The prompt is empty.")
        unknown = [c for c in dict.fromkeys(text) if c not in self._ids or c in self._special]
        if unknown:
            named = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in unknown[:8])
            raise PromptError(f"The model's vocabulary has no way to write {named}.", remedy="Leave these characters out, or replace them.")
        return [number for piece in self._split(text) for number in self._merge(piece)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; special tokens are left out."""
        return "".join(self._texts.get(int(number), "") for number in ids)

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
            parts = list(piece)
            while len(parts) > 1:
                rank, at = min((self._ranks.get(pair, len(self._ranks)), i) for i, pair in enumerate(zip(parts, parts[1:])))
                if rank == len(self._ranks):
                    break
                parts[at:at + 2] = ["".join(parts[at:at + 2])]
            self._kept[piece] = [self._ids[part] for part in parts]
        return self._kept[piece]
