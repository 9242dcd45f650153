"""Weight rows, on chip or from memory, behind one face."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from spikeloom.arch.config import WEIGHT_BITS, AcceleratorConfig
from spikeloom.arch.streamed_cycles import ROW_QUEUE

from ..bus.axi_reader import beat_layout, request_layout
from ..layouts import TILE_WIDTH, WEIGHT_WIDTH, event_layout, weights_layout
from ..lib.arith import adder_tree, shift_add_terms
from .streamed_rows import StreamedRows, tile_row_layout

#: Bits of a resident tile row's number that count; a number with any higher bit set is out of range.
INDEX_WIDTH = 24
#: Bits of one slice of the on-chip rows.
SLICE_WIDTH = 64


class RowSource(wiring.Component):
    """Answers every event with the weights of its row and tile, in order; markers pass through.

    Resident rows are read from on-chip memory, both rows of a pair in the same cycle: the first through the port that also
    loads, so that the memory is one of two ports. For streamed rows see `StreamedRows`, which a streamed command's events go
    to. All formats come out as signed bytes.

    A row that lies outside is reported and keeps its place in the stream with level 0, so that nothing is added and
    nothing hangs.

    Parameters
    ----------
    cfg : AcceleratorConfig
    depth : int
        Streamed rows that wait for their beats.

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
        Loader's write port: a word of `cols` bytes. Resident rows wait for that cycle.
    i : In(stream.Signature(event_layout(cfg)))
        Events.
    o : Out(stream.Signature(weights_layout(cfg)))
        The events with their weights.
    o_request : Out(stream.Signature(request_layout(address_width)))
        Runs of beats wanted; addresses are offsets like `address`.
    i_beat : In(stream.Signature(beat_layout(bus_width)))
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
    Resident: one cycle from `i` to `o`, one tile row per cycle. Streamed: that of `StreamedRows`.

    Reference
    ---------
    `arch.layout.unpack_rows`.
    """

    #: Cycles from an event to its weights, resident.
    latency = 1
    def __init__(self, *, cfg: AcceleratorConfig, depth: int = ROW_QUEUE):
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
            "i_beat": In(stream.Signature(beat_layout(cfg.bus_width))),
            "error_valid": Out(1), "error_address": Out(40),
            "waiting": Out(1), "requested_beats": Out(request["beats"].width), "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        self.is8, self.is4 = Signal(), Signal()
        m.d.comb += [
            self.is8.eq(self.weight_code == WEIGHT_BITS.index(8)),
            self.is4.eq(self.weight_code == WEIGHT_BITS.index(4)),
        ]
        m.submodules.rows = rows = StreamedRows(cfg=cfg, depth=self.depth)
        resident = stream.Signature(tile_row_layout(cfg)).create()
        index, outside = self._build_resident(m, resident)
        self._build_streamed(m, rows)
        self._build_output(m, resident, rows.o)
        reject = self.i.valid & resident.ready & ~self.streamed & outside
        refused, number = Signal(), Signal(INDEX_WIDTH + 1)
        m.d.sync += [refused.eq(reject), number.eq(index)]
        m.d.comb += [
            self.i.ready.eq(Mux(self.streamed, rows.i.ready, resident.ready)),
            self.busy.eq(self.i.valid | resident.valid | rows.busy),
            self.error_valid.eq(refused | rows.error_valid),
            self.error_address.eq(Mux(rows.error_valid, rows.error_address, number)),
        ]
        return m

    def _build_resident(self, m, answer):
        """On-chip rows: a synchronous read that holds its answer while the consumer waits."""
        cfg, event, kept, pairs = self.cfg, self.i.payload, answer.payload, self.cfg.events == 2
        address_bits = ceil_log2(cfg.resident_words)
        step, read, shared = answer.ready, Signal(), Signal(address_bits)
        self.pair = Signal(data.StructLayout({"closes": 1, "both": 1, "field_b": 2}))
        #: Of what is at the output: the row lies outside.
        away, away_b = Signal(), Signal()
        level = Signal(event["level"].shape())
        if pairs:
            level_b, self.level_b = Signal(level.shape()), Signal(level.shape())
        index, word, outside = self._locate(m, event.row, ~event.marker)
        m.d.comb += [
            step.eq((~answer.valid | self.o.ready) & ~self.l_en),
            read.eq(step & self.i.valid),
            shared.eq(Mux(self.l_en, self.l_address, word)),
        ]
        if pairs:
            index_b, word_b, outside_b = self._locate(m, event.row_b, event.both)
            self.word_b = Signal(cfg.cols * 8)
        for low in range(0, cfg.cols * 8, SLICE_WIDTH):
            high = min(low + SLICE_WIDTH, cfg.cols * 8)
            m.submodules[f"words{low // SLICE_WIDTH}"] = words = memory.Memory(
                shape=unsigned(high - low), depth=cfg.resident_words, init=[])
            port, write = words.read_port(), words.write_port()
            m.d.comb += [
                port.addr.eq(shared), port.en.eq(read), kept.word[low:high].eq(port.data),
                write.addr.eq(shared), write.en.eq(self.l_en), write.data.eq(self.l_data[low:high]),
            ]
            if pairs:
                port = words.read_port()
                m.d.comb += [port.addr.eq(word_b[:address_bits]), port.en.eq(read & event.both), self.word_b[low:high].eq(port.data)]
        with m.If(self.l_en & self.o.ready):
            m.d.sync += answer.valid.eq(0)
        with m.If(step):
            m.d.sync += [
                answer.valid.eq(self.i.valid & ~self.streamed),
                kept.tile.eq(event.tile),
                level.eq(event.level), away.eq(outside),
                kept.marker.eq(event.marker),
                kept.last.eq(event.last),
                kept.field.eq(index[:2]),
                self.pair.closes.eq(event.closes),
            ]
            if pairs:
                m.d.sync += [
                    self.pair.both.eq(event.both), level_b.eq(event.level_b), away_b.eq(outside_b), self.pair.field_b.eq(index_b[:2]),
                ]
        m.d.comb += kept.level.eq(Mux(away, 0, level))
        if pairs:
            m.d.comb += self.level_b.eq(Mux(away_b, 0, level_b))
        return (Mux(outside, index, index_b), outside | outside_b) if pairs else (index, outside)

    def _locate(self, m, row, there):
        """Number of a tile row, its word, and whether it lies outside."""
        index, word, outside = Signal(INDEX_WIDTH + 1), Signal(INDEX_WIDTH + 1), Signal()
        m.d.comb += [
            # One tree: what is known early is the last of its terms.
            index.eq(adder_tree([*shift_add_terms(row, self.tiles), self.address[:INDEX_WIDTH] + self.i.payload.tile])),
            word.eq(Mux(self.is8, index, Mux(self.is4, index >> 1, index >> 2))),
            outside.eq(there & (self.address[INDEX_WIDTH:].any() | (word >= self.cfg.resident_words))),
        ]
        return index, word, outside

    def _build_streamed(self, m, rows):
        """The events of streamed commands, and the bus."""
        for name in ("address", "tiles", "weight_code", "image_bytes"):
            m.d.comb += getattr(rows, name).eq(getattr(self, name))
        m.d.comb += [
            rows.i.valid.eq(self.i.valid & self.streamed), rows.i.payload.eq(self.i.payload), rows.o.ready.eq(self.o.ready),
            self.waiting.eq(rows.waiting), self.requested_beats.eq(rows.requested_beats),
        ]
        wiring.connect(m, rows.o_request, wiring.flipped(self.o_request))
        wiring.connect(m, wiring.flipped(self.i_beat), rows.i_beat)

    def _build_output(self, m, resident, streamed):
        """Choose the answer and unpack its weights."""
        cfg, out = self.cfg, self.o.payload
        answer = Signal(tile_row_layout(cfg))
        with m.If(self.streamed):
            m.d.comb += [answer.eq(streamed.payload), self.o.valid.eq(streamed.valid)]
        with m.Else():
            m.d.comb += [answer.eq(resident.payload), self.o.valid.eq(resident.valid), out.closes.eq(self.pair.closes)]
            if cfg.events == 2:
                m.d.comb += [out.both.eq(self.pair.both), out.level_b.eq(self.level_b)]
        if cfg.events == 2:
            m.d.comb += out.weights_b.eq(self._unpack(m, self.word_b, self.pair.field_b))
        m.d.comb += [
            out.weights.eq(self._unpack(m, answer.word, answer.field)),
            out.tile.eq(answer.tile),
            out.bank.eq(self.bank),
            out.level.eq(answer.level),
            out.marker.eq(answer.marker),
            out.last.eq(answer.last),
        ]

    def _unpack(self, m, word, field):
        """Signed bytes of a tile row in its word."""
        cfg, weights = self.cfg, []
        half, quarter = Signal(cfg.cols * 4), Signal(cfg.cols * 2)
        m.d.comb += [
            half.eq(Mux(Mux(self.is4, field[0], field[1]), word[cfg.cols * 4:], word[:cfg.cols * 4])),
            quarter.eq(Mux(field[0], half[cfg.cols * 2:], half[:cfg.cols * 2])),
        ]
        for column in range(cfg.cols):
            nibble, pair = half[column * 4:column * 4 + 4], quarter[column * 2:column * 2 + 2]
            weights.append(Mux(self.is8, word[column * 8:column * 8 + 8],
                               Mux(self.is4, _sign_extend(nibble), _sign_extend(pair))))
        return Cat(weights)


def _sign_extend(value):
    """A narrow signed weight as WEIGHT_WIDTH bits."""
    return Cat(value, value[-1].replicate(WEIGHT_WIDTH - len(value)))
