"""`control.run_ahead`: when the rows of the next LINEAR begin, on which words, and when they do not."""

import pytest

from spikeloom.arch.commands import Command, Opcode, Order, Sink, encode
from spikeloom.arch.presets import preset
from spikeloom_hw.control.run_ahead import RunAhead
from spikeloom_sim.pysim import simulate

CFG = preset("tiny")
PER_WORD = CFG.groups_per_tile


def linear(**fields):
    return Command(Opcode.LINEAR, {"n_in": 24, "tiles": 3, "groups": 6, "order": Order.TILES, "sink": Sink.SPIKES, **fields}, "")


UP, DOWN = linear(dst=1), linear(src=1, sink=Sink.RESIDUAL)


class Bench:
    """The unit, cycle by cycle: `run` drives one command from its `go` to the `go` of the next."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut = ctx, dut

    async def run(self, command, following, *, busy, writes, end, error_at=None, valid_from=4):
        """Events end after `busy` cycles, groups are written in the cycles `writes`, the next command is taken in cycle `end`.

        Returns the cycles of `start`, the words that are ready in each cycle, and the cycles of a fault; cycle 0 is that of `go`.
        """
        ctx, dut = self.ctx, self.dut
        words, starts, ready, faults = (encode(command), encode(following)), [], [], []
        ctx.set(dut.next_command, words[0])
        ctx.set(dut.next_valid, 1)
        ctx.set(dut.take, 1)
        await ctx.tick()
        ctx.set(dut.command, words[0])
        ctx.set(dut.next_command, words[1])
        for cycle in range(end + 3):
            taken = cycle > end
            ctx.set(dut.go, cycle in (0, end + 1))
            ctx.set(dut.take, cycle == end)
            ctx.set(dut.next_valid, valid_from <= cycle <= end)
            ctx.set(dut.front_busy, 0 < cycle <= busy)
            ctx.set(dut.written, cycle in writes)
            ctx.set(dut.error_valid, cycle == error_at)
            ctx.set(dut.error_address, 77 if cycle == error_at else 0)
            if taken:
                ctx.set(dut.command, words[1])
            if ctx.get(dut.start):
                starts.append(cycle)
                assert ctx.get(dut.front) == words[0 if cycle == 0 else 1]
            if ctx.get(dut.fault):
                faults.append((cycle, ctx.get(dut.fault_address)))
            ready.append(ctx.get(dut.ready_words))
            await ctx.tick()
        ctx.set(dut.go, 0)
        return starts, ready, faults


def bench(test):
    dut = RunAhead(cfg=CFG)

    async def wrapped(ctx):
        await test(Bench(ctx, dut))

    simulate(dut, wrapped)


@pytest.mark.parametrize("busy, first", [(6, 9), (20, 9), (9, 9)])
def test_rows_begin_on_the_first_word_once_the_events_are_through(busy, first):
    """Two cycles after the later of the last event and the first word's last group."""
    async def test(it):
        for _ in range(2):
            writes = list(range(first - PER_WORD + 1, first + 1)) + list(range(22, 22 + 2 * PER_WORD))
            starts, ready, _ = await it.run(UP, DOWN, busy=busy, writes=writes, end=writes[-1])
            begin = max(busy + 1, first + 1) + 1
            assert starts == [0, begin]
            for cycle in range(begin, writes[-1] + 1):
                assert ready[cycle] == sum(write < cycle for write in writes) // PER_WORD
            everything = max(ready)
            assert ready[0] == ready[writes[-1] + 1] == everything >= CFG.max_neurons // CFG.cols

    bench(test)


@pytest.mark.parametrize("command, following, options", [
    (UP, linear(src=0), {}), (linear(dst=1, streamed=1, order=Order.ROWS), DOWN, {}), (UP, linear(src=1, streamed=1, order=Order.ROWS), {}),
    (linear(dst=1, sink=Sink.QKV), DOWN, {}), (UP, Command(Opcode.FIRE, {"groups": 4}, ""), {}), (UP, DOWN, {"valid_from": 99}),
    (Command(Opcode.EMBED, {"tiles": 2, "groups": 4, "sink": Sink.SET_SPIKES, "dst": 1}, ""), DOWN, {}),
], ids=["another buffer", "streamed before", "streamed", "query", "fire", "not there", "embed"])
def test_nothing_begins_early_that_must_not(command, following, options):
    async def test(it):
        starts, ready, _ = await it.run(command, following, busy=5, writes=[7, 8, 9, 10], end=20, **options)
        assert starts == [0, 21] and len(set(ready)) == 1

    bench(test)


@pytest.mark.parametrize("end", range(9, 15))
def test_the_end_may_come_at_any_moment(end):
    """The rows of a command begin once, whether they could begin before it or not."""
    async def test(it):
        for _ in range(3):
            starts, _, _ = await it.run(UP, DOWN, busy=8, writes=list(range(10 - PER_WORD, 10)), end=end)
            begin = 11
            assert starts == [0, begin if begin <= end else end + 1]

    bench(test)


def test_blocks_before_count_as_written():
    async def test(it):
        starts, ready, _ = await it.run(linear(dst=1, base_group=4 * PER_WORD), DOWN, busy=6, writes=[12, 13], end=16)
        assert starts == [0, 8] and ready[8] == 4 and ready[15] == 4 + 2 // PER_WORD

    bench(test)


def test_an_error_of_rows_that_run_ahead_waits_for_its_command():
    async def test(it):
        writes = list(range(1, 1 + PER_WORD))
        _, _, faults = await it.run(UP, DOWN, busy=5, writes=writes, end=20, error_at=12)
        assert faults[0] == (22, 77)
        it.ctx.set(it.dut.error_valid, 0)

    bench(test)


def test_an_error_of_the_command_itself_does_not_wait():
    async def test(it):
        _, _, faults = await it.run(UP, linear(src=0), busy=9, writes=[], end=20, error_at=6)
        assert faults == [(7, 77)]

    bench(test)
