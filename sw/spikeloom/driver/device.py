"""One device, synchronously: load an image, make tokens, score or read text. Works on any `transport.Transport`."""

from collections.abc import Iterator

from ..arch.config import NOISE_ENTRIES
from ..arch.numerics import candidates, noise_table
from ..arch.registers import Mode
from .core import Core
from .encoding import Encoding
from .errors import ContextFull, PromptError
from .results import Score, Token

__all__ = ["Device", "Score", "Token"]


class Device(Encoding, Core):
    """A Spikeloom core behind a transport: decoders write (`generate`, `score`), encoders read (`encoding.Encoding`).

    A conversation goes on from call to call until `clear`. Every wait ends: without progress for `deadline_s`, a typed
    error tells what the device was doing. Parameters and errors: `core.Core`.
    """

    def _forget(self):
        #: Tokens of the conversation that the device has yet to read.
        self._pending: list[int] = []
        #: Prompt and tokens of a generation that goes on, and the position it began at.
        self._sequence: list[int] | None = None
        self._before = 0
        self._noise_key = None

    # -- conversation -----------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Prompt tokens that still fit the context."""
        return self.model.context - self.position - len(self._pending)

    def clear(self) -> None:
        """Forget the conversation; a generation that is under way is stopped."""
        if self._sequence is not None and not self._ended:
            self.stop()
            self._settle()
        super().clear()
        self._pending, self._sequence = [], None

    # -- runs -------------------------------------------------------------------------------------------------

    def generate(self, prompt_ids, n_new: int, *, temperature: float = 0.0, top_k: int = 0, seed: int = 0, dense: bool = False,
                 ignore_end: bool = False, trace: bool = False, stop_on_saturation: bool = False, prefill: bool = True) -> Iterator[Token]:
        """Go on with the conversation: read prompt tokens, then make new ones, each yielded as soon as it is known.

        Checks happen at the call, before the first token is asked for. Leaving the iterator early stops the device.
        `reason` tells afterwards why the generation ended.

        Parameters
        ----------
        prompt_ids : sequence of int
            May be empty only where an earlier call left something to go on from.
        n_new : int
            Tokens to make, at least one; fewer when the end token is picked or the context is full.
        temperature : float
            0 is greedy.
        top_k : int
            Candidates of sampling, 1..8; 0 or more than 8 is all.
        dense : bool
            Read every row, silent or not: same tokens, more bytes.
        trace : bool
            Record a checksum per command, see `trace_records`.
        prefill : bool
            Read the prompt in blocks that share fetched rows, where the image has what that takes: same tokens, fewer bytes.

        Raises
        ------
        PromptError, ContextFull, ValueError
            At the call.
        SpikeloomError
            One of its types, when the device fails.
        """
        prompt = self._check_prompt(prompt_ids)
        if not 1 <= n_new < 1 << 16:
            raise ValueError(f"The number of new tokens lies in 1..65535, it is {n_new}.")
        top_k = candidates(top_k)
        self._set_noise(temperature)
        self._set_prefill(prefill)
        if trace:
            self._prepare_trace(min(self.model.context - self.position, len(prompt) + n_new))
        self._sequence, self._before = list(prompt), self.position
        self._run(Mode.GENERATE, prompt, n_new, sample=temperature > 0, top_k=top_k, seed=seed, dense=dense,
                  ignore_end=ignore_end, trace=trace, stop_on_saturation=stop_on_saturation)
        return self._stream(self._sequence)

    def _stream(self, sequence):
        if self._sequence is not sequence:
            return  # another run began, or the conversation was cleared, before anybody asked for a token
        try:
            for record in self._follow():
                sequence.append(int(record["token"]))
                yield self._token(record)
                if self._sequence is not sequence:
                    return  # another run has begun since
        except GeneratorExit:
            if self._sequence is sequence:
                self.stop()
                self._settle()
            raise
        self._settle()

    def _settle(self):
        """Follow an unfinished generation to its end; what the device has not read by then comes before the next prompt."""
        if self._sequence is None:
            return
        if not self._ended:
            self._sequence += [int(record["token"]) for record in self._follow()]
        self._pending = self._sequence[self.position - self._before:]
        self._sequence = None

    def score(self, ids, *, dense: bool = False, trace: bool = False) -> list[Score]:
        """Teacher forced: what the model thinks of each token, given those before; one Score per token but the first.

        Goes on from the conversation, whose last token (if pending) comes first.

        Raises
        ------
        PromptError, ContextFull
            Before anything is sent.
        """
        prompt = self._check_prompt(ids)
        if len(prompt) < 2:
            raise PromptError("Scoring takes at least two tokens.", remedy="Give a longer text.")
        if trace:
            self._prepare_trace(len(prompt))
        self._set_noise(0.0)
        self._run(Mode.SCORE, prompt, 0, dense=dense, trace=trace)
        records = list(self._follow())
        self._pending = []
        return [Score(target, int(r["position"]), int(r["logit"]), int(r["token"]), int(r["best"]))
                for target, r in zip(prompt[1:], records, strict=True)]

    def _check_prompt(self, ids):
        self._check_ready(encoder=False)
        self._settle()
        prompt = self._pending + self._check_tokens(ids)
        if not prompt:
            raise PromptError("The prompt is empty.")
        position = self.position
        if position + len(prompt) > self.model.context:
            raise ContextFull(f"{len(prompt)} tokens after {position} do not fit the context of {self.model.context} positions.")
        return prompt

    def _set_noise(self, temperature):
        key = (temperature, self._card["logit_scale"])
        if temperature == 0 or key == self._noise_key:
            return
        table = noise_table(temperature, self._card["logit_scale"])
        assert len(table) == NOISE_ENTRIES
        self.registers.write_window("noise", (int(v) & 0xFF_FFFF for v in table))
        self._noise_key = key

