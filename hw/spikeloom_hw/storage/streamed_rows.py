"""Weight rows from memory: runs of adjacent rows as requests, beats back into tile rows."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.config import WEIGHT_BITS, AcceleratorConfig
from spikeloom.arch.streamed_cycles import MAX_REQUEST_BEATS, ROW_QUEUE

from ..bus.axi_reader import beat_layout, request_layout
from ..layouts import TILE_WIDTH, event_layout
from ..lib.arith import shift_add_product
from ..lib.stream import Queue


def tile_row_layout(cfg: AcceleratorConfig) -> data.StructLayout:
    """A tile row as it lies in memory: the low bytes of `word`, or its part number `field` where several tile rows share a beat."""
    return data.StructLayout({
        "word": cfg.cols * 8, "field": 2, "tile": TILE_WIDTH, "level": event_layout(cfg)["level"].width, "marker": 1, "last": 1,
    })


class StreamedRows(wiring.Component):
    """Answers the events of rows in memory with their tile rows, in order; markers pass through.

    Events come row by row, the tiles of a row one after another, then all markers (`Order.ROWS`, or one tile). A row is asked
    for at its first event and waits, as one entry whatever its tiles, in a queue for its beats. While the reader is at work,
    a row that lies right behind the ones that wait to be requested joins them: runs become long bursts.

    A row that lies outside of the image is reported and keeps its place with level 0.

    Parameters
    ----------
    cfg : AcceleratorConfig
    depth : int
        Rows that wait for their beats.

    Members
    -------
    address : In(40)
        Byte offset of the first row. This and the next three are static while `busy` and while events of the command may come.
    tiles : In(5)
        Tiles of a row, 1..16.
    weight_code : In(2)
        Index into `WEIGHT_BITS`.
    image_bytes : In(32)
        A row that ends beyond is outside.
    i : In(stream.Signature(event_layout(cfg)))
        Events.
    o : Out(stream.Signature(tile_row_layout(cfg)))
        Their tile rows.
    o_request : Out(stream.Signature(request_layout(address_width)))
        Runs of beats wanted; addresses are offsets like `address`.
    i_beat : In(stream.Signature(beat_layout(bus_width)))
        Their beats, in order.
    error_valid : Out(1)
        A row lies outside, counts for one cycle.
    error_address : Out(40)
        Its byte offset.
    waiting : Out(1)
        The oldest row has no weights yet.
    requested_beats : Out
        Beats of the request handed over in this cycle, otherwise 0.
    busy : Out(1)
        Something is inside.

    Latency
    -------
    Three cycles from `i` to `o_request`, one from the last beat of a tile row to `o`. One tile row per cycle; one beat per cycle.

    Reference
    ---------
    `arch.layout.unpack_rows`, `arch.streamed_cycles`.
    """

    #: Cycles from an event to its request.
    request_latency = 3

    def __init__(self, *, cfg: AcceleratorConfig, depth: int = ROW_QUEUE):
        self.cfg = cfg
        self.depth = depth
        request = request_layout(cfg.address_width)
        super().__init__({
            "address": In(40), "tiles": In(TILE_WIDTH + 1), "weight_code": In(2), "image_bytes": In(32),
            "i": In(stream.Signature(event_layout(cfg))), "o": Out(stream.Signature(tile_row_layout(cfg))),
            "o_request": Out(stream.Signature(request)), "i_beat": In(stream.Signature(beat_layout(cfg.bus_width))),
            "error_valid": Out(1), "error_address": Out(40),
            "waiting": Out(1), "requested_beats": Out(request["beats"].width), "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        is8, is4 = Signal(), Signal()
        m.d.comb += [is8.eq(self.weight_code == WEIGHT_BITS.index(8)), is4.eq(self.weight_code == WEIGHT_BITS.index(4))]
        #: What a format makes of three choices.
        self._by_format = lambda of8, of4, of2: Mux(is8, of8, Mux(is4, of4, of2))
        row = data.StructLayout({"level": self.o.payload["level"].shape().width, "marker": 1, "void": 1})
        m.submodules.queue = queue = Queue(row, depth=self.depth)
        self._tile_end = Signal.like(self.o.payload.tile)
        m.d.comb += self._tile_end.eq(self.tiles - 1)
        inside = self._build_requests(m, queue)
        self._build_assembler(m, queue)
        m.d.comb += [
            self.busy.eq(self.i.valid | inside | queue.o.valid),
            self.waiting.eq(queue.o.valid & ~self.o.valid),
            self.requested_beats.eq(Mux(self.o_request.valid & self.o_request.ready, self.o_request.payload.beats, 0)),
        ]
        return m

    def _scale(self, tile_rows):
        """Bytes of so many tile rows, given what they would take at eight bits."""
        return self._by_format(tile_rows, tile_rows >> 1, tile_rows >> 2)

    def _build_requests(self, m, queue):
        """Place (row x tiles), offset, request; returns whether a row is on its way through these stages."""
        cfg, event, request = self.cfg, self.i.payload, self.o_request
        beat_bits, column_bits = exact_log2(cfg.bus_bytes), exact_log2(cfg.cols)
        placed, staged, ready, go = _Row(event.level, "placed"), _Row(event.level, "staged"), Signal(), Signal()
        first_tile, offset = Signal(16 + TILE_WIDTH + 1), Signal(41)
        behind, following = Signal(17), Signal()
        m.d.comb += ready.eq(~staged.valid | go)
        m.d.comb += self.i.ready.eq(~placed.valid | ready | (event.tile != 0))
        with m.If(ready):
            m.d.sync += [
                *staged.take(placed),
                offset.eq(self.address + self._scale(first_tile << column_bits)),
            ]
        with m.If(~placed.valid | ready):
            m.d.sync += [
                placed.valid.eq(self.i.valid & (event.tile == 0)),
                placed.level.eq(event.level), placed.marker.eq(event.marker),
                placed.follows.eq(following & (event.row == behind[:16])),
                first_tile.eq(shift_add_product(event.row, self.tiles)),
            ]
            with m.If(self.i.valid & (event.tile == 0)):
                m.d.sync += [behind.eq(event.row + 1), following.eq(~event.marker)]

        # Registers, since the whole event path waits on what is decided here; a command's fields are there long before its rows.
        row_bytes, furthest, none_fits = Signal(column_bits + TILE_WIDTH + 1), Signal(32), Signal()
        scaled = self._scale(self.tiles << column_bits)[:len(row_bytes)]
        m.d.sync += [
            row_bytes.eq(scaled), furthest.eq(self.image_bytes - scaled),
            # A row that is no whole number of beats would never be answered in full.
            none_fits.eq((scaled > self.image_bytes) | scaled[:beat_bits].any() | self.address[:beat_bits].any()),
        ]
        outside, new, free, join = Signal(), Signal(), Signal(), Signal()
        run, run_valid = Signal(request_layout(cfg.address_width)), Signal()
        m.d.comb += [
            outside.eq(none_fits | (offset > furthest)),
            free.eq(~request.valid | request.ready),
            join.eq(run_valid & ~free & staged.follows & (run.beats < MAX_REQUEST_BEATS // 2)),
            go.eq(staged.valid & queue.i.ready & (staged.marker | outside | free | ~run_valid | join)),
            new.eq(go & ~staged.marker & ~outside & ~join),
            queue.i.valid.eq(go),
            queue.i.payload.marker.eq(staged.marker),
            queue.i.payload.void.eq(outside),
            queue.i.payload.level.eq(Mux(outside, 0, staged.level)),
        ]
        m.d.sync += [self.error_valid.eq(go & ~staged.marker & outside), self.error_address.eq(offset)]
        with m.If(free):
            m.d.sync += [
                request.valid.eq(run_valid | new),
                request.payload.address.eq(Mux(run_valid, run.address, offset)),
                request.payload.beats.eq(Mux(run_valid, run.beats, row_bytes[beat_bits:])),
                run_valid.eq(run_valid & new),
            ]
        with m.Elif(new):
            m.d.sync += run_valid.eq(1)
        with m.If(new):
            m.d.sync += [run.address.eq(offset), run.beats.eq(row_bytes[beat_bits:])]
        with m.Elif(go & join & ~staged.marker & ~outside):
            m.d.sync += run.beats.eq(run.beats + row_bytes[beat_bits:])
        return placed.valid | staged.valid

    def _build_assembler(self, m, queue):
        """Gather the beats of a word, hand it to one tile row, or to several where a beat holds several."""
        cfg, row, out = self.cfg, queue.o.payload, self.o.payload
        width = cfg.bus_width
        most = cfg.cols * 8 // width
        need = {bits: max(1, cfg.cols * bits // width) for bits in WEIGHT_BITS}
        share = {bits: max(1, width // (cfg.cols * bits)) for bits in WEIGHT_BITS}
        count, full = Signal(range(max(2, most))), Signal()
        last_count, last_field = Signal.like(count), Signal(2)
        tile, taken, release, accept = Signal(TILE_WIDTH), Signal(), Signal(), Signal()
        m.d.comb += [
            last_count.eq(self._by_format(*(need[bits] - 1 for bits in WEIGHT_BITS))),
            last_field.eq(self._by_format(*(share[bits] - 1 for bits in WEIGHT_BITS))),
            self.o.valid.eq(queue.o.valid & (row.marker | row.void | full)),
            out.tile.eq(tile), out.field.eq(tile & last_field), out.level.eq(row.level), out.marker.eq(row.marker),
            out.last.eq(row.marker & (tile == self._tile_end)),
            taken.eq(self.o.valid & self.o.ready),
            queue.o.ready.eq(taken & (tile == self._tile_end)),
            release.eq(taken & ~row.marker & ~row.void & (out.field == last_field)),
            self.i_beat.ready.eq(~full | release),
            accept.eq(self.i_beat.valid & self.i_beat.ready),
        ]
        with m.If(taken):
            m.d.sync += tile.eq(Mux(tile == self._tile_end, 0, tile + 1))
        word = [Signal(width, name=f"beat{slot}") for slot in range(most)]
        for slot, part in enumerate(word):
            m.d.comb += out.word[slot * width:(slot + 1) * width].eq(part)
        with m.If(accept):
            m.d.sync += [full.eq(count == last_count), count.eq(Mux(count == last_count, 0, count + 1))]
            for slot, part in enumerate(word):
                with m.If(count == slot):
                    m.d.sync += part.eq(self.i_beat.payload.data)
        with m.Elif(release):
            m.d.sync += full.eq(0)


class _Row:
    """A row, or the markers of a command, on its way to its request."""

    def __init__(self, level, name: str):
        self.valid = Signal(name=f"{name}_valid")
        self.level = Signal(level.shape(), name=f"{name}_level")
        self.marker = Signal(name=f"{name}_marker")
        #: It lies right behind the row before it.
        self.follows = Signal(name=f"{name}_follows")

    def take(self, other: "_Row") -> list:
        """Statements that move the row of the stage before to this one."""
        return [getattr(self, name).eq(getattr(other, name)) for name in ("valid", "level", "marker", "follows")]
