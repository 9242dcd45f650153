"""The cycle model by itself: what it must say of small commands, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from spikeloom.arch.commands import Attention, Command, Neuron, Opcode, Order, Sink
from spikeloom.arch.cycles import COMMAND_OVERHEAD, Sampling, adding_cycles, command_cycles
from spikeloom.arch.presets import preset
from spikeloom.arch.streamed_cycles import MemoryTiming, Reader, bursts

SIM, TINY = preset("sim"), preset("tiny")
#: One event per cycle.
SINGLE = replace(SIM, events=1)


def linear(**fields):
    return Command(Opcode.LINEAR, {"n_in": 64, "tiles": 1, "groups": 4, "order": Order.TILES, "sink": Sink.SPIKES, **fields})


def streamed(**fields):
    return linear(streamed=1, order=Order.ROWS, **fields)


def test_a_fire_is_a_group_per_cycle():
    assert command_cycles(SIM, Command(Opcode.FIRE, {"groups": 4})) == 4 + 3 + COMMAND_OVERHEAD


def test_a_fire_of_the_stream_just_written_follows_at_once():
    fire, down = Command(Opcode.FIRE, {"groups": 4}), linear(sink=Sink.RESIDUAL)
    add = linear(sink=Sink.ADD_SPIKES)
    assert command_cycles(SIM, fire, before=down) == command_cycles(SIM, fire, before=add) == 4
    wide = replace(SIM, lanes=32)  # two groups only: the first one is not written before two more cycles have passed
    assert command_cycles(wide, Command(Opcode.FIRE, {"groups": 2}), before=linear(groups=2, sink=Sink.RESIDUAL)) == 2 + 2
    # One group takes no less; where a command follows it is not fetched before, which costs it DISPATCH.
    assert command_cycles(SIM, Command(Opcode.FIRE, {"groups": 1}), before=linear(groups=1, sink=Sink.RESIDUAL)) == 3
    alone = command_cycles(SIM, fire)
    assert command_cycles(SIM, fire, before=linear(sink=Sink.SPIKES)) == alone == command_cycles(SIM, fire, before=linear(
        sink=Sink.RESIDUAL, stream=1))
    stateful = Command(Opcode.FIRE, {"groups": 4, "neuron": Neuron.T_LIF})
    assert command_cycles(SIM, stateful, before=down) == 4 and command_cycles(SIM, stateful, before=add) == alone + 1
    # Membranes of two passes that both have some must not be the same ones: those of `add` are 4 to 7.
    add = linear(sink=Sink.ADD_SPIKES, params=4, neuron=Neuron.T_LIF)
    assert [command_cycles(SIM, Command(Opcode.FIRE, stateful.fields | {"params": at}), before=add) for at in (0, 1, 4, 7, 8)] == [
        4, alone + 1, alone + 1, alone + 1, 4]


def test_a_silent_linear_still_drains():
    # A marker closes the tile, where otherwise the last event does.
    assert command_cycles(SIM, linear()) == command_cycles(SIM, linear(), rows=[5])


@pytest.mark.parametrize("machine", [SINGLE, SIM], ids=["one", "pairs"])
@pytest.mark.parametrize("events", [1, 7, 56])
@pytest.mark.parametrize("tiles", [1, 3, 16])
def test_each_event_or_pair_of_each_tile_is_a_cycle(events, tiles, machine):
    one = command_cycles(machine, linear(tiles=tiles), rows=range(events))
    assert command_cycles(machine, linear(tiles=tiles), rows=range(events + 4)) - one == 4 * tiles // machine.events or events < 7


def test_pairs_lie_in_one_word():
    command = linear(n_in=192, tiles=2)
    assert adding_cycles(SIM, command, [3, 7, 8, 64, 100, 191]) == 2 * (2 + 1 + 1)
    assert adding_cycles(SINGLE, command, [3, 7, 8, 64, 100, 191]) == 2 * 6
    assert adding_cycles(SIM, streamed(n_in=192, tiles=2), [3, 7, 8, 64, 100, 191]) == 2 * 6
    assert adding_cycles(SIM, Command(Opcode.EMBED, {"n_in": 50, "tiles": 3}), [7, 53]) == 3


def test_a_drain_slower_than_its_tile_is_what_counts():
    few, fewer = (command_cycles(SINGLE, linear(tiles=8), rows=range(n)) for n in (2, 1))
    # 2 and 1 cycles per tile, where a drain takes 4: only the first tile shows.
    assert few - fewer == 1


def test_an_empty_word_costs_a_cycle_unless_another_hides_it():
    def cost(*rows):
        return command_cycles(TINY, linear(n_in=24, groups=2), rows=rows)
    assert cost(0, 1, 2) == cost(0, 1, 23)        # the empty word in the middle passes while row 0 leaves
    assert cost(0, 16) == cost(0, 8)              # one event hides none: a cycle between them, or one for a marker at the end
    assert cost(0, 1, 8) == cost(0, 8) + 1
    assert cost(16) == cost(0, 16)                # two empty words before it
    assert cost(8, 9) == cost(16)                 # one before it, and none of the last one, which passes while row 8 leaves
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
    # Without a spike the tiles drain one after another: 8 groups of keys and values after the query.
    assert [saved(4 * row + 3) for row in (0, 1, 8, 9, 60)] == [0, 1, 8, 8, 8]
    assert saved(255, range(32)) > 8 and saved(255, bidirectional=1) == 0
    # Where nothing competes the same rows are scanned.
    assert [saved(4 * row + 3, attention=Attention.SFSA) for row in (0, 1, 8, 9, 60)] == [0, 1, 8, 8, 8]


def test_pick_waits_for_the_last_logits():
    pick = Command(Opcode.PICK, {})
    assert [command_cycles(SIM, pick, before=linear(groups=4 - n)) - command_cycles(SIM, pick) for n in range(4)] == [2, 1, 0, 0]


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
