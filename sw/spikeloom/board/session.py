"""A device with a model on it, and what one does with it: text, speed, spikes, checks. The same for every transport."""

import time
from collections.abc import Iterator
from pathlib import Path

from ..driver.device import Device, Token
from ..driver.errors import SpikeloomError
from ..driver.text import Stream, Text
from . import golden
from .clock import Clock, measure_clock
from .models import image_of
from .raster import Firing, watch
from .selftest import Outcome, selftest

DEFAULT_MODEL = "stories-260k"
GOLDEN = "selftest.npz"


class Session:
    """A device that writes text.

    Parameters
    ----------
    device : Device
        Owned: `close` closes it, and so does a failure in here.
    folder : Path, optional
        Where the bitstream lies: images and golden vectors are looked for there.
    model : str, path or None
        A model of the package, or a `.loom` file; None: load one later.
    check_clock : bool
        Measure the clock of the fabric first: warn when it is slower than built for, refuse when it is faster.

    Raises
    ------
    ClockTooFast
    """

    def __init__(self, device: Device, folder: Path | None = None, *, model: str | Path | None = DEFAULT_MODEL, check_clock: bool = True):
        #: Everything the driver can do (`spikeloom.driver.device`).
        self.spikeloom = device
        #: What was measured of the clock, or None.
        self.clock: Clock | None = None
        self._folder, self._text, self._model = folder, None, None
        try:
            if check_clock:
                self.clock = measure_clock(device).check()
            if model is not None:
                self.load(model)
        except BaseException:
            device.close()
            raise

    @property
    def _folders(self):
        return [self._folder] if self._folder is not None else []

    def load(self, model: str | Path = DEFAULT_MODEL) -> None:
        """Load a model of the package by name, or a `.loom` file; the conversation is forgotten.

        Raises
        ------
        BadImage, ForeignImage, FitError, ValueError
            When it does not exist or does not fit; what was loaded before is then still there.
        """
        image = image_of(model, self.spikeloom.cfg, *self._folders)
        text = Text(image.sections["tokenizer"].decode()) if "tokenizer" in image.sections else None
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
        device, kept = self.spikeloom, [folder / GOLDEN for folder in self._folders if (folder / GOLDEN).is_file()]
        cases = golden.read(kept[0], device.cfg) if kept else golden.cases(device.cfg)
        outcome = selftest(device, cases)
        if outcome.failed:
            device.reset()
        if self._model is not None:
            self.load(self._model)
        return outcome

    def close(self) -> None:
        """Give the buffers back; the bitstream stays."""
        self.spikeloom.close()
