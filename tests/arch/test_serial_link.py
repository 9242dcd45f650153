"""`arch.serial_link`: frames survive the way, damaged ones do not, and whoever lost the thread finds it again."""

import random
import zlib

import pytest

from spikeloom.arch.serial_link import CRC, ESCAPE, FLAG, HEADER, Deframer, Frame, FrameError, Kind, decode_body, encode_frame
from spikeloom_sim.serial_line import Damage


def frames(seed, count):
    rng = random.Random(seed)
    for _ in range(count):
        payload = rng.choice([b"", bytes([FLAG, ESCAPE] * 4), rng.randbytes(8 * rng.randint(1, 16))])
        yield Frame(rng.choice(list(Kind)), rng.randrange(256), rng.randrange(1 << 16), rng.randrange(1 << 32), payload)


def test_frames_come_back(seed):
    sent = list(frames(seed, 200))
    stream = b"".join(map(encode_frame, sent))
    cutter, got = Deframer(), []
    rng = random.Random(seed)
    while stream:
        size = rng.randint(1, 50)
        got += cutter.push(stream[:size])
        stream = stream[size:]
    assert got == sent and cutter.dropped == 0


def test_flags_and_escapes_travel_escaped():
    wire = encode_frame(Frame(FLAG, ESCAPE, 0x7E7D, 0x7D7E7E7D))
    assert wire[0] == wire[-1] == FLAG and FLAG not in wire[1:-1]


def test_noise_costs_only_what_it_touches(seed):
    sent = list(frames(seed, 400))
    damage, cutter = Damage(seed, change=0.001, drop=0.001, insert=0.001), Deframer()
    got = cutter.push(damage(b"".join(map(encode_frame, sent))))
    assert damage.count > 20
    remaining = iter(sent)
    assert all(any(frame == other for other in remaining) for frame in got), "a frame came that was not sent, or out of order"
    assert len(sent) - len(got) <= 2 * damage.count and cutter.dropped > 0


def test_garbage_then_a_frame():
    frame, cutter = Frame(Kind.READ, 1, 2, 3), Deframer()
    assert cutter.push(random.Random(1).randbytes(5000).replace(b"\x7e", b"")) == []
    assert cutter.push(encode_frame(frame)) == [frame] and cutter.dropped == 1


@pytest.mark.parametrize("body, words", [
    (b"\x7d", "escape"), (bytes(11), "no frame"), (bytes(12), "CRC"),
    (HEADER.pack(1, 2, 3, 4) + CRC.pack(zlib.crc32(HEADER.pack(1, 2, 3, 5))), "CRC"),
])
def test_what_is_no_frame_is_named(body, words):
    with pytest.raises(FrameError, match=words):
        decode_body(body)
