"""Text in and out: the image's tokenizer, and streaming in whole characters."""

from collections.abc import Iterable, Iterator

from .errors import BadImage, PromptError

#: How a user writes a masked word.
MASK = "<mask>"
#: How vocabularies write a blank: plain, byte level, SentencePiece.
_BLANKS = " \u0120\u2581"
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Text:
    """The tokenizer that travels with an image.

    Parameters
    ----------
    tokenizer_json : str
        Text of a `tokenizer.json` of the `tokenizers` package.

    Raises
    ------
    BadImage
        When it is damaged.
    """

    def __init__(self, tokenizer_json: str):
        try:
            from tokenizers import Tokenizer
        except ModuleNotFoundError:  # as on boards
            from .byte_pairs import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json)
        except BadImage:
            raise
        except Exception as error:  # the package raises plain Exception
            raise BadImage(f"The tokenizer of the image is damaged: {error}.") from error

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without begin and end tokens.

        Raises
        ------
        PromptError
            When the text is empty, or names the characters that the vocabulary cannot say.
        """
        if not text:
            raise PromptError("The prompt is empty.")
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise PromptError("The prompt holds bytes that are no text: it is not valid UTF-8.", remedy="Give it as UTF-8.")
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if self._lossless(text, ids):
            return ids
        unknown = [c for c in dict.fromkeys(text)
                   if not self._lossless(c, self._tokenizer.encode(c, add_special_tokens=False).ids)]
        named = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in unknown[:8])
        raise PromptError(f"The model's vocabulary has no way to write {named or 'this text'}.",
                          remedy="Leave these characters out, or replace them.")

    def encode_masked(self, text: str, mask: int) -> list[int]:
        """Token ids of a text in which `MASK` stands for one token, that of id `mask`.

        Where the vocabulary's words carry the blank before them, so does the word that the mask stands for.

        Raises
        ------
        PromptError
            As `encode`.
        """
        blanks = any(len(piece) > 1 and piece[0] in _BLANKS for piece in self._tokenizer.get_vocab())
        *before, last = text.split(MASK)
        ids = []
        for part in before:
            part = part.rstrip(" ") if blanks else part
            ids += [*(self.encode(part) if part else ()), mask]
        return ids + (self.encode(last) if last or not ids else [])

    def encode_pair(self, text: str, second: str | None = None, *, separator: int) -> list[int]:
        """separator, text[, separator, second text]: what encoders read.

        Raises
        ------
        PromptError
            As `encode`.
        """
        return [i for part in (text, second) if part is not None for i in (separator, *self.encode(part))]

    def _lossless(self, text, ids):
        return bool(ids) and self.decode(ids) == text

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; special tokens are left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)


class Stream:
    """Turns tokens into text as they come, in whole characters.

    A token that ends inside a UTF-8 sequence waits for the next one.

    Parameters
    ----------
    text : Text
    """

    def __init__(self, text: Text):
        self._text = text
        self._ids: list[int] = []
        self._said = ""

    def push(self, token: int) -> str:
        """The characters that this token completes; may be empty."""
        self._ids.append(token)
        whole = self._text.decode(self._ids)
        if whole.endswith(_UNFINISHED):
            return ""
        return self._say(whole)

    def finish(self) -> str:
        """What is left, broken characters replaced."""
        return self._say(self._text.decode(self._ids))

    def _say(self, whole):
        new, self._said = whole[len(self._said):], whole
        return new

    def over(self, tokens: Iterable[int]) -> Iterator[str]:
        """The text of many tokens, piece by piece."""
        for token in tokens:
            if piece := self.push(token):
                yield piece
        if piece := self.finish():
            yield piece
