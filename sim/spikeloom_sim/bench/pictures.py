"""Pictures of the performance page: cycles by command, one token over time, firing rates against theory, the roofline."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from .sweep import theory

#: Kind of a command -> what it does, in the order of a layer.
KINDS = {
    "embed": "row of the embedding", "in": "neurons before Q, K, V", "qkv": "Q, K, V", "attn": "winner-take-all attention",
    "out": "output projection", "mid": "neurons before the feed-forward part", "up": "feed-forward, first half",
    "down": "feed-forward, second half", "final": "neurons before the logits", "logits": "logits", "pick": "next token",
    "sequencer": "token loop",
}
_BLUE, _PALE, _RED, _GREY = "#1b6ca8", "#c9d6df", "#c8553d", "#888888"


def by_kind(labels: Mapping[str, float]) -> Counter:
    """Sums over the layers."""
    out = Counter()
    for label, value in labels.items():
        out[label.rpartition(".")[2]] += value
    return out


def _figure(width, height):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return pyplot, figure, axes


def _save(pyplot, figure, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def draw_commands(path: Path, cycles: Mapping[str, float], adding: Mapping[str, float]) -> None:
    """Bars: cycles of a token by kind of command, adding rows and not."""
    pyplot, figure, axes = _figure(6.4, 3.4)
    cycles, adding = by_kind(cycles), by_kind(adding)
    kinds = [kind for kind in KINDS if kind in cycles][::-1]
    # A command that began early adds rows in cycles that are counted for the one before.
    parts = [min(adding[kind], cycles[kind]) for kind in kinds]
    axes.barh(kinds, parts, color=_BLUE, label="adding weight rows")
    axes.barh(kinds, [cycles[kind] - part for kind, part in zip(kinds, parts)], left=parts, color=_PALE,
              label="waiting, draining, starting")
    axes.set_xlabel("cycles of a token")
    axes.legend(frameon=False, loc="lower right")
    _save(pyplot, figure, path)


#: Unit of a command, from top to bottom of the picture of a token.
_UNITS = {"rows": ("embed", "qkv", "out", "up", "down", "logits"), "neurons": ("in", "mid", "final"), "attention": ("attn",),
          "pick": ("pick",)}


def draw_token(path: Path, commands: Sequence[Mapping]) -> None:
    """Bars over time: each command of one token on its unit, the cycles in which rows are added in darker colour.

    `commands` hold label, start, cycles, adding.
    """
    pyplot, figure, axes = _figure(10, 2.6)
    units = list(_UNITS)
    for number, command in enumerate(commands):
        kind = command["label"].rpartition(".")[2]
        unit = next((name for name, kinds in _UNITS.items() if kind in kinds), "rows")
        at = len(units) - 1 - units.index(unit)
        axes.barh(at, command["cycles"], left=command["start"], color=_PALE, height=0.7)
        axes.barh(at, min(command["adding"], command["cycles"]), left=command["start"], color=_BLUE, height=0.7)
        if unit == "rows" and command["cycles"] > 40:
            axes.text(command["start"] + command["cycles"] / 2, at + 0.45, kind, ha="center", va="bottom", fontsize=6,
                      rotation=90 if number else 0)
    axes.set_yticks(range(len(units)), units[::-1])
    axes.set_ylim(-0.6, len(units) + 0.1)
    axes.set_xlabel("cycles after the token began (dark: adding rows; pale: filling, draining, starting)")
    _save(pyplot, figure, path)


def draw_rates(path: Path, points: Sequence[Mapping]) -> None:
    """Measured cycles at forced rates, the theory's line, and the bound of the machine."""
    pyplot, figure, axes = _figure(5.6, 3.6)
    axes.plot((0, 1), [theory(points, rate) for rate in (0, 1)], color=_GREY, lw=1, label="theory: a line from rest to dense mode")
    rates = [point["rows_spoke"] for point in points]
    axes.plot(rates, [point["cycles_per_token"] for point in points], "o", color=_BLUE, label="measured in RTL")
    axes.plot(rates, [point["machine_bound_per_token"] for point in points], "--", color=_RED, lw=1, label="cycles in which rows are added")
    axes.set_xlabel("share of the rows that speak")
    axes.set_ylabel("cycles per token")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    _save(pyplot, figure, path)


def draw_roofline(path: Path, roofs: Sequence[Mapping], points: Sequence[Mapping]) -> None:
    """Additions per cycle over additions per byte. `roofs`: name, bytes_per_cycle, peak; `points`: name, adds_per_byte,
    adds_per_cycle, dense_equivalent."""
    import numpy as np

    pyplot, figure, axes = _figure(6.4, 4.2)
    x = np.logspace(-1, 2, 200, base=10)
    for number, roof in enumerate(roofs):
        y = np.minimum(x * roof["bytes_per_cycle"], roof["peak"])
        axes.loglog(x, y, color=_GREY, lw=1, ls=("-", "--", ":", "-.")[number % 4], label=roof["name"])
    for number, point in enumerate(points):
        colour = pyplot.get_cmap("tab10")(number % 10)
        axes.loglog(point["adds_per_byte"], point["adds_per_cycle"], "o", color=colour, ms=6, label=point["name"])
        axes.loglog(point["adds_per_byte"], point["dense_equivalent"], "o", mfc="none", mec=colour, ms=8)
        axes.annotate("", (point["adds_per_byte"], point["dense_equivalent"]), (point["adds_per_byte"], point["adds_per_cycle"]),
                      arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6})
    axes.set_xlabel("additions per byte of weights read")
    axes.set_ylabel("additions per cycle\n(rings: what a dense machine would have to add)")
    axes.legend(frameon=False, fontsize=6, loc="lower right")
    axes.set_xlim(0.3, 30)
    axes.set_ylim(1, 1000)
    _save(pyplot, figure, path)
