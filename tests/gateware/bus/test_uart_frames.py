"""`bus.uart_frames`: the gates cut and make frames as `arch.serial_link` does."""

import random

import pytest

from spikeloom.arch.serial_link import CRC, ESCAPE, FLAG, HEADER, Deframer, Frame, Kind, encode_frame
from spikeloom_hw.bus.uart_frames import STORE_BEAT, FrameReceiver, FrameTransmitter
from spikeloom_sim.pysim import Stalls, receive, simulate
from spikeloom_sim.serial_line import Damage


def random_frames(seed, count, beat_bytes=8):
    rng = random.Random(seed)
    for _ in range(count):
        beats = rng.choice([0, 0, 1, 3, 16])
        payload = b"".join(rng.choice([rng.randbytes(beat_bytes), bytes([FLAG, ESCAPE] * beat_bytes)[:beat_bytes]]) for _ in range(beats))
        yield Frame(rng.choice(list(Kind)), rng.randrange(256), rng.randrange(1 << 16), rng.randrange(1 << 32), payload)


def run_receiver(data, *, release_after=0):
    """Frames that the gates find in bytes, and how often they dropped something."""
    dut, got, dropped = FrameReceiver(), [], 0

    async def source(ctx):
        for byte in data:
            ctx.set(dut.i.payload, byte)
            ctx.set(dut.i.valid, 1)
            await ctx.tick()
            ctx.set(dut.i.valid, 0)
            await ctx.tick()
        await ctx.tick().repeat(40 + release_after)

    async def holder(ctx):
        while True:
            await ctx.tick()
            if not ctx.get(dut.valid):
                continue
            for _ in range(release_after + 1):
                await ctx.tick()
            header, words = ctx.get(dut.header), []
            for beat in range(ctx.get(dut.beats)):
                ctx.set(dut.r_beat, beat)
                words.append(ctx.get(dut.r_data).to_bytes(8, "little"))
            got.append(Frame(header.kind, header.sequence, header.argument, header.value, b"".join(words)))
            ctx.set(dut.release, 1)
            await ctx.tick()
            ctx.set(dut.release, 0)

    async def count(ctx):
        nonlocal dropped
        async for *_, now in ctx.tick().sample(dut.dropped):
            dropped += now

    simulate(dut, source, background=[holder, count])
    return got, dropped


def test_receives_what_was_sent(seed):
    sent = list(random_frames(seed, 12))
    assert run_receiver(b"".join(map(encode_frame, sent))) == (sent, 0)


def test_receives_what_the_reference_receives_of_damaged_bytes(seed):
    data = Damage(seed, change=0.008, drop=0.008, insert=0.008)(b"".join(map(encode_frame, random_frames(seed, 25))))
    reference = Deframer()
    expected = reference.push(data)
    got, dropped = run_receiver(data)
    assert got == expected and dropped == reference.dropped > 3


def test_refuses_what_is_too_long_or_no_whole_beats():
    whole = Frame(Kind.DATA, 1, 0, 0, bytes(128))
    for payload in (bytes(136), bytes(129), bytes(7)):
        data = encode_frame(Frame(Kind.DATA, 1, 0, 0, payload)) + encode_frame(whole)
        assert run_receiver(data) == ([whole], 1)
    assert HEADER.size + CRC.size == 12


def test_a_frame_that_comes_too_early_is_dropped_and_spoils_nothing():
    first, second, third = random_frames(5, 3)
    first = Frame(Kind.DATA, 1, 2, 3, bytes(range(128)))
    data = encode_frame(first) + encode_frame(second) + bytes([FLAG] * 300) + encode_frame(third)
    got, dropped = run_receiver(data, release_after=2 * len(encode_frame(second)) + 40)
    assert got == [first, third] and dropped == 1


@pytest.mark.parametrize("stall", [0.0, 0.7])
def test_sends_what_the_reference_sends(stall, seed):
    dut = FrameTransmitter()
    sent = list(random_frames(seed, 10, beat_bytes=9))
    expected, got = b"".join(map(encode_frame, sent)), []
    current = None

    async def source(ctx):
        nonlocal current
        for frame in sent:
            while not ctx.get(dut.idle):
                await ctx.tick()
            current = frame.payload
            ctx.set(dut.header, {"kind": frame.kind, "sequence": frame.sequence, "argument": frame.argument, "value": frame.value})
            ctx.set(dut.beats, len(frame.payload) // 9)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            ctx.set(dut.header, {"kind": 0, "sequence": 0, "argument": 0, "value": 0})

    async def feed(ctx):
        while True:
            beat = ctx.get(dut.r_beat)
            raw = (current or b"")[9 * beat:9 * beat + 9]
            ctx.set(dut.r_data, STORE_BEAT.from_bits(int.from_bytes(raw, "little")))
            await ctx.tick()

    async def sink(ctx):
        got.extend(await receive(ctx, dut.o, len(expected), Stalls(seed, stall)))

    simulate(dut, source, sink, background=[feed])
    assert bytes(got) == expected
