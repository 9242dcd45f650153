"""Winner-take-all: the K best positions of every head, best first."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.config import AcceleratorConfig

from .comparator_tree import ComparatorTree
from .score_unit import key_width


def entry_layout(cfg: AcceleratorConfig) -> data.StructLayout:
    """One kept score: the `row` breaks ties below the `key`."""
    return data.StructLayout({"row": exact_log2(cfg.max_context // cfg.score_banks), "key": key_width(cfg)})


def winner_layout(cfg: AcceleratorConfig) -> data.StructLayout:
    """One winner: its `position`, and whether there is one (`found`)."""
    return data.StructLayout({"position": exact_log2(cfg.max_context), "found": 1})


class TopKList(wiring.Component):
    """The `depth` best of the keys that pass, in order, kept by insertion.

    Rows arrive in increasing order; a newcomer goes before its equals, so that the most recent wins. A key of 0 is as good
    as none: it only ever goes before other zeros.

    Parameters
    ----------
    cfg : AcceleratorConfig
        Shape of the machine.
    depth : int
        Scores kept.

    Members
    -------
    clear : In(1)
        Forget all; goes before `pop` and `insert`.
    insert : In(1)
        `key` of row `row` passes by.
    key : In(key_width(cfg))
        Of the position; larger is better, 0: it does not compete.
    row : In(range(max_context // score_banks))
        Row of the position.
    pop : In(1)
        Drop the best; goes before `insert`.
    best : Out(entry_layout(cfg))
        The best kept key; 0 when none is left.

    Latency
    -------
    One cycle from `insert`, `pop` or `clear` to `best`; one of them per cycle.

    Reference
    ---------
    `arch.numerics.winners` over the positions of one bank.
    """

    #: Cycles until `best` follows.
    latency = 1

    def __init__(self, *, cfg: AcceleratorConfig, depth: int):
        if depth < 1:
            raise ValueError(f"A list keeps at least one key; depth is {depth}.")
        self.cfg = cfg
        self.depth = depth
        super().__init__({
            "clear": In(1),
            "insert": In(1),
            "key": In(key_width(cfg)),
            "row": In(exact_log2(cfg.max_context // cfg.score_banks)),
            "pop": In(1),
            "best": Out(entry_layout(cfg)),
        })

    def elaborate(self, platform):
        m = Module()
        entries = [Signal(entry_layout(self.cfg), name=f"entry_{rank}") for rank in range(self.depth)]
        beats = [Signal(name=f"beats_{rank}") for rank in range(self.depth)]
        newcomer = Signal(entry_layout(self.cfg))

        m.d.comb += [
            newcomer.key.eq(self.key),
            newcomer.row.eq(self.row),
            self.best.eq(entries[0]),
        ]
        m.d.comb += [beat.eq(self.key >= entry.key) for beat, entry in zip(beats, entries)]
        with m.If(self.clear):
            m.d.sync += [Value.cast(entry).eq(0) for entry in entries]
        with m.Elif(self.pop):
            m.d.sync += [entry.eq(after) for entry, after in zip(entries, entries[1:])]
            m.d.sync += Value.cast(entries[-1]).eq(0)
        with m.Elif(self.insert):
            for rank, entry in enumerate(entries):
                with m.If(beats[rank]):
                    m.d.sync += entry.eq(Mux(beats[rank - 1], entries[rank - 1], newcomer) if rank else newcomer)
        return m


class WinnerTree(wiring.Component):
    """Keeps the best keys of each head slot per bank while rows pass, then pops the best of all banks once per cycle.

    What competes is (key, row, bank): the largest wins; of equal keys the most recent position. A slot without a
    candidate left pops winners that are not `found`.

    Parameters
    ----------
    cfg : AcceleratorConfig
        Shape of the machine.

    Members
    -------
    clear : In(1)
        Forget all keys: before the first row of a query.
    i_valid : In(1)
        A row of keys passes by. Rows come in increasing order.
    i_row : In(range(max_context // score_banks))
        Which row.
    i_keys : In(ArrayLayout(ArrayLayout(key_width(cfg), score_banks), segments))
        Its keys per slot and bank; 0: does not compete.
    pop : In(1)
        Take the best of every slot; from the cycle after the last row, once per rank, at most `k_max` times.
    o_valid : Out(1)
        `o_winners` are present (one cycle after `pop`).
    o_winners : Out(ArrayLayout(winner_layout(cfg), segments))
        Winner per slot.

    Latency
    -------
    One cycle from `pop` to `o_winners`; one rank per cycle.

    Reference
    ---------
    `arch.numerics.winners`.
    """

    #: Cycles from `pop` to `o_winners`.
    latency = 1

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        super().__init__({
            "clear": In(1),
            "i_valid": In(1),
            "i_row": In(exact_log2(cfg.max_context // cfg.score_banks)),
            "i_keys": In(data.ArrayLayout(data.ArrayLayout(key_width(cfg), cfg.score_banks), cfg.segments)),
            "pop": In(1),
            "o_valid": Out(1),
            "o_winners": Out(data.ArrayLayout(winner_layout(cfg), cfg.segments)),
        })

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o_valid.eq(self.pop)
        for slot in range(self.cfg.segments):
            self._build_slot(m, slot)
        return m

    def _build_slot(self, m, slot):
        cfg = self.cfg
        m.submodules[f"tree_{slot}"] = tree = ComparatorTree(key=entry_layout(cfg), n=cfg.score_banks, ties="high")
        for bank in range(cfg.score_banks):
            m.submodules[f"list_{slot}_{bank}"] = scores = TopKList(cfg=cfg, depth=cfg.k_max)
            m.d.comb += [
                scores.clear.eq(self.clear),
                scores.insert.eq(self.i_valid),
                scores.row.eq(self.i_row),
                scores.key.eq(self.i_keys[slot][bank]),
                scores.pop.eq(self.pop & (tree.o_index == bank)),
                tree.i[bank].eq(scores.best),
            ]
        winner = self.o_winners[slot]
        with m.If(self.pop):
            m.d.sync += [winner.position.eq(Cat(tree.o_index, tree.o.row)), winner.found.eq(tree.o.key.any())]
