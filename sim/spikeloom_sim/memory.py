"""A memory behind AXI for `amaranth.sim`: latency, seeded stalls, errors, silence, and a check of the protocol."""

from collections import deque

from .pysim import Stalls

_OKAY, _SLVERR, _DECERR = 0, 2, 3
_AR_PAYLOAD = ("arid", "araddr", "arlen", "arsize", "arburst")
_AW_PAYLOAD = ("awid", "awaddr", "awlen", "awsize", "awburst")
_W_PAYLOAD = ("wdata", "wstrb", "wlast")


class ProtocolViolation(AssertionError):
    """The manager broke a rule of AXI."""


class _Held:
    """Watches one channel that the manager drives: once valid, nothing changes before the transfer."""

    def __init__(self, port, valid: str, ready: str, payload: tuple[str, ...]):
        self.port, self.valid, self.ready, self.payload = port, valid, ready, payload
        self.pending = None

    def check(self, ctx) -> bool:
        """Check one cycle; True when it transfers."""
        valid = ctx.get(getattr(self.port, self.valid))
        now = tuple(ctx.get(getattr(self.port, name)) for name in self.payload) if valid else None
        if self.pending is not None and now != self.pending:
            raise ProtocolViolation(f"{self.valid}: valid or payload changed before the transfer: "
                                    f"{self.pending} became {now}")
        transfer = bool(valid and ctx.get(getattr(self.port, self.ready)))
        self.pending = now if valid and not transfer else None
        return transfer


