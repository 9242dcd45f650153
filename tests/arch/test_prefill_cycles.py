"""`arch.prefill_cycles`: one token at a time costs what decoding costs; sharing rows costs no more than its bounds say."""

from dataclasses import replace

import pytest

from spikeloom.arch.prefill_cycles import prefill_cycles
from spikeloom.arch.presets import preset
from spikeloom.arch.run_cycles import Token, run_report
from spikeloom.compiler.image import compile_model
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import TINY, random_model

CFG = preset("tiny")


@pytest.fixture(scope="module")
def prompt():
    config, tensors = random_model(1, replace(TINY, weight_bits=4))
    image, model = compile_model(config, tensors, CFG, logit_scale=50.0, streamed="all"), IntegerModel(config, tensors)
    ids = list(range(1, 17))
    tokens = [Token(model.step(token, position, head=position == 15), token, position, position == 15)
              for position, token in enumerate(ids)]
    return image, tokens


def test_blocks_of_one_are_decoding(prompt):
    image, tokens = prompt
    entry = image.card["entries"]["token"]
    one_by_one = run_report(CFG, image.program, tokens, entry=entry)
    assert prefill_cycles(CFG, image.program, tokens, entry=entry, block=1) == pytest.approx(one_by_one.cycles, rel=0.1)


def test_sharing_pays_until_the_engine_is_full(prompt):
    image, tokens = prompt
    entry = image.card["entries"]["token"]
    cycles = {(block, rows): prefill_cycles(CFG, image.program, tokens, entry=entry, block=block, grid_rows=rows)
              for block in (1, 4, 16) for rows in (1, 4)}
    assert cycles[1, 1] > cycles[4, 1] > cycles[16, 1] > cycles[16, 4]
    events = run_report(CFG, image.program, tokens, entry=entry).event_tiles
    assert cycles[16, 1] > events  # every token's rows are still added one by one
