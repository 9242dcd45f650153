"""Commands of block designs."""

import re

from .cells import SETTINGS, SHAPES, Cell, Interface, Pin
from .state import State
from .words import need, options

_AUTOMATION = {"processing_system7": 'make_external "FIXED_IO, DDR"', "zynq_ultra_ps_e": 'apply_board_preset "1"'}
_PROCESSORS = tuple(_AUTOMATION)


class DesignCommands(State):
    """Methods are commands; their arguments are its words."""

    def do_create_bd_design(self, name):
        need(self.project and not self.design, "needs an open project and no other design")
        self.design = name

    def do_create_bd_cell(self, *words):
        found, (name,) = options(words, values=("-type", "-vlnv"))
        need(found.get("-type") == "ip" and self.design, "a cell of type ip needs a design")
        need(name not in self.cells, f"there is a cell {name}")
        vlnv = found.get("-vlnv", "")
        vendor = re.fullmatch(r"xilinx\.com:ip:(\w+)(:[\d.]+)?", vlnv)
        need(vlnv in self.catalogue or vendor and vendor[1] in SHAPES, f"the catalogue has no {vlnv}")
        self.cells[name] = Cell(name, vlnv if vlnv in self.catalogue else vendor[1])
        self._changed()
        return name

    def _changed(self):
        self.done -= {"validated", "saved"}

    def do_get_bd_cells(self, name):
        need(name in self.cells, f"there is no cell {name}")
        return name

    def do_apply_bd_automation(self, *words):
        found, (name,) = options(words, values=("-rule", "-config"))
        cell = self.cells[self.do_get_bd_cells(name)]
        need(found.get("-rule") == f"xilinx.com:bd_rule:{cell.kind}", f"no rule {found.get('-rule')} for {cell.kind}")
        need(found.get("-config", "").strip() == _AUTOMATION[cell.kind], f"unexpected configuration {found.get('-config')}")
        need(cell.kind != "zynq_ultra_ps_e" or "board_part" in self.done, "there is no preset without a board")
        cell.automated = True
        self._changed()

    def configure(self, cell: Cell, name: str, value: str) -> None:
        """Set one setting of a cell."""
        key = name.removeprefix("CONFIG.")
        allowed = next((allowed for pattern, allowed in SETTINGS.get(cell.kind, {}).items() if re.fullmatch(pattern, key)), None)
        need(name.startswith("CONFIG.") and allowed, f"{cell.kind} has no setting {name}")
        need(allowed.match(value), f"{name} cannot be {value}")
        cell.configuration[key] = value
        self._changed()

    def shape(self, cell: Cell) -> tuple[dict[str, Pin], dict[str, Interface]]:
        """Pins and interfaces of a cell as it is configured."""
        if cell.kind in SHAPES:
            return SHAPES[cell.kind](cell.configuration.get)
        clock, reset, interrupt = self.core.singles
        pins = {clock: Pin("clock"), reset: Pin("reset"), interrupt: Pin("interrupt", drives=True)}
        interfaces = {}
        for name in self.core.interfaces:
            manager = name in self.core.managers
            protocol = ("AXI3" if self.core.is_axi3(name) else "AXI4") if manager else "AXI4LITE"
            width = self.core.signals(name)["wdata"].width
            interfaces[name] = Interface(manager, protocol, width, clock, "" if manager else f"{name}/reg0")
        return pins, interfaces

    def _find(self, path, which):
        name, _, pin = path.partition("/")
        need(name in self.cells, f"there is no cell {name} for {path}")
        need(pin in self.shape(self.cells[name])[which], f"{name} has no {('pin', 'interface')[which]} {pin}")
        return self.shape(self.cells[name])[which][pin]

    def do_get_bd_pins(self, path):
        self._find(path, 0)
        return path

    def do_get_bd_intf_pins(self, path):
        self._find(path, 1)
        return path

    def do_connect_bd_net(self, *words):
        _, (driver, *sinks) = options(words, values=("-net",))
        source = self._find(driver, 0)
        need(source.drives and sinks, f"{driver} drives nothing")
        for sink in sinks:
            pin = self._find(sink, 0)
            need(not pin.drives and sink not in self.drivers, f"{sink} is driven already")
            need(pin.kind == source.kind, f"{driver} is a {source.kind}, {sink} a {pin.kind}")
            self.drivers[sink] = driver
        self._changed()

    def do_connect_bd_intf_net(self, *words):
        _, (first, second) = options(words, values=("-intf_net",))
        ends = {path: self._find(path, 1) for path in (first, second)}
        need(len(ends) == 2 and sorted(end.manager for end in ends.values()) == [False, True], f"{first} and {second} are not two sides")
        for path in ends:
            need(path not in self.joined, f"{path} is connected already")
        self.joined |= {first: second, second: first}
        protocols = {end.protocol for end in ends.values()} - {"any"}
        widths = {end.width for end in ends.values()} - {0}
        need(len(protocols) < 2 and len(widths) < 2, f"{first} and {second} differ: {sorted(protocols)}, {sorted(widths)} bits")
        self._changed()

    def do_get_bd_addr_spaces(self, path):
        need(any(path == f"{cell.name}/Data" for cell in self.cells.values() if cell.kind in _PROCESSORS), f"no address space {path}")
        return path

    def do_get_bd_addr_segs(self, path):
        cell, _, segment = path.partition("/")
        need(cell in self.cells and any(segment == interface.segment for interface in self.shape(self.cells[cell])[1].values()),
             f"no address segment {path}")
        return path

    def do_assign_bd_address(self, *words):
        found, rest = options(words, flags=("-force",), values=("-offset", "-range", "-target_address_space"))
        if not rest:
            need(not found, "options without a segment")
            self.memory_mapped = True
            return
        need({"-offset", "-range", "-target_address_space"} <= found.keys() and len(rest) == 1, "needs an offset, a range and a space")
        base, size = int(found["-offset"], 0), int(found["-range"], 0)
        need(base % size == 0 and size >= 4096, f"{size:#x} bytes cannot lie at {base:#x}")
        for other, (start, length) in self.addresses.items():
            need(base >= start + length or start >= base + size, f"{rest[0]} overlaps {other}")
        self.addresses[rest[0]] = base, size
        self._changed()

    def do_validate_bd_design(self):
        for cell in self.cells.values():
            need(cell.kind not in _PROCESSORS or cell.automated, f"{cell.name} has no pins to its memory")
            pins, interfaces = self.shape(cell)
            for name, pin in pins.items():
                path = f"{cell.name}/{name}"
                need(pin.drives or path in self.drivers, f"{path} is not connected")
                need(not pin.drives or pin.kind != "interrupt" or path in self.drivers.values(), f"{path} drives nothing")
            for name, interface in interfaces.items():
                path = f"{cell.name}/{name}"
                need(path in self.joined, f"{path} is not connected")
                need(not interface.segment or interface.segment.endswith(("DDR_LOWOCM", "DDR_LOW", "Data"))
                     or f"{cell.name}/{interface.segment}" in self.addresses, f"{path} has no address")
        self._check_clocks()
        need(self.memory_mapped, "memory has no addresses for the core")
        self.done.add("validated")

    def _check_clocks(self):
        """Both ends of an interface run from one clock, and every reset comes from the block that knows that clock."""
        for first, second in self.joined.items():
            clocks = {self.drivers[f"{path.partition('/')[0]}/{self._find(path, 1).clock}"] for path in (first, second)}
            need(len(clocks) == 1, f"{first} and {second} have different clocks")
        for sink, driver in self.drivers.items():
            if self._find(sink, 0).kind == "reset" and not sink.endswith("ext_reset_in"):
                need(self.cells[driver.partition("/")[0]].kind == "proc_sys_reset", f"{sink} is not synchronised")

    def do_save_bd_design(self):
        need("validated" in self.done, "the design was not validated")
        self.done.add("saved")
