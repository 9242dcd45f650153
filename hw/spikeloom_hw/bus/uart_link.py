"""The board's end of the serial link: the host's register accesses in, the core's memory accesses out."""

from amaranth.hdl import Module, Mux, ResetInserter, Signal, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from spikeloom.arch.serial_link import ANSWER_FIELDS, BEAT_BYTES, LINK_MAGIC, LINK_VERSION, MAX_FRAME_BEATS, Kind

from .axi import AxiLiteSignature, AxiSignature, Response
from .uart import UartReceiver, UartTransmitter
from .uart_frames import HEADER_LAYOUT, STORE_BEAT, FrameReceiver, FrameTransmitter

#: Cycles that the core's reset is held for.
RESET_CYCLES = 16
_BEATS = range(MAX_FRAME_BEATS + 1)
_INDEX = range(MAX_FRAME_BEATS)


class HeldFrame(wiring.Signature):
    """A received frame as its receiver holds it, seen from those who read it.

    Members
    -------
    valid, header, beats, r_data : In
        As of `FrameReceiver`.
    r_beat, release : Out
        As of `FrameReceiver`.
    """

    def __init__(self):
        super().__init__({
            "valid": In(1), "header": In(HEADER_LAYOUT), "beats": In(_BEATS), "r_beat": Out(_INDEX),
            "r_data": In(8 * BEAT_BYTES), "release": Out(1),
        })


class FrameRequest(wiring.Signature):
    """A frame to send, seen from who wants it sent.

    Members
    -------
    valid, header, beats, r_data : Out
        Hold ``valid``, ``header`` and ``beats`` until ``done``; ``r_data`` is the beat that ``r_beat`` names.
    r_beat : In(range(MAX_FRAME_BEATS))
        Beat that is needed.
    done : In(1)
        One cycle: the frame has been taken and is on its way, to its last byte.
    """

    def __init__(self):
        super().__init__({
            "valid": Out(1), "header": Out(HEADER_LAYOUT), "beats": Out(_BEATS), "r_beat": In(_INDEX), "r_data": Out(STORE_BEAT),
            "done": In(1),
        })


