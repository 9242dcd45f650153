"""Which commands a machine refuses: the emulator's side of what the gateware checks before it dispatches."""

from ..arch.commands import Attention, Buffer, Command, Memory, Neuron, Opcode, Order, Sink
from ..arch.config import MAX_TILES, WEIGHT_BITS, AcceleratorConfig
from ..arch.registers import ErrorCode


def check_command(command: Command, cfg: AcceleratorConfig, *, context: int, image_bytes: int) -> ErrorCode:
    """NONE, BAD_PROGRAM or BAD_ADDRESS for a command.

    Parameters
    ----------
    context : int
        Positions of the model: the KV region of a layer must hold them.
    image_bytes : int
        Bound of LOADs; streamed rows are checked as they are read.
    """
    opcode = command.opcode
    if opcode in (Opcode.HALT, Opcode.PICK):
        return ErrorCode.NONE
    if opcode == Opcode.LOAD:
        return _check_load(command, cfg, image_bytes)
    checks = {Opcode.EMBED: _bad_embed, Opcode.FIRE: _bad_fire, Opcode.LINEAR: _bad_linear, Opcode.ATTEND: _bad_attend,
              Opcode.DUMP: lambda c, *_: c["groups"] == 0 or c["d_buffer"] > max(Buffer)}
    return ErrorCode.BAD_PROGRAM if checks[opcode](command, cfg, context) else ErrorCode.NONE


def _check_load(c, cfg, image_bytes):
    if c["l_words"] == 0 or c["l_memory"] > max(Memory) or c["l_offset"] % cfg.beat_bytes:
        return ErrorCode.BAD_PROGRAM
    depth, word_bytes = memory_shape(Memory(c["l_memory"]), cfg)
    outside = c["l_address"] + c["l_words"] > depth or c["l_offset"] + c["l_words"] * word_bytes > image_bytes
    return ErrorCode.BAD_ADDRESS if outside else ErrorCode.NONE


def memory_shape(memory: Memory, cfg: AcceleratorConfig) -> tuple[int, int]:
    """(words, bytes of a word) of an on-chip memory."""
    return {Memory.RESIDENT: (cfg.resident_words, cfg.cols), Memory.PARAMETERS: (cfg.parameter_words, cfg.lanes * 8)}[memory]


def _bad_tiles(c, cfg):
    return (not 1 <= c["tiles"] <= MAX_TILES or c["weight_code"] >= len(WEIGHT_BITS)
            or c["groups"] > c["tiles"] * cfg.groups_per_tile
            or c["streamed"] and c["order"] == Order.TILES and c["tiles"] != 1)


def _bad_groups(c, cfg):
    return c["groups"] == 0 or c["params"] + c["groups"] > cfg.parameter_words


def _bad_neuron(c, cfg):
    return c["neuron"] != Neuron.NI_LIF or not 1 <= c["level"] <= cfg.level_max or c["steps"] > 1


def _bad_region(base, cfg, context):
    return base % cfg.score_banks or base + context > cfg.kv_positions


def _bad_embed(c, cfg, context):
    return (c["groups"] == 0 or _bad_tiles(c, cfg) or c["embed_shift"] > 8
            or c["base_group"] + c["groups"] > cfg.max_width // cfg.lanes)


def _bad_fire(c, cfg, context):
    return _bad_groups(c, cfg) or _bad_neuron(c, cfg) or c["groups"] > cfg.max_width // cfg.lanes


def _bad_attend(c, cfg, context):
    return (_bad_fire(c, cfg, context) or c["attention"] != Attention.WTA or c["bidirectional"]
            or not 1 <= c["top_k"] <= cfg.k_max or c["head_level"] >= cfg.head_levels
            or _bad_region(c["a_kv_base"], cfg, context))


def _bad_linear(c, cfg, context):
    if _bad_groups(c, cfg) or _bad_tiles(c, cfg) or c["n_in"] > cfg.max_neurons or c["sink"] > max(Sink):
        return True
    sink, end = Sink(c["sink"]), c["base_group"] + c["groups"]
    width_groups = cfg.max_width // cfg.lanes
    if sink == Sink.RESIDUAL:
        return end > width_groups
    if sink == Sink.LOGITS:
        return end > cfg.max_vocabulary // cfg.lanes
    spiking = _bad_neuron(c, cfg) or end > cfg.max_neurons // cfg.lanes or c["src"] == c["dst"]
    if sink == Sink.SPIKES:
        return spiking
    return (spiking or not 1 <= c["attn_groups"] <= width_groups or c["groups"] > 3 * c["attn_groups"]
            or _bad_region(c["kv_base"], cfg, context))
