"""The shipped driver over a serial port: a Verilated board behind a pseudo-terminal, with and without damage on the way."""

from dataclasses import replace

import pytest

pytest.importorskip("serial", reason="serial: pyserial is not installed")

from spikeloom.arch.presets import preset
from spikeloom.arch.registers import MAGIC, Reason
from spikeloom.compiler import compile_model
from spikeloom.driver.device import Device
from spikeloom.driver.errors import BusError, DeadlineExpired, DeviceGone
from spikeloom.driver.uart import UartTransport
from spikeloom.driver.verify import verify
from spikeloom.model.emulator import Emulator
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import random_model
from spikeloom_sim.serial_board import SerialBoard
from spikeloom_sim.serial_line import Damage

pytestmark = pytest.mark.rtl
#: `tiny` with addresses that fit a frame.
MACHINE = replace(preset("tiny"), name="tiny32", address_width=32)
PROMPT = [1, 5, 9]


@pytest.fixture
def board(seed):
    """board(**options) -> (SerialBoard, transport); closed after the test."""
    opened = []

    def make(**options):
        opened.append(SerialBoard(MACHINE, seed=seed, **options))
        opened.append(UartTransport.open(opened[0].port, baud=1_000_000, attempts=60))
        return opened

    yield make
    for thing in reversed(opened):
        thing.close()


@pytest.fixture(scope="module")
def network():
    """A random network, and its image for the machine."""
    config, tensors = random_model(3)
    return config, tensors, compile_model(config, tensors, MACHINE, logit_scale=64.0)


def tokens(transport, image, count=6):
    device = Device(transport, MACHINE, deadline_s=600)
    device.load(image)
    return device, [token.id for token in device.generate(PROMPT, count, ignore_end=True)]


def test_text_over_the_line_is_the_emulators(board, network):
    config, tensors, image = network
    simulated, transport = board()
    device, got = tokens(transport, image)
    assert got == tokens(Emulator(MACHINE), image)[1]
    assert device.reason == Reason.COUNT and transport.lost["here"] == 0 and simulated.broken_bytes == 0
    # Where the host is kept waiting, a question and a late answer may meet; nothing else is dropped.
    assert transport.lost["board"] <= 5
    report = verify(device, IntegerModel(config, tensors), PROMPT, 2)
    assert report.mismatches == 0 and report.compared > 10, report.first
    assert not simulated.stopped


def test_text_survives_a_bad_line(board, network, seed):
    _, _, image = network
    chances = {"change": 3e-4, "drop": 3e-4, "insert": 3e-4}
    damage_in, damage_out = Damage(f"{seed} in", **chances), Damage(f"{seed} out", **chances)
    simulated, transport = board(damage_in=damage_in, damage_out=damage_out)
    _, got = tokens(transport, image)
    assert got == tokens(Emulator(MACHINE), image)[1]
    assert damage_in.count > 2 and damage_out.count > 2, "the line was better than meant"
    assert transport.lost["here"] > 0 and transport.repeated > 0 and not simulated.stopped


def test_memory_that_is_not_there_is_an_error_and_the_board_lives_on(board, network):
    _, _, image = network
    _, transport = board()
    device, first = tokens(transport, image, count=2)
    device._buffers["ring"].free()
    with pytest.raises(BusError):
        list(device.generate([3], 2, ignore_end=True))
    device.load(image)
    assert [token.id for token in device.generate(PROMPT, 2, ignore_end=True)] == first


def test_reset_button_and_reset_frame(board, network):
    _, _, image = network
    simulated, transport = board()
    _, first = tokens(transport, image, count=2)
    simulated.press_reset()
    assert transport.read32(0) == MAGIC
    transport.reset()
    assert tokens(transport, image, count=2)[1] == first


def test_a_line_that_falls_silent(board):
    simulated, transport = board()
    transport.attempts = 2
    simulated.damage_in = lambda data: b""
    with pytest.raises(DeadlineExpired, match="did not answer 2 times"):
        transport.read32(0)
    simulated.damage_in = bytes
    assert transport.read32(0) == MAGIC
    transport.close()
    with pytest.raises(DeviceGone, match="closed"):
        transport.read32(0)
