"""Which commands a machine refuses: the emulator's side of what the gateware checks before it dispatches."""

from ..arch.commands import SINKS, SPIKE_BUFFERS, STATELESS, Attention, Buffer, Command, Memory, Neuron, Opcode, Order, Sink
from ..arch.config import MAX_TILES, WEIGHT_BITS, AcceleratorConfig
from ..arch.registers import ErrorCode

#: Neurons with levels up to `level_max`; the others fire 0, 1 (or -1).
LEVELED = (Neuron.NI_LIF, Neuron.I_LIF, Neuron.SIGNED_NI_LIF)
_SHIFT_MAX = 8


def check_command(command: Command, cfg: AcceleratorConfig, *, context: int, image_bytes: int, sweeping: bool = False,
                  slots: int = 1) -> ErrorCode:
    """NONE, BAD_PROGRAM or BAD_ADDRESS for a command.

    Parameters
    ----------
    context : int
        Positions of the model: the KV region of a layer must hold them.
    image_bytes : int
        Bound of LOADs; streamed rows are checked as they are read.
    sweeping : bool
        The command is part of a sweep: SWEEP is allowed.
    slots : int
        Slots of the residual store that it is run for, from its `stream` on.
    """
    opcode = command.opcode
    if opcode in (Opcode.HALT, Opcode.PICK):
        return ErrorCode.NONE
    if opcode == Opcode.LOAD:
        return _check_load(command, cfg, image_bytes)
    if opcode == Opcode.SWEEP:
        return ErrorCode.NONE if sweeping else ErrorCode.BAD_PROGRAM
    if opcode == Opcode.DUMP:
        bad = command["groups"] == 0 or command["d_buffer"] > max(Buffer)
    elif opcode == Opcode.ATTEND:
        bad = _bad_attend(command, cfg, context)
    else:
        bad = _bad_pass(command, cfg, context)
    return ErrorCode.BAD_PROGRAM if bad or _bad_stream(command, cfg, slots) else ErrorCode.NONE


def _check_load(c, cfg, image_bytes):
    if c["l_words"] == 0 or c["l_memory"] > max(Memory) or c["l_offset"] % cfg.bus_bytes:
        return ErrorCode.BAD_PROGRAM
    depth, word_bytes = memory_shape(Memory(c["l_memory"]), cfg)
    outside = c["l_address"] + c["l_words"] > depth or c["l_offset"] + c["l_words"] * word_bytes > image_bytes
    return ErrorCode.BAD_ADDRESS if outside else ErrorCode.NONE


def memory_shape(memory: Memory, cfg: AcceleratorConfig) -> tuple[int, int]:
    """(words, bytes of a word) of an on-chip memory."""
    return {Memory.RESIDENT: (cfg.resident_words, cfg.cols), Memory.PARAMETERS: (cfg.parameter_words, cfg.lanes * 8)}[memory]


def _bad_stream(c, cfg, slots):
    return c.opcode != Opcode.ATTEND and c["stream"] + slots > cfg.residual_slots


def _bad_tiles(c, cfg):
    return (not 1 <= c["tiles"] <= MAX_TILES or c["weight_code"] >= len(WEIGHT_BITS)
            or c["groups"] > c["tiles"] * cfg.groups_per_tile
            or c["streamed"] and c["order"] == Order.TILES and c["tiles"] != 1)


def _bad_params(c, cfg):
    return c["params"] + c["groups"] > cfg.parameter_words


def _bad_neuron(c, cfg):
    if c["neuron"] > max(Neuron):
        return True
    kind = Neuron(c["neuron"])
    return (_bad_params(c, cfg) or not 1 <= c["level"] <= (cfg.level_max if kind in LEVELED else 1)
            or kind not in STATELESS and c["params"] + c["groups"] > cfg.membrane_words)


def _bad_region(base, cfg, context):
    return base % cfg.score_banks or base + context > cfg.kv_positions


def _bad_attend(c, cfg, context):
    return (c["groups"] == 0 or c["groups"] > cfg.max_width // cfg.lanes or _bad_neuron(c, cfg) or c["dst"] >= SPIKE_BUFFERS
            or c["attention"] > max(Attention) or c["head_level"] >= cfg.head_levels
            or c["attention"] == Attention.WTA and not 1 <= c["top_k"] <= cfg.k_max
            or _bad_region(c["a_kv_base"], cfg, context))


def _bad_pass(c, cfg, context):
    """EMBED, FIRE and LINEAR."""
    width_groups = cfg.max_width // cfg.lanes
    if c["groups"] == 0 or c["sink"] not in SINKS[c.opcode]:
        return True
    if c.opcode == Opcode.FIRE:
        if c["groups"] > width_groups:
            return True
    elif _bad_tiles(c, cfg):
        return True
    if c.opcode == Opcode.EMBED and c["base_group"] + c["groups"] > width_groups:
        return True
    if c.opcode == Opcode.LINEAR and (not 1 <= c["n_in"] <= cfg.max_neurons or c["src"] >= SPIKE_BUFFERS or _bad_params(c, cfg)):
        return True
    return _bad_sink(c, cfg, context, width_groups)


def _bad_sink(c, cfg, context, width_groups):
    sink, end = Sink(c["sink"]), c["base_group"] + c["groups"]
    if sink in (Sink.RESIDUAL, Sink.ADD_SPIKES, Sink.SET):
        shifted = sink != Sink.RESIDUAL and c["embed_shift"] > _SHIFT_MAX
        return end > width_groups or shifted or sink == Sink.ADD_SPIKES and _bad_neuron(c, cfg)
    if sink == Sink.LOGITS:
        return end > cfg.max_vocabulary // cfg.lanes
    if (_bad_neuron(c, cfg) or end > cfg.max_neurons // cfg.lanes or c["dst"] >= SPIKE_BUFFERS
            or c.opcode == Opcode.LINEAR and c["src"] == c["dst"]):
        return True
    if sink == Sink.SET_SPIKES:
        return c["embed_shift"] > _SHIFT_MAX
    return sink == Sink.QKV and (not 1 <= c["attn_groups"] <= width_groups or c["groups"] > 3 * c["attn_groups"]
                                 or _bad_region(c["kv_base"], cfg, context))
