"""Pictures say what is in the frame, exactly where they say so, and none is made for nobody."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ispeed.stream import Frame, FrameHeader, FrameOverwritten, Subscriber
from ispeed.stream.monitor.pictures import View, encode, unpack
from ispeed.stream.reader import MappedRing


def frame_of(pixels: npt.NDArray[np.uint8], **values: object) -> Frame:
    height, width = pixels.shape[:2]
    return Frame(FrameHeader(width=width, height=height, stride=3 * width, **values), pixels)  # type: ignore[arg-type]


def noise(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Pixels of all values, with more 0 and 255 than others."""
    values = np.random.default_rng(1).integers(-20, 276, (height, width, 3))
    return values.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("width", "height", "step"), [(64, 48, 1), (200, 101, 2), (2000, 1500, 10)])
def test_histogram_and_clipping_are_of_the_frames_own_values(width: int, height: int, step: int) -> None:
    pixels = noise(width, height)
    header, rest = unpack(encode(frame_of(pixels), -(-width // step), True))
    sample = pixels[::step, ::step]
    assert header["step"] == step
    histogram = np.frombuffer(rest[:3072], "<u4").reshape(3, 256)
    for channel in range(3):
        assert (histogram[channel] == np.bincount(sample[..., channel].ravel(), minlength=256)).all()
        assert header["clipped_low"][channel] == pytest.approx((sample[..., channel] == 0).mean())
        assert header["clipped_high"][channel] == pytest.approx((sample[..., channel] == 255).mean())
    with Image.open(BytesIO(rest[3072 + header["jpeg"] :])) as png:
        mask = np.asarray(png.convert("RGBA"))
    low, high = (sample == 0).any(2), (sample == 255).any(2)
    assert (mask[..., 3] == np.where(low | high, 255, 0)).all()
    assert (mask[low & ~high][:, :3] == (40, 120, 255)).all()
    assert (mask[high & ~low][:, :3] == (255, 40, 40)).all()
    assert (mask[low & high][:, :3] == (255, 60, 255)).all()


@pytest.mark.parametrize("size", [(64, 48), (1281, 1024), (2400, 1000)])
def test_the_jpeg_looks_like_the_frame(size: tuple[int, int]) -> None:
    width, height = size
    ramp = np.linspace(20, 230, width, dtype=np.uint8)
    pixels = np.ascontiguousarray(np.broadcast_to(ramp[None, :, None], (height, width, 3)))
    header, rest = unpack(encode(frame_of(pixels), 960, False))
    assert header["mask"] == 0
    assert len(rest) == 3072 + header["jpeg"]
    with Image.open(BytesIO(rest[3072:])) as image:
        shown = np.asarray(image).astype(int)
    assert [shown.shape[1], shown.shape[0]] == header["shown"]
    assert shown.shape[1] <= 960
    at = np.linspace(0, width - 1, shown.shape[1]).astype(int)
    assert np.abs(shown[shown.shape[0] // 2, :, 1] - ramp[at]).max() <= 4


def test_what_is_not_known_is_null_and_what_is_gone_is_no_picture() -> None:
    pixels = noise(8, 8)
    header, _ = unpack(encode(frame_of(pixels, exposure_us=math.nan, gain_db=6.0), 960, False))
    assert (header["exposure_us"], header["gain_db"]) == (None, 6.0)
    gone = Frame(FrameHeader(width=8, height=8, stride=24, generation=2), pixels, memoryview(bytearray(8)).cast("Q"))
    with pytest.raises(FrameOverwritten):
        encode(gone, 960, False)


class Lapped(Frame):
    """A frame that is overwritten as soon as it was found to be whole."""

    __slots__ = ()

    def check(self) -> None:
        super().check()
        self.array[:] = 255


def test_nothing_is_read_from_the_frame_after_it_was_found_whole() -> None:
    pixels = np.full((48, 64, 3), 100, np.uint8)
    h = FrameHeader(width=64, height=48, stride=192)
    header, rest = unpack(encode(Lapped(h, pixels), 64, True))
    assert (header["step"], header["clipped_high"]) == (1, [0, 0, 0])
    with Image.open(BytesIO(rest[3072 : 3072 + header["jpeg"]])) as jpeg:
        assert np.abs(np.asarray(jpeg).astype(int) - 100).max() <= 2
    with Image.open(BytesIO(rest[3072 + header["jpeg"] :])) as png:
        assert not np.asarray(png.convert("RGBA"))[..., 3].any()


def test_turns_of_one_rate_fall_together() -> None:
    views = [View(lambda picture: None, fps=5.0) for _ in range(3)]
    for view, now in zip(views, (10.01, 10.05, 10.19), strict=True):
        view.book(now)
    assert {round(view.due_at, 9) for view in views} == {10.2}


def test_the_newest_frame_is_found_in_the_memory(runtime_dir: Path, source: ModuleType) -> None:
    with source.Source(slots=4) as stream:
        with Subscriber() as subscriber:
            stream.await_subscribers(descriptors=1)
            stream.publish()
            subscriber.receive(30_000)
            info = subscriber.info
        assert info is not None
        ring = MappedRing(info)
        for count in (1, 3, 2, 5):
            stream.publish(count)
            frame = ring.newest()
            assert frame is not None
            assert frame.sequence == stream.published - 1
            assert source.whole(frame.copy(), frame.sequence)
        stream.write(stream.published)  # developed, and not published yet
        newest = ring.newest()
        assert newest is not None
        assert newest.sequence == stream.published - 1
        stream.ring.begin_write((stream.published + 1) % 4, stream.published + 1)
        newest = ring.newest()
        assert newest is not None
        assert newest.sequence == stream.published - 1
        del frame, newest, ring
