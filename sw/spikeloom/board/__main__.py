"""`python -m spikeloom.board generate "Once upon a time"`: a board from the command line, with numpy and pynq alone."""

import argparse
import sys
from pathlib import Path

from ..arch.config import FitError
from ..arch.manifest import ManifestError, read_manifest, write_manifest
from ..arch.presets import PRESETS, preset
from ..driver.device import Device
from ..driver.errors import SpikeloomError
from ..driver.recording import Recorder, Replay
from ..driver.uio_backend import UioTransport
from .boards import BOARDS, board
from .golden import BadGolden, cases, write
from .hwh import write_hwh
from .session import DEFAULT_MODEL, GOLDEN, Session

DIFFERS, FAILED = 1, 3


def open_session(arguments: argparse.Namespace, model: str | None) -> Session:
    """The board that the arguments name: by pynq, by UIO, or a recording of one."""
    if arguments.uio is None and arguments.replay is None:
        from .overlay import SpikeloomOverlay

        return SpikeloomOverlay(arguments.bitstream, model=model, check_clock=not arguments.any_clock, record=arguments.record)
    if arguments.manifest is None:
        raise ManifestError("With --uio or --replay, give --manifest: the manifest.json of the bitstream.")
    cfg = read_manifest(arguments.manifest)
    if arguments.replay is not None:
        transport = Replay(arguments.replay)
    else:
        transport = UioTransport.from_uio(arguments.uio, arguments.memory)
    if arguments.record is not None:
        transport = Recorder(transport, arguments.record, {"machine": cfg.name})
    return Session(Device(transport, cfg), arguments.manifest.parent, model=model, check_clock=not arguments.any_clock)


def generate(arguments) -> int:
    """Write a text."""
    session = open_session(arguments, arguments.model)
    print(arguments.prompt, end="", flush=True)
    for piece in session.generate(arguments.prompt, arguments.tokens, temperature=arguments.temperature, top_k=arguments.top_k,
                                  seed=arguments.seed):
        print(piece, end="", flush=True)
    print()
    session.close()
    return 0


def bench(arguments) -> int:
    """Measure clock and speed."""
    session = open_session(arguments, arguments.model)
    print(session.clock or "clock not measured")
    for name, value in session.throughput_test(arguments.tokens).items():
        print(f"{name:20} {value:,.2f}")
    session.close()
    return 0


def selftest(arguments) -> int:
    """Replay golden vectors."""
    session = open_session(arguments, None)
    outcome = session.selftest()
    print(session.clock or "clock not measured", outcome, sep="\n")
    session.close()
    return 0 if outcome.passed else DIFFERS


def files(arguments) -> int:
    """Write what lies beside a bitstream: manifest, description (.hwh) and golden vectors."""
    cfg, folder = preset(arguments.preset or board(arguments.board).preset), arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(cfg, folder / "manifest.json")
    write_hwh(folder / f"{arguments.name}.hwh", board(arguments.board), cfg)
    write(folder / GOLDEN, list(cases(cfg)))
    print(f"manifest.json, {arguments.name}.hwh and {GOLDEN} written to {folder}.")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(prog="python -m spikeloom.board", description=__doc__)
    commands = whole.add_subparsers(required=True)
    opening = argparse.ArgumentParser(add_help=False)
    opening.add_argument("--bitstream", type=Path, help="a .bit with its .hwh and manifest.json beside it; by default this board's")
    opening.add_argument("--uio", metavar="NAME", help="without pynq: name of the core's UIO device; the bitstream is loaded already")
    opening.add_argument("--memory", default="udmabuf0", help="with --uio: name of the u-dma-buf")
    opening.add_argument("--replay", type=Path, help="instead of a board: a file of --record, made by the same command")
    opening.add_argument("--manifest", type=Path, help="with --uio and --replay: the bitstream's manifest.json")
    opening.add_argument("--any-clock", action="store_true", help="do not measure the clock of the fabric")
    opening.add_argument("--record", type=Path, help="write every call of the driver to this file")

    def command(run, *parents):
        sub = commands.add_parser(run.__name__, parents=list(parents), help=run.__doc__)
        sub.set_defaults(run=run)
        return sub

    writing, measuring = command(generate, opening), command(bench, opening)
    writing.add_argument("prompt", nargs="?", default="Once upon a time")
    writing.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    writing.add_argument("--top-k", type=int, default=0, help="candidates of sampling, 1 to 8; 0: all")
    writing.add_argument("--seed", type=int, default=0)
    for sub in (writing, measuring):
        sub.add_argument("--tokens", type=int, default=100)
        sub.add_argument("--model", default=DEFAULT_MODEL, help="a model of the package, or a .loom file")
    command(selftest, opening)
    sub = command(files)
    sub.add_argument("board", choices=BOARDS)
    sub.add_argument("--preset", choices=PRESETS, help="by default the board's")
    sub.add_argument("--name", default="spikeloom", help="stem of the bitstream's file")
    sub.add_argument("--output", type=Path, default=Path("."), help="folder")
    return whole


def main(words: list[str] | None = None) -> int:
    """Run a command; errors that it means are one message."""
    arguments = parser().parse_args(words)
    try:
        return arguments.run(arguments)
    except (SpikeloomError, ManifestError, BadGolden, FitError, ValueError, OSError, MemoryError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return FAILED
    except ModuleNotFoundError as error:
        if error.name != "pynq":
            raise
        print('pynq is not installed; get it on the board with: pip install "spikeloom[board]"', file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
