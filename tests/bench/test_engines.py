"""`isp-bench engines` on small frames of the simulated camera: real engines, each in its own process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from ispeed.bench import cli
from ispeed.bench.engines import candidates
from ispeed.engines.zoo import names

SMALL = ["--width", "64", "--height", "64", "--repeat", "1", "--seconds", "0.1"]


def test_everything_that_ships_is_a_candidate():
    rows = candidates([])
    assert {row.model for row in rows if row.kind == "fp32"} == set(names())
    assert rows[0].spec == "classic"


def test_a_model_is_measured_beside_its_float32_form(
    tmp_path: Path, runtime_dir: Path, capfd: pytest.CaptureFixture[str]
):
    out, plot = tmp_path / "engines.json", tmp_path / "engines.png"
    code = cli.run(["engines", "--engine", "lwisp-xs", *SMALL, "--out", str(out), "--plot", str(plot)])
    shown = capfd.readouterr()
    assert code == 0, shown.err
    report = json.loads(out.read_text())
    rows = {row["label"]: row for row in report["engines"]}
    assert len(rows) == 5
    for label, row in rows.items():
        assert row["fps"] > 0, label
        assert row["latency_ms"]["p99"] >= row["latency_ms"]["p50"] > 0
        assert label in shown.out
    assert {row["engine"]["weights_sha256"] for row in rows.values()} == {rows["lwisp-xs"]["engine"]["weights_sha256"]}
    assert rows["lwisp-xs, ONNX Runtime fp32"]["psnr_to_fp32_db"] > 60
    assert report["format"]["pixel_format"] == "BayerRG8"
    with Image.open(plot) as picture:
        assert min(picture.size) > 100


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--engine", "no-such-engine"], "there is no engine 'no-such-engine'"),
        (["--engine", "/nonexistent/x.plan"], "does not exist"),
        (["--pixel-format", "Mono8"], "has no colours"),
        (["--plot", "/nonexistent/x.png"], "there is no folder /nonexistent"),
        (["--camera", "NOSUCH"], "NOSUCH"),
    ],
)
@pytest.mark.usefixtures("runtime_dir")
def test_a_wrong_input_is_one_sentence(argv: list[str], sentence: str, capfd: pytest.CaptureFixture[str]):
    assert cli.run(["engines", *SMALL, *argv]) == 2
    error = capfd.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert "Traceback" not in error
