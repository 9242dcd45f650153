"""The register file: one table that yields gateware ports, driver access, documents and the fingerprint."""

from dataclasses import dataclass
from enum import Enum, IntEnum

MAGIC = 0x5350_4C4D  # "SPLM"
VERSION = 3
#: Byte addresses of the AXI4-Lite window.
WINDOW_BYTES = 4096


class Access(Enum):
    """Who may do what: host read/write rights; w1p is a write-one pulse."""

    RO = "ro"
    RW = "rw"
    W1P = "w1p"
    WO = "wo"


class State(IntEnum):
    """`status.state`."""

    IDLE = 0
    RUN = 1
    STOPPING = 2
    ERROR = 3
    DRAIN = 4


class Reason(IntEnum):
    """`status.reason`: why the last run ended."""

    NONE = 0
    BOOTED = 1        #: the boot section is done
    COUNT = 2         #: n_new tokens were made
    END_TOKEN = 3     #: the end token was picked
    CONTEXT_FULL = 4  #: no position is left
    STOPPED = 5       #: the host asked to stop
    SCORED = 6        #: all given tokens were scored
    FAILED = 7        #: see error
    ENCODED = 8       #: all given tokens went through the encoder


class ErrorCode(IntEnum):
    """`error.code`: sticky until reset."""

    NONE = 0
    BAD_PROGRAM = 1    #: unknown opcode, a field out of range, or an unsupported neuron or attention
    BAD_ADDRESS = 2    #: an access past the end of the image or an on-chip memory
    BUS_READ = 3       #: SLVERR or DECERR on a read
    BUS_WRITE = 4      #: SLVERR or DECERR on a write
    BUS_DEAD = 5       #: outstanding accesses were never answered: only a fabric reset helps
    WATCHDOG = 6       #: no command finished for `watchdog` cycles
    BAD_TOKEN = 7      #: a token id outside the vocabulary of the program
    SATURATION = 8     #: the residual saturated and `mode.stop_on_saturation` is set


class Mode(IntEnum):
    """`mode.run`: what a start does."""

    GENERATE = 0   #: prompt, then n_new tokens
    SCORE = 1      #: teacher forced: every token of the prompt memory, one record each
    BOOT = 2       #: run the boot section (LOADs)
    ENCODE = 3     #: bidirectional: every sweep of the program over all given tokens, from position 0


@dataclass(frozen=True)
class Field:
    """Bits of a register; `strobe`: a write also raises a one-cycle `<register>_<field>_strobe`."""

    name: str
    width: int
    access: Access
    reset: int = 0
    doc: str = ""
    strobe: bool = False


@dataclass(frozen=True)
class Register:
    """One 32-bit word; fields from bit 0 upwards."""

    name: str
    fields: tuple[Field, ...]
    doc: str = ""

    def position_of(self, field: str) -> tuple[int, int]:
        """(lsb, width) of a field; KeyError when there is none of that name."""
        lsb = 0
        for f in self.fields:
            if f.name == field:
                return lsb, f.width
            lsb += f.width
        raise KeyError(f"Register {self.name} has no field {field!r}.")


class RegisterMap(dict):
    """name -> Register in address order, one word each from address 0."""

    def __init__(self, registers):
        super().__init__((r.name, r) for r in registers)
        for r in registers:
            assert sum(f.width for f in r.fields) <= 32, r.name

    def address(self, name: str) -> int:
        """Byte address of a register."""
        return 4 * list(self).index(name)

    def markdown(self) -> str:
        """The map as a Markdown table."""
        rows = ["| address | register.field | bits | access | reset | meaning |", "| --- | --- | --- | --- | --- | --- |"]
        for r in self.values():
            for f in r.fields:
                lsb, width = r.position_of(f.name)
                bits = f"{lsb + width - 1}:{lsb}" if width > 1 else str(lsb)
                rows.append(f"| 0x{self.address(r.name):03x} | {r.name}.{f.name} | {bits} | {f.access.value} | {f.reset:#x} | {f.doc} |")
        return "\n".join(rows) + "\n"


#: Counters, 64 bit each (`<name>_lo`, `<name>_hi`); cleared by `control.clear_counters`.
COUNTERS = {
    "cycles": "clock cycles while a run was busy",
    "tokens": "tokens processed (prompt and generated)",
    "commands": "commands executed",
    "event_tiles": "tile rows added by the spike engine, up to `events` of the machine in a cycle",
    "rows_wanted": "weight rows requested",
    "rows_skipped": "weight rows of silent neurons, not requested",
    "row_wait": "cycles in which the engine had an event but its weights had not come",
    "level_tiles": "sum of absolute levels over event tiles; times cols: synaptic operations",
    "bytes_rows": "bytes of weight rows read: from memory when streamed, from chip when resident",
    "bytes_bus_read": "bytes read over the AXI manager",
    "bytes_bus_written": "bytes written over the AXI manager",
    "spikes": "absolute levels fired (sum over all neurons)",
    "fired": "neurons that fired at least once",
    "neurons": "neurons evaluated",
    "winners": "winners gathered",
    "saturations": "residual values clipped",
}


