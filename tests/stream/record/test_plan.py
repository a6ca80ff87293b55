"""What is recorded, and what cannot be, before anything runs."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest

from ispeed.engines import RawFormat
from ispeed.engines.errors import UserError
from ispeed.stream.config import make_config
from ispeed.stream.record.plan import Plan, make_plan


def plan(folder: Path, **settings: Any) -> Plan:
    """The plan of these settings."""
    made = make_plan(make_config({"record": folder, **settings}))
    assert made is not None
    return made


def test_without_record_nothing_is_recorded() -> None:
    assert make_plan(make_config({})) is None


def test_the_least_that_is_said_records_from_the_first_frame_to_the_end(tmp_path: Path) -> None:
    made = plan(tmp_path / "new" / "folder")
    assert (made.on, made.kinds, made.format) == (("start",), ("raw",), "h5")
    assert made.from_start
    assert made.longest_s == math.inf
    assert (tmp_path / "new" / "folder").is_dir()


@pytest.mark.parametrize(
    ("settings", "on", "kinds"),
    [
        ({"pre_trigger_s": 2}, ("key",), ("raw",)),
        ({"post_trigger_s": 0}, ("key",), ("raw",)),
        ({"record_on": ["line", "brightness", "line"]}, ("line", "brightness"), ("raw",)),
        ({"record_what": "both"}, ("start",), ("raw", "srgb")),
        ({"record_format": "mp4"}, ("start",), ("srgb",)),
        ({"record_format": "dng"}, ("start",), ("raw",)),
    ],
)
def test_what_follows_from_what_is_said(
    tmp_path: Path, settings: dict[str, Any], on: tuple[str, ...], kinds: tuple[str, ...]
) -> None:
    made = plan(tmp_path, **settings)
    assert (made.on, made.kinds) == (on, kinds)


def test_the_ring_holds_what_is_before_a_trigger_and_the_slack(tmp_path: Path) -> None:
    assert plan(tmp_path, pre_trigger_s=2).history(1000) == 3000
    assert plan(tmp_path, pre_trigger_s=2, record_slack_s=0.25).history(100.1) == 226
    assert plan(tmp_path).history(500) == 500
    assert plan(tmp_path).history(None) == 0
    with pytest.raises(UserError, match="tells no frame rate"):
        plan(tmp_path, pre_trigger_s=2).history(None)


def test_disk_and_memory_must_hold_it(tmp_path: Path) -> None:
    fmt = RawFormat(1024, 1024, "BayerRG8")
    plan(tmp_path, pre_trigger_s=1).require_disk(fmt, 10)
    plan(tmp_path).require_disk(fmt, 10)
    plan(tmp_path, post_trigger_s=80_000, record_seconds=2).require_disk(fmt, 10)
    with pytest.raises(UserError, match=r"a recording of 80000 s at 1000 fps needs \d+ MiB, and .* has \d+ MiB free"):
        plan(tmp_path, post_trigger_s=80_000).require_disk(fmt, 1000)
    plan(tmp_path).require_memory(1 << 20, 10)
    with pytest.raises(UserError, match=r"keeping 10 frames .* needs 1048576 MiB of memory"):
        plan(tmp_path).require_memory(1 << 40, 10)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"record": None, "pre_trigger_s": 1}, "--pre-trigger-s is about recordings: say with --record where"),
        ({"record": None, "record_on": ["key"]}, "--record-on is about recordings"),
        ({"record_format": "mp4", "record_what": "raw"}, "an MP4 holds sRGB frames alone"),
        ({"record_format": "dng", "record_what": "both"}, "DNG files hold raw frames alone"),
        ({"record_on": ["start"], "pre_trigger_s": 1}, "--record-on start records from the first frame"),
        ({"record_on": ["start", "key"]}, "--record-on start records from the first frame"),
        ({"pre_trigger_s": 2, "record_seconds": 1}, "--record-seconds is no longer than --pre-trigger-s"),
        ({"record": "/proc/nothing"}, "nothing can be recorded in /proc/nothing"),
        ({"record_on": ["sound"]}, "record_on"),
        ({"brightness_jump": 0}, "brightness_jump"),
    ],
)
def test_what_cannot_be_recorded_is_one_sentence(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        plan(tmp_path, **settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("form", "package"), [("h5", "h5py"), ("mp4", "av")])
def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, package: str
) -> None:
    """That it is missing is played, because the other tests need it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(UserError, match=rf"needs {package}: pip install 'ispeed\[record\]'"):
        plan(tmp_path, record_format=form)
