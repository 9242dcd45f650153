"""Minimal pairs made from held-out text: a sentence against the same sentence with one thing wrong.

    spikeloom eval --suite minimal-pairs --model stories-260k

A model is right where the natural sentence is likelier, after the text before it. Chance is one half. The kinds:

    agreement     was/were, is/are, has/have exchanged
    pronoun       he/she, him/her, his/her, exchanged where the sentence before has named someone by it
    order         two neighbouring words exchanged
    repeated      a word said twice
    missing       a little word (the, a, to, of, and, in) left out
    shuffled      all words of the sentence in another order
    elsewhere     the sentence of another text in its place
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .judges import judges

SENTENCE = re.compile(r"[^.!?\n]+[.!?]")
AGREEMENT = {"was": "were", "were": "was", "is": "are", "are": "is", "has": "have", "have": "has"}
PRONOUNS = {"he": "she", "she": "he", "his": "her", "him": "her"}
LITTLE = ("the", "a", "to", "of", "and", "in")


class Pair(NamedTuple):
    """One question."""

    kind: str
    before: str
    right: str
    wrong: str


def _swap(words: list[str], table: dict[str, str], draw: random.Random) -> list[str] | None:
    places = [i for i, word in enumerate(words) if word in table]
    if not places:
        return None
    at = draw.choice(places)
    return words[:at] + [table[words[at]]] + words[at + 1 :]


def _agreement(words, before, draw):
    return _swap(words, AGREEMENT, draw)


def _pronoun(words, before, draw):
    said = set(re.findall(r"[a-z]+", before.lower()))
    known = {a: b for a, b in PRONOUNS.items() if a in said and b not in said}
    return _swap(words, known, draw)


def _order(words, before, draw):
    places = [i for i in range(1, len(words) - 2) if words[i].isalpha() and words[i + 1].isalpha() and words[i] != words[i + 1]]
    if not places:
        return None
    at = draw.choice(places)
    return words[:at] + [words[at + 1], words[at]] + words[at + 2 :]


def _repeated(words, before, draw):
    at = draw.randrange(1, len(words) - 1)
    return words[: at + 1] + words[at:]


def _missing(words, before, draw):
    places = [i for i, word in enumerate(words) if word in LITTLE]
    if not places:
        return None
    at = draw.choice(places)
    return words[:at] + words[at + 1 :]


def _shuffled(words, before, draw):
    inner = words[1:-1]
    draw.shuffle(inner)
    return [words[0], *inner, words[-1]]


KINDS: dict[str, Callable] = {"agreement": _agreement, "pronoun": _pronoun, "order": _order, "repeated": _repeated, "missing": _missing,
                              "shuffled": _shuffled}


def make(texts: list[str], each: int, seed: int = 1) -> list[Pair]:
    """`each` pairs of every kind, as far as the texts yield them."""
    draw, found = random.Random(seed), defaultdict(list)
    places = [(number, match) for number, text in enumerate(texts) for match in SENTENCE.finditer(text)]
    draw.shuffle(places)
    for number, match in places:
        right, before = match.group(), texts[number][: match.start()]
        words = right.strip().split(" ")
        if len(words) < 5 or len(before) < 40:
            continue
        lead = right[: len(right) - len(right.lstrip())]
        for kind, change in KINDS.items():
            if len(found[kind]) < each:
                changed = change(words, before, draw)
                wrong = None if changed is None else lead + " ".join(changed)
                if wrong and wrong != right:
                    found[kind].append(Pair(kind, before, right, wrong))
        if len(found["elsewhere"]) < each:
            other, elsewhere = draw.choice(places)
            sentence = lead + elsewhere.group().strip()
            if other != number and sentence != right:
                found["elsewhere"].append(Pair("elsewhere", before, right, sentence))
    return [pair for kind in (*KINDS, "elsewhere") for pair in found[kind]]


def measure(folder: Path, texts: list[str], each: int = 100, seed: int = 1, progress=lambda what, total: lambda done: None) -> dict:
    """Share of pairs that each judge gets right; in `elsewhere`, whose sentences differ in length, by the mean over characters."""
    pairs = make(texts, each, seed)
    counts = {kind: sum(pair.kind == kind for pair in pairs) for kind in (*KINDS, "elsewhere")}
    result = {"evidence": "[model]", "seed": seed, "pairs": counts, "chance": 0.5, "models": {}}
    for judge in judges(folder, ("integer", "softmax twin")):
        advance = progress(f"minimal pairs, {judge.name}", 2 * len(pairs))
        scores = judge.continuations([(pair.before, text) for pair in pairs for text in (pair.right, pair.wrong)], advance=advance)
        right = defaultdict(int)
        for pair, (good, _), (bad, _) in zip(pairs, scores[::2], scores[1::2]):
            if pair.kind == "elsewhere":
                good, bad = good / len(pair.right), bad / len(pair.wrong)
            right[pair.kind] += good > bad
        table = {kind: round(right[kind] / count, 4) for kind, count in counts.items() if count}
        result["models"][judge.name] = {"right": table, "mean": round(sum(table.values()) / len(table), 4)}
    return result
