"""Models as judges of text: log-likelihoods of a stored model's integers, of its float form and of its softmax twin, one face for all.

Texts with characters that a tokenizer never saw are spelled with those it knows where they have a plain form (é: e, “: ", –: -), and
what is left is dropped (`spell`); how much that changed is for the caller to say.
"""

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from . import reference, store
from .evaluate import log_softmax_of, log_softmax_of_integers
from .integer_torch import IntegerSequences
from .tokenizer import Tokenizer

#: Signs with a plain form that Unicode's decomposition does not give.
PLAIN = str.maketrans({"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'", "’": "'", "`": "'", "–": "-", "—": "-", "−": "-",
                       "‐": "-", "…": "...", "(": ",", ")": ",", "ß": "ss", "æ": "ae", "Æ": "Ae", "ø": "o", "ł": "l", "œ": "oe"})


def spell(text: str, alphabet: frozenset[str]) -> tuple[str, int]:
    """The text in characters of the alphabet, and how many of its characters were respelled or dropped."""
    out, changed = [], 0
    for sign in text:
        if sign in alphabet:
            out.append(sign)
            continue
        changed += 1
        plain = "".join(c for c in unicodedata.normalize("NFKD", sign.translate(PLAIN)) if not unicodedata.combining(c))
        out += [c for c in plain if c in alphabet]
    return "".join(out), changed


@dataclass
class Judge:
    """A model that tells how likely texts are.

    Members
    -------
    name : str
        "integer", "float" or "softmax twin".
    log_probabilities : callable
        int64 [B, N] -> float [B, N, V].
    """

    name: str
    log_probabilities: Callable[[torch.Tensor], torch.Tensor]
    tokenizer: Tokenizer
    context: int
    end_token: int
    seen: int = 0
    changed: int = 0

    def encode(self, text: str) -> list[int]:
        """Token ids; counts the characters that had to be respelled."""
        plain, changed = spell(text, self.tokenizer.alphabet)
        self.seen, self.changed = self.seen + len(text), self.changed + changed
        return self.tokenizer.encode(plain)

    @torch.no_grad()
    def continuations(self, pairs: list[tuple[str, str]], batch: int = 24,
                      advance: Callable[[int], None] = lambda _: None) -> list[tuple[float, bool]]:
        """(log-likelihood of the second text after the first, whether greedy decoding would write it) of each pair.

        What does not fit the context is cut off at the front.
        """
        rows = []
        for first, second in pairs:
            after = self.encode(second)
            stream = [self.end_token, *self.encode(first), *after][-(self.context + 1):]
            rows.append((stream, min(len(after), len(stream) - 1)))
        out: list[tuple[float, bool]] = [(0.0, True)] * len(rows)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
        for at in range(0, len(order), batch):
            part = order[at : at + batch]
            longest = max(len(rows[i][0]) for i in part) - 1
            inputs = torch.full((len(part), max(1, longest)), self.end_token)
            for line, i in enumerate(part):
                inputs[line, : len(rows[i][0]) - 1] = torch.tensor(rows[i][0][:-1])
            logs = self.log_probabilities(inputs)
            for line, i in enumerate(part):
                stream, count = rows[i]
                if count:
                    last = len(stream) - 1
                    own, targets = logs[line, last - count : last], torch.tensor(stream[-count:])
                    out[i] = own.gather(-1, targets[:, None]).double().sum().item(), bool((own.argmax(-1) == targets).all())
            advance(len(part))
        return out

    def nats(self, texts: list[list[int]]) -> float:
        """Summed negative log-likelihood of token sequences, by the protocol of `evaluate`."""
        from .evaluate import summed_nats

        return summed_nats(self.log_probabilities, texts, self)


def judges(folder: Path, names: tuple[str, ...] = ("integer", "float", "softmax twin")) -> Iterator[Judge]:
    """The judges that a model folder has: its integers, and what lies in its `reference`."""
    stored, tokenizer = store.load(folder), Tokenizer.load(folder / "tokenizer.json")
    config = stored.config
    if "integer" in names:
        integers = log_softmax_of_integers(IntegerSequences(stored.tensors, config), stored.logit_scale)
        yield Judge("integer", integers, tokenizer, config.context, config.end_token)
    for name, file in (("float", "float"), ("softmax twin", "twin")):
        path = folder / "reference" / f"{file}.safetensors"
        if name in names and path.is_file():
            model, _ = reference.load(path)
            yield Judge(name, log_softmax_of(model), tokenizer, config.context, config.end_token)
