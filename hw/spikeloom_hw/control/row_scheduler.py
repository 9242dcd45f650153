"""Turns spikes into events: which rows of a weight matrix are wanted, and in which order."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from spikeloom.arch.commands import Order
from spikeloom.arch.config import MAX_TILES, AcceleratorConfig

from ..layouts import TILE_WIDTH, event_layout
from ..lib.arith import find_first


class RowScheduler(wiring.Component):
    """Scans a spike buffer, skips silent neurons, and emits one event per row that spoke and tile, then the markers.

    `Order.TILES`: every tile's events and then its marker. `Order.ROWS`: every row's tiles, then all markers. Dense mode
    asks for every row, with its level. An embedding asks for one or two given rows at level 1. A command without any
    event still has its markers.

    It knows neither weights nor addresses. With several grid rows the spikes go to grid row 0; the others stay silent.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    start : In(1)
        Begin; only while not `busy`. The job below is static from `start` until `busy` falls.
    n_in : In(16)
        Neurons scanned; an embedding ignores it.
    tiles : In(5)
        Column tiles, 1..16.
    order : In(1)
        `arch.commands.Order`.
    dense : In(1)
        Ask for silent rows too.
    embed : In(1)
        Ask for the rows `embed_row_a` and, with `embed_has_b`, `embed_row_b` instead of the spikes'.
    embed_row_a, embed_row_b : In(16)
        Rows of an embedding.
    embed_has_b : In(1)
        There is a second row.
    r_word : Out
        Scan word wanted.
    r_levels : In(cols * level_bits)
        Its levels, the same cycle.
    o : Out(stream.Signature(event_layout(cfg)))
        Events and markers.
    wanted : Out(1)
        A row was asked for; once per row, not per tile.
    skipped : Out(16)
        Rows of the command that were not asked for, counts while `skipped_valid`. 0 for an embedding.
    skipped_valid : Out(1)
        One cycle per command.
    busy : Out(1)
        From the cycle after `start` until the last marker has been taken.

    Latency
    -------
    The first event (or marker) is valid two cycles after `start`. Then one event or marker per cycle; a scan word without
    any event costs a cycle only where no earlier word has an event left to hide it.

    Reference
    ---------
    ``[(row, level) for row, level in enumerate(levels[:n_in]) if level or dense]``, per tile or times the tiles.
    """

    #: Cycles from `start` to the first event.
    latency = 2

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        self._column_bits = exact_log2(cfg.cols)
        self._word_bits = max(1, ceil_log2(cfg.max_neurons // cfg.cols))
        super().__init__({
            "start": In(1), "n_in": In(16), "tiles": In(TILE_WIDTH + 1), "order": In(1), "dense": In(1),
            "embed": In(1), "embed_row_a": In(16), "embed_row_b": In(16), "embed_has_b": In(1),
            "r_word": Out(self._word_bits), "r_levels": In(cfg.cols * cfg.level_bits),
            "o": Out(stream.Signature(event_layout(cfg))),
            "wanted": Out(1), "skipped": Out(16), "skipped_valid": Out(1), "busy": Out(1),
        })
        assert MAX_TILES == 1 << TILE_WIDTH

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        #: Events of the current scan word still to emit, a bit per column, and all its levels, a plane per bit.
        self.pending = Signal(cfg.cols)
        self.planes = [Signal(cfg.cols, name=f"plane{bit}") for bit in range(cfg.level_bits)]
        self.word = Signal(16 - self._column_bits)
        #: Next scan word; after a tile's last one it is the next tile's first, and `scanned` is set.
        self.fetch = Signal(17 - self._column_bits)
        self.scanned = Signal()
        self.running, self.tile = Signal(), Signal(TILE_WIDTH)

        fetched, planes = self._build_fetch(m)
        found, several, column = find_first(m, self.pending)
        advance, event, marker, leave = Signal(), Signal(), Signal(), Signal()
        tile_end, next_tile, load, skip = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            advance.eq(~self.o.valid | self.o.ready),
            tile_end.eq(self.tile == self.tiles - 1),
            event.eq(self.running & found),
            marker.eq(self.running & ~found & self.scanned),
            leave.eq(advance & event & ((self.order == Order.TILES) | tile_end)),
            next_tile.eq(advance & marker & (self.order == Order.TILES) & ~tile_end),
            load.eq(self.start | next_tile | (self.running & ~self.scanned & (~found | (leave & ~several)))),
            skip.eq(self.running & ~self.scanned & ~load & ~fetched.any()),
            self.busy.eq(self.running | self.o.valid),
        ]
        self._build_word(m, load, skip, leave, column, fetched, planes)
        self._build_output(m, advance, event, marker, tile_end, column)
        return m

    def _build_fetch(self, m):
        """Events and levels of the scan word at `r_word`."""
        cfg, low = self.cfg, self.n_in[:self._column_bits]
        whole, part = Signal(), Signal()
        mask, fetched = Signal(cfg.cols), Signal(cfg.cols)
        planes = [Signal(cfg.cols, name=f"fetched_plane{bit}") for bit in range(cfg.level_bits)]
        m.d.comb += [
            self.r_word.eq(self.fetch[:self._word_bits]),
            whole.eq(self.fetch < self.n_in[self._column_bits:]),
            part.eq(self.fetch == self.n_in[self._column_bits:]),
            mask.eq(Cat(whole | (part & (low > column)) for column in range(cfg.cols))),
        ]
        levels = [self.r_levels[i * cfg.level_bits:(i + 1) * cfg.level_bits] for i in range(cfg.cols)]
        spoke = Cat(level.any() for level in levels)
        with m.If(self.embed):
            m.d.comb += [fetched.eq(Cat(Const(1, 1), self.embed_has_b)), planes[0].eq(3)]
        with m.Else():
            m.d.comb += fetched.eq(Mux(self.dense, mask, mask & spoke))
            m.d.comb += [plane.eq(Cat(level[bit] for level in levels)) for bit, plane in enumerate(planes)]
        return fetched, planes

    def _build_word(self, m, load, skip, leave, column, fetched, planes):
        """The current scan word and the pointer to the next one."""
        words, last_word = Signal(17 - self._column_bits), Signal()
        m.d.comb += [
            words.eq(Mux(self.embed, 1, (self.n_in + self.cfg.cols - 1) >> self._column_bits)),
            last_word.eq(self.fetch + 1 >= words),
        ]
        with m.If(load | skip):
            m.d.sync += [self.fetch.eq(Mux(last_word, 0, self.fetch + 1)), self.scanned.eq(last_word)]
        with m.If(load):
            m.d.sync += [self.pending.eq(fetched), self.word.eq(self.fetch)]
            m.d.sync += [kept.eq(plane) for kept, plane in zip(self.planes, planes, strict=True)]
        with m.Elif(leave):
            m.d.sync += self.pending.eq(Cat(bit & (column != i) for i, bit in enumerate(self.pending)))

    def _build_output(self, m, advance, event, marker, tile_end, column):
        """The output register, the tile loop and the counters."""
        out, final, unwanted = self.o.payload, Signal(), Signal(16)
        row, level = Signal(16), Signal(self.cfg.level_bits)
        m.d.comb += [
            row.eq(Mux(self.embed, Mux(column[0], self.embed_row_b, self.embed_row_a), Cat(column, self.word))),
            level.eq(Cat(plane.bit_select(column, 1) for plane in self.planes)),
            final.eq(advance & marker & tile_end),
            self.wanted.eq(advance & event & (self.tile == 0)),
            self.skipped.eq(unwanted),
            self.skipped_valid.eq(final),
        ]
        with m.If(advance):
            m.d.sync += [
                self.o.valid.eq(event | marker),
                out.row.eq(Mux(marker, 0, row)),
                out.level.eq(Mux(marker, 0, level)),
                out.tile.eq(self.tile),
                out.marker.eq(marker),
                out.last.eq(marker & tile_end),
            ]
        with m.If(advance & (marker | (event & (self.order == Order.ROWS)))):
            m.d.sync += self.tile.eq(Mux(tile_end, 0, self.tile + 1))
        with m.If(self.start):
            m.d.sync += [self.running.eq(1), unwanted.eq(Mux(self.embed, 0, self.n_in))]
        with m.Else():
            with m.If(final):
                m.d.sync += self.running.eq(0)
            with m.If(self.wanted & ~self.embed):
                m.d.sync += unwanted.eq(unwanted - 1)
