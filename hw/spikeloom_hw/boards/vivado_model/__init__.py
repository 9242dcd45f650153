"""A model of the Vivado commands that our scripts use: cells, pins, nets, interfaces, addresses, runs.

It finds misspelt commands, options, cells, pins and settings, what is left unconnected or joined wrongly, and steps left out.
It knows the vendor's cells as their manuals give them and is no more than that: a script that passes here has not been run by
Vivado. The core's pins are those of its exported Verilog.
"""

from ..core import CorePorts
from ..vivado_tcl import TclError
from .designer import DesignCommands
from .packager import PackagerCommands
from .projects import ProjectCommands
from .state import Scenario

__all__ = ["Scenario", "Vivado"]


class Vivado(ProjectCommands, PackagerCommands, DesignCommands):
    """Answers Vivado commands; `copied`, `addresses` and `joined` are what a script has achieved.

    Parameters
    ----------
    core : CorePorts
        Of the Verilog that the script packages.
    scenario : Scenario
        How Vivado behaves.
    """

    def __init__(self, core: CorePorts, scenario: Scenario | None = None):
        super().__init__(core, scenario or Scenario())

    def answer(self, command: str, *words: str) -> str:
        """Result of a command. Raises TclError when Vivado would refuse it, or when what it does would not work."""
        method = f"ipx_{command[5:]}" if command.startswith("ipx::") else f"do_{command}"
        handler = getattr(self, method, None)
        if handler is None:
            raise TclError(f'invalid command name "{command}"')
        try:
            return handler(*words) or ""
        except (TypeError, ValueError) as error:
            raise TclError(f"{command}: wrong number of words: {' '.join(words)}") from error
        except TclError as error:
            raise TclError(f"{command}: {error}") from None

    def set_one(self, name: str, value: str, thing: str) -> None:
        """Set one property of anything."""
        if thing in self.cells:
            self.configure(self.cells[thing], name, value)
        elif thing == "core":
            self.set_core_property(name, value)
        elif thing.startswith("parameter:") and name == "value":
            self.set_parameter(thing, value)
        else:
            super().set_one(name, value, thing)
