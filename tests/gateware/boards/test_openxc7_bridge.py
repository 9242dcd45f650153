"""`boards.openxc7_bridge`: every beat of a burst reaches the right register once, and every id comes back."""

import random

import pytest

from spikeloom.arch.registers import WINDOW_BYTES
from spikeloom.board.hwh import RANGE_BYTES
from spikeloom_hw.boards.openxc7_bridge import GpBridge
from spikeloom_hw.bus.axi import Burst, Response
from spikeloom_sim.pysim import Stalls, simulate

BASE = 0x4000_0000
#: Words that the subordinate below answers with SLVERR.
FORBIDDEN = range(0xf00, 0xf10, 4)


async def send(ctx, bus, prefix, stalls, **fields):
    """One transfer of a channel."""
    for _ in range(stalls.draw()):
        await ctx.tick()
    for name, value in fields.items():
        ctx.set(getattr(bus, prefix + name), value)
    ctx.set(getattr(bus, prefix + "valid"), 1)
    await ctx.tick().until(getattr(bus, prefix + "ready"))
    ctx.set(getattr(bus, prefix + "valid"), 0)


async def receive(ctx, bus, prefix, stalls, *names):
    """One transfer of a channel, as the values of its fields."""
    for _ in range(stalls.draw()):
        await ctx.tick()
    ctx.set(getattr(bus, prefix + "ready"), 1)
    values = await ctx.tick().sample(*(getattr(bus, prefix + name) for name in names)).until(getattr(bus, prefix + "valid"))
    ctx.set(getattr(bus, prefix + "ready"), 0)
    return [int(value) for value in values]


def subordinate(bus, words, log, seed, stall):
    """A bench that answers AXI4-Lite from a dictionary of words, keeps a log of the addresses, and refuses some."""
    rng = random.Random(f"subordinate {seed}")
    watched = [name for name in bus.signature.members if name not in ("awprot", "arprot")]

    def read(address):
        log.append(("read", address))
        return {"rdata": words.get(address, 0), "rresp": Response.SLVERR if address in FORBIDDEN else Response.OKAY}

    def write(address, data, strobe):
        log.append(("write", address))
        if address not in FORBIDDEN:
            words[address] = merged(words.get(address, 0), data, strobe)
        return {"bresp": Response.SLVERR if address in FORBIDDEN else Response.OKAY}

    async def run(ctx):
        held, owed = {}, set()
        async for _, _, *values in ctx.tick().sample(*(getattr(bus, name) for name in watched)):
            now = dict(zip(watched, map(int, values)))
            held.update({channel: now for channel in ("aw", "w", "ar") if now[channel + "valid"] and now[channel + "ready"]})
            owed -= {channel for channel in ("b", "r") if now[channel + "valid"] and now[channel + "ready"]}
            outputs = {channel + "valid": channel in owed for channel in ("b", "r")}
            if "ar" in held and "r" not in owed and rng.random() >= stall:
                outputs |= read(held.pop("ar")["araddr"]) | {"rvalid": 1}
                owed.add("r")
            if {"aw", "w"} <= held.keys() and "b" not in owed and rng.random() >= stall:
                beat = held.pop("w")
                outputs |= write(held.pop("aw")["awaddr"], beat["wdata"], beat["wstrb"]) | {"bvalid": 1}
                owed.add("b")
            outputs |= {channel + "ready": channel not in held and rng.random() >= stall for channel in ("aw", "w", "ar")}
            for name, value in outputs.items():
                ctx.set(getattr(bus, name), value)
    return run


def merged(old, data, strobe):
    """A word after a write with byte strobes."""
    mask = sum(0xff << 8 * lane for lane in range(4) if strobe >> lane & 1)
    return old & ~mask | data & mask


def addresses(start, beats, size, burst):
    """Register addresses of the beats of a burst."""
    return [start + (i << size if burst is Burst.INCR else 0) & ~3 for i in range(beats)]


def draw_transaction(rng):
    """Start, beats, size, kind and the answer that is due for the address alone."""
    size = rng.choice((0, 1, 2, 2, 2))
    beats = rng.choice((1, 1, 2, 4, 16))
    local = rng.randrange(0, WINDOW_BYTES - 64, 1 << size)
    if rng.random() < 0.2:
        local = rng.choice((*FORBIDDEN, FORBIDDEN.start - 8)) & ~((1 << size) - 1)
    kind = rng.choice((Burst.INCR, Burst.INCR, Burst.INCR, Burst.FIXED, Burst.WRAP))
    outside = rng.random() < 0.2
    due = Response.DECERR if outside else Response.SLVERR if kind is Burst.WRAP else Response.OKAY
    alias = rng.randrange(RANGE_BYTES // WINDOW_BYTES) * WINDOW_BYTES
    return alias + (BASE ^ (RANGE_BYTES << rng.randrange(14)) if outside else BASE) + local, local, beats, size, kind, due


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(2))
def test_reads_and_writes_agree_with_a_dictionary(seed, stall):
    dut = GpBridge(base_address=BASE)
    words, log, expected_log = {}, [], []
    rng = random.Random(seed)
    stalls = Stalls(f"processor {seed}", stall)

    async def processor(ctx):
        shadow = {}
        for number in range(30):
            address, local, beats, size, kind, due = draw_transaction(rng)
            head = dict(id=number, addr=address, len=beats - 1, size=size, burst=kind)
            touched = addresses(local, beats, size, kind) if due is Response.OKAY else []
            worst = Response.SLVERR if set(touched) & set(FORBIDDEN) else due
            if rng.random() < 0.5:
                await send(ctx, dut.s_axi, "aw", stalls, **head)
                for beat in range(beats):
                    data, strobe = rng.getrandbits(32), rng.getrandbits(4)
                    await send(ctx, dut.s_axi, "w", stalls, data=data, strb=strobe, last=beat == beats - 1)
                    if touched and touched[beat] not in FORBIDDEN:
                        shadow[touched[beat]] = merged(shadow.get(touched[beat], 0), data, strobe)
                assert await receive(ctx, dut.s_axi, "b", stalls, "id", "resp") == [number, worst.value]
                expected_log.extend(("write", word) for word in touched)
            else:
                await send(ctx, dut.s_axi, "ar", stalls, **head)
                for beat in range(beats):
                    ident, data, answer, last = await receive(ctx, dut.s_axi, "r", stalls, "id", "data", "resp", "last")
                    assert (ident, last) == (number, beat == beats - 1)
                    if touched:
                        wanted = Response.SLVERR if touched[beat] in FORBIDDEN else Response.OKAY
                        assert (answer, data) == (wanted.value, shadow.get(touched[beat], 0)), f"seed {seed}, transaction {number}"
                    else:
                        assert answer == due.value
                expected_log.extend(("read", word) for word in touched)
        assert words == shadow and log == expected_log
        assert {kind for kind, _ in log} == {"read", "write"}

    simulate(dut, processor, background=[subordinate(dut.m_axil, words, log, seed, stall)], limit=40_000)


def test_a_window_lies_at_a_multiple_of_its_size():
    with pytest.raises(ValueError, match=r"^base_address is 0x40000800; it must be a multiple of the range's 65536 bytes\.$"):
        GpBridge(base_address=BASE + 0x800)
