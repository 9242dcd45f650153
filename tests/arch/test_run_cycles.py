"""The cycle model over tokens and runs: events follow the spike buffers, parts add up."""

import numpy as np
import pytest

from spikeloom.arch.commands import Attention, Command, Opcode, Order, Sink
from spikeloom.arch.cycles import SKIPPED, SWEEP_OVERHEAD, TOKEN_OVERHEAD, command_cycles, most_hits, run_end_cycles, scan_cycles
from spikeloom.arch.presets import preset
from spikeloom.arch.run_cycles import Token, encoding_report, event_bound, run_report, token_cycles, token_steps
from spikeloom.arch.sweeps import Prefill

SIM = preset("sim")

PROGRAM = [
    Command(Opcode.HALT, {}, "booted"),
    Command(Opcode.EMBED, {"n_in": 50, "tiles": 1, "groups": 4, "position_row": 1, "sink": Sink.SET}, "embed"),
    Command(Opcode.FIRE, {"groups": 4, "dst": 1}, "in"),
    Command(Opcode.LINEAR, {"n_in": 64, "tiles": 2, "groups": 8, "src": 1, "order": Order.TILES, "sink": Sink.SPIKES}, "up"),
    Command(Opcode.LINEAR, {"n_in": 128, "tiles": 1, "groups": 4, "src": 0, "sink": Sink.RESIDUAL, "weight_code": 1}, "down"),
    Command(Opcode.PICK, {"head": 1}, "pick"),
    Command(Opcode.HALT, {}, "end"),
]


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


def linear(label, **fields):
    return Command(Opcode.LINEAR, {"n_in": 64, "tiles": 1, "groups": 4, **fields}, label)


def test_spikes_of_time_steps_meet_in_one_buffer():
    """Final spikes of two steps side by side; those that are added into the stream are not in a buffer; -1 is an event."""
    program = [
        Command(Opcode.EMBED, {"n_in": 50, "tiles": 1, "groups": 4, "sink": Sink.SET_SPIKES, "dst": 0}, "embed"),
        linear("out", src=0, sink=Sink.ADD_SPIKES),
        Command(Opcode.FIRE, {"groups": 4, "dst": 2}, "final@0"),
        Command(Opcode.FIRE, {"groups": 4, "dst": 2, "base_group": 4}, "final@1"),
        linear("logits", n_in=128, src=2, sink=Sink.LOGITS),
        linear("again", src=0, sink=Sink.RESIDUAL),
        Command(Opcode.HALT, {}, "end"),
    ]
    one, two, three = np.zeros((3, 64), int)
    one[[1, 2]], two[[5]], three[[7, 8, 9]] = -1, 1, -1
    trace = {"embed": one, "out": np.arange(64), "final@0": two, "final@1": three, "logits": np.zeros(64, int)}
    assert [step.event_tiles for step in token_steps(SIM, program, Token(trace, 7, 0), entry=0)] == [1, 2, 0, 0, 4, 2]


def test_spikes_that_are_added_take_a_cycle_more():
    assert command_cycles(SIM, linear("out", sink=Sink.ADD_SPIKES)) == command_cycles(SIM, linear("out", sink=Sink.RESIDUAL)) + 1


