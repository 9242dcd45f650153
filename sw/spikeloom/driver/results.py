"""What runs on a device return."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Token:
    """A generated token."""

    id: int
    #: Position of the token that produced it.
    position: int
    #: Its logit (without sampling noise), and the largest one of that position.
    logit: int
    best_logit: int


@dataclass(frozen=True)
class Score:
    """What the model thought of one given token, from the tokens before it."""

    target: int
    position: int
    #: Logit of the target, the most likely token, its logit.
    logit: int
    best: int
    best_logit: int


@dataclass(frozen=True)
class Filled:
    """A text whose masks an encoder has filled."""

    text: str
    #: Tokens as given, and with the masks replaced.
    given: list[int]
    ids: list[int]
    #: Positions of the masks.
    masks: list[int]
    #: What the model says at every position.
    tokens: list[Token]


@dataclass(frozen=True)
class Label:
    """Class of a text; its number is `token.id`."""

    #: As the model calls it; its number where classes have no names.
    name: str
    token: Token
    #: Tokens that were read.
    given: list[int]
