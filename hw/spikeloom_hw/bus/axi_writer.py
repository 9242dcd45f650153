"""Writes runs of beats to memory over AXI, and tells when memory has answered."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..lib.stream import Queue
from .axi import MAX_BURST_BEATS, PAGE_BYTES, AxiSignature, Response, constant_fields, error_layout
from .axi_reader import watch_bus


def write_layout(address_width: int, data_width: int) -> data.StructLayout:
    """One beat to write.

    ``address`` (bytes, the bits below a beat are ignored) counts in the first beat of a request; the others follow it.
    ``strobe`` has a bit per byte lane to write, ``last`` ends the request.
    """
    return data.StructLayout({"address": address_width, "data": data_width, "strobe": data_width // 8, "last": 1})


class AxiWriter(wiring.Component):
    """AXI write manager: collects beats into legal bursts and sends each burst when it is complete.

    A burst ends with its request, after 16 beats, or at the end of a 4 KiB block; requests may have any length. Beats are
    kept until their burst is complete, so that a slow source never holds the bus.

    It does not merge requests. An answer with an error counts as an answer, and is reported beside the stream.

    Parameters
    ----------
    address_width, data_width : int
        In bits.
    axi3 : bool
        Speak AXI3.
    max_waiting_beats : int
        Beats kept for bursts that are incomplete or waiting; at least 16.
    max_outstanding_bursts : int
        Bursts complete but not answered, at most; at least 2.

    Members
    -------
    m_axi : Out(AxiSignature(..., read=False))
        The bus.
    i : In(stream.Signature(write_layout(address_width, data_width)))
        What to write, and where.
    o_done : Out(1)
        High for one cycle when the last burst of a request was answered; once per request, in order.
    timeout : In(32)
        Cycles without any progress after which an outstanding write means a dead bus; 0: never. Static.
    drain : In(1)
        Accept nothing more and finish what was accepted; a request cut short is written as far as it came. Hold until
        ``drained`` or ``bus_dead``; this block is not to be reset together with its users.
    drained : Out(1)
        While ``drain``: every write was answered; the block is as after reset, ``bus_dead`` excepted.
    idle : Out(1)
        Nothing is kept and nothing is outstanding.
    error : Out(error_layout(address_width))
        First burst that was answered with SLVERR or DECERR, and its address; kept until ``drain``.
    bus_dead : Out(1)
        The timeout passed; no beat is accepted until this block is reset.

    Latency
    -------
    Two cycles from the beat that completes a burst to ``awvalid`` and ``wvalid``, one from ``bvalid`` to ``o_done``; one
    beat per cycle.

    Reference
    ---------
    ``memory[address + n] = byte n`` for every byte whose strobe is set.
    """

    def __init__(self, *, address_width: int = 40, data_width: int, axi3: bool = False,
                 max_waiting_beats: int = 32, max_outstanding_bursts: int = 4):
        if max_waiting_beats < MAX_BURST_BEATS:
            raise ValueError(f"A burst of {MAX_BURST_BEATS} beats must fit; max_waiting_beats is {max_waiting_beats}.")
        if max_outstanding_bursts < 2:
            raise ValueError(f"At least two bursts must be outstanding; {max_outstanding_bursts} is not enough.")
        self.axi_signature = AxiSignature(address_width=address_width, data_width=data_width, axi3=axi3, read=False)
        self.max_waiting_beats = max_waiting_beats
        self.max_outstanding_bursts = max_outstanding_bursts
        super().__init__({
            "m_axi": Out(self.axi_signature),
            "i": In(stream.Signature(write_layout(address_width, data_width))),
            "o_done": Out(1),
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
        answer_layout = data.StructLayout({"address": signature.address_width, "final": 1})
        beat_layout = data.StructLayout({"data": signature.data_width, "strobe": signature.beat_bytes})
        depth = self.max_outstanding_bursts
        m.submodules.beats = beats = Queue(beat_layout, depth=self.max_waiting_beats)
        m.submodules.bursts = bursts = Queue(burst_layout, depth=depth)
        m.submodules.lengths = lengths = Queue(4, depth=depth)
        m.submodules.answers = answers = Queue(answer_layout, depth=depth)

        m.d.comb += constant_fields(self.m_axi, "aw", signature)
        collecting = self._collect(m, bursts, beats)
        self._send_addresses(m, bursts, lengths, answers)
        self._send_data(m, lengths, beats)
        self._take_answers(m, answers)
        waiting = self.m_axi.awvalid | answers.o.valid
        busy = collecting | bursts.o.valid | waiting
        m.d.comb += self.idle.eq(~busy)
        m.d.sync += self.drained.eq(self.drain & ~busy)
        moved = [getattr(self.m_axi, channel + "valid") & getattr(self.m_axi, channel + "ready") for channel in "aw w b".split()]
        watch_bus(m, outstanding=waiting, progress=Cat(moved).any(), timeout=self.timeout, bus_dead=self.bus_dead)
        return m

    def _collect(self, m, bursts, beats):
        """Gather beats until a burst is complete; returns whether beats are waiting for that."""
        size, page_bits = self.axi_signature.size, exact_log2(PAGE_BYTES)
        within_request = Signal()
        count = Signal(range(MAX_BURST_BEATS))
        first_address, next_address, address = (Signal(self.axi_signature.address_width, name=name)
                                                for name in ("first_address", "next_address", "address"))
        accept, complete, cut_short = Signal(), Signal(), Signal()
        beat = self.i.payload

        m.d.comb += [
            self.i.ready.eq(beats.i.ready & bursts.i.ready & ~self.drain & ~self.bus_dead),
            accept.eq(self.i.valid & self.i.ready),
            address.eq(Mux(within_request, next_address, Cat(Const(0, size), beat.address[size:]))),
            complete.eq(beat.last | (count == MAX_BURST_BEATS - 1) | address[size:page_bits].all()),
            cut_short.eq(self.drain & (count != 0)),
            beats.i.valid.eq(accept),
            beats.i.payload.data.eq(beat.data),
            beats.i.payload.strobe.eq(beat.strobe),
            bursts.i.valid.eq((accept & complete) | cut_short),
            bursts.i.payload.address.eq(Mux(count == 0, address, first_address)),
            bursts.i.payload.length.eq(Mux(cut_short, count - 1, count)),
            bursts.i.payload.final.eq(cut_short | beat.last),
        ]
        with m.If(accept):
            m.d.sync += [
                within_request.eq(~beat.last),
                next_address.eq(address + self.axi_signature.beat_bytes),
                count.eq(Mux(complete, 0, count + 1)),
            ]
            with m.If(count == 0):
                m.d.sync += first_address.eq(address)
        with m.If(self.drain):
            m.d.sync += within_request.eq(0)
            with m.If(bursts.i.ready):
                m.d.sync += count.eq(0)
        return count != 0

    def _send_addresses(self, m, bursts, lengths, answers) -> None:
        free, issue = Signal(), Signal()
        m.d.comb += [
            free.eq(~self.m_axi.awvalid | self.m_axi.awready),
            issue.eq(bursts.o.valid & free & lengths.i.ready & answers.i.ready),
            bursts.o.ready.eq(issue),
            lengths.i.valid.eq(issue),
            lengths.i.payload.eq(bursts.o.payload.length),
            answers.i.valid.eq(issue),
            answers.i.payload.address.eq(bursts.o.payload.address),
            answers.i.payload.final.eq(bursts.o.payload.final),
        ]
        with m.If(free):
            m.d.sync += self.m_axi.awvalid.eq(issue)
        with m.If(issue):
            m.d.sync += [
                self.m_axi.awaddr.eq(bursts.o.payload.address),
                self.m_axi.awlen.eq(bursts.o.payload.length),
            ]

    def _send_data(self, m, lengths, beats) -> None:
        index = Signal(4)
        sent = Signal()
        m.d.comb += [
            self.m_axi.wvalid.eq(lengths.o.valid & beats.o.valid),
            self.m_axi.wdata.eq(beats.o.payload.data),
            self.m_axi.wstrb.eq(beats.o.payload.strobe),
            self.m_axi.wlast.eq(index == lengths.o.payload),
            sent.eq(self.m_axi.wvalid & self.m_axi.wready),
            beats.o.ready.eq(sent),
            lengths.o.ready.eq(sent & self.m_axi.wlast),
        ]
        with m.If(sent):
            m.d.sync += index.eq(Mux(self.m_axi.wlast, 0, index + 1))

    def _take_answers(self, m, answers) -> None:
        answered = Signal()
        m.d.comb += [
            self.m_axi.bready.eq(1),
            answered.eq(self.m_axi.bvalid & answers.o.valid),
            answers.o.ready.eq(answered),
        ]
        m.d.sync += self.o_done.eq(answered & answers.o.payload.final)
        with m.If(self.drain):
            m.d.sync += self.error.valid.eq(0)
        with m.Elif(answered & self.m_axi.bresp[1] & ~self.error.valid):
            m.d.sync += [
                self.error.valid.eq(1),
                self.error.code.eq(Response(self.m_axi.bresp)),
                self.error.address.eq(answers.o.payload.address),
            ]