def test_attention_without_winners_waits_for_the_hits_of_its_fullest_head():
    def cost(attention, **fields):
        hits = fields.pop("hits", ())
        command = Command(Opcode.ATTEND, {"groups": 4, "attention": attention, **fields})
        return command_cycles(SIM, command, position=20, last_position=50, hits=hits)
    assert cost(Attention.SFSA) == cost(Attention.SSA) == cost(Attention.SFSA, bidirectional=1) - (50 // 4 - 20 // 4)
    assert cost(Attention.WTA, top_k=4, bidirectional=1) - cost(Attention.WTA, top_k=4) == 50 // 4 - 20 // 4
    assert cost(Attention.SFSA) == cost(Attention.WTA, top_k=1) - 2 == cost(Attention.WTA)
    assert cost(Attention.SSA, hits=[0, 1, 4, 0, 2, 1]) == cost(Attention.SSA) + 3 + 1


def test_hits_come_from_the_trace():
    """Of the head that has most in a row of scores, whatever the time step; those that score 0 are none of SSA's."""
    raw = np.zeros((2, 21), int)
    raw[0, [0, 3, 20]], raw[1, [1, 4, 5, 6]] = 1, [2, -1, 7, 7]
    trace = {"layer0.attn@1": np.zeros(16, int), "layer0.attn.raw@1": raw, "layer0.attn.fired@1": raw > 1}

    def cycles(attention):
        attend = Command(Opcode.ATTEND, {"groups": 1, "attention": attention, "dst": 1}, "layer0.attn@1")
        return token_cycles(SIM, [attend, Command(Opcode.HALT, {})], Token(trace, 0, 20), entry=0)
    assert most_hits(SIM, raw != 0).tolist() == [2, 3, 0, 0, 0, 1] and most_hits(SIM, raw > 1).tolist() == [1, 2, 0, 0, 0, 0]
    assert cycles(Attention.SSA) == cycles(Attention.SFSA) + (1 + 2) - 1


@pytest.mark.parametrize("seed", range(20))
def test_a_scan_goes_ahead_while_it_does_not_wait(seed):
    """Against its steps one by one: rows move on together, each showing its hits four cycles after it was asked for."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    hits = rng.integers(0, 5, rng.integers(1, 20)).tolist()
    last, ahead = len(hits) - 1, int(rng.integers(0, 40))
    line, asked, cycles = [None] * 4, 0, 0  # the last of the line shows its hits
    while True:
        started = cycles >= ahead
        if line[-1] and line[-1] > 1:
            line[-1] -= 1
        elif started and asked > last and not any(line[:-1]):
            break
        else:
            asks = asked < last or started and asked == last
            line = [max(1, hits[asked]) if asks else None, *line[:-1]]
            asked += asks
        cycles += 1
    # Without hits a scan of one row from the start on is over when it shows them: four cycles later, of which one is the row's.
    assert scan_cycles(last, ahead, hits) == cycles - ahead - 3


def test_an_encoding_is_the_sum_of_its_sweeps():
    fire = Command(Opcode.FIRE, {"groups": 4, "dst": 1}, "in")
    sweep = Command(Opcode.SWEEP, {}, "sweep")
    program = [fire, sweep, fire, linear("up", src=1), sweep, fire, Command(Opcode.HALT, {}, "end")]
    traces = [{"in": np.eye(64, dtype=int)[i], "up": np.zeros(64, int)} for i in range(3)]
    report = encoding_report(SIM, program, traces, [4, 5, 6], entry=0)
    assert report.tokens == 3 and report.event_tiles == 3
    assert report.by_label["overhead"] == 7 * SWEEP_OVERHEAD + run_end_cycles(SIM)
    assert report.by_label["in"] == 7 * command_cycles(SIM, fire)
    assert report.by_label["up"] == sum(command_cycles(SIM, linear("up"), rows=[i]) for i in range(3))


def test_a_last_halt_hides_behind_the_last_record():
    fire, sweep, halt = Command(Opcode.FIRE, {"groups": 4, "dst": 1}, "in"), Command(Opcode.SWEEP, {}), Command(Opcode.HALT, {})
    traces = [{"in": np.zeros(64, int)}] * 2
    report = encoding_report(SIM, [fire, sweep, halt], traces, [4, 5], entry=0)
    assert report.by_label["overhead"] == 2 * SWEEP_OVERHEAD + run_end_cycles(SIM)


def test_a_block_is_the_sum_of_its_sweeps():
    """LOADs count once, and heads not at all; what is left of the prompt goes one by one."""
    fire, halt = Command(Opcode.FIRE, {"groups": 4, "dst": 1}, "in"), Command(Opcode.HALT, {})
    load = Command(Opcode.LOAD, {"l_words": 40}, "load")
    program = [fire, halt, load, fire, Command(Opcode.SWEEP, {}), fire, linear("up", src=1), halt]
    tokens = [Token({"in": np.eye(64, dtype=int)[i], "up": np.zeros(64, int)}, i, i, i == 5) for i in range(6)]
    prefill = Prefill(2, 3)
    report = run_report(SIM, program, iter(tokens), entry=0, prefill=prefill)
    one = command_cycles(SIM, fire)
    assert report.tokens == 6 and report.event_tiles == 5
    assert report.by_label["load"] == 2 * command_cycles(SIM, load) + 3 * SKIPPED
    assert report.by_label["in"] == 11 * one
    assert report.by_label["overhead"] == 10 * SWEEP_OVERHEAD + TOKEN_OVERHEAD + run_end_cycles(SIM)
    # A context that ends, a text that is scored, and a run without a head.
    assert run_report(SIM, program, tokens, entry=0, prefill=prefill, room=3).by_label["load"] == command_cycles(SIM, load) + 2 * SKIPPED
    assert run_report(SIM, program, tokens, entry=0, prefill=prefill, scoring=True).by_label["load"] == 0
    headless = [token._replace(head=False) for token in tokens[:5]]
    assert run_report(SIM, program, headless, entry=0, prefill=prefill).by_label["load"] == command_cycles(SIM, load) + 2 * SKIPPED
