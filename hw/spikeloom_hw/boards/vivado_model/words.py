"""Words of Tcl commands: lists, options, and refusals."""

import re

from ..vivado_tcl import TclError


def need(condition, text: str) -> None:
    """Refuse a command unless the condition holds."""
    if not condition:
        raise TclError(text)


def split_list(text: str) -> list[str]:
    """Elements of a Tcl list of plain and braced words."""
    words, level, word = [], 0, ""
    for character in text:
        if character == "{":
            level += 1
            if level == 1:
                continue
        elif character == "}":
            level -= 1
            if level == 0:
                words.append(word)
                word = ""
                continue
        if character.isspace() and level == 0:
            if word:
                words.append(word)
            word = ""
        else:
            word += character
    return [*words, word] if word else words


def options(words, flags=(), values=()):
    """Options with and without value, and the other words. Raises TclError for an unknown option."""
    found, rest, words = {}, [], list(words)
    while words:
        word = words.pop(0)
        if word in values:
            if not words:
                raise TclError(f"{word} needs a value")
            found[word] = words.pop(0)
        elif word in flags:
            found[word] = "1"
        elif re.match(r"-[a-z_]", word):
            raise TclError(f"unknown option {word}")
        else:
            rest.append(word)
    return found, rest
