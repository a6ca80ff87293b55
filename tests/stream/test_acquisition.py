"""What an acquisition decides when it opens a camera; how it moves frames is in camera/test_grab.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ispeed.engines.errors import UserError
from ispeed.stream.acquisition import Acquisition
from ispeed.stream.camera.gentl import DataStream
from ispeed.stream.config import make_config


@pytest.fixture
def acquire(runtime_dir, monkeypatch):
    """Opens cameras; closes them in the end."""
    monkeypatch.delenv("GENICAM_GENTL64_PATH", raising=False)
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    opened: list[Acquisition] = []

    def start(**settings) -> Acquisition:
        opened.append(Acquisition(make_config(settings), wake))
        return opened[-1]

    yield start
    for acquisition in opened:
        acquisition.close()
    os.close(wake)


@pytest.fixture
def refusing(monkeypatch):
    """Producers that take no memory of ours; none of those at hand refuses it."""
    monkeypatch.setattr(DataStream, "accepts_foreign_memory", lambda self, size: False)


def test_a_producer_that_refuses_our_memory_is_copied_from_with_a_warning(acquire, refusing):
    acquisition = acquire()
    assert acquisition.geometry.acquisition == "copy"
    assert "frames are copied" in acquisition.warnings[0]


def test_zero_copy_that_was_asked_for_is_not_given_up_silently(acquire, refusing):
    with pytest.raises(UserError, match="takes no memory of ours: choose --acquisition copy"):
        acquire(acquisition="zero-copy")
    acquire(acquisition="copy")  # the failed attempt let go of the camera


def test_copy_that_was_asked_for_tries_nothing_else(acquire):
    acquisition = acquire(acquisition="copy")
    assert (acquisition.geometry.acquisition, acquisition.warnings) == ("copy", [])


def test_a_scene_is_for_the_simulated_camera(acquire):
    genicam = pytest.importorskip("genicam")
    viky = Path(genicam.__file__).with_name("viky.cti")
    with pytest.raises(
        UserError, match=r"scene is for the simulated camera, and 0 is a Machine Vision Games Ltd\. Viky"
    ):
        acquire(cti=[viky], scene="target")


def test_a_trigger_set_by_feature_name_makes_the_rate_unknown(acquire):
    assert acquire(features={"TriggerMode": "On"}).geometry.fps == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, (64, 32, 60, 4000)), ({"width": 32, "height": 16, "black_level": 0}, (32, 16, 0, 4000))],
)
def test_a_file_brings_size_format_and_levels_unless_they_are_given(acquire, tmp_path, given, expected):
    (tmp_path / "x.raw").write_bytes(bytes(2 * 64 * 32))
    scene = f"{tmp_path / 'x.raw'}?width=64&height=32&format=BayerBG12&black=60&white=4000"
    geometry = acquire(scene=scene, **given).geometry
    assert geometry.pixel_format == "BayerBG12"
    assert (geometry.width, geometry.height, geometry.black_level, geometry.white_level) == expected
