"""The cycle model by itself: what it must say of small commands, by hand."""

import numpy as np
import pytest

from spikeloom.arch.commands import Attention, Command, Opcode, Order, Sink
from spikeloom.arch.cycles import COMMAND_OVERHEAD, Sampling, command_cycles
from spikeloom.arch.presets import preset
from spikeloom.arch.streamed_cycles import MemoryTiming, Reader, bursts

SIM, TINY = preset("sim"), preset("tiny")


def linear(**fields):
    return Command(Opcode.LINEAR, {"n_in": 64, "tiles": 1, "groups": 4, "order": Order.TILES, "sink": Sink.SPIKES, **fields})


def streamed(**fields):
    return linear(streamed=1, order=Order.ROWS, **fields)


def test_a_fire_is_a_group_per_cycle():
    assert command_cycles(SIM, Command(Opcode.FIRE, {"groups": 4})) == 4 + 3 + COMMAND_OVERHEAD


def test_a_silent_linear_still_drains():
    assert command_cycles(SIM, linear()) == command_cycles(SIM, linear(), rows=[5]) - 1


@pytest.mark.parametrize("events", [1, 7, 64])
@pytest.mark.parametrize("tiles", [1, 3, 16])
def test_each_event_of_each_tile_is_a_cycle(events, tiles):
    one = command_cycles(SIM, linear(tiles=tiles), rows=range(events))
    assert command_cycles(SIM, linear(tiles=tiles), rows=range(events + 4)) - one == 4 * tiles or events < 3


def test_a_drain_slower_than_its_tile_is_what_counts():
    few, fewer = (command_cycles(SIM, linear(tiles=8), rows=range(n)) for n in (2, 1))
    # 2 + 1 and 1 + 1 cycles per tile, where a drain takes 4: only the first tile shows.
    assert few - fewer == 1


def test_an_empty_word_costs_a_cycle_unless_another_hides_it():
    def cost(*rows):
        return command_cycles(TINY, linear(n_in=24, groups=2), rows=rows)
    assert cost(0, 1, 2) == cost(0, 1, 23)        # the empty word in the middle passes while row 0 leaves
    assert cost(0, 16) == cost(0, 8) + 1          # one event hides none: it is loaded in that event's only cycle
    assert cost(16) == cost(0, 8) - 1 + 2         # two empty words before it
    assert cost() == command_cycles(TINY, linear(groups=2, n_in=8)) + 2


def test_attention_scans_its_banks():
    attend = Command(Opcode.ATTEND, {"groups": 4, "top_k": 4})
    assert command_cycles(SIM, attend, position=127) - command_cycles(SIM, attend, position=0) == 127 // SIM.score_banks


def test_attention_scans_while_keys_and_values_are_made():
    attend, qkv = Command(Opcode.ATTEND, {"groups": 4, "top_k": 4}), linear(groups=12, tiles=3, attn_groups=4, sink=Sink.QKV)

    def saved(position, rows=(), **fields):
        command = Command(Opcode.ATTEND, attend.fields | fields)
        alone = command_cycles(SIM, command, position=position, last_position=99)
        return alone - command_cycles(SIM, command, position=position, last_position=99, before=qkv, before_rows=rows)
    # Without a spike the tiles drain one after another: 8 groups of keys and values after the query, and one more cycle.
    assert [saved(4 * row + 3) for row in (0, 1, 9, 10, 60)] == [0, 1, 9, 9, 9]
    assert saved(255, range(16)) > 9 and saved(255, bidirectional=1) == 0
    # A walk saves positions, all but those of the last row.
    assert [saved(p, attention=Attention.SFSA) for p in (3, 4, 7, 14, 200)] == [0, 4, 4, 9, 9]


def test_pick_waits_for_the_last_logits():
    pick = Command(Opcode.PICK, {})
    assert command_cycles(SIM, pick, before=linear(groups=4)) == command_cycles(SIM, pick) + 1
    assert command_cycles(SIM, pick, before=linear(groups=3)) == command_cycles(SIM, pick)


def test_sampling_costs_passes():
    pick = Command(Opcode.PICK, {})
    costs = [command_cycles(SIM, pick, sampling=Sampling(top_k=k, vocabulary=512)) for k in (1, 2, 3)]
    assert costs[2] - costs[1] == costs[1] - costs[0] == 512 // SIM.lanes + 5
    assert command_cycles(SIM, pick, sampling=Sampling(top_k=0, vocabulary=512)) == costs[0] + 512


def test_bursts_end_at_sixteen_beats_and_pages():
    assert bursts(0, 40, 8) == [16, 16, 8]
    assert bursts(4096 - 24, 20, 8) == [3, 16, 1]
    assert bursts(512, 0, 8) == []


def test_a_reader_keeps_the_bus_full():
    reader = Reader(SIM, MemoryTiming(latency=60))
    accepted = 0
    for row in range(40):
        accepted = max(accepted + 1, reader.free)
        reader.request(accepted, row * 64, 64)
        reader.taken += [beat + 1 for beat in reader.arrivals[-8:]]
    assert np.all(np.diff(reader.arrivals) == 1)


def test_few_outstanding_bursts_leave_it_idle():
    slow, fast = (command_cycles(SIM, streamed(), rows=range(40), memory=MemoryTiming(latency=60, outstanding=n)) for n in (2, 16))
    assert fast < 40 * 8 + 60 + 30 < slow


def test_a_streamed_linear_is_latency_and_beats():
    for latency in (0, 24, 64):
        memory = MemoryTiming(latency=latency)
        one, two = (command_cycles(SIM, streamed(), rows=range(n), memory=memory) for n in (10, 20))
        assert two - one == 10 * 64 // SIM.beat_bytes
        assert one - command_cycles(SIM, streamed(), rows=range(10), memory=MemoryTiming(latency=0)) == latency


def test_half_the_rate_takes_twice_as_long():
    one, two = (command_cycles(SIM, streamed(n_in=256), rows=range(50, n), memory=MemoryTiming(rate=0.5)) for n in (150, 250))
    assert two - one == 100 * 64 // SIM.beat_bytes * 2


def test_a_load_is_a_request_per_word():
    load = Command(Opcode.LOAD, {"l_words": 100})
    assert command_cycles(SIM, load) == 800 + command_cycles(SIM, Command(Opcode.LOAD, {"l_words": 200})) - 1600
