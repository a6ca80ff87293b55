"""A frame of a high-speed camera through `isp-stream` and through isp-eval: the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from ispeed.train.evaluation.developers import make_developer
from ispeed.train.evaluation.opening import open_set
from ispeed.train.evaluation.settings import EvalConfig

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
    command = [sys.executable, "-m", "ispeed.stream", "--camera", "0", "--scene", scene, "--engine", engine]
    command += ["--engine-precision", "fp32", "--frames", "2", "--fps", "2", "--save", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    started = next(line for line in map(json.loads, done.stdout.splitlines()) if line["event"] == "started")
    assert started["engine"]["precision"] == "fp32"
    pictures = sorted(out.glob("*.png"))
    assert len(pictures) == 2
    for path in pictures:
        np.testing.assert_array_equal(np.asarray(PIL.Image.open(path)), wanted)
