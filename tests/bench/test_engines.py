"""`isp-bench engines` on small frames of the simulated camera: real engines, each in its own process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ispeed.bench import cli
from ispeed.bench.engine_plot import require_plot
from ispeed.bench.engines import Candidate, _compare_pictures, _Result, candidates
from ispeed.engines import UserError
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
    assert abs(rows["lwisp-xs"]["drop_from_fp32_db"]) < 0.5
    assert rows["lwisp-xs, bare core"]["psnr_to_reference_db"] is None
    assert report["format"]["pixel_format"] == "BayerRG8"
    with Image.open(plot) as picture:
        assert min(picture.size) > 100


def test_what_has_no_float32_row_is_compared_with_the_core_of_its_name(tmp_path: Path):
    rows = {
        ("lwisp", "open", "lwisp"): ("bf16", 101),
        ("lwisp", "fp32", "lwisp"): ("fp32", 100),
        ("lwisp-int8", "fp32", "lwisp"): ("int8", 110),
        ("lwisp.plan", "open", "lwisp"): ("fp16", 101),
        ("other.plan", "open", "other"): ("fp16", 100),
        ("lwisp", "bare", "lwisp"): ("bare", 0),
    }
    results = []
    for number, ((model, kind, name), (precision, code)) in enumerate(rows.items()):
        results.append(_Result(Candidate(f"{model}, {kind}", kind, model, model=model)))
        results[-1].runs.append({"engine": {"name": name, "precision": precision}})
        np.save(tmp_path / f"{number}.npy", np.full((2, 4, 4, 3), code, np.uint8))
    _compare_pictures(results, tmp_path, [np.full((4, 4, 3), 98, np.uint8)] * 2)
    assert [result.psnr_db and round(result.psnr_db, 1) for result in results] == [48.1, None, 28.1, 48.1, None, None]
    assert [result.drop_db and round(result.drop_db, 1) for result in results] == [3.5, None, 15.6, 3.5, None, None]
    assert results[1].reference_psnr_db == pytest.approx(42.1, abs=0.05)


def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match="pip install"):
        require_plot(Path("x.png"))


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--engine", "no-such-engine"], "there is no engine 'no-such-engine'"),
        (["--engine", "/nonexistent/x.plan"], "does not exist"),
        (["--pixel-format", "Mono8"], "has no colours"),
        (["--plot", "/nonexistent/x.png"], "there is no folder /nonexistent"),
        (["--plot", "x.jpg"], "let x.jpg end in .png"),
        (["--out", "/"], "it is a folder"),
        (["--colour-matrix", *"12345678", "nan"], "colour matrix is not usable"),
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
