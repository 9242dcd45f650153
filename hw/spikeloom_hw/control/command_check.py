"""Refuses commands that could hang the machine or write where they must not."""

from types import SimpleNamespace

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.commands import COMMAND_BITS, FIELDS, Attention, Buffer, Memory, Neuron, Opcode, Order, Sink
from spikeloom.arch.config import MAX_TILES, WEIGHT_BITS, AcceleratorConfig
from spikeloom.arch.registers import ErrorCode


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
    context : In(16)
        Positions of the model: the KV region of a layer must hold them.
    image_bytes : In(32)
        Bound of LOADs.
    code : Out(4)
        `arch.registers.ErrorCode`: NONE, BAD_PROGRAM or BAD_ADDRESS.

    Latency
    -------
    Two cycles.

    Reference
    ---------
    `arch.commands`.
    """

    latency = 2

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        super().__init__({"command": In(COMMAND_BITS), "context": In(16), "image_bytes": In(32), "code": Out(4)})

    def elaborate(self, platform):
        m = Module()
        cfg, c = self.cfg, fields_of(self.command)
        width_groups, neuron_groups = cfg.max_width // cfg.lanes, cfg.max_neurons // cfg.lanes
        vocabulary_groups = cfg.max_vocabulary // cfg.lanes
        bad_groups = c.groups == 0
        bad_params = c.params + c.groups > cfg.parameter_words
        bad_neuron = (c.neuron != Neuron.NI_LIF) | (c.level == 0) | (c.level > cfg.level_max) | (c.steps > 1)
        bad_tiles = ((c.tiles == 0) | (c.tiles > MAX_TILES) | (c.weight_code >= len(WEIGHT_BITS))
                     | (c.groups > (c.tiles << exact_log2(cfg.groups_per_tile)))
                     # A streamed row comes whole, so that its tiles cannot be taken apart.
                     | (c.streamed & (c.order == Order.TILES) & (c.tiles != 1)))
        end = Signal(18)
        m.d.comb += end.eq(c.base_group + c.groups)

        bad, outside = Signal(), Signal()
        checks = {
            Opcode.HALT: 0,
            Opcode.PICK: 0,
            Opcode.EMBED: bad_groups | bad_tiles | (end > width_groups) | (c.embed_shift > 8),
            Opcode.FIRE: bad_groups | bad_params | bad_neuron | (c.groups > width_groups),
            Opcode.ATTEND: (bad_groups | bad_params | bad_neuron | (c.groups > width_groups)
                            | (c.attention != Attention.WTA) | c.bidirectional | (c.top_k == 0) | (c.top_k > cfg.k_max)
                            | (c.head_level >= cfg.head_levels) | (c.a_kv_base + self.context > cfg.kv_positions)
                            | c.a_kv_base[:exact_log2(cfg.score_banks)].any()),
            Opcode.DUMP: bad_groups | (c.d_buffer > max(Buffer)),
        }
        sinks = {
            Sink.SPIKES: bad_neuron | (end > neuron_groups) | (c.src == c.dst),
            Sink.QKV: (bad_neuron | (end > neuron_groups) | (c.src == c.dst) | (c.attn_groups == 0)
                       | (c.attn_groups > width_groups) | (c.groups > c.attn_groups + (c.attn_groups << 1))
                       | (c.kv_base + self.context > cfg.kv_positions) | c.kv_base[:exact_log2(cfg.score_banks)].any()),
            Sink.RESIDUAL: end > width_groups,
            Sink.LOGITS: end > vocabulary_groups,
        }
        m.d.sync += bad.eq(1)
        with m.Switch(c.opcode):
            for opcode, check in checks.items():
                with m.Case(opcode):
                    m.d.sync += bad.eq(check)
            with m.Case(Opcode.LINEAR):
                common = bad_groups | bad_params | bad_tiles | (c.n_in > cfg.max_neurons)
                with m.Switch(c.sink):
                    for sink, check in sinks.items():
                        with m.Case(sink):
                            m.d.sync += bad.eq(common | check)
            with m.Case(Opcode.LOAD):
                m.d.sync += bad.eq((c.l_words == 0) | (c.l_memory > max(Memory)) | c.l_offset[:exact_log2(cfg.beat_bytes)].any())
        self._check_load(m, c, outside)
        load = Signal()
        m.d.sync += load.eq(c.opcode == Opcode.LOAD)
        with m.If(bad):
            m.d.sync += self.code.eq(ErrorCode.BAD_PROGRAM)
        with m.Elif(load & outside):
            m.d.sync += self.code.eq(ErrorCode.BAD_ADDRESS)
        with m.Else():
            m.d.sync += self.code.eq(ErrorCode.NONE)
        return m

    def _check_load(self, m, c, outside):
        cfg = self.cfg
        for memory, (depth, word_bytes) in {Memory.RESIDENT: (cfg.resident_words, cfg.cols),
                                            Memory.PARAMETERS: (cfg.parameter_words, cfg.lanes * 8)}.items():
            with m.If(c.l_memory == memory):
                m.d.sync += outside.eq((c.l_address + c.l_words > depth)
                                       | (c.l_offset + (c.l_words << exact_log2(word_bytes)) > self.image_bytes))
