"""The hardware description (.hwh) that pynq reads beside a bitstream, made without Vivado.

Two forms. The plain one holds what pynq needs and goes with bitstreams of the open flow, which have no interrupt
controller. The full one has the cells, pins and nets of the block design that the Vivado flow builds; tests use it where
they must not depend on Vivado.
"""

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from ..arch.config import AcceleratorConfig
from ..arch.registers import WINDOW_BYTES, Access, register_map
from .boards import CELL, CLOCK, INTERRUPT, MEMORY, REGISTERS, RESET, VLNV, Board

#: Smallest address range that Vivado assigns.
RANGE_BYTES = 0x1_0000
#: Offset of the interrupt controller's registers from the core's.
CONTROLLER_OFFSET = RANGE_BYTES
_ACCESS = {Access.RO: "read-only", Access.RW: "read-write", Access.W1P: "write-only", Access.WO: "write-only"}
_LARGEST_DIVISOR = 63
_PROCESSOR, _CONTROLLER, _RESET, _CONNECT = "ps", "axi_intc_0", "proc_sys_reset_0", "smartconnect_0"


class NoDivisors(ValueError):
    """The board's PLL cannot be divided down to the clock that a machine is built for."""


def divisors(pll_mhz: float, mhz: float) -> tuple[int, int]:
    """The two dividers of a fabric clock.

    Raises
    ------
    NoDivisors
        When the nearest clock is off by more than one percent.
    """
    total = max(1, round(pll_mhz / mhz))
    for first in range(min(total, _LARGEST_DIVISOR), 0, -1):
        if total % first == 0 and total // first <= _LARGEST_DIVISOR and abs(pll_mhz / total / mhz - 1) < 0.01:
            return first, total // first
    raise NoDivisors(f"{pll_mhz:g} MHz cannot be divided to {mhz:g} MHz: the nearest is {pll_mhz / total:.2f} MHz.")


def write_hwh(path: Path, board: Board, cfg: AcceleratorConfig, *, full: bool = False) -> None:
    """Write the description of a machine on a board; `full` is the form that Vivado writes, byte order mark included."""
    tree = ElementTree.ElementTree(describe(board, cfg, full=full))
    ElementTree.indent(tree)
    text = ElementTree.tostring(tree.getroot(), encoding="unicode")
    path.write_text(f'<?xml version="1.0" encoding="UTF-8" standalone="no" ?>\n{text}\n', encoding="utf-8-sig" if full else "utf-8")


def describe(board: Board, cfg: AcceleratorConfig, *, full: bool = False) -> ElementTree.Element:
    """The description as a tree. Raises NoDivisors."""
    root = ElementTree.Element("EDKSYSTEM", EDWVERSION="1.2", TIMESTAMP="Thu Jan  1 00:00:00 1970",
                               VIVADOVERSION="2022.1" if full else "none")
    ElementTree.SubElement(root, "SYSTEMINFO", ARCH=board.family, DEVICE=board.device, NAME="spikeloom", PACKAGE=board.package,
                           SPEEDGRADE=board.speed)
    ElementTree.SubElement(root, "EXTERNALPORTS")
    ElementTree.SubElement(root, "EXTERNALINTERFACES")
    modules = ElementTree.SubElement(root, "MODULES")
    design = _Design(modules)
    _add_processor(design, board, cfg, full)
    _add_core(design, board, cfg)
    if full:
        _add_infrastructure(design, board)
        _wire(design, board, cfg)
    return root


