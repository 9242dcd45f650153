"""The whole core: a list of submodules and their connections."""

from amaranth.hdl import Cat, Const, Module, Mux, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from spikeloom.arch.commands import COMMAND_WORDS, STATELESS, Opcode, Sink
from spikeloom.arch.config import AcceleratorConfig
from spikeloom.arch.registers import COUNTERS, MAGIC, VERSION, ErrorCode, register_map
from spikeloom.arch.streamed_cycles import BEATS_OPEN, BURSTS_OPEN

from .bus.axi import AxiLiteSignature, AxiSignature
from .bus.axi_reader import AxiReader
from .bus.axi_writer import AxiWriter
from .bus.csr import RegisterFile
from .bus.striped_reader import StripedReader, port_name
from .control.checksum import Checksum
from .control.command_check import fields_of
from .control.counters import Counters
from .control.dumper import Dumper
from .control.loader import Loader
from .control.recorder import Recorder
from .control.reset_controller import ResetController
from .control.row_scheduler import RowScheduler
from .control.run_ahead import RunAhead
from .control.sequencer import Sequencer
from .datapath.attention_unit import AttentionUnit
from .datapath.neuron_unit import RESIDENT, SPIKING, NeuronUnit, Source
from .datapath.pick_unit import PickUnit
from .datapath.spike_engine import SpikeEngine
from .lib.arith import popcount
from .storage.membrane_memory import MembraneMemory
from .storage.parameter_table import ParameterTable
from .storage.residual_store import ResidualStore
from .storage.row_source import RowSource
from .storage.spike_buffers import SpikeBuffers
from .storage.window_memory import WindowMemory


