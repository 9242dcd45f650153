"""Bytes: weight rows, parameter groups, memory records and the `.loom` image."""

import json
import struct
import zlib
from dataclasses import dataclass, field

import numpy as np

from .commands import COMMAND_BITS, COMMAND_WORDS, Command, decode, encode
from .config import WEIGHT_BITS, AcceleratorConfig, ceil_div

IMAGE_MAGIC = b"LOOM"
IMAGE_VERSION = 1
#: Sections start at multiples of this many bytes (a page, so that no section's first burst is cut short).
SECTION_ALIGN = 4096
#: Bytes of one channel's parameters: base or bias int32, then step (24 bits) and shift (5 bits).
PARAMETER_BYTES = 8
#: Token ring: token u32, position u32, logit i32, best logit i32 (generate: the chosen token; score: the target's
#: logit, `token` is the best id).
RING_RECORD = struct.Struct("<IIii")
#: Trace: checksum u32, command index u16, position u16.
TRACE_RECORD = struct.Struct("<IHH")
RING_DTYPE = np.dtype([("token", "<u4"), ("position", "<u4"), ("logit", "<i4"), ("best", "<i4")])
TRACE_DTYPE = np.dtype([("checksum", "<u4"), ("command", "<u2"), ("position", "<u2")])
_HEADER = struct.Struct("<4sIIIII")      # magic, version, fingerprint, sections, header bytes, CRC32 of the table
_SECTION = struct.Struct("<16sQQI4x")    # name, offset, bytes, CRC32


class ImageError(ValueError):
    """An image is damaged, truncated or not an image; the message says which part."""


# -- weight rows ------------------------------------------------------------------------------------------------

def tiles_for(n_out: int, bits: int, cfg: AcceleratorConfig) -> int:
    """Column tiles of a block of n_out outputs, padded so that a row is a whole number of beats of all ports."""
    tiles = ceil_div(n_out, cfg.cols)
    while tiles * cfg.cols * bits % cfg.bus_width:
        tiles += 1
    return tiles


def row_bytes(tiles: int, bits: int, cfg: AcceleratorConfig) -> int:
    """Bytes of one packed row of a block."""
    return tiles * cfg.cols * bits // 8


def pack_rows(weights, bits: int, tiles: int, cfg: AcceleratorConfig) -> bytes:
    """Weights int [n_in, n_out] -> bytes [row][tile], column c of a tile at bit c * bits, missing columns zero.

    Raises
    ------
    ValueError
        When a weight leaves the symmetric range of its format.
    """
    weights = np.asarray(weights, np.int64)
    most = 1 if bits == 2 else (1 << (bits - 1)) - 1
    if np.abs(weights).max(initial=0) > most:
        raise ValueError(f"A weight leaves the symmetric {bits}-bit range -{most}..{most}.")
    padded = np.zeros((weights.shape[0], tiles * cfg.cols), np.int64)
    padded[:, :weights.shape[1]] = weights
    fields = padded & ((1 << bits) - 1)
    per_byte = 8 // bits
    fields = fields.reshape(weights.shape[0], -1, per_byte)
    packed = sum(fields[:, :, i] << (i * bits) for i in range(per_byte))
    return packed.astype(np.uint8).tobytes()


def unpack_rows(data: bytes, n_in: int, n_out: int, bits: int, tiles: int, cfg: AcceleratorConfig):
    """Inverse of `pack_rows`: int64 [n_in, n_out]."""
    raw = np.frombuffer(data, np.uint8)[:n_in * row_bytes(tiles, bits, cfg)].astype(np.int64)
    per_byte = 8 // bits
    fields = np.stack([(raw >> (i * bits)) & ((1 << bits) - 1) for i in range(per_byte)], axis=-1).reshape(n_in, -1)
    return (fields - ((fields >> (bits - 1)) << bits))[:, :n_out]


# -- ports ------------------------------------------------------------------------------------------------------

#: Bytes of one port's share that lie together; no burst crosses such a block.
STRIPE_BYTES = 4096


