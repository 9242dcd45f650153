"""Compares a run of a device with the integer model: every token, and with a trace every command's checksum."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..arch.commands import TRACED, Command, Opcode
from ..arch.layout import Image
from ..arch.numerics import checksum, noise_table, pick
from .device import Device, Token


class Reference(Protocol):
    """What this module asks of `model.integer_model.IntegerModel`."""

    def step(self, token: int, position: int, *, head: bool = True) -> Mapping[str, np.ndarray]: ...

    def clear(self) -> None: ...


@dataclass
class Report:
    """Outcome of a comparison."""

    #: Tokens, logits and checksums compared, and how many of them differed.
    compared: int = 0
    mismatches: int = 0
    #: The first difference, in words; empty: none.
    first: str = ""
    tokens: list[Token] = field(default_factory=list)

    def check(self, expected, got, where: Callable[[], str]) -> None:
        """Count one comparison."""
        self.compared += 1
        if expected != got:
            self.mismatches += 1
            self.first = self.first or f"{where()}: expected {expected}, got {got}"


def covered(command: Command, values: np.ndarray, lanes: int, fill: int) -> np.ndarray:
    """The part of an operator's output that a command writes, padded with `fill` to whole groups."""
    start = command["base_group"] * lanes if command.opcode == Opcode.LINEAR else 0
    end = start + command["groups"] * lanes
    padded = np.full(max(end, len(values)), fill, np.int64)
    padded[:len(values)] = values
    return padded[start:end]


class Checker:
    """Follows one conversation on the integer model, token by token.

    Parameters
    ----------
    reference : Reference
        Cleared here.
    image : Image
        What the device runs.
    lanes, acc_width : int
        Of the machine.
    sampling
        temperature, top_k and seed, as given to `Device.generate`.
    """

    def __init__(self, reference: Reference, image: Image, *, lanes: int, acc_width: int, temperature: float = 0.0,
                 top_k: int = 0, seed: int = 0):
        self.reference, self.program, self.lanes = reference, image.program, lanes
        # Channels that pad the vocabulary hold the least logit (`compiler.lower.padded_logit`).
        self._padding = -(1 << (acc_width - 1))
        self._sampling = {}
        if temperature > 0:
            noise = noise_table(temperature, image.card["logit_scale"])
            self._sampling = {"noise": noise, "top_k": top_k, "seed": seed & 0xFFFF_FFFF}
        self._first = next(i for i, c in enumerate(self.program) if c.opcode == Opcode.EMBED)
        self.report = Report()
        self._traces: list[tuple[Mapping[str, np.ndarray], bool]] = []
        reference.clear()

    def follow(self, prompt: list[int], tokens: Iterable[Token]) -> Iterator[Token]:
        """Compare each generated token as it comes, and pass it on."""
        for position, token in enumerate(prompt[:-1]):
            self._traces.append((self.reference.step(token, position, head=False), False))
        last, position = prompt[-1], len(prompt) - 1
        for token in tokens:
            trace = self.reference.step(last, position)
            self._traces.append((trace, True))
            logits = trace["logits"]
            expected = pick(logits, position=position, **self._sampling)
            got = (token.id, token.position, token.logit, token.best_logit)
            self.report.check((expected, position, int(logits[expected]), int(logits.max())), got,
                              lambda: f"token {len(self.report.tokens)} (id, position, logit, best logit)")
            self.report.tokens.append(token)
            # Follow the device, so that one difference is not counted again at every later token.
            last, position = token.id, position + 1
            yield token

    def compare_trace(self, records: np.ndarray) -> None:
        """Compare the checksum records of the same run (`Device.trace_records`)."""
        expected = list(self._expected())
        for number, (want, got) in enumerate(zip(expected, records)):
            label = f"checksum {number}, position {want[2]}, command {want[1]} ({self.program[want[1]].label})"
            self.report.check(want, (int(got["checksum"]), int(got["command"]), int(got["position"])), lambda label=label: label)
        self.report.check(len(expected), len(records), lambda: "number of checksum records")

    def _expected(self):
        for position, (trace, head) in enumerate(self._traces):
            for index in range(self._first, len(self.program)):
                command = self.program[index]
                if command.opcode not in TRACED or command["head"] and not head:
                    continue
                values = covered(command, trace[command.label], self.lanes, self._padding)
                yield checksum(values, self.lanes), index, position


def verify(device: Device, reference: Reference, prompt: list[int], n_new: int, *, trace: bool = True, temperature: float = 0.0,
           top_k: int = 0, seed: int = 0, dense: bool = False, ignore_end: bool = True) -> Report:
    """Generate from a cleared context and compare with the integer model.

    Returns
    -------
    Report
        `mismatches` is 0 when device and model agree in every bit that was looked at.
    """
    device.clear()
    sampling = {"temperature": temperature, "top_k": top_k, "seed": seed}
    checker = Checker(reference, device.image, lanes=device.cfg.lanes, acc_width=device.cfg.acc_width, **sampling)
    tokens = device.generate(prompt, n_new, dense=dense, ignore_end=ignore_end, trace=trace, **sampling)
    for _ in checker.follow(prompt, tokens):
        pass
    if trace:
        checker.compare_trace(device.trace_records())
    return checker.report
