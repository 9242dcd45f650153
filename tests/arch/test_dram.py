"""`arch.dram`: pages, banks, refresh and the data bus cost what they are said to."""

from dataclasses import replace

import pytest

from spikeloom.arch.commands import Command, Opcode, Order, Sink
from spikeloom.arch.cycles import command_cycles
from spikeloom.arch.dram import Dram, DramState
from spikeloom.arch.presets import preset
from spikeloom.arch.streamed_cycles import MemoryTiming

QUIET = Dram(jitter=0, refresh_every=0)


def test_an_open_page_costs_nothing_and_another_one_a_miss():
    state = DramState(QUIET, 1)
    state.serve(0, 0, 128)
    assert state.serve(100, 128, 128) == 100
    assert state.serve(200, QUIET.banks * QUIET.page_bytes, 128) == 200 + QUIET.miss
    assert state.serve(300, 0, 128) == 300 + QUIET.miss


def test_bursts_share_the_data_bus():
    state = DramState(QUIET, 1)
    first = [state.serve(10, bank * QUIET.page_bytes, 128) for bank in range(3) for _ in range(20)]
    assert first[-1] - first[0] == pytest.approx(59 * 128 / QUIET.bytes_per_cycle, abs=2 * QUIET.miss)


def test_refresh_takes_its_share():
    dram = replace(QUIET, refresh_every=975)
    state = DramState(dram, 1)
    ends = [state.serve(0, at % dram.page_bytes, 128) for at in range(0, 1 << 20, 128)]
    busy = len(ends) * 128 / dram.bytes_per_cycle
    # A burst that is under way when a refresh begins takes some of its time.
    assert busy * 975 / (975 - dram.refresh + 128 / dram.bytes_per_cycle) < ends[-1] < busy * 975 / (975 - dram.refresh - dram.miss)


def test_jitter_is_drawn_from_the_seed():
    def waits(seed):
        state = DramState(replace(Dram(), refresh_every=0), seed)
        return [state.serve(at, 0, 8) - at for at in range(100, 100_000, 100)]
    assert waits(1) == waits(1) != waits(2)
    assert set(waits(3)[1:]) == set(range(Dram().jitter + 1))


@pytest.mark.parametrize("ports", [1, 2])
def test_ports_stay_busy_behind_it(ports):
    """A dense command over ports that the DRAM can feed: no more than 5% above its bytes."""
    cfg = replace(preset("d288"), ports=ports)
    command = Command(Opcode.LINEAR, {"n_in": 1152, "tiles": 5, "groups": 18, "streamed": 1, "order": Order.ROWS, "weight_code": 1,
                                      "sink": Sink.RESIDUAL})
    memory = MemoryTiming(latency=40, outstanding=8, dram=Dram())
    bound = 1152 * 5 * 32 / cfg.bus_bytes
    assert bound < command_cycles(cfg, command, rows=range(1152), memory=memory) < 1.05 * bound + 120
