"""Executes commands on the state of a machine: the datapath of the emulator, bit for bit."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..arch.commands import SPIKE_BUFFERS, STATELESS, Attention, Buffer, Command, Memory, Neuron, Opcode, Sink
from ..arch.config import MEMBRANE_WIDTH, WEIGHT_BITS, AcceleratorConfig, lowest_level
from ..arch.cycles import most_hits
from ..arch.layout import row_bytes, unpack_parameters, unpack_rows
from ..arch.numerics import add_spikes, neuron_step, residual_add, saturate
from ..arch.registers import ErrorCode
from .command_check import memory_shape
from .interpreted_attention import CachedAttention
from .kernels import fire, sums, threshold_table


class Fault(Exception):
    """The machine stops with an error: `code` and the failing address."""

    def __init__(self, code: ErrorCode, address: int = 0):
        super().__init__(code.name)
        self.code, self.address = code, address


@dataclass(frozen=True)
class Place:
    """What the sequencer tells the units beside a command."""

    token: int = 0
    position: int = 0
    #: Last position of the text (bidirectional attention).
    last_position: int = 0
    #: Place in a sweep: positions of it have residual streams of their own.
    slot: int = 0


class Interpreter:
    """On-chip memories and buffers, and what each command does to them.

    Weights come from the bytes that LOAD copied or that `read` returns, so a damaged byte changes the output. Does not
    check commands (`command_check` does), nor loop over tokens.

    Parameters
    ----------
    cfg : AcceleratorConfig
    read : callable
        (byte offset in the image, size) -> bytes; raises Fault.
    counters : Counter
        Counts what the hardware counts.
    """

    def __init__(self, cfg: AcceleratorConfig, read: Callable[[int, int], bytes], counters: Counter):
        self.cfg, self.read, self.counters = cfg, read, counters
        self.dense = False
        #: Bytes of the image: bound of streamed rows.
        self.image_bytes = 0
        self._memories = {memory: np.zeros(np.prod(memory_shape(memory, cfg)), np.uint8) for memory in Memory}
        self._membranes = np.zeros(cfg.membrane_words * cfg.lanes, np.int64)
        self.residual = np.zeros((cfg.residual_slots, cfg.max_width), np.int64)
        self.spikes = np.zeros((SPIKE_BUFFERS, cfg.max_neurons), np.float32)
        self.logits = np.zeros(cfg.max_vocabulary, np.int64)
        #: Logits written since the sequencer set this to 0: a token's.
        self.logits_end = 0
        self.gathered = np.zeros(cfg.max_width, np.float32)
        self._attention = CachedAttention(cfg)
        self._decoded = {}

    def forget(self) -> None:
        """Drop what was decoded from memory: it may have changed."""
        self._decoded.clear()
        self._attention.forget()

    def execute(self, index: int, command: Command, at: Place) -> np.ndarray | None:
        """Run one command; returns the integers that its checksum covers, None where it has none.

        Raises
        ------
        Fault
            BAD_ADDRESS, or what `read` raises.
        """
        run = {Opcode.LOAD: self._load, Opcode.EMBED: self._embed, Opcode.FIRE: self._fire, Opcode.LINEAR: self._linear,
               Opcode.ATTEND: self._attend}[command.opcode]
        return run(index, command, at)

    def dump(self, command: Command, at: Place) -> np.ndarray:
        """Channels of a buffer, int64, a whole number of groups."""
        buffers = {Buffer.RESIDUAL: self.residual[self._slot(command, at)], Buffer.LOGITS: self.logits, Buffer.GATHER: self.gathered,
                   Buffer.SPIKES_0: self.spikes[0], Buffer.SPIKES_1: self.spikes[1], Buffer.SPIKES_2: self.spikes[2]}
        return buffers[Buffer(command["d_buffer"])][:command["groups"] * self.cfg.lanes].astype(np.int64)

    def _slot(self, c, at):
        return c["stream"] + at.slot

    def _channels(self, c):
        """Channels that a pass writes, in a buffer that `base_group` counts in."""
        first = c["base_group"] if c.opcode in (Opcode.LINEAR, Opcode.FIRE) else 0
        return slice(first * self.cfg.lanes, (first + c["groups"]) * self.cfg.lanes)

    def _load(self, index, c, at):
        memory = Memory(c["l_memory"])
        _, word_bytes = memory_shape(memory, self.cfg)
        start, size = c["l_address"] * word_bytes, c["l_words"] * word_bytes
        self._memories[memory][start:start + size] = np.frombuffer(self.read(c["l_offset"], size), np.uint8)
        self.counters["bytes_bus_read"] += size
        self.forget()

    # -- rows -------------------------------------------------------------------------------------------------

    def _weights(self, index, c):
        """Weights of a LINEAR, float32 [n_in, groups x lanes]."""
        if index not in self._decoded:
            self._decoded[index] = self._unpack(c, 0, c["n_in"])
        return self._decoded[index]

    def _unpack(self, c, first, count):
        """Some rows of a command, float32 [count, groups x lanes]; rows outside of memory read as zero."""
        bits = WEIGHT_BITS[c["weight_code"]]
        row = row_bytes(c["tiles"], bits, self.cfg)
        size = count * row
        if c["streamed"]:
            start = c["address"] + first * row
            data = self.read(start, max(0, min(size, self.image_bytes - start)))
        else:
            start = c["address"] * self.cfg.cols * bits // 8 + first * row
            data = self._memories[Memory.RESIDENT][start:start + size].tobytes()
        padded = data.ljust(size, b"\0")
        return unpack_rows(padded, count, c["groups"] * self.cfg.lanes, bits, c["tiles"], self.cfg).astype(np.float32)

    def _request(self, c, rows, levels):
        """Bounds and counters of the rows read: rows int [n], levels [n]."""
        bits = WEIGHT_BITS[c["weight_code"]]
        size = row_bytes(c["tiles"], bits, self.cfg)
        rows = np.asarray(rows, np.int64)
        # Streamed rows are asked for whole; of resident ones every row's first tile comes before any second one.
        unit = size if c["streamed"] else 1
        starts = c["address"] + (rows * size if c["streamed"] else rows * c["tiles"] + np.arange(c["tiles"])[:, None]).reshape(-1)
        outside = starts[starts + unit > (self.image_bytes if c["streamed"] else self.cfg.resident_words * 8 // bits)]
        if outside.size:
            raise Fault(ErrorCode.BAD_ADDRESS, int(outside[0]) & 0xFFFF_FFFF)
        self.counters["rows_wanted"] += len(rows)
        self.counters["event_tiles"] += len(rows) * c["tiles"]
        self.counters["level_tiles"] += int(np.abs(levels).sum()) * c["tiles"]
        self.counters["bytes_rows"] += len(rows) * size
        if c["streamed"]:
            self.counters["bytes_bus_read"] += len(rows) * size

    def _embed(self, index, c, at):
        rows = [at.token] + ([c["n_in"] + at.position] if c["position_row"] else [])
        self._request(c, rows, np.ones(len(rows)))
        acc = sum(self._unpack(c, row, 1)[0].astype(np.int64) for row in rows)
        if c["sink"] == Sink.SET_SPIKES:
            return self._set_spikes(index, c, acc, at)
        values, clipped = saturate(acc << c["embed_shift"])
        return self._write_residual(c, at, values, clipped)

    def _linear(self, index, c, at):
        levels = self.spikes[c["src"], :c["n_in"]]
        spoke = np.arange(c["n_in"]) if self.dense else np.flatnonzero(levels)
        self._request(c, spoke, levels[spoke])
        self.counters["rows_skipped"] += c["n_in"] - len(spoke)
        acc = sums(levels, self._weights(index, c))
        sink = Sink(c["sink"])
        if sink in (Sink.SPIKES, Sink.QKV):
            return self._spike(index, c, acc, at)
        part = self._channels(c)
        old = self.residual[self._slot(c, at), part]
        if sink == Sink.ADD_SPIKES:
            return self._write_residual(c, at, *add_spikes(old, self._neurons(index, c, acc), c["embed_shift"]))
        base, _, shift = self._parameters(c)
        if sink == Sink.LOGITS:
            half = 1 << (self.cfg.acc_width - 1)
            self.logits[part] = ((acc.astype(np.int64) + base + half) & (2 * half - 1)) - half
            self.logits_end = max(self.logits_end, part.stop)
            return self.logits[part].copy()
        return self._write_residual(c, at, *residual_add(old, acc.astype(np.int64), base, shift))

    def _write_residual(self, c, at, values, clipped):
        self.residual[self._slot(c, at), self._channels(c)] = values
        self.counters["saturations"] += clipped
        return values

    # -- neurons ----------------------------------------------------------------------------------------------

    def _parameters(self, c):
        size = self.cfg.lanes * 8
        return unpack_parameters(self._memories[Memory.PARAMETERS][c["params"] * size:(c["params"] + c["groups"]) * size].tobytes())

    def _neurons(self, index, c, acc):
        """Spikes of the neurons of a pass, float32 [groups x lanes]."""
        parts = [(slice(0, c["groups"] * self.cfg.lanes), c["level"])]
        if c.opcode == Opcode.LINEAR and c["sink"] == Sink.QKV:
            values_from = min(2 * c["attn_groups"], c["groups"]) * self.cfg.lanes
            parts = [(slice(0, values_from), 1), (slice(values_from, parts[0][0].stop), c["level"])]
        spikes = self._stateless(index, c, acc, parts) if c["neuron"] in STATELESS else self._stateful(c, acc, parts)
        self.counters["spikes"] += int(np.abs(spikes).sum())
        self.counters["fired"] += int(np.count_nonzero(spikes))
        self.counters["neurons"] += len(spikes)
        return spikes

    def _stateless(self, index, c, acc, parts):
        """Counts thresholds, in its fast form."""
        if ("table", index) not in self._decoded:
            base, step, _ = self._parameters(c)
            levels = np.concatenate([np.full(part.stop - part.start, level) for part, level in parts])
            lows = lowest_level(levels) if c["neuron"] == Neuron.SIGNED_NI_LIF else np.zeros_like(levels)
            self._decoded["table", index] = threshold_table(base, step, levels, lows), lows.astype(np.float32)
        return fire(acc, *self._decoded["table", index])

    def _stateful(self, c, acc, parts):
        base, step, _ = self._parameters(c)
        kept = self._membranes[c["params"] * self.cfg.lanes:][:len(base)]  # a view
        membrane = np.zeros_like(kept) if c["first"] else kept.copy()
        spikes = np.zeros(len(base), np.float32)
        for part, level in parts:
            spikes[part], after = neuron_step(c["neuron"], acc[part].astype(np.int64), membrane[part], base[part], step[part],
                                              levels=level, leak=c["leak"])
            half = 1 << (MEMBRANE_WIDTH - 1)
            kept[part] = ((after + half) & (2 * half - 1)) - half
        return spikes

    def _spike(self, index, c, acc, at):
        """Neurons of a LINEAR, FIRE or ATTEND, into the spike buffer (and query, key and value)."""
        spikes = self._neurons(index, c, acc)
        self.spikes[c["dst"], self._channels(c)] = spikes
        if c.opcode == Opcode.LINEAR and c["sink"] == Sink.QKV:
            self._attention.write(c, spikes, at.position)
        return spikes.astype(np.int64)

    def _set_spikes(self, index, c, acc, at):
        """The stream becomes the spikes that it drives; these are the output."""
        spikes = self._spike(index, c, acc, at)
        self.residual[self._slot(c, at), :len(spikes)], clipped = saturate(spikes << c["embed_shift"])
        self.counters["saturations"] += clipped
        return spikes

    def _fire(self, index, c, at):
        acc = self.residual[self._slot(c, at), :c["groups"] * self.cfg.lanes].astype(np.float32)
        return (self._set_spikes if c["sink"] == Sink.SET_SPIKES else self._spike)(index, c, acc, at)

    # -- attention --------------------------------------------------------------------------------------------

    def hits(self, command: Command, at: Place) -> np.ndarray | tuple:
        """`arch.cycles.most_hits` of an ATTEND that will run now; of another command, or where heads compete, nothing."""
        if command.opcode != Opcode.ATTEND or command["attention"] == Attention.WTA:
            return ()
        return most_hits(self.cfg, self._attention.counts(command, at.position, at.last_position))

    def _attend(self, index, c, at):
        gathered, won = self._attention.attend(index, c, at.position, at.last_position)
        self.gathered[:len(gathered)] = gathered
        self.counters["winners"] += won
        return self._spike(index, c, self.gathered[:c["groups"] * self.cfg.lanes], at)
