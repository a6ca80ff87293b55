"""Opening engines by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ispeed.engines import EngineInfo, UserError, open_engine


@pytest.mark.parametrize("spec", ["classic", "auto"])
def test_classic_is_there_and_is_what_auto_finds(spec: str):
    engine = open_engine(spec)
    try:
        assert engine.info.name == "classic"
        assert engine.info.inputs == ("wb_r", "wb_g", "wb_b")
        assert engine.info.weights_sha256 is None
    finally:
        engine.close()


def test_engines_that_cannot_be_opened(tmp_path: Path):
    model = tmp_path / "lwisp.onnx"
    model.write_bytes(b"model")
    for spec, says in [
        (str(model), "only the classic engine"),
        (str(tmp_path / "lwisp.plan"), "does not exist"),
        ("fast", "no engine 'fast'"),
        ("", "no engine ''"),
    ]:
        with pytest.raises(UserError, match=says) as caught:
            open_engine(spec)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threads": 0}, "threads is 0"),
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


def test_importing_engines_loads_no_compiler():
    code = "import ispeed.engines, sys; print([m for m in ('numba', 'llvmlite', 'cv2', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_engine_id_is_stable_and_tells_weights_apart():
    assert EngineInfo("classic", "numba", "fp32").engine_id == 0x7AD6DFF9  # written into recorded headers
    ids = {EngineInfo("net", "openvino", "fp32", weights_sha256=digest).engine_id for digest in (None, "aa", "ab")}
    assert len(ids) == 3
    assert all(0 <= number < 2**32 for number in ids)
