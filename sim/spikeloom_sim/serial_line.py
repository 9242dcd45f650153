"""A serial line for `amaranth.sim`, the host's end of its frames, and damage on the way."""

import random
from collections.abc import Callable

from spikeloom.arch.serial_link import Deframer, Frame, Kind, encode_frame


class Damage:
    """Changes, drops and invents bytes at random.

    Parameters
    ----------
    seed : object
        Anything `random.Random` accepts.
    change, drop, insert : float
        Chance of each, per byte.
    """

    def __init__(self, seed: object = 0, *, change: float = 0.0, drop: float = 0.0, insert: float = 0.0):
        self._random = random.Random(seed)
        self.change, self.drop, self.insert = change, drop, insert
        #: Bytes that did not arrive as they were sent.
        self.count = 0

    def __call__(self, data: bytes) -> bytes:
        """What arrives of these bytes."""
        if not self.change + self.drop + self.insert:
            return data
        out = bytearray()
        for byte in data:
            fate = self._random.random()
            self.count += fate < self.change + self.drop + self.insert
            if fate < self.change:
                out.append(byte ^ 1 << self._random.randrange(8))
            elif fate < self.change + self.drop:
                continue
            elif fate < self.change + self.drop + self.insert:
                out += bytes([byte, self._random.randrange(256)])
            else:
                out.append(byte)
        return bytes(out)


class SimulatedLine:
    """The far end of a design's ``rx`` and ``tx``, bit by bit; give `listen` to `pysim.simulate` as a background bench.

    Parameters
    ----------
    rx, tx : Signal
        Ports of the design.
    clocks_per_bit : int
    on_frame : callable, optional
        Told every frame of the design; what it returns (bytes or None) is sent back.
    """

    def __init__(self, rx, tx, clocks_per_bit: int, *, on_frame: Callable[[Frame], bytes | None] = lambda frame: None):
        self.rx, self.tx, self.clocks_per_bit = rx, tx, clocks_per_bit
        self.on_frame = on_frame
        self.frames: list[Frame] = []
        self.deframer = Deframer()
        self._waiting = bytearray()

    def send(self, data: bytes | Frame) -> None:
        """Put bytes, or a frame, on the way into the design."""
        self._waiting += encode_frame(data) if isinstance(data, Frame) else data

    async def speak(self, ctx) -> None:
        """Background bench: puts what was sent on the line."""
        while True:
            if not self._waiting:
                await ctx.tick()
                continue
            byte = self._waiting.pop(0)
            for bit in (0, *(byte >> n & 1 for n in range(8)), 1):
                ctx.set(self.rx, bit)
                for _ in range(self.clocks_per_bit):
                    await ctx.tick()

    async def listen(self, ctx) -> None:
        """Background bench: takes frames from the line."""
        while True:
            await ctx.tick()
            if ctx.get(self.tx):
                continue
            await ctx.tick().repeat(self.clocks_per_bit // 2)
            byte = 0
            for n in range(8):
                await ctx.tick().repeat(self.clocks_per_bit)
                byte |= ctx.get(self.tx) << n
            await ctx.tick().repeat(self.clocks_per_bit)
            assert ctx.get(self.tx), "a byte came without its stop bit"
            for frame in self.deframer.push(bytes([byte])):
                self.frames.append(frame)
                answer = self.on_frame(frame)
                if answer:
                    self.send(answer)

    async def ask(self, ctx, frame: Frame, *, again_after: int = 3000, attempts: int = 20) -> Frame:
        """Send a question until its answer comes, and return that."""
        for _ in range(attempts):
            self.send(frame)
            first = len(self.frames)
            for _ in range(again_after):
                await ctx.tick()
                for answer in self.frames[first:]:
                    if answer.kind == Kind.ANSWER and answer.sequence == frame.sequence:
                        return answer
        raise TimeoutError(f"{frame} was not answered.")
