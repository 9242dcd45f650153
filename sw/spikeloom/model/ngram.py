"""A character n-gram with interpolated Witten-Bell smoothing: the floor that any language model has to beat."""

import math
from collections import defaultdict


class CharacterNgram:
    """p(c | last n-1 characters), backing off smoothly to shorter contexts and at last to a uniform alphabet."""

    def __init__(self, order: int = 6):
        self.order = order
        self.counts: list[dict[str, dict[str, int]]] = [defaultdict(lambda: defaultdict(int)) for _ in range(order)]
        self.alphabet: set[str] = set()

    def train(self, texts: list[str], begin: str = "\0") -> "CharacterNgram":
        """Count every order in the texts; `begin` stands before the first character and after the last."""
        self.alphabet.add(begin)
        for text in texts:
            self.alphabet.update(text)
            line = begin + text + begin
            for at in range(1, len(line)):
                for size in range(min(self.order - 1, at) + 1):
                    self.counts[size][line[at - size : at]][line[at]] += 1
        return self

    def probability(self, history: str, character: str) -> float:
        """p(character | history), Witten-Bell over all orders."""
        p = 1 / len(self.alphabet)
        for size in range(min(self.order - 1, len(history)) + 1):
            followers = self.counts[size].get(history[len(history) - size :])
            if not followers:
                break
            total, kinds = sum(followers.values()), len(followers)
            p = (followers.get(character, 0) + kinds * p) / (total + kinds)
        return p

    def nats(self, text: str, begin: str = "\0") -> float:
        """Negative log-likelihood of a text; as of the models beside it, its end is not scored."""
        line = begin + text
        return -sum(math.log(self.probability(line[max(0, at - self.order + 1) : at], line[at]))
                    for at in range(1, len(line)))
