"""The example that makes a bright scene for the simulated camera: its frames, and how a model that ships shows them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from ispeed.engines.raw_files import load_raw
from ispeed.engines.zoo import names

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/examples/bright_scene.py"
SIZE = ["--width", "192", "--height", "128"]


@pytest.fixture(scope="module")
def main() -> Any:
    spec = importlib.util.spec_from_file_location("bright_scene", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def picture(path: Path) -> npt.NDArray[np.uint8]:
    with PIL.Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_frames_have_white_places_and_sparks_that_move(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "bright"
    assert main(["-o", str(out), "--frames", "3", "--clipped", "0.1", *SIZE]) == 0
    assert capsys.readouterr().out.startswith(f"{out / 'frames.npy'}: 3 frames, ")
    read = load_raw(str(out / "frames.npy"))
    assert (read.raw_format.pixel_format, read.raw_format.black_level) == ("BayerRG10", 64)
    assert read.samples.shape == (3, 128, 192)
    white = (read.samples == 1023).mean((1, 2))
    assert (white > 0.02).all()
    assert (white < 0.2).all()
    moved = (np.abs(np.diff(read.samples.astype(int), axis=0)) > 300).mean((1, 2))
    assert (moved > 1e-3).all(), "sparks are elsewhere in each frame"
    assert (moved < 0.1).all(), "the rest stands still"
    assert picture(out / "reference.png").shape == (128, 192, 3)


def test_the_same_seed_makes_the_same_frames_and_photographs_will_do(main: Any, tmp_path: Path):
    photo = tmp_path / "photo.png"
    PIL.Image.fromarray(np.random.default_rng(3).integers(0, 255, (65, 97, 3), np.uint8)).save(photo)
    made = []
    for name in "ab":
        assert main(["-o", str(tmp_path / name), "--frames", "2", "--photo", str(photo)]) == 0
        made.append((tmp_path / name / "frames.npy").read_bytes())
    assert made[0] == made[1]
    assert load_raw(str(tmp_path / "a/frames.npy")).samples.shape == (2, 64, 96)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("engine", ["classic", *(name for name in names() if name.endswith("-hdr"))])
def test_it_streams(engine: str, main: Any, tmp_path: Path, runtime_dir: Path):
    """As the example says, in processes of its own."""
    bright = tmp_path / "bright"
    assert main(["-o", str(bright), "--frames", "4", *SIZE]) == 0
    words = ["--config", str(bright / "stream.yaml"), "--engine", engine, "--save", str(tmp_path / "out")]
    command = [sys.executable, "-m", "ispeed.stream", *words, "--frames", "4", "--fps", "10", "--json"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert next(event for event in events if event["event"] == "started")["engine"]["name"] == engine
    shown = [picture(path) for path in sorted((tmp_path / "out").glob("*.png"))]
    assert len(shown) == 4
    assert all(each.shape == (128, 192, 3) and each.std() > 10 for each in shown)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--frames", "0"], "give at least one frame, a share"),
        (["--width", "8"], "the scene is 8x480; give one of 16x16 pixels or more"),
        (["--seed", "99999999999999999999"], "a seed from 0 to"),
        (["--clipped", "1"], "a share between 0 and 1"),
        (["--photo", "/no.png"], "/no.png cannot be read"),
    ],
)
def test_wrong_input_is_one_sentence(words: list[str], says: str, main: Any, tmp_path: Path, capsys: Any):
    assert main(["-o", str(tmp_path / "out"), *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert not (tmp_path / "out").exists()


def test_a_folder_is_not_written_over(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "mine").mkdir()
    assert main(["-o", str(tmp_path / "mine"), "--frames", "1", *SIZE]) == 2
    assert "mine cannot be written: File exists; give a new folder" in capsys.readouterr().err
    assert not list((tmp_path / "mine").iterdir())
