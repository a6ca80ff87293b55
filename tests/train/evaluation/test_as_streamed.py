"""A frame of a high-speed camera through `isp-stream` and through isp-eval: the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from ispeed.engines import RawFormat
from ispeed.train.checkpoint import load_checkpoint
from ispeed.train.data.folder import write_frame, write_picture
from ispeed.train.evaluation.developers import make_developer
from ispeed.train.evaluation.opening import open_set
from ispeed.train.evaluation.settings import EvalConfig
from ispeed.train.export import export_checkpoint

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["classic", "lwisp-xs", "lwisp"])
def test_the_picture_is_the_same(engine: str, data_dir: Path, runtime_dir: Path, tmp_path: Path):
    rhid = data_dir / "paired" / "rhid"
    values = {"name": "a", "kind": "pairs", "data_set": "rhid", "root": rhid, "options": {"split": "val"}}
    frame = next(open_set(EvalConfig.model_validate({"sets": [values]}).sets[0], 1).frames(""))
    developer = make_developer(engine)
    developer.prepare(frame, None)
    wanted = developer.develop(frame)
    developer.close()
    fmt, out = frame.raw_format, tmp_path / "out"
    scene = f"{rhid}/val/raw/{frame.name}.raw?width={fmt.width}&height={fmt.height}&format={fmt.pixel_format}"
    for picture in streamed(scene, engine, out):
        np.testing.assert_array_equal(picture, wanted)


@pytest.mark.timeout(300)
def test_a_model_is_told_the_same_gain(make_told: Callable[..., Path], runtime_dir: Path, tmp_path: Path):
    """By the camera as frames come, and by what stands beside them in a folder."""
    core = tmp_path / "told.onnx"
    noise = {"gain_db": [0.0, 24.0], "exposure_us": 1000.0}
    export_checkpoint(load_checkpoint(make_told("lwisp-xs", noise)), core)
    y, x = np.mgrid[:64, :96]
    samples = np.rint(1800 + 1200 * np.sin(x / 5) * np.cos(y / 7)).astype(np.uint16)
    write_frame(tmp_path / "pairs/raw/a.png", samples, RawFormat(96, 64, "BayerGR12", 100))
    write_picture(tmp_path / "pairs/rgb/a.png", np.zeros((64, 96, 3), np.uint8))
    values = {"name": "a", "kind": "pairs", "data_set": "folder", "root": tmp_path / "pairs"}
    gains, developer, pictures = {"exposure_us": 500.0, "gain_db": 9.0}, make_developer(str(core)), []
    for told in ({}, gains):
        (tmp_path / "pairs/pairs.json").write_text(json.dumps({"a": told}))
        frame = next(open_set(EvalConfig.model_validate({"sets": [values]}).sets[0], 1).frames(""))
        developer.prepare(frame, None)
        pictures.append(developer.develop(frame))
    developer.close()
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() > 4
    camera = ["--exposure-us", "500", "--gain-db", "9"]
    for picture in streamed(str(tmp_path / "pairs/raw/a.png"), str(core), tmp_path / "out", *camera):
        np.testing.assert_array_equal(picture, pictures[1])


def streamed(scene: str, engine: str, out: Path, *flags: str) -> list[np.ndarray]:
    """Two pictures of a scene of one frame, as isp-stream makes them with an engine in fp32."""
    command = [sys.executable, "-m", "ispeed.stream", "--camera", "0", "--scene", scene, "--engine", engine, *flags]
    command += ["--engine-precision", "fp32", "--frames", "2", "--fps", "2", "--save", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    started = next(line for line in map(json.loads, done.stdout.splitlines()) if line["event"] == "started")
    assert started["engine"]["precision"] == "fp32"
    pictures = sorted(out.glob("*.png"))
    assert len(pictures) == 2
    return [np.asarray(PIL.Image.open(path)) for path in pictures]
