"""`Sequencer` with puppets for units: what runs when, on which token, position and slot; ends, records, faults, cycles."""

import random

import pytest

from spikeloom.arch.commands import Command, Memory, Opcode, encode
from spikeloom.arch.cycles import COMMAND_OVERHEAD, DISPATCH, SKIPPED, SWEEP_OVERHEAD, TOKEN_OVERHEAD
from spikeloom.arch.layout import RING_RECORD
from spikeloom.arch.presets import preset
from spikeloom.arch.registers import ErrorCode, Mode, Reason, State
from spikeloom.arch.sweeps import Prefill, block_order, prompt_blocks, sweeps
from spikeloom_hw.control.sequencer import Sequencer
from spikeloom_sim.pysim import simulate

CFG = preset("tiny")
CONTEXT, VOCABULARY, ENTRY = 8, 40, 1
#: Cycles from a unit's start to its done pulse.
BUSY = 3


def fire(stream=0, head=0):
    return Command(Opcode.FIRE, {"groups": 1, "level": 2, "stream": stream, "head": head})


PICK, SWEEP, HALT = Command(Opcode.PICK, {"head": 1}), Command(Opcode.SWEEP, {}), Command(Opcode.HALT, {})
TOKENS = [HALT, fire(), fire(stream=3, head=1), PICK, HALT]
SWEEPS = [HALT, fire(), SWEEP, fire(stream=8, head=1), fire(stream=2), SWEEP, PICK, SWEEP, HALT]
CLASSES = [*SWEEPS[:6], PICK, HALT]
LOAD = Command(Opcode.LOAD, {"l_memory": Memory.PARAMETERS, "l_words": 1})
#: After the token section the sweeps over a block; a head does not belong there.
BLOCKS, PREFILL = [*TOKENS, LOAD, fire(stream=2), SWEEP, fire(), LOAD, fire(stream=1), fire(head=1), HALT], len(TOKENS)


def picked(position):
    return 3 * position % VOCABULARY


class Bench:
    """Memories, units and recorder around a sequencer; `run` returns what was seen of one run."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut = ctx, dut
        #: Of each command started: index, position, cycle, whether a LOAD went on; the cycle in which the last LOAD was done.
        self.times, self.loaded = [], 0

    async def run(self, program, prompt, mode, *, stop_at=None, busy=BUSY, loading=0, fault_at=None, **registers):
        """`loading`: cycles of a LOAD, `busy` unless told; `fault_at`: commands that are started before a LOAD's read goes wrong."""
        ctx, dut = self.ctx, self.dut
        settings = dict(token_entry=ENTRY, vocabulary=VOCABULARY, context=CONTEXT, n_prompt=len(prompt), n_new=0, watchdog=100,
                        end_token=VOCABULARY - 1, image_bytes=64, run_mode=mode, flushed=1, start=1)
        for name, value in (settings | registers).items():
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.o_token.ready, 1)
        words, started, records, tokens, commands = [encode(c) for c in program], [], [], 0, 0
        program_at = prompt_at = left = cycles = load = 0
        self.times = []
        while True:
            assert cycles < 5000
            ctx.set(dut.program_word, words[program_at] if program_at < len(words) else 15)
            ctx.set(dut.prompt_token, prompt[prompt_at] if prompt_at < len(prompt) else 0xFFFF)
            go = ctx.get(dut.go)
            ctx.set(dut.unit_done, left == 1 or bool(go and not busy))
            left, load = max(0, left - 1), max(0, load - 1)
            self.loaded = cycles if load == 1 else self.loaded
            if go:
                self.times.append((ctx.get(dut.command_index), ctx.get(dut.position), cycles, load > 0))
                load = (loading or busy) if go >> Opcode.LOAD & 1 else load
                assert go & go - 1 == 0 and ctx.get(dut.command) == words[ctx.get(dut.command_index)]
                ctx.set(dut.picked, picked(ctx.get(dut.position)))
                started.append((Opcode(go.bit_length() - 1), *(ctx.get(getattr(dut, name)) for name in (
                    "command_index", "token", "position", "slot", "last_position"))))
                left = load if go >> Opcode.LOAD & 1 and load else busy
            ctx.set(dut.stop, len(started) == stop_at)
            ctx.set(dut.fault, len(started) == fault_at)
            ctx.set(dut.load_fault, len(started) == fault_at)
            if ctx.get(dut.o_token.valid):
                records.append(RING_RECORD.unpack(ctx.get(dut.o_token.payload).to_bytes(RING_RECORD.size, "little"))[:2])
            tokens += ctx.get(dut.token_done)
            commands += ctx.get(dut.command_done)
            finished, program_at, prompt_at = ctx.get(dut.finished), ctx.get(dut.program_address), ctx.get(dut.prompt_address)
            cycles += ctx.get(dut.busy)
            await ctx.tick()
            ctx.set(dut.loading, load > 1)
            ctx.set(dut.start, 0)
            if finished:
                break
        assert ctx.get(dut.state) == (State.ERROR if ctx.get(dut.error_code) else State.IDLE)
        assert commands == len(started) or ctx.get(dut.error_code)
        return started, records, tokens, Reason(ctx.get(dut.reason)), cycles


