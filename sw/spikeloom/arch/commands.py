"""Opcodes and the fields of a command: 256 bits, the same positions for encoder, decoder and gates.

A program is a list of commands with up to three entry points (boot, token, prefill; each section ends with HALT). The compiler unrolls
layers; the sequencer loops over tokens. Commands flagged `head` run only for tokens whose successor is wanted.
"""

from dataclasses import dataclass
from enum import IntEnum

from .config import require

COMMAND_BITS = 256
#: 32-bit words of one command, least significant first.
COMMAND_WORDS = COMMAND_BITS // 32


class Opcode(IntEnum):
    """What a command does."""

    HALT = 0      #: end of the section
    LOAD = 1      #: memory -> resident rows or parameter table; in a sweep at its first position alone
    EMBED = 2     #: residual = rows of the embedding (token, then position) << embed_shift
    FIRE = 3      #: residual -> spikes
    LINEAR = 4    #: spikes x rows -> sums -> sink
    ATTEND = 5    #: scores -> winners -> gathered values -> spikes
    PICK = 6      #: logits -> token
    DUMP = 7      #: buffer -> memory
    SWEEP = 8     #: ENCODE, prefill: back to the first command of the sweep with the next position; after the last one, go on


#: Commands of whose output the trace keeps a checksum.
TRACED = (Opcode.EMBED, Opcode.FIRE, Opcode.LINEAR, Opcode.ATTEND)


class Sink(IntEnum):
    """Where the result of a LINEAR, FIRE or EMBED goes; `SINKS` says which takes which."""

    SPIKES = 0      #: neuron -> spike buffer `dst`
    QKV = 1         #: neuron -> query register, key and value cache (and spike buffer `dst`)
    RESIDUAL = 2    #: rounded shift, saturating add
    LOGITS = 3      #: plus bias -> logits buffer
    ADD_SPIKES = 4  #: neuron -> residual += spike << embed_shift, saturating
    SET_SPIKES = 5  #: neuron -> residual = spike << embed_shift, and spike buffer `dst`
    SET = 6         #: residual = sum << embed_shift, saturating


#: Sinks of each opcode (an ATTEND always goes to SPIKES).
SINKS = {
    Opcode.EMBED: (Sink.SET, Sink.SET_SPIKES),
    Opcode.FIRE: (Sink.SPIKES, Sink.SET_SPIKES),
    Opcode.LINEAR: (Sink.SPIKES, Sink.QKV, Sink.RESIDUAL, Sink.LOGITS, Sink.ADD_SPIKES),
}


class Neuron(IntEnum):
    """Neuron of a FIRE, LINEAR, ATTEND or EMBED: `arch.numerics.neuron_step`."""

    NI_LIF = 0        #: levels 0..D, no membrane
    LIF_HARD = 1      #: reset to 0 (SpikingJelly, Spikformer family, SpikeDecoder)
    LIF_SOFT = 2      #: reset by subtraction, then leak (ASN)
    T_LIF = 3         #: ternary -1, 0, 1, reset by subtraction, then leak
    LIF_SUBTRACT = 4  #: leak, then reset by the whole threshold (BiSpikCLM, snnTorch)
    I_LIF = 5         #: levels 0..D over time steps, reset by subtraction, then leak
    SIGNED_NI_LIF = 6  #: levels of both signs, `config.lowest_level`..D, no membrane; of QKV the values, queries and keys are 0, 1


#: Neurons without a membrane.
STATELESS = (Neuron.NI_LIF, Neuron.SIGNED_NI_LIF)


class Attention(IntEnum):
    """Back end of an ATTEND."""

    WTA = 0   #: the top_k best positions, values shifted by rank
    SFSA = 1  #: every position whose raw score reaches the head's threshold, values added
    SSA = 2   #: every position, values (-1, 0, 1) times raw score


#: Spike buffers: two take turns between layers, the third gathers the final spikes of all time steps.
SPIKE_BUFFERS = 3


class Order(IntEnum):
    """Order of the rows and tiles of a LINEAR."""

    TILES = 0     #: tile by tile: a finished tile drains while the next accumulates (resident rows)
    ROWS = 1      #: row by row, one burst each (streamed rows)


class Memory(IntEnum):
    """Destination of a LOAD."""

    RESIDENT = 0    #: words of cols bytes
    PARAMETERS = 1  #: words of lanes x 8 bytes


class Buffer(IntEnum):
    """Source of a DUMP: one 32-bit word per channel, lanes channels per group."""

    RESIDUAL = 0
    SPIKES_0 = 1
    SPIKES_1 = 2
    LOGITS = 3
    GATHER = 4
    SPIKES_2 = 5


@dataclass(frozen=True)
class Field:
    """Bits [lsb, lsb + width) of a command."""

    name: str
    lsb: int
    width: int
    doc: str


def _lay_out(start, *fields):
    out = []
    for name, width, doc in fields:
        out.append(Field(name, start, width, doc))
        start += width
    return out


