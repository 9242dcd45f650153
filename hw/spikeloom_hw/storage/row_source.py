"""Weight rows, on chip or from memory, behind one face."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from spikeloom.arch.config import WEIGHT_BITS, AcceleratorConfig

from ..bus.axi_reader import beat_layout, request_layout
from ..layouts import TILE_WIDTH, WEIGHT_WIDTH, event_layout, weights_layout
from ..lib.arith import adder_tree, shift_add_product
from ..lib.stream import Queue

#: Bits of a resident tile row's number that count; a number with any higher bit set is out of range.
INDEX_WIDTH = 24
#: Bits of one slice of the on-chip rows.
SLICE_WIDTH = 64


class RowSource(wiring.Component):
    """Answers every event with the weights of its row and tile, in order; markers pass through.

    Resident rows are read from on-chip memory. Streamed rows are requested from memory, one request per row at the
    event of its first tile, while the events wait in a queue for their beats; a streamed command is in `Order.ROWS`, or
    has one tile. All formats come out as signed bytes.

    A row that lies outside is reported and keeps its place in the stream with level 0, so that nothing is added and
    nothing hangs. Does not merge the requests of adjacent rows.

    Parameters
    ----------
    cfg : AcceleratorConfig
    depth : int
        Events that wait for their beats.

    Members
    -------
    address : In(40)
        Resident: first tile row, counted in tile rows of the format. Streamed: byte offset of the first row.
        This and the next five are static while `busy` and while events of the command may come.
    tiles : In(5)
        Tiles of a row, 1..16.
    streamed : In(1)
        Rows come from memory.
    weight_code : In(2)
        Index into `WEIGHT_BITS`.
    bank : In(1)
        Passed on with every event.
    image_bytes : In(32)
        A streamed row that ends beyond is outside.
    l_en, l_address, l_data : In
        Loader's write port: a word of `cols` bytes.
    i : In(stream.Signature(event_layout(cfg)))
        Events.
    o : Out(stream.Signature(weights_layout(cfg)))
        The events with their weights.
    o_request : Out(stream.Signature(request_layout(address_width)))
        Runs of beats wanted; addresses are offsets like `address`.
    i_beat : In(stream.Signature(beat_layout(data_width)))
        Their beats, in order.
    error_valid : Out(1)
        One cycle: a row (streamed) or tile row (resident) lies outside.
    error_address : Out(40)
        Its byte offset or number.
    waiting : Out(1)
        The oldest event has no weights yet.
    requested_beats : Out
        Beats of the request handed over in this cycle, otherwise 0.
    busy : Out(1)
        Something is inside.

    Latency
    -------
    Resident: one cycle from `i` to `o`. Streamed: two cycles from `i` to `o_request`, one from the last beat of a tile row
    to `o`. One tile row per cycle; streamed one beat per cycle.

    Reference
    ---------
    `arch.layout.unpack_rows`.
    """

    #: Cycles from an event to its weights, resident.
    latency = 1
    #: Cycles from an event to its request.
    request_latency = 2

    def __init__(self, *, cfg: AcceleratorConfig, depth: int = 64):
        if cfg.resident_words < 2 or cfg.resident_words >= 1 << (INDEX_WIDTH - 2):
            raise ValueError(f"resident_words must lie in 2..{(1 << (INDEX_WIDTH - 2)) - 1}, it is {cfg.resident_words}.")
        self.cfg = cfg
        self.depth = depth
        request = request_layout(cfg.address_width)
        super().__init__({
            "address": In(40), "tiles": In(TILE_WIDTH + 1), "streamed": In(1), "weight_code": In(2), "bank": In(1),
            "image_bytes": In(32),
            "l_en": In(1), "l_address": In(20), "l_data": In(cfg.cols * 8),
            "i": In(stream.Signature(event_layout(cfg))),
            "o": Out(stream.Signature(weights_layout(cfg))),
            "o_request": Out(stream.Signature(request)),
            "i_beat": In(stream.Signature(beat_layout(cfg.data_width))),
            "error_valid": Out(1), "error_address": Out(40),
            "waiting": Out(1), "requested_beats": Out(request["beats"].width), "busy": Out(1),
        })

    @property
    def _event(self) -> data.StructLayout:
        """What travels beside the weights; `field` is the place of a narrow tile row in its word."""
        whole = event_layout(self.cfg)
        return data.StructLayout({
            "tile": TILE_WIDTH, "level": whole["level"].width, "marker": 1, "last": 1, "void": 1, "field": 2,
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        self.is8, self.is4 = Signal(), Signal()
        self.first_row = Signal(16 + TILE_WIDTH + 1)
        m.d.comb += [
            self.is8.eq(self.weight_code == WEIGHT_BITS.index(8)),
            self.is4.eq(self.weight_code == WEIGHT_BITS.index(4)),
            self.first_row.eq(shift_add_product(self.i.payload.row, self.tiles)),
        ]
        resident = _Answer(self._event, cfg.cols * 8, "resident")
        streamed = _Answer(self._event, cfg.cols * 8, "streamed")
        index, outside, resident_ready = self._build_resident(m, resident)
        queue, request_ready, staged = self._build_requests(m)
        self._build_assembler(m, queue, streamed)
        self._build_output(m, resident, streamed)
        reject = self.i.valid & resident_ready & ~self.streamed & ~self.i.payload.marker & outside
        m.d.comb += [
            self.i.ready.eq(Mux(self.streamed, request_ready, resident_ready)),
            self.busy.eq(self.i.valid | resident.valid | staged.valid | queue.o.valid),
            self.waiting.eq(queue.o.valid & ~streamed.valid),
            self.requested_beats.eq(Mux(self.o_request.valid & self.o_request.ready, self.o_request.payload.beats, 0)),
        ]
        m.d.sync += [
            self.error_valid.eq(reject | staged.refused),
            self.error_address.eq(Mux(self.streamed, staged.offset, index)),
        ]
        return m

    def _scale(self, tile_rows):
        """Bytes or words of so many tile rows, given what they would take at eight bits."""
        return Mux(self.is8, tile_rows, Mux(self.is4, tile_rows >> 1, tile_rows >> 2))

    def _build_resident(self, m, answer):
        """On-chip rows: a synchronous read that holds its answer while the consumer waits."""
        cfg, event = self.cfg, self.i.payload
        address_bits = ceil_log2(cfg.resident_words)
        index = Signal(INDEX_WIDTH + 1)
        word = Signal(INDEX_WIDTH + 1)
        outside, step = Signal(), Signal()
        m.d.comb += [
            index.eq(adder_tree([self.address[:INDEX_WIDTH], self.first_row, event.tile])),
            word.eq(self._scale(index)),
            outside.eq(self.address[INDEX_WIDTH:].any() | (word >= cfg.resident_words)),
            step.eq(~answer.valid | self.o.ready),
        ]
        for low in range(0, cfg.cols * 8, SLICE_WIDTH):
            high = min(low + SLICE_WIDTH, cfg.cols * 8)
            m.submodules[f"words{low // SLICE_WIDTH}"] = words = memory.Memory(
                shape=unsigned(high - low), depth=cfg.resident_words, init=[])
            read, write = words.read_port(), words.write_port()
            m.d.comb += [
                read.addr.eq(word[:address_bits]), read.en.eq(step & self.i.valid), answer.word[low:high].eq(read.data),
                write.addr.eq(self.l_address[:address_bits]), write.en.eq(self.l_en), write.data.eq(self.l_data[low:high]),
            ]
        with m.If(step):
            m.d.sync += [
                answer.valid.eq(self.i.valid & ~self.streamed),
                answer.event.tile.eq(event.tile),
                answer.event.level.eq(Mux(outside & ~event.marker, 0, event.level)),
                answer.event.marker.eq(event.marker),
                answer.event.last.eq(event.last),
                answer.event.field.eq(index[:2]),
            ]
        return index, outside, step

    def _build_requests(self, m):
        """Streamed rows: one request per row; every event queues for its beats."""
        cfg, event, request = self.cfg, self.i.payload, self.o_request
        beat_bits, column_bits = exact_log2(cfg.beat_bytes), exact_log2(cfg.cols)
        m.submodules.queue = queue = Queue(self._event, depth=self.depth)
        staged = _Stage(self._event)
        row_bytes = Signal(column_bits + TILE_WIDTH + 1)
        end = Signal(42)
        outside, asks, free, go, ready = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            row_bytes.eq(self._scale(self.tiles << column_bits)),
            staged.offset.eq(self.address + self._scale(staged.first_row << column_bits)),
            end.eq(staged.offset + row_bytes),
            # A row that is no whole number of beats would never be answered in full.
            outside.eq((end > self.image_bytes) | row_bytes[:beat_bits].any() | self.address[:beat_bits].any()),
            asks.eq(~staged.event.marker & (staged.event.tile == 0)),
            free.eq(~request.valid | request.ready),
            go.eq(staged.valid & queue.i.ready & (free | ~asks | outside)),
            ready.eq(~staged.valid | go),
            staged.refused.eq(go & asks & outside),
            queue.i.valid.eq(go),
            queue.i.payload.eq(staged.event),
            queue.i.payload.void.eq(outside),
            queue.i.payload.level.eq(Mux(outside, 0, staged.event.level)),
        ]
        with m.If(ready):
            m.d.sync += [
                staged.valid.eq(self.i.valid & self.streamed),
                staged.first_row.eq(self.first_row),
                staged.event.tile.eq(event.tile),
                staged.event.level.eq(event.level),
                staged.event.marker.eq(event.marker),
                staged.event.last.eq(event.last),
            ]
        with m.If(free):
            m.d.sync += [
                request.valid.eq(go & asks & ~outside),
                request.payload.address.eq(staged.offset),
                request.payload.beats.eq(row_bytes[beat_bits:]),
            ]
        return queue, ready, staged

    def _build_assembler(self, m, queue, answer):
        """Gather the beats of a word, hand it to one event, or to several where a beat holds several tile rows."""
        cfg, head = self.cfg, queue.o.payload
        most = cfg.cols * 8 // cfg.data_width
        need = {bits: max(1, cfg.cols * bits // cfg.data_width) for bits in WEIGHT_BITS}
        share = {bits: max(1, cfg.data_width // (cfg.cols * bits)) for bits in WEIGHT_BITS}
        count, full = Signal(range(max(2, most))), Signal()
        last_count, last_field, field = Signal.like(count), Signal(2), Signal(2)
        taken, release, accept = Signal(), Signal(), Signal()
        m.d.comb += [
            last_count.eq(Mux(self.is8, need[8] - 1, Mux(self.is4, need[4] - 1, need[2] - 1))),
            last_field.eq(Mux(self.is8, share[8] - 1, Mux(self.is4, share[4] - 1, share[2] - 1))),
            field.eq(head.tile & last_field),
            answer.event.eq(head),
            answer.event.field.eq(field),
            answer.valid.eq(queue.o.valid & (head.marker | head.void | full)),
            taken.eq(answer.valid & self.o.ready & self.streamed),
            queue.o.ready.eq(taken),
            release.eq(taken & ~head.marker & ~head.void & (field == last_field)),
            self.i_beat.ready.eq(~full | release),
            accept.eq(self.i_beat.valid & self.i_beat.ready),
        ]
        with m.If(accept):
            m.d.sync += [full.eq(count == last_count), count.eq(Mux(count == last_count, 0, count + 1))]
            for slot in range(most):
                with m.If(count == slot):
                    m.d.sync += answer.word[slot * cfg.data_width:(slot + 1) * cfg.data_width].eq(self.i_beat.payload.data)
        with m.Elif(release):
            m.d.sync += full.eq(0)

    def _build_output(self, m, resident, streamed):
        """Choose the answer and unpack its weights."""
        cfg, out = self.cfg, self.o.payload
        word, event = Signal(cfg.cols * 8), Signal(self._event)
        half, quarter = Signal(cfg.cols * 4), Signal(cfg.cols * 2)
        m.d.comb += [
            word.eq(Mux(self.streamed, streamed.word, resident.word)),
            half.eq(Mux(Mux(self.is4, event.field[0], event.field[1]), word[cfg.cols * 4:], word[:cfg.cols * 4])),
            quarter.eq(Mux(event.field[0], half[cfg.cols * 2:], half[:cfg.cols * 2])),
            self.o.valid.eq(Mux(self.streamed, streamed.valid, resident.valid)),
            out.tile.eq(event.tile),
            out.bank.eq(self.bank),
            out.level.eq(event.level),
            out.marker.eq(event.marker),
            out.last.eq(event.last),
        ]
        with m.If(self.streamed):
            m.d.comb += event.eq(streamed.event)
        with m.Else():
            m.d.comb += event.eq(resident.event)
        weights = []
        for column in range(cfg.cols):
            nibble, pair = half[column * 4:column * 4 + 4], quarter[column * 2:column * 2 + 2]
            weights.append(Mux(self.is8, word[column * 8:column * 8 + 8],
                               Mux(self.is4, _sign_extend(nibble), _sign_extend(pair))))
        m.d.comb += out.weights.eq(Cat(weights))


class _Answer:
    """An event with the word that holds its weights."""

    def __init__(self, event: data.StructLayout, width: int, name: str):
        self.valid = Signal(name=f"{name}_valid")
        self.event = Signal(event, name=f"{name}_event")
        self.word = Signal(width, name=f"{name}_word")


class _Stage:
    """An event whose row is being checked."""

    def __init__(self, event: data.StructLayout):
        self.valid = Signal(name="staged_valid")
        self.event = Signal(event, name="staged_event")
        self.first_row = Signal(16 + TILE_WIDTH + 1, name="staged_first_row")
        self.offset = Signal(41, name="staged_offset")
        self.refused = Signal(name="staged_refused")


def _sign_extend(value):
    """A narrow signed weight as WEIGHT_WIDTH bits."""
    return Cat(value, value[-1].replicate(WEIGHT_WIDTH - len(value)))
