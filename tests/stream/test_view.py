"""isp-view: what it shows, how it ends, and what it says where it cannot."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ispeed.stream import Frame, FrameHeader, StreamTimeout, Subscriber
from ispeed.stream.view import Rates, main, view


class Screen:
    """Stands for the window, which a machine without a display cannot have."""

    def __init__(self, closes_after: int = 1 << 30, on_show: Callable[[], Any] = lambda: None) -> None:
        self.images: list[np.ndarray] = []
        self.titles: list[str] = []
        self._closes_after, self._on_show = closes_after, on_show

    def show(self, image: np.ndarray) -> None:
        self.images.append(image.copy())
        self._on_show()

    def title(self, text: str) -> None:
        self.titles.append(text)

    def closed(self) -> bool:
        return len(self.images) >= self._closes_after

    def close(self) -> None:
        raise AssertionError("whoever opened the screen closes it")


def test_it_shows_frames_until_it_is_closed(runtime_dir: Path, source: ModuleType) -> None:
    with source.RemoteSource() as stream, Subscriber() as frames:
        stream.do("await", descriptors=1)
        stream.run(fps=200)
        closing = Screen(closes_after=5)
        assert view(frames, closing) == 5
        assert view(frames, Screen(), frames=3) == 3
        assert view(frames, Screen(), stop=lambda: 1) == 0
        stream.halt()
    assert [image.shape for image in closing.images] == [(48, 64, 3)] * 5
    assert all((image == image[0, 0, 0]).all() for image in closing.images)
    values = [int(image[0, 0, 0]) for image in closing.images]
    assert values == sorted(set(values))


def test_the_title_tells_rate_latency_and_what_was_missed(runtime_dir: Path, source: ModuleType) -> None:
    with source.RemoteSource() as stream, Subscriber() as frames:
        stream.do("await", descriptors=1)
        stream.run(fps=100)
        screen = Screen()
        view(frames, screen, stop=lambda: len(screen.titles))
        stream.halt()
    assert screen.titles[0].startswith("camera 0 - ")
    assert int(screen.titles[0].rpartition(", missed ")[2]) <= frames.missed


def test_the_numbers_in_the_title() -> None:
    rates = Rates(10.0)
    now_ns = 10_600_000_000

    def frame(sequence: int) -> Frame:
        header = FrameHeader(camera=2, sequence=sequence, grabbed_ns=now_ns - 2_500_000, width=2, height=2, stride=6)
        return Frame(header, np.zeros((2, 2, 3), np.uint8))

    assert rates.feed(frame(100), 10.1, 0) is None
    assert rates.feed(frame(160), 10.2, 1) is None
    assert rates.feed(frame(700), 10.6, 7) == "camera 2 - 1000 fps, shown 5 fps, latency 2.5 ms, missed 7"
    assert rates.feed(frame(701), 10.7, 7) is None


def test_a_frame_torn_on_the_way_to_the_screen_does_not_count(runtime_dir: Path, source: ModuleType) -> None:
    with source.Source(slots=2) as stream, Subscriber(mode="every") as frames:
        stream.await_subscribers(1)
        stream.publish(2)
        screen = Screen(on_show=lambda: stream.publish(2) if len(screen.images) == 1 else None)
        assert view(frames, screen, frames=2) == 2
        assert len(screen.images) == 3


def test_silence_ends_it(runtime_dir: Path) -> None:
    with Subscriber() as frames, pytest.raises(StreamTimeout):
        view(frames, Screen(), timeout_ms=120)


# -- the command ------------------------------------------------------------------------------------------------


def test_help_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for word in ("endpoint", "--camera", "--mode", "newest", "every", "--save", "--frames", "--timeout-ms", "default"):
        assert word in text


@pytest.mark.parametrize(
    "arguments", [["--frames", "-1"], ["--camera", "x"], ["--mode", "all"], ["--nothing"], ["--timeout-ms", "1.5"]]
)
def test_bad_flags_end_with_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def sentence(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """The one line that the command ends with."""
    assert main(arguments) == code
    text = capsys.readouterr().err
    assert text.startswith("isp-view: error: ")
    assert text.count("\n") == 1
    return text


def test_without_a_display_it_says_what_to_do(
    runtime_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert "use --save DIR, or install ispeed[view]" in sentence([], capsys)


def test_without_opencv_or_its_windows_it_says_what_to_do(
    runtime_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2 = pytest.importorskip("cv2")
    monkeypatch.setenv("DISPLAY", ":99")
    if "GUI:                           NONE" in cv2.getBuildInformation():
        assert "cannot open a window: use --save DIR, or install ispeed[view]" in sentence([], capsys)
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert "needs OpenCV for a window: use --save DIR, or install ispeed[view]" in sentence([], capsys)


def test_a_bad_endpoint_and_a_silent_one(runtime_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no known transport" in sentence(["cam"], capsys)
    silent = ["--save", str(tmp_path), "--timeout-ms", "150"]
    assert "is isp-stream running there?" in sentence(silent, capsys, code=1)


@pytest.mark.parametrize("given", ["endpoint", "camera"])
def test_saving_needs_no_opencv_and_no_display(
    runtime_dir: Path, tmp_path: Path, source: ModuleType, given: str
) -> None:
    code = """
import os, sys
sys.modules["cv2"] = None
os.environ.pop("DISPLAY", None)
from ispeed.stream.view import main
sys.exit(main(sys.argv[1:]))
"""
    with source.RemoteSource(camera=4, slots=64) as stream:
        which = [stream.endpoints[0]] if given == "endpoint" else ["--camera", "4"]
        command = [sys.executable, "-c", code, *which, "--save", str(tmp_path), "--frames", "12"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as saving:
            stream.do("await", descriptors=1)
            stream.do("publish", count=12)
            out, _ = saving.communicate(timeout=60)
    assert (saving.returncode, out) == (0, f"saved 12 frames to {tmp_path}, missed 0\n")
    assert len(list(tmp_path.glob("*.png"))) == 12


def test_ctrl_c_ends_it_in_order(runtime_dir: Path, tmp_path: Path, source: ModuleType) -> None:
    with source.RemoteSource() as stream:
        command = [sys.executable, "-m", "ispeed.stream.view", "--save", str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as saving:
            stream.do("await", descriptors=1)
            stream.run(fps=100)
            while not list(tmp_path.glob("*.png")):
                time.sleep(0.01)
            saving.send_signal(2)
            out, _ = saving.communicate(timeout=60)
            stream.halt()
    assert saving.returncode == 0
    assert out.startswith(f"saved {len(list(tmp_path.glob('*.png')))} frames")
