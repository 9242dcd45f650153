"""Golden vectors replayed on a device, operator by operator; the first difference is named to the channel."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ..arch.commands import Attention, Neuron, Opcode, Sink
from ..driver.device import Device
from ..driver.errors import SpikeloomError
from .dumps import places
from .golden import Golden


@dataclass
class Outcome:
    """What a self test found."""

    #: Operator -> [values compared, values that differ].
    operators: dict[str, list[int]] = field(default_factory=dict)
    #: The first difference or failure, in words; empty: none.
    first: str = ""
    #: The device ended the test with an error.
    failed: bool = False

    @property
    def passed(self) -> bool:
        """Everything was compared, and all of it is equal."""
        return not self.failed and bool(self.operators) and not any(differ for _, differ in self.operators.values())

    def count(self, operator: str, equal: bool) -> None:
        """One comparison."""
        line = self.operators.setdefault(operator, [0, 0])
        line[0] += 1
        line[1] += not equal

    def __str__(self) -> str:
        lines = [f"{name:20} {compared:6} compared  {differ} differ" for name, (compared, differ) in self.operators.items()]
        return "\n".join([*lines, self.first or "No difference."])


def selftest(device: Device, golden: Iterable[Golden]) -> Outcome:
    """Run all cases; a difference does not end the test, an error of the device does.

    The device's image is replaced; load the model again afterwards.
    """
    outcome = Outcome()
    for case in golden:
        try:
            _run(device, case, outcome)
        except SpikeloomError as error:
            outcome.failed = True
            outcome.first = outcome.first or f"{case.name}: {type(error).__name__}: {error}"
            break
    return outcome


def operator(command) -> str:
    """Which operator a command is an instance of."""
    if command.opcode == Opcode.LINEAR:
        return f"LINEAR {Sink(command['sink']).name}"
    if command.opcode == Opcode.ATTEND:
        return f"ATTEND {Attention(command['attention']).name}"
    if command.opcode == Opcode.FIRE:
        return f"FIRE {Neuron(command['neuron']).name}"
    return command.opcode.name


def _run(device, case, outcome):
    device.load(case.image)
    if case.encodes:
        made = device.encode(case.prompt, trace=True)
    else:
        temperature, top_k, seed = case.sampling
        made = list(device.generate(case.prompt, len(case.tokens), temperature=temperature, top_k=top_k, seed=seed, ignore_end=True,
                                    trace=True))
    program = case.image.program
    records, words = device.trace_records(), device.dump_words()
    for number, want in enumerate(case.records):
        got = records[number] if number < len(records) else None
        command = program[want["command"]]
        equal = got is not None and got == want
        outcome.count(operator(command), equal)
        if not equal and not outcome.first:
            outcome.first = f"{case.name}: {_difference(case, want, got, words, device.cfg.lanes)}"
    for number, want in enumerate(case.tokens):
        token = made[number] if number < len(made) else None
        got = token and (token.id, token.position, token.logit, token.best_logit)
        outcome.count("PICK", got == tuple(want))
        if got != tuple(want) and not outcome.first:
            outcome.first = f"{case.name}: token {number} (id, position, logit, best logit): expected {tuple(map(int, want))}, got {got}"


def _difference(case, want, got, words, lanes):
    """One differing checksum in words: operator, position, and the first channel of its dump that differs."""
    command = case.image.program[want["command"]]
    where = f"command {want['command']} ({operator(command)}, {command.label}) at position {want['position']}"
    if got is None:
        return f"{where}: no checksum came; the run ended before."
    if (got["command"], got["position"]) != (want["command"], want["position"]):
        return f"{where}: the device ran command {got['command']} at position {got['position']} instead."
    channel = _channel(case, want, words, lanes)
    text = "the dump shows no difference" if channel is None else f"channel {channel[0]}: expected {channel[1]}, got {channel[2]}"
    return f"{where}: checksum {got['checksum']:#010x} in place of {want['checksum']:#010x}; {text}."


def _channel(case, want, words, lanes):
    """(channel, expected, got) of the first difference in the dump of an operator, or None."""
    label, position = case.image.program[want["command"]].label, want["position"]
    ranges = [(first, end) for here, dumped, first, end in places(case.image, len(case.prompt), case.n_made, lanes)
              if (here, dumped) == (position, label)]
    if not ranges:
        return None
    start, end = ranges[0]
    got = np.zeros(end - start, np.int64)
    there = words[start:end]
    got[:len(there)] = there
    differ = np.flatnonzero(case.known[start:end] & (case.words[start:end] != got))
    if not len(differ):
        return None
    return int(differ[0]), int(case.words[start + differ[0]]), int(got[differ[0]])
