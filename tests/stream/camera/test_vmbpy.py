"""Our producer through a second GenTL consumer, Allied Vision's VmbC, which knows nothing of Harvesters."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ispeed.stream.camera.simcam import producer_path

CONSUMER = """
import json, threading, vmbpy
frames, enough = [], threading.Event()

def handle(camera, stream, frame):
    if frame.get_status() == vmbpy.FrameStatus.Complete:
        pixels = frame.as_numpy_ndarray()
        frames.append([frame.get_id(), list(pixels.shape), str(pixels.dtype), float(pixels.std())])
    if len(frames) >= 30:
        enough.set()
    camera.queue_frame(frame)

with vmbpy.VmbSystem.get_instance() as system:
    serials = [camera.get_serial() for camera in system.get_all_cameras()]
    camera = next(c for c in system.get_all_cameras() if c.get_serial() == "SIM0002")
    with camera:
        camera.get_feature_by_name("Width").set(320)
        camera.get_feature_by_name("Height").set(240)
        camera.set_pixel_format(vmbpy.PixelFormat.BayerGB12)
        camera.get_feature_by_name("AcquisitionFrameRate").set(100.0)
        width = camera.get_feature_by_name("Width").get()
        try:
            camera.start_streaming(handler=handle, buffer_count=64)
            enough.wait(20)
        finally:
            camera.stop_streaming()
print(json.dumps({"serials": serials, "width": width, "frames": frames}))
"""


@pytest.fixture
def vmbpy_that_allows_our_vendor(tmp_path) -> Path:
    """A folder with a copy of vmbpy whose VmbC.xml lets producers of our vendor in; by default it does not."""
    pytest.importorskip("vmbpy", reason="needs vmbpy: pip install vmbpy")
    spec = importlib.util.find_spec("vmbpy")
    assert spec is not None
    shutil.copytree(Path(spec.origin).parent, tmp_path / "vmbpy", ignore=shutil.ignore_patterns("__pycache__"))
    settings = tmp_path / "vmbpy/c_binding/lib/VmbC.xml"
    deny_others = '<TlRule rule="deny"/>'
    text = settings.read_text()
    assert deny_others in text
    settings.write_text(text.replace(deny_others, f'<TlRule vendor-type="ispeed" rule="allow"/>{deny_others}'))
    return tmp_path


def test_vmbc_finds_sets_and_streams_the_simulated_camera(vmbpy_that_allows_our_vendor, runtime_dir):
    environment = {
        **os.environ,
        "PYTHONPATH": str(vmbpy_that_allows_our_vendor),
        "GENICAM_GENTL64_PATH": str(producer_path().parent),
    }
    command = [sys.executable, "-c", CONSUMER]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    got = json.loads(result.stdout.splitlines()[-1])
    assert sorted(got["serials"]) == ["SIM0001", "SIM0002"]
    assert got["width"] == 320
    ids = [frame[0] for frame in got["frames"]]
    assert len(ids) >= 30
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert {(tuple(shape), dtype) for _, shape, dtype, _ in got["frames"]} == {((240, 320, 1), "uint16")}
    assert all(spread > 10 for *_, spread in got["frames"])
