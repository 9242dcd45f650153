"""The register file: ports from a `RegisterMap`, behind AXI4-Lite."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from spikeloom.arch.registers import WINDOW_BYTES, Access, RegisterMap

from .axi import AxiLiteSignature, Response


class RegisterFile(wiring.Component):
    """AXI4-Lite register file whose ports are the fields of a register map.

    Every access is answered with OKAY: an address without a register reads as zero and forgets what is written, and so do
    the bits of a register without a field. The two low address bits are ignored; byte strobes are honoured.

    It holds what the host writes and nothing else: what a field means is decided by those who use the port.

    Parameters
    ----------
    registers : RegisterMap
        Registers in address order.

    Members
    -------
    bus : In(AxiLiteSignature(address_width=12))
        The host's side.
    <register>_<field> : In(width) for access ``ro``; Out(width) otherwise
        ``ro`` shows the host what is connected; the host sees the value of the cycle in which it is fetched.
        ``rw`` and ``wo`` keep what was written last (``wo`` reads as zero). ``w1p`` is high for one cycle per bit written
        as one, and reads as zero.
    <register>_<field>_strobe : Out(1)
        For fields with ``strobe``: high for one cycle, the first in which the port shows what was written.

    Latency
    -------
    A write shows two cycles after the later of address and data; a read is answered two cycles after its address. One
    access every two cycles each way.

    Reference
    ---------
    `spikeloom.arch.registers`.
    """

    def __init__(self, registers: RegisterMap):
        size = 4 * len(registers)
        if size > WINDOW_BYTES:
            raise ValueError(f"The map takes {size} bytes, but the register window has {WINDOW_BYTES}.")
        self.registers = registers
        members = {"bus": In(AxiLiteSignature(address_width=(WINDOW_BYTES - 1).bit_length()))}
        for name, field in self._fields():
            if field.access is Access.RO:
                members[name] = In(field.width)
            else:
                members[name] = Out(field.width, init=field.reset)
            if field.strobe:
                members[f"{name}_strobe"] = Out(1)
        super().__init__(members)

    def _fields(self):
        for register in self.registers.values():
            for field in register.fields:
                yield f"{register.name}_{field.name}", field

    def elaborate(self, platform):
        m = Module()
        running = Signal()  # low in reset, so that nothing is accepted and then forgotten
        m.d.sync += running.eq(1)
        self._build_write(m, running)
        self._build_read(m, running)
        return m

    def _build_write(self, m, running) -> None:
        bus = self.bus
        address_held, data_held, commit = Signal(), Signal(), Signal()
        index = Signal(len(bus.awaddr) - 2)
        data, strobe = Signal(32), Signal(4)

        m.d.comb += [
            bus.awready.eq(running & ~address_held),
            bus.wready.eq(running & ~data_held),
            bus.bresp.eq(Response.OKAY),
            commit.eq(address_held & data_held & (~bus.bvalid | bus.bready)),
        ]
        with m.If(commit):
            m.d.sync += [address_held.eq(0), data_held.eq(0)]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [address_held.eq(1), index.eq(bus.awaddr[2:])]
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [data_held.eq(1), data.eq(bus.wdata), strobe.eq(bus.wstrb)]
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(commit):
            m.d.sync += bus.bvalid.eq(1)

        for name, field in self._fields():
            if field.access is Access.W1P:
                m.d.sync += getattr(self, name).eq(0)
            if field.strobe:
                m.d.sync += getattr(self, f"{name}_strobe").eq(0)
        with m.If(commit):
            with m.Switch(index):
                for register in self.registers.values():
                    with m.Case(self.registers.address(register.name) >> 2):
                        self._write_fields(m, register, data, strobe)

    def _write_fields(self, m, register, data, strobe) -> None:
        enabled = Cat(lane.replicate(8) for lane in strobe)
        for field in register.fields:
            if field.access is Access.RO:
                continue
            name = f"{register.name}_{field.name}"
            lsb, width = register.position_of(field.name)
            port, value, mask = getattr(self, name), data[lsb:lsb + width], enabled[lsb:lsb + width]
            kept = 0 if field.access is Access.W1P else port & ~mask
            m.d.sync += port.eq((value & mask) | kept)
            if field.strobe:
                m.d.sync += getattr(self, f"{name}_strobe").eq(mask.any())

    def _build_read(self, m, running) -> None:
        bus = self.bus
        address_held, fetch = Signal(), Signal()
        index = Signal(len(bus.araddr) - 2)
        word = Signal(32)

        m.d.comb += [
            bus.arready.eq(running & ~address_held),
            bus.rresp.eq(Response.OKAY),
            fetch.eq(address_held & (~bus.rvalid | bus.rready)),
        ]
        with m.If(fetch):
            m.d.sync += address_held.eq(0)
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [address_held.eq(1), index.eq(bus.araddr[2:])]
        with m.If(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(fetch):
            m.d.sync += [bus.rvalid.eq(1), bus.rdata.eq(word)]
        with m.Switch(index):
            for register in self.registers.values():
                with m.Case(self.registers.address(register.name) >> 2):
                    m.d.comb += word.eq(Cat(self._read_field(register, field) for field in register.fields))

    def _read_field(self, register, field):
        if field.access in (Access.W1P, Access.WO):
            return Const(0, field.width)
        return getattr(self, f"{register.name}_{field.name}")
