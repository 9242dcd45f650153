"""`bus.uart_link`: registers and memory over the line, with late answers, silence and resets."""

import random

import pytest
from amaranth.hdl import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from spikeloom.arch.registers import Access, Field, Register, RegisterMap
from spikeloom.arch.serial_link import LINK_MAGIC, LINK_VERSION, Frame, Kind, answer_fields, encode_frame
from spikeloom_hw.bus.axi import AxiSignature
from spikeloom_hw.bus.csr import RegisterFile
from spikeloom_hw.bus.uart_link import MemoryPort, UartLink
from spikeloom_sim.pysim import simulate
from spikeloom_sim.serial_line import SimulatedLine

MAP = RegisterMap([Register("value", (Field("value", 32, Access.RW, 7),)),
                   Register("count", (Field("value", 32, Access.RO),)),
                   Register("window", (Field("data", 32, Access.WO, strobe=True),))])
CLOCKS = 4
PATIENCE = 9000  # more than the longest answer takes on the line
BASE = 0x1000


class Bench(wiring.Component):
    """The link with a register file that counts its window's writes; the manager's side is the bench's."""

    def __init__(self, **options):
        self.link = UartLink(address_width=32, clocks_per_bit=CLOCKS, **({"patience": PATIENCE, "attempts": 4} | options))
        super().__init__({"rx": In(1, init=1), "tx": Out(1), "irq": In(1), "axi": In(AxiSignature(address_width=32, data_width=64)),
                          "core_reset": Out(1), "failed": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.link = link = self.link
        registers = RegisterFile(MAP)
        m.submodules.registers = ResetInserter(link.core_reset)(registers)
        connect(m, link.m_axil, registers.bus)
        connect(m, flipped(self.axi), link.s_axi)
        m.d.comb += [link.rx.eq(self.rx), self.tx.eq(link.tx), link.irq.eq(self.irq), self.core_reset.eq(link.core_reset),
                     self.failed.eq(link.failed)]
        with m.If(registers.window_data_strobe):
            m.d.sync += registers.count_value.eq(registers.count_value + 1)
        return m


class Host:
    """Answers memory questions from a bytearray; may be told to stay silent, or to answer with an error."""

    def __init__(self, size=1024):
        self.memory = bytearray(random.Random(9).randbytes(size))
        self.silent, self.response, self.late = 0, 0, False
        self.questions = []

    def __call__(self, frame):
        if frame.kind not in (Kind.FETCH, Kind.STORE):
            return None
        self.questions.append(frame)
        if self.silent:
            self.silent -= 1
            return None
        return self.answer(frame)

    def answer(self, frame):
        """The bytes that answer a question."""
        at = frame.value - BASE
        if frame.kind == Kind.FETCH:
            return encode_frame(Frame(Kind.DATA, frame.sequence, self.response, 0, bytes(self.memory[at:at + 8 * frame.argument])))
        for beat in range(frame.argument):
            raw = frame.payload[9 * beat:9 * beat + 9]
            for lane in range(8):
                if raw[0] >> lane & 1:
                    self.memory[at + 8 * beat + lane] = raw[1 + lane]
        return encode_frame(Frame(Kind.STORED, frame.sequence, self.response))


async def read_burst(ctx, axi, address, beats):
    """Beats and responses of one burst."""
    ctx.set(axi.araddr, address)
    ctx.set(axi.arlen, beats - 1)
    ctx.set(axi.arvalid, 1)
    await ctx.tick().until(axi.arready)
    ctx.set(axi.arvalid, 0)
    ctx.set(axi.rready, 1)
    data, responses = b"", []
    for beat in range(beats):
        word, response, last = await ctx.tick().sample(axi.rdata, axi.rresp, axi.rlast).until(axi.rvalid)
        assert last == (beat == beats - 1)
        data += word.to_bytes(8, "little")
        responses.append(response)
    ctx.set(axi.rready, 0)
    return data, responses


async def write_burst(ctx, axi, address, data, strobes):
    """Response of one burst."""
    ctx.set(axi.awaddr, address)
    ctx.set(axi.awlen, len(strobes) - 1)
    ctx.set(axi.awvalid, 1)
    await ctx.tick().until(axi.awready)
    ctx.set(axi.awvalid, 0)
    for beat, strobe in enumerate(strobes):
        ctx.set(axi.wdata, int.from_bytes(data[8 * beat:8 * beat + 8], "little"))
        ctx.set(axi.wstrb, strobe)
        ctx.set(axi.wlast, beat == len(strobes) - 1)
        ctx.set(axi.wvalid, 1)
        await ctx.tick().until(axi.wready)
        ctx.set(axi.wvalid, 0)
    ctx.set(axi.bready, 1)
    response, = await ctx.tick().sample(axi.bresp).until(axi.bvalid)
    ctx.set(axi.bready, 0)
    return response


def run(bench, **options):
    """Run ``bench(ctx, dut, line, host)``."""
    dut, host = Bench(**options), Host()
    line = SimulatedLine(dut.rx, dut.tx, CLOCKS, on_frame=host)

    async def body(ctx):
        await bench(ctx, dut, line, host)

    simulate(dut, body, background=[line.speak, line.listen])


def test_registers():
    async def bench(ctx, dut, line, host):
        hello = await line.ask(ctx, Frame(Kind.HELLO, 200))
        assert hello.value == LINK_MAGIC << 16 | LINK_VERSION
        assert (await line.ask(ctx, Frame(Kind.READ, 201, 0))).value == 7
        assert (await line.ask(ctx, Frame(Kind.WRITE, 202, 0, 0x7E7D_1234))).value == 0
        ctx.set(dut.irq, 1)
        answer = await line.ask(ctx, Frame(Kind.READ, 203, 0))
        assert answer.value == 0x7E7D_1234 and answer_fields(answer.argument) == {"response": 0, "interrupt": 1, "lost": 0}

    run(bench)


def test_a_question_that_comes_twice_is_carried_out_once_and_answered_twice():
    async def bench(ctx, dut, line, host):
        await line.ask(ctx, Frame(Kind.HELLO, 0))
        for _ in range(3):
            await line.ask(ctx, Frame(Kind.WRITE, 1, 8, 5))
        assert (await line.ask(ctx, Frame(Kind.READ, 2, 4))).value == 1
        await line.ask(ctx, Frame(Kind.WRITE, 3, 8, 5))
        assert (await line.ask(ctx, Frame(Kind.READ, 2, 4))).value == 2

    run(bench)


def test_garbage_is_dropped_and_counted():
    async def bench(ctx, dut, line, host):
        await line.ask(ctx, Frame(Kind.HELLO, 0))
        line.send(random.Random(3).randbytes(60).replace(b"\x7e", b"") + encode_frame(Frame(Kind.READ, 1, 0))[:9])
        line.send(encode_frame(Frame(0x55, 9)))  # of no known kind
        answer = await line.ask(ctx, Frame(Kind.READ, 2, 0))
        assert answer.value == 7 and answer_fields(answer.argument)["lost"] == 2, "the noise, and the frame that was cut off"

    run(bench)


def test_memory(seed):
    rng = random.Random(seed)

    async def bench(ctx, dut, line, host):
        before = bytes(host.memory)
        for beats in (1, 16):
            assert await read_burst(ctx, dut.axi, BASE + 64, beats) == (before[64:64 + 8 * beats], [0] * beats)
        data, strobes = rng.randbytes(128), [rng.randrange(256) for _ in range(16)]
        assert await write_burst(ctx, dut.axi, BASE + 512, data, strobes) == 0
        expected = bytearray(before)
        for lane in range(128):
            if strobes[lane // 8] >> lane % 8 & 1:
                expected[512 + lane] = data[lane]
        assert host.memory == expected and len(host.questions) == 3

    run(bench)


def test_silence_ends_with_an_error_and_the_next_burst_works():
    async def bench(ctx, dut, line, host):
        host.silent = 3
        assert await write_burst(ctx, dut.axi, BASE, bytes(8), [255]) == 2
        host.silent = 3
        data, responses = await read_burst(ctx, dut.axi, BASE, 2)
        assert responses == [2, 2] and len(host.questions) == 6
        assert len({frame.sequence for frame in host.questions}) == 2
        assert await read_burst(ctx, dut.axi, BASE, 2) == (bytes(host.memory[:16]), [0, 0])

    run(bench, attempts=3, patience=2000)


def test_an_error_of_the_host_is_an_error_on_the_bus():
    async def bench(ctx, dut, line, host):
        host.response = 3
        assert (await read_burst(ctx, dut.axi, BASE, 2))[1] == [2, 2]
        assert await write_burst(ctx, dut.axi, BASE, bytes(8), [255]) == 2
        assert len(host.questions) == 2

    run(bench)


def test_a_late_answer_is_nobodys():
    async def bench(ctx, dut, line, host):
        host.silent = 1
        assert (await read_burst(ctx, dut.axi, BASE, 1))[1] == [2]
        line.send(host.answer(host.questions[0]))  # too late
        assert await read_burst(ctx, dut.axi, BASE + 8, 1) == (bytes(host.memory[8:16]), [0])

    run(bench, attempts=1, patience=2000)


def test_reset_clears_registers_and_forgets_memory_questions():
    async def bench(ctx, dut, line, host):
        await line.ask(ctx, Frame(Kind.HELLO, 0))
        await line.ask(ctx, Frame(Kind.WRITE, 1, 0, 99))
        host.silent = 1
        ctx.set(dut.axi.araddr, BASE)
        ctx.set(dut.axi.arvalid, 1)
        await ctx.tick().until(dut.axi.arready)
        ctx.set(dut.axi.arvalid, 0)
        await ctx.tick().repeat(1000)
        await line.ask(ctx, Frame(Kind.RESET, 2))
        line.send(host.answer(host.questions[0]))
        assert (await line.ask(ctx, Frame(Kind.READ, 3, 0))).value == 7
        assert await read_burst(ctx, dut.axi, BASE + 8, 1) == (bytes(host.memory[8:16]), [0])
        assert host.questions[0].sequence != host.questions[-1].sequence

    run(bench)


def test_addresses_that_a_frame_cannot_say_are_refused():
    with pytest.raises(ValueError, match="at most 32"):
        MemoryPort(address_width=40, patience=1, attempts=1)
