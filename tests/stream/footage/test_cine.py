"""Phantom's .cine: what an independent writer wrote comes back; what is broken is one sentence."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ispeed.engines import RawFormat, UserError, unpack
from ispeed.stream.footage import Footage, FootageOptions, open_footage
from ispeed.stream.footage.repack import light_of_p10

WIDTH, HEIGHT, FRAMES = 16, 12, 5


def _samples(depth: int) -> np.ndarray:
    return np.random.default_rng(depth).integers(0, 1 << depth, (FRAMES, HEIGHT, WIDTH)).astype(np.uint16)


def _read(footage: Footage) -> np.ndarray:
    fmt = footage.raw_format
    out = np.empty(fmt.payload_size + 3, np.uint8)  # a slot may be longer than the payload
    frames = []
    for index in range(footage.count):
        footage.read(index, out)
        frames.append(unpack(out, fmt))
    return np.stack(frames)


@pytest.mark.parametrize(
    ("kind", "real", "wanted"),
    [
        ("8", 8, RawFormat(WIDTH, HEIGHT, "BayerGB8")),
        ("16", 8, RawFormat(WIDTH, HEIGHT, "BayerGB10", 0, 255)),
        ("16", 10, RawFormat(WIDTH, HEIGHT, "BayerGB10", 0, 1023)),
        ("16", 12, RawFormat(WIDTH, HEIGHT, "BayerGB12", 64, 4064)),
        ("16", 14, RawFormat(WIDTH, HEIGHT, "BayerGB16", 64, 4064)),
        ("P12L", 12, RawFormat(WIDTH, HEIGHT, "BayerGB12p", 64, 4064)),
    ],
)
def test_samples_come_back(makers: ModuleType, tmp_path: Path, kind: str, real: int, wanted: RawFormat) -> None:
    samples = _samples(real)
    path = makers.write_cine(tmp_path / "a.cine", samples, kind, real_bpp=real, annotation=b"note")
    with open_footage(path) as footage:
        assert footage.raw_format == wanted
        assert (footage.kind, footage.count, footage.fps, footage.about.cut_off) == ("cine", FRAMES, 1000, 0)
        np.testing.assert_array_equal(_read(footage), samples)
        with pytest.raises(IndexError):
            footage.read(FRAMES, np.empty(wanted.payload_size, np.uint8))


def test_p10_is_brought_back_to_light(makers: ModuleType, tmp_path: Path) -> None:
    codes = _samples(10)
    with open_footage(makers.write_cine(tmp_path / "a.cine", codes, "P10", cfa=4)) as footage:
        assert footage.raw_format == RawFormat(WIDTH, HEIGHT, "BayerRG12", 64, 4064)
        np.testing.assert_array_equal(_read(footage), light_of_p10()[codes])


def test_the_light_of_p10_is_that_of_the_published_table() -> None:
    # from the vendor's table, here and there
    table = {
        1: 5,
        64: 64,
        128: 125,
        160: 156,
        256: 290,
        400: 623,
        512: 998,
        768: 2267,
        900: 3159,
        1000: 3947,
        1014: 4064,
    }
    light = light_of_p10()
    assert (np.diff(light.astype(int)) >= 0).all()
    assert all(abs(int(light[code]) - value) <= 1 for code, value in table.items())
    assert light[64] == 64
    assert light[1014] == 4064


@pytest.mark.parametrize(("cfa", "order"), [(3, "GB"), (4, "RG"), (5, "GR"), (6, "BG")])
def test_the_order_of_the_filters(makers: ModuleType, tmp_path: Path, cfa: int, order: str) -> None:
    with open_footage(makers.write_cine(tmp_path / "a.cine", _samples(12), cfa=cfa)) as footage:
        assert footage.raw_format.pixel_format == f"Bayer{order}12"


def test_what_is_known_of_the_frames(makers: ModuleType, tmp_path: Path) -> None:
    exposures = np.array([100.0, 200, 300, 400, 0])
    path = makers.write_cine(
        tmp_path / "a.cine", _samples(12), exposures=exposures, first=40, gains=(1.5, 2.25), fps=2000
    )
    with open_footage(path) as footage:
        frames, about = footage.frames, footage.about
        assert frames["frame_id"].tolist() == [40, 41, 42, 43, 44]
        np.testing.assert_allclose(frames["exposure_us"][:4], exposures[:4], rtol=1e-5)
        assert np.isnan(frames["exposure_us"][4])
        assert np.isnan(frames["gain_db"]).all()
        np.testing.assert_allclose(frames["f_number"], 2.8, rtol=1e-6)
        np.testing.assert_allclose(frames["focal_length_mm"], 50)
        stamps = frames["device_timestamp"].astype(np.int64)
        np.testing.assert_allclose(stamps - 1_600_000_000_250_000_000, np.arange(5) * 500_000, atol=600)
        assert about.calibration.white_balance == (1.5, 1.0, 2.25)
        assert (about.serial, about.fps) == ("4711", 2000)


def test_numbers_before_the_trigger_and_settings_without_levels(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.write_cine(tmp_path / "a.cine", _samples(12), first=-3, levels=None, times=False, setup_size=5000)
    with open_footage(path) as footage:
        assert footage.frames["frame_id"].tolist() == [0, 1, 2, 3, 4]
        assert footage.frames["exposure_us"].tolist() == [500.0] * FRAMES
        assert (footage.raw_format.black_level, footage.raw_format.white_level) == (0, 4095)
        assert footage.calibration.white_balance is None


def test_what_the_user_knows_better(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.write_cine(tmp_path / "a.cine", _samples(12), cfa=0)
    with open_footage(path, FootageOptions("BG", 10, 4000)) as footage:
        assert footage.raw_format == RawFormat(WIDTH, HEIGHT, "BayerBG12", 10, 4000)


def test_grey_frames_of_eight_bits(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.write_cine(tmp_path / "a.cine", _samples(8), "8", real_bpp=8, cfa=0, levels=None)
    with open_footage(path) as footage:
        assert footage.raw_format == RawFormat(WIDTH, HEIGHT, "Mono8")


def test_a_file_that_is_cut_off_has_its_whole_frames(makers: ModuleType, tmp_path: Path) -> None:
    samples = _samples(12)
    path = makers.write_cine(tmp_path / "a.cine", samples)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 400])  # a frame has 392 bytes
    with open_footage(path) as footage:
        assert (footage.count, footage.about.cut_off) == (3, 2)
        np.testing.assert_array_equal(_read(footage), samples[:3])
    path.write_bytes(data[:-5])
    with open_footage(path) as footage:
        path.write_bytes(data[:-800])
        with pytest.raises(UserError, match=r"frame 3 of .*a\.cine is (cut off|damaged)"):
            footage.read(3, np.empty(footage.raw_format.payload_size, np.uint8))


def test_a_damaged_frame_is_left_out_by_isp_develop(makers: ModuleType, tmp_path: Path) -> None:
    """isp-stream, which has no such options, says the same."""
    path = makers.write_cine(tmp_path / "a.cine", _samples(12), annotation=b"note")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"note") - 4
    data[at : at + 4] = bytes(4)
    path.write_bytes(data)
    with open_footage(path) as footage, pytest.raises(UserError, match="by --first and --last of isp-develop"):
        footage.read(FRAMES - 1, np.empty(footage.raw_format.payload_size, np.uint8))


def _patched(offset: int, code: str, value: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into("<" + code, data, offset, value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_patched(0, "H", 0), "no .cine file"),
        (_patched(4, "H", 1), "saved|save it as a raw"),
        (_patched(20, "I", 0), "0 frames"),
        (_patched(20, "I", 1 << 31), "2147483648 frames"),
        (_patched(24, "I", 1 << 31), "settings of its camera"),
        (_patched(28, "I", 1 << 31), "settings of its camera"),
        (_patched(32, "I", (1 << 32) - 1), "no whole frame"),
        (_patched(48, "i", -4), "frames of -4x12"),
        (_patched(48, "i", 65534), "no whole frame"),
        (_patched(56, "H", 3), "3 planes"),
        (_patched(58, "H", 24), "24 bits"),
        (_patched(60, "I", 7), "compression 2 and 0x7"),
        (_patched(84 + 140, "H", 7), "settings of its camera"),
        (_patched(84 + 142, "H", 60_000), "settings of its camera"),
        (_patched(84 + 142, "H", 400), "2003"),
        (_patched(84 + 808, "I", 1), "--cfa"),
        (_patched(84 + 808, "I", 0), "grey frames of 12 bits"),
        (_patched(84 + 896, "I", 40), "40 significant bits"),
    ],
)
def test_one_sentence(makers: ModuleType, tmp_path: Path, change: Callable[[bytearray], None], said: str) -> None:
    path = makers.write_cine(tmp_path / "a.cine", _samples(12))
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    with pytest.raises(UserError, match=said):
        open_footage(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    places=st.lists(st.tuples(st.integers(0, 11_000), st.integers(0, 255)), max_size=12),
    end=st.integers(0, 13_000),
    kind=st.sampled_from(["16", "P10", "P12L"]),
)
def test_broken_bytes_are_frames_or_one_sentence(
    makers: ModuleType, tmp_path: Path, places: list[tuple[int, int]], end: int, kind: str
) -> None:
    path = tmp_path / f"{kind}.cine"
    if not path.exists():
        makers.write_cine(path, _samples(10), kind)
    data = bytearray(path.read_bytes())
    for place, value in places:
        # most of SETUP is never read: half of what is changed lies in the headers and behind them
        at = place % 84 if place % 2 else place
        if at < len(data):
            data[at] = value
    broken = tmp_path / "broken.cine"
    broken.write_bytes(data[: len(data) - end] if end < 3000 else data)
    said = ""
    try:
        with open_footage(broken) as footage:
            _read(footage)
    except UserError as error:
        said = str(error)
    assert "\n" not in said
