"""The grid of processing elements: adds the weights of every event to the sums of its tile."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from spikeloom.arch.config import MAX_TILES, AcceleratorConfig, bits_for

from ..layouts import TILE_WIDTH, WEIGHT_WIDTH, drain_layout, weights_layout
from ..levels import magnitude
from ..lib.arith import adder_tree
from ..lib.stream import Queue
from .pe import SLOT_WIDTH, ProcessingElement, level_terms, terms_layout


class SpikeEngine(wiring.Component):
    """Grid of `rows` x `cols` accumulate-only elements: every event adds level x weight to the sums of its bank and tile.

    A tile that was never added to since its `release` reads as zero. Sums do not overflow: the compiler proves it. A marker, or
    an event that closes its tile, becomes a request to drain, in order, when the last sum of its tile has landed. Who starts a
    command on a bank has released its tiles before.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    i : In(stream.Signature(weights_layout(cfg)))
        Events with their weights, and markers. Levels as `levels` codes them.
    o_drain : Out(stream.Signature(drain_layout()))
        Complete tiles.
    r_bank : In(1)
    r_tile : In(4)
    r_group : In
        Sums read: `lanes` columns of a tile.
    r_sums : Out(rows * lanes * acc_width)
        Their sums, signed; grid row 0, lane 0 lowest.
    release : In({en 1, bank 1, tile 4})
        Forget a tile's sums. Events of that bank and tile may be offered from the same cycle on.
    event : Out(range(events + 1))
        Events that were taken (one cycle later).
    event_level : Out
        Sum of their absolute levels over the grid rows; otherwise 0.
    busy : Out(1)
        Something is inside: an event on its way to the sums, or a drain request not yet taken.

    Latency
    -------
    An event shows in `r_sums`, and what closes a tile is valid at `o_drain`, `latency_of(cfg)` cycles after its transfer: three
    cycles, or four where events come in pairs. One transfer per cycle; it waits while `MAX_TILES` + 1 drain requests do.

    Reference
    ---------
    ``levels @ weights``.
    """

    @staticmethod
    def latency_of(cfg: AcceleratorConfig) -> int:
        """Cycles from an event to a sum that shows it, and from what closes a tile to its drain request."""
        return 1 + ProcessingElement.latency_of(cfg)

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        self.latency = self.latency_of(cfg)
        #: What the fields of an event end in.
        self._names = ("", "_b")[:cfg.events]
        super().__init__({
            "i": In(stream.Signature(weights_layout(cfg))),
            "o_drain": Out(stream.Signature(drain_layout())),
            "r_bank": In(1), "r_tile": In(TILE_WIDTH), "r_group": In(ceil_log2(cfg.groups_per_tile)),
            "r_sums": Out(cfg.rows * cfg.lanes * cfg.acc_width),
            "release": In(data.StructLayout({"en": 1, "bank": 1, "tile": TILE_WIDTH})),
            "event": Out(range(cfg.events + 1)), "event_level": Out(bits_for(cfg.events * cfg.rows * cfg.level_max)), "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        #: First stage: weights and the terms of each grid row's level, by event.
        self.weights = [[Signal(signed(WEIGHT_WIDTH), name=f"weight{name}{column}") for column in range(cfg.cols)] for name in self._names]
        self.terms = [[Signal(terms_layout, name=f"terms{name}{row}") for row in range(cfg.rows)] for name in self._names]
        #: A stage per cycle from there to the sums: is there an event, does it find the sums empty, does it close a tile, where.
        stage = data.StructLayout({"add": 1, "first": 1, "closes": 1, "last": 1, "slot": SLOT_WIDTH})
        self.stages = [Signal(stage, name=f"stage{n}") for n in range(1, self.latency)]

        self._build_input(m)
        self._build_drain(m)
        self._build_written(m)
        self._build_grid(m)
        return m

    def _build_input(self, m):
        """Register the weights; recode the levels."""
        cfg, payload = self.cfg, self.i.payload
        moved, taken, events, levels = Signal(), Signal(), [], []
        m.d.comb += [moved.eq(self.i.valid & self.i.ready), taken.eq(moved & ~payload.marker)]
        for name, weights, terms_of_rows in zip(self._names, self.weights, self.terms, strict=True):
            there = taken if name == "" else taken & payload.both
            given, level = payload["weights" + name], payload["level" + name]
            by_row = [level[row * cfg.level_bits:(row + 1) * cfg.level_bits] for row in range(cfg.rows)]
            events.append(there)
            levels += [magnitude(level) for level in by_row]
            with m.If(there):
                m.d.sync += [weight.eq(given[i * WEIGHT_WIDTH:(i + 1) * WEIGHT_WIDTH]) for i, weight in enumerate(weights)]
            with m.If(taken):
                for level, terms in zip(by_row, terms_of_rows, strict=True):
                    self._recode(m, level, terms)
        m.d.sync += [
            self.event.eq(adder_tree(events)),
            self.event_level.eq(Mux(taken, adder_tree(levels), 0)),
            self.stages[0].add.eq(taken),
            self.stages[0].closes.eq(moved & (payload.marker | payload.closes)),
        ]
        with m.If(moved):
            m.d.sync += [self.stages[0].slot.eq(Cat(payload.tile, payload.bank)), self.stages[0].last.eq(payload.last)]

    def _recode(self, m, level, terms):
        codes = 1 << self.cfg.level_bits
        with m.Switch(level):
            for value in range(1 - codes // 2, codes // 2 + 1):
                with m.Case(value % codes):
                    m.d.sync += terms.eq(terms_layout.const(level_terms(value)))

    def _build_drain(self, m):
        """The stages, and the queue of drain requests at their end, which has room for what the stages hold."""
        m.submodules.drains = drains = Queue(drain_layout(), depth=MAX_TILES + self.latency + 1)
        wiring.connect(m, drains.o, wiring.flipped(self.o_drain))
        final, inside = self.stages[-1], Cat(stage.add | stage.closes for stage in self.stages)
        for before, after in zip(self.stages, self.stages[1:]):
            m.d.sync += after.eq(before)
        # A register: the whole event path hangs on this ready.
        full = Signal()
        m.d.sync += full.eq(drains.level > MAX_TILES)
        m.d.comb += [
            drains.i.valid.eq(final.closes),
            drains.i.payload.bank.eq(final.slot[TILE_WIDTH]),
            drains.i.payload.tile.eq(final.slot[:TILE_WIDTH]),
            drains.i.payload.last.eq(final.last),
            self.i.ready.eq(~full),
            self.busy.eq(inside.any() | drains.o.valid),
        ]

    def _build_written(self, m):
        """A bit per accumulator slot: its sums count; otherwise the next event overwrites them."""
        written, forget, stage = Signal(1 << SLOT_WIDTH), Signal(SLOT_WIDTH), self.stages[0]
        self.r_slot, self.r_written = Signal(SLOT_WIDTH), Signal()
        m.d.comb += [
            self.r_slot.eq(Cat(self.r_tile, self.r_bank)),
            self.r_written.eq(written.bit_select(self.r_slot, 1)),
            forget.eq(Cat(self.release.tile, self.release.bank)),
        ]
        m.d.sync += self.stages[1].first.eq(~written.bit_select(stage.slot, 1))
        with m.If(self.release.en):
            m.d.sync += written.bit_select(forget, 1).eq(0)
        with m.If(stage.add):
            m.d.sync += written.bit_select(stage.slot, 1).eq(1)

    def _build_grid(self, m):
        """The elements, and the read port that selects a group of lanes."""
        cfg, final = self.cfg, self.stages[-1]
        for row in range(cfg.rows):
            sums = []
            for column in range(cfg.cols):
                m.submodules[f"pe{row}_{column}"] = pe = ProcessingElement(cfg=cfg)
                for name, weights, terms in zip(self._names, self.weights, self.terms, strict=True):
                    m.d.comb += [getattr(pe, "weight" + name).eq(weights[column]), getattr(pe, "terms" + name).eq(terms[row])]
                m.d.comb += [pe.add.eq(final.add), pe.first.eq(final.first), pe.slot.eq(final.slot), pe.r_slot.eq(self.r_slot)]
                sums.append(pe.r_sum)
            for lane in range(cfg.lanes):
                chosen = Signal(cfg.acc_width, name=f"sum{row}_{lane}")
                with m.If(self.r_written):
                    with m.Switch(self.r_group):
                        for group in range(cfg.groups_per_tile):
                            with m.Case(group):
                                m.d.comb += chosen.eq(sums[group * cfg.lanes + lane])
                low = (row * cfg.lanes + lane) * cfg.acc_width
                m.d.comb += self.r_sums[low:low + cfg.acc_width].eq(chosen)
