"""AXI as signatures: AXI4-Lite, and the AXI4 or AXI3 face of a manager, seen from the manager."""

from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

#: Beats of the longest burst that AXI3 knows; Spikeloom never sends a longer one.
MAX_BURST_BEATS = 16
#: A burst stays inside an aligned block of this many bytes.
PAGE_BYTES = 4096
#: ``AxCACHE`` of ordinary memory: modifiable and bufferable, so that interconnects may upsize bursts.
CACHE_MODIFIABLE_BUFFERABLE = 0b0011


class Response(enum.Enum, shape=2):
    """``xRESP``; the upper bit says error."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


class Burst(enum.Enum, shape=2):
    """``AxBURST``."""

    FIXED = 0
    INCR = 1
    WRAP = 2


def error_layout(address_width: int) -> data.StructLayout:
    """First bus error since the last drain: ``code`` and ``address`` (bytes) count while ``valid``."""
    return data.StructLayout({"valid": 1, "code": Response, "address": address_width})


class AxiLiteSignature(wiring.Signature):
    """AXI4-Lite with 32-bit data, from the manager's side.

    Parameters
    ----------
    address_width : int
        Width of both addresses, in bits.

    Members
    -------
    aw*, w*, ar* : Out
        Address and data that the manager sends, with their ``ready`` as In.
    b*, r* : In
        Answers, with their ``ready`` as Out.
    """

    def __init__(self, *, address_width: int):
        self.address_width = address_width
        super().__init__({
            "awaddr": Out(address_width), "awprot": Out(3), "awvalid": Out(1), "awready": In(1),
            "wdata": Out(32), "wstrb": Out(4), "wvalid": Out(1), "wready": In(1),
            "bresp": In(2), "bvalid": In(1), "bready": Out(1),
            "araddr": Out(address_width), "arprot": Out(3), "arvalid": Out(1), "arready": In(1),
            "rdata": In(32), "rresp": In(2), "rvalid": In(1), "rready": Out(1),
        })

    def __eq__(self, other):
        return isinstance(other, AxiLiteSignature) and other.address_width == self.address_width

    def __repr__(self):
        return f"AxiLiteSignature(address_width={self.address_width})"


class AxiSignature(wiring.Signature):
    """AXI4 or AXI3, from the manager's side; either half may be left out.

    AXI3 differs by a 4-bit ``len``, a 2-bit ``lock`` and by ``wid``.

    Parameters
    ----------
    address_width, data_width : int
        In bits; ``data_width`` is a power of two from 8 to 1024.
    id_width : int
        Width of the transaction ids.
    axi3 : bool
        Speak AXI3, as the HP ports of Zynq-7000 do.
    read, write : bool
        Which halves exist.

    Members
    -------
    aw*, w*, ar* : Out
        Addresses and data that the manager sends, with their ``ready`` as In.
    b*, r* : In
        Answers, with their ``ready`` as Out.
    """

    def __init__(self, *, address_width: int, data_width: int, id_width: int = 1, axi3: bool = False,
                 read: bool = True, write: bool = True):
        if data_width not in (8, 16, 32, 64, 128, 256, 512, 1024):
            raise ValueError(f"AXI data is 8 to 1024 bits wide, by powers of two; data_width is {data_width!r}.")
        self.address_width = address_width
        self.data_width = data_width
        self.id_width = id_width
        self.axi3 = bool(axi3)
        self.read = bool(read)
        self.write = bool(write)
        members = {}
        if write:
            members |= self._address("aw")
            if axi3:
                members |= {"wid": Out(id_width)}
            members |= {
                "wdata": Out(data_width), "wstrb": Out(data_width // 8), "wlast": Out(1),
                "wvalid": Out(1), "wready": In(1),
                "bid": In(id_width), "bresp": In(2), "bvalid": In(1), "bready": Out(1),
            }
        if read:
            members |= self._address("ar")
            members |= {
                "rid": In(id_width), "rdata": In(data_width), "rresp": In(2), "rlast": In(1),
                "rvalid": In(1), "rready": Out(1),
            }
        super().__init__(members)

    def _address(self, prefix: str) -> dict:
        widths = {"id": self.id_width, "addr": self.address_width, "len": 4 if self.axi3 else 8, "size": 3, "burst": 2,
                  "lock": 2 if self.axi3 else 1, "cache": 4, "prot": 3, "qos": 4, "valid": 1}
        return {prefix + name: Out(width) for name, width in widths.items()} | {prefix + "ready": In(1)}

    @property
    def beat_bytes(self) -> int:
        """Bytes of one beat."""
        return self.data_width // 8

    @property
    def size(self) -> int:
        """``AxSIZE`` of a full beat."""
        return exact_log2(self.beat_bytes)

    def _key(self):
        return self.address_width, self.data_width, self.id_width, self.axi3, self.read, self.write

    def __eq__(self, other):
        return isinstance(other, AxiSignature) and other._key() == self._key()

    def __repr__(self):
        return (f"AxiSignature(address_width={self.address_width}, data_width={self.data_width}, "
                f"id_width={self.id_width}, axi3={self.axi3}, read={self.read}, write={self.write})")


def constant_fields(channel, prefix: str, signature: AxiSignature) -> list:
    """Statements that drive what never changes in an address channel: one id, full beats, INCR, ordinary memory."""
    return [
        getattr(channel, prefix + "id").eq(0),
        getattr(channel, prefix + "size").eq(signature.size),
        getattr(channel, prefix + "burst").eq(Burst.INCR),
        getattr(channel, prefix + "lock").eq(0),
        getattr(channel, prefix + "cache").eq(CACHE_MODIFIABLE_BUFFERABLE),
        getattr(channel, prefix + "prot").eq(0),
        getattr(channel, prefix + "qos").eq(0),
    ]