class Top(wiring.Component):
    """A spiking transformer that writes text: AXI4-Lite registers, one AXI manager or several, one interrupt.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    s_axil : In(AxiLiteSignature)
        Registers: `arch.registers.register_map`.
    m_axi : Out(AxiSignature)
        Image, token records, traces.
    m_axi1, ... : Out(AxiSignature)
        Where `cfg.ports` says so: their shares of the image. They never write.
    irq : Out(1)
        Level; a run ended.

    Reference
    ---------
    `spikeloom.model.emulator`.
    """

    def __init__(self, cfg: AcceleratorConfig):
        self.cfg = cfg
        self.registers = register_map(cfg)
        self.csr = RegisterFile(self.registers)
        self.bus = {"address_width": cfg.address_width, "data_width": cfg.data_width, "axi3": cfg.axi3}
        self.managers = [port_name(port) for port in range(cfg.ports)]
        super().__init__({
            "s_axil": In(AxiLiteSignature(address_width=12)),
            **{name: Out(AxiSignature(**self.bus)) for name in self.managers}, "irq": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        self._build_submodules(m)
        self.command = fields_of(self.sequencer.command)
        self.dumping = Signal()
        m.d.comb += self.dumping.eq(self.command.opcode == Opcode.DUMP)
        self._build_bus(m)
        self._build_control(m)
        self._build_windows(m)
        self._build_linear(m)
        self._build_results(m)
        self._build_attention(m)
        self._build_pick(m)
        self._build_records(m)
        self._build_status(m)
        self._build_counters(m)
        return m

    def _build_submodules(self, m):
        """What a soft reset clears sits behind one ResetInserter; registers, bus and counters do not."""
        cfg = self.cfg
        m.submodules.csr = self.csr
        connect(m, flipped(self.s_axil), self.csr.bus)
        m.submodules.reset = self.reset = ResetController()
        m.submodules.counters = self.counters = Counters()
        open_reads = {"max_outstanding_beats": BEATS_OPEN, "max_outstanding_bursts": BURSTS_OPEN}
        m.submodules.reader = self.reader = (AxiReader(**self.bus, **open_reads) if cfg.ports == 1 else
                                             StripedReader(ports=cfg.ports, **self.bus, **open_reads))
        m.submodules.writer = self.writer = AxiWriter(**self.bus)
        m.submodules.program = self.program = WindowMemory(depth=cfg.program_words, part_width=32, parts=COMMAND_WORDS)
        m.submodules.prompt = self.prompt = WindowMemory(depth=cfg.max_context + 1, part_width=16)
        core = {
            "sequencer": Sequencer(cfg=cfg), "run_ahead": RunAhead(cfg=cfg), "scheduler": RowScheduler(cfg=cfg), "rows": RowSource(cfg=cfg),
            "engine": SpikeEngine(cfg=cfg), "neurons": NeuronUnit(cfg=cfg), "residual": ResidualStore(cfg=cfg),
            "spikes": SpikeBuffers(cfg=cfg), "parameters": ParameterTable(cfg=cfg), "membranes": MembraneMemory(cfg=cfg),
            "attention": AttentionUnit(cfg=cfg), "pick": PickUnit(cfg=cfg), "loader": Loader(cfg=cfg),
            "recorder": Recorder(cfg=cfg), "dumper": Dumper(cfg=cfg), "checksum": Checksum(cfg=cfg),
        }
        for name, component in core.items():
            m.submodules[name] = ResetInserter(self.reset.core_reset)(component)
            setattr(self, name, component)

    def _build_bus(self, m):
        """Read channels shared by loader and streamed rows, which wait for a LOAD that goes on; one write channel."""
        csr, cfg = self.csr, self.cfg
        self._build_managers(m)
        self.image_base = Signal(cfg.address_width)
        m.d.comb += self.image_base.eq(Cat(csr.image_base_lo_value, csr.image_base_hi_value))
        loading = Signal()
        m.d.comb += loading.eq(self.loader.busy)
        request, offset = self.reader.i_request, Signal(cfg.address_width)
        for chosen, source in ((loading, self.loader), (~loading, self.rows)):
            with m.If(chosen):
                m.d.comb += [
                    request.valid.eq(source.o_request.valid), source.o_request.ready.eq(request.ready),
                    offset.eq(source.o_request.payload.address), request.payload.beats.eq(source.o_request.payload.beats),
                    source.i_beat.valid.eq(self.reader.o_beat.valid), self.reader.o_beat.ready.eq(source.i_beat.ready),
                    source.i_beat.payload.eq(self.reader.o_beat.payload),
                ]
        m.d.comb += request.payload.address.eq(self.image_base + offset)
        connect(m, self.recorder.o, self.writer.i)
        for manager in (self.reader, self.writer):
            m.d.comb += [manager.timeout.eq(csr.bus_timeout_value), manager.drain.eq(self.reset.drain)]
        m.d.comb += [
            self.reset.request.eq(csr.control_reset), self.reset.drained.eq(self.reader.drained & self.writer.drained),
            self.reset.bus_dead.eq(self.reader.bus_dead | self.writer.bus_dead),
        ]

    def _build_managers(self, m):
        for manager in self.managers:
            outside = getattr(self, manager)
            reads, writes = getattr(self.reader, manager), self.writer.m_axi if manager == "m_axi" else None
            for name, member in outside.signature.members.items():
                inside = getattr(reads if name in reads.signature.members else writes, name, None)
                outer = getattr(outside, name)
                if inside is None:  # the write half of a further port rests
                    m.d.comb += outer.eq(0) if member.flow is Out else []
                else:
                    m.d.comb += outer.eq(inside) if member.flow is Out else inside.eq(outer)

    def _build_control(self, m):
        """Registers to the sequencer, start pulses to the units, their done pulses back, faults."""
        csr, seq, c = self.csr, self.sequencer, self.command
        m.d.comb += [
            seq.start.eq(csr.control_start), seq.stop.eq(csr.control_stop), seq.clear_context.eq(csr.control_clear_context),
            seq.run_mode.eq(csr.mode_run), seq.ignore_end.eq(csr.mode_ignore_end), seq.trace.eq(csr.mode_trace),
            seq.boot_entry.eq(csr.entries_boot), seq.token_entry.eq(csr.entries_token),
            seq.prefill_entry.eq(csr.prefill_entry), seq.prefill_block.eq(csr.prefill_block),
            seq.vocabulary.eq(csr.limits_vocabulary), seq.context.eq(csr.limits_context),
            seq.n_prompt.eq(csr.run_n_prompt), seq.n_new.eq(csr.run_n_new), seq.end_token.eq(csr.end_token_id),
            seq.loading.eq(self.loader.busy), seq.load_fault.eq(self.loader.busy & (self.reader.error.valid | self.reader.bus_dead)),
            seq.watchdog.eq(csr.watchdog_value), seq.image_bytes.eq(csr.image_bytes_value),
        ]
        go = {opcode: seq.go[opcode] for opcode in Opcode}
        linear = go[Opcode.EMBED] | go[Opcode.LINEAR]
        opcode = c.opcode
        attended = self.attention.done
        m.d.comb += [
            self.run_ahead.go.eq(linear), self.scheduler.start.eq(self.run_ahead.start),
            self.attention.start.eq(go[Opcode.ATTEND]), self.loader.start.eq(go[Opcode.LOAD]),
            self.pick.start.eq(go[Opcode.PICK]), self.dumper.start.eq(go[Opcode.DUMP]),
            self.neurons.start.eq(linear | go[Opcode.FIRE] | attended),
        ]
        with m.Switch(opcode):
            with m.Case(Opcode.LOAD):
                m.d.comb += seq.unit_done.eq(self.loader.done)
            with m.Case(Opcode.PICK):
                m.d.comb += seq.unit_done.eq(self.pick.done)
            with m.Case(Opcode.DUMP):
                m.d.comb += seq.unit_done.eq(self.dumper.done)
            with m.Default():
                m.d.comb += seq.unit_done.eq(self.neurons.done)
        saturated = Signal()
        m.d.comb += saturated.eq(self.neurons.saturated & csr.mode_stop_on_saturation)
        faults = [
            (self.reader.bus_dead | self.writer.bus_dead, ErrorCode.BUS_DEAD, 0),
            (self.run_ahead.fault, ErrorCode.BAD_ADDRESS, self.run_ahead.fault_address),
            (self.reader.error.valid, ErrorCode.BUS_READ, self.reader.error.address),
            (self.writer.error.valid, ErrorCode.BUS_WRITE, self.writer.error.address),
            (saturated, ErrorCode.SATURATION, 0),
        ]
        for valid, code, address in reversed(faults):
            with m.If(valid):
                m.d.comb += [seq.fault.eq(1), seq.fault_code.eq(code), seq.fault_address.eq(address)]

    def _build_windows(self, m):
        csr, seq = self.csr, self.sequencer
        for window, index, value in ((self.program, "program_index_value", "program_data_value"),
                                     (self.prompt, "prompt_index_value", "prompt_data_token")):
            m.d.comb += [
                window.index.eq(getattr(csr, index)), window.index_strobe.eq(getattr(csr, f"{index}_strobe")),
                window.data.eq(getattr(csr, value)), window.data_strobe.eq(getattr(csr, f"{value}_strobe")),
            ]
        m.d.comb += [
            self.program.address.eq(seq.program_address), seq.program_word.eq(self.program.o_data),
            self.prompt.address.eq(seq.prompt_address), seq.prompt_token.eq(self.prompt.o_data),
        ]

    def _build_linear(self, m):
        """Spikes -> events -> weights -> sums; EMBED is the same path with rows named by token and position."""
        seq, ahead = self.sequencer, self.run_ahead
        written, scheduler, rows, engine = self.neurons.o, self.scheduler, self.rows, self.engine
        m.d.comb += [
            ahead.command.eq(seq.command), ahead.next_command.eq(seq.next_command), ahead.next_valid.eq(seq.next_valid),
            ahead.take.eq(seq.take), ahead.front_busy.eq(scheduler.busy | rows.busy),
            ahead.written.eq(self.neurons.o_valid & written.to_spikes),
            ahead.error_valid.eq(rows.error_valid), ahead.error_address.eq(rows.error_address),
        ]
        # The command whose rows are added: the one being run, or already the next one.
        c = fields_of(ahead.front)
        embed = Signal()
        m.d.comb += embed.eq(c.opcode == Opcode.EMBED)
        bank = Signal()
        with m.If(self.scheduler.start):
            m.d.sync += bank.eq(~bank)
        m.d.comb += [
            scheduler.ready_words.eq(ahead.ready_words), scheduler.resident.eq(~c.streamed),
            scheduler.n_in.eq(c.n_in), scheduler.tiles.eq(c.tiles), scheduler.order.eq(c.order),
            scheduler.dense.eq(self.csr.mode_dense), scheduler.embed.eq(embed),
            scheduler.embed_row_a.eq(seq.token), scheduler.embed_row_b.eq(c.n_in + seq.position),
            scheduler.embed_has_b.eq(c.position_row),
            rows.address.eq(c.address), rows.tiles.eq(c.tiles), rows.streamed.eq(c.streamed),
            rows.weight_code.eq(c.weight_code), rows.bank.eq(bank), rows.image_bytes.eq(self.csr.image_bytes_value),
            rows.l_en.eq(self.loader.w_resident), rows.l_address.eq(self.loader.w_address),
            rows.l_data.eq(self.loader.w_data),
            self.parameters.l_en.eq(self.loader.w_parameters), self.parameters.l_address.eq(self.loader.w_address),
            self.parameters.l_data.eq(self.loader.w_data),
        ]
        run = self.command
        m.d.comb += [
            self.loader.offset.eq(run.l_offset), self.loader.memory.eq(run.l_memory), self.loader.address.eq(run.l_address),
            self.loader.words.eq(run.l_words),
        ]
        m.d.comb += [
            self.spikes.r_buffer.eq(Mux(self.dumping, self.dumper.spike_buffer, c.src)),
            self.spikes.r_word.eq(scheduler.r_word), scheduler.r_levels.eq(self.spikes.r_levels),
        ]
        connect(m, scheduler.o, rows.i)
        connect(m, rows.o, engine.i)
        connect(m, engine.o_drain, self.neurons.i_drain)
        m.d.comb += [
            engine.r_bank.eq(self.neurons.bank), engine.r_tile.eq(self.neurons.tile), engine.r_group.eq(self.neurons.group),
            self.neurons.sums.eq(engine.r_sums), engine.release.en.eq(self.neurons.release),
            engine.release.bank.eq(self.neurons.bank), engine.release.tile.eq(self.neurons.tile),
        ]

    def _build_results(self, m):
        """The pass of the neuron unit, and where its groups go."""
        c, neurons, residual, membranes = self.command, self.neurons, self.residual, self.membranes
        job, following, result, coming = neurons.job, neurons.next_job, neurons.o, fields_of(self.sequencer.next_command)
        for name in ("sink", "dst", "groups", "params", "base_group", "attn_groups", "level", "embed_shift", "neuron", "leak", "first"):
            m.d.comb += [getattr(job, name).eq(getattr(c, name)), getattr(following, name).eq(getattr(coming, name))]
        # A FIRE of the stream that a LINEAR or EMBED is writing: static long before the last group.
        m.d.comb += following.source.eq(Source.RESIDUAL)
        m.d.sync += neurons.chain.eq(
            self.sequencer.next_valid & self.sequencer.record_free & (coming.opcode == Opcode.FIRE) & (coming.stream == c.stream)
            & (coming.groups >= c.groups) & ((c.opcode == Opcode.LINEAR) | (c.opcode == Opcode.EMBED))
            & Cat(c.sink == sink for sink in RESIDENT).any()
            # Membranes that the one pass writes late must not be those that the other reads.
            & (Cat(coming.neuron == kind for kind in STATELESS).any() | ~Cat(c.sink == sink for sink in SPIKING).any()
               | (c.params + c.groups <= coming.params) | (coming.params + coming.groups <= c.params)))
        with m.Switch(c.opcode):
            with m.Case(Opcode.FIRE):
                m.d.comb += job.source.eq(Source.RESIDUAL)
            with m.Case(Opcode.ATTEND):
                m.d.comb += [job.source.eq(Source.GATHER), job.sink.eq(Sink.SPIKES), job.base_group.eq(0)]
            with m.Default():
                m.d.comb += job.source.eq(Source.SUMS)
        m.d.comb += [
            residual.slot.eq(self.sequencer.slot),
            residual.r_group.eq(Mux(self.dumping, self.dumper.group, neurons.r_group)), neurons.residual.eq(residual.r_values),
            self.parameters.address.eq(neurons.p_address), neurons.records.eq(self.parameters.o_records),
            membranes.r_address.eq(neurons.p_address), neurons.membranes.eq(membranes.r_values),
            membranes.w_en.eq(neurons.m_en), membranes.w_address.eq(neurons.m_address), membranes.w_values.eq(neurons.m_values),
            self.attention.g_group.eq(Mux(self.dumping, self.dumper.group, neurons.g_group)),
            neurons.gathered.eq(self.attention.g_values),
            self.spikes.w_en.eq(neurons.o_valid & result.to_spikes), self.spikes.w_buffer.eq(result.dst),
            self.spikes.w_group.eq(result.group), self.spikes.w_levels.eq(result.levels),
            residual.w_en.eq(neurons.o_valid & result.to_residual),
            residual.w_group.eq(result.home), residual.w_values.eq(result.words),
            self.attention.w_en.eq(neurons.o_valid & (result.sink == Sink.QKV)),
            self.attention.w_kind.eq(result.part), self.attention.w_group.eq(result.part_group),
            self.attention.w_levels.eq(result.levels), self.attention.w_position.eq(self.sequencer.position),
            self.attention.w_kv_base.eq(c.kv_base),
            self.pick.w_en.eq(neurons.o_valid & (result.sink == Sink.LOGITS)),
            self.pick.w_group.eq(result.group), self.pick.w_values.eq(result.values),
        ]

    def _build_attention(self, m):
        """The scan of an ATTEND begins while the LINEAR before it still makes keys and values."""
        c, seq, attention = self.command, self.sequencer, self.attention
        coming, ahead = fields_of(seq.next_command), Signal()
        # A register, with which fields are chosen; the next command stays where it is while it is taken.
        m.d.sync += ahead.eq((c.opcode == Opcode.LINEAR) & seq.next_valid & (coming.opcode == Opcode.ATTEND) & ~coming.head)
        m.d.comb += [
            attention.ahead.eq(ahead & self.neurons.query_end),
            attention.position.eq(seq.position), attention.last_position.eq(seq.last_position),
        ]
        for name in ("a_kv_base", "attention", "bidirectional", "head_level", "top_k", "overlap", "recency", "gather_shifts",
                     "groups"):
            m.d.comb += getattr(attention, name).eq(Mux(ahead, getattr(coming, name), getattr(c, name)))

    def _build_pick(self, m):
        csr, pick, seq = self.csr, self.pick, self.sequencer
        m.d.comb += [
            pick.clear.eq(seq.first_logits), pick.sample.eq(csr.mode_sample), pick.top_k.eq(csr.mode_top_k),
            pick.seed.eq(csr.seed_value), pick.position.eq(seq.position), pick.vocabulary.eq(csr.limits_vocabulary),
            pick.target.eq(seq.target),
            pick.noise_index.eq(csr.noise_index_value), pick.noise_index_strobe.eq(csr.noise_index_value_strobe),
            pick.noise_data.eq(csr.noise_data_value), pick.noise_data_strobe.eq(csr.noise_data_value_strobe),
            seq.picked.eq(pick.token), seq.picked_logit.eq(pick.token_logit), seq.best_id.eq(pick.best_id),
            seq.best_logit.eq(pick.best_logit), seq.target_logit.eq(pick.target_logit),
        ]

    def _build_records(self, m):
        csr, recorder, seq, c, dumper = self.csr, self.recorder, self.sequencer, self.command, self.dumper
        for name in ("ring", "trace", "dump"):
            m.d.comb += getattr(recorder, f"{name}_base").eq(
                Cat(getattr(csr, f"{name}_base_lo_value"), getattr(csr, f"{name}_base_hi_value")))
        m.d.comb += [
            recorder.ring_records.eq(csr.ring_records_value), recorder.trace_bytes.eq(csr.trace_bytes_value),
            recorder.dump_bytes.eq(csr.dump_bytes_value), recorder.clear.eq(csr.control_start & ~seq.busy),
            recorder.answered.eq(self.writer.o_done), recorder.failed.eq(self.writer.error.valid), seq.flushed.eq(recorder.idle),
            self.checksum.first.eq(self.neurons.o.first), self.checksum.en.eq(self.neurons.o_valid),
            self.checksum.values.eq(self.neurons.o.values), seq.checksum.eq(self.checksum.value),
            dumper.buffer.eq(c.d_buffer), dumper.groups.eq(c.groups),
            dumper.residual.eq(self.residual.r_values), self.spikes.dump.eq(self.dumping),
            self.spikes.d_group.eq(dumper.group), dumper.spikes.eq(self.spikes.d_levels),
            self.pick.d_group.eq(dumper.group), dumper.logits.eq(self.pick.d_values),
            dumper.gather.eq(self.attention.g_values),
        ]
        connect(m, seq.o_token, recorder.i_token)
        connect(m, seq.o_trace, recorder.i_trace)
        connect(m, dumper.o, recorder.i_dump)

    def _build_status(self, m):
        csr, seq, cfg = self.csr, self.sequencer, self.cfg
        done = Signal()
        with m.If(csr.control_start | csr.control_acknowledge | csr.control_reset):
            m.d.sync += done.eq(0)
        with m.If(seq.finished & ~csr.control_reset & ~self.reset.drain):
            m.d.sync += done.eq(1)
        dead = self.reader.bus_dead | self.writer.bus_dead
        m.d.comb += [
            csr.magic_value.eq(MAGIC), csr.version_value.eq(VERSION), csr.fingerprint_value.eq(cfg.fingerprint),
            csr.shape_cols.eq(cfg.cols), csr.shape_rows.eq(cfg.rows), csr.shape_lanes.eq(cfg.lanes),
            csr.shape_k_max.eq(cfg.k_max), csr.shape_level_max.eq(cfg.level_max),
            self.irq.eq(done & csr.mode_interrupt_enable), csr.status_interrupt.eq(self.irq),
            csr.status_busy.eq(seq.busy | self.reset.drain), csr.status_done.eq(done), csr.status_state.eq(seq.state),
            csr.status_reason.eq(seq.reason), csr.status_bus_dead.eq(dead), csr.status_trace_full.eq(self.recorder.full),
            csr.error_code.eq(seq.error_code), csr.error_command.eq(seq.error_command),
            csr.error_position.eq(seq.error_position), csr.error_address_value.eq(seq.error_address),
            csr.progress_position.eq(seq.position), csr.progress_records.eq(self.recorder.records),
            csr.trace_count_value.eq(self.recorder.trace_count), csr.dump_count_value.eq(self.recorder.dump_count),
            csr.sequencer_command.eq(seq.command_index), csr.sequencer_opcode.eq(self.command.opcode),
            csr.sequencer_phase.eq(seq.state),
        ]

    def _build_counters(self, m):
        csr, seq, counters, cfg = self.csr, self.sequencer, self.counters, self.cfg
        neurons, rows = self.neurons, self.rows
        tile_bytes = Const(cfg.cols) >> fields_of(self.run_ahead.front).weight_code
        reads = [getattr(self.reader, name) for name in self.managers]
        read = popcount(Cat(bus.rvalid & bus.rready for bus in reads))
        written = self.writer.m_axi.wvalid & self.writer.m_axi.wready
        spiking = Cat(neurons.o.sink == sink for sink in SPIKING).any()
        increments = {
            "cycles": seq.busy, "tokens": seq.token_done, "commands": seq.command_done,
            "event_tiles": self.engine.event, "rows_wanted": self.scheduler.wanted,
            "rows_skipped": Mux(self.scheduler.skipped_valid, self.scheduler.skipped, 0), "row_wait": rows.waiting,
            "level_tiles": self.engine.event_level,
            "bytes_rows": Mux(self.engine.event[-1], tile_bytes << (cfg.events - 1), Mux(self.engine.event[0], tile_bytes, 0)),
            "bytes_bus_read": read << exact_log2(cfg.beat_bytes), "bytes_bus_written": Mux(written, cfg.beat_bytes, 0),
            "spikes": neurons.n_spikes, "fired": neurons.n_fired, "neurons": Mux(neurons.o_valid & spiking, cfg.lanes, 0),
            "winners": Mux(self.attention.winners_strobe, self.attention.winners, 0), "saturations": neurons.n_saturated,
        }
        assert set(increments) == set(COUNTERS)
        m.d.comb += counters.clear.eq(csr.control_clear_counters)
        for name, increment in increments.items():
            value = getattr(counters, name)
            m.d.comb += [getattr(counters, f"add_{name}").eq(increment),
                         getattr(csr, f"{name}_lo_value").eq(value[:32]), getattr(csr, f"{name}_hi_value").eq(value[32:])]
