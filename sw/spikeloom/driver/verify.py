"""Compares a run of a device with the integer model: every token, and with a trace every command's checksum."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..arch.commands import TRACED, Command, Opcode
from ..arch.layout import Image
from ..arch.numerics import checksum, noise_table, pick
from ..arch.sweeps import Prefill, encode_order, token_order
from .device import Device, Token

#: What an operator wrote, by its label.
Intermediates = Mapping[str, np.ndarray]


class Reference(Protocol):
    """What this module asks of `model.integer_model.IntegerModel`."""

    def step(self, token: int, position: int, *, head: bool = True) -> Intermediates: ...

    def encode(self, tokens: list[int]) -> Sequence[Intermediates]: ...

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

    def add(self, other: "Report") -> None:
        """Count another comparison's in."""
        self.compared += other.compared
        self.mismatches += other.mismatches
        self.first = self.first or other.first
        self.tokens += other.tokens


@dataclass(frozen=True)
class Machine:
    """What the checksums of a machine depend on, and the program that it ran."""

    program: list[Command]
    entry: int
    lanes: int
    acc_width: int
    #: Sweeps over blocks of a prompt, where the program has them, and the model's positions.
    prefill: Prefill | None = None
    context: int = 1 << 16

    @classmethod
    def of(cls, image: Image, *, lanes: int, acc_width: int) -> "Machine":
        """The machine that runs this image."""
        card = image.card
        return cls(image.program, card["entries"]["token"], lanes, acc_width, Prefill.of(card), card["model"]["context"])

    def covered(self, command: Command, trace: Intermediates) -> np.ndarray:
        """The part of an operator's output that a command writes, padded to whole groups."""
        values = trace[command.label]
        start = command["base_group"] * self.lanes if command.opcode == Opcode.LINEAR else 0
        end = start + command["groups"] * self.lanes
        # Channels that pad the vocabulary hold the least logit (`compiler.lower.padded_logit`).
        padded = np.full(max(end, len(values)), -(1 << (self.acc_width - 1)), np.int64)
        padded[:len(values)] = values
        return padded[start:end]

    def compare(self, report: Report, ran: Iterable[tuple[int, int, Intermediates]], records: np.ndarray) -> None:
        """Compare the checksum records of a run with (index of the command, position, trace) in order of execution."""
        expected = [(checksum(self.covered(self.program[index], trace), self.lanes), index, position)
                    for index, position, trace in ran if self.program[index].opcode in TRACED]
        for number, (want, got) in enumerate(zip(expected, records)):
            label = f"checksum {number}, position {want[2]}, command {want[1]} ({self.program[want[1]].label})"
            report.check(want, (int(got["checksum"]), int(got["command"]), int(got["position"])), lambda label=label: label)
        report.check(len(expected), len(records), lambda: "number of checksum records")


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
    prefill : bool
        The prompt is read in blocks where the image has sweeps for them: checksums come in another order.
    sampling
        temperature, top_k and seed, as given to `Device.generate`.
    """

    def __init__(self, reference: Reference, image: Image, *, lanes: int, acc_width: int, temperature: float = 0.0,
                 top_k: int = 0, seed: int = 0, prefill: bool = True):
        self.reference, self.machine = reference, Machine.of(image, lanes=lanes, acc_width=acc_width)
        self._sampling = {}
        if temperature > 0:
            noise = noise_table(temperature, image.card["logit_scale"])
            self._sampling = {"noise": noise, "top_k": top_k, "seed": seed & 0xFFFF_FFFF}
        self.report = Report()
        self._prefill = self.machine.prefill if prefill else None
        self._n_prompt = 0
        self._traces: list[Intermediates] = []
        reference.clear()

    def follow(self, prompt: list[int], tokens: Iterable[Token]) -> Iterator[Token]:
        """Compare each generated token as it comes, and pass it on."""
        self._n_prompt = len(prompt)
        for position, token in enumerate(prompt[:-1]):
            self._traces.append(self.reference.step(token, position, head=False))
        last, position = prompt[-1], len(prompt) - 1
        for token in tokens:
            trace = self.reference.step(last, position)
            self._traces.append(trace)
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
        self.machine.compare(self.report, self._ran(), records)

    def _ran(self):
        machine = self.machine
        for index, position in token_order(machine.program, machine.entry, self._n_prompt, len(self._traces),
                                           prefill=self._prefill, room=machine.context):
            yield index, position, self._traces[position]


def verify(device: Device, reference: Reference, prompt: list[int], n_new: int, *, trace: bool = True, temperature: float = 0.0,
           top_k: int = 0, seed: int = 0, dense: bool = False, ignore_end: bool = True, prefill: bool = True) -> Report:
    """Generate from a cleared context and compare with the integer model.

    Returns
    -------
    Report
        `mismatches` is 0 when device and model agree in every bit that was looked at.
    """
    device.clear()
    sampling = {"temperature": temperature, "top_k": top_k, "seed": seed}
    checker = Checker(reference, device.image, lanes=device.cfg.lanes, acc_width=device.cfg.acc_width, prefill=prefill, **sampling)
    tokens = device.generate(prompt, n_new, dense=dense, ignore_end=ignore_end, trace=trace, prefill=prefill, **sampling)
    for _ in checker.follow(prompt, tokens):
        pass
    if trace:
        checker.compare_trace(device.trace_records())
    return checker.report


def check_encoding(reference: Reference, machine: Machine, ids: list[int], tokens: Sequence[Token],
                   records: np.ndarray | None = None) -> Report:
    """Compare what `Device.encode` gave for a text (and its checksum records) with the integer model."""
    report, traces = Report(tokens=list(tokens)), reference.encode(ids)
    expected = [(position, trace["logits"]) for position, trace in enumerate(traces) if "logits" in trace]
    for (position, logits), token in zip(expected, tokens):
        best, most = pick(logits), int(logits.max())
        report.check((best, position, most, most), (token.id, token.position, token.logit, token.best_logit),
                     lambda position=position: f"position {position} (id, position, logit, best logit)")
    report.check(len(expected), len(tokens), lambda: "number of tokens")
    if records is not None:
        order = encode_order(machine.program, machine.entry, len(ids))
        machine.compare(report, ((index, position, traces[position]) for index, position in order), records)
    return report


def verify_encoding(device: Device, reference: Reference, ids: list[int], *, trace: bool = True, dense: bool = False) -> Report:
    """Encode a text and compare with the integer model.

    Returns
    -------
    Report
        `mismatches` is 0 when device and model agree in every bit that was looked at.
    """
    tokens = device.encode(ids, trace=trace, dense=dense)
    machine = Machine.of(device.image, lanes=device.cfg.lanes, acc_width=device.cfg.acc_width)
    return check_encoding(reference, machine, ids, tokens, device.trace_records() if trace else None)