class AxiMemory:
    """AXI subordinate for one manager port; give `run` to `pysim.simulate` as a background bench.

    Reads are answered in order. Contents live in ``data``; outside of it, accesses answer DECERR.

    Parameters
    ----------
    port : flipped AxiSignature interface
        The manager's port (as a member of the simulated component).
    size : int
        Bytes of memory, from address ``base``.
    latency : int
        Cycles from an address to its first answer, at least.
    seed, stall
        Seed and probability of waiting on every channel.
    """

    def __init__(self, port, *, size: int = 1 << 16, base: int = 0, latency: int = 4, seed: object = 0, stall: float = 0.0):
        self.port = port
        self.base = base
        self.data = bytearray(size)
        self.latency = latency
        self.beat_bytes = port.signature.data_width // 8
        #: (low, high, response): answers of accesses with low <= address < high.
        self.faults: list[tuple[int, int, int]] = []
        #: Read beats after which the memory never answers again; None: it always does.
        self.silent_after: int | None = None
        #: Channels that are never ready or never valid: any of "ar", "aw", "w", "b".
        self.deaf: set[str] = set()
        #: Every burst seen: ("r" or "w", address, beats).
        self.bursts: list[tuple[str, int, int]] = []
        self.most_outstanding = 0
        self._stalls = {name: Stalls(f"{seed} {name}", stall) for name in ("ar", "r", "aw", "w", "b")}
        self._idle = dict.fromkeys(self._stalls, 0)
        self._cycle = 0

    def response(self, address: int) -> int:
        """Answer of an access to one beat."""
        for low, high, code in self.faults:
            if low <= address < high:
                return code
        inside = self.base <= address and address + self.beat_bytes <= self.base + len(self.data)
        return _OKAY if inside else _DECERR

    async def run(self, ctx) -> None:
        """Serve for ever."""
        port = self.port
        reads = port.signature.read
        writes = port.signature.write
        held = []
        if reads:
            held.append(("ar", _Held(port, "arvalid", "arready", _AR_PAYLOAD)))
        if writes:
            held.append(("aw", _Held(port, "awvalid", "awready", _AW_PAYLOAD)))
            held.append(("w", _Held(port, "wvalid", "wready", _W_PAYLOAD)))
        self._read_beats, self._write_bursts, self._answers = deque(), deque(), deque()
        while True:
            if reads:
                ctx.set(port.arready, self._go("ar"))
                self._offer_read(ctx)
            if writes:
                ctx.set(port.awready, self._go("aw"))
                ctx.set(port.wready, bool(self._write_bursts) and self._go("w"))
                self._offer_answer(ctx)
            transferred = {name for name, channel in held if channel.check(ctx)}
            read_done = reads and ctx.get(port.rvalid) and ctx.get(port.rready)
            answer_done = writes and ctx.get(port.bvalid) and ctx.get(port.bready)
            if "ar" in transferred:
                self._take_read_address(ctx)
            if "w" in transferred:
                self._take_data(ctx)
            if "aw" in transferred:
                self._take_write_address(ctx)
            if read_done:
                self._read_beats.popleft()
                if self.silent_after is not None:
                    self.silent_after -= 1
            if answer_done:
                self._answers.popleft()
            for name, done in [*((name, name in transferred) for name, _ in held), ("r", read_done), ("b", answer_done)]:
                self._idle[name] = self._stalls[name].draw() if done else max(0, self._idle[name] - 1)
            self._cycle += 1
            await ctx.tick()

    def _go(self, channel: str) -> bool:
        return self._idle[channel] == 0 and channel not in self.deaf

    def _offer_read(self, ctx) -> None:
        port = self.port
        offered = bool(self._read_beats) and self._read_beats[0][0] <= self._cycle and self._go("r") and self.silent_after != 0
        ctx.set(port.rvalid, offered)
        if offered:
            _, address, last = self._read_beats[0]
            start = address - self.base
            code = self.response(address)
            value = int.from_bytes(self.data[start:start + self.beat_bytes], "little") if code == _OKAY else 0
            ctx.set(port.rdata, value)
            ctx.set(port.rresp, code)
            ctx.set(port.rlast, last)

    def _offer_answer(self, ctx) -> None:
        offered = bool(self._answers) and self._answers[0][0] <= self._cycle and self._go("b")
        ctx.set(self.port.bvalid, offered)
        if offered:
            ctx.set(self.port.bresp, self._answers[0][1])

    def _address(self, ctx, prefix: str) -> tuple[int, int]:
        address = ctx.get(getattr(self.port, prefix + "addr"))
        beats = ctx.get(getattr(self.port, prefix + "len")) + 1
        size = ctx.get(getattr(self.port, prefix + "size"))
        burst = ctx.get(getattr(self.port, prefix + "burst"))
        if 1 << size != self.beat_bytes or burst != 1:
            raise ProtocolViolation(f"{prefix}: size {size} and burst {burst} are not full INCR beats")
        if address % self.beat_bytes:
            raise ProtocolViolation(f"{prefix}: address {address:#x} is not aligned to a beat")
        if beats > 16:
            raise ProtocolViolation(f"{prefix}: a burst of {beats} beats")
        if address // 4096 != (address + beats * self.beat_bytes - 1) // 4096:
            raise ProtocolViolation(f"{prefix}: {beats} beats from {address:#x} cross a 4 KiB boundary")
        self.bursts.append(("r" if prefix == "ar" else "w", address, beats))
        return address, beats

    def _take_read_address(self, ctx) -> None:
        address, beats = self._address(ctx, "ar")
        when = self._cycle + 1 + self.latency
        self._read_beats.extend((when, address + n * self.beat_bytes, n == beats - 1) for n in range(beats))
        self.most_outstanding = max(self.most_outstanding, sum(last for _, _, last in self._read_beats))

    def _take_write_address(self, ctx) -> None:
        address, beats = self._address(ctx, "aw")
        self._write_bursts.append([address, beats, _OKAY])

    def _take_data(self, ctx) -> None:
        address, left, worst = burst = self._write_bursts[0]
        code = self.response(address)
        value = ctx.get(self.port.wdata).to_bytes(self.beat_bytes, "little")
        strobe = ctx.get(self.port.wstrb)
        if code == _OKAY:
            for lane in range(self.beat_bytes):
                if strobe >> lane & 1:
                    self.data[address - self.base + lane] = value[lane]
        burst[:] = [address + self.beat_bytes, left - 1, max(worst, code)]
        if ctx.get(self.port.wlast) != (left == 1):
            raise ProtocolViolation(f"w: WLAST is wrong with {left} beats of the burst left")
        if left == 1:
            self._write_bursts.popleft()
            if "b" not in self.deaf:
                self._answers.append((self._cycle + 1 + self.latency, burst[2]))
