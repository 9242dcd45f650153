"""A machine with two memory ports: the same bits, the predicted cycles, and faults of either port as typed errors."""

from dataclasses import replace

import pytest

from spikeloom.arch.dram import Dram
from spikeloom.arch.presets import preset
from spikeloom.arch.registers import ErrorCode
from spikeloom.arch.run_cycles import Token, run_report
from spikeloom.arch.streamed_cycles import MemoryTiming
from spikeloom.arch.sweeps import Prefill
from spikeloom.compiler import compile_model
from spikeloom.driver import errors
from spikeloom.driver.device import Device
from spikeloom.driver.verify import verify
from spikeloom.model.emulator import Emulator
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import TINY, random_model
from spikeloom_sim.transport import Memory, Stalls

pytestmark = [pytest.mark.rtl, pytest.mark.builds]

CFG = preset("twin")
PROMPT, NEW_TOKENS = [1, 2, 3], 6


def network(seed, bits=8, **options):
    config, tensors = random_model(seed, replace(TINY, weight_bits=bits))
    return (config, tensors), compile_model(config, tensors, CFG, logit_scale=50.0, streamed="all", **options)


def works(device, model):
    report = verify(device, IntegerModel(*model), PROMPT, NEW_TOKENS)
    assert report.mismatches == 0 and len(report.tokens) == NEW_TOKENS, report.first
    return report


@pytest.mark.parametrize("seed, bits, stall, latency", [(1, 8, 0.0, 24), (2, 4, 0.3, 60), (3, 2, 0.5, 5)])
def test_every_bit_agrees(open_device, seed, bits, stall, latency):
    print(f"seed {seed}")
    model, image = network(seed, bits)
    device, _ = open_device("twin", memory=Memory(latency=latency), stalls=Stalls(everywhere=stall), seed=seed, scramble=True)
    device.load(image)
    works(device, model)
    with Device(Emulator(CFG), CFG) as emulator:
        emulator.load(image)
        works(emulator, model)


@pytest.mark.parametrize("seed, bits", [(1, 8), (2, 4)])
@pytest.mark.parametrize("dense", [False, True])
def test_cycles_are_predicted(open_device, seed, bits, dense):
    """Exactly behind a fixed latency; within 2% behind a DRAM, whose moments the model does not know."""
    model, image = network(seed, bits, prefill_ahead=False)
    for dram, tolerance in ((None, 0), (Dram(), 0.02)):
        memory = Memory(latency=40, outstanding=8, dram=dram)
        device, _ = open_device("twin", memory=memory, scramble=True)
        device.load(image)
        made = list(device.generate(PROMPT, 20, ignore_end=True, dense=dense))
        counted, integer = device.counters(), IntegerModel(*model)
        ids = PROMPT + [token.id for token in made[:-1]]
        tokens = [Token(integer.step(token, position, head=position >= 2), token, position, position >= 2)
                  for position, token in enumerate(ids)]
        report = run_report(CFG, image.program, tokens, entry=image.card["entries"]["token"], prefill=Prefill.of(image.card),
                            dense=dense, memory=MemoryTiming(latency=40, outstanding=8, dram=dram))
        assert counted["bytes_rows"] == report.row_bytes
        assert counted["cycles"] == pytest.approx(report.cycles, rel=tolerance, abs=0)


@pytest.mark.parametrize("port", [0, 1])
def test_a_read_error_names_an_address_of_its_port(open_device, port):
    model, image = network(5)
    device, transport = open_device("twin", scramble=True)
    device.load(image)
    works(device, model)
    start = device._buffers["image"].address
    base = start + -start % (2 * 4096)
    for block in range(port, 64, 2):
        transport.fault("read_error", base + block * 4096, base + (block + 1) * 4096)
    device.clear()
    with pytest.raises(errors.BusError, match="read of address") as caught:
        list(device.generate(PROMPT, 4, ignore_end=True))
    assert caught.value.state["error"] == "BUS_READ" and (caught.value.state["address"] - base) // 4096 % 2 == port
    transport.heal()
    device.reset()
    works(device, model)


@pytest.mark.parametrize("port", [0, 1])
@pytest.mark.parametrize("channel", ["ar", "r"])
def test_one_silent_port_is_a_dead_bus(open_device, port, channel):
    model, image = network(5)
    device, transport = open_device("twin", scramble=True)
    device.load(image)
    works(device, model)
    device.clear()
    device.registers.write("bus_timeout", value=300)
    transport.fault(channel, 3, port=port)
    with pytest.raises(errors.BusDead) as caught:
        list(device.generate(PROMPT, 4, ignore_end=True))
    assert caught.value.state["bus_dead"]
    device.registers.write("control", reset=1)
    transport.run(2000)
    transport.heal()
    device.registers.write("control", start=1)
    transport.run(50)
    assert device.registers.fields("error")["code"] == ErrorCode.BUS_DEAD
    transport.reset()
    device.load(image)
    works(device, model)
