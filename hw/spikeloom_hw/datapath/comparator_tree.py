"""The largest of n keys by a tree of comparators: winner-take-all, and argmax of logits."""

from amaranth.hdl import Const, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from spikeloom.arch.config import bits_for, ceil_div


class ComparatorTree(wiring.Component):
    """Picks the largest of `n` keys, and says which one it was.

    A key that is a structure is compared as one unsigned number, its last field first: put the field that decides
    (a valid bit, then the score) last. Signed scores inside a structure are stored with their sign bit inverted. It
    does not know which keys are valid, and it cannot stall.

    Parameters
    ----------
    key : ShapeLike
        Shape of a key: signed, unsigned or a structure.
    n : int
        Number of keys, at least 1.
    levels_per_stage : int
        A register after each so many levels of comparators and after the last; 0: combinational.
    ties : str
        Which of equal keys is the largest: "low", the one of the lowest index, or "high".

    Members
    -------
    i : In(ArrayLayout(key, n))
        The keys.
    o : Out(key)
        The largest.
    o_index : Out(range(n))
        Its index (one bit where n is 1).

    Latency
    -------
    ``ceil(ceil(log2(n)) / levels_per_stage)`` cycles, 0 when combinational; one set of keys per cycle.

    Reference
    ---------
    ``numpy.argmax`` (ties "low").
    """

    def __init__(self, *, key, n: int, levels_per_stage: int = 0, ties: str = "low"):
        if n < 1:
            raise ValueError(f"A comparator tree needs at least one key; n is {n}.")
        if ties not in ("low", "high"):
            raise ValueError(f"ties must be 'low' or 'high', it is {ties!r}.")
        if levels_per_stage < 0:
            raise ValueError("levels_per_stage must not be negative.")
        self.key = key
        self.n = n
        self.levels = (n - 1).bit_length()
        self.levels_per_stage = levels_per_stage
        self.ties = ties
        super().__init__({
            "i": In(data.ArrayLayout(key, n)),
            "o": Out(key),
            "o_index": Out(bits_for(n - 1)),
        })

    @staticmethod
    def latency_of(*, n: int, levels_per_stage: int) -> int:
        """Cycles of a tree over n keys."""
        return ceil_div((n - 1).bit_length(), levels_per_stage) if levels_per_stage else 0

    @property
    def latency(self) -> int:
        """Cycles from keys to the largest."""
        return self.latency_of(n=self.n, levels_per_stage=self.levels_per_stage)

    def elaborate(self, platform):
        m = Module()
        row = [(self._number(self.i[k]), Const(k, len(self.o_index))) for k in range(self.n)]
        for level in range(1, self.levels + 1):
            row = self._build_level(m, row, level)
        (best, index), = row
        m.d.comb += [Value.cast(self.o).eq(best), self.o_index.eq(index)]
        return m

    def _number(self, key):
        value = Value.cast(key)
        return value.as_signed() if Shape.cast(self.key).signed else value

    def _build_level(self, m, row, level):
        """Halve the row; the odd one out passes."""
        stage = self.levels_per_stage
        domain = m.d.sync if stage and (level % stage == 0 or level == self.levels) else m.d.comb
        out = []
        for pair in range(ceil_div(len(row), 2)):
            low = row[2 * pair]
            high = row[2 * pair + 1] if 2 * pair + 1 < len(row) else None
            best = Signal(Shape.cast(self.key), name=f"best_{level}_{pair}")
            index = Signal(len(self.o_index), name=f"index_{level}_{pair}")
            if high is None:
                domain += [best.eq(low[0]), index.eq(low[1])]
            else:
                second = Signal(name=f"second_{level}_{pair}")
                m.d.comb += second.eq(high[0] > low[0] if self.ties == "low" else high[0] >= low[0])
                domain += [best.eq(Mux(second, high[0], low[0])), index.eq(Mux(second, high[1], low[1]))]
            out.append((best, index))
        return out
