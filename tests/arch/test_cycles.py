"""The cycle model by itself: what it must say of small commands, by hand."""

import numpy as np
import pytest

from spikeloom.arch.commands import Command, Opcode, Order, Sink
from spikeloom.arch.cycles import (
    COMMAND_OVERHEAD,
    SKIPPED,
    TOKEN_OVERHEAD,
    Sampling,
    Token,
    command_cycles,
    event_bound,
    run_end_cycles,
    run_report,
    token_cycles,
    token_steps,
)
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


PROGRAM = [
    Command(Opcode.HALT, {}, "booted"),
    Command(Opcode.EMBED, {"n_in": 50, "tiles": 1, "groups": 4, "position_row": 1}, "embed"),
    Command(Opcode.FIRE, {"groups": 4, "dst": 1}, "in"),
    linear(src=1, tiles=2, groups=8, dst=0),
    Command(Opcode.LINEAR, {"n_in": 128, "tiles": 1, "groups": 4, "src": 0, "sink": Sink.RESIDUAL, "weight_code": 1}, "down"),
    Command(Opcode.PICK, {"head": 1}, "pick"),
    Command(Opcode.HALT, {}, "end"),
]
PROGRAM[3] = Command(Opcode.LINEAR, PROGRAM[3].fields, "up")


def a_token(head=True):
    levels, wide = np.zeros(64, int), np.zeros(128, int)
    levels[[3, 9]], wide[100:110] = 2, 1
    return Token({"in": levels, "up": wide}, 7, 3, head)


def test_events_follow_the_spike_buffers():
    steps = token_steps(SIM, PROGRAM, a_token(), entry=1)
    assert [step.event_tiles for step in steps] == [2, 0, 2 * 2, 10, 0]
    assert [step.row_bytes for step in steps] == [128, 0, 256, 320, 0]
    assert event_bound(steps) == 16
    dense = token_steps(SIM, PROGRAM, a_token(), entry=1, dense=True)
    assert [step.event_tiles for step in dense] == [2, 0, 128, 128, 0]


def test_a_token_is_the_sum_of_its_commands():
    steps = token_steps(SIM, PROGRAM, a_token(), entry=1)
    assert token_cycles(SIM, PROGRAM, a_token(), entry=1) == TOKEN_OVERHEAD + sum(step.cycles for step in steps)
    assert token_steps(SIM, PROGRAM, a_token(False), entry=1)[-1].cycles == SKIPPED


def test_a_run_is_the_sum_of_its_tokens():
    report = run_report(SIM, PROGRAM, [a_token(), a_token()], entry=1)
    assert report.cycles == 2 * token_cycles(SIM, PROGRAM, a_token(), entry=1) + run_end_cycles(SIM)
    assert report.cycles_per_token == report.cycles / 2 and report.event_bound_per_token == 16
    assert report.bytes_per_token == 704 and set(report.by_label) == {"embed", "in", "up", "down", "pick", "overhead"}
