"""What makes pictures: that it is what the engine, the checkpoint or OpenCV itself makes of the frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ispeed.engines import RawFormat, UserError, pack
from ispeed.engines.core import CoreInfo
from ispeed.engines.opening import open_engine
from ispeed.engines.plan import PlanInfo, file_sha256, write_plan_info
from ispeed.engines.quality import develop_all
from ispeed.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ispeed.train.data.cfa import PHASES
from ispeed.train.evaluation.developers import Skipped, make_developer
from ispeed.train.evaluation.frames import Frame
from ispeed.train.export import export_checkpoint
from ispeed.train.filter import filter_picture
from ispeed.train.models import make_lwisp

pytestmark = pytest.mark.usefixtures("cache")

NOISE = {"gain_db": [0.0, 24.0], "exposure_us": 1000.0}
MATRIX = np.array([[1.5, -0.3, -0.2], [-0.2, 1.4, -0.2], [0.0, -0.4, 1.4]], np.float32)


def a_frame(cfa: str = "RGGB", depth: int = 12, size: tuple[int, int] = (40, 64), seed: int = 1) -> Frame:
    height, width = size
    fmt = RawFormat(width, height, f"Bayer{cfa[:2]}{depth}", 20)
    y, x = np.mgrid[:height, :width]
    light = 0.4 + 0.3 * np.sin(x / 5) * np.cos(y / 7) + np.random.default_rng(seed).normal(0, 0.02, (height, width))
    raw = pack(np.rint(20 + light * (fmt.white_level - 20)).astype(int), fmt)
    return Frame("a", raw, fmt, np.array([1.4, 1, 1.8], np.float32))


def developed(spec: str, frame: Frame, matrix: np.ndarray | None = None) -> np.ndarray:
    developer = make_developer(spec)
    try:
        developer.prepare(frame, matrix)
        return developer.develop(frame)
    finally:
        developer.close()


def by_engine(spec: str, frame: Frame, matrix: np.ndarray | None) -> np.ndarray:
    def opened():
        return open_engine(spec, precision="fp32", colour_matrix=matrix)

    told = frame.gains[None], np.array([frame.camera], np.float32)
    return develop_all(opened, [frame.raw], frame.raw_format, *told)[0]


@pytest.mark.parametrize("cfa", ["RGGB", "GBRG"])
def test_an_engine_is_given_gains_and_matrix(cfa: str):
    frame = a_frame(cfa)
    np.testing.assert_array_equal(developed("classic", frame, MATRIX), by_engine("classic", frame, MATRIX))
    assert (developed("classic", frame, MATRIX) != developed("classic", frame)).any()


@pytest.mark.parametrize("output", ["srgb", "linear"])
def test_a_checkpoint_is_the_core_that_it_exports_to(output: str, tmp_path: Path):
    """One that has learned colours is not given the camera's; the other is."""
    torch.manual_seed(3)
    path, core = tmp_path / "a run.pt", tmp_path / "core.onnx"
    network = make_lwisp("lwisp-xs")
    save_checkpoint(path, Checkpoint(network, "lwisp-xs", output=output, run="none", data="chance"))  # pyright: ignore
    export_checkpoint(load_checkpoint(path), core)
    frame, given = a_frame(), MATRIX if output == "linear" else None
    wanted = by_engine(str(core), frame, given)
    np.testing.assert_array_equal(developed(str(path), frame, MATRIX), wanted)
    np.testing.assert_array_equal(developed(str(core), frame, MATRIX), wanted)
    developer = make_developer(str(path))
    developer.prepare(frame, MATRIX)
    facts = developer.facts()
    developer.close()
    assert (facts["name"], facts["precision"], facts["run"]) == ("lwisp-xs", "fp32", "none")
    assert facts["takes_matrix"] == (output == "linear")
    assert len(facts["weights_sha256"]) == 64


def test_a_model_is_told_the_exposure_and_gain_of_the_frame(make_told: Callable[..., Path], tmp_path: Path):
    path, core, frame = make_told("lwisp-xs", NOISE), tmp_path / "core.onnx", a_frame()
    export_checkpoint(load_checkpoint(path), core)
    pictures = []
    for camera in ((1000.0, 0.0), (1000.0, 12.0), (500.0, 12.0)):
        told = replace(frame, camera=camera)
        pictures.append(developed(str(path), told).astype(int))
        np.testing.assert_array_equal(pictures[-1], by_engine(str(core), told, None))
    assert all(np.abs(one - other).max() > 4 for one, other in pairwise(pictures))
    unknown = developed(str(path), frame)
    np.testing.assert_array_equal(unknown, pictures[0], "no gain, at the usual exposure")


