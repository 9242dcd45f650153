"""What a run of the model knows."""

from dataclasses import dataclass, field

from ..core import CorePorts
from .cells import Cell


@dataclass(frozen=True)
class Scenario:
    """How Vivado behaves in one run of the model."""

    version: str = "2022.1"
    boards: tuple[str, ...] = ("xilinx.com:kv260_som:part0:1.4",)
    #: Slacks of the routed design in nanoseconds.
    setup: float = 0.1
    hold: float = 0.02
    pulse: float = 0.0
    #: Step of implementation that stops half-way.
    broken_step: str = ""
    #: Interfaces that packaging does not find by itself.
    hidden: tuple[str, ...] = ()
    #: Packaging writes a frequency beside the clock.
    fixed_frequency: bool = False


@dataclass
class Packaged:
    """The core on its way to `component.xml`, and as an IP after that."""

    vlnv: list[str]
    folder: str
    #: Kinds of the interfaces that it has, by name: aximm, clock, reset or interrupt.
    interfaces: dict[str, str]
    parameters: dict[tuple[str, str], str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    #: Clock of each AXI interface; reset of each clock.
    clocks: dict[str, str] = field(default_factory=dict)
    resets: dict[str, str] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)


class State:
    """Base of the command classes.

    Parameters
    ----------
    core : CorePorts
        Of the Verilog that the script packages.
    scenario : Scenario
    """

    def __init__(self, core: CorePorts, scenario: Scenario):
        self.core = core
        self.scenario = scenario
        self.project = self.part = self.top = self.design = self.launched = ""
        self.files, self.repositories = [], []
        self.packaged: Packaged | None = None
        self.catalogue: dict[str, Packaged] = {}
        self.cells: dict[str, Cell] = {}
        #: Driver of each driven pin; other end of each interface; (base, size) of each segment.
        self.drivers: dict[str, str] = {}
        self.joined: dict[str, str] = {}
        self.addresses: dict[str, tuple[int, int]] = {}
        self.memory_mapped = False
        #: Steps that were taken, and statistics that were read.
        self.done: set[str] = set()
        #: "bit" and "hwh": where they were copied.
        self.copied: dict[str, str] = {}
