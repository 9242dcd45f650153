"""The program of a model: a boot section of LOADs, the commands of one token or the sweeps over one text, and those over a block."""

from ..arch.commands import Attention, Buffer, Command, Memory, Neuron, Opcode, Order, Sink
from ..arch.config import ATTENTIONS, NEURONS, RESIDUALS, AcceleratorConfig, FitError, ModelConfig, ceil_div, require
from ..arch.layout import weight_code
from ..model.tensors import neuron_levels, neuron_lows
from .lower import Lowered
from .placement import Placement
from .sweep_loads import plan_loads

#: Buffer that holds spike buffer 0, 1, 2.
_SPIKES = (Buffer.SPIKES_0, Buffer.SPIKES_1, Buffer.SPIKES_2)
#: Spike buffer of the final spikes of all time steps.
_FINAL = 2


class Schedule:
    """Emits commands in order; `commands`, `entries` and `labels` are the result.

    A decoder's token section runs the whole network once per time step, then the head:

        for t: EMBED, per layer FIRE in, LINEAR qkv, ATTEND, LINEAR out, FIRE mid, LINEAR up, LINEAR down; FIRE final
        LINEAR head, PICK, HALT

    An encoder's is a list of sweeps, each run for all positions before the next begins. A layer's second sweep makes Q, K
    and V again: the query register holds one position, and keys and values come out as they are.

        for t: EMBED; SWEEP
        per layer: for t: FIRE in, LINEAR qkv; SWEEP
                   for t: FIRE in, LINEAR qkv, ATTEND, ..., LINEAR down; SWEEP
        for t: FIRE final; LINEAR head, PICK; SWEEP unless only position 0 is read; HALT

    A decoder with streamed layers has a third section, sweeps over a block of prompt tokens, so that rows are fetched once
    per block. The matrices of a sweep are loaded behind the resident rows, those of the next sweep while one runs:

        LOAD qkv, out;  for t: EMBED; SWEEP
        per layer: LOAD up, down;             for t: FIRE in, LINEAR qkv, ATTEND, LINEAR out; SWEEP
                   LOAD the next qkv, out;    for t: FIRE mid, LINEAR up, LINEAR down; SWEEP, or HALT behind the last layer

    Where there is no room for both, each LOAD comes at the beginning of its own sweep.

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
    prefill_block : int
        Most tokens of a block; 0: no such section. As many residual streams are held for each time step.
    prefill_ahead : bool
        Load the rows of the next sweep while one runs, where there are words for both.

    Raises
    ------
    FitError
        When the program is longer than the machine's program memory.
    """

    def __init__(self, config: ModelConfig, cfg: AcceleratorConfig, lowered: Lowered, placement: Placement,
                 parameter_address: dict[str, int], offsets: dict[str, int], *, trace_dumps: bool = False, prefill_block: int = 0,
                 prefill_ahead: bool = True):
        self.config, self.cfg, self.lowered, self.placement = config, cfg, lowered, placement
        self.params, self.offsets, self.trace_dumps = parameter_address, offsets, trace_dumps
        self.levels, self.lows = neuron_levels(config), neuron_lows(config)
        self.width_groups = config.width // cfg.lanes
        self.replace_in, self.add_out, self.replace_mid, self.add_down = RESIDUALS[config.residual]
        self.commands: list[Command] = []
        #: Residual streams from one time step to the next; tile rows that blocks were loaded to.
        self._stride, self._loaded = config.context if config.bidirectional else 0, {}
        self._build_boot()
        self.entries = {"boot": 0, "token": len(self.commands)}
        self._build_encoder() if config.bidirectional else self._build_decoder()
        require(len(self.commands) <= cfg.program_words,
                f"{config.name}: the program has {len(self.commands)} commands, machine {cfg.name!r} holds {cfg.program_words}.")
        #: Why there are no sweeps over blocks of a prompt; empty where there are.
        self.no_prefill = self._try_prefill(prefill_block, prefill_ahead)

    @property
    def labels(self) -> list[str]:
        """Operator of each command."""
        return [command.label for command in self.commands]

    # -- sections ---------------------------------------------------------------------------------------------

    def _build_boot(self):
        groups = sum(len(data) for data in self.lowered.parameters.values()) // (self.cfg.lanes * 8)
        self._emit(Opcode.LOAD, "load parameters", l_memory=Memory.PARAMETERS, l_offset=self.offsets["params"], l_words=groups)
        words = len(self.placement.resident) // self.cfg.cols
        if words:
            self._emit(Opcode.LOAD, "load rows", l_memory=Memory.RESIDENT, l_offset=self.offsets["resident"], l_words=words)
        self._emit(Opcode.HALT, "booted")

    def _build_decoder(self):
        here = 0  # spike buffer written last; a LINEAR reads one and writes the other
        for step in range(self.config.steps):
            here = self._embed(step, here)
            for layer in range(self.config.layers):
                here = self._mix(layer, step, self._project(layer, step, here))
            self._final(step, head=1)
        self._read(head=1)
        self._emit(Opcode.HALT, "end")

    def _build_encoder(self):
        steps, here = range(self.config.steps), 0
        for step in steps:
            here = self._embed(step, here)
        self._emit(Opcode.SWEEP, "sweep")
        for layer in range(self.config.layers):
            for step in steps:
                here = self._project(layer, step, here)
            self._emit(Opcode.SWEEP, "sweep")
            for step in steps:
                here = self._mix(layer, step, self._project(layer, step, here))
            self._emit(Opcode.SWEEP, "sweep")
        for step in steps:
            self._final(step)
        self._read()
        if not self.config.classes:
            self._emit(Opcode.SWEEP, "sweep")
        self._emit(Opcode.HALT, "end")

    def _try_prefill(self, block, try_ahead):
        """Add the sweeps over a block of prompt tokens; the reason, where there are none."""
        c, cfg, end = self.config, self.cfg, len(self.commands)
        if c.bidirectional:
            return "An encoder reads its texts whole."
        if not any(name.startswith("layer") for name in self.placement.names):
            return "No layer is streamed."
        if block < 2:
            return "Blocks were not asked for."
        block = min(block, cfg.residual_slots // c.steps)
        if block < 2:
            return f"Blocks take at least two residual streams per time step; machine {cfg.name!r} has {cfg.residual_slots}."
        self._stride = block
        why = ""
        for ahead in (True, False) if try_ahead else (False,):
            try:
                self._build_prefill(ahead)
                require(len(self.commands) <= cfg.program_words, f"The program would have {len(self.commands)} commands with it, "
                                                                 f"machine {cfg.name!r} holds {cfg.program_words}.")
            except FitError as error:
                del self.commands[end:]
                why = str(error)
            else:
                self.entries["prefill"], self.prefill_block = end, block
                return ""
            finally:
                self._loaded = {}
        return why

    def _build_prefill(self, ahead):
        """Sweep by sweep; with `ahead` one loads the rows of the next, else each its own to where the one before it had its rows."""
        steps, layers, here = range(self.config.steps), range(self.config.layers), 0
        parts = [part for at in layers for part in ((f"layer{at}.qkv", f"layer{at}.out"), (f"layer{at}.up", f"layer{at}.down"))]
        plan = plan_loads(self.lowered, self.placement, self.cfg, parts, self.offsets.get("streamed", 0), ahead=ahead)
        self._loaded, loads = plan.addresses, [*plan.commands, []]
        self.commands += loads[0]
        for step in steps:
            here = self._embed(step, here)
        for number in range(len(parts)):
            self._emit(Opcode.SWEEP, "sweep")
            self.commands += loads[number + 1] if ahead else loads[number] if number else []
            layer, second = divmod(number, 2)
            for step in steps:
                here = self._feed(layer, step, here) if second else self._attention(layer, step, self._project(layer, step, here))
        self._emit(Opcode.HALT, "end of block")

    # -- parts of a network; each returns the spike buffer written last -----------------------------------------

    def _embed(self, step, here):
        c = self.config
        options = {"opcode": Opcode.EMBED, "position_row": c.position_table, **self._stream(step)}
        if c.embedding == "current":
            self._linear("embed", "embed", step, sink=Sink.SET, dump=Buffer.RESIDUAL, embed_shift=c.embed_shift, **options)
            return here
        self._linear("embed", "embed", step, sink=Sink.SET_SPIKES, dst=1 - here, embed_shift=c.spike_shift,
                     **self._neuron("embed", step), **options)
        self._dump("embed.residual", step, Buffer.RESIDUAL, self.width_groups)
        return 1 - here

    def _project(self, layer, step, here):
        """Stream -> query, keys and values."""
        at, here = f"layer{layer}", 1 - here
        self._fire(f"{at}.in", step, here, replace=self.replace_in)
        self._linear(f"{at}.qkv", f"{at}.qkv", step, sink=Sink.QKV, src=here, dst=1 - here, attn_groups=self.width_groups,
                     kv_base=self._kv_base(layer, step), **self._neuron(f"{at}.qkv", step))
        return 1 - here

    def _mix(self, layer, step, here):
        """Query, keys, values and stream -> stream."""
        return self._feed(layer, step, self._attention(layer, step, here))

    def _attention(self, layer, step, here):
        """Query, keys, values and stream -> stream, before the feed-forward part."""
        here = 1 - here
        self._attend(layer, step, here)
        self._write(f"layer{layer}.out", step, here, add=self.add_out)
        return here

    def _feed(self, layer, step, here):
        """Stream -> stream: the feed-forward part."""
        at, here = f"layer{layer}", 1 - here
        self._fire(f"{at}.mid", step, here, replace=self.replace_mid)
        self._linear(f"{at}.up", f"{at}.up", step, sink=Sink.SPIKES, src=here, dst=1 - here, **self._neuron(f"{at}.up", step))
        here = 1 - here
        self._write(f"{at}.down", step, here, add=self.add_down)
        return here

    def _final(self, step, head=0):
        """Stream -> final spikes, beside those of the other time steps that the head reads."""
        c = self.config
        base = step * self.width_groups if c.head_steps > 1 else 0
        self._fire("final", step, _FINAL, base_group=base, head=head, dump=False)
        if step == c.steps - 1 and self.trace_dumps:
            self._emit(Opcode.DUMP, "dump final", d_buffer=_SPIKES[_FINAL], groups=c.head_steps * self.width_groups, head=head)

    def _read(self, head=0):
        """Final spikes -> logits -> token."""
        self._linear("head", "logits", sink=Sink.LOGITS, src=_FINAL, params=self.params["head"], dump=Buffer.LOGITS, head=head)
        self._emit(Opcode.PICK, "pick", head=head)

    # -- commands ---------------------------------------------------------------------------------------------

    def _emit(self, opcode, label, **fields):
        self.commands.append(Command(opcode, {k: int(v) for k, v in fields.items() if v}, label))

    def _stream(self, step):
        """A decoder has one residual stream, an encoder (and a block of prompt tokens) one per time step and position."""
        return {"stream": step * self._stride}

    def _kv_base(self, layer, step):
        c, banks = self.config, self.cfg.score_banks
        return (layer * c.steps + step) * ceil_div(c.context, banks) * banks

    def _neuron(self, name, step):
        c = self.config
        neuron = Neuron.SIGNED_NI_LIF if self.lows[name][-1] < 0 else Neuron(NEURONS.index(c.neuron))
        return {"params": self.params[name], "level": self.levels[name][-1], "neuron": neuron, "leak": c.leak, "first": step == 0}

    def _fire(self, name, step, dst, *, replace=False, base_group=0, head=0, dump=True):
        sink = {"sink": Sink.SET_SPIKES, "embed_shift": self.config.spike_shift} if replace else {"sink": Sink.SPIKES}
        self._emit(Opcode.FIRE, self.config.label(name, step), dst=dst, groups=self.width_groups, base_group=base_group, head=head,
                   **sink, **self._neuron(name, step), **self._stream(step))
        if dump:
            self._dump(name, step, _SPIKES[dst], self.width_groups)
        if replace:
            self._dump(f"{name}.residual", step, Buffer.RESIDUAL, self.width_groups)

    def _attend(self, layer, step, dst):
        c, name = self.config, f"layer{layer}.attn"
        options, most = {}, max(c.rank_shifts)
        if c.attention == "wta":
            options = {"top_k": c.top_k, "overlap": c.overlap,
                       "gather_shifts": sum((most - s) << (3 * rank) for rank, s in enumerate(c.rank_shifts))}
        self._emit(Opcode.ATTEND, c.label(name, step), dst=dst, groups=self.width_groups, a_kv_base=self._kv_base(layer, step),
                   head_level=(c.head_width // self.cfg.segment).bit_length() - 1, bidirectional=c.bidirectional,
                   attention=Attention(ATTENTIONS.index(c.attention)), recency=self.lowered.recency[name],
                   **options, **self._neuron(name, step))
        self._dump(f"{name}.gather", step, Buffer.GATHER, self.width_groups)
        self._dump(name, step, _SPIKES[dst], self.width_groups)

    def _write(self, name, step, src, *, add):
        """A LINEAR into the residual stream, as sums or as spikes."""
        options = {"sink": Sink.RESIDUAL, "params": self.params[name]}
        if add:
            options = {"sink": Sink.ADD_SPIKES, "embed_shift": self.config.spike_shift, **self._neuron(name, step)}
        self._linear(name, name, step, src=src, dump=Buffer.RESIDUAL, **self._stream(step), **options)

    def _linear(self, matrix, operator, step=None, *, opcode=Opcode.LINEAR, params=0, dump=None, head=0, **fields):
        """One command per block; `dump` is the buffer written (the spike buffer dst unless told)."""
        label = operator if step is None else self.config.label(operator, step)
        streamed = matrix in self.placement.names and not any(name == matrix for name, _ in self._loaded)
        section = self.offsets.get("streamed", 0) if streamed else 0
        blocks = self.lowered.blocks[matrix]
        for number, block in enumerate(blocks):
            rows = self.config.vocabulary if opcode == Opcode.EMBED else block.n_in
            address = section + self._loaded.get((matrix, number), self.placement.addresses[matrix, number])
            self._emit(opcode, label, groups=block.groups, base_group=block.base_group, n_in=rows, tiles=block.tiles,
                       weight_code=weight_code(block.bits), streamed=streamed, order=Order.ROWS if streamed else Order.TILES,
                       address=address, params=params + block.base_group, head=head, **fields)
        buffer = _SPIKES[fields.get("dst", 0)] if dump is None else dump
        self._dump(operator, step or 0, buffer, blocks[-1].base_group + blocks[-1].groups, head)

    def _dump(self, name, step, buffer, groups, head=0):
        if self.trace_dumps:
            label = name if name == "logits" else self.config.label(name, step)
            self._emit(Opcode.DUMP, f"dump {label}", d_buffer=buffer, groups=groups, head=head, **self._stream(step))
