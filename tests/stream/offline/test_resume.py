"""A run that is ended in any way goes on where it was, to the same bytes; a folder is not used for two things."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ispeed.engines import RawFormat, UserError, pack
from ispeed.stream.offline.cli import main, parse
from ispeed.stream.offline.run import run as run_config
from ispeed.stream.record import open_recording, write_recording

Digests = Callable[[Path], dict[str, str]]
Start = Callable[..., Any]
Capture = pytest.CaptureFixture[str]
FEW = ("--last", "2")
FRAMES, SIZE = 48, (320, 240)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 frames of 320x240 pixels, which lwisp takes more than a second for."""
    fmt = RawFormat(*SIZE, "BayerRG12p")
    samples = np.random.default_rng(3).integers(0, 4096, (FRAMES, SIZE[1], SIZE[0])).astype(np.uint16)
    return write_recording(
        tmp_path_factory.mktemp("slow") / "run.h5",
        fmt,
        [pack(each, fmt) for each in samples],
        calibration={"white_balance": [1.5, 1, 1.75]},
    )


@pytest.fixture(scope="module")
def whole(slow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run makes that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole")
    assert main([str(slow), "-o", str(folder), "--quiet"]) == 0
    return folder


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _again(capsys: Capture, *arguments: str | Path) -> tuple[int, int]:
    """Runs isp-develop in this process: frames that were there, and that it developed."""
    assert main([*map(str, arguments), "--json"]) == 0
    started, *_, final = map(json.loads, capsys.readouterr().out.splitlines())
    return started["there"], final["developed"]


def _pictures(folder: Path) -> dict[str, int]:
    """When each file was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("0*.png")}


def test_killed_and_started_again(
    slow: Path, whole: Path, tmp_path: Path, isp_develop: Start, digests: Digests, capsys: Capture
) -> None:
    arguments = (slow, "-o", tmp_path, "--chunk", "4")
    run = isp_develop(*arguments, "--workers", "1")
    _wait_for(lambda: len(_pictures(tmp_path)) >= 3)
    workers = run.workers()
    assert len(workers) == 1
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait()
    _wait_for(lambda: not Path(f"/proc/{workers[0]}").exists())  # it ends with its parent
    before = _pictures(tmp_path)
    assert 3 <= len(before) < FRAMES
    (tmp_path / ".00000023.png.other-1.part").write_bytes(b"begun, and never ended")
    assert _again(capsys, *arguments, "--workers", "2") == (len(before), FRAMES - len(before))
    assert {name: stamp for name, stamp in _pictures(tmp_path).items() if name in before} == before
    assert digests(tmp_path) == digests(whole)
    assert _again(capsys, *arguments) == (FRAMES, 0)


def test_a_recording_killed_and_started_again(
    slow: Path, whole: Path, tmp_path: Path, isp_develop: Start, capsys: Capture
) -> None:
    arguments = (slow, "-o", tmp_path, "--format", "h5", "--chunk", "2")
    run = isp_develop(*arguments, "--workers", "1")
    listed = tmp_path / ".isp-develop" / "done"
    _wait_for(lambda: listed.is_file() and listed.stat().st_size >= 4 * 8)
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait()
    assert not list(tmp_path.glob("run*"))  # what is not whole has no name
    there, developed = _again(capsys, *arguments)
    assert 4 <= there < FRAMES
    assert developed == FRAMES - there
    assert sorted(path.name for path in tmp_path.iterdir()) == [".isp-develop.json", "run-srgb.h5"]
    with open_recording(tmp_path / "run-srgb.h5") as made:
        pictures = [np.asarray(Image.open(whole / f"{number:08d}.png")) for number in range(FRAMES)]
        np.testing.assert_array_equal([made.read_srgb(number) for number in range(FRAMES)], pictures)


def test_a_film_that_failed_goes_on_to_the_same_bytes(
    recording: Path, tmp_path: Path, isp_develop: Start, digests: Digests, capsys: Capture
) -> None:
    def film(folder: str) -> tuple[str | Path, ...]:
        options = ("--engine", "light-paired", "--format", "mp4", "--chunk", "8", "--last", "39", "--workers", "1")
        return recording, "-o", tmp_path / folder, *options

    segment = tmp_path / "cut" / ".isp-develop" / "00000024.mp4"
    run = isp_develop(*film("cut"))
    run.until("started")
    (segment / "in the way").mkdir(parents=True)
    assert "frames cannot be written" in run.finish(1)
    (segment / "in the way").rmdir()
    segment.rmdir()
    assert sorted(path.name for path in segment.parent.iterdir()) == ["00000000.mp4", "00000008.mp4", "00000016.mp4"]
    segment.write_bytes(b"no film")
    assert main([*map(str, film("cut")), "--json"]) == 1
    assert f"{segment} is damaged" in capsys.readouterr().err
    segment.write_bytes(b"")  # as a power failure may leave it
    assert _again(capsys, *film("cut")) == (32, 8)  # those behind it were made meanwhile
    assert _again(capsys, *film("whole")) == (0, 40)
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")


def test_workers_that_are_killed_are_replaced(
    slow: Path, whole: Path, tmp_path: Path, isp_develop: Start, digests: Digests
) -> None:
    run = isp_develop(slow, "-o", tmp_path, "--chunk", "12", "--workers", "2")
    _wait_for(lambda: len(_pictures(tmp_path)) >= 2)
    for worker in run.workers():
        os.kill(worker, signal.SIGKILL)
    assert run.until("final")["died"] == 2
    assert run.finish() == ""
    assert digests(tmp_path) == digests(whole)


def test_a_chunk_that_kills_three_workers_ends_the_run(slow: Path, tmp_path: Path, isp_develop: Start) -> None:
    run = isp_develop(slow, "-o", tmp_path, "--chunk", "24", "--workers", "1")
    killed: set[int] = set()
    for _ in range(3):
        before = _pictures(tmp_path)
        # a new worker has begun with the chunk when it has written the first frame of it anew
        _wait_for(lambda before=before: _pictures(tmp_path).get("00000000.png", 0) > before.get("00000000.png", 0))
        (worker,) = set(run.workers()) - killed
        os.kill(worker, signal.SIGKILL)
        killed.add(worker)
    errors = run.finish(1)
    assert "3 workers ended over the frames 0 to 23, the last one by SIGKILL" in errors
    assert len(errors.splitlines()) == 1
    assert not list(tmp_path.glob(".*.part"))


def test_a_disk_that_fails_is_one_sentence_and_the_run_goes_on_later(
    recording: Path, tmp_path: Path, isp_develop: Start, capsys: Capture
) -> None:
    arguments = (recording, "-o", tmp_path, "--engine", "light-paired", "--workers", "1", "--chunk", "10")
    blocked = tmp_path / "00000050.png"
    run = isp_develop(*arguments)
    run.until("started")
    (blocked / "in the way").mkdir(parents=True)
    errors = run.finish(1)
    assert "frames cannot be written" in errors
    assert "run the same command again" in errors
    assert len(errors.splitlines()) == 1
    assert len(_pictures(tmp_path)) == 51  # with what is in the way
    (blocked / "in the way").rmdir()
    blocked.rmdir()
    assert _again(capsys, *arguments) == (50, 50)


def test_a_recording_that_the_disk_cannot_hold(tmp_path: Path) -> None:
    count, width, height = 400_000, 4096, 2048
    (tmp_path / "a.cih").write_text(
        f"Image Width : {width}\nImage Height : {height}\nTotal Frame : {count}\nColor Bit : 8\nColor Type : RGGB\n"
    )
    with (tmp_path / "a.mraw").open("wb") as file:
        try:
            file.truncate(count * width * height)  # 3 TiB of nothing
        except OSError:
            pytest.skip("this file system has no files of 3 TiB")
    with pytest.raises(UserError, match=r"a-srgb.h5 cannot be made: it takes 9600000 MiB, and \d+ MiB of the disk"):
        run_config(parse([str(tmp_path / "a.mraw"), "-o", str(tmp_path / "out"), "--format", "h5", "--quiet"]))
    assert not (tmp_path / "out").exists()


def _develop(*arguments: str | Path) -> None:
    options = ["--engine", "light-paired", "--quiet", "--workers", "1"]
    run_config(parse([*map(str, arguments), *options]))


def test_a_folder_is_for_one_thing(recording: Path, tmp_path: Path, digests: Digests) -> None:
    gains = ("--white-balance", "1", "1", "1")
    _develop(recording, *FEW, "-o", tmp_path, *gains)
    first = digests(tmp_path)
    with pytest.raises(UserError, match=r"made with other settings \(white_balance\).*--force"):
        _develop(recording, *FEW, "-o", tmp_path, "--white-balance", "2", "1", "1")
    with pytest.raises(UserError, match=r"other settings \(step, count\)"):
        _develop(recording, *FEW, "-o", tmp_path, *gains, "--step", "2")
    assert digests(tmp_path) == first
    copy = tmp_path.with_name(f"{tmp_path.name}-copy")
    shutil.copytree(tmp_path, copy)
    (copy / "mine.txt").write_text("kept")
    _develop(recording, *FEW, "-o", copy, *gains, "--step", "2", "--format", "h5", "--force")
    assert set(digests(copy)) == {"mine.txt", "run-srgb.h5"}
    assert digests(tmp_path) == first  # where the copy was made from


def test_files_of_others_are_not_overwritten(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "00000002.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"holds a 00000002.png already: use another folder, or --force"):
        _develop(recording, *FEW, "-o", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["00000002.png"]
    _develop(recording, *FEW, "-o", tmp_path, "--force")
    assert (tmp_path / "00000002.png").read_bytes() != b"mine"


def test_two_at_once_in_a_folder(recording: Path, tmp_path: Path, slow: Path, isp_develop: Start) -> None:
    run = isp_develop(slow, "-o", tmp_path)
    run.until("started")
    with pytest.raises(UserError, match="another isp-develop is at work"):
        _develop(recording, *FEW, "-o", tmp_path)
    run.process.send_signal(signal.SIGINT)
    errors = run.finish(130)
    assert errors.startswith("isp-develop: stopped with ")
    assert f" of {FRAMES} frames done; the same command goes on" in errors
    assert len(errors.splitlines()) == 1
    assert not list(tmp_path.glob(".*.part"))


def test_what_no_worker_can_do_leaves_nothing(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "grey.h5", RawFormat(64, 48, "Mono8"), np.zeros((3, 64 * 48), np.uint8))
    with pytest.raises(UserError, match="Mono8"):
        _develop(path, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()
