"""Bytes over one wire each way: eight bits, no parity, one stop bit."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

#: Below this many clocks the middle of a bit can no longer be found.
LEAST_CLOCKS_PER_BIT = 4


def clocks_per_bit(clock_hz: float, baud: int) -> int:
    """Clocks of one bit, rounded.

    Raises
    ------
    ValueError
        When the clock is too slow, or its nearest rate is more than 2% away: ten bits must stay within half a bit.
    """
    clocks = round(clock_hz / baud)
    if clocks < LEAST_CLOCKS_PER_BIT:
        raise ValueError(f"{baud} baud need a clock of at least {LEAST_CLOCKS_PER_BIT * baud / 1e6:g} MHz, not {clock_hz / 1e6:g} MHz.")
    if abs(clock_hz / clocks / baud - 1) > 0.02:
        raise ValueError(f"A clock of {clock_hz / 1e6:g} MHz makes {clock_hz / clocks:.0f} baud, more than 2% off {baud}; "
                         "choose another rate.")
    return clocks


def _check(clocks: int) -> None:
    if clocks < LEAST_CLOCKS_PER_BIT:
        raise ValueError(f"A bit takes at least {LEAST_CLOCKS_PER_BIT} clocks, not {clocks}.")


class UartReceiver(wiring.Component):
    """Turns the line into bytes. A byte without its stop bit is dropped and reported.

    Parameters
    ----------
    clocks_per_bit : int
        Clock cycles of one bit, at least 4.

    Members
    -------
    rx : In(1)
        The line, idle high; may change at any time.
    o : Out(stream.Signature(8, always_ready=True))
        Bytes.
    broken : Out(1)
        One cycle: the stop bit was missing.

    Latency
    -------
    A byte comes out in the middle of its stop bit, two cycles of synchronizer later.

    Reference
    ---------
    8N1, least significant bit first.
    """

    def __init__(self, *, clocks_per_bit: int):
        _check(clocks_per_bit)
        self.clocks_per_bit = clocks_per_bit
        super().__init__({"rx": In(1, init=1), "o": Out(stream.Signature(8, always_ready=True)), "broken": Out(1)})

    def elaborate(self, platform):
        m = Module()
        line = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, line, init=1)
        left = Signal(range(self.clocks_per_bit + 1))
        bits = Signal(range(9))
        shift = Signal(8)
        m.d.comb += self.o.payload.eq(shift)
        m.d.sync += [self.o.valid.eq(0), self.broken.eq(0), left.eq(left - 1)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [left.eq(self.clocks_per_bit // 2 - 1), bits.eq(0)]
                with m.If(~line):
                    m.next = "START"
            with m.State("START"):
                with m.If(left == 0):
                    m.d.sync += left.eq(self.clocks_per_bit - 1)
                    m.next = "BITS"
                    with m.If(line):  # too short for a start bit
                        m.next = "IDLE"
            with m.State("BITS"):
                with m.If(left == 0):
                    m.d.sync += left.eq(self.clocks_per_bit - 1)
                    with m.If(bits == 8):
                        m.d.sync += [self.o.valid.eq(line), self.broken.eq(~line)]
                        m.next = "REST"
                    with m.Else():
                        m.d.sync += [bits.eq(bits + 1), shift.eq(Cat(shift[1:], line))]
            with m.State("REST"):
                with m.If(line):
                    m.next = "IDLE"
        return m


class UartTransmitter(wiring.Component):
    """Puts bytes on the line, without a gap as long as there are any.

    Parameters
    ----------
    clocks_per_bit : int
        Clock cycles of one bit, at least 4.

    Members
    -------
    i : In(stream.Signature(8))
        Bytes.
    tx : Out(1)
        The line, idle high; a register.

    Latency
    -------
    One cycle from the transfer to the start bit; ten bits per byte.

    Reference
    ---------
    8N1, least significant bit first.
    """

    def __init__(self, *, clocks_per_bit: int):
        _check(clocks_per_bit)
        self.clocks_per_bit = clocks_per_bit
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        left = Signal(range(self.clocks_per_bit))
        bits = Signal(range(11))
        shift = Signal(9, init=0x1FF)
        end = Signal()
        m.d.comb += [end.eq(left == 0), self.i.ready.eq((bits == 0) | ((bits == 1) & end))]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [self.tx.eq(0), shift.eq(Cat(self.i.payload, 1)), bits.eq(10), left.eq(self.clocks_per_bit - 1)]
        with m.Elif(bits != 0):
            m.d.sync += left.eq(left - 1)
            with m.If(end):
                m.d.sync += [self.tx.eq(shift[0]), shift.eq(Cat(shift[1:], 1)), bits.eq(bits - 1), left.eq(self.clocks_per_bit - 1)]
        return m
