"""Settings by name, on the real node map of the simulated camera."""

from __future__ import annotations

import time

import pytest
from genicam import genapi

from ispeed.engines.bayer import RawFormat
from ispeed.engines.errors import UserError
from ispeed.stream.camera import Discovery
from ispeed.stream.camera.chunks import ChunkField, enable_chunks, find_fields
from ispeed.stream.camera.nodes import CameraUnreachable, Features
from ispeed.stream.camera.settings import _nearest, configure, exposure_and_gain, frame_rate, levels
from ispeed.stream.camera.simcam import CHUNK_IDS, producer_path
from ispeed.stream.config import make_config


@pytest.fixture
def camera(runtime_dir, monkeypatch):
    monkeypatch.delenv("GENICAM_GENTL64_PATH", raising=False)
    with Discovery() as found:
        opened = found.open("SIM0001")
    yield opened
    opened.close()


@pytest.fixture
def features(camera):
    return Features(camera.node_map, camera.info.serial)


@pytest.fixture
def apply(camera, features):
    """Configures the camera as a config says; returns the warnings."""

    def run(**settings) -> list[str]:
        warnings: list[str] = []
        configure(features, make_config(settings), camera.info, None, warnings)
        return warnings

    return run


@pytest.mark.parametrize(
    ("name", "value", "back"),
    [
        ("Width", 128, 128),
        ("Width", "0x80", 128),
        ("Width", 128.0, 128),
        ("ExposureTime", 250, 250.0),
        ("ExposureTime", "1e3", 1000.0),
        ("PixelFormat", "BayerGB12p", "BayerGB12p"),
        ("TriggerMode", True, "On"),  # what YAML makes of On
        ("TriggerMode", False, "Off"),
        ("ChunkModeActive", "on", True),
        ("ChunkModeActive", 0, False),
        ("SimSceneFile", 5, "5"),
        ("TimestampLatch", 1, True),
    ],
)
def test_a_value_is_set_as_the_features_type_and_read_back(features, name, value, back):
    assert features.set(name, value) == back


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("Width", 130, r"camera SIM0001: Width 130 is not possible: 16 to \d+ in steps of 4"),
        ("Width", 12, r"Width 12 is not possible: 16 to "),
        ("Width", 128.5, r"Width 128.5 is not possible"),
        ("Width", "wide", r"Width wide is not possible: 16 to "),
        ("Gain", 99, r"Gain 99 is not possible: 0 to 24 dB"),
        ("Gain", "loud", r"Gain loud is not possible: 0 to 24 dB"),
        ("TriggerMode", "Maybe", r"TriggerMode Maybe is not possible: choose one of Off, On"),
        ("ChunkModeActive", "maybe", r"ChunkModeActive maybe is not possible: true or false"),
        ("DeviceTemperature", 5, r"DeviceTemperature cannot be set, it can only be read"),
        ("Widht", 64, r"camera SIM0001 has no feature Widht; did you mean Width\?"),
        ("Nonsense", 64, r"camera SIM0001 has no feature Nonsense$"),
        ("DeviceControl", 1, r"DeviceControl"),
    ],
)
def test_what_is_not_possible_says_what_is(features, name, value, message):
    with pytest.raises(UserError, match=message):
        features.set(name, value)


def test_features_that_are_not_there_can_be_asked_for(features):
    assert features.read("NoSuchFeature", 7) == 7
    assert features.entries("NoSuchFeature") == ()
    assert not features.readable("NoSuchFeature")
    assert not features.set_if_there("NoSuchFeature", 1)
    assert not features.set_if_there("Width", 3)


def test_a_size_can_be_set_whatever_offset_was_there(apply, features):
    apply(width=64, height=64, offset_x=8000, offset_y=500)
    apply(width=1280, height=1024, offset_x=10)
    assert [features.read(name) for name in ("Width", "Height", "OffsetX", "OffsetY")] == [1280, 1024, 10, 500]


def test_a_size_leaves_the_offset_as_far_as_it_fits_and_an_offset_the_other_one(apply, features):
    assert apply(features={"OffsetX": 128, "OffsetY": 64}, height=400) == []
    assert [features.read(name) for name in ("Height", "OffsetX", "OffsetY")] == [400, 128, 64]
    assert apply(offset_y=100) == []
    assert [features.read(name) for name in ("OffsetX", "OffsetY")] == [128, 100]
    told = apply(width=8188)  # of 8192, so that 4 are left
    assert told == ["camera SIM0001: OffsetX is 4 instead of 128: Width 8188 allows no more"]
    assert [features.read(name) for name in ("OffsetX", "OffsetY")] == [4, 100]


@pytest.mark.parametrize(
    ("limits", "value", "nearest"),
    [
        ({"min": 0, "max": 100, "inc": 16}, 128, 96),
        ({"min": 4, "max": 100, "inc": 8}, 50, 44),
        ({"min": 4, "max": 100, "inc": 8}, 2, 4),
        ({"min": 0, "max": 100, "inc": 2}, 60, 60),
        ({}, 60, 60),
    ],
)
def test_the_nearest_value_is_one_that_can_be_set(limits, value, nearest):
    assert _nearest(limits, value) == nearest


