"""What can go wrong between host and device, as types: each message says what happened and what to do."""

from collections.abc import Mapping


class SpikeloomError(Exception):
    """Base of all errors that the driver raises on purpose.

    Parameters
    ----------
    what : str
        What happened, one or more full sentences.
    state : Mapping, optional
        Register values, counters or addresses that were read when it happened; shown after the message and kept as
        ``error.state`` for programs.
    remedy : str, optional
        What to do; each class has its own default.
    """

    remedy: str = "This is a fault of Spikeloom itself: please report it with this message."

    def __init__(self, what: str, *, state: Mapping[str, object] | None = None, remedy: str | None = None):
        self.what = what
        self.state = dict(state or {})
        self.remedy = type(self).remedy if remedy is None else remedy
        super().__init__(what)

    def __str__(self) -> str:
        state = ", ".join(f"{name}={_show(value)}" for name, value in self.state.items())
        return " ".join(part for part in (self.what, self.remedy, f"[{state}]" if state else "") if part)


def _show(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) and value > 9 else str(value)


class BadImage(SpikeloomError):
    """The `.loom` file is damaged, truncated, or of another format version."""

    remedy = "Copy or compile the image again; nothing was sent to the device."


class ForeignImage(SpikeloomError):
    """The image was compiled for another machine."""

    remedy = "Compile the model for this device's preset, or load the bitstream the image was compiled for."


class ForeignBitstream(SpikeloomError):
    """The device is not Spikeloom gateware, or gateware of another configuration than the driver was told."""

    remedy = "Load the bitstream that belongs to this manifest, or open the device with the preset it was built from."


class BadProgram(SpikeloomError):
    """The device refused a command: unknown opcode, or a field out of bounds."""

    remedy = "Compile the image again with the installed version of Spikeloom; reset the device before the next run."


class BusError(SpikeloomError):
    """Memory answered a read or write of the device with SLVERR or DECERR."""

    remedy = "Check that the buffers the device was given are still allocated, then reset the device and load again."


class BusDead(SpikeloomError):
    """Memory has stopped answering the device; a soft reset cannot help."""

    remedy = "Reset the fabric or load the bitstream again; check the clock and the enable of the memory port."


class WatchdogExpired(SpikeloomError):
    """The device's own watchdog stopped a command that made no progress."""

    remedy = "Reset the device; raise the watchdog limit if the memory is merely slow."


class DeadlineExpired(SpikeloomError):
    """The device did not answer the host in time."""

    remedy = "Raise the deadline if the device is merely slow; otherwise reset it."


class ContextFull(SpikeloomError):
    """The prompt or conversation does not fit the model's context."""

    remedy = "Clear the conversation, or shorten the prompt."


class PromptError(SpikeloomError):
    """The prompt cannot be used as it is: empty, or with tokens outside the vocabulary."""

    remedy = "Give a prompt of at least one token of the model's own tokenizer."


class WrongKind(SpikeloomError):
    """The loaded image is not of the kind that the call is for."""

    remedy = "Decoders generate and score; encoders encode, and fill or classify."


class SaturationError(SpikeloomError):
    """The residual stream saturated, so the output differs from the model that was trained."""

    remedy = "Quantize the model again with a larger residual scale; released models never saturate."


class DeviceGone(SpikeloomError):
    """The transport was closed, or its board or simulation has ended."""

    remedy = "Open the device again."
