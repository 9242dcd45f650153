"""Encoders on a device: whole texts in; a token for every position, filled masks, or a class out."""

from ..arch.registers import Mode, Reason
from .core import Core
from .errors import ContextFull, PromptError, SpikeloomError, WrongKind
from .faults import report
from .results import Filled, Label, Token
from .text import MASK, Text


class Encoding(Core):
    """The part of `device.Device` that runs encoders. A text leaves nothing behind: there is no conversation."""

    def encode(self, ids, *, dense: bool = False, trace: bool = False, stop_on_saturation: bool = False) -> list[Token]:
        """Read a whole text at once; the likeliest token of every position, or the class alone (at position 0).

        Parameters
        ----------
        ids : sequence of int
            At least one token, at most the model's context.
        dense : bool
            Read every row, silent or not: same answer, more bytes.
        trace : bool
            Record a checksum per command, see `trace_records`.

        Raises
        ------
        WrongKind, PromptError, ContextFull
            Before anything is sent.
        SpikeloomError
            One of its types, when the device fails.
        """
        self._check_ready(encoder=True)
        ids = self._check_tokens(ids)
        if not ids:
            raise PromptError("The text is empty.")
        if len(ids) > self.model.context:
            raise ContextFull(f"{len(ids)} tokens do not fit the context of {self.model.context} positions.", remedy="Shorten the text.")
        if trace:
            self._prepare_trace(len(ids))
        self._run(Mode.ENCODE, ids, 0, dense=dense, trace=trace, stop_on_saturation=stop_on_saturation)
        tokens = [self._token(record) for record in self._follow()]
        if self.reason != Reason.ENCODED:
            raise SpikeloomError(f"The run over the text ended with {self.reason.name}.", state=report(self.registers))
        return tokens

    def fill(self, text: str, **options) -> Filled:
        """Fill each `<mask>` of a text with the likeliest token; options as those of `encode`.

        Raises
        ------
        WrongKind
            Where the image classifies, or its vocabulary has no mask.
        PromptError, ContextFull, SpikeloomError
        """
        self._check_ready(encoder=True)
        mask = self._card.get("mask_token")
        if self.model.classes or mask is None:
            raise WrongKind(f"{self.model.name} fills no masks" + (": it classifies." if self.model.classes else "."),
                            remedy="Load an encoder that was trained on masked text.")
        reader = self._text()
        given = [self.model.end_token, *reader.encode_masked(text, mask)]
        masks = [place for place, token in enumerate(given) if token == mask]
        if not masks:
            raise PromptError(f"The text has no {MASK}.", remedy=f'Put {MASK} where a word is wanted: "Once upon a {MASK}".')
        tokens = self.encode(given, **options)
        ids = [tokens[place].id if place in masks else token for place, token in enumerate(given)]
        return Filled(reader.decode(ids), given, ids, masks, tokens)

    def classify(self, text: str, second: str | None = None, **options) -> Label:
        """The class of a text, or of a pair of texts; options as those of `encode`.

        Raises
        ------
        WrongKind
            Where the image has no classes.
        PromptError, ContextFull, SpikeloomError
        """
        self._check_ready(encoder=True)
        if not self.model.classes:
            raise WrongKind(f"{self.model.name} has no classes.", remedy="Load an encoder that was trained to classify.")
        given = self._text().encode_pair(text, second, separator=self.model.end_token)
        token, = self.encode(given, **options)
        names = self._card.get("class_names") or []
        return Label(names[token.id] if token.id < len(names) else str(token.id), token, given)

    def _text(self):
        if "tokenizer" not in self.image.sections:
            raise PromptError("The image has no tokenizer, so that it takes no text.", remedy="Give token ids to encode().")
        return Text(self.image.sections["tokenizer"].decode())
