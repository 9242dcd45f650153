"""Bytes: rows, parameters and images come back as they were, and damage is found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeloom.arch.layout import (
    SECTION_ALIGN,
    Image,
    ImageError,
    pack_parameters,
    pack_rows,
    read_image,
    row_bytes,
    section_offsets,
    tiles_for,
    unpack_parameters,
    unpack_rows,
    write_image,
)
from spikeloom.arch.presets import PRESETS


@given(seed=st.integers(0, 1 << 32), bits=st.sampled_from([8, 4, 2]), n_in=st.integers(1, 20), n_out=st.integers(1, 64),
       machine=st.sampled_from(["tiny", "sim"]))
@settings(max_examples=60, deadline=None)
def test_rows(seed, bits, n_in, n_out, machine):
    cfg = PRESETS[machine]
    most = 1 if bits == 2 else (1 << (bits - 1)) - 1
    weights = np.random.default_rng(seed).integers(-most, most + 1, (n_in, n_out))
    tiles = tiles_for(n_out, bits, cfg)
    data = pack_rows(weights, bits, tiles, cfg)
    assert tiles * cfg.cols >= n_out and row_bytes(tiles, bits, cfg) % cfg.beat_bytes == 0
    assert len(data) == n_in * row_bytes(tiles, bits, cfg)
    assert (unpack_rows(data, n_in, n_out, bits, tiles, cfg) == weights).all()


def test_a_row_by_hand():
    cfg = PRESETS["tiny"]
    assert pack_rows([[1, -1, 0, 1]], 2, 4, cfg).startswith(bytes([0b01_00_11_01]))
    assert pack_rows([[7, -7]], 4, 2, cfg).startswith(bytes([0x97]))


@pytest.mark.parametrize("bits, weight", [(8, -128), (4, 8), (4, -8), (2, 2)])
def test_weights_are_symmetric(bits, weight):
    with pytest.raises(ValueError, match=f"symmetric {bits}-bit"):
        pack_rows([[weight]], bits, 8, PRESETS["tiny"])


@given(seed=st.integers(0, 1 << 32), n=st.integers(1, 40))
def test_parameters(seed, n):
    rng = np.random.default_rng(seed)
    base, step, shift = rng.integers(-(1 << 31), 1 << 31, n), rng.integers(0, 1 << 24, n), rng.integers(0, 32, n)
    data = pack_parameters(base, step, shift, lanes=16)
    assert len(data) % (16 * 8) == 0
    for got, expected, fill in zip(unpack_parameters(data), (base, step, shift), ((1 << 31) - 1, 0, 0)):
        assert (got[:n] == expected).all() and (got[n:] == fill).all()


@pytest.mark.parametrize("arguments", [([1 << 31],), ([0], [-1]), ([0], [1 << 24]), ([0], [0], [32])])
def test_parameters_that_do_not_fit(arguments):
    with pytest.raises(ValueError):
        pack_parameters(*arguments, lanes=4)


SECTIONS = {"card": b'{"a": 1}', "program": bytes(64), "params": bytes(range(100)), "streamed": b"x" * 5000, "empty": b""}


def test_images():
    image = read_image(write_image(Image(77, SECTIONS)))
    assert image == Image(77, SECTIONS) and image.card == {"a": 1}
    offsets = section_offsets({name: len(data) for name, data in SECTIONS.items()})
    assert all(offset % SECTION_ALIGN == 0 for offset in offsets.values()) and len(set(offsets.values())) == len(offsets)


@given(at=st.integers(0, 2000), flip=st.integers(1, 255))
@settings(max_examples=150)
def test_any_damaged_byte_is_found_or_lies_between_sections(at, flip):
    data = bytearray(write_image(Image(77, SECTIONS)))
    offsets = section_offsets({name: len(d) for name, d in SECTIONS.items()})
    covered = [*range(8), *range(12, 24), *(24 + i for i in range(40 * len(SECTIONS))),
               *(offsets[n] + i for n, d in SECTIONS.items() for i in range(min(len(d), 300)))]
    data[covered[at % len(covered)]] ^= flip
    with pytest.raises(ImageError):
        read_image(bytes(data))


@pytest.mark.parametrize("size", [0, 3, 23, 100, 4096, 9000])
def test_images_cut_short(size):
    with pytest.raises(ImageError):
        read_image(write_image(Image(77, SECTIONS))[:size])


@pytest.mark.parametrize("name", ["card", "program", "params"])
def test_images_that_lack_a_section(name):
    with pytest.raises(ImageError, match=f"lacks its section '{name}'"):
        read_image(write_image(Image(77, {k: v for k, v in SECTIONS.items() if k != name})))
