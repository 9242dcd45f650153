"""Registers for a processor without an interconnect: the general-purpose port of a Zynq-7000 as AXI4-Lite."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from spikeloom.arch.registers import WINDOW_BYTES
from spikeloom.board.hwh import RANGE_BYTES

from ..bus.axi import AxiLiteSignature, AxiSignature, Burst, Response

#: Width of a transaction id of ``MAXIGP0``.
ID_WIDTH = 12
_RANGE_BITS = RANGE_BYTES.bit_length() - 1


class GpBridge(wiring.Component):
    """Takes AXI3 transactions one at a time, reads and writes apart, and makes AXI4-Lite accesses of their beats.

    Bursts of type FIXED and INCR are carried out beat by beat; WRAP is answered with SLVERR, and an address outside of
    the range with DECERR: neither reaches the registers. A write answers with the worst of its beats' answers.

    Parameters
    ----------
    base_address : int
        Where the address range of the registers lies, a multiple of its size; they repeat in it.

    Members
    -------
    s_axi : In(AxiSignature)
        From the processor: AXI3, 32-bit data.
    m_axil : Out(AxiLiteSignature)
        To the registers.

    Latency
    -------
    One cycle from an address to its access; answers of reads pass in the cycle they come.

    Reference
    ---------
    A dictionary of words, in its test.
    """

    def __init__(self, *, base_address: int):
        if base_address % RANGE_BYTES:
            raise ValueError(f"base_address is {base_address:#x}; it must be a multiple of the range's {RANGE_BYTES} bytes.")
        self.base_address = base_address
        self.local_width = WINDOW_BYTES.bit_length() - 1
        super().__init__({
            "s_axi": In(AxiSignature(address_width=32, data_width=32, id_width=ID_WIDTH, axi3=True)),
            "m_axil": Out(AxiLiteSignature(address_width=self.local_width)),
        })

    def elaborate(self, platform):
        m = Module()
        self._build_read(m)
        self._build_write(m)
        return m

    def _transaction(self, m, prefix):
        """Registers of one transaction: the address channel, the answer where it is refused, statements of load and advance."""
        channel = {name: getattr(self.s_axi, prefix + name) for name in ("id", "addr", "len", "size", "burst")}
        held = {name: Signal(value.shape(), name=f"{prefix}_{name}") for name, value in channel.items()}
        refusal = Signal(2, name=f"{prefix}_refusal")
        local = self.local_width
        outside = channel["addr"][_RANGE_BITS:] != self.base_address >> _RANGE_BITS
        load = [held[name].eq(value) for name, value in channel.items()]
        wraps = channel["burst"] == Burst.WRAP.value
        load.append(refusal.eq(Mux(outside, Response.DECERR.value, Mux(wraps, Response.SLVERR.value, Response.OKAY.value))))
        step = Mux(held["burst"] == Burst.FIXED.value, 0, 1 << held["size"][:2])
        advance = [held["len"].eq(held["len"] - 1), held["addr"][:local].eq(held["addr"][:local] + step)]
        return held, refusal, load, advance

    def _word_of(self, held):
        """Address of the register that a beat lies in."""
        return Cat(Const(0, 2), held["addr"][2:self.local_width])

    def _build_read(self, m):
        s, lite = self.s_axi, self.m_axil
        held, refusal, load, advance = self._transaction(m, "ar")
        refused = refusal != Response.OKAY.value
        m.d.comb += [
            lite.araddr.eq(self._word_of(held)), s.rid.eq(held["id"]), s.rlast.eq(held["len"] == 0),
            s.rdata.eq(lite.rdata), s.rresp.eq(Mux(refused, refusal, lite.rresp)),
        ]
        with m.FSM(name="read"):
            with m.State("WAIT"):
                m.d.comb += s.arready.eq(1)
                with m.If(s.arvalid):
                    m.d.sync += load
                    m.next = "ADDRESS"
            with m.State("ADDRESS"):
                m.d.comb += lite.arvalid.eq(~refused)
                with m.If(lite.arready | refused):
                    m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += [s.rvalid.eq(lite.rvalid | refused), lite.rready.eq(s.rready & ~refused)]
                with m.If(s.rvalid & s.rready):
                    m.d.sync += advance
                    m.next = "ADDRESS"
                    with m.If(s.rlast):
                        m.next = "WAIT"

    def _build_write(self, m):
        s, lite = self.s_axi, self.m_axil
        held, refusal, load, advance = self._transaction(m, "aw")
        refused = refusal != Response.OKAY.value
        worst = Signal(2)
        address_sent, data_sent, last = Signal(), Signal(), Signal()
        m.d.comb += [
            lite.awaddr.eq(self._word_of(held)), lite.wdata.eq(s.wdata), lite.wstrb.eq(s.wstrb),
            s.bid.eq(held["id"]), s.bresp.eq(Mux(refused, refusal, worst)), last.eq(held["len"] == 0),
        ]
        with m.FSM(name="write"):
            with m.State("WAIT"):
                m.d.comb += s.awready.eq(1)
                with m.If(s.awvalid):
                    m.d.sync += [*load, worst.eq(Response.OKAY.value)]
                    m.next = "BEAT"
            with m.State("BEAT"):
                m.d.comb += [
                    lite.awvalid.eq(s.wvalid & ~refused & ~address_sent), lite.wvalid.eq(s.wvalid & ~refused & ~data_sent),
                    s.wready.eq(refused | ((address_sent | lite.awready) & (data_sent | lite.wready))),
                ]
                m.d.sync += [address_sent.eq(address_sent | (lite.awvalid & lite.awready)),
                             data_sent.eq(data_sent | (lite.wvalid & lite.wready))]
                with m.If(s.wvalid & s.wready):
                    m.d.sync += [address_sent.eq(0), data_sent.eq(0)]
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += lite.bready.eq(~refused)
                with m.If(lite.bvalid | refused):
                    m.d.sync += advance
                    with m.If(lite.bresp > worst):
                        m.d.sync += worst.eq(lite.bresp)
                    m.next = "BEAT"
                    with m.If(last):
                        m.next = "RESPOND"
            with m.State("RESPOND"):
                m.d.comb += s.bvalid.eq(1)
                with m.If(s.bready):
                    m.next = "WAIT"