def bench(test):
    """Run an async test of a `Bench` against a fresh sequencer."""
    dut = Sequencer(cfg=CFG)

    async def wrapped(ctx):
        await test(Bench(ctx, dut))

    simulate(dut, wrapped)
    return dut


def swept(program, prompt):
    """What an encoder run starts, by the text of its definition; passes of sweeps."""
    started, first, passes = [], ENTRY, 0
    while program[first].opcode != Opcode.HALT:
        end = next(n for n in range(first, len(program)) if program[n].opcode in (Opcode.SWEEP, Opcode.HALT))
        for position, token in enumerate(prompt if program[end].opcode == Opcode.SWEEP else prompt[:1]):
            passes += 1
            started += [(command.opcode, index, token, position, command["stream"] + position, len(prompt) - 1)
                        for index, command in enumerate(program[:end]) if index >= first]
        if program[end].opcode == Opcode.HALT:
            break
        first = end + 1
    return started, passes


@pytest.mark.parametrize("program", [SWEEPS, CLASSES], ids=["sweeps", "classes"])
@pytest.mark.parametrize("length", [1, 5, CONTEXT])
def test_encode(program, length):
    prompt = random.Random(length).choices(range(VOCABULARY), k=length)

    async def test(it):
        for _ in range(2):
            started, records, tokens, reason, cycles = await it.run(program, prompt, Mode.ENCODE)
            expected, passes = swept(program, prompt)
            assert started == expected
            assert records == [(picked(p), p) for p in range(length if program is SWEEPS else 1)]
            assert (tokens, reason, it.ctx.get(it.dut.position)) == (length, Reason.ENCODED, 0)
            # One more pass finds the HALT where a SWEEP is before it, and dispatches nothing else.
            passes, alone = passes + (program is SWEEPS), program is SWEEPS
            assert cycles + alone == passes * TOKEN_OVERHEAD + len(started) * (BUSY + COMMAND_OVERHEAD) + len(records)

    bench(test)


def test_encode_ends():
    """A stop counts at the next SWEEP; no text; too long a text; each leaves no context behind."""
    prompt = [5, 6, 7]

    async def test(it):
        started, _, tokens, reason, _ = await it.run(SWEEPS, prompt, Mode.ENCODE, stop_at=2)
        assert (len(started), tokens, reason) == (2, 2, Reason.STOPPED)
        started, _, tokens, reason, _ = await it.run(SWEEPS, prompt, Mode.ENCODE, stop_at=4)
        assert (len(started), tokens, reason) == (5, 3, Reason.STOPPED)
        assert (await it.run(SWEEPS, [], Mode.ENCODE))[:4] == ([], [], 0, Reason.ENCODED)
        assert (await it.run(SWEEPS, [1] * (CONTEXT + 1), Mode.ENCODE))[:4] == ([], [], 0, Reason.CONTEXT_FULL)
        await it.run(TOKENS, prompt, Mode.GENERATE)
        assert it.ctx.get(it.dut.position) == 3
        started, _, _, reason, _ = await it.run(SWEEPS, prompt, Mode.ENCODE)
        assert (started, reason, it.ctx.get(it.dut.position)) == (swept(SWEEPS, prompt)[0], Reason.ENCODED, 0)

    bench(test)


