"""Every wrong input is one clear sentence, exit code 2, and nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ispeed.engines import UserError
from ispeed.stream.footage import FootageOptions, open_footage
from ispeed.stream.footage.cine import CineFootage
from ispeed.stream.offline.cli import main
from ispeed.stream.offline.config import make_config
from ispeed.stream.offline.job import make_job
from ispeed.stream.offline.sinks import make_sink
from ispeed.stream.offline.state import Folder


@pytest.fixture
def sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs isp-develop with bad input in this process; returns its one sentence."""

    def run(*arguments: str | Path) -> str:
        assert main([*map(str, arguments), "-o", str(tmp_path / "out")]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        lines = said.err.splitlines()
        assert len(lines) == 1, said.err
        assert not (tmp_path / "out").exists()
        return lines[0].removeprefix("isp-develop: error: ")

    return run


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--format", "gif"], ["format", "'png'", "gif"]),
        (["--engine", "nonsense"], ["nonsense", "classic"]),
        (["--engine", "a.plan"], ["a.plan", "does not exist"]),
        (["--engine-precision", "fp16"], ["engine_precision", "fp32"]),
        (["--white-balance", "9", "1", "1"], ["white balance", "8"]),
        (["--white-balance", "a", "1", "1"], ["white_balance"]),
        (["--black-level", "5000"], ["black level 5000"]),
        (["--white-level", "10"], ["black level 64 and white level 10"]),
        (["--cfa", "XX"], ["cfa", "'RG'"]),
        (["--first", "100"], ["no frame 100", "99", "--first"]),
        (["--last", "500"], ["no frame 500", "99", "--last"]),
        (["--first", "9", "--last", "5"], ["5", "before the first, 9"]),
        (["--step", "0"], ["step", "1"]),
        (["--workers", "0"], ["workers", "1"]),
        (["--threads", "x"], ["threads"]),
        (["--fps", "0"], ["mp4_fps"]),
        (["--mp4-crf", "99"], ["mp4_crf", "51"]),
        (["--chunk", "0"], ["chunk"]),
        (["--config", "/nowhere/x.yaml"], ["/nowhere/x.yaml"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and str(value[0]).startswith("--") else "",
)
def test_one_sentence(recording: Path, sentence: Callable[..., str], arguments: list[str], parts: list[str]) -> None:
    said = sentence(recording, *arguments)
    for part in parts:
        assert part.lower() in said.lower()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("nonsense: 5", ["nonsense", "isp-develop --help"]),
        ("footage: a.h5", ["footage"]),
        ("colour_matrix: [[1, 0], [0, 1]]", ["colour matrix"]),
        ("defects: [[900, 1]]", ["900"]),
        ("flat_field: {R: [[1, 1], [1, 1]]}", ["flat_field", "no mesh for Gr, Gb, B"]),
        ("measured: {serial: S2, pixel_format: BayerRG8}", ["BayerRG8", "BayerRG12p"]),
        ("white_balance: 5", ["white_balance"]),
    ],
)
def test_configs(recording: Path, sentence: Callable[..., str], tmp_path: Path, text: str, parts: list[str]) -> None:
    (tmp_path / "a.yaml").write_text(text + "\n")
    said = sentence(recording, "--config", tmp_path / "a.yaml")
    for part in parts:
        assert part in said


def test_footage(sentence: Callable[..., str], tmp_path: Path) -> None:
    assert "there is no recording" in sentence(tmp_path / "no.h5")
    assert "a.mov is no footage" in sentence(tmp_path / "a.mov")
    np.save(tmp_path / "a.npy", np.zeros((2, 8, 16), np.uint8))
    assert "does not say what its samples are" in sentence(tmp_path / "a.npy")


