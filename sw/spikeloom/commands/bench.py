"""`spikeloom bench`: every figure of speed, bytes, clock and area, measured and written down."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from .common import complaints, console, speaks


@speaks
def bench(
    only: Annotated[list[str] | None, typer.Option(help="Measure this key or table alone; may be given several times.")] = None,
    quick: Annotated[bool, typer.Option(help="Measure one story; write nothing.")] = False,
    keys: Annotated[bool, typer.Option("--list", help="List the keys and what is on file.")] = False,
    page: Annotated[bool, typer.Option("--page", help="Only draw docs/performance.md again from what is on file.")] = False,
    root: Annotated[Path, typer.Option(help="Checkout whose results/ and docs/ are written.")] = Path(),
) -> None:
    """Measure, and write results/bench.json and docs/performance.md (needs the extras hw, sim, model, dev)."""
    from spikeloom_sim.bench import page as pages
    from spikeloom_sim.bench.figures import RESULT, load
    from spikeloom_sim.bench.keys import GOALS
    from spikeloom_sim.bench.measures import Measures, Options
    from spikeloom_sim.bench.run import line, run

    def say(text):
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if (keys or page) and not (root / RESULT).parent.is_dir():
        raise FileNotFoundError(f"{root} is no checkout: it has no folder {RESULT.parent}. Name one with --root.")
    if keys:
        known = load(root / RESULT)
        for key, goal in GOALS.items():
            say(line(key, known[key]) if key in known else f"{key}: never measured, goal {goal.goal or 'none'}")
        return
    if page:
        pages.write(root)
        return
    with Progress(console=complaints, transient=True) as progress:
        def announce(what, steps):
            task = progress.add_task(what, total=steps)
            return lambda: progress.advance(task)

        measures = Measures(Options.quick() if quick else Options(), announce)
        with _scratch(root) if quick else contextlib.nullcontext(root) as folder:
            run(measures, keys=only or (), root=folder, say=say)


@contextlib.contextmanager
def _scratch(root):
    """A folder that is thrown away, with the results that figures are read from."""
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory(prefix="spikeloom-bench-") as folder:
        if (root / "results").is_dir():
            shutil.copytree(root / "results", Path(folder) / "results")
        yield Path(folder)
