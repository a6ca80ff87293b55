"""What is in the frames of the simulated camera: pixels, numbers, chunks, exposure, triggers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ispeed.engines.bayer import PIXEL_FORMATS, RawFormat
from ispeed.stream.camera.simcam import CAMERA_FROM_SRGB

WALL = np.s_[60:70, 110:136]  # grey, between the star and the chart; WALL_RED: its red pixels, in RG
WALL_RED = np.s_[60:70:2, 110:136:2]
Opener = Callable[..., Any]
Decoder = Callable[[npt.NDArray[Any]], int]


def _first(rig: Any, **features: Any) -> npt.NDArray[np.uint16]:
    """The first picture of an acquisition with these features."""
    rig.set(**features)
    rig.start()
    frame = rig.frame()
    assert frame.pfnc == PIXEL_FORMATS[rig.features.PixelFormat.value]
    rig.stop()
    return rig.samples(frame)


def _colour(mosaic: npt.NDArray[Any], cfa: str) -> dict[str, float]:
    """Mean of each colour of a mosaic whose top left pixels are `cfa`."""
    found: dict[str, list[float]] = {}
    for place, colour in enumerate(cfa):
        found.setdefault(colour, []).append(float(mosaic[place // 2 :: 2, place % 2 :: 2].mean()))
    return {colour: float(np.mean(means)) for colour, means in found.items()}


@pytest.mark.parametrize("cfa", ["RG", "GR", "GB", "BG"])
def test_every_format_carries_the_same_picture(cfa: str, rig: Any) -> None:
    pictures = {bits: _first(rig, PixelFormat=f"Bayer{cfa}{bits}") for bits in ("8", "10", "10p", "12", "12p", "16")}
    assert np.array_equal(pictures["10"], pictures["10p"])
    assert np.array_equal(pictures["12"], pictures["12p"])
    reference = pictures["16"] / 65535
    for bits in ("8", "10", "12"):
        scaled = pictures[bits] / ((1 << int(bits)) - 1)
        assert np.abs(scaled - reference).max() < 1 / (1 << int(bits))


def test_colours_are_those_of_the_sensor(rig: Any) -> None:
    for cfa in ("RGGB", "GRBG", "GBRG", "BGGR"):
        picture = _first(rig, PixelFormat=f"Bayer{cfa[0]}{cfa[1]}16", SimNoise=False)
        wall = _colour(picture[WALL], cfa)
        shares = np.array([wall[colour] - 1024 for colour in "RGB"])
        expected = np.sum(CAMERA_FROM_SRGB, axis=1)
        assert np.allclose(shares / shares[1], expected, rtol=0.01)


def test_mono_sees_no_mosaic(rig: Any) -> None:
    wall = _first(rig, PixelFormat="Mono8", SimNoise=False)[WALL]
    assert wall.min() == wall.max() > 4


def test_the_seed_decides_the_noise(rig: Any) -> None:
    first, again, other, clean = (_first(rig, SimSeed=seed) for seed in (1, 1, 2, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    clean = _first(rig, SimNoise=False)
    assert 0.5 < np.std(first[WALL_RED].astype(float) - clean[WALL_RED]) < 5


def test_noise_grows_with_gain(rig: Any) -> None:
    def noise(**features: Any) -> float:
        return float(_first(rig, PixelFormat="BayerRG16", **features)[WALL_RED].std())

    assert noise(Gain=12.0, ExposureTime=125.0) > 1.5 * noise(Gain=0.0, ExposureTime=500.0)


def test_the_target_moves_and_the_loop_closes(rig: Any) -> None:
    rig.set(SimNoise=False, AcquisitionFrameRate=50.0)  # few enough for the eight buffers, whatever else is at work
    rig.start()
    pictures = [rig.samples(frame)[40:] for frame in rig.frames(65)]
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(pictures))
    assert np.array_equal(pictures[0], pictures[64])


@pytest.mark.parametrize(("width", "height"), [(16, 32), (16, 2), (64, 64), (640, 480), (8192, 16), (16, 8192)])
@pytest.mark.parametrize("pixel_format", ["BayerRG8", "BayerGB10p", "BayerBG12p", "Mono8"])
def test_frame_number_is_in_the_picture(
    width: int, height: int, pixel_format: str, open_rig: Opener, read_number: Decoder
) -> None:
    rig = open_rig(Width=width, Height=height, PixelFormat=pixel_format, SimFrameIdStart=0xA5C3_0F1E)
    rig.start()
    for frame in rig.frames(3):
        assert frame.payload.size == RawFormat(width, height, pixel_format).payload_size
        if height > 4:  # else there is no room
            assert read_number(rig.samples(frame)) == frame.frame_id


def test_offset_moves_the_picture(rig: Any) -> None:
    whole = _first(rig, SimNoise=False, PixelFormat="BayerRG12")
    moved = _first(rig, OffsetX=40, OffsetY=50)
    assert np.array_equal(moved[40:70, :200], whole[90:120, 40:240])


# ---- chunks and exposure ----------------------------------------------------------------------------------------


def test_chunks_lie_behind_the_image(rig: Any) -> None:
    rig.set(Width=20, Height=18, ChunkModeActive=True, Gain=6.0, ExposureTime=250.0)
    assert rig.features.PayloadSize.value == 360 + 24
    rig.start()
    for number, frame in enumerate(rig.frames(3), 1):
        assert frame.filled == 384
        assert frame.chunks == {"ChunkExposureTime": 250.0, "ChunkGain": 6.0, "ChunkFrameID": number}


def test_the_lines_are_those_of_the_exposure(rig: Any) -> None:
    rig.set(Width=20, Height=18, ChunkModeActive=True, ChunkSelector="LineStatusAll", ChunkEnable=True)
    rig.start()
    assert rig.frame().chunks["ChunkLineStatusAll"] == 0
    rig.set(SimLineStatus=0x8001)
    assert rig.features.LineStatusAll.value == 0x8001
    while not (lines := rig.frame().chunks["ChunkLineStatusAll"]):
        pass
    assert lines == 0x8001


def test_only_enabled_chunks_are_sent(rig: Any) -> None:
    rig.set(ChunkModeActive=True, ChunkSelector="Gain", ChunkEnable=False)
    assert rig.features.PayloadSize.value == 256 * 128 + 16
    rig.start()
    assert rig.frame().chunks == {"ChunkExposureTime": 500.0, "ChunkFrameID": 1}
    rig.stop()
    rig.set(ChunkModeActive=False)
    assert rig.features.PayloadSize.value == 256 * 128
    rig.start()
    assert rig.frame().chunks == {}


@pytest.mark.parametrize("pixel_format", ["BayerRG8", "BayerGR10p", "BayerGB12p", "BayerBG16", "Mono8"])
def test_exposure_holds_from_the_next_frame_on(pixel_format: str, rig: Any) -> None:
    rig.set(PixelFormat=pixel_format, ChunkModeActive=True, TriggerMode="On", SimNoise=False)
    black = rig.features.BlackLevel.value
    rig.start()
    light = []
    for exposure, gain in ((500.0, 0.0), (250.0, 0.0), (250.0, 20 * np.log10(2)), (125.0, 0.0), (500.0, 0.0)):
        rig.set(ExposureTime=exposure, Gain=gain)
        rig.features.TriggerSoftware.execute()
        frame = rig.frame()
        assert (frame.chunks["ChunkExposureTime"], frame.chunks["ChunkGain"]) == (exposure, pytest.approx(gain))
        light.append(rig.samples(frame)[WALL].mean() - black)
    assert np.array(light) / light[0] == pytest.approx([1, 0.5, 1, 0.25, 1], rel=0.06)


def test_a_changed_look_is_what_rendering_gives(rig: Any) -> None:
    changes = {"ExposureTime": 400.0, "BlackLevel": 100.0}
    rig.set(PixelFormat="BayerRG12", SimNoise=False, BalanceRatioSelector="Red", TriggerMode="On")
    rig.start()
    rig.set(**changes, BalanceRatio=2.0)
    rig.features.TriggerSoftware.execute()
    changed = rig.samples(rig.frame())
    rig.stop()
    rig.start()
    rig.features.TriggerSoftware.execute()
    rendered = rig.samples(rig.frame())
    assert np.abs(changed.astype(int) - rendered)[rendered < 4000].max() <= 2


def test_balance_ratio_is_a_gain_of_its_colour(rig: Any) -> None:
    before = _colour(_first(rig, PixelFormat="BayerRG16", SimNoise=False)[WALL], "RGGB")
    after = _colour(_first(rig, BalanceRatioSelector="Blue", BalanceRatio=1.5)[WALL], "RGGB")
    gains = [(after[colour] - 1024) / (before[colour] - 1024) for colour in "RGB"]
    assert gains == pytest.approx([1, 1, 1.5], rel=0.01)


@pytest.mark.parametrize(("feature", "automatic"), [("ExposureTime", "ExposureAuto"), ("Gain", "GainAuto")])
def test_automatic_functions_reach_mid_grey(feature: str, automatic: str, rig: Any) -> None:
    rig.set(
        AcquisitionFrameRate=400.0, ExposureTime=100.0, PixelFormat="BayerRG16", SimNoise=False, ChunkModeActive=True
    )
    getattr(rig.features, automatic).value = "Continuous"
    rig.start()
    frames = rig.frames(80)
    signal = [(rig.samples(frame)[40:].mean() - 1024) / 64511 for frame in (frames[0], frames[-1])]
    assert signal[0] < 0.1 < signal[1] < 0.25
    assert rig.features.ExposureTime.value <= 2500  # a frame period
    assert frames[-1].chunks[f"Chunk{feature}"] > frames[0].chunks[f"Chunk{feature}"]


# ---- when frames are taken ----------------------------------------------------------------------------------------


def test_a_software_trigger_takes_one_frame(rig: Any) -> None:
    rig.set(TriggerMode="On", TriggerSource="Software")
    rig.start()
    assert rig.poll(100) is None
    for number in (1, 2, 3):
        rig.features.TriggerSoftware.execute()
        assert rig.frame().frame_id == number
    assert rig.poll(50) is None
    rig.set(TriggerMode="Off")
    assert [frame.frame_id for frame in rig.frames(2)] == [4, 5]
    assert rig.features.SimLateFrames.value < 20  # one that made up for the time of the trigger would be 75 late


def test_a_trigger_of_the_start_lets_all_frames_come(rig: Any) -> None:
    rig.set(TriggerSelector="AcquisitionStart", TriggerMode="On", TriggerSource="Software")
    rig.start()
    assert rig.poll(100) is None
    rig.features.TriggerSoftware.execute()
    assert [frame.frame_id for frame in rig.frames(3)] == [1, 2, 3]


def test_nothing_is_connected_to_the_line(rig: Any) -> None:
    rig.set(TriggerMode="On", TriggerSource="Line0")
    rig.start()
    rig.features.TriggerSoftware.execute()
    assert rig.poll(100) is None


@pytest.mark.parametrize(("mode", "count"), [("SingleFrame", 1), ("MultiFrame", 5)])
def test_an_acquisition_of_so_many_frames_ends_by_itself(mode: str, count: int, rig: Any) -> None:
    rig.set(AcquisitionMode=mode, AcquisitionFrameCount=5)
    rig.start()
    assert [frame.frame_id for frame in rig.frames(count)] == list(range(1, count + 1))
    assert rig.poll(50) is None
    rig.features.AcquisitionStart.execute()
    assert rig.frame().frame_id == 1


def test_frame_rate_can_change_at_once(rig: Any) -> None:
    rig.set(AcquisitionFrameRate=0.1)
    rig.start()
    rig.frame()
    assert rig.poll(50) is None
    rig.set(AcquisitionFrameRate=200.0)
    stamps = [frame.timestamp for frame in rig.frames(21)]
    assert stamps[-1] - stamps[0] >= 0.95 * 20 * 5_000_000


def test_without_a_rate_exposure_decides(rig: Any) -> None:
    rig.set(AcquisitionFrameRateEnable=False, ExposureTime=20000.0)
    rig.start()
    stamps = [frame.timestamp for frame in rig.frames(5)]
    assert (stamps[-1] - stamps[0]) / 4 >= 0.95 * 20_000_000