@pytest.mark.parametrize("program, prompt, mode, registers, code, position, address", [
    (SWEEPS, [1, 2, VOCABULARY, 3], Mode.ENCODE, {}, ErrorCode.BAD_TOKEN, 2, VOCABULARY),
    (SWEEPS, [1, 2], Mode.GENERATE, {}, ErrorCode.BAD_PROGRAM, 0, 2),
    (SWEEPS, [1, 2], Mode.SCORE, {}, ErrorCode.BAD_PROGRAM, 0, 2),
    ([HALT, SWEEP, fire(stream=CFG.residual_slots - CONTEXT + 1), HALT], [1], Mode.ENCODE, {}, ErrorCode.BAD_PROGRAM, 0, 2),
    ([HALT, fire(stream=CFG.residual_slots), HALT], [1], Mode.GENERATE, {}, ErrorCode.BAD_PROGRAM, 0, 1),
    (SWEEPS, [1, 2], Mode.ENCODE, {"watchdog": BUSY}, ErrorCode.WATCHDOG, 0, 0),
], ids=["token", "sweep generate", "sweep score", "encoder slots", "decoder slots", "watchdog"])
def test_faults(program, prompt, mode, registers, code, position, address):
    async def test(it):
        reason = (await it.run(program, prompt, mode, **registers))[3]
        dut, get = it.dut, it.ctx.get
        assert (reason, get(dut.error_code), get(dut.error_position), get(dut.error_address)) == (
            Reason.FAILED, code, position, address)

    bench(test)


def test_a_unit_may_be_done_in_the_cycle_of_its_start():
    """It began a FIRE by itself, and was quick."""
    async def test(it):
        ctx, dut = it.ctx, it.dut
        seen = await it.run(TOKENS, [4, 9], Mode.SCORE, busy=0)
        expected = await it.run(TOKENS, [4, 9], Mode.SCORE, clear_context=1)
        assert [entry[:3] for entry in seen[0]] == [entry[:3] for entry in expected[0]] and seen[2:4] == expected[2:4]
        assert not ctx.get(dut.error_code)

    bench(test)


def test_tokens():
    """A conversation of two turns, then a text scored: heads only where wanted, slots without positions."""
    async def test(it):
        position, prompt, n_new = 0, [4, 9, 2], 2
        for _ in range(2):
            started, records, tokens, reason, cycles = await it.run(TOKENS, prompt, Mode.GENERATE, n_new=n_new)
            ids = prompt + [picked(position + len(prompt) - 1 + n) for n in range(n_new - 1)]
            expected = []
            for place, token in enumerate(ids):
                head = place >= len(prompt) - 1
                at = position + place
                expected += [(Opcode.FIRE, 1, token, at, 0, at)]
                expected += [(Opcode.FIRE, 2, token, at, 3, at), (Opcode.PICK, 3, token, at, 0, at)] if head else []
            assert started == expected
            assert records == [(picked(position + len(prompt) - 1 + n), position + len(prompt) - 1 + n) for n in range(n_new)]
            assert (tokens, reason) == (len(ids), Reason.COUNT)
            assert cycles == (len(ids) * TOKEN_OVERHEAD + len(started) * (BUSY + COMMAND_OVERHEAD) + len(records)
                              + 2 * (len(prompt) - 1) * SKIPPED + 2)
            position += len(ids)
        assert (await it.run(TOKENS, prompt, Mode.GENERATE, n_new=9))[3] == Reason.CONTEXT_FULL
        it.ctx.set(it.dut.clear_context, 1)
        await it.ctx.tick()
        it.ctx.set(it.dut.clear_context, 0)
        started, records, tokens, reason, _ = await it.run(TOKENS, prompt, Mode.SCORE)
        assert [record[1] for record in records] == [0, 1] and (tokens, reason) == (3, Reason.SCORED)

    bench(test)


def expected_of_blocks(prompt, block, position):
    """What a prompt starts up to its last token, by the text of its definition; tokens that are left; cycles."""
    started, cycles, index = [], 0, 0
    for size in prompt_blocks(len(prompt), Prefill(PREFILL, block), CONTEXT - position):
        started += [(BLOCKS[command].opcode, command, prompt[index + place], position + place, BLOCKS[command]["stream"] + place,
                     position + place) for command, place in block_order(BLOCKS, PREFILL, size) if not BLOCKS[command]["head"]]
        # A head is passed over at each place, and so is each LOAD but at the first one, the second behind another command.
        cycles += 2 * size * SWEEP_OVERHEAD + size * SKIPPED + (size - 1) * (2 * SKIPPED + DISPATCH)
        position, index = position + size, index + size
    return started, index, cycles + len(started) * (BUSY + COMMAND_OVERHEAD)


