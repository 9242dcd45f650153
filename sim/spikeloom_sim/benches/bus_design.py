"""The bus room alone: register file, reader and writer, their streams brought out as plain ports."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from spikeloom.arch.registers import Access, Field, Register, RegisterMap
from spikeloom_hw.bus.axi import AxiLiteSignature, AxiSignature
from spikeloom_hw.bus.axi_reader import AxiReader
from spikeloom_hw.bus.axi_writer import AxiWriter
from spikeloom_hw.bus.csr import RegisterFile

ADDRESS_WIDTH = 40
REGISTERS = RegisterMap([
    Register("id", (Field("value", 32, Access.RO),)),
    Register("scratch", (Field("low", 12, Access.RW, 0x123), Field("high", 20, Access.RW))),
    Register("control", (Field("drain", 1, Access.RW), Field("count", 1, Access.W1P))),
    Register("status", (Field("read_drained", 1, Access.RO), Field("write_drained", 1, Access.RO),
                        Field("read_idle", 1, Access.RO), Field("write_idle", 1, Access.RO),
                        Field("read_error", 1, Access.RO), Field("write_error", 1, Access.RO),
                        Field("read_code", 2, Access.RO), Field("write_code", 2, Access.RO),
                        Field("read_dead", 1, Access.RO), Field("write_dead", 1, Access.RO))),
    Register("timeout", (Field("cycles", 32, Access.RW),)),
    Register("read_error", (Field("address", 32, Access.RO),)),
    Register("write_error", (Field("address", 32, Access.RO),)),
    Register("pulses", (Field("value", 32, Access.RO),)),
    Register("writes_done", (Field("value", 32, Access.RO),)),
])
ID = 0xB05B05


class BusDesign(wiring.Component):
    """Register file, reader and writer side by side; nothing between them but wires.

    Parameters
    ----------
    data_width : int
        Width of the memory port, in bits.
    axi3 : bool
        Reader and writer speak AXI3; the port is AXI4 all the same, since that is what the bus models know.

    Members
    -------
    s_axil : In(AxiLiteSignature(address_width=12))
        Registers, as in `REGISTERS`; ``control.drain`` and ``timeout`` go to reader and writer.
    m_axi : Out(AxiSignature(...))
        Memory; the read half is the reader's, the write half the writer's.
    request_* : In
        The reader's ``i_request``.
    beat_* : Out
        The reader's ``o_beat``.
    write_* : In
        The writer's ``i``.

    Latency
    -------
    That of the parts.

    Reference
    ---------
    That of the parts.
    """

    def __init__(self, *, data_width: int = 64, axi3: bool = False):
        self.data_width = data_width
        self.axi3 = axi3
        super().__init__({
            "s_axil": In(AxiLiteSignature(address_width=12)),
            "m_axi": Out(AxiSignature(address_width=ADDRESS_WIDTH, data_width=data_width)),
            "request_address": In(ADDRESS_WIDTH), "request_beats": In(17), "request_valid": In(1), "request_ready": Out(1),
            "beat_data": Out(data_width), "beat_last": Out(1), "beat_valid": Out(1), "beat_ready": In(1),
            "write_address": In(ADDRESS_WIDTH), "write_data": In(data_width), "write_strobe": In(data_width // 8),
            "write_last": In(1), "write_valid": In(1), "write_ready": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.csr = csr = RegisterFile(REGISTERS)
        m.submodules.reader = reader = AxiReader(address_width=ADDRESS_WIDTH, data_width=self.data_width, axi3=self.axi3)
        m.submodules.writer = writer = AxiWriter(address_width=ADDRESS_WIDTH, data_width=self.data_width, axi3=self.axi3)

        connect(m, flipped(self.s_axil), csr.bus)
        for part, prefix in ((reader, "read"), (writer, "write")):
            for path, member, value in part.m_axi.signature.flatten(part.m_axi):
                outer = getattr(self.m_axi, path[0], None)  # AXI4 has no wid
                if outer is not None:
                    m.d.comb += outer.eq(value) if member.flow is Out else value.eq(outer)
            m.d.comb += [
                part.timeout.eq(csr.timeout_cycles),
                part.drain.eq(csr.control_drain),
                getattr(csr, f"status_{prefix}_drained").eq(part.drained),
                getattr(csr, f"status_{prefix}_idle").eq(part.idle),
                getattr(csr, f"status_{prefix}_error").eq(part.error.valid),
                getattr(csr, f"status_{prefix}_code").eq(part.error.code),
                getattr(csr, f"status_{prefix}_dead").eq(part.bus_dead),
                getattr(csr, f"{prefix}_error_address").eq(part.error.address),
            ]
        for port, prefix in ((reader.i_request, "request"), (writer.i, "write")):
            m.d.comb += [port.valid.eq(getattr(self, f"{prefix}_valid")), getattr(self, f"{prefix}_ready").eq(port.ready)]
            m.d.comb += [port.payload[name].eq(getattr(self, f"{prefix}_{name}")) for name in port.payload.shape().members]
        m.d.comb += [
            self.beat_data.eq(reader.o_beat.payload.data),
            self.beat_last.eq(reader.o_beat.payload.last),
            self.beat_valid.eq(reader.o_beat.valid),
            reader.o_beat.ready.eq(self.beat_ready),
            csr.id_value.eq(ID),
        ]
        m.d.sync += [
            csr.pulses_value.eq(csr.pulses_value + csr.control_count),
            csr.writes_done_value.eq(csr.writes_done_value + writer.o_done),
        ]
        return m
