"""`spikeloom generate`: text on a device, as it comes, checked against the integer model."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .closing import close, keep, rates
from .common import DEFAULT_MODEL, PRESET_HELP, build_image, check_output, complaints, console, machine_for, open_device, open_image, speaks

if TYPE_CHECKING:
    from ..driver.device import Device
    from ..driver.text import Text


@speaks
def generate(
    prompt: Annotated[str, typer.Argument(help="Beginning of the text; may be empty.")],
    device: Annotated[str, typer.Option(help="emulator, rtl (Verilated gateware), or uart:PORT (a board).")] = "emulator",
    tokens: Annotated[int, typer.Option(help="Tokens to make, at most.")] = 100,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Candidates of sampling, 1 to 8; 0 or more: all.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of sampling.")] = 0,
    model: Annotated[str, typer.Option(help="Model by name or folder.")] = DEFAULT_MODEL,
    image: Annotated[Path | None, typer.Option(help="A compiled .loom image instead of a model.")] = None,
    preset: Annotated[str | None, typer.Option(help=PRESET_HELP)] = None,
    dense: Annotated[bool, typer.Option(help="Read every weight row: same text, more bytes.")] = False,
    ignore_end: Annotated[bool, typer.Option(help="Go on after the end token.")] = False,
    trace: Annotated[bool, typer.Option(help="Compare a checksum of every command too; without it, tokens and logits.")] = True,
    prefill: Annotated[bool, typer.Option(help="Read the prompt in blocks that share streamed rows, where the image can.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result here; after Ctrl-C, what was made.")] = None,
) -> None:
    """Write text on a device, and check every token against the integer model."""
    from ..arch.numerics import TOP_K_MAX, candidates
    from ..driver.text import Text

    check_output(json_file)
    loom = open_image(image) if image else None
    machine = machine_for(preset, model=None if loom else model, image=loom)
    loom = loom or build_image(model, machine)
    name = loom.card.get("model", {}).get("name", model)
    text = Text(loom.sections["tokenizer"].decode()) if "tokenizer" in loom.sections else None
    options = {"temperature": temperature, "top_k": top_k, "seed": seed}
    if temperature > 0 and top_k and not candidates(top_k):
        complaints.print(f"The sampler keeps {TOP_K_MAX} candidates at most: with top_k {top_k} every token is one.", highlight=False)
    with open_device(device, machine) as opened:
        opened.load(loom)
        ids = _prompt_ids(prompt, text, opened.model.end_token)
        began, made, pieces = time.perf_counter(), [], []

        def result(**measured):
            return {"text": "".join(pieces), "tokens": len(made), "token_ids": [token.id for token in made], **measured,
                    "seconds": seconds, "device": device, "preset": machine.name, "model": name, "seed": seed}

        try:
            _write(opened, text, prompt, ids, tokens, options, made, pieces, dense=dense, ignore_end=ignore_end, trace=trace,
                   prefill=prefill)
        except KeyboardInterrupt:
            seconds = time.perf_counter() - began
            keep(result(interrupted=True), json_file)  # compared with nothing
            raise
        seconds = time.perf_counter() - began
        counters = opened.counters()
        report = _compare(opened, loom, ids, made, options | {"prefill": prefill}, trace)
        reason = opened.reason.name
    close(result(mismatches=report.mismatches, **rates(counters, events=machine.events)), report, json_file, reason=reason)


def _prompt_ids(prompt: str, text: "Text | None", begin: int) -> list[int]:
    """Every text begins with the end token, which is all that an empty prompt gives."""
    if not prompt:
        return [begin]
    if text is None:
        raise ValueError("The image has no tokenizer, so that it takes no text; give an empty prompt.")
    return [begin, *text.encode(prompt)]


def _write(opened: "Device", text, prompt, ids, n_new, options, made, pieces, **flags):
    """Print the text as its tokens come; they go to `made`, the generated text to `pieces`."""
    from ..driver.text import Stream

    stream = Stream(text) if text else None
    # Before the prompt is shown: what is wrong with it, or with the options, is said here.
    coming = opened.generate(ids, n_new, **options, **flags)
    console.print(prompt, end="", style="dim", markup=False, highlight=False, soft_wrap=True)
    try:
        for token in coming:
            made.append(token)
            pieces.append(stream.push(token.id) if stream else f" {token.id}")
            console.print(pieces[-1], end="", markup=False, highlight=False, soft_wrap=True)
    finally:
        # Also where the device failed or the user had enough: no character is lost, and what is said next has a line of its own.
        pieces.append(stream.finish() if stream else "")
        console.print(pieces[-1], markup=False, highlight=False, soft_wrap=True)


def _compare(opened, loom, ids, made, options, trace):
    """The same run on the integer model that the image holds."""
    from ..compiler.restore import restore
    from ..driver.verify import Checker
    from ..model.integer_model import IntegerModel

    reference = IntegerModel(*restore(loom, opened.cfg))
    checker = Checker(reference, loom, lanes=opened.cfg.lanes, acc_width=opened.cfg.acc_width, **options)
    for _ in checker.follow(ids, made):
        pass
    if trace:
        checker.compare_trace(opened.trace_records())
    return checker.report
