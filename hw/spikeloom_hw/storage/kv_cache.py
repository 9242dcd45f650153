"""Keys and values of every position that attention may still look at."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.config import AcceleratorConfig, bits_for

from ..levels import spoke_and_minus


class KvCache(wiring.Component):
    """Keys in `score_banks` memories (bank = position mod banks), values in one memory per segment of channels.

    A key is two bits per channel, whether it spoke and whether below zero; a value is its level code. One row of keys
    is `score_banks` consecutive positions, read at once; values are read at an address of their own per segment, so that
    every head follows its own winner. Who may still be looked at is decided by the score unit. Reset does not clear it.

    Parameters
    ----------
    cfg : AcceleratorConfig
        Shape of the machine.

    Members
    -------
    w_en_k, w_en_v : In(1)
        Write the group `w_levels` as part of a key or of a value.
    w_position : In(range(kv_positions))
        Position in the cache (base of the layer + position of the token).
    w_group : In(range(max_width // lanes))
        Group of `lanes` channels within the tensor.
    w_levels : In(lanes * level_bits)
        Levels, channel 0 of the group lowest.
    k_en : In(1)
        Read a row of keys.
    k_row : In(range(kv_positions // score_banks))
        Positions k_row * score_banks and following.
    k_spoke, k_minus : Out(score_banks * max_width)
        Channels of the row's keys that are not 0, and that are -1, bank 0 lowest. They stay until the next `k_en`.
    v_en : In(1)
        Read values.
    v_position : In(segments * bits of a position)
        Position in the cache to read per segment, segment 0 lowest.
    v_words : Out(segments * segment * level_bits)
        Levels, channel 0 lowest.

    Latency
    -------
    One cycle for both reads. A read sees what was written in earlier cycles, not in its own.

    Reference
    ---------
    ``keys[position] != 0``, ``keys[position] < 0`` and ``values[position]`` of arrays of levels.
    """

    #: Cycles from an address to its words.
    latency = 1

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        self.banks = cfg.score_banks
        self.rows = cfg.kv_positions // cfg.score_banks
        self.position_width = bits_for(cfg.kv_positions - 1)
        self.row_width = bits_for(self.rows - 1)
        self.groups = cfg.max_width // cfg.lanes
        super().__init__({
            "w_en_k": In(1),
            "w_en_v": In(1),
            "w_position": In(self.position_width),
            "w_group": In(bits_for(self.groups - 1)),
            "w_levels": In(cfg.lanes * cfg.level_bits),
            "k_en": In(1),
            "k_row": In(self.row_width),
            "k_spoke": Out(self.banks * cfg.max_width),
            "k_minus": Out(self.banks * cfg.max_width),
            "v_en": In(1),
            "v_position": In(cfg.segments * self.position_width),
            "v_words": Out(cfg.max_width * cfg.level_bits),
        })

    def elaborate(self, platform):
        m = Module()
        self._build_keys(m)
        self._build_values(m)
        return m

    def _build_keys(self, m):
        cfg = self.cfg
        bank_bits = exact_log2(self.banks)
        spoke, minus = spoke_and_minus(self.w_levels, cfg.level_bits)
        select = Signal(self.groups)
        m.d.comb += select.eq(Cat(self.w_group == group for group in range(self.groups)))
        for bank in range(self.banks):
            for name, bits, words in (("spoke", spoke, self.k_spoke), ("minus", minus, self.k_minus)):
                store = memory.Memory(shape=cfg.max_width, depth=self.rows, init=[])
                m.submodules[f"keys_{name}_{bank}"] = store
                write = store.write_port(granularity=cfg.lanes)
                read = store.read_port()
                with m.If(self.w_en_k & (self.w_position[:bank_bits] == bank)):
                    m.d.comb += write.en.eq(select)
                m.d.comb += [
                    write.addr.eq(self.w_position[bank_bits:]),
                    write.data.eq(bits.replicate(self.groups)),
                    read.en.eq(self.k_en),
                    read.addr.eq(self.k_row),
                    words[bank * cfg.max_width:(bank + 1) * cfg.max_width].eq(read.data),
                ]

    def _build_values(self, m):
        cfg = self.cfg
        word_width = cfg.segment * cfg.level_bits
        addresses = _split(self.v_position, self.position_width)
        words = _split(self.v_words, word_width)
        for segment, (address, word) in enumerate(zip(addresses, words)):
            m.submodules[f"values_{segment}"] = store = memory.Memory(shape=word_width, depth=cfg.kv_positions, init=[])
            if cfg.lanes >= cfg.segment:  # a group holds whole segments
                write = store.write_port()
                first = segment * cfg.segment % cfg.lanes * cfg.level_bits
                with m.If(self.w_group == segment * cfg.segment // cfg.lanes):
                    m.d.comb += write.en.eq(self.w_en_v)
                m.d.comb += write.data.eq(self.w_levels[first:first + word_width])
            else:  # a segment holds whole groups
                parts = cfg.segment // cfg.lanes
                write = store.write_port(granularity=cfg.lanes * cfg.level_bits)
                for part in range(parts):
                    m.d.comb += write.en[part].eq(self.w_en_v & (self.w_group == segment * parts + part))
                m.d.comb += write.data.eq(self.w_levels.replicate(parts))
            read = store.read_port()
            m.d.comb += [
                write.addr.eq(self.w_position),
                read.en.eq(self.v_en),
                read.addr.eq(address),
                word.eq(read.data),
            ]


def _split(value, width):
    return [value[at:at + width] for at in range(0, len(value), width)]
