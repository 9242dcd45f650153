"""Copies memory into on-chip tables: the LOAD command."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.commands import Memory
from spikeloom.arch.config import AcceleratorConfig, bits_for
from spikeloom.arch.cycles import LOAD_WORDS

from ..bus.axi_reader import beat_layout, request_layout


class Loader(wiring.Component):
    """Requests runs of words from memory and writes each word into the resident rows or the parameter table.

    Does not check that the run lies inside the image: the sequencer does.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    start : In(1)
        Begin the job below.
    offset, memory, address, words : In
        Byte offset in memory, `arch.commands.Memory`, first word, number of words (at least one).
    o_request, i_beat : streams
        To and from the AXI reader (addresses are offsets).
    w_resident, w_parameters : Out(1)
        Write strobes, with `w_address` and `w_data` (low bits for the narrower memory).
    done : Out(1)
        One cycle, after the last word.
    busy : Out(1)
        From the cycle after `start` up to that before `done`.

    Latency
    -------
    One word per word's beats, plus the bus; a request has up to `arch.cycles.LOAD_WORDS` words, so that bursts are long.

    Reference
    ---------
    `arch.layout.pack_rows`, `arch.layout.pack_parameters`: bytes are copied as they are.
    """

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        self.resident_beats = cfg.cols * 8 // cfg.bus_width
        self.parameter_beats = cfg.lanes * 64 // cfg.bus_width
        self.word_width = max(cfg.cols * 8, cfg.lanes * 64)
        super().__init__({
            "start": In(1), "offset": In(cfg.address_width), "memory": In(2), "address": In(20), "words": In(20),
            "o_request": Out(stream.Signature(request_layout(cfg.address_width))),
            "i_beat": In(stream.Signature(beat_layout(cfg.bus_width))),
            "w_resident": Out(1), "w_parameters": Out(1), "w_address": Out(20), "w_data": Out(self.word_width),
            "done": Out(1), "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        most = max(self.resident_beats, self.parameter_beats)
        parameters = Signal()
        beats = Signal(bits_for(most))
        m.d.comb += [
            beats.eq(Mux(parameters, self.parameter_beats, self.resident_beats)),
        ]
        wanted, written, asked = Signal(20), Signal(20), Signal(range(LOAD_WORDS + 1))
        request, step = self.o_request, exact_log2(LOAD_WORDS)
        m.d.comb += [
            request.valid.eq(wanted != 0), asked.eq(Mux(wanted[step:] != 0, LOAD_WORDS, wanted[:step])),
            request.payload.beats.eq(Mux(parameters, asked << exact_log2(self.parameter_beats),
                                         asked << exact_log2(self.resident_beats))),
        ]
        with m.If(request.valid & request.ready):
            # What follows a request of fewer words is nothing.
            m.d.sync += [wanted.eq(wanted - asked), request.payload.address.eq(
                request.payload.address + Mux(parameters, LOAD_WORDS * cfg.lanes * 8, LOAD_WORDS * cfg.cols))]

        count = Signal(bits_for(most))
        parts = [Signal(cfg.bus_width, name=f"part{i}") for i in range(most)]
        write = Signal()
        m.d.comb += [self.i_beat.ready.eq(1), self.w_data.eq(Cat(parts)),
                     self.w_resident.eq(write & ~parameters), self.w_parameters.eq(write & parameters)]
        m.d.sync += [write.eq(0), self.done.eq(0)]
        with m.If(self.i_beat.valid & (written != 0)):
            with m.Switch(count):
                for i, part in enumerate(parts):
                    with m.Case(i):
                        m.d.sync += part.eq(self.i_beat.payload.data)
            m.d.sync += count.eq(count + 1)
            with m.If(count + 1 == beats):
                m.d.sync += [count.eq(0), write.eq(1), written.eq(written - 1)]
        with m.If(write):
            m.d.sync += self.w_address.eq(self.w_address + 1)
            with m.If(written == 0):
                m.d.sync += [self.done.eq(1), self.busy.eq(0)]
        with m.If(self.start):
            m.d.sync += [wanted.eq(self.words), written.eq(self.words), request.payload.address.eq(self.offset),
                         self.w_address.eq(self.address), count.eq(0), parameters.eq(self.memory == Memory.PARAMETERS), self.busy.eq(1)]
        return m
