"""Every wrong input is one clear sentence, exit code 2, and nothing left behind (which conftest checks)."""

import os

import pytest


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--fps", "-3"], ["fps", "greater than 0"]),
        (["--policy", "some"], ["policy", "every"]),
        (["--config", "/nowhere/x.yaml"], ["/nowhere/x.yaml"]),
        (["--set", "Width"], ["--set", "NAME=VALUE"]),
        (["--set", "Gain=[1, 2]"], ["Gain", "number"]),
        (["--shm-name", ".."], ["shm_name"]),
        (["--publish", "ipc:///tmp/\udcff"], ["ipc:///tmp/"]),
        (["--camera", "7"], ["camera", "7", "SIM0001"]),
        (["--camera", "NOPE"], ["NOPE", "SIM0001"]),
        (["--cti", "/nowhere/a.cti"], ["/nowhere/a.cti"]),
        (["--engine", "lwisp.plan"], ["lwisp.plan", "does not exist"]),
        (["--engine", "nonsense"], ["nonsense", "classic"]),
        (["--width", "1281"], ["Width", "1281", "SIM0001"]),
        (["--pixel-format", "BayerXX9"], ["BayerXX9", "BayerRG8"]),
        (["--exposure-us", "1e12"], ["ExposureTime", "SIM0001"]),
        (["--set", "NoSuchFeature=1"], ["NoSuchFeature", "SIM0001"]),
        (["--at", "soon:Gain=1"], ["at.0", "500:ExposureTime=200", "soon:Gain=1"]),
        (["--at", "5:NoSuchFeature=1"], ["at 5 frames", "NoSuchFeature", "SIM0001"]),
        (["--f-number", "0"], ["f_number", "0.5"]),
        (["--scene", "/nowhere/a.raw"], ["/nowhere/a.raw"]),
        (["--black-level", "300"], ["black level"]),
        (["--white-balance", "9", "1", "1"], ["white balance"]),
        (["--publish", "udp://1.2.3.4:5"], ["udp"]),
        (["--publish", "tcp://0.0.0.0:5599"], ["0.0.0.0:5599", "--insecure"]),
        (["--publish", "ipc:///nowhere/x/y"], ["/nowhere/x"]),
        (["--save", "/proc/1/nothing"], ["/proc/1/nothing"]),
        (["--trace", "/nowhere/trace.json"], ["/nowhere/trace.json"]),
        (["--slots", "4096", "--width", "8192", "--height", "8192"], ["--slots"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and str(value[0]).startswith("--") else "",
)
def test_one_sentence(isp_stream_fails, arguments, parts):
    sentence = isp_stream_fails(*arguments)
    for part in parts:
        assert part.lower() in sentence.lower()


@pytest.mark.parametrize("text", ["features: 5", "features: [a, b]", "realtime: {cpu: 99999999999999}", "fps: [1]"])
def test_a_file_with_the_wrong_kind_of_value(isp_stream_fails, tmp_path, text):
    (tmp_path / "cam.yaml").write_text(text + "\n")
    assert text.split(":")[0] in isp_stream_fails("--config", str(tmp_path / "cam.yaml"))


def test_a_truncated_scene(isp_stream_fails, tmp_path):
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(100))
    sentence = isp_stream_fails("--scene", f"{path}?width=64&height=64&format=BayerRG12")
    assert "a.raw" in sentence
    assert "100" in sentence


def test_a_library_that_is_no_producer(isp_stream_fails, tmp_path):
    path = tmp_path / "broken.cti"
    path.write_bytes(b"not a library")
    assert "broken.cti" in isp_stream_fails("--cti", str(path))


def test_a_busy_camera(isp_stream, isp_stream_fails):
    run = isp_stream()
    run.until("started")
    sentence = isp_stream_fails("--camera", "0", "--publish", f"ipc://{os.environ['XDG_RUNTIME_DIR']}/other")
    assert "SIM0001" in sentence
    assert "in use" in sentence
    run.signal()
    run.finish()


def test_an_endpoint_that_is_taken(isp_stream, isp_stream_fails):
    run = isp_stream()
    endpoint = run.until("started")["endpoint"][0]
    assert endpoint in isp_stream_fails("--camera", "1", "--publish", endpoint)
    run.published(10)  # the first one goes on
    run.signal()
    run.finish()