def register_map(cfg) -> RegisterMap:
    """The map of one machine (`AcceleratorConfig`)."""
    ro, rw, pulse, wo = Access.RO, Access.RW, Access.W1P, Access.WO

    def word(name, access, doc, strobe=False, reset=0):
        return Register(name, (Field("value", 32, access, reset, doc, strobe),))

    def wide(name, doc):
        return [word(f"{name}_lo", rw, f"{doc}, low word"), word(f"{name}_hi", rw, f"{doc}, high word")]

    return RegisterMap([
        word("magic", ro, "constant: this is a Spikeloom core"),
        word("version", ro, "version of the register map"),
        word("fingerprint", ro, "identity of the AcceleratorConfig and formats this gateware was built from"),
        Register("shape", (Field("cols", 12, ro, doc="grid columns"), Field("rows", 4, ro, doc="grid rows"),
                           Field("lanes", 8, ro, doc="neuron lanes"), Field("k_max", 4, ro, doc="most winners"),
                           Field("level_max", 4, ro, doc="largest level")), "capabilities"),
        Register("control", (
            Field("start", 1, pulse, doc="begin a run"),
            Field("stop", 1, pulse, doc="end the run after the current token, or block of prompt tokens"),
            Field("reset", 1, pulse, doc="soft reset of the core: drains the bus, clears errors, forgets the context"),
            Field("clear_counters", 1, pulse, doc="zero all counters"),
            Field("clear_context", 1, pulse, doc="forget the context: position 0"),
            Field("acknowledge", 1, pulse, doc="lower the interrupt"))),
        Register("mode", (
            Field("run", 2, rw, doc="Mode"),
            Field("dense", 1, rw, doc="request every row, silent or not"),
            Field("sample", 1, rw, doc="Gumbel-max with the noise table instead of greedy"),
            Field("ignore_end", 1, rw, doc="do not end at the end token"),
            Field("trace", 1, rw, doc="write a checksum record per command"),
            Field("interrupt_enable", 1, rw, doc="raise irq when a run ends"),
            Field("stop_on_saturation", 1, rw, doc="a clipped residual is an error"),
            Field("top_k", 4, rw, doc="candidates of sampling; 0: all"))),
        Register("status", (
            Field("busy", 1, ro, doc="a run is going on"),
            Field("done", 1, ro, doc="a run ended; cleared by start, acknowledge and reset"),
            Field("state", 3, ro, doc="State"),
            Field("reason", 4, ro, doc="Reason"),
            Field("bus_dead", 1, ro, doc="the bus never answered: work is refused until a fabric reset"),
            Field("trace_full", 1, ro, doc="trace or dump records were lost: their memory was full"),
            Field("interrupt", 1, ro, doc="level of irq"))),
        Register("error", (
            Field("code", 4, ro, doc="ErrorCode"),
            Field("command", 12, ro, doc="index of the command"),
            Field("position", 16, ro, doc="token position"))),
        word("error_address", ro, "offset or address of the failing access, low word"),
        Register("entries", (Field("boot", 16, rw, doc="first command of the boot section"),
                             Field("token", 16, rw, doc="first command of the token section"))),
        Register("prefill", (Field("entry", 16, rw, doc="first command of the sweeps over blocks of a prompt; 0: token by token"),
                             Field("block", 16, rw, doc="most tokens of a block; no more than the card says"))),
        Register("limits", (Field("vocabulary", 16, rw, doc="tokens of the model"),
                            Field("context", 16, rw, doc="positions of the model"))),
        Register("run", (Field("n_prompt", 16, rw, doc="tokens in the prompt memory"),
                         Field("n_new", 16, rw, doc="tokens to make"))),
        Register("end_token", (Field("id", 16, rw, doc="token that ends a generation"),)),
        word("seed", rw, "seed of the sampler"),
        word("watchdog", rw, "cycles one command may take", reset=0x0100_0000),
        word("bus_timeout", rw, "cycles without an answer on the AXI manager until the bus counts as dead", reset=0x0010_0000),
        *wide("image_base", "address of the image"),
        word("image_bytes", rw, "bytes of the image: bound of every offset"),
        *wide("ring_base", "address of the token records"),
        word("ring_records", rw, "records that the token ring holds (power of two)"),
        *wide("trace_base", "address of the trace records"),
        word("trace_bytes", rw, "bytes of trace memory"),
        *wide("dump_base", "address of the dumps"),
        word("dump_bytes", rw, "bytes of dump memory"),
        Register("prompt_index", (Field("value", 16, rw, doc="prompt memory: index of the next write", strobe=True),)),
        Register("prompt_data", (Field("token", 16, wo, doc="prompt memory: writes and advances prompt_index", strobe=True),)),
        Register("program_index", (Field("value", 16, rw, doc="program memory: 32-bit word index of the next write", strobe=True),)),
        word("program_data", wo, "program memory: writes and advances program_index", strobe=True),
        Register("noise_index", (Field("value", 16, rw, doc="noise table: index of the next write", strobe=True),)),
        Register("noise_data", (Field("value", 24, wo, doc="noise table: writes and advances noise_index", strobe=True),)),
        Register("progress", (Field("position", 16, ro, doc="positions filled; in a sweep, the one that it is at"),
                              Field("records", 16, ro, doc="token records written since start, modulo 65,536"))),
        word("trace_count", ro, "trace records written since start"),
        word("dump_count", ro, "bytes dumped since start"),
        Register("sequencer", (Field("command", 12, ro, doc="command being executed"),
                               Field("opcode", 4, ro, doc="its opcode"),
                               Field("phase", 8, ro, doc="sequencer state, for reports"))),
        *(word(f"{name}_{half}", ro, f"counter: {doc}, {'low' if half == 'lo' else 'high'} word")
          for name, doc in COUNTERS.items() for half in ("lo", "hi")),
    ])


def describe() -> list:
    """Names, widths and access of all registers: part of the fingerprint."""
    return [[r.name, [[f.name, f.width, f.access.value] for f in r.fields]] for r in register_map(None).values()]
