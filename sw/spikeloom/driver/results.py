"""What runs on a device give back."""

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
    #: What stands at each mask now.
    tokens: list[Token]


@dataclass(frozen=True)
class Label:
    """Class of a text."""

    id: int
    #: Of the model; its number where classes have no names.
    name: str
    #: Its logit.
    logit: int
    #: Tokens read.
    ids: list[int]
