"""The code of a level: 0..level_max as it stands, all ones for -1 (a ternary spike below zero)."""

from amaranth.hdl import Cat, Value


def is_minus(level) -> Value:
    """Whether a level is -1."""
    return Value.cast(level).all()


def spoke_and_minus(levels, width: int) -> tuple[Value, Value]:
    """(not zero, -1): a bit per level of `width` bits each, level 0 lowest."""
    levels = Value.cast(levels)
    each = [levels[at:at + width] for at in range(0, len(levels), width)]
    return Cat(level.any() for level in each), Cat(is_minus(level) for level in each)
