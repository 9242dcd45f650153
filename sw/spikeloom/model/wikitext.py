"""WikiText-2 in bits per byte, for tokenizers that do not know all of its characters.

    spikeloom eval --suite wikitext --model stories-260k

A tokenizer learned from children's stories has no sign for `<`, `@`, `=`, 9 or e with an accent, and a model cannot be charged for what it
cannot say. So the text is sent in two parts, both paid for: the characters that the tokenizer knows, by the model; and the others beside
them, as (1) which places they take, log2(n + 1) + log2 C(n, k) bits for k of n characters, and (2) their UTF-8 bytes at 8 bits each.
The sum over all bytes of the text is a valid code of the very same bytes, and so comparable with models that read everything.
Perplexity per word is 2^(bits / words), words being what blanks part, as papers count them.
"""

import math
import re
from pathlib import Path

from .corpus import data_folder
from .judges import judges

ARTICLE = re.compile(r"(?m)^(?= = [^=].*[^=] = $)")


def articles(text: str, most: int) -> list[str]:
    """Articles from the start of a file, `most` characters of them in all."""
    out, left = [], most
    for article in ARTICLE.split(text):
        if article.strip() and left > 0:
            out.append(article[:left])
            left -= len(out[-1])
    return out


def side_bits(texts: list[str], alphabet: frozenset[str]) -> tuple[float, float, int]:
    """(bits for the places, bits for the bytes, count) of characters outside the alphabet."""
    places = bytes_of = 0.0
    count = 0
    for text in texts:
        foreign = [c for c in text if c not in alphabet]
        n, k = len(text), len(foreign)
        places += math.log2(n + 1) + (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)
        bytes_of += 8 * sum(len(c.encode()) for c in foreign)
        count += k
    return places, bytes_of, count


def measure(folder: Path, most: int = 60_000, progress=lambda what, total: lambda done: None) -> dict:
    """Bits per byte and perplexity per word of each judge on the start of the test file.

    Raises
    ------
    ValueError
        When there is no data folder, or it lacks the text.
    """
    data = data_folder()
    if data is None or not (data / "wikitext-2" / "test.txt").is_file():
        raise ValueError("WikiText-2 is not here: set SPIKELOOM_DATA to a folder that holds wikitext-2/test.txt.")
    texts = articles((data / "wikitext-2" / "test.txt").read_text(encoding="utf-8"), most)
    size, words = sum(len(text.encode()) for text in texts), sum(len(text.split()) for text in texts)
    result = {"evidence": "[model]", "bytes": size, "words": words, "articles": len(texts), "models": {},
              "protocol": " ".join(__doc__.split("\n\n")[2].split())}
    for judge in judges(folder):
        alphabet = judge.tokenizer.alphabet
        places, bytes_of, count = side_bits(texts, alphabet)
        advance = progress(f"WikiText-2, {judge.name}", len(texts))
        said = 0.0
        for text in texts:
            said += judge.nats([judge.tokenizer.encode("".join(c for c in text if c in alphabet))]) / math.log(2)
            advance(1)
        bits = said + places + bytes_of
        result["characters_not_in_tokenizer"] = round(count / sum(map(len, texts)), 4)
        result["models"][judge.name] = {
            "bits_per_byte": round(bits / size, 4), "word_perplexity": round(2 ** (bits / words), 1),
            "of_it": {"model": round(said / size, 4), "places": round(places / size, 4),
                      "bytes_of_foreign_characters": round(bytes_of / size, 4)}}
    return result
