"""Reads runs of beats from memory over AXI: legal bursts out, a stream of beats in."""

from amaranth.hdl import Cat, Const, Module, Mux, ResetInserter, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.streamed_cycles import MAX_REQUEST_BEATS

from ..lib.stream import Queue, SkidBuffer
from .axi import MAX_BURST_BEATS, PAGE_BYTES, AxiSignature, Response, constant_fields, error_layout


def request_layout(address_width: int) -> data.StructLayout:
    """A run of memory: first ``address`` in bytes, aligned to a beat, and the number of ``beats``."""
    return data.StructLayout({"address": address_width, "beats": range(MAX_REQUEST_BEATS + 1)})


def beat_layout(data_width: int) -> data.StructLayout:
    """One beat of an answer; ``last`` marks the last beat of its request."""
    return data.StructLayout({"data": data_width, "last": 1})


class AxiReader(wiring.Component):
    """AXI read manager: each request comes back as its beats, in order, whatever bursts it took.

    A burst has at most 16 beats and stays inside 4 KiB. Several are outstanding at once, but a burst is issued only when
    room for all of its beats is reserved, so that the bus never waits for this end (``rready`` is constant).

    It does not reorder, cache, or read less than a beat. A request of zero beats is swallowed: nothing comes back. A beat
    that arrives with an error is delivered like any other, and reported beside the stream.

    Parameters
    ----------
    address_width, data_width : int
        In bits.
    axi3 : bool
        Speak AXI3.
    max_outstanding_beats : int
        Beats reserved or waiting at the output, at most; at least 17, and more than latency in cycles for full speed.
    max_outstanding_bursts : int
        Bursts without a complete answer, at most; at least 2.

    Members
    -------
    m_axi : Out(AxiSignature(..., write=False))
        The bus.
    i_request : In(stream.Signature(request_layout(address_width)))
        What to read.
    o_beat : Out(stream.Signature(beat_layout(data_width)))
        What was read. Held back while ``drain``.
    timeout : In(32)
        Cycles without any answer after which an outstanding read means a dead bus; 0: never. Static.
    drain : In(1)
        Forget everything: no further burst is issued, requests are not accepted, outstanding beats are dropped. Hold
        until ``drained`` or ``bus_dead``; this block is not to be reset together with its users.
    drained : Out(1)
        While ``drain``: nothing is outstanding any more; the block is as after reset, ``bus_dead`` excepted.
    idle : Out(1)
        No request is in work and every beat has been handed over.
    error : Out(error_layout(address_width))
        First beat that came back with SLVERR or DECERR, and its address; kept until ``drain``.
    bus_dead : Out(1)
        The timeout passed; no request is accepted until this block is reset.

    Latency
    -------
    Two cycles from ``i_request`` to ``arvalid``, one from ``rvalid`` to ``o_beat``; one beat per cycle, one burst per
    cycle.

    Reference
    ---------
    ``memory[address : address + beats * data_width // 8]``.
    """

    def __init__(self, *, address_width: int = 40, data_width: int, axi3: bool = False,
                 max_outstanding_beats: int = 64, max_outstanding_bursts: int = 16):
        if max_outstanding_beats <= MAX_BURST_BEATS:
            raise ValueError(f"A burst of {MAX_BURST_BEATS} beats needs room and one beat more; "
                             f"max_outstanding_beats is {max_outstanding_beats}.")
        if max_outstanding_bursts < 2:
            raise ValueError(f"At least two bursts must be outstanding; {max_outstanding_bursts} is not enough.")
        self.axi_signature = AxiSignature(address_width=address_width, data_width=data_width, axi3=axi3, write=False)
        self.max_outstanding_beats = max_outstanding_beats
        self.max_outstanding_bursts = max_outstanding_bursts
        self._page_bits = exact_log2(PAGE_BYTES)
        super().__init__({
            "m_axi": Out(self.axi_signature),
            "i_request": In(stream.Signature(request_layout(address_width))),
            "o_beat": Out(stream.Signature(beat_layout(data_width))),
            "timeout": In(32),
            "drain": In(1),
            "drained": Out(1),
            "idle": Out(1),
            "error": Out(error_layout(address_width)),
            "bus_dead": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        signature = self.axi_signature
        burst_layout = data.StructLayout({"address": signature.address_width, "length": 4, "final": 1})
        m.submodules.bursts = bursts = Queue(burst_layout, depth=self.max_outstanding_bursts)
        beats = Queue(self.o_beat.payload.shape(), depth=self.max_outstanding_beats)
        m.submodules.beats = ResetInserter(self.drain)(beats)

        m.d.comb += [
            *constant_fields(self.m_axi, "ar", signature),
            self.m_axi.rready.eq(1),
            self.o_beat.valid.eq(beats.o.valid & ~self.drain),
            self.o_beat.payload.eq(beats.o.payload),
            beats.o.ready.eq(self.o_beat.ready),
        ]
        active = self._issue(m, bursts)
        self._receive(m, bursts, beats)
        waiting = self.m_axi.arvalid | bursts.o.valid
        m.d.comb += self.idle.eq(~active & ~waiting & ~beats.o.valid)
        m.d.sync += self.drained.eq(self.drain & ~waiting & ~active)
        watch_bus(m, outstanding=waiting, timeout=self.timeout, bus_dead=self.bus_dead,
                  progress=(self.m_axi.arvalid & self.m_axi.arready) | self.m_axi.rvalid)
        return m

    def _issue(self, m, bursts) -> Signal:
        """Cut the request in work into bursts; returns whether there is one."""
        size = self.axi_signature.size
        active, accept, issue = Signal(), Signal(), Signal()
        address = Signal(self.axi_signature.address_width)
        remaining = Signal(range(MAX_REQUEST_BEATS + 1))
        unreserved = Signal(range(self.max_outstanding_beats + 1), init=self.max_outstanding_beats)
        length, final = Signal(range(MAX_BURST_BEATS + 1)), Signal()
        address_bits, left = address[size:self._page_bits], Signal.like(remaining)
        follows, room = Signal(len(address_bits)), Signal(range(MAX_BURST_BEATS + 1))

        # No way from the bus to whoever asks.
        m.submodules.asked = asked = SkidBuffer(data.StructLayout({"address": len(address), "length": 4}))
        # Length and end of a burst are registers: whoever asks waits on them, through `i_request.ready`.
        page_bits = self.i_request.payload.address[size:self._page_bits]
        m.d.comb += [
            follows.eq(Mux(accept, page_bits, address_bits + length)),
            left.eq(Mux(accept, self.i_request.payload.beats, remaining - length)),
            room.eq(Mux(follows[4:].all(), MAX_BURST_BEATS - follows[:4], MAX_BURST_BEATS)),
        ]
        with m.If(accept | issue):
            m.d.sync += [remaining.eq(left), final.eq(left <= room), length.eq(Mux(left <= room, left, room))]
        m.d.comb += [
            asked.i.valid.eq(issue), asked.i.payload.address.eq(address), asked.i.payload.length.eq(length - 1),
            self.m_axi.arvalid.eq(asked.o.valid), asked.o.ready.eq(self.m_axi.arready),
            self.m_axi.araddr.eq(asked.o.payload.address), self.m_axi.arlen.eq(asked.o.payload.length),
            issue.eq(active & asked.i.ready & (unreserved >= length) & bursts.i.ready & ~self.drain & ~self.bus_dead),
            self.i_request.ready.eq((~active | (issue & final)) & ~self.drain & ~self.bus_dead),
            accept.eq(self.i_request.valid & self.i_request.ready),
            bursts.i.valid.eq(issue),
            bursts.i.payload.address.eq(address),
            bursts.i.payload.length.eq(length - 1),
            bursts.i.payload.final.eq(final),
        ]
        with m.If(issue):
            m.d.sync += address.eq(address + (length << size))
        with m.If(accept):
            m.d.sync += [
                active.eq(self.i_request.payload.beats != 0),
                address.eq(Cat(Const(0, size), self.i_request.payload.address[size:])),
            ]
        with m.Elif(self.drain | (issue & final)):
            m.d.sync += active.eq(0)
        with m.If(self.drain):
            m.d.sync += unreserved.eq(self.max_outstanding_beats)
        with m.Else():
            handed_over = self.o_beat.valid & self.o_beat.ready
            m.d.sync += unreserved.eq(unreserved - Mux(issue, length, 0) + handed_over)
        return active

    def _receive(self, m, bursts, beats) -> None:
        """Number the arriving beats, mark the last of each request, note the first error."""
        size = self.axi_signature.size
        burst = bursts.o.payload
        index = Signal(4)
        arrived, burst_end = Signal(), Signal()

        m.d.comb += [
            arrived.eq(self.m_axi.rvalid & bursts.o.valid),
            burst_end.eq(index == burst.length),
            bursts.o.ready.eq(arrived & burst_end),
            beats.i.valid.eq(arrived),
            beats.i.payload.data.eq(self.m_axi.rdata),
            beats.i.payload.last.eq(burst_end & burst.final),
        ]
        with m.If(arrived):
            m.d.sync += index.eq(Mux(burst_end, 0, index + 1))
        with m.If(self.drain):
            m.d.sync += self.error.valid.eq(0)
        with m.Elif(arrived & self.m_axi.rresp[1] & ~self.error.valid):
            page_offset = (burst.address[:self._page_bits] + (index << size))[:self._page_bits]
            m.d.sync += [
                self.error.valid.eq(1),
                self.error.code.eq(Response(self.m_axi.rresp)),
                self.error.address.eq(Cat(page_offset, burst.address[self._page_bits:])),
            ]


def watch_bus(m, *, outstanding, progress, timeout, bus_dead) -> None:
    """Raise ``bus_dead`` for good after ``timeout`` cycles in which something was outstanding and nothing moved."""
    patience = Signal(32, init=0xFFFF_FFFF)
    with m.If(~outstanding | progress):
        m.d.sync += patience.eq(timeout)
    with m.Elif(timeout != 0):
        m.d.sync += patience.eq(patience - 1)
        with m.If(patience <= 1):
            m.d.sync += bus_dead.eq(1)
