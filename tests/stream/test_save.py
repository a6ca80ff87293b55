"""Saving every frame: in order, whole, counted, and ended well."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ispeed.engines.errors import UserError
from ispeed.stream import Frame, FrameHeader, Subscriber, default_endpoint
from ispeed.stream.save import PngWriter, Stop, save_frames


@contextlib.contextmanager
def saving(folder: Path, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The saving process, as `isp-stream --save` starts it."""
    command = [sys.executable, "-m", "ispeed.stream.save", default_endpoint(0), str(folder), *arguments]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes, **options) as process:
        yield process
        process.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def frame_of(number: int, segment: int = 1, size: int = 8) -> Frame:
    header = FrameHeader(frame_id=number, sequence=number, segment=segment, width=size, height=size, stride=3 * size)
    return Frame(header, np.full((size, size, 3), number & 0xFF, np.uint8))


def end_of_stdin(process: subprocess.Popen[str]) -> None:
    """What the main process does, and its death."""
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it printed, after it ended by itself with its stdin still open."""
    process.wait(60)
    assert process.stdout is not None
    assert process.stderr is not None
    return process.stdout.read(), process.stderr.read()


def terminate(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("end", [end_of_stdin, terminate])
def test_every_frame_is_a_file(
    runtime_dir: Path, tmp_path: Path, source: ModuleType, end: Callable[[subprocess.Popen[str]], None]
) -> None:
    folder = tmp_path / "a" / "b"
    with source.RemoteSource(slots=64) as stream, saving(folder) as saver:
        stream.do("await", descriptors=1)
        stream.do("publish", count=50)
        saver.send_signal(signal.SIGINT)  # Ctrl-C in the terminal is the main process's to act on
        end(saver)
        out, errors = saver.communicate(timeout=60)
    assert (saver.returncode, errors) == (0, "")
    assert json.loads(out) == {"saved": 50, "missed": 0}
    assert names(folder) == [f"{number + 100:08d}.png" for number in range(50)]
    for number in (0, 49):
        with Image.open(folder / f"{number + 100:08d}.png") as image:
            assert image.size == (64, 48)
            assert image.mode == "RGB"
            assert source.whole(np.asarray(image), number)


def test_it_ends_after_so_many_frames(runtime_dir: Path, tmp_path: Path, source: ModuleType) -> None:
    with source.RemoteSource() as stream, saving(tmp_path, "--frames", "7") as saver:
        stream.do("await", descriptors=1)
        stream.run(fps=200)
        out, _ = ended(saver)
        stream.halt()
    assert json.loads(out)["saved"] == len(names(tmp_path)) == 7


def test_what_was_lapped_is_reported(runtime_dir: Path, tmp_path: Path, source: ModuleType) -> None:
    with source.RemoteSource(slots=4) as stream, saving(tmp_path) as saver:
        stream.do("await", descriptors=1)
        stream.do("publish", count=1)
        while not names(tmp_path):
            time.sleep(0.01)
        saver.send_signal(signal.SIGSTOP)
        stream.do("publish", count=20)
        saver.send_signal(signal.SIGCONT)
        end_of_stdin(saver)
        out, _ = saver.communicate(timeout=60)
    report = json.loads(out)
    assert report["saved"] == len(names(tmp_path))
    assert report["missed"] >= 10
    assert report["saved"] + report["missed"] == 21


def test_a_folder_that_cannot_be_made_is_one_sentence(runtime_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with saving(tmp_path / "file" / "folder") as saver:
        out, errors = saver.communicate(timeout=60)
    assert (saver.returncode, out) == (2, "")
    assert errors.startswith("save: error: frames cannot be saved to ")
    assert errors.count("\n") == 1


def test_a_write_that_fails_ends_it_with_a_sentence(runtime_dir: Path, tmp_path: Path, source: ModuleType) -> None:
    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    # Coverage too would fail to write its file, and say so.
    uncovered = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    with (
        source.RemoteSource(width=640, height=480) as stream,
        saving(tmp_path, preexec_fn=small_files_only, env=uncovered) as saver,
    ):
        stream.do("await", descriptors=1)
        stream.run(fps=50)
        out, errors = ended(saver)
        stream.halt()
    assert (saver.returncode, out) == (2, "")
    assert "File too large" in errors
    assert errors.count("\n") == 1
    assert names(tmp_path) == [], "half a file is none"


def test_a_bad_endpoint_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from ispeed.stream.save import main

    assert main(["bad", str(tmp_path)]) == 2
    assert "no known transport" in capsys.readouterr().err


def test_a_camera_that_counts_from_the_beginning_again_overwrites_nothing(tmp_path: Path) -> None:
    writer = PngWriter(tmp_path)
    for number, segment in ((1, 3), (2, 3), (1, 4), (123456789, 4)):
        writer.put(frame_of(number, segment))
    writer.close()
    assert names(tmp_path) == ["00000001-4.png", "00000001.png", "00000002.png", "123456789-4.png"]
    writer.check()
    assert writer.accepted == 4


def test_buffers_follow_the_size_of_the_frames(tmp_path: Path) -> None:
    writer = PngWriter(tmp_path)
    for number in range(40):
        writer.put(frame_of(number, size=8 + number % 2))
    writer.close()
    writer.check()
    for number in range(40):
        with Image.open(tmp_path / f"{number:08d}.png") as image:
            assert image.size == (8 + number % 2, 8 + number % 2)
            assert (np.asarray(image) == number).all()


def test_a_frame_that_is_gone_is_counted(tmp_path: Path) -> None:
    writer = PngWriter(tmp_path)
    gone = FrameHeader(slot=0, sequence=0, generation=2, width=8, height=8, stride=24)
    generations = memoryview(bytearray((5).to_bytes(8, "little"))).cast("Q")
    for _ in range(300):  # more than there are buffers: each must come back
        writer.put(Frame(gone, np.zeros((8, 8, 3), np.uint8), generations))
    writer.close()
    assert (writer.accepted, writer.overwritten, names(tmp_path)) == (0, 300, [])


def test_silence_ends_it_where_asked(runtime_dir: Path, tmp_path: Path) -> None:
    with Subscriber(mode="every") as frames, pytest.raises(TimeoutError):
        save_frames(frames, tmp_path, timeout_ms=150)
    with pytest.raises(UserError, match="cannot be saved"):
        PngWriter(Path("/proc/nothing"))


def test_signals_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Stop() as stop:
        assert stop() == 0
        signal.raise_signal(signal.SIGTERM)
        asked = stop()
        assert 0 < asked <= time.monotonic_ns()
        signal.raise_signal(signal.SIGINT)
        assert stop() == asked
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
