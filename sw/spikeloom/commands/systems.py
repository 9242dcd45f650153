"""`spikeloom systems`: every system of the papers, what of it works, and a run that shows it."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..systems import ROWS, Row, find
from .common import DIFFERS, check_output, console, open_device, speaks

_TOKENS = 10
#: Columns of text from which the golden models' names fit beside the rest.
_WIDE = 130


@speaks
def systems(
    json: Annotated[Path | None, typer.Option(help="Write the list as JSON.")] = None,
    run: Annotated[str | None, typer.Option(help="Run the row of this name (or: all) as a network that was never trained.")] = None,
    device: Annotated[str, typer.Option(help="emulator or rtl.")] = "emulator",
    seed: Annotated[int, typer.Option(help="Of the random network.")] = 1,
) -> None:
    """List every system and option of the three papers, or run one against the integer model."""
    check_output(json)
    if run:
        _run([row for row in ROWS if row.changes is not None] if run == "all" else [find(run)], device, seed)
    elif json is None:
        wide = console.width >= _WIDE
        table = Table("system", "arXiv", *(["golden model"] if wide else []), "gateware", "state")
        for row in ROWS:
            table.add_row(row.name, row.paper.replace("arXiv ", ""), *([row.golden] if wide else []), row.gateware, row.state)
        console.print(table)
        console.print('Run one against the integer model: spikeloom systems --run "NI-LIF 1x4" --device rtl; the command of every row: '
                      "spikeloom systems --json FILE", highlight=False, soft_wrap=True)
    if json is not None:
        json.write_text(json_module.dumps([row.to_dict() for row in ROWS], indent=2) + "\n", encoding="utf-8")


def _run(rows: list[Row], device: str, seed: int) -> None:
    from ..arch.presets import preset
    from ..compiler import compile_model
    from ..driver.verify import verify, verify_encoding
    from ..model.integer_model import IntegerModel

    wrong = 0
    for name in dict.fromkeys(row.preset for row in rows):
        machine = preset(name)
        with open_device(device, machine) as opened:
            for row in (row for row in rows if row.preset == name):
                config, tensors = row.network(seed)
                opened.load(compile_model(config, tensors, machine, logit_scale=64.0))
                reference = IntegerModel(config, tensors)
                if config.bidirectional:
                    report = verify_encoding(opened, reference, [(3 * i + seed) % config.vocabulary for i in range(_TOKENS)])
                else:
                    report = verify(opened, reference, [1, 2], min(_TOKENS, config.context - 2))
                wrong += report.mismatches
                console.print(f"{row.name}: {report.compared} values compared, {report.mismatches} differ. {report.first}",
                              highlight=False, soft_wrap=True)
    if wrong:
        raise typer.Exit(DIFFERS)
