"""`lib.arith`: every function against Python integers, and the widths that it promises."""

import random

import pytest
from amaranth.hdl import Cat, Const, Module, Signal, signed, unsigned
from amaranth.sim import Simulator

from spikeloom_hw.lib import arith


def evaluate(build, shapes, cases, m=None):
    """Results of `build(*signals)` for each case of input values; `m` is the module that `build` adds to."""
    inputs = [Signal(shape, name=f"in{i}") for i, shape in enumerate(shapes)]
    value = build(*inputs)
    out = Signal(value.shape())
    m = m or Module()
    m.d.comb += out.eq(value)
    results = []

    async def bench(ctx):
        for case in cases:
            for signal, given in zip(inputs, case, strict=True):
                ctx.set(signal, given)
            await ctx.delay(1e-9)
            results.append(ctx.get(out))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    return value.shape(), results


def draw(rng, shape):
    value = rng.choice([0, (1 << shape.width) - 1, 1 << (shape.width - 1), rng.getrandbits(shape.width)])
    return value - (1 << shape.width) if shape.signed and value >> (shape.width - 1) else value


def test_carry_save():
    rng = random.Random(5)
    cases, m = [[draw(rng, signed(12)) for _ in range(3)] for _ in range(300)], Module()

    def build(a, b, c):
        saved, carried = arith.carry_save(m, a, b, c)
        return (saved + Cat(Const(1, 1), carried[1:]).as_signed())[:12].as_signed()

    _, results = evaluate(build, [signed(12)] * 3, cases, m)
    assert results == [(sum(case) + 1 + 2048) % 4096 - 2048 for case in cases]


@pytest.mark.parametrize("shapes, width", [
    ([unsigned(16)] * 8, 19), ([unsigned(1)] * 64, 7), ([unsigned(1)] * 3, 2), ([signed(8)] * 5, 11),
    ([signed(8), unsigned(8), unsigned(3)], 10), ([unsigned(4)], 4), ([signed(4)], 4), ([signed(8), signed(8)], 9),
])
def test_adder_tree(shapes, width):
    rng = random.Random(1)
    cases = [[draw(rng, shape) for shape in shapes] for _ in range(200)]
    shape, results = evaluate(lambda *values: arith.adder_tree(values), shapes, cases)
    assert results == [sum(case) for case in cases]
    assert shape.width == width and shape.signed == any(s.signed for s in shapes)


def test_adder_tree_of_nothing():
    assert arith.adder_tree([]).shape() == unsigned(1)


@pytest.mark.parametrize("width, bits", [(1, 1), (3, 2), (8, 4), (16, 5)])
def test_popcount(width, bits):
    rng = random.Random(2)
    cases = [[0], [(1 << width) - 1], *([rng.getrandbits(width)] for _ in range(100))]
    shape, results = evaluate(arith.popcount, [unsigned(width)], cases)
    assert results == [case[0].bit_count() for case in cases]
    assert shape == unsigned(bits)


@pytest.mark.parametrize("shape, width", [(signed(12), 8), (signed(8), 8), (signed(5), 8), (signed(9), 8)])
def test_saturate(shape, width):
    cases = [[value] for value in range(-(1 << (shape.width - 1)), 1 << (shape.width - 1))]
    out, results = evaluate(lambda value: arith.saturate(value, width), [shape], cases)
    assert results == [max(-(1 << (width - 1)), min((1 << (width - 1)) - 1, case[0])) for case in cases]
    assert out.signed and out.width <= width


def test_shift_add_product():
    rng = random.Random(3)
    cases = [[65535, 31], [0, 31], [65535, 0], *([rng.getrandbits(16), rng.getrandbits(5)] for _ in range(200))]
    shape, results = evaluate(arith.shift_add_product, [unsigned(16), unsigned(5)], cases)
    assert results == [a * b for a, b in cases]
    assert shape == unsigned(21)


@pytest.mark.parametrize("places", [0, 1, 5, 31, 32, 37])
def test_rotate_left(places):
    cases = [[0x80000001], [0x12345678]]
    _, results = evaluate(lambda value: arith.rotate_left(value, places), [unsigned(32)], cases)
    n = places % 32
    assert results == [(case[0] << n | case[0] >> (32 - n)) & 0xFFFFFFFF for case in cases]


@pytest.mark.parametrize("width", [1, 3, 4])
def test_select_field(width):
    rng = random.Random(4)
    cases = [[rng.getrandbits(8 * width), index] for index in range(8)]
    _, results = evaluate(lambda value, index: arith.select_field(value, index, width), [unsigned(8 * width), unsigned(3)], cases)
    assert results == [value >> (index * width) & ((1 << width) - 1) for value, index in cases]


@pytest.mark.parametrize("width", [2, 8, 64])
def test_find_first(width):
    rng = random.Random(5)
    cases = [[0], [1 << (width - 1)], [(1 << width) - 1], *([rng.getrandbits(width) & rng.getrandbits(width)] for _ in range(100))]
    index_width = width.bit_length() - 1
    m = Module()
    _, results = evaluate(lambda value: Cat(*arith.find_first(m, value)), [unsigned(width)], cases, m)
    for (value,), got in zip(cases, results, strict=True):
        assert got & 1 == (value != 0) and got >> 1 & 1 == (value.bit_count() > 1)
        if value:
            assert got >> 2 == (value & -value).bit_length() - 1 and got >> 2 < 1 << index_width


@pytest.mark.parametrize("width", [2, 4, 64])
def test_find_two(width):
    rng = random.Random(6)
    cases = [[0], [1 << (width - 1)], [(1 << width) - 1], [3 << (width - 2)], *([rng.getrandbits(width) & rng.getrandbits(width)]
                                                                               for _ in range(200))]
    bits, m = width.bit_length() - 1, Module()
    _, results = evaluate(lambda value: Cat(*arith.find_two(m, value)), [unsigned(width)], cases, m)
    for (value,), got in zip(cases, results, strict=True):
        places = [i for i in range(width) if value >> i & 1]
        assert [got >> i & 1 for i in range(3)] == [len(places) > i for i in range(3)]
        indices = [got >> 3 & ((1 << bits) - 1), got >> (3 + bits)]
        assert all(got == place for got, place in zip(indices, places)), (value, indices)