class _Design:
    """Modules of a description, with their pins."""

    def __init__(self, modules):
        self._modules, self._pins = modules, {}

    def module(self, name: str, vlnv: str, *, parameters=None, processor=False) -> ElementTree.Element:
        """A cell."""
        kind = vlnv.split(":")[2]
        module = ElementTree.SubElement(
            self._modules, "MODULE", COREREVISION="1", FULLNAME=f"/{name}", HWVERSION=vlnv.rpartition(":")[2], INSTANCE=name,
            IPTYPE="PROCESSOR" if processor else "PERIPHERAL", IS_ENABLE="1", IS_PL="FALSE" if processor else "TRUE",
            MODCLASS="PROCESSOR" if processor else "PERIPHERAL", MODTYPE=kind, VLNV=vlnv)
        ElementTree.SubElement(module, "DOCUMENTS")
        ElementTree.SubElement(module, "ADDRESSBLOCKS")
        listed = ElementTree.SubElement(module, "PARAMETERS")
        for key, value in (parameters or {}).items():
            ElementTree.SubElement(listed, "PARAMETER", NAME=key, VALUE=str(value))
        for part in ("PORTS", "BUSINTERFACES", "MEMORYMAP", "PERIPHERALS"):
            ElementTree.SubElement(module, part)
        return module

    def pin(self, module: ElementTree.Element, name: str, direction: str, *, kind: str = "undef", width: int = 1) -> None:
        """A pin of a cell; `kind` is clk, rst, INTERRUPT or undef."""
        port = ElementTree.SubElement(module.find("PORTS"), "PORT", DIR=direction, NAME=name, SIGIS=kind)
        if width > 1:
            port.attrib |= {"LEFT": str(width - 1), "RIGHT": "0"}
        self._pins[module.get("INSTANCE"), name] = port

    def net(self, name: str, driver: tuple[str, str], *sinks: tuple[str, str]) -> None:
        """Join pins, given as (cell, pin): the driver lists its sinks, each sink its driver."""
        for here, others in ((driver, sinks), *((sink, [driver]) for sink in sinks)):
            port = self._pins[here]
            port.set("SIGNAME", name)
            connections = ElementTree.SubElement(port, "CONNECTIONS")
            for instance, pin in others:
                ElementTree.SubElement(connections, "CONNECTION", INSTANCE=instance, PORT=pin)


def _bus(module, name, kind, *, width=32, net="__NOC__", protocol="aximm", maps: Iterable[tuple[str, str]] = ()):
    """An interface of a cell; `maps` pairs logical with physical pins."""
    bus = ElementTree.SubElement(module.find("BUSINTERFACES"), "BUSINTERFACE", BUSNAME=net, DATAWIDTH=str(width), NAME=name, TYPE=kind,
                                 VLNV=f"xilinx.com:interface:{protocol}:1.0")
    listed = ElementTree.SubElement(bus, "PORTMAPS")
    for logical, physical in maps:
        ElementTree.SubElement(listed, "PORTMAP", LOGICAL=logical, PHYSICAL=physical)


def _range(module, instance, interface, base, size, manager, *, block="reg0", kind="REGISTER"):
    """An address range that a cell's manager interface reaches."""
    ElementTree.SubElement(module.find("MEMORYMAP"), "MEMRANGE", ADDRESSBLOCK=block, BASENAME="C_BASEADDR", BASEVALUE=f"0x{base:08X}",
                           HIGHNAME="C_HIGHADDR", HIGHVALUE=f"0x{base + size - 1:08X}", INSTANCE=instance, IS_DATA="TRUE",
                           IS_INSTRUCTION="TRUE", MASTERBUSINTERFACE=manager, MEMTYPE=kind, SLAVEBUSINTERFACE=interface)


def _clocks(board, cfg, full):
    """Parameters of the four fabric clocks; only the first runs."""
    parameters = {}
    for number in range(4):
        first, second = divisors(board.pll_mhz, cfg.clock_mhz if number == 0 else 100.0)
        mhz = f"{board.pll_mhz / first / second:.6f}"
        if board.zynq7:
            parameters |= {f"PCW_FCLK{number}_PERIPHERAL_DIVISOR0": first, f"PCW_FCLK{number}_PERIPHERAL_DIVISOR1": second,
                           f"PCW_FPGA_FCLK{number}_ENABLE": int(number == 0), f"PCW_FCLK{number}_PERIPHERAL_CLKSRC": "IO PLL",
                           f"PCW_ACT_FPGA{number}_PERIPHERAL_FREQMHZ": mhz}
        else:
            parameters |= {f"PSU__CRL_APB__PL{number}_REF_CTRL__DIVISOR0": first, f"PSU__CRL_APB__PL{number}_REF_CTRL__DIVISOR1": second,
                           f"PSU__FPGA_PL{number}_ENABLE": int(number == 0), f"PSU__CRL_APB__PL{number}_REF_CTRL__SRCSEL": "IOPLL"}
        if not (board.zynq7 and full):
            # pynq 4.0 looks for this name on every family; Vivado writes it for UltraScale+ only.
            parameters[f"PSU__CRL_APB__PL{number}_REF_CTRL__ACT_FREQMHZ"] = mhz
    if not board.zynq7:
        # pynq sets the width of these ports from the description: M_AXI_HPM0_FPD and S_AXI_HP0_FPD (and the others).
        parameters |= {"C_MAXIGP0_DATA_WIDTH": 32}
        parameters |= {f"C_SAXIGP{_number(port) + 2}_DATA_WIDTH": cfg.data_width for _, port in _memory(board, cfg)}
    return parameters


