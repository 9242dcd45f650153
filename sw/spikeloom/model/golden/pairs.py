"""Sentence pairs that the project makes itself: a line, and the same line with the inner letters of its words in another order.

Class 0: the first of the two is the natural one; class 1: the second. Balanced by construction, both lines have the same letters, and
nobody's data set is needed. Lines come from verse and prose of the corpus; speakers' names, stage directions and headings are left out.

The same lines with their words shuffled were too hard to begin with: 51.5% right after 670 steps, where the masked model that they
start from knows one token in seven.
"""

import re

import numpy as np

CLASSES = ("first", "second")
WORDS = (5, 11)
#: Words of a line whose letters can be disordered, at least.
MIXABLE = 3
_PLAIN = re.compile(r"[A-Z][a-z' ,;:!?.-]+")


def lines_of(texts: list[str]) -> list[str]:
    """Lines of 5 to 11 words that look like speech."""
    lines = [line.strip() for text in texts for line in text.split("\n")]
    return [line for line in lines if WORDS[0] <= len(line.split()) <= WORDS[1] and _PLAIN.match(line)
            and not line.isupper() and "[" not in line and sum(map(mixable, line.split())) >= MIXABLE]


def mixable(word: str) -> bool:
    """Whether the letters between the first and the last, and signs, can stand in another order."""
    return len(set(_inner(word))) > 1


def _inner(word):
    """The letters that move: those before any sign, but for the first and the last."""
    return re.match(r"[A-Za-z]*", word)[0][1:-1]


def disorder(line: str, random: np.random.Generator) -> str:
    """The line with the inner letters of every word shuffled; first and last letter and all signs keep their places."""
    return " ".join(_mixed(word, random) for word in line.split())


def _mixed(word, random):
    inner = _inner(word)
    while mixable(word):
        other = "".join(inner[i] for i in random.permutation(len(inner)))
        if other != inner:
            return word[0] + other + word[1 + len(inner):]
    return word


def draw(lines: list[str], count: int, encode_all, end_token: int, context: int,
         random: np.random.Generator) -> list[tuple[list[int], int]]:
    """Up to `count` examples (ids, class) that fit: end, first line, end, second line."""
    chosen = [" ".join(lines[i].split()) for i in random.integers(0, len(lines), count)]
    natural, other = encode_all(chosen), encode_all([disorder(line, random) for line in chosen])
    examples = []
    for good, bad in zip(natural, other):
        label = int(random.integers(2))
        first, second = (bad, good) if label else (good, bad)
        ids = [end_token, *first, end_token, *second]
        if len(ids) <= context:
            examples.append((ids, label))
    return examples


def fixed(lines: list[str], count: int, encode_all, end_token: int, context: int, seed: int = 2) -> list[tuple[list[int], int]]:
    """The same examples at every call, for development and evaluation."""
    return draw(lines, count, encode_all, end_token, context, np.random.default_rng(seed))


def equal_length(examples: list[tuple[list[int], int]], count: int, random: np.random.Generator) -> tuple[list[list[int]], list[int]]:
    """Up to `count` examples of one length, that of a random one."""
    length = len(examples[int(random.integers(len(examples)))][0])
    same = [example for example in examples if len(example[0]) == length][:count]
    return [ids for ids, _ in same], [label for _, label in same]