def test_without_a_size_the_cameras_own_region_is_left_alone(apply, features):
    apply(width=64, height=64, offset_x=10, offset_y=20)
    apply(fps=50)
    assert [features.read(name) for name in ("Width", "OffsetX", "OffsetY")] == [64, 10, 20]


def test_features_come_first_in_their_order_and_the_named_settings_win(apply, features):
    apply(features={"Width": 256, "Gain": 3, "ExposureAuto": "Continuous"}, width=128, gain_db=6, exposure_us=77)
    assert features.read("Width") == 128
    assert exposure_and_gain(features) == (77, 6)
    assert features.read("ExposureAuto") == "Off"


def test_the_frame_rate_is_enabled_and_read_back(apply, features):
    features.set("AcquisitionFrameRateEnable", False)
    assert apply(fps=432.5) == []
    assert features.read("AcquisitionFrameRateEnable") is True
    assert frame_rate(features, triggered=False) == 432.5
    assert frame_rate(features, triggered=True) == 0


def test_a_camera_that_runs_freely_tells_no_rate(apply, features):
    apply(fps=100)
    features.set("AcquisitionFrameRateEnable", False)
    assert frame_rate(features, triggered=False) == 0


class FrameLong(Features):
    """A stand-in for a camera that takes no exposure that is longer than a frame, and no rate whose frames are shorter
    than the exposure: the simulated one takes both."""

    def set(self, name, value):
        period_us = 1e6 / float(value if name == "AcquisitionFrameRate" else self.read("AcquisitionFrameRate"))
        exposure_us = float(value if name == "ExposureTime" else self.read("ExposureTime"))
        if name in ("ExposureTime", "AcquisitionFrameRate") and exposure_us > period_us:
            raise UserError(f"{name} {value} is not possible: {exposure_us:g} us in {period_us:g}")
        return super().set(name, value)


@pytest.mark.parametrize(("stands_at", "fps", "exposure_us"), [((500, 100), 100, 5000), ((100, 5000), 500, 100)])
def test_exposure_and_rate_are_set_in_the_order_that_the_camera_takes(camera, stands_at, fps, exposure_us):
    features = FrameLong(camera.node_map, "SIM0001")
    features.set("AcquisitionFrameRate", 1)
    features.set("ExposureTime", stands_at[1])
    features.set("AcquisitionFrameRate", stands_at[0])
    configure(features, make_config({"fps": fps, "exposure_us": exposure_us}), camera.info, None, [])
    assert (frame_rate(features, triggered=False), features.read("ExposureTime")) == (fps, exposure_us)


def test_an_exposure_that_no_rate_allows_is_the_one_that_is_refused(camera):
    features = FrameLong(camera.node_map, "SIM0001")
    with pytest.raises(UserError, match=r"ExposureTime 20000\.0 is not possible"):
        configure(features, make_config({"fps": 100, "exposure_us": 20000}), camera.info, None, [])


def test_with_a_trigger_a_rate_that_the_camera_locks_is_left_alone(camera, features, monkeypatch):
    """A stand-in for one: the simulated camera, whose AcquisitionFrameRate cannot be set."""
    writable = features.writable
    monkeypatch.setattr(features, "writable", lambda name: name != "AcquisitionFrameRate" and writable(name))
    before, warnings = features.read("AcquisitionFrameRate"), []
    configure(features, make_config({"trigger": True, "fps": 777}), camera.info, None, warnings)
    assert (features.read("AcquisitionFrameRate"), warnings) == (before, [])


def test_the_trigger_is_switched_on_only_when_asked_for(apply, features):
    apply(trigger=True)
    assert features.read("TriggerMode") == "On"
    apply()
    assert features.read("TriggerMode") == "Off"
    apply(features={"TriggerMode": "On"})
    assert features.read("TriggerMode") == "On"


def triggers(features) -> dict[str, tuple[str, str]]:
    """Mode and source of each trigger; the one that is selected stays so."""
    selected, found = features.read("TriggerSelector"), {}
    for name in features.entries("TriggerSelector"):
        features.set("TriggerSelector", name)
        found[name] = (features.read("TriggerMode"), features.read("TriggerSource"))
    features.set("TriggerSelector", selected)
    return found


def test_the_trigger_of_a_frame_gets_the_source_whatever_was_selected_before(apply, features):
    features.set("TriggerSelector", "AcquisitionStart")
    features.set("TriggerMode", "On")
    assert apply(trigger=True, features={"TriggerSource": "Line0"}) == []
    assert features.read("TriggerSelector") == "FrameStart"
    assert triggers(features) == {"FrameStart": ("On", "Line0"), "AcquisitionStart": ("Off", "Software")}


