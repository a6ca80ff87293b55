"""Opening engines by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ispeed.engines import RawFormat, UserError, open_engine
from ispeed.engines.cuda.driver import gpu

FORMAT = RawFormat(64, 48, "BayerRG8")


def gpu_is_here() -> bool:
    try:
        gpu()
    except UserError:
        return False
    return True


@pytest.mark.parametrize("spec", ["classic", "auto"])
def test_classic_is_there_and_is_what_auto_finds(spec: str):
    engine = open_engine(spec)
    try:
        assert engine.info.name == "classic"
        assert engine.info.inputs == ("wb_r", "wb_g", "wb_b")
        assert engine.info.weights_sha256 is None
    finally:
        engine.close()


@pytest.mark.parametrize("raw_format", [None, FORMAT])
def test_auto_is_classic_without_a_gpu_and_loads_nothing_heavy(raw_format: RawFormat | None):
    if gpu_is_here():
        pytest.skip("this machine has a GPU")
    heavy = ("onnx", "onnxruntime", "openvino", "torch", "tensorrt", "tensorrt_rtx", "pycuda")
    code = (
        "import sys; from ispeed.engines import RawFormat, open_engine\n"
        f"print(open_engine('auto', raw_format={raw_format!r}).info.name, [m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "classic []"


@pytest.mark.parametrize(
    ("spec", "options", "parts"),
    [
        ("nowhere.plan", {}, ["nowhere.plan", "does not exist"]),
        ("nowhere.onnx", {}, ["nowhere.onnx", "does not exist"]),
        ("nowhere.pt2", {}, ["nowhere.pt2", "does not exist"]),
        ("fast", {}, ["no engine 'fast'", "classic, auto", ".onnx", ".plan", ".pt2"]),
        ("", {}, ["no engine ''"]),
        ("classic", {"mode": "eco"}, ["engine mode 'eco'", "throughput, latency"]),
        ("nowhere.onnx", {"clamp_outliers": True}, ["only the classic engine"]),
    ],
)
def test_what_cannot_be_opened_is_one_sentence(spec: str, options: dict, parts: list[str]):
    with pytest.raises(UserError) as caught:
        open_engine(spec, **options)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_engine(tmp_path: Path):
    (tmp_path / "net.onnx").mkdir()
    with pytest.raises(UserError, match=r"net\.onnx is a folder; give the path of a file"):
        open_engine(str(tmp_path / "net.onnx"))


@pytest.mark.parametrize("suffix", [".plan", ".engine", ".pt2"])
def test_threads_are_not_for_engines_on_a_gpu(tmp_path: Path, suffix: str):
    path = tmp_path / f"lwisp{suffix}"
    path.write_bytes(b"never read")
    with pytest.raises(UserError, match=f"lwisp{suffix} runs on a GPU.*--threads"):
        open_engine(str(path), threads=2)


def test_a_precision_that_a_gpu_does_not_have(tmp_path: Path):
    path = tmp_path / "lwisp.pt2"
    path.write_bytes(b"never read")
    with pytest.raises(UserError, match="computes in fp16 or fp32 on a GPU, not in bf16"):
        open_engine(str(path), precision="bf16")


def test_the_classic_engine_is_in_fp32_whether_asked_or_not():
    for precision in (None, "fp32"):
        engine = open_engine("classic", precision=precision)
        assert engine.info.precision == "fp32"
        engine.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threads": 0}, "threads is 0"),
        ({"precision": "bf16"}, "classic engine computes in fp32 alone, not in bf16"),
        ({"tone": "filmic"}, "tone 'filmic' is unknown"),
        ({"white_balance": "warm"}, "white balance"),
        ({"white_balance": (1.0, 0.0, 1.0)}, "white balance"),
        ({"white_balance": (9.0, 1.0, 1.0)}, "ratios to green"),
        ({"white_balance": (1.0, float("nan"), 1.0)}, "white balance"),
        ({"colour_matrix": [[1, 0], [0, 1]]}, "nine finite numbers"),
        ({"colour_matrix": "identity"}, "nine finite numbers"),
    ],
)
def test_options_out_of_range(options: dict, says: str):
    with pytest.raises(UserError, match=says):
        open_engine("classic", **options)
