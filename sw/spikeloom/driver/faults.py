"""From the error register to a typed error that carries what the device knew."""

from ..arch.registers import ErrorCode, Reason, State
from .access import Registers
from .errors import (
    BadProgram,
    BusDead,
    BusError,
    PromptError,
    SaturationError,
    SpikeloomError,
    WatchdogExpired,
)

_ERRORS = {
    ErrorCode.BAD_PROGRAM: (BadProgram, "The device refused command {command} ({label}): a field is out of its range."),
    ErrorCode.BAD_ADDRESS: (BadProgram, "Command {command} ({label}) reaches address {address:#x}, past the end of its memory."),
    ErrorCode.BUS_READ: (BusError, "Memory answered a read of address {address:#x} with an error, in command {command} ({label})."),
    ErrorCode.BUS_WRITE: (BusError, "Memory answered a write to address {address:#x} with an error, in command {command} ({label})."),
    ErrorCode.BUS_DEAD: (BusDead, "Memory has stopped answering the device, in command {command} ({label})."),
    ErrorCode.WATCHDOG: (WatchdogExpired, "Command {command} ({label}) ran longer than the watchdog allows."),
    ErrorCode.BAD_TOKEN: (PromptError, "Token {address} at position {position} lies outside the model's vocabulary."),
    ErrorCode.SATURATION: (SaturationError, "The residual clipped in command {command} ({label}) at position {position}."),
}


def report(registers: Registers) -> dict[str, object]:
    """Status, error, sequencer state, progress and the counters that are not zero."""
    status = registers.fields("status")
    state = {"state": _name(State, status["state"]), "reason": _name(Reason, status["reason"]),
             "busy": status["busy"], "done": status["done"], "bus_dead": status["bus_dead"]}
    error = registers.fields("error")
    state |= {"error": _name(ErrorCode, error["code"]), "command": error["command"], "position": error["position"],
              "address": registers.read("error_address")}
    sequencer = registers.fields("sequencer")
    state |= {"sequencer_command": sequencer["command"], "sequencer_phase": sequencer["phase"],
              "records": registers.fields("progress")["records"]}
    return state | {name: value for name, value in registers.counters().items() if value}


def fault(registers: Registers, labels: list[str]) -> SpikeloomError:
    """The typed error of a device that has failed; labels name the commands of its program."""
    state = report(registers)
    code = registers.fields("error")["code"]
    kind, text = _ERRORS.get(code, (SpikeloomError, "The device reports error code {code}, which this driver does not know."))
    command = state["command"]
    label = labels[command] if command < len(labels) else "outside the program"
    return kind(text.format(command=command, label=label, address=state["address"], position=state["position"], code=code), state=state)


def _name(kind, value):
    return kind(value).name if value in set(kind) else value
