"""Registers and counters of a device by name."""

from ..arch.config import AcceleratorConfig
from ..arch.registers import COUNTERS, register_map
from .transport import Transport


class Registers:
    """Reads and writes registers and their fields through a transport.

    Parameters
    ----------
    transport : Transport
    cfg : AcceleratorConfig
    """

    def __init__(self, transport: Transport, cfg: AcceleratorConfig):
        self._transport, self._map = transport, register_map(cfg)
        self._address = {name: 4 * i for i, name in enumerate(self._map)}

    def read(self, name: str) -> int:
        """A whole register."""
        return self._transport.read32(self._address[name])

    def fields(self, name: str) -> dict[str, int]:
        """All fields of a register, from one read."""
        value, out, lsb = self.read(name), {}, 0
        for f in self._map[name].fields:
            out[f.name] = value >> lsb & ((1 << f.width) - 1)
            lsb += f.width
        return out

    def write(self, name: str, value: int = 0, **fields: int) -> None:
        """A whole register: a value, or named fields with the others 0.

        Raises
        ------
        ValueError
            When a value does not fit its field.
        """
        for field, content in fields.items():
            lsb, width = self._map[name].position_of(field)
            if not 0 <= int(content) < 1 << width:
                raise ValueError(f"{name}.{field} is {content}, it takes 0..{(1 << width) - 1}.")
            value |= int(content) << lsb
        self._transport.write32(self._address[name], value & 0xFFFF_FFFF)

    def write_wide(self, name: str, value: int) -> None:
        """A 64-bit pair of registers."""
        self.write(f"{name}_lo", value & 0xFFFF_FFFF)
        self.write(f"{name}_hi", value >> 32)

    def write_window(self, name: str, values) -> None:
        """Fill a memory behind an index and a data register, from its first word on."""
        self.write(f"{name}_index", 0)
        data = self._address[f"{name}_data"]
        for value in values:
            self._transport.write32(data, int(value) & 0xFFFF_FFFF)

    def counter(self, name: str) -> int:
        """One 64-bit counter, whole even while it counts."""
        high = self.read(f"{name}_hi")
        while True:
            low, again = self.read(f"{name}_lo"), self.read(f"{name}_hi")
            if again == high:
                return high << 32 | low
            high = again

    def counters(self) -> dict[str, int]:
        """All counters."""
        return {name: self.counter(name) for name in COUNTERS}
