"""`spikeloom compile` and `spikeloom info`: images and models on disk."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .common import DEFAULT_MODEL, PRESET_HELP, build_image, check_output, console, machine_for, open_image, speaks


@speaks
def compile(
    model: Annotated[str, typer.Argument(help="Model by name or folder.")] = DEFAULT_MODEL,
    preset: Annotated[str | None, typer.Option(help=PRESET_HELP)] = None,
    output: Annotated[Path | None, typer.Option(help="Image file; MODEL-PRESET.loom unless told.")] = None,
    streamed: Annotated[str, typer.Option(help="auto, none, all, or names of matrices separated by commas.")] = "auto",
    trace_dumps: Annotated[bool, typer.Option(help="Dump every intermediate.")] = False,
) -> None:
    """Compile a model into the image of one machine."""
    from ..arch.layout import write_image

    check_output(output)
    machine = machine_for(preset, model=model)
    image = build_image(model, machine, streamed, trace_dumps)
    data = write_image(image)
    output = output or Path(f"{image.card['model']['name']}-{machine.name}.loom")
    output.write_bytes(data)
    streams = ", ".join(image.card["streamed"]) or "nothing"
    console.print(f"{output}: {len(data):,} bytes, {len(image.program)} commands, streamed: {streams}; prompts: {_reading(image.card)}",
                  markup=False, highlight=False)


@speaks
def info(
    image: Annotated[Path | None, typer.Argument(help="An image; without one, what this installation knows.")] = None,
    program: Annotated[bool, typer.Option(help="List the image's commands.")] = False,
) -> None:
    """Say what is in an image, or which models and machines there are."""
    if image is None:
        return _show_installation()
    loom = open_image(image)
    card = loom.card
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in card["model"].items():
        table.add_row(name, escape(str(value)))
    table.add_row("machine", f"{card['machine']} (fingerprint {loom.fingerprint:#010x})")
    table.add_row("logit scale", str(card["logit_scale"]))
    for name, size in card["bytes"].items():
        table.add_row(f"{name} bytes", f"{size:,}")
    table.add_row("streamed", ", ".join(card["streamed"]) or "nothing")
    table.add_row("prompts", _reading(card))
    console.print(table)
    if program:
        for index, command in enumerate(loom.program):
            fields = " ".join(f"{k}={v}" for k, v in command.fields.items())
            console.print(f"{index:4} {command.opcode.name:7} {command.label:20} {fields}", markup=False, highlight=False, soft_wrap=True)


def _reading(card):
    """How prompts are read."""
    prefill = card.get("prefill", {})
    return f"in blocks of {prefill['block']}." if "block" in prefill else f"token by token. {prefill.get('without', '')}"


def _show_installation():
    from ..arch.presets import PRESETS
    from ..model.store import available

    console.print(f"Models: {', '.join(available()) or 'none'}")
    table = Table("machine", "columns", "lanes", "width", "context", "vocabulary", "resident KiB", "fingerprint", box=None)
    for name, cfg in PRESETS.items():
        table.add_row(name, *map(str, (cfg.cols, cfg.lanes, cfg.max_width, cfg.max_context, cfg.max_vocabulary,
                                       cfg.resident_words * cfg.cols // 1024)), f"{cfg.fingerprint:#010x}")
    console.print(table)