def _add_processor(design, board, cfg, full):
    name = _PROCESSOR
    module = design.module(name, board.processor_vlnv, parameters=_clocks(board, cfg, full), processor=True)
    _bus(module, board.manager, "MASTER", net=f"{name}_{board.manager}")
    for manager, port in _memory(board, cfg):
        _bus(module, port, "SLAVE", width=cfg.data_width, net=f"{CELL}_{manager}")
    _range(module, CELL, REGISTERS, board.base_address, RANGE_BYTES, board.manager)
    if full:
        _range(module, _CONTROLLER, "s_axi", board.base_address + CONTROLLER_OFFSET, RANGE_BYTES, board.manager, block="Reg")
        for pin, direction, kind in _processor_pins(board, cfg):
            design.pin(module, pin, direction, kind=kind)


def _memory(board, cfg):
    """Pairs of a manager of the core and the port that it is wired to."""
    return [(f"{MEMORY}{number or ''}", port) for number, port in enumerate(board.memory_ports[:cfg.ports])]


def _number(port):
    """The number in the name of a memory port."""
    return int(port.removeprefix("S_AXI_HP")[0])


def _processor_pins(board, cfg):
    """Clock, reset, interrupt, then the clocks of the interfaces that are used."""
    ports = [_number(port) for _, port in _memory(board, cfg)]
    if board.zynq7:
        return [("FCLK_CLK0", "O", "clk"), ("FCLK_RESET0_N", "O", "rst"), ("IRQ_F2P", "I", "INTERRUPT"), ("M_AXI_GP0_ACLK", "I", "clk"),
                *((f"S_AXI_HP{n}_ACLK", "I", "clk") for n in ports)]
    return [("pl_clk0", "O", "clk"), ("pl_resetn0", "O", "rst"), ("pl_ps_irq0", "I", "INTERRUPT"), ("maxihpm0_fpd_aclk", "I", "clk"),
            *((f"saxihp{n}_fpd_aclk", "I", "clk") for n in ports)]


def _add_core(design, board, cfg):
    base = board.base_address
    module = design.module(CELL, VLNV, parameters={
        "C_BASEADDR": f"0x{base:08X}", "C_HIGHADDR": f"0x{base + RANGE_BYTES - 1:08X}", "FINGERPRINT": f"{cfg.fingerprint:#010x}"})
    module.find("ADDRESSBLOCKS").append(_registers(cfg))
    for pin, kind in ((CLOCK, "clk"), (RESET, "rst")):
        design.pin(module, pin, "I", kind=kind)
    design.pin(module, INTERRUPT, "O", kind="INTERRUPT")
    _bus(module, REGISTERS, "SLAVE", net=f"{_CONNECT}_M00_AXI")
    for manager, port in _memory(board, cfg):
        _bus(module, manager, "MASTER", width=cfg.data_width, net=f"{CELL}_{manager}")
        _range(module, _PROCESSOR, port, 0, board.memory_bytes, manager, block=f"HP{_number(port)}_DDR", kind="MEMORY")


