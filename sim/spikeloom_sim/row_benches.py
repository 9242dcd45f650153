"""What benches of weight rows share: random rows, their events, and a memory that answers requests."""

import random

import numpy as np

from .pysim import send


def random_weights(rng: np.random.Generator, n_in: int, n_out: int, bits: int):
    """Weights of a format, int64 [n_in, n_out]."""
    most = 1 if bits == 2 else (1 << (bits - 1)) - 1
    return rng.integers(-most, most + 1, (n_in, n_out))


def events_of(rows, tiles: int, cfg, rng: random.Random) -> list[dict]:
    """Row by row at random levels, then the markers."""
    events = [{"row": row, "tile": tile, "level": level, "marker": 0, "last": 0}
              for row, level in [(row, rng.randint(1, cfg.level_max)) for row in rows] for tile in range(tiles)]
    return events + [{"row": 0, "tile": tile, "level": 0, "marker": 1, "last": tile == tiles - 1} for tile in range(tiles)]


def configure(ctx, dut, **fields) -> None:
    """Set members."""
    for name, value in fields.items():
        ctx.set(getattr(dut, name), value)


def memory_process(dut, beat_bytes: int, image: bytes, seed: object, *, latency: int = 20, stall: float = 0.0,
                   requests: list | None = None):
    """Background bench: answers `o_request` on `i_beat` after a fixed latency, a beat per cycle or slower; notes (address, beats)."""
    async def run(ctx):
        rng, queue, cycle, offered = random.Random(seed), [], 0, False
        ctx.set(dut.o_request.ready, 1)
        async for _, _, valid, ready, payload, taken in ctx.tick().sample(
                dut.o_request.valid, dut.o_request.ready, dut.o_request.payload, dut.i_beat.ready):
            cycle += 1
            if valid and ready:
                assert payload.beats > 0
                if requests is not None:
                    requests.append((payload.address, payload.beats))
                for beat in range(payload.beats):
                    at = payload.address + beat * beat_bytes
                    queue.append((cycle + latency, int.from_bytes(image[at:at + beat_bytes], "little")))
            if offered and taken:
                queue.pop(0)
                offered = False
            offered = offered or (bool(queue) and queue[0][0] <= cycle and rng.random() >= stall)
            ctx.set(dut.i_beat.valid, offered)
            if offered:
                ctx.set(dut.i_beat.payload.data, queue[0][1])
            ctx.set(dut.o_request.ready, rng.random() >= stall)
    return run


def feeder(dut, pending: list, stalls):
    """Background bench: sends whatever is appended to `pending`."""
    async def run(ctx):
        while True:
            if pending:
                await send(ctx, dut.i, [pending.pop(0)], stalls)
            else:
                await ctx.tick()
    return run
