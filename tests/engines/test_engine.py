"""What every engine says of itself, and that the package is light."""

from __future__ import annotations

import subprocess
import sys

from ispeed.engines import EngineInfo

HEAVY = ("numba", "llvmlite", "cv2", "torch", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "pycuda")


def test_importing_engines_loads_no_compiler():
    code = f"import ispeed.engines, sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_engine_id_is_stable_and_tells_weights_apart():
    assert EngineInfo("classic", "numba", "fp32").engine_id == 0x7AD6DFF9  # written into recorded headers
    ids = {EngineInfo("net", "openvino", "fp32", weights_sha256=digest).engine_id for digest in (None, "aa", "ab")}
    assert len(ids) == 3
    assert all(0 <= number < 2**32 for number in ids)
