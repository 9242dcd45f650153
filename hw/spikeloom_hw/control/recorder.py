"""What the core tells the host through memory: token records, checksum records, dumps."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.config import AcceleratorConfig
from spikeloom.arch.layout import RING_RECORD, TRACE_RECORD

from ..bus.axi_writer import write_layout
from ..lib.arith import select_field
from ..lib.stream import Queue

#: Records that wait while the bus is slow.
TRACE_DEPTH = 16
#: Requests that may wait for memory's answer.
OPEN_REQUESTS = 64


class Recorder(wiring.Component):
    """Serialises three kinds of records into one stream of writes.

    Token records go round a ring; trace records and dumps fill their memory and are then dropped, which `full` tells.
    A token record counts when memory has answered, so that the host never reads one too early.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    clear : In(1)
        A new run: counts restart.
    ring_base, ring_records, trace_base, trace_bytes, dump_base, dump_bytes : In
        Where records go. Static during a run.
    i_token : In(stream of 128 bits)
        `arch.layout.RING_RECORD`.
    i_trace : In(stream of 64 bits)
        `arch.layout.TRACE_RECORD`.
    i_dump : In(stream of lanes * 32 bits)
        One group of a dump.
    o : Out(stream of write_layout)
        To the AXI writer.
    answered : In(1)
        The writer's `o_done`: the oldest request was answered.
    failed : In(1)
        A write was answered with an error: no further record counts, since it may not be in memory.
    records : Out(16)
        Token records in memory since `clear`.
    trace_count, dump_count : Out(32)
        Trace records and dumped bytes since `clear`.
    full : Out(1)
        Something was dropped since `clear`.
    idle : Out(1)
        Nothing waits and everything was answered.

    Latency
    -------
    One cycle per beat, and one to choose.

    Reference
    ---------
    `arch.layout`.
    """

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        width = cfg.address_width
        super().__init__({
            "clear": In(1), "ring_base": In(width), "ring_records": In(32), "trace_base": In(width), "trace_bytes": In(32),
            "dump_base": In(width), "dump_bytes": In(32),
            "i_token": In(stream.Signature(8 * RING_RECORD.size)), "i_trace": In(stream.Signature(8 * TRACE_RECORD.size)),
            "i_dump": In(stream.Signature(cfg.lanes * 32)),
            "o": Out(stream.Signature(write_layout(width, cfg.data_width))), "answered": In(1), "failed": In(1), "records": Out(16),
            "trace_count": Out(32), "dump_count": Out(32), "full": Out(1), "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        m.submodules.traces = traces = Queue(8 * TRACE_RECORD.size, depth=TRACE_DEPTH)
        wiring.connect(m, wiring.flipped(self.i_trace), traces.i)
        m.submodules.kinds = kinds = Queue(1, depth=OPEN_REQUESTS)
        out = self.o.payload
        sent = self.o.valid & self.o.ready
        ring_index, beat = Signal(32), Signal(8)
        group_bytes = cfg.lanes * 4
        trace_bytes = Signal(32)
        m.d.comb += [
            trace_bytes.eq(self.trace_count << exact_log2(TRACE_RECORD.size)),
            self.idle.eq(~self.i_token.valid & ~traces.o.valid & ~self.i_dump.valid & ~self.i_trace.valid & ~kinds.o.valid),
        ]
        trace_room = self._has_room(m, trace_bytes, self.trace_bytes, TRACE_RECORD.size)
        dump_room = self._has_room(m, self.dump_count, self.dump_bytes, group_bytes)
        is_token = Signal()
        m.d.comb += [
            kinds.i.valid.eq(sent & out.last), kinds.i.payload.eq(is_token), kinds.o.ready.eq(self.answered),
        ]
        with m.If(self.answered & ~self.failed & kinds.o.valid & kinds.o.payload):
            m.d.sync += self.records.eq(self.records + 1)
        with m.FSM():
            with m.State("CHOOSE"):
                with m.If(kinds.level >= OPEN_REQUESTS - 2):
                    pass
                with m.Elif(self.i_token.valid):
                    m.next = "TOKEN"
                with m.Elif(self.i_dump.valid):
                    m.d.comb += self.i_dump.ready.eq(~dump_room)
                    with m.If(dump_room):
                        m.next = "DUMP"
                    with m.Else():
                        m.d.sync += self.full.eq(1)
                with m.Elif(traces.o.valid):
                    m.d.comb += traces.o.ready.eq(~trace_room)
                    with m.If(trace_room):
                        m.next = "TRACE"
                    with m.Else():
                        m.d.sync += self.full.eq(1)
            with m.State("TOKEN"):
                offset = (ring_index & (self.ring_records - 1)) << exact_log2(RING_RECORD.size)
                m.d.comb += [is_token.eq(1), out.address.eq(self.ring_base + offset)]
                self._send_words(m, self.i_token, beat)
                with m.If(sent & out.last):
                    m.d.sync += ring_index.eq(ring_index + 1)
                    m.next = "CHOOSE"
            with m.State("DUMP"):
                m.d.comb += out.address.eq(self.dump_base + self.dump_count)
                self._send_words(m, self.i_dump, beat)
                with m.If(sent & out.last):
                    m.d.sync += self.dump_count.eq(self.dump_count + group_bytes)
                    m.next = "CHOOSE"
            with m.State("TRACE"):
                m.d.comb += [self.o.valid.eq(1), out.address.eq(self.trace_base + trace_bytes), out.last.eq(1),
                             traces.o.ready.eq(self.o.ready)]
                self._place_trace(m, out, traces.o.payload, trace_bytes)
                with m.If(sent):
                    m.d.sync += self.trace_count.eq(self.trace_count + 1)
                    m.next = "CHOOSE"
        with m.If(self.clear):
            m.d.sync += [self.trace_count.eq(0), self.dump_count.eq(0), self.full.eq(0), ring_index.eq(0),
                         self.records.eq(0)]
        return m

    @staticmethod
    def _has_room(m, used, size, more):
        """Whether so many bytes more fit into a region; its size is that of cycles ago, since the host sets it before a run."""
        limit, any_room = Signal(32), Signal()
        m.d.sync += [limit.eq(size - more), any_room.eq(size >= more)]
        return any_room & (used <= limit)

    def _send_words(self, m, source, beat):
        """Send a source's payload a beat at a time."""
        out, width = self.o.payload, self.cfg.data_width
        beats = len(source.payload) // width
        m.d.comb += [
            self.o.valid.eq(1), out.strobe.eq(~0), out.last.eq(beat == beats - 1),
            out.data.eq(select_field(source.payload, beat[:(beats - 1).bit_length()], width) if beats > 1 else source.payload),
            source.ready.eq(self.o.ready & out.last),
        ]
        with m.If(self.o.ready):
            m.d.sync += beat.eq(Mux(out.last, 0, beat + 1))

    def _place_trace(self, m, out, record, trace_bytes):
        """A trace record may be narrower than a beat: copy it to all places, strobe one."""
        copies = self.cfg.data_width // (8 * TRACE_RECORD.size)
        m.d.comb += out.data.eq(Cat([record] * copies))
        if copies == 1:
            m.d.comb += out.strobe.eq(~0)
        else:
            place = trace_bytes[exact_log2(TRACE_RECORD.size):exact_log2(TRACE_RECORD.size) + exact_log2(copies)]
            with m.Switch(place):
                for i in range(copies):
                    with m.Case(i):
                        m.d.comb += out.strobe.word_select(i, TRACE_RECORD.size).eq(~0)