@pytest.mark.parametrize("block", [0, 1, 2, 3, 4, 30])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7])
def test_blocks_of_a_prompt(block, length):
    """Sweep by sweep over each block; LOADs at its first place alone; the prompt's last token through the token section."""
    prompt = random.Random(10 * block + length).choices(range(VOCABULARY), k=length)
    registers = {"prefill_entry": PREFILL, "prefill_block": block}

    async def test(it):
        started, records, tokens, reason, cycles = await it.run(BLOCKS, prompt, Mode.GENERATE, n_new=1, **registers)
        swept, read, taken = expected_of_blocks(prompt, block, 0)
        assert started[:len(swept)] == swept and read >= (length - 1 if length > 2 and block > 1 and (length - 1) % block != 1 else 0)
        assert [entry[1:4] for entry in started[len(swept):]] == [
            (command, prompt[p], p) for p in range(read, length) for command in ((1, 2, 3) if p == length - 1 else (1,))]
        assert records == [(picked(length - 1), length - 1)] and (tokens, reason) == (length, Reason.COUNT)
        alone = length - read
        assert cycles == taken + alone * TOKEN_OVERHEAD + (len(started) - len(swept)) * (BUSY + COMMAND_OVERHEAD) + len(records) + 2 * (
            alone - 1) * SKIPPED + 2
        # Not where the host says so, and not while it scores.
        assert len((await it.run(BLOCKS, prompt, Mode.GENERATE, clear_context=1, prefill_entry=0))[0]) == length
        scored = await it.run(BLOCKS, prompt, Mode.SCORE, **registers)
        assert {entry[1] for entry in scored[0]} <= {1, 2, 3}

    bench(test)


LOAD_AHEAD = Command(Opcode.LOAD, LOAD.fields | {"l_ahead": 1})
AHEAD = [*TOKENS, LOAD, fire(), SWEEP, LOAD_AHEAD, fire(), LOAD_AHEAD, SWEEP, fire(), SWEEP, LOAD_AHEAD, fire(), HALT]


@pytest.mark.parametrize("loading", [2, 3, 9, 60])
@pytest.mark.parametrize("length", [3, 4, 6])
def test_a_load_goes_on_behind_other_commands(length, loading):
    """The next LOAD and the end of a sweep wait for it, nothing else; what runs, and where, is as ever."""
    prompt, registers = list(range(3, 3 + length)), {"prefill_entry": PREFILL, "prefill_block": 3}
    sweep_of = {index: first for first, end in sweeps(AHEAD, PREFILL) for index in range(first, end)}

    async def test(it):
        started, _, tokens, reason, _ = await it.run(AHEAD, prompt, Mode.GENERATE, n_new=1, loading=loading, **registers)
        times, plain = it.times, [LOAD if command == LOAD_AHEAD else command for command in AHEAD]
        assert started == (await it.run(plain, prompt, Mode.GENERATE, n_new=1, clear_context=1, **registers))[0]
        assert (tokens, reason) == (length, Reason.COUNT)
        for (index, _, cycle, _), (following, _, then, busy) in zip(times, times[1:]):
            if AHEAD[following].opcode == Opcode.LOAD or sweep_of.get(index) != sweep_of.get(following):
                assert not busy
            elif AHEAD[index] == LOAD_AHEAD and following == index + 1:
                assert then <= cycle + 4 and busy == (loading > then - cycle)

    bench(test)


@pytest.mark.parametrize("mode, entry", [(Mode.BOOT, "boot_entry"), (Mode.GENERATE, "token_entry"), (Mode.ENCODE, "token_entry")])
def test_a_section_ends_with_its_loads(mode, entry):
    async def test(it):
        reason = (await it.run([HALT, LOAD_AHEAD, fire(), HALT], [1], mode, loading=50, **{entry: 1}))[3]
        first, *_, last = it.times
        assert reason in (Reason.BOOTED, Reason.COUNT, Reason.ENCODED) and (first[0], last[0]) == (1, 2)
        assert last[2] < first[2] + 10 < it.loaded and it.loaded == first[2] + 49

    bench(test)


@pytest.mark.parametrize("code", [ErrorCode.BUS_READ, ErrorCode.BUS_DEAD, ErrorCode.SATURATION])
def test_the_fault_of_a_load_that_goes_on_names_it(code):
    """If it is one of reads: others of the same cycle are the running command's."""
    async def test(it):
        registers = {"prefill_entry": PREFILL, "prefill_block": 3}
        reason = (await it.run(AHEAD, [1, 2, 3, 4, 5], Mode.GENERATE, loading=90, fault_at=6, fault_code=code, **registers))[3]
        dut, get, (index, position, _, busy) = it.dut, it.ctx.get, it.times[-1]
        assert reason == Reason.FAILED and busy and (AHEAD[index].opcode, position) == (Opcode.FIRE, 0)
        named = index if code == ErrorCode.SATURATION else index - 1
        assert (get(dut.error_code), get(dut.error_command), get(dut.error_position)) == (code, named, 0)

    bench(test)


