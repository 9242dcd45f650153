"""Executes commands on the state of a machine: the datapath of the emulator, bit for bit."""

from collections import Counter
from collections.abc import Callable

import numpy as np

from ..arch.commands import Buffer, Command, Memory, Opcode, Sink
from ..arch.config import RECENCY_OFF, WEIGHT_BITS, AcceleratorConfig
from ..arch.layout import row_bytes, unpack_parameters, unpack_rows
from ..arch.numerics import residual_add, saturate
from ..arch.registers import ErrorCode
from .command_check import memory_shape
from .kernels import WinnerTakeAll, fire, sums, threshold_table


class Fault(Exception):
    """The machine stops with an error: `code` and the failing address."""

    def __init__(self, code: ErrorCode, address: int = 0):
        super().__init__(code.name)
        self.code, self.address = code, address


class Interpreter:
    """On-chip memories and buffers, and what each command does to them.

    Weights come from the bytes that LOAD copied or that `read` returns, so a damaged byte changes the output. Does not
    check commands (`command_check` does), nor loop over tokens.

    Parameters
    ----------
    cfg : AcceleratorConfig
    read : callable
        (byte offset in the image, size) -> bytes; raises Fault.
    """

    def __init__(self, cfg: AcceleratorConfig, read: Callable[[int, int], bytes]):
        self.cfg, self.read = cfg, read
        self.counters = Counter()
        self.dense = False
        #: Bytes of the image: bound of streamed rows.
        self.image_bytes = 0
        self._memories = {memory: np.zeros(np.prod(memory_shape(memory, cfg)), np.uint8) for memory in Memory}
        self.residual = np.zeros(cfg.max_width, np.int64)
        self.spikes = np.zeros((2, cfg.max_neurons), np.float32)
        self.logits = np.zeros(cfg.max_vocabulary, np.int64)
        self.gathered = np.zeros(cfg.max_width, np.float32)
        self._query = np.zeros(cfg.max_width, np.float32)
        self._keys = np.zeros((cfg.kv_positions, cfg.max_width), np.float32)
        self._values = np.zeros((cfg.kv_positions, cfg.max_width), np.float32)
        self._decoded = {}

    def forget(self) -> None:
        """Drop what was decoded from memory: it may have changed."""
        self._decoded.clear()

    def execute(self, index: int, command: Command, token: int, position: int) -> np.ndarray | None:
        """Run one command; returns the integers that its checksum covers, None where it has none.

        Raises
        ------
        Fault
            BAD_ADDRESS, or what `read` raises.
        """
        run = {Opcode.LOAD: self._load, Opcode.EMBED: self._embed, Opcode.FIRE: self._fire, Opcode.LINEAR: self._linear,
               Opcode.ATTEND: self._attend}[command.opcode]
        return run(index, command, token, position)

    def dump(self, command: Command) -> np.ndarray:
        """Channels of a buffer, int64, a whole number of groups."""
        buffers = {Buffer.RESIDUAL: self.residual, Buffer.SPIKES_0: self.spikes[0], Buffer.SPIKES_1: self.spikes[1],
                   Buffer.LOGITS: self.logits, Buffer.GATHER: self.gathered}
        return buffers[Buffer(command["d_buffer"])][:command["groups"] * self.cfg.lanes].astype(np.int64)

    def _load(self, index, c, token, position):
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
        self.counters["level_tiles"] += int(levels.sum()) * c["tiles"]
        self.counters["bytes_rows"] += len(rows) * size
        if c["streamed"]:
            self.counters["bytes_bus_read"] += len(rows) * size

    def _embed(self, index, c, token, position):
        rows = [token] + ([c["n_in"] + position] if c["position_row"] else [])
        self._request(c, rows, np.ones(len(rows)))
        acc = sum(self._unpack(c, row, 1)[0].astype(np.int64) for row in rows)
        values, clipped = saturate(acc << c["embed_shift"])
        self.residual[:len(values)] = values
        self.counters["saturations"] += clipped
        return values

    def _linear(self, index, c, token, position):
        levels = self.spikes[c["src"], :c["n_in"]]
        spoke = np.arange(c["n_in"]) if self.dense else np.flatnonzero(levels)
        self._request(c, spoke, levels[spoke])
        self.counters["rows_skipped"] += c["n_in"] - len(spoke)
        acc = sums(levels, self._weights(index, c))
        sink = Sink(c["sink"])
        if sink in (Sink.SPIKES, Sink.QKV):
            return self._spike(index, c, acc, position)
        base, _, shift = self._parameters(c)
        part = slice(c["base_group"] * self.cfg.lanes, (c["base_group"] + c["groups"]) * self.cfg.lanes)
        if sink == Sink.LOGITS:
            half = 1 << (self.cfg.acc_width - 1)
            self.logits[part] = ((acc.astype(np.int64) + base + half) & (2 * half - 1)) - half
            return self.logits[part].copy()
        self.residual[part], clipped = residual_add(self.residual[part], acc.astype(np.int64), base, shift)
        self.counters["saturations"] += clipped
        return self.residual[part].copy()

    # -- neurons ----------------------------------------------------------------------------------------------

    def _parameters(self, c):
        size = self.cfg.lanes * 8
        return unpack_parameters(self._memories[Memory.PARAMETERS][c["params"] * size:(c["params"] + c["groups"]) * size].tobytes())

    def _spike(self, index, c, acc, position):
        """Neurons of a LINEAR, FIRE or ATTEND, into the spike buffer (and query, key and value)."""
        if ("table", index) not in self._decoded:
            levels = np.full(c["groups"] * self.cfg.lanes, c["level"])
            if c.opcode == Opcode.LINEAR and c["sink"] == Sink.QKV:
                levels[:2 * c["attn_groups"] * self.cfg.lanes] = 1
            base, step, _ = self._parameters(c)
            self._decoded["table", index] = threshold_table(base, step, levels)
        levels = fire(acc, self._decoded["table", index])
        start = c["base_group"] * self.cfg.lanes if c.opcode == Opcode.LINEAR else 0
        self.spikes[c["dst"], start:start + len(levels)] = levels
        if c.opcode == Opcode.LINEAR and c["sink"] == Sink.QKV:
            self._cache(c, levels, position)
        self.counters["spikes"] += int(levels.sum())
        self.counters["fired"] += int(np.count_nonzero(levels))
        self.counters["neurons"] += len(levels)
        return levels.astype(np.int64)

    def _cache(self, c, levels, position):
        width, at = c["attn_groups"] * self.cfg.lanes, c["kv_base"] + position
        query, key, value = (levels[i * width:(i + 1) * width] for i in range(3))
        self._query[:len(query)] = query
        self._keys[at, :len(key)] = key
        self._values[at, :len(value)] = value

    def _fire(self, index, c, token, position):
        return self._spike(index, c, self.residual[:c["groups"] * self.cfg.lanes].astype(np.float32), position)

    # -- attention --------------------------------------------------------------------------------------------

    def _attend(self, index, c, token, position):
        width, head = c["groups"] * self.cfg.lanes, self.cfg.segment << c["head_level"]
        heads = -(-width // head)
        if ("attention", index) not in self._decoded:
            shifts = [c["gather_shifts"] >> (3 * rank) & 7 for rank in range(c["top_k"])]
            recency = [c["recency"] >> (4 * h) & RECENCY_OFF for h in range(heads)]
            self._decoded["attention", index] = WinnerTakeAll(c["top_k"], shifts, recency, c["overlap"], self.cfg.max_context)
        unit = self._decoded["attention", index]
        region = slice(c["a_kv_base"], c["a_kv_base"] + position + 1)
        keys = self._keys[region, :heads * head].reshape(-1, heads, head).transpose(1, 0, 2)  # [H, n, d]
        values = self._values[region, :heads * head].reshape(-1, heads, head)                 # [n, H, d]
        raw = np.matmul(keys, self._query[:heads * head].reshape(heads, head, 1))[:, :, 0]
        positions, valid, _, _ = unit.choose(raw)
        self.gathered[:heads * head] = unit.gather(values, positions, valid).reshape(-1)
        self.counters["winners"] += int(valid.sum())
        return self._spike(index, c, self.gathered[:width], position)
