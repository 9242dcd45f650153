"""Parts that every stream needs: a queue, a register slice, and a watcher that asserts the rules of a stream."""

from amaranth.hdl import Assert, Module, Mux, Signal, Value
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out


class Queue(wiring.Component):
    """First-in first-out queue in LUT RAM with a registered output.

    It does not change or reorder payloads, and it has no combinational path from one side to the other.

    Parameters
    ----------
    shape : ShapeLike
        Shape of the payload.
    depth : int
        Payloads it holds, the one at the output included; at least 2.

    Members
    -------
    i : In(stream.Signature(shape))
        Payloads to keep; ready while there is room.
    o : Out(stream.Signature(shape))
        The oldest payload.
    level : Out(range(depth + 1))
        Payloads held, the one at the output included.

    Latency
    -------
    One cycle through an empty queue; one payload per cycle.

    Reference
    ---------
    ``collections.deque``.
    """

    def __init__(self, shape, *, depth: int):
        if not isinstance(depth, int) or depth < 2:
            raise ValueError(f"A queue holds at least two payloads; depth is {depth!r}.")
        self.shape = shape
        self.depth = depth
        super().__init__({
            "i": In(stream.Signature(shape)),
            "o": Out(stream.Signature(shape)),
            "level": Out(range(depth + 1)),
        })

    @property
    def latency(self) -> int:
        """Cycles through an empty queue."""
        return 1

    def elaborate(self, platform):
        m = Module()
        slots = self.depth - 1
        m.submodules.store = store = memory.Memory(shape=self.shape, depth=slots, init=[])
        write, read = store.write_port(), store.read_port(domain="comb")
        stored = Signal(range(slots + 1))
        free, push, pop = Signal(), Signal(), Signal()

        m.d.comb += [
            free.eq(~self.o.valid | self.o.ready),
            pop.eq(free & (stored != 0)),
            push.eq(self.i.valid & self.i.ready & ~(free & (stored == 0))),
            self.i.ready.eq(stored != slots),
            self.level.eq(stored + self.o.valid),
            write.en.eq(push),
            write.data.eq(self.i.payload),
        ]
        m.d.sync += stored.eq(stored + push - pop)
        for port, step in ((write, push), (read, pop)):
            if slots > 1:
                index = Signal(range(slots), name="write_index" if port is write else "read_index")
                m.d.comb += port.addr.eq(index)
                with m.If(step):
                    m.d.sync += index.eq(Mux(index == slots - 1, 0, index + 1))
        with m.If(pop):
            m.d.sync += [self.o.valid.eq(1), self.o.payload.eq(read.data)]
        with m.Elif(free):
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
        return m


class SkidBuffer(wiring.Component):
    """Register slice: cuts every combinational path between two ends of a stream at full throughput.

    Parameters
    ----------
    shape : ShapeLike
        Shape of the payload.

    Members
    -------
    i : In(stream.Signature(shape))
        Payloads; ready is a register.
    o : Out(stream.Signature(shape))
        The same payloads; valid and payload are registers.

    Latency
    -------
    One cycle; one payload per cycle.

    Reference
    ---------
    The identity.
    """

    def __init__(self, shape):
        self.shape = shape
        super().__init__({
            "i": In(stream.Signature(shape)),
            "o": Out(stream.Signature(shape)),
        })

    @property
    def latency(self) -> int:
        """Cycles from input to output while nothing stalls."""
        return 1

    def elaborate(self, platform):
        m = Module()
        full = Signal()
        spare = Signal(self.shape)

        m.d.comb += self.i.ready.eq(~full)
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += full.eq(0)
            with m.If(full):
                m.d.sync += [self.o.valid.eq(1), self.o.payload.eq(spare)]
            with m.Else():
                m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
        with m.Elif(self.i.valid & ~full):
            m.d.sync += [full.eq(1), spare.eq(self.i.payload)]
        return m


class Checker(wiring.Component):
    """Watcher that asserts the rules of a stream: once valid, neither valid nor payload changes before the transfer.

    It drives nothing. A simulator stops at the cycle of the violation: ``amaranth.sim`` with an `AssertionError`,
    Verilator where it is run with ``--assert``. Synthesis ignores it.

    Parameters
    ----------
    shape : ShapeLike
        Shape of the payload.
    name : str
        What the message calls the stream.

    Members
    -------
    valid, ready : In(1)
        The watched stream's handshake.
    payload : In(shape)
        The watched stream's payload.
    restart : In(1)
        High while one end is in reset: the rules are suspended.
    transfers : Out(32)
        Transfers seen.

    Latency
    -------
    None; it has no output that hardware may use.

    Reference
    ---------
    Amaranth RFC 61.
    """

    def __init__(self, shape, *, name: str = "stream"):
        self.shape = shape
        self.name = name
        super().__init__({
            "valid": In(1),
            "ready": In(1),
            "payload": In(shape),
            "restart": In(1),
            "transfers": Out(32),
        })

    @classmethod
    def watch(cls, m: Module, watched, *, name: str, restart=0) -> "Checker":
        """Add a checker for the stream interface ``watched`` to module ``m`` and connect it."""
        checker = cls(watched.payload.shape(), name=name)
        m.submodules[f"check_{name}"] = checker
        m.d.comb += [
            checker.valid.eq(watched.valid),
            checker.ready.eq(watched.ready),
            checker.payload.eq(watched.payload),
            checker.restart.eq(restart),
        ]
        return checker

    def elaborate(self, platform):
        m = Module()
        payload = Value.cast(self.payload)
        held = Signal()
        held_payload = Signal(len(payload))

        m.d.sync += [
            held.eq(self.valid & ~self.ready & ~self.restart),
            held_payload.eq(payload),
            self.transfers.eq(self.transfers + (self.valid & self.ready)),
        ]
        with m.If(held & ~self.restart):
            m.d.comb += [
                Assert(self.valid, f"{self.name}: valid fell before the transfer"),
                Assert(payload == held_payload, f"{self.name}: payload changed before the transfer"),
            ]
        return m
