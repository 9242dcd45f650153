"""The program of a model: a boot section of LOADs and the commands of one token."""

from ..arch.commands import Buffer, Command, Memory, Opcode, Order, Sink
from ..arch.config import AcceleratorConfig, ModelConfig, ceil_div, require
from ..arch.layout import weight_code
from .lower import Lowered
from .placement import Placement

#: Buffer that holds spike buffer 0, 1, 2.
_SPIKES = (Buffer.SPIKES_0, Buffer.SPIKES_1, Buffer.SPIKES_2)


class Schedule:
    """Emits commands in order; `commands`, `entries` and `labels` are the result.

    Parameters
    ----------
    config, cfg, lowered, placement
        The model in the formats of the machine.
    parameter_address : dict of str to int
        First group of each operator in the parameter table.
    offsets : dict of str to int
        Byte offset of each section of the image.
    trace_dumps : bool
        Follow every command with a DUMP of what it wrote.

    Raises
    ------
    FitError
        When the program is longer than the machine's program memory.
    """

    def __init__(self, config: ModelConfig, cfg: AcceleratorConfig, lowered: Lowered, placement: Placement,
                 parameter_address: dict[str, int], offsets: dict[str, int], *, trace_dumps: bool = False):
        self.config, self.cfg, self.lowered, self.placement = config, cfg, lowered, placement
        self.params, self.offsets, self.trace_dumps = parameter_address, offsets, trace_dumps
        self.width_groups = config.width // cfg.lanes
        self.commands: list[Command] = []
        self._build_boot()
        self.entries = {"boot": 0, "token": len(self.commands)}
        self._build_token()
        require(len(self.commands) <= cfg.program_words,
                f"{config.name}: the program has {len(self.commands)} commands, machine {cfg.name!r} holds {cfg.program_words}.")

    @property
    def labels(self) -> list[str]:
        """Operator of each command."""
        return [command.label for command in self.commands]

    def _emit(self, opcode, label, **fields):
        self.commands.append(Command(opcode, {k: int(v) for k, v in fields.items() if v}, label))

    def _build_boot(self):
        groups = sum(len(data) for data in self.lowered.parameters.values()) // (self.cfg.lanes * 8)
        self._emit(Opcode.LOAD, "load parameters", l_memory=Memory.PARAMETERS, l_offset=self.offsets["params"], l_words=groups)
        words = len(self.placement.resident) // self.cfg.cols
        if words:
            self._emit(Opcode.LOAD, "load rows", l_memory=Memory.RESIDENT, l_offset=self.offsets["resident"], l_words=words)
        self._emit(Opcode.HALT, "booted")

    def _build_token(self):
        c = self.config
        self._linear("embed", "embed", opcode=Opcode.EMBED, sink=Sink.SET, dump=Buffer.RESIDUAL, embed_shift=c.embed_shift,
                     position_row=c.position_table)
        here = 0  # spike buffer written last; a LINEAR reads one and writes the other
        for layer in range(c.layers):
            here = self._build_layer(layer, here)
        self._fire("final", 2, c.level_final, head=1)
        self._linear("head", "logits", sink=Sink.LOGITS, src=2, params="head", dump=Buffer.LOGITS, head=1)
        self._emit(Opcode.PICK, "pick", head=1)
        self._emit(Opcode.HALT, "end")

    def _build_layer(self, layer, here):
        c, at = self.config, f"layer{layer}"
        here = 1 - here
        self._fire(f"{at}.in", here, c.level_in)
        self._linear(f"{at}.qkv", sink=Sink.QKV, src=here, dst=1 - here, level=c.level_v,
                     attn_groups=self.width_groups, kv_base=self._kv_base(layer))
        self._attend(layer, here)
        self._linear(f"{at}.out", sink=Sink.RESIDUAL, src=here, dump=Buffer.RESIDUAL)
        here = 1 - here
        self._fire(f"{at}.mid", here, c.level_mid)
        self._linear(f"{at}.up", sink=Sink.SPIKES, src=here, dst=1 - here, level=c.level_hidden)
        here = 1 - here
        self._linear(f"{at}.down", sink=Sink.RESIDUAL, src=here, dump=Buffer.RESIDUAL)
        return here

    def _kv_base(self, layer):
        banks = self.cfg.score_banks
        return layer * ceil_div(self.config.context, banks) * banks

    def _fire(self, name, dst, level, head=0):
        self._emit(Opcode.FIRE, name, dst=dst, groups=self.width_groups, params=self.params[name], level=level, head=head)
        self._dump(name, _SPIKES[dst], self.width_groups, head)

    def _attend(self, layer, dst):
        c, name = self.config, f"layer{layer}.attn"
        most = max(c.rank_shifts)
        self._emit(
            Opcode.ATTEND, name, dst=dst, groups=self.width_groups, params=self.params[name], level=c.level_attn,
            a_kv_base=self._kv_base(layer), head_level=(c.head_width // self.cfg.segment).bit_length() - 1, top_k=c.top_k,
            overlap=c.overlap, gather_shifts=sum((most - s) << (3 * rank) for rank, s in enumerate(c.rank_shifts)),
            recency=sum(s << (4 * head) for head, s in enumerate(c.recency)))
        self._dump(f"{name}.gather", Buffer.GATHER, self.width_groups)
        self._dump(name, _SPIKES[dst], self.width_groups)

    def _linear(self, matrix, label=None, *, opcode=Opcode.LINEAR, params=None, dump=None, head=0, **fields):
        """One command per block; `dump` is the buffer written (the spike buffer dst unless told)."""
        label = label or matrix
        streamed = matrix in self.placement.names
        section = self.offsets.get("streamed", 0) if streamed else 0
        blocks = self.lowered.blocks[matrix]
        for number, block in enumerate(blocks):
            more = {}
            if opcode == Opcode.LINEAR:
                more = {"params": self.params[params or matrix] + block.base_group}
            rows = self.config.vocabulary if opcode == Opcode.EMBED else block.n_in
            self._emit(opcode, label, groups=block.groups, base_group=block.base_group, n_in=rows, tiles=block.tiles,
                       weight_code=weight_code(block.bits), streamed=streamed, order=Order.ROWS if streamed else Order.TILES,
                       address=section + self.placement.addresses[matrix, number], head=head, **more, **fields)
        buffer = _SPIKES[fields.get("dst", 0)] if dump is None else dump
        self._dump(label, buffer, blocks[-1].base_group + blocks[-1].groups, head)

    def _dump(self, label, buffer, groups, head=0):
        if self.trace_dumps:
            self._emit(Opcode.DUMP, f"dump {label}", d_buffer=buffer, groups=groups, head=head)