def stripe(data: bytes, cfg: AcceleratorConfig) -> np.ndarray:
    """An image as it lies in memory, uint8: each port finds its share of every beat in every ports-th block of 4 KiB.

    So all ports make the same bursts. Padded to a block for each port; one port changes nothing.
    """
    if cfg.ports == 1:
        return np.frombuffer(data, np.uint8)
    padded = np.zeros(ceil_div(len(data), STRIPE_BYTES * cfg.ports) * STRIPE_BYTES * cfg.ports, np.uint8)
    padded[:len(data)] = np.frombuffer(data, np.uint8)
    return padded.reshape(-1, STRIPE_BYTES // cfg.beat_bytes, cfg.ports, cfg.beat_bytes).swapaxes(1, 2).reshape(-1)


def unstripe(memory: np.ndarray, cfg: AcceleratorConfig) -> np.ndarray:
    """Inverse of `stripe`, of whole blocks."""
    return memory.reshape(-1, cfg.ports, STRIPE_BYTES // cfg.beat_bytes, cfg.beat_bytes).swapaxes(1, 2).reshape(-1)


# -- channel parameters -----------------------------------------------------------------------------------------

def pack_parameters(base, step=None, shift=None, *, lanes: int) -> bytes:
    """Channel parameters -> groups of `lanes` records: base (threshold or bias) int32, step uint24, shift uint5.

    Padded with silent channels (a base that no sum reaches, step 0) to a whole group.
    """
    base = np.asarray(base, np.int64)
    step = np.zeros_like(base) if step is None else np.asarray(step, np.int64)
    shift = np.zeros_like(base) if shift is None else np.asarray(shift, np.int64)
    if base.size and (base.min() < -(1 << 31) or base.max() >= 1 << 31):
        raise ValueError("A threshold or bias leaves 32 bits.")
    if step.size and (step.min() < 0 or step.max() >= 1 << 24):
        raise ValueError("A threshold step leaves 0..2^24-1.")
    if shift.size and (shift.min() < 0 or shift.max() > 31):
        raise ValueError("A residual shift leaves 0..31.")
    n = ceil_div(base.size, lanes) * lanes
    words = np.zeros((n, 2), "<u4")
    words[base.size:, 0] = 0x7FFF_FFFF
    words[:base.size, 0] = (base & 0xFFFF_FFFF).astype(np.uint32)
    words[:base.size, 1] = (step | shift << 24).astype(np.uint32)
    return words.tobytes()


def unpack_parameters(data: bytes):
    """Inverse of `pack_parameters`: (base, step, shift) int64 arrays."""
    words = np.frombuffer(data, "<u4").reshape(-1, 2).astype(np.int64)
    base = words[:, 0] - ((words[:, 0] >> 31) << 32)
    return base, words[:, 1] & 0xFF_FFFF, words[:, 1] >> 24 & 31


# -- program ----------------------------------------------------------------------------------------------------

def pack_program(commands: list[Command]) -> bytes:
    """Commands -> 32 bytes each, least significant first."""
    return b"".join(encode(c).to_bytes(COMMAND_BITS // 8, "little") for c in commands)


def unpack_program(data: bytes, labels: list[str] = ()) -> list[Command]:
    """Inverse of `pack_program`."""
    size = COMMAND_BITS // 8
    return [decode(int.from_bytes(data[i:i + size], "little"), labels[i // size] if i // size < len(labels) else "")
            for i in range(0, len(data), size)]


def program_words(data: bytes) -> list[int]:
    """32-bit words of a packed program, as written to `program_data`; COMMAND_WORDS per command."""
    assert len(data) % (4 * COMMAND_WORDS) == 0
    return [int(w) for w in np.frombuffer(data, "<u4")]


# -- image ------------------------------------------------------------------------------------------------------

@dataclass
class Image:
    """A `.loom` image: named sections for one machine.

    Sections: `card` (JSON), `program`, `params`, `resident`, `streamed`, `tokenizer` (JSON, optional).
    Offsets in commands count from the first byte of the file, which is loaded to memory as it is.
    """

    fingerprint: int
    sections: dict[str, bytes] = field(default_factory=dict)

    @property
    def card(self) -> dict:
        """Model card and everything the host needs: model config, entries, labels, logit scale."""
        return json.loads(self.sections["card"])

    @property
    def program(self) -> list[Command]:
        """Decoded commands with their labels."""
        return unpack_program(self.sections["program"], self.card.get("labels", []))


def section_offsets(sizes: dict[str, int]) -> dict[str, int]:
    """Byte offset of each section, in order, for sections of these sizes."""
    at, offsets = SECTION_ALIGN, {}
    for name, size in sizes.items():
        offsets[name] = at
        at = ceil_div(at + max(size, 1), SECTION_ALIGN) * SECTION_ALIGN
    return offsets


def write_image(image: Image) -> bytes:
    """The bytes of an image. Sections keep their order; `section_offsets` tells where they lie."""
    offsets = section_offsets({name: len(data) for name, data in image.sections.items()})
    table = b"".join(_SECTION.pack(name.encode(), offsets[name], len(data), zlib.crc32(data))
                     for name, data in image.sections.items())
    header = _HEADER.pack(IMAGE_MAGIC, IMAGE_VERSION, image.fingerprint, len(image.sections),
                          _HEADER.size + len(table), zlib.crc32(table))
    assert len(header) + len(table) <= SECTION_ALIGN
    last = list(image.sections)[-1]
    out = bytearray(ceil_div(offsets[last] + max(1, len(image.sections[last])), SECTION_ALIGN) * SECTION_ALIGN)
    out[:len(header) + len(table)] = header + table
    for name, data in image.sections.items():
        out[offsets[name]:offsets[name] + len(data)] = data
    return bytes(out)


def read_image(data: bytes) -> Image:
    """Parse and check an image: magic, version, table, bounds and CRC32 of every section.

    Raises
    ------
    ImageError
        Says what is wrong and what to do.
    """
    if len(data) < _HEADER.size or data[:4] != IMAGE_MAGIC:
        raise ImageError("This is not a .loom image (its first bytes are not LOOM); compile one with `spikeloom compile`.")
    _, version, fingerprint, count, header_bytes, table_crc = _HEADER.unpack_from(data)
    if version != IMAGE_VERSION:
        raise ImageError(f"The image has format version {version}, this software reads {IMAGE_VERSION}; compile it again.")
    table = data[_HEADER.size:header_bytes]
    if header_bytes != _HEADER.size + count * _SECTION.size or len(table) != count * _SECTION.size or zlib.crc32(table) != table_crc:
        raise ImageError("The image's section table is damaged; compile it again.")
    image = Image(fingerprint)
    for i in range(count):
        raw, offset, size, crc = _SECTION.unpack_from(table, i * _SECTION.size)
        name = raw.rstrip(b"\0").decode("ascii", "replace")
        if offset + size > len(data):
            raise ImageError(f"The image is cut short: section {name!r} ends at byte {offset + size}, the file has {len(data)}.")
        section = bytes(data[offset:offset + size])
        if zlib.crc32(section) != crc:
            raise ImageError(f"Section {name!r} of the image is damaged (CRC32 differs); compile it again.")
        image.sections[name] = section
    missing = [name for name in ("card", "program", "params") if name not in image.sections]
    if missing:
        raise ImageError(f"The image lacks its section {missing[0]!r}; compile it again.")
    return image


def weight_code(bits: int) -> int:
    """Code of a weight format in a command."""
    return WEIGHT_BITS.index(bits)
