"""One figure: its value, its goal, what it rests on, the command that makes it; and the file that keeps them all."""

import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Where figures are kept, from the root of a checkout: one object, an entry per key.
RESULT = Path("results/bench.json")
#: Tables behind the figures (ladder, sweep, commands of a token, layers), from which the page is drawn.
DETAILS = Path("results/bench_details.json")
#: Counted in Verilated RTL, computed by the integer or the cycle model, mapped by Yosys, routed by nextpnr.
LABELS = ("[sim]", "[model]", "[synth]", "[route]")


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a key stands for and where it should be."""

    key: str
    what: str
    label: str
    #: "<=" or ">=" and the number, or "=" and numbers that are met within 2%; empty: to be given, no more.
    sense: str = ""
    limit: float | tuple[float, ...] | None = None
    #: Unit, for tables.
    unit: str = ""
    #: Why it falls short of the goal, where it does, and what would close the gap.
    short: str = ""
    #: Made again from the same sources it is the same again: no clock on the wall in it, and no synthesis.
    exact: bool = True

    def __post_init__(self):
        if self.label not in LABELS:
            raise ValueError(f"{self.key}: the label is one of {', '.join(LABELS)}, not {self.label}.")

    @property
    def goal(self) -> str | None:
        """In words: `<= 1,600`."""
        if not self.sense:
            return None
        numbers = self.limit if isinstance(self.limit, tuple) else (self.limit,)
        return f"{self.sense} " + " : ".join(f"{number:,g}" for number in numbers)

    def met(self, value) -> bool | None:
        """Whether a value reaches the goal; None without one, or where there is no value."""
        if not self.sense or value is None:
            return None
        if self.sense == "=":
            return all(abs(got - want) <= 0.02 * want for got, want in zip(value, self.limit, strict=True))
        return {"<=": operator.le, ">=": operator.ge}[self.sense](value, self.limit)


@dataclass
class Figure:
    """A measured value and what goes with it."""

    value: object
    #: Further figures beside it, by name.
    beside: dict = field(default_factory=dict)
    #: What it was measured on: hashes of model, machine and texts.
    of: dict = field(default_factory=dict)
    note: str = ""
    #: Its Verilog is not that of the sources of now.
    stale: bool = False
    #: What else the goal asks for holds; where it does not, the goal is missed whatever the value.
    counts: bool = True


def entry(goal: Goal, figure: Figure, command: str) -> dict:
    """JSON-ready."""
    met = goal.met(figure.value) and figure.counts
    out = {"value": figure.value, "goal": goal.goal, "met": met, "evidence": goal.label, "what": goal.what, "unit": goal.unit,
           "command": command}
    if figure.stale:
        out["stale"] = True
    if met is False and not goal.short:
        raise ValueError(f"{goal.key} misses its goal: say in its Goal why, and what would close the gap.")
    if note := " ".join(part for part in (figure.note, goal.short if met is False else "") if part):
        out["note"] = note
    if figure.beside:
        out["beside"] = figure.beside
    if figure.of:
        out["of"] = figure.of
    return out


def load(path: Path) -> dict:
    """What is on file; empty where nothing is.

    Raises
    ------
    ValueError
        Where the file is damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no results: {error}. Put back the file of the checkout, or remove it and measure again.") from error


def merge(path: Path, entries: Mapping, order: list[str]) -> dict:
    """Put new entries beside those on file, in this order, and write the file."""
    known = load(path) | dict(entries)
    known = {key: known[key] for key in order if key in known}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return known
