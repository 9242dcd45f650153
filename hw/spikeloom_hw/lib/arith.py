"""Combinational arithmetic without multipliers, and selections that need none to find their offset."""

from collections.abc import Sequence

from amaranth.hdl import Array, Cat, Const, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.utils import exact_log2


def _bounds(shape: Shape) -> tuple[int, int]:
    """Smallest and largest value of a shape."""
    if shape.signed:
        return -(1 << (shape.width - 1)), (1 << (shape.width - 1)) - 1
    return 0, (1 << shape.width) - 1


def _narrow(value: Value, low: int, high: int) -> Value:
    """The value in the smallest shape that holds low..high, which it is known to keep to."""
    if low < 0:
        width = max((~low).bit_length(), high.bit_length()) + 1
        return value.as_signed() if width >= len(value) else value[:width].as_signed()
    return value.as_unsigned()[:max(1, high.bit_length())]


def adder_tree(values: Sequence) -> Value:
    """Sum of values in a balanced tree; every node is just wide enough for what can arrive.

    Signed and unsigned values may be mixed. The sum of nothing is a zero of one bit.
    """
    nodes = [(Value.cast(value), *_bounds(Value.cast(value).shape())) for value in values]
    if not nodes:
        return Const(0, 1)
    while len(nodes) > 1:
        pairs = [_add(*nodes[i:i + 2]) for i in range(0, len(nodes) - 1, 2)]
        nodes = pairs + nodes[len(pairs) * 2:]
    return nodes[0][0]


def _add(a: tuple, b: tuple) -> tuple:
    low, high = a[1] + b[1], a[2] + b[2]
    return _narrow(a[0] + b[0], low, high), low, high


def carry_save(m, a, b, c) -> tuple[Signal, Signal]:
    """Three values as two of the same sum, without a carry chain: (sum bits, carries).

    Adds its signals to module `m`. All are of the width of `a`, signed; the lowest carry is 0 and free for the caller.
    """
    width = len(a)
    a, b, c = (Value.cast(value)[:width] for value in (a, b, c))
    saved, carried = Signal(signed(width)), Signal(signed(width))
    m.d.comb += [saved.eq(a ^ b ^ c), carried.eq(Cat(Const(0, 1), (a & b) | (a & c) | (b & c)))]
    return saved, carried


def popcount(value) -> Value:
    """Number of ones, in the smallest width that holds it."""
    return adder_tree(list(Value.cast(value)))


def saturate(value, width: int) -> Value:
    """A signed value clipped to `width` signed bits."""
    value = Value.cast(value)
    low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
    if len(value) <= width:
        return value.as_signed()
    sign = value[-1]
    fits = (value[width - 1:] == 0) | value[width - 1:].all()
    return Mux(fits, value[:width].as_signed(), Mux(sign, Const(low, signed(width)), Const(high, signed(width)))).as_signed()


def shift_right(m, value, amount, width: int) -> tuple[Signal, Signal]:
    """The lowest `width` bits of a signed value shifted right, and whether the others are more than its sign.

    Adds its signals to module `m`. Each step keeps only what later steps can bring down to the lowest bits.
    """
    value, amount = Value.cast(value), Value.cast(amount)
    sign, lost = value[-1], []
    for place in reversed(range(len(amount))):
        kept = width + (1 << place) - 1
        bits = Cat(value, sign.replicate(max(0, kept + (1 << place) - len(value))))
        shifted = Signal(kept, name=f"shifted_{place}")
        m.d.comb += shifted.eq(Mux(amount[place], bits[1 << place:], bits))
        lost.append(~amount[place] & Cat(bit ^ sign for bit in bits[kept:]).any())
        value = shifted
    beyond = Signal()
    m.d.comb += beyond.eq(Cat(lost).any() | (value[width - 1] ^ sign))
    return value[:width], beyond


def shift_add_terms(value, small) -> list[Value]:
    """Gated shifts whose sum is an unsigned value times a narrow unsigned one."""
    value = Value.cast(value)
    return [Mux(bit, value << place, Const(0, unsigned(1))) for place, bit in enumerate(Value.cast(small))]


def shift_add_product(value, small) -> Value:
    """Unsigned value times a narrow unsigned one, as a sum of gated shifts."""
    return adder_tree(shift_add_terms(value, small))[:len(Value.cast(value)) + len(Value.cast(small))]


def rotate_left(value, places: int) -> Value:
    """The value rotated left by a constant."""
    value = Value.cast(value)
    places %= len(value)
    return Cat(value[len(value) - places:], value[:len(value) - places]) if places else value


def select_field(value, index, width: int) -> Value:
    """Field `index` of `width` bits each; `word_select` with a signal would multiply index by width."""
    value, index = Value.cast(value), Value.cast(index)
    if width & (width - 1) == 0:
        return value.bit_select(Cat(Const(0, exact_log2(width)), index), width) if width > 1 else value.bit_select(index, 1)
    return Array([value[i:i + width] for i in range(0, len(value), width)])[index]


def find_first(m, value) -> tuple[Value, Value, Value]:
    """Lowest one of a value: (there is one, there are several, its index); a tree, no carry chain.

    Adds its nodes to module `m` (an expression would be written out once per use). The width of the value is a power of
    two, at least 2; the index is meaningless where there is no one.
    """
    nodes = [(bit, Const(0, 1), None) for bit in Value.cast(value)]
    exact_log2(len(nodes))
    while len(nodes) > 1:
        nodes = [_first_of(m, *nodes[i:i + 2]) for i in range(0, len(nodes), 2)]
    return nodes[0]


def find_two(m, value) -> tuple[Value, Value, Value, Value, Value]:
    """Lowest two ones of a value: (there is one, there are two, there are more, index of the first, index of the second).

    As `find_first`, but that an index which does not exist is meaningless.
    """
    nodes = [(bit, Const(0, 1), Const(0, 1), None, None) for bit in Value.cast(value)]
    exact_log2(len(nodes))
    while len(nodes) > 1:
        nodes = [_two_of(m, *nodes[i:i + 2]) for i in range(0, len(nodes), 2)]
    return nodes[0]


def _two_of(m, low: tuple, high: tuple) -> tuple:
    one, two, more, first, second = low
    if first is None:
        first_index, second_index = ~one, Const(1, 1)
    else:
        first_index = Cat(Mux(one, first, high[3]), ~one)
        # The second lies in the lower half with the first, or it is the upper half's first, or both lie there.
        second_index = Cat(Mux(two, second, Mux(one, high[3], high[4])), ~two)
    values = (one | high[0], two | high[1] | (one & high[0]), more | high[2] | (two & high[0]) | (one & high[1]), first_index, second_index)
    node = tuple(Signal(len(value), name=name) for name, value in zip(("one", "two", "more", "first", "second"), values, strict=True))
    m.d.comb += [signal.eq(value) for signal, value in zip(node, values, strict=True)]
    return node


def _first_of(m, low: tuple, high: tuple) -> tuple:
    index = ~low[0] if low[2] is None else Cat(Mux(low[0], low[2], high[2]), ~low[0])
    node = tuple(Signal(len(value), name=name) for value, name in
                 ((low[0], "found"), (low[0], "several"), (index, "first")))
    m.d.comb += [node[0].eq(low[0] | high[0]), node[1].eq(low[1] | high[1] | (low[0] & high[0])), node[2].eq(index)]
    return node
