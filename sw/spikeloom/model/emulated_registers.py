"""Registers of the emulated device as the host wrote them, and packing of those that it reads."""

from ..arch.config import AcceleratorConfig
from ..arch.registers import Access, register_map


class RegisterFile:
    """Holds what the host writes.

    Parameters
    ----------
    cfg : AcceleratorConfig
    """

    def __init__(self, cfg: AcceleratorConfig):
        self.map = register_map(cfg)
        self.names = list(self.map)
        self._places = {(r.name, f.name): r.position_of(f.name) for r in self.map.values() for f in r.fields}
        self.reset()

    def reset(self) -> None:
        """Every field as after power-on."""
        self.value = {r.name: sum(f.reset << self._places[r.name, f.name][0] for f in r.fields) for r in self.map.values()}

    def get(self, name: str, field: str = "value") -> int:
        """A field as the host wrote it."""
        lsb, width = self._places[name, field]
        return self.value[name] >> lsb & ((1 << width) - 1)

    def wide(self, name: str) -> int:
        """A 64-bit pair."""
        return self.get(f"{name}_lo") | self.get(f"{name}_hi") << 32

    def pack(self, name: str, **fields: int) -> int:
        """A register's word from its fields."""
        return sum(int(value) << self._places[name, field][0] for field, value in fields.items())

    def pulses(self, name: str, value: int) -> dict[str, int]:
        """The bits of a register of pulses."""
        return {f.name: value >> self._places[name, f.name][0] & 1 for f in self.map[name].fields}

    def store(self, name: str, value: int) -> int:
        """Keep the writable bits of a write; returns them."""
        keep = 0
        for f in self.map[name].fields:
            if f.access in (Access.RW, Access.WO):
                lsb, width = self._places[name, f.name]
                keep |= ((1 << width) - 1) << lsb
        self.value[name] = value & keep
        return value & keep
