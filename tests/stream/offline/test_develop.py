"""What isp-develop makes: the engine's pictures, in every format the same bytes whoever made them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ispeed.engines import RawFormat, open_engine, pack
from ispeed.engines.slots import Slots
from ispeed.stream.footage import FootageOptions, open_footage
from ispeed.stream.offline.cli import main, parse
from ispeed.stream.offline.job import Job, make_job
from ispeed.stream.record import RAW_FRAME, open_recording, write_recording

ENGINE = "light-paired"

Digests = Callable[[Path], dict[str, str]]


def _pictures(fmt: RawFormat, frames: list[np.ndarray], engine: str = ENGINE, **options: Any) -> np.ndarray:
    """Developed one by one by the engine itself."""
    raw, srgb = Slots(1, fmt.payload_size), Slots(1, fmt.width * fmt.height * 3)
    opened = open_engine(engine, threads=1, **options)
    opened.prepare(fmt, 1, raw, srgb)
    pictures = []
    for frame in frames:
        raw.slot(0)[:] = frame
        opened.develop([0], [0], np.full((1, len(opened.info.inputs)), np.nan, np.float32)).wait()
        pictures.append(srgb.slot(0).reshape(fmt.height, fmt.width, 3).copy())
    opened.close()
    return np.stack(pictures)


def _run(*arguments: str | Path) -> None:
    assert main(["--engine", ENGINE, "--quiet", *map(str, arguments)]) == 0


def _settled(*arguments: str | Path) -> Job:
    """What isp-develop would do."""
    config = parse(list(map(str, arguments)))
    with open_footage(config.footage, FootageOptions(config.cfa, config.black_level, config.white_level)) as footage:
        return make_job(config, footage, 1)[0]


def _developed(recording: Path, indices: range | list[int]) -> np.ndarray:
    """Frames of it by the engine itself, with the gains that isp-develop finds."""
    gains = _settled(recording, "-o", "x").white_balance
    with open_recording(recording) as file:
        assert file.raw_format
        assert gains
        return _pictures(file.raw_format, [file.read_raw(k) for k in indices], white_balance=tuple(gains))


def test_the_pictures_of_the_engine(recording: Path, tmp_path: Path) -> None:
    _run(recording, "-o", tmp_path, "--first", "10", "--last", "20", "--step", "5", "--white-balance", "1.5", "1", "2")
    with open_recording(recording) as file:
        assert file.raw_format
        wanted = _pictures(file.raw_format, [file.read_raw(k) for k in (10, 15, 20)], white_balance=(1.5, 1, 2))
    names = ["00000010.png", "00000015.png", "00000020.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".isp-develop.json", *names, "frames.csv"]
    np.testing.assert_array_equal([np.asarray(Image.open(tmp_path / name)) for name in names], wanted)
    table = (tmp_path / "frames.csv").read_text().splitlines()
    assert table[0] == "frame,frame_id,device_timestamp,exposure_us,gain_db"
    assert table[2] == "15,16,30000001,,"


@pytest.mark.parametrize("made", ["png", "tiff", "h5", "mp4"])
def test_the_same_bytes_from_any_number_of_workers(
    recording: Path, tmp_path: Path, made: str, digests: Digests
) -> None:
    for workers in (1, 2):
        _run(recording, "-o", tmp_path / str(workers), "--format", made, "--workers", str(workers), "--chunk", "8")
    found = digests(tmp_path / "1")
    assert len(found) == {"png": 101, "tiff": 101, "h5": 1, "mp4": 2}[made]
    assert digests(tmp_path / "2") == found


def test_a_recording_of_pictures(recording: Path, tmp_path: Path) -> None:
    _run(recording, "-o", tmp_path, "--format", "h5", "--last", "40", "--step", "2")
    pictures = _developed(recording, range(0, 41, 2))
    with open_recording(tmp_path / "run-srgb.h5") as made, open_recording(recording) as source:
        assert made.complete
        assert made.srgb_count == 21
        assert made.texts["reason"] == "developed from run.h5"
        assert made.engine["name"] == ENGINE
        for name in set(RAW_FRAME.names or ()) - {"offset"}:  # where it lies in its file
            np.testing.assert_array_equal(made.srgb_frames[name], source.raw_frames[name][0:41:2])
        gains = made.calibration["white_balance"]
        np.testing.assert_allclose(made.srgb_frames["wb_r"], gains[0], rtol=1e-6)
        np.testing.assert_array_equal([made.read_srgb(position) for position in range(21)], pictures)
        for row, picture in zip(made.srgb_frames, pictures, strict=True):
            at = int(row["offset"])
            assert (tmp_path / "run-srgb.h5").read_bytes()[at : at + picture.nbytes] == picture.tobytes()


def test_a_film(recording: Path, tmp_path: Path) -> None:
    import av

    _run(recording, "-o", tmp_path, "--format", "mp4", "--fps", "25", "--chunk", "16", "--mp4-crf", "10")
    assert {path.name for path in tmp_path.iterdir()} == {".isp-develop.json", "frames.csv", "run.mp4"}
    with av.open(str(tmp_path / "run.mp4")) as film:
        stream = film.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate, stream.frames) == (64, 48, 25, 100)
        frames = list(film.decode(stream))
    assert [frame.pts * frame.time_base * 25 for frame in frames] == list(range(100))
    assert [k for k, frame in enumerate(frames) if frame.key_frame] == list(range(0, 100, 16))
    before = (tmp_path / "run.mp4").stat().st_mtime_ns
    _run(recording, "-o", tmp_path, "--format", "mp4", "--fps", "25", "--chunk", "16", "--mp4-crf", "10")
    assert (tmp_path / "run.mp4").stat().st_mtime_ns == before
    numbers = [0, 15, 16, 99]
    for number, picture in zip(numbers, _developed(recording, numbers), strict=True):
        made = frames[number].to_ndarray(format="rgb24", src_colorspace="ITU709").astype(int)
        assert np.abs(made - picture).mean() < 6  # with colours at half the size


def test_phantom_and_photron_as_a_recording_of_the_same(
    tmp_path: Path, makers: ModuleType, moving: Callable[..., np.ndarray]
) -> None:
    samples = moving(6)
    fmt = RawFormat(64, 48, "BayerRG12p", 0, 4095)
    write_recording(tmp_path / "a.h5", fmt, [pack(each, fmt) for each in samples])
    makers.write_cine(tmp_path / "a.cine", samples, cfa=4, levels=(0, 4095))
    makers.write_mraw(tmp_path / "a.mraw", samples)
    made = {}
    for name in ("a.h5", "a.cine", "a.cihx"):
        _run(tmp_path / name, "-o", tmp_path / name[2:], "--workers", "1")
        made[name] = [path.read_bytes() for path in sorted((tmp_path / name[2:]).glob("*.png"))]
    assert len(made["a.h5"]) == 6
    assert made["a.cine"] == made["a.cihx"] == made["a.h5"]


def test_white_balance_matrix_defects_and_flat_field(tmp_path: Path, moving: Callable[..., np.ndarray]) -> None:
    fmt = RawFormat(64, 48, "BayerBG12", 64)
    samples = moving(20)
    samples[:, ::2, ::2] //= 2  # half the blue
    plain = write_recording(tmp_path / "a.h5", fmt, [pack(each, fmt) for each in samples])
    red, green, blue = _settled(plain, "-o", tmp_path).white_balance or ()
    assert green == 1
    assert 1.8 < blue / red < 2.3
    # found in all of the footage, so that parts of it look alike
    assert _settled(plain, "-o", tmp_path, "--last", "3").white_balance == [red, green, blue]

    matrix = [[1.2, -0.2, 0], [0, 1, 0], [0, -0.5, 1.5]]
    flat_field = {name: [[1.0, 1.5], [2.0, 1.25]] for name in ("R", "Gr", "Gb", "B")}
    known = {"white_balance": [1.5, 1, 2], "colour_matrix": matrix, "defects": [[3, 4]], "flat_field": flat_field}
    told = write_recording(tmp_path / "b.h5", fmt, [pack(each, fmt) for each in samples], calibration=known)
    job = _settled(told, "-o", tmp_path)
    assert {name: getattr(job, name) for name in known} == known
    _run(told, "-o", tmp_path / "made", "--last", "0", "--engine", "classic")
    options = {"white_balance": (1.5, 1, 2), "colour_matrix": matrix, "defects": [(3, 4)], "flat_field": flat_field}
    wanted = _pictures(fmt, [pack(samples[0], fmt)], "classic", **options)[0]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "made" / "00000000.png")), wanted)
    config = tmp_path / "camera.yaml"
    config.write_text("camera: SIM0001\nfps: 1000\nblack_level: 60\ndefects: [[5, 6]]\nwhite_balance: [1, 1, 1.25]\n")
    job = _settled(told, "-o", tmp_path, "--config", config, "--white-balance", "2", "1", "1")
    assert (job.white_balance, job.defects, job.colour_matrix) == ([2, 1, 1], [[5, 6]], matrix)
    assert (job.raw_format["black_level"], job.mp4_fps) == (60, 30)
    assert job.flat_field == flat_field
    other = {name: [[1.0, 1.0], [1.0, 3.0]] for name in flat_field}
    config.write_text(f"flat_field: {other}\n")
    assert _settled(told, "-o", tmp_path, "--config", config).flat_field == other
    config.write_text("flat_field: {}\n")
    assert _settled(told, "-o", tmp_path, "--config", config).flat_field is None
    config.write_text(f"flat_field: {other}\n")
    # without gains in the file, they are found behind it
    gains = _settled(plain, "-o", tmp_path, "--config", config).white_balance or []
    assert gains != [red, green, blue]
    np.testing.assert_allclose(gains, [red, green, blue], rtol=0.1)


def test_a_model_is_told_what_is_known_of_the_frames(
    tmp_path: Path, moving: Callable[..., np.ndarray], core_told_exposure: Path
) -> None:
    fmt = RawFormat(64, 48, "BayerRG12", 0)
    rows = np.zeros(8, RAW_FRAME)
    rows["grabbed_ns"] = 1 + np.arange(8)
    rows["exposure_us"], rows["gain_db"] = 100.0 * np.arange(1, 9), 20
    samples = moving(8)
    path = write_recording(
        tmp_path / "a.h5", fmt, [pack(each, fmt) for each in samples], raw_frames=rows, settings={"base_iso": 50}
    )
    assert main([str(path), "-o", str(tmp_path / "o"), "--engine", str(core_told_exposure), "--quiet"]) == 0
    for number in range(8):
        picture = np.asarray(Image.open(tmp_path / "o" / f"{number:08d}.png"))
        # the core shows exposure / 1000 as red, ISO / 1000 as green
        assert abs(int(picture[0, 0, 0]) - 25.5 * (number + 1)) <= 1
        assert abs(int(picture[0, 0, 1]) - 127.5) <= 1
