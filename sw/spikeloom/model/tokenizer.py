"""Byte-pair tokenizer over the characters that the training text holds, with an exact round trip.

The vocabulary is `<|end|>` (id 0: begins and ends every text), one token per seen character, then merges. There is no
unknown token: text with a character that was never seen is refused, because the model could not have learned it.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

END = "<|end|>"
#: Stands for a token to be filled in (encoders' vocabularies alone have it, id 1).
MASK = "<|mask|>"
#: A word or a run of signs, each with the blank before it; no piece crosses these borders.
PIECES = r" ?[A-Za-z']+| ?[^A-Za-z' ]+| +"


class UnknownCharacter(ValueError):
    """A text holds characters that the tokenizer never saw."""


class BadTokenizer(ValueError):
    """A `tokenizer.json` is damaged, or not one."""


class Tokenizer:
    """Thin face on Hugging Face `tokenizers`: checks the alphabet, keeps the end token out of ordinary text."""

    def __init__(self, backend):
        self.backend = backend
        self.alphabet = frozenset(piece for piece in backend.get_vocab() if len(piece) == 1)

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int, *, mask: bool = False) -> "Tokenizer":
        """Learn exactly `vocabulary` tokens, `<|mask|>` among them where asked for.

        Raises
        ------
        ValueError
            When the text is too small for that many.
        """
        import tokenizers as hf

        texts = list(texts)
        backend = hf.Tokenizer(hf.models.BPE())
        backend.pre_tokenizer = hf.pre_tokenizers.Split(hf.Regex(PIECES), "isolated")
        backend.decoder = hf.decoders.Fuse()
        trainer = hf.trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[END, MASK][: 1 + mask], show_progress=False,
                                         initial_alphabet=sorted(set().union(*texts)))
        backend.train_from_iterator(texts, trainer)
        if backend.get_vocab_size() != vocabulary:
            raise ValueError(f"The text yields {backend.get_vocab_size()} tokens, {vocabulary} were asked for.")
        return cls(backend)

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Read a `tokenizer.json`.

        Raises
        ------
        FileNotFoundError, BadTokenizer
        """
        return cls.from_text(Path(path).read_text(encoding="utf-8", errors="replace"), str(path))

    @classmethod
    def from_text(cls, text: str, source: str = "tokenizer.json") -> "Tokenizer":
        """From the text of a `tokenizer.json`, which a complaint calls `source`.

        Raises
        ------
        BadTokenizer
        """
        import tokenizers as hf

        try:
            return cls(hf.Tokenizer.from_str(text))
        except Exception as error:  # the library raises nothing narrower
            raise BadTokenizer(f"{source} is no tokenizer: {error}. Export the model again, or put back the file that belongs to it."
                               ) from error

    def save(self, path: Path | str) -> None:
        """Write a `tokenizer.json`."""
        self.backend.save(str(path))

    @property
    def digest(self) -> str:
        """Names what this tokenizer made: equal for equal tokenizers."""
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()[:16]

    @property
    def size(self) -> int:
        """Number of tokens, `<|end|>` included."""
        return self.backend.get_vocab_size()

    def unknown(self, text: str) -> list[str]:
        """Characters of `text` outside the alphabet, sorted."""
        return sorted(set(text) - self.alphabet)

    def _check(self, text: str) -> None:
        unknown = self.unknown(text)
        if unknown:
            raise UnknownCharacter(f"The tokenizer never saw {', '.join(map(repr, unknown))}; remove or replace them.")

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without `<|end|>`.

        Raises
        ------
        UnknownCharacter
            When the text holds a character outside the alphabet.
        """
        self._check(text)
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        """`encode` of many texts, faster."""
        for text in texts:
            self._check(text)
        return [item.ids for item in self.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; `<|end|>` is left out."""
        return self.backend.decode(list(ids), skip_special_tokens=True)