def test_another_trigger_is_taken_where_the_user_names_it(apply, features):
    apply(trigger=True, features={"TriggerSelector": "AcquisitionStart", "TriggerSource": "Line0"})
    assert features.read("TriggerSelector") == "AcquisitionStart"
    assert triggers(features) == {"FrameStart": ("Off", "Software"), "AcquisitionStart": ("On", "Line0")}


def test_without_a_trigger_every_one_is_off_and_the_same_one_selected(apply, features):
    for name in ("AcquisitionStart", "FrameStart", "AcquisitionStart"):
        features.set("TriggerSelector", name)
        features.set("TriggerMode", "On")
    apply()
    assert features.read("TriggerSelector") == "AcquisitionStart"
    assert triggers(features) == {"FrameStart": ("Off", "Software"), "AcquisitionStart": ("Off", "Software")}


def test_a_camera_without_a_trigger_of_frames_is_told_of(camera, features, monkeypatch):
    """A stand-in for one: the simulated camera, with the entry FrameStart taken out of its selector."""
    features.set("TriggerSelector", "AcquisitionStart")
    settable = features.set_if_there
    monkeypatch.setattr(features, "set_if_there", lambda name, value: value != "FrameStart" and settable(name, value))
    warnings: list[str] = []
    configure(features, make_config({"trigger": True}), camera.info, None, warnings)
    assert warnings == ["camera SIM0001 has no trigger FrameStart to select: it waits for its trigger AcquisitionStart"]
    assert triggers(features)["AcquisitionStart"][0] == "On"


def test_a_pixel_format_that_is_not_supported_is_refused_before_the_camera_is_asked(apply):
    with pytest.raises(UserError, match="pixel format 'RGB8' is not supported; choose one of BayerBG10"):
        apply(pixel_format="RGB8")


@pytest.mark.parametrize(
    ("given", "expected"), [({}, (64, 4095)), ({"black_level": 10, "white_level": 3000}, (10, 3000))]
)
def test_levels_are_the_cameras_unless_the_config_has_them(features, given, expected):
    features.set("PixelFormat", "BayerRG12")
    raw = RawFormat(64, 48, "BayerRG12")
    found = levels(features, make_config(given), None, raw, [])
    assert (found.black_level, found.white_level) == expected


def test_a_black_level_that_cannot_be_is_taken_as_0_with_a_warning(features):
    features.set("PixelFormat", "BayerRG12")
    features.set("BlackLevel", 500)
    warnings: list[str] = []
    found = levels(features, make_config({}), None, RawFormat(64, 48, "BayerRG8"), warnings)
    assert found.black_level == 0
    assert "tells a BlackLevel of 500" in warnings[0]


def test_chunks_are_found_in_the_cameras_own_description(features):
    enable_chunks(features, lines=True)
    assert find_fields(features) == (
        ChunkField(CHUNK_IDS["ChunkExposureTime"], 0, "<d"),
        ChunkField(CHUNK_IDS["ChunkGain"], 0, "<d"),
        ChunkField(CHUNK_IDS["ChunkLineStatusAll"], 0, "<Q"),
    )
    features.set("ChunkModeActive", False)
    assert find_fields(features) == (None, None, None)


@pytest.mark.parametrize(
    ("plain", "other"),
    [
        ("<Address>0x0</Address>", "<Address>0x0</Address><Address>0x8</Address>"),
        ("<Address>0x0</Address>", "<Address>0x0</Address><pAddress>WidthReg</pAddress>"),
        ("<Address>0x0</Address>", "<pAddress>WidthReg</pAddress>"),
        ("<Address>0x0</Address>", '<Address>0x0</Address><pIndex Offset="8">TriggerSelector</pIndex>'),
        ("<ChunkID>1001</ChunkID>", "<ChunkID>1001</ChunkID><SwapEndianess>Yes</SwapEndianess>"),
    ],
)
def test_a_chunk_whose_place_or_bytes_depend_on_more_is_left_to_the_nodes(monkeypatch, plain, other):
    """Stand-ins for such cameras: the simulated one's description, with one of its registers described otherwise."""
    described = producer_path().with_name("camera.xml").read_text()
    assert plain in described
    nodes = genapi.NodeMap()
    nodes.load_xml_from_string(described.replace(plain, other, 1))
    features = Features(nodes, "SIM0001")
    monkeypatch.setattr(features, "read", lambda name, default: True)  # there is no camera to ask for ChunkModeActive
    exposure, gain, _ = find_fields(features)
    assert exposure is None
    assert gain == ChunkField(CHUNK_IDS["ChunkGain"], 0, "<d")


def test_a_camera_that_is_gone_is_noticed_by_a_probe(features):
    features.probe()
    features.set("SimVanish", 400)  # ms: other tests of this process want it back
    away_until = time.monotonic() + 0.5
    with pytest.raises(CameraUnreachable):
        features.probe()
    assert features.read("DeviceTemperature", "gone", fresh=True) == "gone"
    with pytest.raises(UserError, match="camera SIM0001: "):
        features.set("ExposureTime", 100)
    time.sleep(max(0.0, away_until - time.monotonic()))
