"""What a core is told of the camera, frame by frame, and changes of the camera during a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ispeed.engines.inputs import CCM
from ispeed.stream import Subscriber
from ispeed.stream.frame import FLAG_EXPOSURE_FROM_CHUNK, FLAG_GAIN_FROM_CHUNK

pytest.importorskip("openvino")

FROM_CHUNKS = FLAG_EXPOSURE_FROM_CHUNK | FLAG_GAIN_FROM_CHUNK

Tells = dict[str, tuple[float, float, float]]
"""For each run-time input, what one of its unit adds to red, green and blue of the picture."""


@pytest.fixture
def telling_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a core whose picture is one colour: a sum of what it is told, and of `light` times the mean of the raw
    frame's samples. Compiled, it goes to a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(tells: Tells, light: tuple[float, float, float] = (0, 0, 0)) -> Path:
        import onnx

        from ispeed.engines.core import CoreInfo, write_core

        text = f"""
            <ir_version: 8, opset_import: ["" : 17]>
            telling (float[B, 4, h, w] raw, float[B, {len(tells)}] params) => (float[B, 3, H, W] rgb)
            {{
                axes = Constant <value = int64[2] {{2, 3}}> ()
                told = MatMul (params, tells)
                told4 = Unsqueeze (told, axes)
                mean = ReduceMean <axes = [1, 2, 3]> (raw)
                lit = Mul (mean, light)
                colour = Add (told4, lit)
                nothing = Conv <kernel_shape = [1, 1]> (raw, none)
                blank = DepthToSpace <blocksize = 2, mode = "CRD"> (nothing)
                rgb = Add (blank, colour)
            }}
        """
        model = onnx.parser.parse_model(text)
        constants = {
            "tells": np.array(list(tells.values()), np.float32),
            "light": np.reshape(np.array(light, np.float32), (1, 3, 1, 1)),
            "none": np.zeros((12, 4, 1, 1), np.float32),
        }
        model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
        path = tmp_path / "telling.onnx"
        write_core(path, model, CoreInfo("telling", 12, "srgb", 2, tuple(tells)))
        return path

    return make


def engine(core: Path) -> tuple[str, ...]:
    """Flags for such a core, in the precision in which its sums are exact."""
    return "--engine", str(core), "--engine-precision", "fp32"


def test_a_change_of_exposure_shows_in_the_picture_on_the_very_frame_that_carries_it(isp_stream, telling_core):
    identity = dict.fromkeys(CCM, (0.0, 0.0, 0.0))
    core = telling_core({"iso": (0, 1e-3, 0), "exposure_us": (1e-3, 0, 0), **identity}, light=(0, 0, 1))
    at = ("--at", "250:Gain=6", "--at", "150:ExposureTime=100")  # in the order of their frames, however given
    settings = ("--exposure-us", "500", "--base-iso", "200", "--set", "SimNoise=false")
    run = isp_stream(*engine(core), *settings, *at, "--seconds", "60", fps=100)
    started = run.until("started")
    seen = []
    with Subscriber(started["endpoint"][0], mode="every", timeout_ms=20_000) as subscriber:
        while not seen or seen[-1][0] < 320:
            frame = subscriber.receive()
            with frame as picture:
                assert (picture == picture[0, 0]).all(), "one colour"
                red, green, blue = picture[0, 0].tolist()
            header = frame.header
            iso = 200 * 10 ** (header.gain_db / 20)
            # every picture says what its own header says
            assert abs(red - min(255, header.exposure_us * 1e-3 * 255)) <= 1, header
            assert abs(green - min(255, iso * 1e-3 * 255)) <= 1, header
            assert header.flags & FROM_CHUNKS == FROM_CHUNKS, "not what was set at the time, but the frame's own"
            seen.append((header.frame_id, header.exposure_us, header.gain_db, blue))
    run.signal()
    run.finish()
    ids, exposures, gains, light = zip(*seen, strict=True)
    assert list(ids) == sorted(set(ids))
    for values, before, after, frames in ((exposures, 500, 100, 150), (gains, 0, 6, 250)):
        first = values.index(after)  # the one frame on which it changes
        assert list(values) == [before] * first + [after] * (len(values) - first)
        assert first > 0
        assert ids[first] > frames
    # the raw frames themselves are darker from that very frame on: what is told with a frame is its own
    dimmed, lifted = exposures.index(100), gains.index(6)
    assert min(light[:dimmed]) > 2 * max(light[dimmed:lifted])
    assert min(light[lifted:]) > max(light[dimmed:lifted])
    changes = [message for message in run.messages if message["event"] == "changed"]
    assert [(change["feature"], change["value"], change["after"]) for change in changes] == [
        ("ExposureTime", 100, 150),
        ("Gain", 6, 250),
    ]


def saved_colours(folder: Path) -> np.ndarray:
    """The colour of each saved picture."""
    return np.array([np.asarray(Image.open(file))[0, 0] for file in sorted(folder.glob("*.png"))])


def test_the_lens_and_the_colour_matrix_are_told_by_the_config(isp_stream, telling_core, tmp_path):
    tells = dict.fromkeys(CCM, (0.0, 0.0, 0.0))
    tells |= {"ccm_rg": (0, 0, 1), "ccm_bb": (0, 0, 0.5), "f_number": (1 / 16, 0, 0), "focal_length_mm": (0, 1e-2, 0)}
    config = tmp_path / "lens.yaml"
    settings = {"f_number": 5.6, "colour_matrix": [[0.75, 0.25, 0], [0, 1, 0], [0, 0.5, 0.5]]}
    config.write_text(yaml.safe_dump(settings))
    out = tmp_path / "out"
    flags = ("--config", str(config), "--focal-length-mm", "35", "--frames", "4", "--save", str(out))
    isp_stream(*engine(telling_core(tells)), *flags).finish()
    wanted = np.round(np.array([5.6 / 16, 0.35, 0.25 + 0.25]) * 255)
    assert np.abs(saved_colours(out) - wanted).max() <= 1


def test_what_nobody_tells_is_0_and_the_matrix_the_identity(isp_stream, telling_core, tmp_path):
    # each would show as white
    tells: Tells = {"f_number": (9, 9, 9), "focal_length_mm": (9, 9, 9), "ccm_rr": (0.25, 0.25, 0.25)}
    tells |= {name: (0.0, 9.0, 0.0) if name[-1] != name[-2] else (0.0, 0.0, 0.0) for name in CCM[1:]}
    out = tmp_path / "out"
    isp_stream(*engine(telling_core(tells)), "--frames", "3", "--save", str(out)).finish()
    assert np.abs(saved_colours(out) - 64).max() <= 1


def test_a_colour_matrix_that_cannot_be_inverted_is_one_sentence(isp_stream_fails, telling_core, tmp_path):
    core = telling_core(dict.fromkeys(CCM, (0.0, 0.0, 0.0)))
    config = tmp_path / "cam.yaml"
    config.write_text(yaml.safe_dump({"engine": str(core), "colour_matrix": [[1, 1, 1]] * 3}))
    assert "the colour matrix cannot be inverted" in isp_stream_fails("--config", str(config))


def test_a_change_that_the_camera_refuses_is_a_warning_and_the_run_goes_on(isp_stream):
    changes = ("60:ExposureAuto=Continuous", "60:ExposureTime=1e12", "90:GainAuto=Continuous")
    run = isp_stream(*(word for change in changes for word in ("--at", change)), "--frames", "150")
    assert run.until("changed")["feature"] == "ExposureAuto"
    text = run.until("warning")["text"]
    for part in ("at 60 frames", "SIM0001", "ExposureTime", "1 to 1e+06 us"):
        assert part in text
    assert "GainAuto Continuous, after 90 frames" in run.until("changed")["text"]
    assert run.finish()["published"] == 150


def test_a_camera_that_is_opened_again_has_every_change_again(isp_stream):
    run = isp_stream("--exposure-us", "500", "--at", "20:ExposureTime=200")
    started = run.until("started")
    assert run.until("changed")["value"] == 200
    with Subscriber(started["endpoint"][0], mode="every", timeout_ms=20_000) as subscriber:
        os.kill(started["pids"]["grab"], signal.SIGKILL)
        while (header := subscriber.receive().header).segment < 2:
            pass
        assert header.exposure_us == 200, "before its first frame"
    run.signal()
    run.finish()
