"""The frame header: its bytes are pinned, and no bytes can do harm."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ispeed.stream import frame as f

HEADER = f.FrameHeader(
    stream_id=0x0102030405060708,
    camera=0x11121314,
    flags=0x15161718,
    slot=0x191A1B1C,
    segment=0x1D1E1F20,
    generation=0x2122232425262728,
    sequence=0x292A2B2C2D2E2F30,
    frame_id=0x3132333435363738,
    device_timestamp=0x393A3B3C3D3E3F40,
    grabbed_ns=0x4142434445464748,
    develop_start_ns=0x494A4B4C4D4E4F50,
    developed_ns=0x5152535455565758,
    published_ns=0x595A5B5C5D5E5F60,
    realtime_offset_ns=-2,
    width=1280,
    height=1024,
    stride=3840,
    offset_x=0x61626364,
    offset_y=0x65666768,
    pixel_format=0x01100011,
    channels=3,
    dtype=1,
    colour=1,
    bits=8,
    engine_id=0x696A6B6C,
    exposure_us=250.5,
    gain_db=-1.25,
    wb_r=2.0,
    wb_g=1.0,
    wb_b=1.5,
    black_level=64.0,
    white_level=4095.0,
    lost_camera_gap=1,
    lost_incomplete=2,
    lost_no_free_buffer=3,
    lost_superseded=4,
    lost_engine_error=5,
    lost_stage_died=6,
    lost_stopped=7,
)

GOLDEN = bytes.fromhex(
    """
    49535046 0100 0001 0807060504030201 14131211 18171615 1c1b1a19 201f1e1d
    2827262524232221 302f2e2d2c2b2a29 3837363534333231 403f3e3d3c3b3a39
    4847464544434241 504f4e4d4c4b4a49 5857565554535251 605f5e5d5c5b5a59 feffffffffffffff
    00050000 00040000 000f0000 64636261 68676665 11001001 03 01 01 08 6c6b6a69
    0000000000506f40 000000000000f4bf 00000040 0000803f 0000c03f 00008042 00f07f45 00000000
    0100000000000000 0200000000000000 0300000000000000 0400000000000000
    0500000000000000 0600000000000000 0700000000000000
    000000000000000000000000000000000000000000000000
    """
)


def test_golden_bytes() -> None:
    """A change of these bytes breaks every reader in another language: it needs a new VERSION."""
    assert HEADER.pack() == GOLDEN
    # Bytes fields come back padded; everything else is equal.
    back = f.FrameHeader.unpack(GOLDEN)
    assert back._replace(pad_=b"", reserved_=b"") == HEADER
    assert f.VERSION == 1


def test_offsets_are_where_the_bytes_are() -> None:
    data = HEADER.pack()
    at = 0
    for name, code in f.FIELD_CODES.items():
        assert f.OFFSETS[name] == at, f"{name} does not follow the field before it"
        (value,) = struct.unpack_from("<" + code, data, at)
        field = {"_pad": "pad_", "_reserved": "reserved_"}.get(name, name)
        assert value.strip(b"\0") == b"" if field.endswith("_") else value == getattr(HEADER, field)
        at += struct.calcsize("<" + code)
    assert at == f.HEADER_SIZE == 256
    misaligned = [n for n, c in f.FIELD_CODES.items() if c in "QqdIfH" and f.OFFSETS[n] % struct.calcsize("<" + c)]
    assert not misaligned, "a reader in C wants natural alignment"


def test_pack_into_and_unpack_at_an_offset() -> None:
    buffer = bytearray(b"\xaa" * 300)
    HEADER.pack_into(buffer, 20)
    assert buffer[:20] == b"\xaa" * 20
    assert buffer[276:] == b"\xaa" * 24
    assert f.FrameHeader.unpack(buffer, 20).sequence == HEADER.sequence
    with pytest.raises(f.HeaderError, match="256 bytes"):
        f.FrameHeader.unpack(buffer, 45)


def test_patch_published_touches_nothing_else() -> None:
    buffer = bytearray(HEADER.pack())
    f.patch_published(buffer, 0, -5)
    assert f.FrameHeader.unpack(buffer) == f.FrameHeader.unpack(HEADER.pack())._replace(published_ns=-5)


def test_unknown_exposure_and_gain_are_nan() -> None:
    back = f.FrameHeader.unpack(f.FrameHeader(width=2, height=2, stride=6).pack())
    assert math.isnan(back.exposure_us)
    assert math.isnan(back.gain_db)


def test_losses_are_named_in_order() -> None:
    assert HEADER.losses == dict(zip(f.LOSS_REASONS, range(1, 8), strict=True))
    assert HEADER.nbytes == 3840 * 1024


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"magic": b"ISPX"}, "magic"),
        ({"size": 255}, "magic"),
        ({"version": 2}, "version 2"),
        ({"dtype": 2}, "8-bit sRGB"),
        ({"colour": 0}, "8-bit sRGB"),
        ({"channels": 4}, "8-bit sRGB"),
        ({"width": 0}, "impossible"),
        ({"width": 65536}, "impossible"),
        ({"height": 0}, "impossible"),
        ({"height": 1 << 31}, "impossible"),
        ({"stride": 3839}, "impossible"),
    ],
)
def test_headers_that_cannot_be_are_refused(change: dict, words: str) -> None:
    with pytest.raises(f.HeaderError, match=words):
        f.FrameHeader.unpack(HEADER._replace(**change).pack())


def _unpack_or_refuse(data: bytes) -> None:
    try:
        header = f.FrameHeader.unpack(data)
    except f.HeaderError:
        return
    assert 0 < header.width <= 65535
    assert 0 < header.height <= 65535
    assert header.width * 3 <= header.stride < 1 << 32
    assert header.version == 1
    assert (header.channels, header.dtype, header.colour) == (3, f.DTYPE_UINT8, f.COLOUR_SRGB)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_harmless(data: bytes) -> None:
    _unpack_or_refuse(data)


@given(st.lists(st.tuples(st.integers(8, 255), st.integers(0, 255)), max_size=40))
def test_damaged_headers_are_refused_or_harmless(damage: list[tuple[int, int]]) -> None:
    data = bytearray(HEADER.pack())
    for at, value in damage:
        data[at] = value
    _unpack_or_refuse(bytes(data))


def test_topics_have_fixed_width() -> None:
    assert f.topic("d", 0) == b"d/0\0\0\0\0\0"
    assert f.topic("p", 123456) == b"p/123456"
    assert not f.topic("d", 10).startswith(f.topic("d", 1))


_u32, _u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


@given(
    st.builds(
        f.FrameRecord,
        slot=_u32,
        flags=_u32,
        frame_id=_u64,
        device_timestamp=_u64,
        grabbed_ns=st.integers(-(2**63), 2**63 - 1),
        segment=_u32,
        size=_u32,
        exposure_us=st.floats(allow_nan=False),
        gain_db=st.floats(allow_nan=False),
        grant=_u64,
    )
)
def test_records_survive(record: f.FrameRecord) -> None:
    buffer = bytearray(b"\xaa" * 80)
    f.pack_record(buffer, 8, record)
    assert f.unpack_record(buffer, 8) == record
    assert buffer[:8] == buffer[72:] == b"\xaa" * 8
