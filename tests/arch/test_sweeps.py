"""`arch.sweeps`: the order of commands in sweeps, and how a prompt falls into blocks."""

import pytest

from spikeloom.arch.commands import Command, Opcode
from spikeloom.arch.config import FitError
from spikeloom.arch.sweeps import Prefill, block_order, encode_order, prompt_blocks, sweeps, token_order

FIRE, SWEEP, HALT, LOAD = (Command(opcode, {}) for opcode in (Opcode.FIRE, Opcode.SWEEP, Opcode.HALT, Opcode.LOAD))
HEAD = Command(Opcode.FIRE, {"head": 1})
PROGRAM = [HALT, FIRE, HEAD, HALT, LOAD, FIRE, SWEEP, FIRE, HALT]


def test_sweeps_end_with_a_sweep_or_the_halt():
    assert sweeps(PROGRAM, 1) == [(1, 3)] and sweeps(PROGRAM, 4) == [(4, 6), (7, 8)]
    with pytest.raises(FitError, match="no HALT"):
        sweeps(PROGRAM[:8], 4)


def test_an_encoder_runs_what_follows_the_last_sweep_once():
    assert list(encode_order(PROGRAM, 4, 2)) == [(4, 0), (5, 0), (5, 1), (7, 0)]


def test_a_block_runs_its_last_sweep_for_all_tokens_too():
    assert list(block_order(PROGRAM, 4, 2)) == [(4, 0), (5, 0), (5, 1), (7, 0), (7, 1)]


@pytest.mark.parametrize("n_prompt, block, room, sizes", [
    (1, 4, 99, []), (2, 4, 99, []), (3, 4, 99, [2]), (5, 4, 99, [4]), (6, 4, 99, [4]), (7, 4, 99, [4, 2]), (14, 4, 99, [4, 4, 4]),
    (14, 4, 6, [4, 2]), (14, 4, 5, [4, 1]), (14, 4, 0, []), (4, 1, 99, [1, 1]), (4, 0, 99, [1, 1])])
def test_blocks_leave_the_last_token(n_prompt, block, room, sizes):
    assert prompt_blocks(n_prompt, Prefill(4, block), room) == sizes
    assert prompt_blocks(n_prompt, None, room) == []


def test_the_order_of_a_generation():
    order = list(token_order(PROGRAM, 1, 4, 5, prefill=Prefill(4, 2)))
    assert order == [(4, 0), (5, 0), (5, 1), (7, 0), (7, 1), (1, 2), (1, 3), (2, 3), (1, 4), (2, 4)]
    assert list(token_order(PROGRAM, 1, 2, 2)) == [(1, 0), (1, 1), (2, 1)]


def test_a_card_names_the_sweeps():
    assert Prefill.of({"entries": {"prefill": 7}, "prefill": {"block": 16}}) == (7, 16)
    assert Prefill.of({"entries": {}, "prefill": {"without": "No layer is streamed."}}) is None
