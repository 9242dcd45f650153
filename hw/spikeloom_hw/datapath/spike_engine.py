"""The grid of processing elements: adds the weights of every event to the sums of its tile."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from spikeloom.arch.config import MAX_TILES, AcceleratorConfig, bits_for

from ..layouts import TILE_WIDTH, WEIGHT_WIDTH, drain_layout, weights_layout
from ..levels import is_minus
from ..lib.arith import adder_tree
from ..lib.stream import Queue
from .pe import SLOT_WIDTH, ProcessingElement, level_terms, terms_layout


class SpikeEngine(wiring.Component):
    """Grid of `rows` x `cols` accumulate-only elements: every event adds level x weight to the sums of its bank and tile.

    A tile that was never added to since its `release` reads as zero. Sums do not overflow: the compiler proves it. A marker
    becomes a request to drain, in order, when the last sum of its tile has landed. Who starts a command on a bank has
    released its tiles before.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    i : In(stream.Signature(weights_layout(cfg)))
        Events with their weights, and markers. A level of all ones is -1; another one above `level_max` counts as 0.
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
    event : Out(1)
        An event was taken (one cycle later).
    event_level : Out
        With `event`: sum of its levels over the grid rows, -1 counting as 1; otherwise 0.
    busy : Out(1)
        Something is inside: an event on its way to the sums, or a drain request not yet taken.

    Latency
    -------
    An event shows in `r_sums` three cycles after its transfer; a marker is valid at `o_drain` two cycles after its transfer.
    One event or marker per cycle; markers wait while `MAX_TILES` + 1 drain requests do.

    Reference
    ---------
    ``levels @ weights``.
    """

    #: Cycles from an event to a sum that shows it.
    latency = 3
    #: Cycles from a marker to its drain request.
    drain_latency = 2

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        super().__init__({
            "i": In(stream.Signature(weights_layout(cfg))),
            "o_drain": Out(stream.Signature(drain_layout())),
            "r_bank": In(1), "r_tile": In(TILE_WIDTH), "r_group": In(ceil_log2(cfg.groups_per_tile)),
            "r_sums": Out(cfg.rows * cfg.lanes * cfg.acc_width),
            "release": In(data.StructLayout({"en": 1, "bank": 1, "tile": TILE_WIDTH})),
            "event": Out(1), "event_level": Out(bits_for(cfg.rows * cfg.level_max)), "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        #: First stage: weights and the terms of each grid row's level.
        self.weights = [Signal(signed(WEIGHT_WIDTH), name=f"weight{column}") for column in range(cfg.cols)]
        self.terms = [Signal(terms_layout, name=f"terms{row}") for row in range(cfg.rows)]
        self.slot, self.marker, self.last = Signal(SLOT_WIDTH), Signal(), Signal()
        #: Second stage: the products, inside the elements, are being added.
        self.add, self.first, self.add_slot = Signal(), Signal(), Signal(SLOT_WIDTH)

        self._build_input(m)
        self._build_drain(m)
        self._build_written(m)
        self._build_grid(m)
        return m

    def _build_input(self, m):
        """Register the weights; recode the levels."""
        cfg, taken = self.cfg, Signal()
        levels = [self.i.payload.level[row * cfg.level_bits:(row + 1) * cfg.level_bits] for row in range(cfg.rows)]
        m.d.comb += taken.eq(self.i.valid & self.i.ready & ~self.i.payload.marker)
        m.d.sync += [
            self.event.eq(taken),
            self.event_level.eq(Mux(taken, adder_tree([Mux(is_minus(level), 1, level) for level in levels]), 0)),
        ]
        with m.If(taken):
            for column, weight in enumerate(self.weights):
                m.d.sync += weight.eq(self.i.payload.weights[column * WEIGHT_WIDTH:(column + 1) * WEIGHT_WIDTH])
            for level, terms in zip(levels, self.terms, strict=True):
                with m.Switch(level):
                    for value in (-1, *range(1, cfg.level_max + 1)):
                        with m.Case(value & ((1 << cfg.level_bits) - 1)):
                            m.d.sync += terms.eq(terms_layout.const(level_terms(value)))
                    with m.Default():
                        m.d.sync += terms.eq(terms_layout.const(level_terms(0)))
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [self.slot.eq(Cat(self.i.payload.tile, self.i.payload.bank)), self.last.eq(self.i.payload.last)]

    def _build_drain(self, m):
        """Markers wait in the first stage while the queue of drain requests is full."""
        m.submodules.drains = drains = Queue(drain_layout(), depth=MAX_TILES + 1)
        wiring.connect(m, drains.o, wiring.flipped(self.o_drain))
        m.d.comb += [
            drains.i.valid.eq(self.marker),
            drains.i.payload.bank.eq(self.slot[TILE_WIDTH]),
            drains.i.payload.tile.eq(self.slot[:TILE_WIDTH]),
            drains.i.payload.last.eq(self.last),
            self.i.ready.eq(~self.marker | drains.i.ready),
            self.busy.eq(self.marker | self.event | self.add | drains.o.valid),
        ]
        with m.If(self.i.ready):
            m.d.sync += self.marker.eq(self.i.valid & self.i.payload.marker)

    def _build_written(self, m):
        """A bit per accumulator slot: its sums count; otherwise the next event overwrites them."""
        written, forget = Signal(1 << SLOT_WIDTH), Signal(SLOT_WIDTH)
        self.r_slot, self.r_written = Signal(SLOT_WIDTH), Signal()
        m.d.comb += [
            self.r_slot.eq(Cat(self.r_tile, self.r_bank)),
            self.r_written.eq(written.bit_select(self.r_slot, 1)),
            forget.eq(Cat(self.release.tile, self.release.bank)),
        ]
        m.d.sync += [
            self.add.eq(self.event),
            self.first.eq(~written.bit_select(self.slot, 1)),
            self.add_slot.eq(self.slot),
        ]
        with m.If(self.release.en):
            m.d.sync += written.bit_select(forget, 1).eq(0)
        with m.If(self.event):
            m.d.sync += written.bit_select(self.slot, 1).eq(1)

    def _build_grid(self, m):
        """The elements, and the read port that selects a group of lanes."""
        cfg = self.cfg
        for row in range(cfg.rows):
            sums = []
            for column in range(cfg.cols):
                m.submodules[f"pe{row}_{column}"] = pe = ProcessingElement(cfg=cfg)
                m.d.comb += [
                    pe.weight.eq(self.weights[column]), pe.terms.eq(self.terms[row]), pe.add.eq(self.add),
                    pe.first.eq(self.first), pe.slot.eq(self.add_slot), pe.r_slot.eq(self.r_slot),
                ]
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
