"""Reads runs of beats from memory over several AXI ports at once."""

from amaranth.hdl import Cat, Const, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from .axi import PAGE_BYTES, AxiSignature, error_layout
from .axi_reader import AxiReader, beat_layout, request_layout


class StripedReader(wiring.Component):
    """AXI read managers side by side: every request goes to all ports, and their beats come back as one wide beat.

    Memory is striped (`arch.layout.stripe`): addresses of requests count wide beats as if they lay one after another; each port
    finds its share of them in every `ports`-th block of 4 KiB. So the ports make the same bursts, none crosses a block, and no
    port has more to carry than another. What a port brings early waits for the others.

    Parameters
    ----------
    ports : int
        2 or 4.
    address_width, data_width, axi3, max_outstanding_beats, max_outstanding_bursts
        Of each port, see `AxiReader`.

    Members
    -------
    m_axi, m_axi1, ... : Out(AxiSignature(..., write=False))
        The buses.
    i_request : In(stream.Signature(request_layout(address_width)))
        What to read; addresses are aligned to a wide beat.
    o_beat : Out(stream.Signature(beat_layout(ports * data_width)))
        What was read, port 0 lowest.
    timeout, drain, drained, idle, error, bus_dead
        As those of `AxiReader`: of all ports, or of the first that has something to say.

    Latency
    -------
    That of `AxiReader`.

    Reference
    ---------
    ``arch.layout.unstripe(memory)[address : address + beats * ports * data_width // 8]``.
    """

    def __init__(self, *, ports: int, address_width: int = 40, data_width: int, axi3: bool = False, max_outstanding_beats: int = 64,
                 max_outstanding_bursts: int = 16):
        if ports not in (2, 4):
            raise ValueError(f"Two or four ports read side by side; one needs an AxiReader. ports is {ports!r}.")
        self.readers = [AxiReader(address_width=address_width, data_width=data_width, axi3=axi3,
                                  max_outstanding_beats=max_outstanding_beats, max_outstanding_bursts=max_outstanding_bursts)
                        for _ in range(ports)]
        self.address_width = address_width
        signature = AxiSignature(address_width=address_width, data_width=data_width, axi3=axi3, write=False)
        super().__init__({port_name(port): Out(signature) for port in range(ports)} | {
            "i_request": In(stream.Signature(request_layout(address_width))),
            "o_beat": Out(stream.Signature(beat_layout(ports * data_width))),
            "timeout": In(32), "drain": In(1), "drained": Out(1), "idle": Out(1),
            "error": Out(error_layout(address_width)), "bus_dead": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        readers, port_bits, request = self.readers, exact_log2(len(self.readers)), self.i_request
        for port, reader in enumerate(readers):
            m.submodules[f"port{port}"] = reader
            self._build_bus(m, port, reader)
            others = [other for other in readers if other is not reader]
            m.d.comb += [
                reader.i_request.valid.eq(request.valid & Cat(other.i_request.ready for other in others).all()),
                reader.i_request.payload.address.eq(request.payload.address >> port_bits),
                reader.i_request.payload.beats.eq(request.payload.beats),
                reader.o_beat.ready.eq(self.o_beat.ready & Cat(other.o_beat.valid for other in others).all()),
                reader.timeout.eq(self.timeout),
                reader.drain.eq(self.drain),
            ]
        m.d.comb += [
            request.ready.eq(Cat(reader.i_request.ready for reader in readers).all()),
            self.o_beat.valid.eq(Cat(reader.o_beat.valid for reader in readers).all()),
            self.o_beat.payload.data.eq(Cat(reader.o_beat.payload.data for reader in readers)),
            self.o_beat.payload.last.eq(readers[0].o_beat.payload.last),
            self.drained.eq(Cat(reader.drained for reader in readers).all()),
            self.idle.eq(Cat(reader.idle for reader in readers).all()),
            self.bus_dead.eq(Cat(reader.bus_dead for reader in readers).any()),
        ]
        for port, reader in reversed(list(enumerate(readers))):
            with m.If(reader.error.valid):
                m.d.comb += [self.error.valid.eq(1), self.error.code.eq(reader.error.code),
                             self.error.address.eq(self._placed(reader.error.address, port))]
        return m

    def _placed(self, address, port):
        """Where a port's share of memory lies: between the number of the block and the byte in it stands the port's."""
        page_bits, port_bits = exact_log2(PAGE_BYTES), exact_log2(len(self.readers))
        return Cat(address[:page_bits], Const(port, port_bits), address[page_bits:])[:self.address_width]

    def _build_bus(self, m, port, reader):
        bus = getattr(self, port_name(port))
        for name, member in bus.signature.members.items():
            outer, inner = getattr(bus, name), getattr(reader.m_axi, name)
            if name == "araddr":
                inner = self._placed(inner, port)
            m.d.comb += outer.eq(inner) if member.flow is Out else inner.eq(outer)


def port_name(port: int) -> str:
    """Name of a manager port."""
    return f"m_axi{port or ''}"