COMMON = _lay_out(
    0,
    ("opcode", 4, "Opcode"),
    ("head", 1, "runs only when the successor of this token is wanted"),
    ("src", 2, "spike buffer read"),
    ("dst", 2, "spike buffer written"),
    ("sink", 3, "Sink of a LINEAR, FIRE or EMBED"),
    ("groups", 14, "groups of lanes channels produced (EMBED, FIRE, LINEAR, ATTEND, DUMP)"),
    ("params", 16, "first group of the parameter table"),
    ("level", 4, "largest level D of the neuron; 1 for the LIF kinds and T_LIF"),
    ("neuron", 3, "Neuron"),
    ("leak", 4, "membrane leak shift; 15: none"),
    ("first", 1, "first time step: membranes count as zero"),
    ("stream", 8, "first slot of the residual store (time step); a sweep adds the place of its position"),
)
BODY = 64
LINEAR = _lay_out(
    BODY,
    ("address", 40, "first tile row: index of the on-chip row store (in tile rows of weight_bits), or byte offset from image_base"),
    ("n_in", 16, "input neurons (rows); EMBED: rows of the token table"),
    ("tiles", 5, "column tiles of the block, 1..16"),
    ("order", 1, "Order"),
    ("streamed", 1, "rows come from memory"),
    ("weight_code", 2, "index into WEIGHT_BITS"),
    ("base_group", 16, "first group written in the sink (blocks of a wide LINEAR; FIRE: of the spike buffer)"),
    ("kv_base", 24, "QKV: first position of this layer in the KV cache"),
    ("attn_groups", 10, "QKV: groups of Q (then K, then V)"),
    ("position_row", 1, "EMBED: add row n_in + position"),
    ("embed_shift", 4, "left shift of an embedding row, or of a spike added to the residual"),
)
ATTEND = _lay_out(
    BODY,
    ("a_kv_base", 24, "first position of this layer in the KV cache"),
    ("head_level", 3, "head width = segment << head_level"),
    ("top_k", 4, "winners per head"),
    ("overlap", 1, "winners need a raw score above 0"),
    ("attention", 2, "Attention"),
    ("bidirectional", 1, "all positions compete (no causal mask)"),
    ("gather_shifts", 24, "left shift of the winner of rank r: 3 bits each, rank 0 lowest"),
    ("recency", 96, "4 bits per head, head 0 lowest. WTA: recency shift, 15: none. SFSA: threshold on the raw score"),
)
LOAD = _lay_out(
    BODY,
    ("l_offset", 40, "byte offset from image_base, beat aligned"),
    ("l_memory", 2, "Memory"),
    ("l_address", 20, "first word written"),
    ("l_words", 20, "words"),
    ("l_ahead", 1, "commands behind it run meanwhile; streamed rows, the next LOAD and the end of the section or sweep wait for it"),
)
DUMP = _lay_out(BODY, ("d_buffer", 4, "Buffer"))

FIELDS = {f.name: f for f in (*COMMON, *LINEAR, *ATTEND, *LOAD, *DUMP)}
#: Body fields of each opcode (beside COMMON).
FORMAT = {
    Opcode.HALT: (), Opcode.SWEEP: (), Opcode.PICK: (), Opcode.FIRE: LINEAR, Opcode.EMBED: LINEAR, Opcode.LINEAR: LINEAR,
    Opcode.ATTEND: ATTEND, Opcode.LOAD: LOAD, Opcode.DUMP: DUMP,
}


@dataclass(frozen=True)
class Command:
    """One command: opcode and field values; fields not named are 0. `label` names the operator (host side only)."""

    opcode: Opcode
    fields: dict
    label: str = ""

    def __getitem__(self, name: str) -> int:
        return self.fields.get(name, 0)


def encode(command: Command) -> int:
    """256-bit word of a command.

    Raises
    ------
    FitError
        When a field does not belong to the opcode or a value does not fit its width.
    """
    allowed = {f.name for f in (*COMMON, *FORMAT[command.opcode])}
    word = int(command.opcode)
    for name, value in command.fields.items():
        require(name in allowed, f"{command.opcode.name} has no field {name!r}.")
        f = FIELDS[name]
        require(0 <= int(value) < 1 << f.width, f"{command.opcode.name} {command.label}: {name} = {value} does not fit {f.width} bits.")
        word |= int(value) << f.lsb
    return word


def decode(word: int, label: str = "") -> Command:
    """Inverse of `encode`; raises FitError on an unknown opcode."""
    code = word & 0xF
    require(code in set(Opcode), f"Unknown opcode {code}.")
    opcode = Opcode(code)
    fields = {f.name: word >> f.lsb & ((1 << f.width) - 1) for f in (*COMMON[1:], *FORMAT[opcode])}
    return Command(opcode, {k: v for k, v in fields.items() if v}, label)


def describe() -> list:
    """Every field as [name, lsb, width], and what codes there are: part of the fingerprint."""
    return [[f.name, f.lsb, f.width] for f in FIELDS.values()] + [[code.name, int(code), 0] for kind in (Opcode, Neuron) for code in kind]
