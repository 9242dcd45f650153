"""Frames of the serial link (`spikeloom.arch.serial_link`), out of bytes and into bytes."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import In, Out

from spikeloom.arch.serial_link import BEAT_BYTES, CRC, ESCAPE, ESCAPE_XOR, FLAG, HEADER, MAX_FRAME_BEATS

#: Header of a frame, first byte lowest.
HEADER_LAYOUT = data.StructLayout({"kind": 8, "sequence": 8, "argument": 16, "value": 32})
#: A beat as a STORE carries it: one strobe bit per byte, then the bytes.
STORE_BEAT = data.StructLayout({"strobe": BEAT_BYTES, "data": 8 * BEAT_BYTES})
assert HEADER_LAYOUT.size == 8 * HEADER.size


class FrameReceiver(wiring.Component):
    """Finds frames in bytes and holds one until it is released; a frame that comes meanwhile is dropped.

    Only whole beats of eight bytes are accepted as payload, at most `MAX_FRAME_BEATS`. What is damaged, too long or comes
    too early is dropped and reported.

    Members
    -------
    i : In(stream.Signature(8, always_ready=True))
        Bytes as they come from the line.
    valid : Out(1)
        A frame is held.
    header : Out(HEADER_LAYOUT)
        Its header; this and the next two are stable while ``valid``.
    beats : Out(range(MAX_FRAME_BEATS + 1))
        Beats of its payload.
    r_beat : In(range(MAX_FRAME_BEATS))
        Beat to look at.
    r_data : Out(64)
        That beat, in the same cycle.
    release : In(1)
        Forget the frame.
    dropped : Out(1)
        One cycle: something between two flags was no good frame.

    Latency
    -------
    One cycle from the closing flag to ``valid``.

    Reference
    ---------
    `spikeloom.arch.serial_link.Deframer`.
    """

    def __init__(self):
        super().__init__({
            "i": In(stream.Signature(8, always_ready=True)),
            "valid": Out(1), "header": Out(HEADER_LAYOUT), "beats": Out(range(MAX_FRAME_BEATS + 1)),
            "r_beat": In(range(MAX_FRAME_BEATS)), "r_data": Out(8 * BEAT_BYTES), "release": In(1), "dropped": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        longest = HEADER.size + MAX_FRAME_BEATS * BEAT_BYTES + CRC.size
        m.submodules.crc = check = CRC32_ISO_HDLC().create()
        m.submodules.store = store = memory.Memory(shape=unsigned(8 * BEAT_BYTES), depth=MAX_FRAME_BEATS, init=[])
        write, read = store.write_port(), store.read_port(domain="comb")
        # The CRC behind the payload fills half a word, which is never written.
        count = Signal(range(longest + 2))
        escaped, spoiled = Signal(), Signal()
        byte = Signal(8)
        earlier = Signal(8 * (BEAT_BYTES - 1))  # the seven bytes before this one, the oldest lowest
        flag, escape, plain, in_header = Signal(), Signal(), Signal(), Signal()
        payload_bytes = Signal.like(count)
        m.d.comb += [
            flag.eq(self.i.valid & (self.i.payload == FLAG)),
            escape.eq(self.i.valid & (self.i.payload == ESCAPE)),
            plain.eq(self.i.valid & ~flag & ~escape),
            byte.eq(self.i.payload ^ Mux(escaped, ESCAPE_XOR, 0)),
            in_header.eq(count < HEADER.size),
            payload_bytes.eq(count - (HEADER.size + CRC.size)),
            check.data.eq(byte), check.valid.eq(plain), check.start.eq(flag),
            write.addr.eq((count - HEADER.size)[3:]),
            write.data.eq(Cat(earlier, byte)),
            write.en.eq(plain & ~in_header & ((count & 7) == 7) & ~self.valid & (count < longest - CRC.size)),
            read.addr.eq(self.r_beat), self.r_data.eq(read.data),
        ]
        m.d.sync += self.dropped.eq(0)
        with m.If(self.release):
            m.d.sync += self.valid.eq(0)
        with m.If(plain):
            m.d.sync += [escaped.eq(0), count.eq(Mux(count > longest, count, count + 1)), earlier.eq(Cat(earlier[8:], byte))]
            # Its memory and header are still in use: what comes now is lost.
            m.d.sync += spoiled.eq(spoiled | self.valid)
            with m.If(in_header & ~self.valid):
                m.d.sync += self.header.eq(Cat(self.header.as_value()[8:], byte))
        with m.If(escape):
            m.d.sync += escaped.eq(1)
        with m.If(flag):
            good = Signal()
            whole = (count >= HEADER.size + CRC.size) & (count <= longest) & ((payload_bytes & 7) == 0)
            m.d.comb += good.eq(whole & check.match_detected & ~escaped & ~spoiled)
            m.d.sync += [count.eq(0), escaped.eq(0), spoiled.eq(0), self.dropped.eq(~good & ((count != 0) | escaped))]
            with m.If(good):
                m.d.sync += [self.valid.eq(1), self.beats.eq(payload_bytes >> 3)]
        return m


class FrameTransmitter(wiring.Component):
    """Sends frames as bytes.

    Members
    -------
    start : In(1)
        Send a frame; only while ``idle``.
    header : In(HEADER_LAYOUT)
        Taken with ``start``.
    beats : In(range(MAX_FRAME_BEATS + 1))
        Beats of payload, taken with ``start``.
    r_beat : Out(range(MAX_FRAME_BEATS))
        Beat that is needed.
    r_data : In(STORE_BEAT)
        That beat, in the same cycle.
    idle : Out(1)
        Nothing is being sent.
    o : Out(stream.Signature(8))
        Bytes for the line.

    Latency
    -------
    One cycle from ``start`` to the first byte; then one byte per two cycles, if the line takes them.

    Reference
    ---------
    `spikeloom.arch.serial_link.encode_frame`.
    """

    def __init__(self):
        super().__init__({
            "start": In(1), "header": In(HEADER_LAYOUT), "beats": In(range(MAX_FRAME_BEATS + 1)),
            "r_beat": Out(range(MAX_FRAME_BEATS)), "r_data": In(STORE_BEAT), "idle": Out(1), "o": Out(stream.Signature(8)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.crc = check = CRC32_ISO_HDLC().create()
        word = Signal(STORE_BEAT.size)
        left = Signal(range(STORE_BEAT.size // 8 + 1))
        beats = Signal.like(self.beats)
        byte, escaped, stuff, moved, last = Signal(8), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            byte.eq(word[:8]), stuff.eq((byte == FLAG) | (byte == ESCAPE)), last.eq(left == 1), check.data.eq(byte),
        ]

        def body(after):
            """Send the bytes of `word`, then go on with the statements of `after`."""
            m.d.comb += [
                self.o.valid.eq(1),
                self.o.payload.eq(Mux(~stuff, byte, Mux(escaped, byte ^ ESCAPE_XOR, ESCAPE))),
                moved.eq(self.o.ready & (~stuff | escaped)),
            ]
            with m.If(self.o.ready):
                m.d.sync += escaped.eq(stuff & ~escaped)
            with m.If(moved):
                m.d.sync += [word.eq(word >> 8), left.eq(left - 1)]
                with m.If(last):
                    after()

        def after_data():
            with m.If(beats == 0):
                m.next = "CRC"
            with m.Else():
                m.next = "BEAT"

        def after_crc():
            m.next = "CLOSE"

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.idle.eq(1)
                with m.If(self.start):
                    m.d.comb += check.start.eq(1)
                    m.d.sync += [word.eq(self.header), left.eq(HEADER.size), beats.eq(self.beats), self.r_beat.eq(0)]
                    m.next = "OPEN"
            with m.State("OPEN"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(FLAG)]
                with m.If(self.o.ready):
                    m.next = "DATA"
            with m.State("DATA"):
                body(after_data)
                m.d.comb += check.valid.eq(moved)
            with m.State("BEAT"):
                m.d.sync += [word.eq(self.r_data), left.eq(STORE_BEAT.size // 8), beats.eq(beats - 1), self.r_beat.eq(self.r_beat + 1)]
                m.next = "DATA"
            with m.State("CRC"):
                m.d.sync += [word.eq(check.crc), left.eq(CRC.size)]
                m.next = "TAIL"
            with m.State("TAIL"):
                body(after_crc)
            with m.State("CLOSE"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(FLAG)]
                with m.If(self.o.ready):
                    m.next = "IDLE"
        return m

