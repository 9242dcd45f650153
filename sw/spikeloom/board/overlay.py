"""`SpikeloomOverlay("spikeloom.bit").generate("Once upon a time")`: the core as users of pynq expect it.

Importing this module registers the driver with pynq, so that any `pynq.Overlay` with the core in it finds `SpikeloomCore`.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pynq

from ..arch.config import AcceleratorConfig
from ..arch.manifest import read_manifest
from ..driver.device import Device, Token
from ..driver.errors import SpikeloomError
from ..driver.pynq_backend import PynqTransport
from ..driver.recording import Recorder
from ..driver.text import Stream
from . import golden
from .boards import INTERRUPT, VLNV, board
from .clock import Clock, measure_clock
from .models import image_of
from .raster import Firing, watch
from .selftest import Outcome, selftest
from .text import open_text

DEFAULT_MODEL = "stories-260k"
MANIFEST, GOLDEN = "manifest.json", "selftest.npz"
#: Folder of bitstreams, one folder per board; else `bitstreams` in the current folder or one above it.
BITSTREAMS_VARIABLE = "SPIKELOOM_BITSTREAMS"


class BitstreamMissing(SpikeloomError, FileNotFoundError):
    """There is no bitstream, or it lacks a file that belongs beside it."""

    remedy = "Build it with `make bitstream BOARD=...`, or give the path of a .bit file that has its .hwh and manifest.json beside it."


class SpikeloomCore(pynq.DefaultIP):
    """The core, wherever pynq finds it in an overlay; `open` gives the device."""

    bindto = [VLNV]

    def open(self, cfg: AcceleratorConfig, *, download=None, record: Path | None = None, deadline_s: float = 60.0) -> Device:
        """The device of this core.

        Parameters
        ----------
        cfg : AcceleratorConfig
            What the bitstream was built from.
        download : callable, optional
            Loads the bitstream again.
        record : Path, optional
            Write every call of the driver to this file.

        Raises
        ------
        ForeignBitstream
            When the core is not what `cfg` says.
        """
        transport = PynqTransport(self.mmio, device=self.device, interrupt=getattr(self, INTERRUPT, None), download=download,
                                  address_width=cfg.address_width)
        if record is not None:
            transport = Recorder(transport, record, {"machine": cfg.name, "pynq": pynq.__version__})
        try:
            return Device(transport, cfg, deadline_s=deadline_s)
        except BaseException:
            transport.close()
            raise


def find_bitstream(board_name: str | None = None) -> Path:
    """The bitstream of a board: by default the one that pynq says this is (variable BOARD).

    Raises
    ------
    BitstreamMissing
    """
    name = board_name or os.environ.get("BOARD", "")
    if not name:
        raise BitstreamMissing("Which board this is, is not known: the variable BOARD is not set.")
    folder = board(name).name
    roots = [Path(os.environ[BITSTREAMS_VARIABLE])] if BITSTREAMS_VARIABLE in os.environ else [Path("bitstreams"), Path("../bitstreams")]
    for root in roots:
        if found := sorted((root / folder).glob("*.bit")):
            return found[0]
    raise BitstreamMissing(f"There is no bitstream of {folder} in {' or '.join(map(str, roots))}.")


class SpikeloomOverlay(pynq.Overlay):
    """A loaded bitstream with a model on it.

    Parameters
    ----------
    bitfile : path, optional
        A `.bit` with its `.hwh` and `manifest.json` beside it; by default that of this board (`find_bitstream`).
    model : str, path or None
        A model of the package, or a `.loom` file; None: load one later.
    check_clock : bool
        Measure the clock of the fabric first: warn when it is slower than built for, refuse when it is faster.
    record : path, optional
        Write every call of the driver to this file (`driver.recording`).
    deadline_s : float
        Longest time between two signs of life.
    options
        For `pynq.Overlay`.

    Raises
    ------
    BitstreamMissing, ManifestError, ForeignBitstream, ClockTooFast
        Before anything runs.
    """

    def __init__(self, bitfile: str | Path | None = None, *, model: str | Path | None = DEFAULT_MODEL, check_clock: bool = True,
                 record: Path | None = None, deadline_s: float = 60.0, **options):
        path = Path(bitfile) if bitfile is not None else find_bitstream()
        for needed in (path, path.with_suffix(".hwh"), path.with_name(MANIFEST)):
            if not needed.is_file():
                raise BitstreamMissing(f"{needed} does not exist.")
        cfg = read_manifest(path.with_name(MANIFEST))
        super().__init__(str(path.resolve()), **options)
        self._folder = path.parent
        core = self._core()
        #: The device: everything the driver can do (`spikeloom.driver.device`).
        self.spikeloom: Device = core.open(cfg, download=self.download, record=record, deadline_s=deadline_s)
        #: What was measured of the clock, or None.
        self.clock: Clock | None = None
        self._text = self._model = None
        try:
            if check_clock:
                self.clock = measure_clock(self.spikeloom).check()
            if model is not None:
                self.load(model)
        except BaseException:
            self.spikeloom.close()
            raise

    def _core(self):
        names = [name for name, entry in self.ip_dict.items() if entry["type"] == VLNV]
        if len(names) != 1:
            raise BitstreamMissing(f"The description beside the bitstream has {len(names)} cores of type {VLNV}, not one.",
                                   remedy="Use the .hwh that was made with this bitstream.")
        core = self
        for part in names[0].split("/"):
            core = getattr(core, part)
        return core

    def load(self, model: str | Path = DEFAULT_MODEL) -> None:
        """Load a model of the package by name, or a `.loom` file; the conversation is forgotten.

        Raises
        ------
        BadImage, ForeignImage, FitError, ValueError
            When it does not exist or does not fit; what was loaded before is then still there.
        """
        image = image_of(model, self.spikeloom.cfg, self._folder)
        text = open_text(image.sections["tokenizer"].decode()) if "tokenizer" in image.sections else None
        self.spikeloom.load(image)
        self._text, self._model = text, model

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, the begin token first where a text begins. Raises PromptError."""
        device = self.spikeloom
        if device.model is None or self._text is None:
            raise SpikeloomError("No model with a tokenizer is loaded.", remedy="Call load() first.")
        begin = [] if device.position else [device.model.end_token]
        return begin + (self._text.encode(text) if text else [])

    def generate(self, prompt: str = "", tokens: int = 100, *, temperature: float = 0.0, top_k: int = 0, seed: int = 0,
                 ignore_end: bool = False, clear: bool = True) -> Iterator[str]:
        """Text after a prompt, in whole characters, as it is made.

        The prompt is checked at the call; the text comes as the iterator is read. Leaving it early stops the device.

        Parameters
        ----------
        prompt : str
            May be empty.
        tokens : int
            Most tokens to make.
        temperature, top_k, seed
            0 is greedy; 1 to 8 candidates, 0 all; any integer.
        ignore_end : bool
            Go on after the end token.
        clear : bool
            Begin a new text; else go on with the conversation.

        Raises
        ------
        PromptError, ContextFull, ValueError
            At the call.
        """
        if clear:
            self.spikeloom.clear()
        made = self.spikeloom.generate(self.encode(prompt), tokens, temperature=temperature, top_k=top_k, seed=seed, ignore_end=ignore_end)
        return Stream(self._text).over(token.id for token in made)

    def tokens(self, prompt: str = "", tokens: int = 100, **options) -> Iterator[Token]:
        """Tokens of a new text with their logits; options as for `Device.generate`."""
        self.spikeloom.clear()
        return self.spikeloom.generate(self.encode(prompt), tokens, **options)

    def decode(self, ids) -> str:
        """Text of token ids."""
        return self._text.decode(ids)

    def throughput_test(self, tokens: int = 100, prompt: str = "Once upon a time") -> dict[str, float]:
        """Tokens per second, by the wall and by the device's own counters.

        Returns
        -------
        dict
            tokens made and processed; tokens_per_s by the wall, the host's part included; cycles_per_token and
            device_tokens_per_s by counter and clock (measured, else as built for); rows_skipped, the share of weight rows that
            silent neurons spared; bytes_per_token of weights.
        """
        device = self.spikeloom
        now = getattr(device.transport, "now", time.perf_counter)
        device.clear_counters()
        began = now()
        made = sum(1 for _ in self.tokens(prompt, tokens, ignore_end=True))
        seconds = now() - began
        counters = device.counters()
        cycles = counters["cycles"] / max(1, counters["tokens"])
        mhz = self.clock.mhz if self.clock else device.cfg.clock_mhz
        rows = counters["rows_wanted"] + counters["rows_skipped"]
        return {"made": made, "processed": counters["tokens"], "tokens_per_s": made / max(seconds, 1e-9), "cycles_per_token": cycles,
                "device_tokens_per_s": mhz * 1e6 / max(cycles, 1e-9), "rows_skipped": counters["rows_skipped"] / max(1, rows),
                "bytes_per_token": counters["bytes_rows"] / max(1, counters["tokens"])}

    def watch(self, prompt: str = "Once upon a time", tokens: int = 50) -> Firing:
        """Every spike of a text in the making; shows as a raster in a notebook. The model is loaded again afterwards."""
        device, model = self.spikeloom, self._model
        if model is None or str(model).endswith(".loom"):
            raise SpikeloomError("Spikes are watched on a model of the package.", remedy=f'Call load("{DEFAULT_MODEL}") first.')
        device.clear()
        try:
            return watch(device, model, self.encode(prompt), tokens)
        finally:
            self.load(model)

    def selftest(self) -> Outcome:
        """Replay golden vectors, operator by operator; then load the model again.

        They come from `selftest.npz` beside the bitstream; without it they are computed here, which takes minutes on a small
        processor.
        """
        device, kept = self.spikeloom, self._folder / GOLDEN
        cases = golden.read(kept, device.cfg) if kept.is_file() else golden.cases(device.cfg)
        outcome = selftest(device, cases)
        if outcome.failed:
            device.reset()
        if self._model is not None:
            self.load(self._model)
        return outcome

    def close(self) -> None:
        """Give the buffers back; the bitstream stays."""
        self.spikeloom.close()
