"""The clock of the fabric, measured against the wall and compared with what the bitstream was built for."""

import time
import warnings
from dataclasses import dataclass

from ..arch.commands import Command, Opcode, Order, Sink
from ..arch.config import AcceleratorConfig, ceil_div
from ..arch.layout import pack_program, program_words
from ..arch.registers import Mode
from ..driver.device import Device
from ..driver.errors import DeadlineExpired, SpikeloomError
from ..driver.faults import report

#: Share by which a clock may miss its goal: dividers of the processor's clocks meet theirs exactly, or by a few per thousand.
TOLERANCE = 0.01
#: A pair of readings counts when the clock could be read within this share of the interval; else it is taken again.
_JITTER = 0.002
_ATTEMPTS = 5
#: Cycles of one pass through the busy program; there are as many passes as the context has positions.
_TOKEN_CYCLES = 100_000


class ClockTooFast(SpikeloomError):
    """The fabric runs faster than the bitstream was built for: its results are not to be trusted."""

    remedy = ("Load the .hwh that came with the bitstream (pynq sets the clock from it), or set the clock of the fabric to what the "
              "manifest says.")


class ClockWarning(UserWarning):
    """The fabric runs slower than the bitstream was built for: results are right, but late."""


@dataclass(frozen=True)
class Clock:
    """A measured clock and its goal, in MHz."""

    mhz: float
    goal_mhz: float

    @property
    def error(self) -> float:
        """Relative: 0.01 is one percent too fast."""
        return self.mhz / self.goal_mhz - 1

    def __str__(self) -> str:
        return f"{self.mhz:.2f} MHz measured, {self.goal_mhz:g} MHz built for ({self.error:+.2%})"

    def check(self) -> "Clock":
        """Warn of a clock that is too slow, refuse one that is too fast.

        Raises
        ------
        ClockTooFast
        """
        if self.error > TOLERANCE:
            raise ClockTooFast(f"The fabric's clock runs at {self.mhz:.2f} MHz; the bitstream was built for {self.goal_mhz:g} MHz.")
        if self.error < -TOLERANCE:
            warnings.warn(f"The fabric's clock runs at {self.mhz:.2f} MHz; the bitstream was built for {self.goal_mhz:g} MHz. Results are "
                          "right, but late: check the clock that the .hwh asks for.", ClockWarning, stacklevel=3)
        return self


def busy_program(cfg: AcceleratorConfig) -> bytes:
    """Commands that keep a machine busy for as long as it may be needed, whatever its memories hold, without the bus.

    Dense LINEARs over all inputs whose sums go to the logits; nothing reads these.
    """
    n_in = min(cfg.max_neurons, cfg.resident_words)
    count = min(cfg.program_words - 1, ceil_div(_TOKEN_CYCLES, n_in))
    linear = Command(Opcode.LINEAR, {"sink": Sink.LOGITS, "order": Order.TILES, "n_in": n_in, "tiles": 1, "groups": 1}, "busy")
    return pack_program([linear] * count + [Command(Opcode.HALT, {}, "end")])


def measure_clock(device: Device, *, seconds: float = 0.05) -> Clock:
    """Count the fabric's cycles over an interval of wall time.

    The device runs a program of its own meanwhile, because its counter stands still while it is idle; load an image
    afterwards. Needs registers and clock, but no memory port, so that a wrong clock can be told from a dead bus.

    Parameters
    ----------
    device : Device
        Idle, without an image.
    seconds : float
        Interval. A reading takes some ten microseconds on a board, an error of 0.05% at the default.

    Raises
    ------
    SpikeloomError
        When an image is loaded.
    DeadlineExpired
        When the counter stands still, or the computer was too busy to read it in time.
    """
    if device.model is not None:
        raise SpikeloomError("The clock is measured before an image is loaded.", remedy="Open the device anew.")
    transport = device.transport
    now, sleep = getattr(transport, "now", time.perf_counter), getattr(transport, "sleep", time.sleep)
    start(device)
    try:
        for _ in range(_ATTEMPTS):
            first, first_jitter = _reading(device, now)
            sleep(seconds)
            last, last_jitter = _reading(device, now)
            if not device.registers.fields("status")["busy"]:
                start(device)
                continue
            cycles, wall = last[1] - first[1], last[0] - first[0]
            if cycles > 0 and first_jitter + last_jitter <= _JITTER * wall:
                return Clock(cycles / wall / 1e6, device.cfg.clock_mhz)
        raise DeadlineExpired("The clock of the fabric could not be measured: its counter stands still, or this computer was too busy "
                              "to read it in time.", state=report(device.registers))
    finally:
        end(device)


def _reading(device, now):
    """((seconds, cycles), uncertainty of the seconds)."""
    before = now()
    cycles = device.registers.counter("cycles")
    after = now()
    return ((before + after) / 2, cycles), after - before


def start(device: Device) -> None:
    """Start the busy program over a full context."""
    registers, cfg = device.registers, device.cfg
    device.reset()
    registers.write_window("program", program_words(busy_program(cfg)))
    registers.write("entries", boot=0, token=0)
    registers.write("limits", vocabulary=2, context=cfg.max_context)
    registers.write_window("prompt", [0] * cfg.max_context)
    registers.write("run", n_prompt=cfg.max_context, n_new=0)
    registers.write("mode", run=Mode.GENERATE, dense=1)
    registers.write("control", start=1)


def end(device: Device) -> None:
    """Stop the busy program and leave no trace of it. Raises DeadlineExpired."""
    device.reset()
    device.registers.write("control", clear_counters=1)
