"""`spikeloom fill` and `spikeloom classify`: encoders on a device, checked against the integer model."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .closing import close, rates
from .common import PRESET_HELP, build_image, check_output, console, machine_for, open_device, open_image, speaks

if TYPE_CHECKING:
    from ..driver.device import Device

DeviceName = Annotated[str, typer.Option(help="emulator, rtl (Verilated gateware), or uart:PORT (a board).")]
Model = Annotated[str | None, typer.Option(help="Encoder by name or folder.")]
ImageFile = Annotated[Path | None, typer.Option(help="A compiled .loom image instead of a model.")]
Preset = Annotated[str | None, typer.Option(help=PRESET_HELP)]
Dense = Annotated[bool, typer.Option(help="Read every weight row: same answer, more bytes.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result here.")]


@speaks
def fill(
    text: Annotated[str, typer.Argument(help="Text with <mask> wherever a word is wanted.")],
    model: Model = None,
    device: DeviceName = "emulator",
    image: ImageFile = None,
    preset: Preset = None,
    dense: Dense = False,
    json_file: JsonFile = None,
) -> None:
    """Fill the masks of a text on a device, and check every command against the integer model."""
    def read(opened: "Device"):
        found = opened.fill(text, dense=dense, trace=True)
        console.print(found.text, markup=False, highlight=False, soft_wrap=True)
        return found.given, found.tokens, {"text": found.text, "masks": found.masks, "token_ids": found.ids}

    _run(read, model, device, image, preset, json_file)


@speaks
def classify(
    text: Annotated[str, typer.Argument(help="Text.")],
    second: Annotated[str | None, typer.Argument(help="Second text, where the model compares two.")] = None,
    model: Model = None,
    device: DeviceName = "emulator",
    image: ImageFile = None,
    preset: Preset = None,
    dense: Dense = False,
    json_file: JsonFile = None,
) -> None:
    """Name the class of a text (or pair) on a device, and check every command against the integer model."""
    def read(opened: "Device"):
        found = opened.classify(text, second, dense=dense, trace=True)
        console.print(found.name, markup=False, highlight=False, soft_wrap=True)
        return found.given, [found.token], {"class": found.token.id, "name": found.name, "logit": found.token.logit}

    _run(read, model, device, image, preset, json_file)


def _run(read, model, device, image, preset, json_file):
    """Open, load, `read` (which returns ids given, tokens said and its part of the result), compare, close."""
    if (model is None) == (image is None):
        raise ValueError("Give --model NAME or --image FILE.")
    check_output(json_file)
    loom = open_image(image) if image else None
    machine = machine_for(preset, model=model, image=loom)
    loom = loom or build_image(model, machine)
    with open_device(device, machine) as opened:
        opened.load(loom)
        began = time.perf_counter()
        given, said, found = read(opened)
        seconds = time.perf_counter() - began
        counters, reason = opened.counters(), opened.reason.name
        report = _compare(opened, loom, given, said)
    name = loom.card["model"]["name"]
    result = {**found, "tokens": len(given), "mismatches": report.mismatches, **rates(counters, events=machine.events), "seconds": seconds,
              "device": device, "preset": machine.name, "model": name}
    close(result, report, json_file, reason=reason)


def _compare(opened, loom, given, said):
    """The same text on the integer model that the image holds."""
    from ..compiler.restore import restore
    from ..driver.verify import Machine, check_encoding
    from ..model.integer_model import IntegerModel

    machine = Machine.of(loom, lanes=opened.cfg.lanes, acc_width=opened.cfg.acc_width)
    return check_encoding(IntegerModel(*restore(loom, opened.cfg)), machine, given, said, opened.trace_records())
