"""The code of a level of `width` bits: itself where it is at most 2^(width - 1), which is the largest; above stand those below zero,
-1 as all ones. A level and its negative thus differ as in two's complement, and only the largest has no negative."""

from amaranth.hdl import Cat, Value


def is_minus(level) -> Value:
    """Whether a level is below zero."""
    level = Value.cast(level)
    return level[-1] & level[:-1].any()


def magnitude(level) -> Value:
    """A level without its sign, as wide as it was."""
    level = Value.cast(level)
    minus = is_minus(level)
    # In two's complement a bit of the negative differs where a lower one is set: no adder.
    return Cat(bit ^ (minus & level[:place].any()) for place, bit in enumerate(level))


def spoke_and_minus(levels, width: int) -> tuple[Value, Value]:
    """(not zero, below zero): a bit per level of `width` bits each, level 0 lowest."""
    levels = Value.cast(levels)
    each = [levels[at:at + width] for at in range(0, len(levels), width)]
    return Cat(level.any() for level in each), Cat(is_minus(level) for level in each)