def test_a_stop_waits_for_a_load_that_goes_on():
    """The run ends with a sweep's position, and not before memory is left alone."""
    async def test(it):
        started, _, _, reason, _ = await it.run([HALT, LOAD_AHEAD, fire(), SWEEP, HALT], [1, 2, 3], Mode.ENCODE, loading=60, stop_at=2)
        assert (len(started), reason, it.ctx.get(it.dut.loading)) == (2, Reason.STOPPED, 0) and it.loaded == it.times[0][2] + 59

    bench(test)


@pytest.mark.parametrize("program, waiting", [([LOAD_AHEAD, fire(), LOAD_AHEAD, HALT], 1), ([LOAD_AHEAD, fire(), HALT], 1),
                                              ([LOAD_AHEAD, fire(), SWEEP, HALT], 2)], ids=["load", "end", "sweep"])
def test_the_watchdog_counts_while_something_waits(program, waiting):
    """It names the last command that was begun."""
    async def test(it):
        reason = (await it.run([HALT, *program], [1], Mode.ENCODE, loading=80, watchdog=30))[3]
        assert (reason, it.ctx.get(it.dut.error_code), it.ctx.get(it.dut.error_command)) == (
            Reason.FAILED, ErrorCode.WATCHDOG, 1 + waiting)

    bench(test)


def test_blocks_end():
    """A stop waits for the end of a block; a full context ends one; a second run goes on behind the first."""
    prompt, registers = [5, 6, 7, 8, 9, 10], {"prefill_entry": PREFILL, "prefill_block": 3}

    async def test(it):
        for stop_at in (2, 3, 11):
            started, _, tokens, reason, _ = await it.run(BLOCKS, prompt, Mode.GENERATE, stop_at=stop_at, clear_context=1, **registers)
            assert started == expected_of_blocks(prompt, 3, 0)[0][:len(started)]
            assert (len(started), tokens, reason, it.ctx.get(it.dut.position)) == (11, 3, Reason.STOPPED, 3)
        # Three positions are filled: the context has room for a block of three and one of two.
        started, _, tokens, reason, _ = await it.run(BLOCKS, prompt + [11], Mode.GENERATE, clear_context=0, **registers)
        assert started == expected_of_blocks(prompt + [11], 3, 3)[0] and {entry[3] for entry in started} == {3, 4, 5, 6, 7}
        assert (tokens, reason, it.ctx.get(it.dut.position)) == (5, Reason.CONTEXT_FULL, CONTEXT)

    bench(test)


@pytest.mark.parametrize("change, code, position, address", [
    ({"prompt": [1, 2, VOCABULARY, 3, 4]}, ErrorCode.BAD_TOKEN, 2, VOCABULARY),
    ({"prefill_block": CFG.residual_slots - 1}, ErrorCode.BAD_PROGRAM, 0, PREFILL + 1),
    ({"prefill_entry": 2}, ErrorCode.NONE, 0, 0),
    ({"prefill_entry": CFG.program_words}, ErrorCode.BAD_PROGRAM, 0, CFG.program_words),
    ({"prefill_entry": len(BLOCKS)}, ErrorCode.BAD_PROGRAM, 0, len(BLOCKS)),
    ({"watchdog": BUSY}, ErrorCode.WATCHDOG, 0, 0),
    ({"image_bytes": 16}, ErrorCode.BAD_ADDRESS, 0, PREFILL),
], ids=["token", "slots", "heads alone", "past the end", "no program", "watchdog", "load"])
def test_faults_of_blocks(change, code, position, address):
    """Whatever the host writes there: a fault, or an end."""
    change = {"prompt": [1, 2, 3, 4, 5], "prefill_entry": PREFILL, "prefill_block": 3} | change

    async def test(it):
        prompt = change.pop("prompt")
        reason = (await it.run(BLOCKS, prompt, Mode.GENERATE, **change))[3]
        dut, get = it.dut, it.ctx.get
        assert (reason == Reason.FAILED) == (code != ErrorCode.NONE)
        assert (get(dut.error_code), get(dut.error_position), get(dut.error_address)) == (code, position, address)

    bench(test)