def _registers(cfg):
    """The register map, so that `register_map` of pynq names registers and fields."""
    block = ElementTree.Element("ADDRESSBLOCK", ACCESS="", INTERFACE=REGISTERS, NAME="reg0", RANGE=str(WINDOW_BYTES), USAGE="register")
    listed = ElementTree.SubElement(block, "REGISTERS")
    registers = register_map(cfg)
    for name, register in registers.items():
        accesses = {_ACCESS[f.access] for f in register.fields}
        entry = ElementTree.SubElement(listed, "REGISTER", NAME=name)
        _properties(entry, DESCRIPTION=register.doc or register.fields[0].doc, ADDRESS_OFFSET=hex(registers.address(name)), SIZE="32",
                    ACCESS=accesses.pop() if len(accesses) == 1 else "read-write", IS_ENABLED="true",
                    RESET_VALUE=hex(sum(f.reset << register.position_of(f.name)[0] for f in register.fields)))
        fields = ElementTree.SubElement(entry, "FIELDS")
        for field in register.fields:
            lsb, width = register.position_of(field.name)
            _properties(ElementTree.SubElement(fields, "FIELD", NAME=field.name), DESCRIPTION=field.doc, ADDRESS_OFFSET="0",
                        ACCESS=_ACCESS[field.access], BIT_OFFSET=str(lsb), BIT_WIDTH=str(width))
    return block


def _properties(element, **properties):
    for name, value in properties.items():
        ElementTree.SubElement(element, "PROPERTY", NAME=name, VALUE=value)


def _add_infrastructure(design, board):
    """Reset, interconnect and interrupt controller, as the Vivado flow places them."""
    base = board.base_address + CONTROLLER_OFFSET
    module = design.module(_CONTROLLER, "xilinx.com:ip:axi_intc:4.1", parameters={
        "C_NUM_INTR_INPUTS": 1, "C_IRQ_CONNECTION": 1, "C_BASEADDR": f"0x{base:08X}", "C_HIGHADDR": f"0x{base + RANGE_BYTES - 1:08X}"})
    for pin, direction, kind in (("s_axi_aclk", "I", "clk"), ("s_axi_aresetn", "I", "rst"), ("intr", "I", "INTERRUPT"),
                                 ("irq", "O", "INTERRUPT")):
        design.pin(module, pin, direction, kind=kind)
    _bus(module, "s_axi", "SLAVE", net=f"{_CONNECT}_M01_AXI")
    module = design.module(_RESET, "xilinx.com:ip:proc_sys_reset:5.0")
    for pin, direction, kind in (("slowest_sync_clk", "I", "clk"), ("ext_reset_in", "I", "rst"), ("peripheral_aresetn", "O", "rst")):
        design.pin(module, pin, direction, kind=kind)
    module = design.module(_CONNECT, "xilinx.com:ip:smartconnect:1.0", parameters={"NUM_SI": 1, "NUM_MI": 2})
    design.pin(module, CLOCK, "I", kind="clk")
    design.pin(module, RESET, "I", kind="rst")
    _bus(module, "S00_AXI", "SLAVE", net=f"{_PROCESSOR}_{board.manager}")
    for number in range(2):
        _bus(module, f"M{number:02}_AXI", "MASTER", net=f"{_CONNECT}_M{number:02}_AXI")


def _wire(design, board, cfg):
    """Clock, resets and the interrupt's way to the processor."""
    clock, reset, interrupt, *clocks = (pin for pin, *_ in _processor_pins(board, cfg))
    design.net("clk", (_PROCESSOR, clock), *((_PROCESSOR, pin) for pin in clocks), (CELL, CLOCK), (_CONNECT, CLOCK),
               (_CONTROLLER, "s_axi_aclk"), (_RESET, "slowest_sync_clk"))
    design.net("ps_resetn", (_PROCESSOR, reset), (_RESET, "ext_reset_in"))
    design.net("resetn", (_RESET, "peripheral_aresetn"), (CELL, RESET), (_CONNECT, RESET), (_CONTROLLER, "s_axi_aresetn"))
    design.net("core_irq", (CELL, INTERRUPT), (_CONTROLLER, "intr"))
    design.net("controller_irq", (_CONTROLLER, "irq"), (_PROCESSOR, interrupt))
