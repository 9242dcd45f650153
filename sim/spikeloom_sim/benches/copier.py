"""A small device of bus parts alone: copies memory under control of registers. It exercises the simulator, not Spikeloom."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from spikeloom.arch.registers import Access, Field, Register, RegisterMap
from spikeloom_hw.bus.axi import AxiLiteSignature, AxiSignature
from spikeloom_hw.bus.axi_reader import AxiReader
from spikeloom_hw.bus.axi_writer import AxiWriter
from spikeloom_hw.bus.csr import RegisterFile

REGISTERS = RegisterMap([
    Register("id", (Field("value", 32, Access.RO),)),
    Register("source", (Field("address", 32, Access.RW),)),
    Register("target", (Field("address", 32, Access.RW),)),
    Register("length", (Field("beats", 17, Access.RW),)),
    Register("control", (Field("start", 1, Access.W1P), Field("acknowledge", 1, Access.W1P), Field("drain", 1, Access.RW))),
    Register("status", (Field("busy", 1, Access.RO), Field("done", 1, Access.RO), Field("drained", 1, Access.RO),
                        Field("read_error", 1, Access.RO), Field("write_error", 1, Access.RO),
                        Field("bus_dead", 1, Access.RO))),
    Register("timeout", (Field("cycles", 32, Access.RW),)),
    Register("read_error", (Field("address", 32, Access.RO),)),
    Register("write_error", (Field("address", 32, Access.RO),)),
])
ID = 0xC0_91E5


class Copier(wiring.Component):
    """Copies ``length.beats`` from ``source.address`` to ``target.address`` and raises ``irq`` until acknowledged.

    Parameters
    ----------
    data_width : int
        Width of the memory port, in bits.
    axi3 : bool
        Speak AXI3.

    Members
    -------
    s_axil : In(AxiLiteSignature(address_width=12))
        Registers, as in `REGISTERS`.
    m_axi : Out(AxiSignature(...))
        Memory.
    irq : Out(1)
        High from the end of a copy until it is acknowledged.

    Latency
    -------
    Not specified.

    Reference
    ---------
    ``memory[target : target + n] = memory[source : source + n]``.
    """

    def __init__(self, *, data_width: int = 64, axi3: bool = False):
        self.data_width = data_width
        self.axi3 = axi3
        super().__init__({
            "s_axil": In(AxiLiteSignature(address_width=12)),
            "m_axi": Out(AxiSignature(address_width=40, data_width=data_width, axi3=axi3)),
            "irq": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.csr = csr = RegisterFile(REGISTERS)
        m.submodules.reader = reader = AxiReader(data_width=self.data_width, axi3=self.axi3)
        m.submodules.writer = writer = AxiWriter(data_width=self.data_width, axi3=self.axi3)
        busy, done, asking = Signal(), Signal(), Signal()

        connect(m, flipped(self.s_axil), csr.bus)
        for part in (reader, writer):
            for path, member, value in part.m_axi.signature.flatten(part.m_axi):
                outer = getattr(self.m_axi, path[0])
                m.d.comb += outer.eq(value) if member.flow is Out else value.eq(outer)
            m.d.comb += [part.timeout.eq(csr.timeout_cycles), part.drain.eq(csr.control_drain)]
        m.d.comb += [
            reader.i_request.valid.eq(asking),
            reader.i_request.payload.address.eq(csr.source_address),
            reader.i_request.payload.beats.eq(csr.length_beats),
            writer.i.valid.eq(reader.o_beat.valid),
            writer.i.payload.address.eq(csr.target_address),
            writer.i.payload.data.eq(reader.o_beat.payload.data),
            writer.i.payload.strobe.eq(~0),
            writer.i.payload.last.eq(reader.o_beat.payload.last),
            reader.o_beat.ready.eq(writer.i.ready),
            csr.id_value.eq(ID),
            csr.status_busy.eq(busy),
            csr.status_done.eq(done),
            csr.status_drained.eq(reader.drained & writer.drained),
            csr.status_read_error.eq(reader.error.valid),
            csr.status_write_error.eq(writer.error.valid),
            csr.status_bus_dead.eq(Cat(reader.bus_dead, writer.bus_dead).any()),
            csr.read_error_address.eq(reader.error.address),
            csr.write_error_address.eq(writer.error.address),
            self.irq.eq(done),
        ]
        with m.If(csr.control_start & ~busy):
            m.d.sync += [busy.eq(1), asking.eq(1), done.eq(0)]
        with m.If(asking & reader.i_request.ready):
            m.d.sync += asking.eq(0)
        with m.If(writer.o_done & busy):
            m.d.sync += [busy.eq(0), done.eq(1)]
        with m.If(csr.control_acknowledge):
            m.d.sync += done.eq(0)
        with m.If(csr.control_drain):
            m.d.sync += [busy.eq(0), asking.eq(0)]
        return m