def test_an_engine_is_opened_again_for_another_format():
    frames, developer = [a_frame(), a_frame("BGGR", 8, (32, 48))], make_developer("lwisp-xs")
    for frame in frames:
        developer.prepare(frame, None)
        np.testing.assert_array_equal(developer.develop(frame), by_engine("lwisp-xs", frame, None))
    developer.close()
    developer.close()


@pytest.mark.parametrize("cfa", PHASES)
def test_the_edge_aware_baseline_shows_flat_colours(cfa: str):
    """Of every phase, in the classic engine's words."""
    frame = a_frame(cfa)
    fmt, values = frame.raw_format, {"R": 900, "G": 1600, "B": 500}
    samples = np.empty((fmt.height, fmt.width), int)
    for place, colour in enumerate(cfa):
        samples[place // 2 :: 2, place % 2 :: 2] = values[colour]
    frame = Frame("flat", pack(samples, fmt), fmt, frame.gains)
    shown, wanted = (developed(spec, frame, MATRIX).astype(int) for spec in ("cv2-ea", "classic"))
    assert np.abs(shown - wanted).max() <= 1


def test_non_local_means_is_that_of_opencv():
    frame = a_frame()
    picture = developed("classic", frame, MATRIX)
    bgr = cv2.fastNlMeansDenoisingColored(np.ascontiguousarray(picture[..., ::-1]), None, 5, 10, 7, 21)
    shown = developed("classic+nlm:5,10", frame, MATRIX)
    np.testing.assert_array_equal(shown, bgr[..., ::-1])
    assert shown.std() < picture.std()
    assert make_developer("cv2-ea+nlm:5.0,7.5").label == "cv2-ea+nlm:5,7.5"


def test_a_network_for_pictures_goes_behind_an_engine(tmp_path: Path):
    torch.manual_seed(3)
    path, frame = tmp_path / "denoise.pt", a_frame()
    checkpoint = Checkpoint(make_lwisp("lwisp-s", form="rgb"), "lwisp-s", {"form": "rgb"}, run="none")
    save_checkpoint(path, checkpoint)
    wanted = filter_picture(load_checkpoint(path), developed("classic", frame))
    np.testing.assert_array_equal(developed(f"classic+filter:{path}", frame), wanted)
    with pytest.raises(UserError, match=r"is a network for pictures; put it behind an engine: classic\+filter:"):
        make_developer(str(path))


def test_a_plan_for_other_frames_is_skipped_with_what_to_do(tmp_path: Path):
    path = tmp_path / "net.plan"
    path.write_bytes(b"a plan")
    info = PlanInfo(
        name="net",
        core=CoreInfo("net", 8, "srgb", 4, ("wb_r", "wb_g", "wb_b"), sha256="cd" * 32).to_json(),
        backend="tensorrt",
        version="10.9",
        precision="fp16",
        raw_format=RawFormat(8, 6, "BayerRG12").to_json(),
        batches=(1, 1, 1),
        compute_capabilities=("8.6",),
        flags=(),
        tensors=(),
        plan_sha256=file_sha256(path),
        plan_bytes=6,
        onnx_sha256="00" * 32,
    )
    write_plan_info(path, info)
    developer = make_developer(str(path))
    with pytest.raises(Skipped, match=r"develops 8x6 BayerRG12, and the frames are 64x40 BayerRG12.*run: isp-build"):
        developer.prepare(a_frame(), None)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nobody", "there is no engine 'nobody'"),
        ("auto", "name what is to be measured"),
        ("nowhere.onnx", "nowhere.onnx"),
        ("nowhere.pt", "cannot read the checkpoint nowhere.pt"),
        ("nowhere.pt2", "nowhere.pt2 does not exist"),
        ("nowhere.plan", "plan nowhere.plan does not exist"),
        ("classic+filter:", "does not say which network"),
        ("classic+nlm:5", "does not say how strong"),
        ("classic+nlm:5,-1", "does not say how strong"),
        ("classic+nlm:a,b", "does not say how strong"),
        ("nobody+nlm:5,5", "there is no engine 'nobody'"),
        ("classic+filter:nowhere.pt", "cannot read the checkpoint nowhere.pt"),
    ],
)
def test_what_cannot_be_opened_is_one_sentence(spec: str, says: str):
    with pytest.raises(UserError) as caught:
        make_developer(spec)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_is_none(tmp_path: Path, make_checkpoint: Callable[[str], Path]):
    path = make_checkpoint("lwisp-xs")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"\.pt"):
        make_developer(str(path))
