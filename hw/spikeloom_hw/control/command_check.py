"""Refuses commands that could hang the machine or write where they must not."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.commands import (
    COMMAND_BITS,
    FIELDS,
    SINKS,
    SPIKE_BUFFERS,
    STATELESS,
    Attention,
    Buffer,
    Memory,
    Neuron,
    Opcode,
    Order,
    Sink,
)
from spikeloom.arch.config import MAX_TILES, WEIGHT_BITS, AcceleratorConfig
from spikeloom.arch.registers import ErrorCode

from ..datapath.neuron_lane import MAX_EMBED_SHIFT


def fields_of(word) -> SimpleNamespace:
    """The fields of a 256-bit command as slices, by name."""
    return SimpleNamespace(**{f.name: word[f.lsb:f.lsb + f.width] for f in FIELDS.values()})


class CommandCheck(wiring.Component):
    """Says whether a command is within the limits of the machine and of the loaded model.

    Streamed rows are checked where their addresses are made (`storage.row_source`).

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    command : In(256)
    sweeping : In(1)
        The command is part of a sweep: SWEEP is allowed.
    slots : In(16)
        Slots of the residual store that the command is run for, from its `stream` on.
    context : In(16)
        Positions of the model: the KV region of a layer must hold them.
    image_bytes : In(32)
        Bound of LOADs.
    code : Out(4)
        `arch.registers.ErrorCode`: NONE, BAD_PROGRAM or BAD_ADDRESS.

    Latency
    -------
    One cycle.

    Reference
    ---------
    `arch.commands`, `spikeloom.model.command_check`.
    """

    latency = 1

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        super().__init__({
            "command": In(COMMAND_BITS), "sweeping": In(1), "slots": In(16), "context": In(16), "image_bytes": In(32), "code": Out(4),
        })

    def elaborate(self, platform):
        m = Module()
        c = fields_of(self.command)
        bad, outside = Signal(), Signal()
        # Faults that several opcodes share, each once.
        self._build_shared(m, c)
        checks = {
            Opcode.HALT: 0,
            Opcode.PICK: 0,
            Opcode.SWEEP: ~self.sweeping,
            Opcode.DUMP: self._no_groups | self._bad_stream | (c.d_buffer > max(Buffer)),
            Opcode.ATTEND: self._check_attend(c),
            Opcode.EMBED: self._no_groups | self._bad_stream | self._bad_tiles | self._check_sink(m, c, Opcode.EMBED),
            Opcode.FIRE: self._no_groups | self._bad_stream | self._too_wide | self._check_sink(m, c, Opcode.FIRE),
            Opcode.LINEAR: (self._no_groups | self._bad_stream | self._bad_tiles | self._bad_params | (c.n_in == 0)
                            | (c.n_in > self.cfg.max_neurons) | (c.src >= SPIKE_BUFFERS) | self._check_sink(m, c, Opcode.LINEAR)),
            Opcode.LOAD: (c.l_words == 0) | (c.l_memory > max(Memory)) | c.l_offset[:exact_log2(self.cfg.bus_bytes)].any(),
        }
        m.d.sync += bad.eq(1)
        with m.Switch(c.opcode):
            for opcode, check in checks.items():
                with m.Case(opcode):
                    m.d.sync += bad.eq(check)
        self._check_load(m, c, outside)
        load = Signal()
        m.d.sync += load.eq(c.opcode == Opcode.LOAD)
        with m.If(bad):
            m.d.comb += self.code.eq(ErrorCode.BAD_PROGRAM)
        with m.Elif(load & outside):
            m.d.comb += self.code.eq(ErrorCode.BAD_ADDRESS)
        with m.Else():
            m.d.comb += self.code.eq(ErrorCode.NONE)
        return m

    def _build_shared(self, m, c):
        cfg = self.cfg

        def named(name, condition):
            signal = Signal(name=name)
            m.d.comb += signal.eq(condition)
            setattr(self, f"_{name}", signal)

        width_groups = cfg.max_width // cfg.lanes
        end, params_end, levels = Signal(18), Signal(18), Signal(4)
        stateless = Cat(c.neuron == kind for kind in STATELESS).any()
        leveled = stateless | (c.neuron == Neuron.I_LIF)
        m.d.comb += [end.eq(c.base_group + c.groups), params_end.eq(c.params + c.groups), levels.eq(Mux(leveled, cfg.level_max, 1))]
        named("no_groups", c.groups == 0)
        named("too_wide", c.groups > width_groups)
        named("bad_params", params_end > cfg.parameter_words)
        named("bad_neuron", self._bad_params | (c.neuron > max(Neuron)) | (c.level == 0) | (c.level > levels)
              | (~stateless & (params_end > cfg.membrane_words)))
        named("bad_stream", c.stream + self.slots > cfg.residual_slots)
        named("bad_tiles", (c.tiles == 0) | (c.tiles > MAX_TILES) | (c.weight_code >= len(WEIGHT_BITS))
              | (c.groups > (c.tiles << exact_log2(cfg.groups_per_tile)))
              # A streamed row comes whole, so that its tiles cannot be taken apart.
              | (c.streamed & (c.order == Order.TILES) & (c.tiles != 1)))
        named("bad_shift", c.embed_shift > MAX_EMBED_SHIFT)
        named("past_residual", end > width_groups)
        named("past_logits", end > cfg.max_vocabulary // cfg.lanes)
        named("bad_spikes", self._bad_neuron | (end > cfg.max_neurons // cfg.lanes) | (c.dst >= SPIKE_BUFFERS))

    def _bad_region(self, base):
        return (base + self.context > self.cfg.kv_positions) | base[:exact_log2(self.cfg.score_banks)].any()

    def _check_attend(self, c):
        return (self._no_groups | self._too_wide | self._bad_neuron | (c.dst >= SPIKE_BUFFERS) | (c.attention > max(Attention))
                | (c.head_level >= self.cfg.head_levels) | self._bad_region(c.a_kv_base)
                | ((c.attention == Attention.WTA) & ((c.top_k == 0) | (c.top_k > self.cfg.k_max))))

    def _check_sink(self, m, c, opcode):
        """Whether the sink is none of this opcode's, or what it needs is missing."""
        width_groups = self.cfg.max_width // self.cfg.lanes
        in_place = (opcode == Opcode.LINEAR) & (c.src == c.dst)
        checks = {
            Sink.SPIKES: self._bad_spikes | in_place,
            Sink.QKV: (self._bad_spikes | in_place | (c.attn_groups == 0) | (c.attn_groups > width_groups)
                       | (c.groups > c.attn_groups + (c.attn_groups << 1)) | self._bad_region(c.kv_base)),
            Sink.RESIDUAL: self._past_residual,
            Sink.LOGITS: self._past_logits,
            Sink.ADD_SPIKES: self._past_residual | self._bad_neuron | self._bad_shift,
            Sink.SET_SPIKES: self._bad_spikes | self._bad_shift | (self._past_residual if opcode == Opcode.EMBED else 0),
            Sink.SET: self._past_residual | self._bad_shift,
        }
        bad = Signal(name=f"bad_sink_{opcode.name.lower()}")
        m.d.comb += bad.eq(1)
        with m.Switch(c.sink):
            for sink in SINKS[opcode]:
                with m.Case(sink):
                    m.d.comb += bad.eq(checks[sink])
        return bad

    def _check_load(self, m, c, outside):
        cfg = self.cfg
        for memory, (depth, word_bytes) in {Memory.RESIDENT: (cfg.resident_words, cfg.cols),
                                            Memory.PARAMETERS: (cfg.parameter_words, cfg.lanes * 8)}.items():
            with m.If(c.l_memory == memory):
                m.d.sync += outside.eq((c.l_address + c.l_words > depth)
                                       | (c.l_offset + (c.l_words << exact_log2(word_bytes)) > self.image_bytes))
