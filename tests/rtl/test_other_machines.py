"""A machine of odd shape: 128-bit AXI3, segments that are no power of two, matrices wider than an accumulator bank."""

from dataclasses import replace

import pytest

from spikeloom.arch.config import TENSORS, AcceleratorConfig
from spikeloom.compiler import compile_model
from spikeloom.driver.device import Device
from spikeloom.driver.verify import verify
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import TINY, random_model
from spikeloom_sim.machine import open_machine
from spikeloom_sim.transport import Stalls

pytestmark = [pytest.mark.rtl, pytest.mark.slow, pytest.mark.builds]

WIDE = AcceleratorConfig(
    name="wide", cols=16, lanes=8, segment=4, max_width=48, max_neurons=192, max_vocabulary=512, kv_positions=128, max_context=32,
    k_max=3, level_max=5, resident_words=4096, parameter_words=512, program_words=100, acc_width=20, data_width=128, axi3=True)
LEVELS = dict.fromkeys((f"level_{kind}" for kind in TENSORS), 5)


@pytest.mark.parametrize("seed, heads, bits, streamed, hidden, dense, temperature, top_k", [
    (1, 3, 8, "all", 192, False, 0, 0), (2, 12, 4, "all", 96, False, 3.0, 3), (3, 6, 2, "all", 64, True, 3.0, 0),
    (4, 3, 4, "none", 192, False, 1.0, 8), (5, 12, 2, "none", 96, False, 0, 0), (6, 3, 2, {"head", "layer0.up"}, 136, False, 0.5, 5)])
def test_every_bit_agrees(seed, heads, bits, streamed, hidden, dense, temperature, top_k):
    print(f"seed {seed}")
    shape = replace(TINY, width=48, heads=heads, hidden=hidden, vocabulary=300, weight_bits=bits, top_k=3, rank_shifts=(0, 1, 2),
                    recency=(), position_table=True, context=30, signed=TENSORS if seed in (2, 5) else (), **LEVELS)
    config, tensors = random_model(seed, shape)
    image = compile_model(config, tensors, WIDE, logit_scale=50.0, streamed=streamed)
    assert any(command["base_group"] for command in image.program), "no matrix is split into blocks"
    with Device(open_machine(WIDE, scramble=True, stalls=Stalls(everywhere=0.2), seed=seed), WIDE, deadline_s=120) as device:
        device.load(image)
        report = verify(device, IntegerModel(config, tensors), [1, 299, 288], 12, temperature=temperature, top_k=top_k, seed=77,
                        dense=dense)
    assert report.mismatches == 0, report.first
