"""Cells of the vendor: their settings, and the pins and interfaces that follow from these."""

import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Pin:
    """A pin of a cell: what it carries and whether it drives."""

    #: clock, reset or interrupt.
    kind: str
    drives: bool = False


@dataclass(frozen=True)
class Interface:
    """An AXI interface of a cell."""

    manager: bool
    #: AXI3, AXI4, AXI4LITE, or any.
    protocol: str
    #: Data width; 0: any.
    width: int
    #: Pin that clocks it.
    clock: str
    #: Address segments or address space behind it, as Vivado names them.
    segment: str = ""


@dataclass
class Cell:
    """A cell of the block design; pins and interfaces depend on its configuration."""

    name: str
    kind: str
    configuration: dict[str, str] = field(default_factory=dict)
    automated: bool = False


_NUMBER = re.compile(r"\d+(\.\d+)?$")
_FLAG = re.compile(r"[01]$")
#: Settings that exist, by kind of cell, and what they may be.
SETTINGS = {
    "processing_system7": {
        r"PCW_CRYSTAL_PERIPHERAL_FREQMHZ": _NUMBER, r"PCW_FPGA[0-3]_PERIPHERAL_FREQMHZ": _NUMBER, r"PCW_EN_(CLK|RST)[0-3]_PORT": _FLAG,
        r"PCW_USE_[MS]_AXI_GP[01]": _FLAG, r"PCW_USE_S_AXI_HP[0-3]": _FLAG, r"PCW_S_AXI_HP[0-3]_DATA_WIDTH": re.compile("32$|64$"),
        r"PCW_USE_FABRIC_INTERRUPT": _FLAG, r"PCW_IRQ_F2P_INTR": _FLAG},
    "zynq_ultra_ps_e": {
        r"PSU__FPGA_PL[0-3]_ENABLE": _FLAG, r"PSU__CRL_APB__PL[0-3]_REF_CTRL__FREQMHZ": _NUMBER, r"PSU__USE__M_AXI_GP[0-2]": _FLAG,
        r"PSU__USE__S_AXI_GP[0-6]": _FLAG, r"PSU__MAXIGP[0-2]__DATA_WIDTH": re.compile("32$|64$|128$"),
        r"PSU__SAXIGP[0-6]__DATA_WIDTH": re.compile("32$|64$|128$"), r"PSU__USE__IRQ[01]": _FLAG},
    "smartconnect": {"NUM_SI": re.compile(r"\d+$"), "NUM_MI": re.compile(r"\d+$")},
    "axi_intc": {"C_IRQ_CONNECTION": _FLAG},
    "proc_sys_reset": {},
}


def _zynq7(setting):
    pins, interfaces = {}, {}
    if setting("PCW_EN_CLK0_PORT", "0") == "1":
        pins["FCLK_CLK0"] = Pin("clock", drives=True)
    if setting("PCW_EN_RST0_PORT", "0") == "1":
        pins["FCLK_RESET0_N"] = Pin("reset", drives=True)
    if setting("PCW_USE_M_AXI_GP0", "1") == "1":
        pins["M_AXI_GP0_ACLK"] = Pin("clock")
        interfaces["M_AXI_GP0"] = Interface(True, "AXI3", 32, "M_AXI_GP0_ACLK", "Data")
    for n in range(4):
        if setting(f"PCW_USE_S_AXI_HP{n}", "0") == "1":
            pins[f"S_AXI_HP{n}_ACLK"] = Pin("clock")
            width = int(setting(f"PCW_S_AXI_HP{n}_DATA_WIDTH", "64"))
            interfaces[f"S_AXI_HP{n}"] = Interface(False, "AXI3", width, f"S_AXI_HP{n}_ACLK", f"HP{n}_DDR_LOWOCM")
    if setting("PCW_USE_FABRIC_INTERRUPT", "0") == setting("PCW_IRQ_F2P_INTR", "0") == "1":
        pins["IRQ_F2P"] = Pin("interrupt")
    return pins, interfaces


def _zynqmp(setting):
    pins, interfaces = {}, {}
    if setting("PSU__FPGA_PL0_ENABLE", "1") == "1":
        pins |= {"pl_clk0": Pin("clock", drives=True), "pl_resetn0": Pin("reset", drives=True)}
    for n, (port, clock) in enumerate((("M_AXI_HPM0_FPD", "maxihpm0_fpd_aclk"), ("M_AXI_HPM1_FPD", "maxihpm1_fpd_aclk"),
                                       ("M_AXI_HPM0_LPD", "maxihpm0_lpd_aclk"))):
        if setting(f"PSU__USE__M_AXI_GP{n}", "1" if n < 2 else "0") == "1":
            pins[clock] = Pin("clock")
            interfaces[port] = Interface(True, "AXI4", int(setting(f"PSU__MAXIGP{n}__DATA_WIDTH", "128")), clock, "Data")
    for n in range(4):
        if setting(f"PSU__USE__S_AXI_GP{n + 2}", "0") == "1":
            pins[f"saxihp{n}_fpd_aclk"] = Pin("clock")
            width = int(setting(f"PSU__SAXIGP{n + 2}__DATA_WIDTH", "128"))
            interfaces[f"S_AXI_HP{n}_FPD"] = Interface(False, "AXI4", width, f"saxihp{n}_fpd_aclk", f"HP{n}_DDR_LOW")
    if setting("PSU__USE__IRQ0", "0") == "1":
        pins["pl_ps_irq0"] = Pin("interrupt")
    return pins, interfaces


def _smartconnect(setting):
    interfaces = {f"S{n:02}_AXI": Interface(False, "any", 0, "aclk") for n in range(int(setting("NUM_SI", "2")))}
    interfaces |= {f"M{n:02}_AXI": Interface(True, "any", 0, "aclk") for n in range(int(setting("NUM_MI", "1")))}
    return {"aclk": Pin("clock"), "aresetn": Pin("reset")}, interfaces


def _interrupt_controller(setting):
    pins = {"s_axi_aclk": Pin("clock"), "s_axi_aresetn": Pin("reset"), "intr": Pin("interrupt")}
    if setting("C_IRQ_CONNECTION", "0") == "1":
        pins["irq"] = Pin("interrupt", drives=True)
    return pins, {"s_axi": Interface(False, "AXI4LITE", 32, "s_axi_aclk", "S_AXI/Reg")}


def _reset(setting):
    return {"slowest_sync_clk": Pin("clock"), "ext_reset_in": Pin("reset"), "peripheral_aresetn": Pin("reset", drives=True)}, {}


SHAPES = {"processing_system7": _zynq7, "zynq_ultra_ps_e": _zynqmp, "smartconnect": _smartconnect, "axi_intc": _interrupt_controller,
          "proc_sys_reset": _reset}