def test_footage_that_is_cut_off(sentence: Callable[..., str], recording: Path, tmp_path: Path) -> None:
    np.zeros((3, 48, 64), np.uint8).tofile(tmp_path / "a.mraw")
    (tmp_path / "a.cih").write_text(
        "Image Width : 64\nImage Height : 48\nTotal Frame : 5\nColor Bit : 8\nColor Type : Bayer(RGGB)\n"
    )
    said = sentence(tmp_path / "a.mraw")
    assert said.endswith("of 5 frames the first 3 are whole; copy it again, or develop those with --last 2")
    assert main([str(tmp_path / "a.mraw"), "-o", str(tmp_path / "o"), "--last", "2", "--quiet"]) == 0
    assert len(list((tmp_path / "o").glob("*.png"))) == 3


@pytest.mark.parametrize("place", ["/proc/1/nothing", "/dev/null", "/dev/null/a"])
def test_no_folder(recording: Path, capsys: pytest.CaptureFixture[str], place: str) -> None:
    assert main([str(recording), "-o", place, "--white-balance", "1", "1", "1"]) == 2
    assert place in capsys.readouterr().err


def test_a_folder_that_another_program_wrote(
    recording: Path, tmp_path: Path, isp_develop_fails: Callable[..., str]
) -> None:
    (tmp_path / ".isp-develop.json").write_text('{"job": [1, 2]}')
    said = isp_develop_fails(recording, "-o", tmp_path, "--white-balance", "1", "1", "1")
    assert "is not what isp-develop wrote" in said


@pytest.mark.parametrize("wrong", [{"count": "x"}, {"step": 0}, {"footage": 5}, {"format": "../a"}, {"count": 1 << 60}])
def test_settings_that_were_damaged(recording: Path, tmp_path: Path, wrong: dict[str, object]) -> None:
    config = make_config({"footage": str(recording), "output": tmp_path, "engine": "classic"})
    with open_footage(recording) as footage:
        job, _ = make_job(config, footage, 1)
    content = {"version": 1, "digest": "", "job": {**job.to_json(), **wrong}}
    (tmp_path / ".isp-develop.json").write_text(json.dumps(content))
    with Folder(job) as folder, pytest.raises(UserError, match="is not what isp-develop wrote"):
        folder.claim(make_sink(job), force=True)


def test_a_damaged_frame_that_is_left_out_does_not_matter(makers: ModuleType, tmp_path: Path) -> None:
    """The white balance is found in frames of all the footage."""
    samples = np.random.default_rng(1).integers(0, 4096, (6, 8, 8)).astype(np.uint16)
    path = makers.write_cine(tmp_path / "a.cine", samples)
    data = bytearray(path.read_bytes())
    cine = CineFootage(path, FootageOptions())
    at = int(cine._offsets[5])
    cine.close()
    data[at : at + 4] = bytes(4)
    path.write_bytes(data)
    config = make_config({"footage": str(path), "output": tmp_path, "engine": "classic", "last": 4})
    with open_footage(path) as footage:
        with pytest.raises(UserError, match="leave it out by --first and --last"):
            footage.read(5, np.empty(footage.raw_format.payload_size, np.uint8))
        job, _ = make_job(config, footage, 1)
    assert job.white_balance is not None


def test_no_output(recording: Path, isp_develop_fails: Callable[..., str]) -> None:
    assert "-o FOLDER" in isp_develop_fails(recording)


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [("ray", ["--ray", "auto"], "ray"), ("av", ["--format", "mp4"], "record"), ("h5py", [], "record")],
)
def test_a_package_that_is_not_installed(
    recording: Path, tmp_path: Path, package: str, arguments: list[str], extra: str
) -> None:
    """The package is hidden from a real run: this environment has all of them."""
    code = f"import sys; sys.modules[{package!r}] = None; from ispeed.stream.entry import develop; sys.exit(develop())"
    command = [sys.executable, "-c", code, str(recording), "-o", str(tmp_path / "o"), *arguments]
    done = subprocess.run([*command, "--white-balance", "1", "1", "1"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().endswith(f"pip install 'ispeed[{extra}]'")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for flag in ("--format", "-o", "--engine", "--white-balance", "--workers", "--ray", "--fps", "--force", "--config"):
        assert flag in text
