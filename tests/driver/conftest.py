"""Devices made of the emulator, with random models."""

from dataclasses import dataclass
from functools import cache

import pytest

from spikeloom.arch.config import AcceleratorConfig, ModelConfig
from spikeloom.arch.layout import Image
from spikeloom.arch.presets import preset
from spikeloom.compiler import compile_model
from spikeloom.driver.device import Device
from spikeloom.model.emulator import Emulator
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import TINY, random_model

LOGIT_SCALE = 64.0
drawn = cache(random_model)


@dataclass
class Bench:
    """A loaded device and the model that it must agree with."""

    device: Device
    model: IntegerModel
    config: ModelConfig
    image: Image

    @property
    def emulator(self) -> Emulator:
        """What stands behind the device."""
        return self.device.transport


@pytest.fixture(scope="session")
def tiny() -> AcceleratorConfig:
    """The machine of unit tests."""
    return preset("tiny")


@pytest.fixture
def bench(tiny):
    """Function that makes a Bench: bench(seed, config, streamed=..., trace_dumps=..., **random_model options)."""
    opened = []

    def make(seed=0, config=TINY, *, streamed="auto", trace_dumps=False, load=True, **options) -> Bench:
        config, tensors = drawn(seed, config, **options)
        image = compile_model(config, tensors, tiny, logit_scale=LOGIT_SCALE, streamed=streamed, trace_dumps=trace_dumps)
        device = Device(Emulator(tiny), tiny, deadline_s=5)
        opened.append(device)
        if load:
            device.load(image)
        return Bench(device, IntegerModel(config, tensors), config, image)

    yield make
    for device in opened:
        device.close()
