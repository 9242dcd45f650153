"""Turns spikes into events: which rows of a weight matrix are wanted, and in which order."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from spikeloom.arch.commands import Order
from spikeloom.arch.config import MAX_TILES, AcceleratorConfig

from ..layouts import TILE_WIDTH, event_layout
from ..lib.arith import find_first, find_two


class RowScheduler(wiring.Component):
    """Scans a spike buffer, skips silent neurons, and emits one event per row that spoke and tile, then the markers.

    `Order.TILES`: every tile's events and then its marker. `Order.ROWS`: every row's tiles, then all markers. Dense mode
    asks for every row, with its level. An embedding asks for one or two given rows at level 1. A command without any
    event still has its markers.

    Of resident rows in `Order.TILES` the last event of a tile `closes` it and needs no marker, and with `cfg.events` of 2 the
    rows leave in pairs, neighbours of the same scan word.

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
    resident : In(1)
        Rows lie on chip.
    dense : In(1)
        Ask for silent rows too.
    embed : In(1)
        Ask for the rows `embed_row_a` and, with `embed_has_b`, `embed_row_b` instead of the spikes'.
    embed_row_a, embed_row_b : In(16)
        Rows of an embedding.
    embed_has_b : In(1)
        There is a second row.
    ready_words : In
        Scan words that hold their spikes by now, counted from the first; it only grows during a command. The first one does at its
        `start`. All where nothing drives it.
    r_word : Out
        Scan word wanted.
    r_levels : In(cols * level_bits)
        Its levels, the same cycle.
    o : Out(stream.Signature(event_layout(cfg)))
        Events and markers.
    wanted : Out(range(events + 1))
        Rows asked for; once per row, not per tile.
    skipped : Out(16)
        Rows of the command that were not asked for, counts while `skipped_valid`. 0 for an embedding.
    skipped_valid : Out(1)
        One cycle per command.
    busy : Out(1)
        From the cycle after `start` until the last marker has been taken.

    Latency
    -------
    The first event (or marker) is valid two cycles after `start`. Then one event, pair or marker per cycle; a scan word without
    any event costs a cycle only where no earlier word has an event left to hide it. A tile is closed by its last event where the
    scan has passed all words by then, otherwise by a marker.

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
            "start": In(1), "n_in": In(16), "tiles": In(TILE_WIDTH + 1), "order": In(1), "resident": In(1), "dense": In(1),
            "embed": In(1), "embed_row_a": In(16), "embed_row_b": In(16), "embed_has_b": In(1),
            "ready_words": In(17 - self._column_bits, init=(1 << 17 - self._column_bits) - 1),
            "r_word": Out(self._word_bits), "r_levels": In(cfg.cols * cfg.level_bits),
            "o": Out(stream.Signature(event_layout(cfg))),
            "wanted": Out(range(cfg.events + 1)), "skipped": Out(16), "skipped_valid": Out(1), "busy": Out(1),
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
        by_tile, found, rest = self._build_choice(m)
        advance, event, marker, closes, leave = Signal(), Signal(), Signal(), Signal(), Signal()
        tile_end, next_tile, load, skip = Signal(), Signal(), Signal(), Signal()
        there = Signal()
        m.d.comb += [
            there.eq(self.fetch < self.ready_words),
            advance.eq(~self.o.valid | self.o.ready),
            tile_end.eq(self.tile == self.tiles - 1),
            event.eq(self.running & found),
            marker.eq(self.running & ~found & self.scanned),
            closes.eq(event & ~rest & self.scanned & by_tile & self.resident),
            leave.eq(advance & event & (by_tile | tile_end)),
            next_tile.eq(advance & (marker | closes) & by_tile & ~tile_end),
            load.eq(self.start | (there & (next_tile | (self.running & ~self.scanned & (~found | (leave & ~rest)))))),
            skip.eq(there & self.running & ~self.scanned & ~load & ~fetched.any()),
            self.busy.eq(self.running | self.o.valid),
        ]
        self._build_word(m, load, skip, leave, fetched, planes)
        self._build_output(m, advance, event, marker, closes, tile_end, by_tile)
        return m

    def _build_choice(self, m):
        """The events that leave next: (tile by tile?, is there one, do any stay).

        Sets `columns`, places in the scan word, and `both`, whether there are two.
        """
        by_tile, self.both = Signal(), Signal()
        m.d.comb += by_tile.eq(self.order == Order.TILES)
        if self.cfg.events == 1:
            found, rest, column = find_first(m, self.pending)
            self.columns = [column]
        else:
            found, two, more, *self.columns = find_two(m, self.pending)
            m.d.comb += self.both.eq(two & by_tile & self.resident)
            rest = Mux(self.both, more, two)
        return by_tile, found, rest

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

    def _build_word(self, m, load, skip, leave, fetched, planes):
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
            left = [bit & (self.columns[0] != i) for i, bit in enumerate(self.pending)]
            if self.cfg.events == 2:
                left = [bit & (~self.both | (self.columns[1] != i)) for i, bit in enumerate(left)]
            m.d.sync += self.pending.eq(Cat(left))

    def _build_output(self, m, advance, event, marker, closes, tile_end, by_tile):
        """The output register, the tile loop and the counters."""
        out, final, unwanted = self.o.payload, Signal(), Signal(16)
        first = advance & event & (self.tile == 0)
        m.d.comb += [
            final.eq(advance & (marker | closes) & tile_end),
            self.wanted.eq(Mux(first, Mux(self.both, 2, 1), 0)),
            # With one tile, what closes it may be wanted in this very cycle.
            self.skipped.eq(Mux(self.embed, 0, unwanted - self.wanted)),
            self.skipped_valid.eq(final),
        ]
        with m.If(advance):
            m.d.sync += [
                self.o.valid.eq(event | marker),
                out.tile.eq(self.tile),
                out.marker.eq(marker),
                out.closes.eq(closes),
                out.last.eq((marker | closes) & tile_end),
            ]
            for name, column, there in zip(("row", "row_b"), self.columns, (event, event & self.both)):
                m.d.sync += out[name].eq(Mux(there, self._row(column), 0))
            if self.cfg.events == 2:
                m.d.sync += out.both.eq(event & self.both)
        self._build_levels(m, advance, event)
        with m.If(advance & (marker | closes | (event & ~by_tile))):
            m.d.sync += self.tile.eq(Mux(tile_end, 0, self.tile + 1))
        with m.If(self.start):
            m.d.sync += [self.running.eq(1), unwanted.eq(Mux(self.embed, 0, self.n_in))]
        with m.Else():
            with m.If(final):
                m.d.sync += self.running.eq(0)
            with m.If(~self.embed):
                m.d.sync += unwanted.eq(unwanted - self.wanted)

    def _row(self, column):
        """Row of a place in the scan word."""
        return Mux(self.embed, Mux(column[0], self.embed_row_b, self.embed_row_a), Cat(column, self.word))

    def _build_levels(self, m, advance, event):
        """Levels of the event at the output. They are looked up there: in the cycle before, its place is found late."""
        cfg, out = self.cfg, self.o.payload
        planes = [Signal(cfg.cols, name=f"shown_plane{bit}") for bit in range(cfg.level_bits)]
        with m.If(advance):
            m.d.sync += [shown.eq(plane) for shown, plane in zip(planes, self.planes, strict=True)]
        for name, found, there in zip(("level", "level_b"), self.columns, (event, event & self.both)):
            column, any_level = Signal(self._column_bits, name=f"shown_{name}"), Signal(name=f"shows_{name}")
            with m.If(advance):
                m.d.sync += [column.eq(found), any_level.eq(there)]
            m.d.comb += out[name].eq(Mux(any_level, Cat(plane.bit_select(column, 1) for plane in planes), 0))
