"""A device whose AXI manager port does what registers say, right or wrong: it shows that the simulator sees violations."""

from amaranth.hdl import Assert, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from spikeloom.arch.registers import Access, Field, Register, RegisterMap
from spikeloom_hw.bus.axi import AxiLiteSignature, AxiSignature
from spikeloom_hw.bus.csr import RegisterFile

_RW = Access.RW
REGISTERS = RegisterMap([
    Register("valid", (Field("ar", 1, _RW), Field("aw", 1, _RW), Field("w", 1, _RW), Field("r_ready", 1, _RW, 1),
                       Field("b_ready", 1, _RW, 1))),
    Register("address", (Field("value", 32, _RW),)),
    Register("burst", (Field("len", 8, _RW), Field("size", 3, _RW, 3), Field("kind", 2, _RW, 1), Field("last", 1, _RW),
                       Field("id", 1, _RW), Field("lock", 1, _RW))),
    Register("data", (Field("value", 32, _RW),)),
    Register("bomb", (Field("armed", 1, _RW), Field("irq", 1, _RW))),
])


class Puppet(wiring.Component):
    """Drives every signal of its AXI port from a register.

    A ``valid`` falls by itself at the transfer, so that one write of a register makes one transfer.

    Members
    -------
    s_axil : In(AxiLiteSignature(address_width=12))
        Registers, as in `REGISTERS`.
    m_axi : Out(AxiSignature(...))
        Memory, 64 bits wide.
    irq : Out(1)
        ``bomb.irq``.

    Latency
    -------
    None from register to port.

    Reference
    ---------
    None.
    """

    s_axil: In(AxiLiteSignature(address_width=12))
    m_axi: Out(AxiSignature(address_width=40, data_width=64))
    irq: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.csr = csr = RegisterFile(REGISTERS)
        axi = self.m_axi

        connect(m, flipped(self.s_axil), csr.bus)
        for prefix in ("ar", "aw"):
            m.d.comb += [
                getattr(axi, f"{prefix}addr").eq(csr.address_value),
                getattr(axi, f"{prefix}len").eq(csr.burst_len),
                getattr(axi, f"{prefix}size").eq(csr.burst_size),
                getattr(axi, f"{prefix}burst").eq(csr.burst_kind),
                getattr(axi, f"{prefix}id").eq(csr.burst_id),
                getattr(axi, f"{prefix}lock").eq(csr.burst_lock),
            ]
        m.d.comb += [
            axi.wdata.eq(csr.data_value),
            axi.wstrb.eq(~0),
            axi.wlast.eq(csr.burst_last),
            axi.rready.eq(csr.valid_r_ready),
            axi.bready.eq(csr.valid_b_ready),
            self.irq.eq(csr.bomb_irq),
            Assert(~csr.bomb_armed, "the bomb is armed"),
        ]
        for prefix in ("ar", "aw", "w"):
            served = Signal(name=f"{prefix}_served")
            wanted, valid, ready = getattr(csr, f"valid_{prefix}"), getattr(axi, f"{prefix}valid"), getattr(axi, f"{prefix}ready")
            m.d.comb += valid.eq(wanted & ~served)
            m.d.sync += served.eq(wanted & (served | ready))
        return m
