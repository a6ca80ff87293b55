"""What every engine says of itself, and that the package is light."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ispeed import engines
from ispeed.engines import EngineInfo

HEAVY = ("numba", "llvmlite", "cv2", "torch", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "pycuda")


def test_importing_engines_loads_no_compiler():
    code = f"import ispeed.engines, sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_commands_catch_ctrl_c_before_anything_slow_is_imported():
    code = "import ispeed.engines.entry, sys; print('numpy' in sys.modules); from ispeed.engines import RawFormat"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_a_name_that_the_package_lacks():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        getattr(engines, "nothing")  # noqa: B009
    assert set(engines.__all__) <= set(dir(engines))


def test_engine_id_is_stable_and_tells_weights_apart():
    assert EngineInfo("classic", "numba", "fp32").engine_id == 0x7AD6DFF9  # written into recorded headers
    ids = {EngineInfo("net", "openvino", "fp32", weights_sha256=digest).engine_id for digest in (None, "aa", "ab")}
    assert len(ids) == 3
    assert all(0 <= number < 2**32 for number in ids)
