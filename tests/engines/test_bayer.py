"""RawFormat, and packing as PFNC defines it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from harvesters.util.pfnc import dict_by_names

from ispeed.engines import PIXEL_FORMAT_NAMES, PIXEL_FORMATS, RawFormat, UserError, pack, unpack


def test_codes_are_those_of_pfnc():
    assert {name: dict_by_names[name] for name in PIXEL_FORMATS} == PIXEL_FORMATS
    assert [PIXEL_FORMAT_NAMES[code] for code in PIXEL_FORMATS.values()] == list(PIXEL_FORMATS)
    assert len(PIXEL_FORMATS) == 4 * 6 + 1


@pytest.mark.parametrize("name", PIXEL_FORMATS)
def test_bits_agree_with_the_code(name: str):
    fmt = RawFormat(8, 6, name)
    assert fmt.bits_per_pixel == fmt.pfnc_code >> 16 & 0xFF
    assert fmt.payload_size == 8 * 6 * fmt.bits_per_pixel // 8
    assert fmt.packed == (fmt.bits_per_pixel not in (8, 16))
    assert fmt.white_level == 2**fmt.depth - 1


@pytest.mark.parametrize("name", PIXEL_FORMATS)
def test_pack_and_unpack_are_inverse(name: str):
    fmt = RawFormat(12, 5, name)
    samples = np.random.default_rng(3).integers(0, 1 << fmt.depth, (5, 12))
    samples[0, :2] = 0, (1 << fmt.depth) - 1
    raw = pack(samples, fmt)
    assert raw.dtype == np.uint8
    assert raw.shape == (fmt.payload_size,)
    np.testing.assert_array_equal(unpack(raw, fmt), samples)


def test_packed_bytes_are_lsb_first():
    twelve = pack(np.array([[0xABC, 0x123], [0xFFF, 0]]), RawFormat(2, 2, "BayerRG12p"))
    assert twelve.tobytes().hex() == "bc3a12" + "ff0f00"
    ten = np.array([0b1100000001, 0b1010101010, 0b0000011111, 0b1111100000])
    number = sum(int(sample) << 10 * place for place, sample in enumerate(ten))
    raw = pack(np.stack([ten, ten]), RawFormat(4, 2, "BayerRG10p"))
    assert raw.tobytes() == number.to_bytes(5, "little") * 2


def test_words_are_little_endian():
    raw = pack(np.array([[0x0123, 0], [0, 0x0FFF]]), RawFormat(2, 2, "BayerGB12"))
    assert raw.tobytes().hex() == "23010000" + "0000ff0f"


def test_bytes_behind_the_payload_are_ignored():
    fmt = RawFormat(2, 2, "Mono8")
    assert unpack(np.arange(9, dtype=np.uint8), fmt).tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("name", "cfa"),
    [("BayerRG8", "RGGB"), ("BayerGR10p", "GRBG"), ("BayerGB16", "GBRG"), ("BayerBG12", "BGGR"), ("Mono8", "MONO")],
)
def test_cfa(name: str, cfa: str):
    assert RawFormat(4, 4, name).cfa == cfa


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((640, 480, "BayerRG11"), "'BayerRG11' is not supported"),
        ((3, 2, "BayerRG12p"), "divisible by 2"),
        ((6, 2, "BayerRG10p"), "divisible by 4"),
        ((1, 480, "BayerRG8"), "width 1 is out of range"),
        ((640, 65536, "BayerRG8"), "height 65536 is out of range"),
        ((640.5, 480, "BayerRG8"), "width 640.5 is out of range"),
        ((True, 480, "BayerRG8"), "width True is out of range"),
        ((640, 480, "BayerRG8", 10, 10), "black level 10 and white level 10"),
        ((640, 480, "BayerRG8", -1), "black level -1"),
        ((640, 480, "BayerRG8", 0, 4095), "white level 4095 do not fit BayerRG8"),
        ((640, 480, "BayerRG8", float("nan")), "black level nan"),
    ],
)
def test_wrong_formats_are_refused(arguments: tuple, says: str):
    with pytest.raises(UserError, match=says):
        RawFormat(*arguments)


def test_json_round_trip():
    fmt = RawFormat(640, 480, "BayerGB10p", 64.5, 1000)
    assert RawFormat.from_json(json.loads(json.dumps(fmt.to_json()))) == fmt


@pytest.mark.parametrize(
    "values",
    [
        {"width": 4, "height": 4},
        {"width": 4, "height": 4, "pixel_format": "Mono8", "gamma": 2},
        {"width": "wide", "height": 4, "pixel_format": "Mono8"},
        {"width": 4, "height": 4, "pixel_format": "Mono8", "black_level": "dark"},
    ],
)
def test_json_that_is_no_format(values: dict):
    with pytest.raises(UserError):
        RawFormat.from_json(values)


def test_wrong_arrays_are_refused():
    fmt = RawFormat(4, 2, "BayerRG12")
    with pytest.raises(ValueError, match="16 bytes"):
        unpack(np.zeros(15, np.uint8), fmt)
    with pytest.raises(ValueError, match="flat uint8"):
        unpack(np.zeros(16, np.int8), fmt)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        pack(np.zeros((4, 2), int), fmt)
    with pytest.raises(ValueError, match="from 0 to 4095"):
        pack(np.full((2, 4), 4096), fmt)
