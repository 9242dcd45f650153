"""Commands survive their encoding; fields overlap nothing within an opcode."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeloom.arch.commands import COMMAND_BITS, COMMON, FIELDS, FORMAT, Command, Opcode, decode, encode
from spikeloom.arch.config import FitError
from spikeloom.arch.layout import pack_program, program_words, unpack_program


@st.composite
def commands(draw):
    opcode = draw(st.sampled_from(list(Opcode)))
    fields = [*COMMON[1:], *FORMAT[opcode]]
    chosen = draw(st.lists(st.sampled_from(fields), unique_by=lambda f: f.name))
    return Command(opcode, {f.name: draw(st.integers(1, (1 << f.width) - 1)) for f in chosen})


@given(commands())
def test_round_trip(command):
    word = encode(command)
    assert word < 1 << COMMAND_BITS and decode(word) == command


@given(st.lists(commands(), min_size=1, max_size=5))
def test_programs(program):
    data = pack_program(program)
    assert unpack_program(data) == program and len(program_words(data)) == 8 * len(program)


@pytest.mark.parametrize("opcode", list(Opcode))
def test_fields_lie_apart(opcode):
    fields = [*COMMON, *FORMAT[opcode]]
    assert len({f.name for f in fields}) == len(fields)
    for a, b in itertools.combinations(fields, 2):
        assert a.lsb + a.width <= b.lsb or b.lsb + b.width <= a.lsb, (a.name, b.name)
    assert max(f.lsb + f.width for f in fields) <= COMMAND_BITS


def test_names_are_unique_over_opcodes():
    assert len(FIELDS) == len(COMMON) + sum(len(f) for f in {id(f): f for f in FORMAT.values()}.values())


def test_refusals():
    with pytest.raises(FitError, match="no field 'top_k'"):
        encode(Command(Opcode.FIRE, {"top_k": 1}))
    with pytest.raises(FitError, match="level = 16 does not fit 4 bits"):
        encode(Command(Opcode.FIRE, {"level": 16}, "layer0.in"))
    with pytest.raises(FitError, match="Unknown opcode 10"):
        decode(10)