class HostPort(wiring.Component):
    """Carries out the host's questions, each once, and answers every one.

    A question with the number of the last one is not carried out again: the last answer goes out once more. It does not
    limit how long the register file may take; the host does.

    Members
    -------
    m_axil : Out(AxiLiteSignature(address_width=12))
        Registers.
    frame : In(HeldFrame)
        Received frames; answers to memory questions are left to others.
    o : FrameRequest
        Answers.
    interrupt : In(1)
        Level of the interrupt, told with each answer.
    dropped : In(1)
        A received frame was dropped: counted.
    core_reset : Out(1)
        Resets everything but the link. A register.

    Latency
    -------
    Two cycles and the register file's.

    Reference
    ---------
    `spikeloom.arch.serial_link`.
    """

    def __init__(self):
        super().__init__({
            "m_axil": Out(AxiLiteSignature(address_width=12)), "frame": Out(HeldFrame()), "o": Out(FrameRequest()),
            "interrupt": In(1), "dropped": In(1), "core_reset": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        bus, frame, header = self.m_axil, self.frame, self.frame.header
        sequence, value, response, lost = Signal(8), Signal(32), Signal(2), Signal(ANSWER_FIELDS["lost"][1])
        left = Signal(range(RESET_CYCLES + 1))
        answer = self.o.header
        fields = {"response": response, "interrupt": self.interrupt, "lost": lost}
        m.d.comb += [
            bus.awaddr.eq(header.argument), bus.araddr.eq(header.argument), bus.wdata.eq(header.value), bus.wstrb.eq(0xF),
            answer.kind.eq(Kind.ANSWER), answer.sequence.eq(sequence), answer.value.eq(value), self.o.beats.eq(0),
            *(answer.argument[lsb:lsb + width].eq(fields[name]) for name, (lsb, width) in ANSWER_FIELDS.items()),
        ]
        with m.If(self.dropped & ~lost.all()):
            m.d.sync += lost.eq(lost + 1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += left.eq(RESET_CYCLES - 1)
                with m.If(frame.valid):
                    self._begin(m, sequence, value, response, lost)
            with m.State("WRITE"):
                with m.If(bus.awready):
                    m.d.sync += bus.awvalid.eq(0)
                with m.If(bus.wready):
                    m.d.sync += bus.wvalid.eq(0)
                m.d.comb += bus.bready.eq(1)
                with m.If(bus.bvalid):
                    m.d.sync += [response.eq(bus.bresp), value.eq(0)]
                    m.next = "ANSWER"
            with m.State("READ"):
                with m.If(bus.arready):
                    m.d.sync += bus.arvalid.eq(0)
                m.d.comb += bus.rready.eq(1)
                with m.If(bus.rvalid):
                    m.d.sync += [response.eq(bus.rresp), value.eq(bus.rdata)]
                    m.next = "ANSWER"
            with m.State("RESET"):
                m.d.sync += left.eq(left - 1)
                with m.If(left == 0):
                    m.d.sync += [self.core_reset.eq(0), response.eq(Response.OKAY), value.eq(0)]
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.done):
                    m.d.comb += frame.release.eq(1)
                    m.next = "IDLE"
        return m

    def _begin(self, m, sequence, value, response, lost) -> None:
        bus, frame, header = self.m_axil, self.frame, self.frame.header
        again = Signal()
        m.d.comb += again.eq(header.sequence == sequence)
        m.d.sync += sequence.eq(header.sequence)
        with m.Switch(header.kind):
            with m.Case(Kind.HELLO):
                m.d.sync += [value.eq(LINK_MAGIC << 16 | LINK_VERSION), response.eq(Response.OKAY), lost.eq(0)]
                m.next = "ANSWER"
            with m.Case(Kind.READ):
                m.next = "ANSWER"
                with m.If(~again):
                    m.d.sync += bus.arvalid.eq(1)
                    m.next = "READ"
            with m.Case(Kind.WRITE):
                m.next = "ANSWER"
                with m.If(~again):
                    m.d.sync += [bus.awvalid.eq(1), bus.wvalid.eq(1)]
                    m.next = "WRITE"
            with m.Case(Kind.RESET):
                m.next = "ANSWER"
                with m.If(~again):
                    m.d.sync += self.core_reset.eq(1)
                    m.next = "RESET"
            with m.Case(Kind.DATA, Kind.STORED):
                m.d.sync += sequence.eq(sequence)
            with m.Default():
                m.d.sync += sequence.eq(sequence)
                m.d.comb += frame.release.eq(1)


class MemoryPort(wiring.Component):
    """AXI memory that lies on the host: each burst becomes one question, one at a time.

    A question is asked again when no answer comes; after so many times in vain the burst is answered with SLVERR, so that
    the core reports an error and does not hang. Bursts are of at most 16 full beats, as our managers make them.

    Parameters
    ----------
    address_width : int
        At most 32: what a frame can say.
    patience : int
        Cycles to wait for an answer, from the end of the question.
    attempts : int
        Times to ask.

    Members
    -------
    s_axi : In(AxiSignature(data_width=64))
        The core's manager.
    frame : HeldFrame
        Received frames; only DATA and STORED are looked at, and released.
    o : FrameRequest
        Questions.
    sequence : In(8)
        Number of the question.
    asked : Out(1)
        One cycle: the burst is over, and the next question takes another number.
    waiting : Out(1)
        A question has no answer yet.
    failed : Out(1)
        One cycle: a burst was given up, or the host refused it.
    sending : In(1)
        A frame is on its way out: patience starts at its end.

    Latency
    -------
    That of the line and the host.

    Reference
    ---------
    ``memory[address : address + beats * 8]`` on the host.
    """

    def __init__(self, *, address_width: int, patience: int, attempts: int):
        if address_width > 32:
            raise ValueError(f"A frame names addresses of 32 bits; address_width is {address_width}: choose a machine with at most 32.")
        if patience < 1 or attempts < 1:
            raise ValueError("patience and attempts are at least 1.")
        self.patience, self.attempts = patience, attempts
        self.axi_signature = AxiSignature(address_width=address_width, data_width=8 * BEAT_BYTES)
        super().__init__({
            "s_axi": In(self.axi_signature),
            "frame": Out(HeldFrame()), "o": Out(FrameRequest()), "sequence": In(8), "asked": Out(1), "waiting": Out(1),
            "failed": Out(1), "sending": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        axi, frame, question = self.s_axi, self.frame, self.o.header
        m.submodules.store = store = memory.Memory(shape=unsigned(STORE_BEAT.size), depth=MAX_FRAME_BEATS, init=[])
        collected, sent = store.write_port(), store.read_port(domain="comb")
        writing, refused = Signal(), Signal()
        address, identity = Signal(len(axi.awaddr)), Signal(len(axi.awid))
        last, index = Signal(_INDEX), Signal(_INDEX)
        patience, attempts = Signal(range(self.patience + 1)), Signal(range(self.attempts + 1))
        beat = data.View(STORE_BEAT, collected.data)
        m.d.comb += [
            question.kind.eq(Mux(writing, Kind.STORE, Kind.FETCH)), question.sequence.eq(self.sequence),
            question.argument.eq(last + 1), question.value.eq(address), self.o.beats.eq(Mux(writing, last + 1, 0)),
            sent.addr.eq(self.o.r_beat), self.o.r_data.eq(sent.data),
            collected.addr.eq(index), beat.strobe.eq(axi.wstrb), beat.data.eq(axi.wdata),
            frame.r_beat.eq(index), axi.rdata.eq(frame.r_data), axi.rlast.eq(index == last),
            axi.rid.eq(identity), axi.bid.eq(identity),
            axi.rresp.eq(Mux(refused, Response.SLVERR, Response.OKAY)), axi.bresp.eq(axi.rresp),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [index.eq(0), refused.eq(0), attempts.eq(self.attempts - 1)]
                m.d.comb += [axi.awready.eq(1), axi.arready.eq(~axi.awvalid)]
                with m.If(axi.awvalid):
                    m.d.sync += [writing.eq(1), address.eq(axi.awaddr), last.eq(axi.awlen), identity.eq(axi.awid)]
                    m.next = "COLLECT"
                with m.Elif(axi.arvalid):
                    m.d.sync += [writing.eq(0), address.eq(axi.araddr), last.eq(axi.arlen), identity.eq(axi.arid)]
                    m.next = "ASK"
                self._forget_late_answers(m)
            with m.State("COLLECT"):
                m.d.comb += [axi.wready.eq(1), collected.en.eq(axi.wvalid)]
                with m.If(axi.wvalid):
                    m.d.sync += index.eq(index + 1)
                    with m.If(axi.wlast):
                        m.d.sync += index.eq(0)
                        m.next = "ASK"
                self._forget_late_answers(m)
            with m.State("ASK"):
                m.d.comb += [self.o.valid.eq(1), self.waiting.eq(1)]
                m.d.sync += patience.eq(self.patience)
                with m.If(self.o.done):
                    m.next = "WAIT"
                self._forget_late_answers(m)
            with m.State("WAIT"):
                self._await_answer(m, writing, last, refused, patience, attempts)
            with m.State("BEATS"):
                m.d.comb += axi.rvalid.eq(1)
                with m.If(axi.rready):
                    m.d.sync += index.eq(index + 1)
                    with m.If(axi.rlast):
                        m.d.comb += [self.asked.eq(1), frame.release.eq(self._is_answer)]
                        m.next = "IDLE"
            with m.State("DONE"):
                m.d.comb += axi.bvalid.eq(1)
                with m.If(axi.bready):
                    m.d.comb += [self.asked.eq(1), frame.release.eq(self._is_answer)]
                    m.next = "IDLE"
        return m

    @property
    def _is_answer(self):
        """A frame for this port is held, right or late."""
        kind = self.frame.header.kind
        return self.frame.valid & ((kind == Kind.DATA) | (kind == Kind.STORED))

    def _forget_late_answers(self, m) -> None:
        m.d.comb += self.frame.release.eq(self._is_answer)

    def _await_answer(self, m, writing, last, refused, patience, attempts) -> None:
        frame, header = self.frame, self.frame.header
        right, good = Signal(), Signal()
        m.d.comb += [
            self.waiting.eq(1),
            right.eq(header.sequence == self.sequence),
            good.eq((header.argument == Response.OKAY.value)
                    & Mux(writing, header.kind == Kind.STORED, (header.kind == Kind.DATA) & (frame.beats == last + 1))),
        ]
        answer = Signal()
        m.d.comb += answer.eq(self._is_answer & right)
        with m.If(self._is_answer & ~right):
            m.d.comb += frame.release.eq(1)
        with m.If(~self.sending):
            m.d.sync += patience.eq(patience - 1)
        given_up = Signal()
        m.d.comb += given_up.eq((patience == 0) & (attempts == 0) & ~answer)
        with m.If(answer | given_up):
            m.d.sync += refused.eq(~(answer & good))
            m.d.comb += self.failed.eq(~(answer & good))
            with m.If(writing):
                m.next = "DONE"
            with m.Else():
                m.next = "BEATS"
        with m.Elif(patience == 0):
            m.d.sync += attempts.eq(attempts - 1)
            m.next = "ASK"


class UartLink(wiring.Component):
    """A core's registers and memory over one serial line; the core beside it is reset by `core_reset`.

    Parameters
    ----------
    address_width : int
        Of the core's manager, at most 32 bits.
    clocks_per_bit : int
        Clock cycles of one bit on the line, at least 4.
    patience, attempts : int
        Cycles to wait for memory's answer, and times to ask; after that the core gets SLVERR.

    Members
    -------
    rx : In(1)
    tx : Out(1)
        The line.
    m_axil : Out(AxiLiteSignature(address_width=12))
        To the core's registers.
    s_axi : In(AxiSignature(data_width=64))
        From the core's manager.
    irq : In(1)
        The core's interrupt.
    core_reset : Out(1)
        Resets the core; a register.
    heard, asking, failed, dropped : Out(1)
        For lamps: a good frame came; memory is waited for; a burst failed; a frame was dropped. All but `asking` are
        one cycle long.

    Latency
    -------
    That of the line.

    Reference
    ---------
    `spikeloom.arch.serial_link`.
    """

    def __init__(self, *, address_width: int, clocks_per_bit: int, patience: int, attempts: int = 8):
        self.clocks_per_bit = clocks_per_bit
        self.memory = MemoryPort(address_width=address_width, patience=patience, attempts=attempts)
        super().__init__({
            "rx": In(1, init=1), "tx": Out(1, init=1), "m_axil": Out(AxiLiteSignature(address_width=12)),
            "s_axi": In(self.memory.axi_signature), "irq": In(1), "core_reset": Out(1),
            "heard": Out(1), "asking": Out(1), "failed": Out(1), "dropped": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(clocks_per_bit=self.clocks_per_bit)
        m.submodules.transmitter = transmitter = UartTransmitter(clocks_per_bit=self.clocks_per_bit)
        m.submodules.frames_in = frames_in = FrameReceiver()
        m.submodules.frames_out = frames_out = FrameTransmitter()
        m.submodules.host = host = HostPort()
        # The manager on its other side goes through the same reset: neither is left with half a transfer.
        m.submodules.memory = ResetInserter(self.core_reset)(self.memory)
        m.d.comb += [receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx)]
        connect(m, receiver.o, frames_in.i)
        connect(m, frames_out.o, transmitter.i)
        connect(m, flipped(self.m_axil), host.m_axil)
        connect(m, flipped(self.s_axi), self.memory.s_axi)
        self._share_received(m, frames_in, host)
        self._share_sender(m, frames_out, host)
        sequence = Signal(8)  # outlives the core's reset, so that no late answer fits a new question
        with m.If(self.memory.asked | self.core_reset):
            m.d.sync += sequence.eq(sequence + 1)
        was_held = Signal()
        m.d.sync += was_held.eq(frames_in.valid)
        m.d.comb += [
            self.memory.sequence.eq(sequence), host.interrupt.eq(self.irq), host.dropped.eq(frames_in.dropped),
            self.core_reset.eq(host.core_reset), self.heard.eq(frames_in.valid & ~was_held), self.asking.eq(self.memory.waiting),
            self.failed.eq(self.memory.failed), self.dropped.eq(frames_in.dropped),
        ]
        return m

    def _share_received(self, m, frames, host) -> None:
        """Both look at the frame; only the memory port reads beats."""
        for reader in (host.frame, self.memory.frame):
            m.d.comb += [
                reader.valid.eq(frames.valid), reader.header.eq(frames.header), reader.beats.eq(frames.beats),
                reader.r_data.eq(frames.r_data),
            ]
        m.d.comb += [frames.r_beat.eq(self.memory.frame.r_beat), frames.release.eq(host.frame.release | self.memory.frame.release)]

    def _share_sender(self, m, frames, host) -> None:
        """The host's answers go first. A frame that has begun is finished."""
        answer, question = host.o, self.memory.o
        m.d.comb += [
            frames.start.eq(frames.idle & (answer.valid | (question.valid & ~self.core_reset))),
            frames.header.eq(Mux(answer.valid, answer.header, question.header)),
            frames.beats.eq(Mux(answer.valid, answer.beats, question.beats)),
            question.r_beat.eq(frames.r_beat), frames.r_data.eq(question.r_data),
            answer.done.eq(frames.idle), question.done.eq(frames.idle & ~answer.valid),
            self.memory.sending.eq(~frames.idle),
        ]
