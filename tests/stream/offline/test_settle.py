"""What isp-develop settles before it begins. Plans are files that say what a plan is, on a machine that is told to have
a GPU: none is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ispeed.engines import RawFormat, UserError, pack
from ispeed.engines import trt as module
from ispeed.engines.core import CoreInfo
from ispeed.engines.cuda.driver import Gpu
from ispeed.engines.plan import PlanInfo, Tensor, file_sha256, write_plan_info
from ispeed.stream.footage import FootageOptions, open_footage
from ispeed.stream.offline import settle as settling
from ispeed.stream.offline.cli import parse
from ispeed.stream.offline.job import Job, make_job
from ispeed.stream.offline.ray_pool import _room
from ispeed.stream.record import write_recording

FORMAT = RawFormat(64, 48, "BayerRG12", 64)
MATRIX = [[1.5, -0.5, 0.0], [0.0, 1.0, 0.0], [0.0, -0.25, 1.25]]
FLAT_FIELD = {name: [[1.0, 1.25], [1.5, 2.0]] for name in ("R", "Gr", "Gb", "B")}
GPU = Gpu("Test GPU", "8.6", 24 << 30, "12.4")


def settled(*arguments: str | Path) -> Job:
    config = parse(list(map(str, arguments)))
    with open_footage(config.footage, FootageOptions(config.cfa, config.black_level, config.white_level)) as footage:
        return make_job(config, footage, 1)[0]


@pytest.fixture
def recording(tmp_path: Path, moving: Callable[..., np.ndarray]) -> Path:
    """Frames of a camera that was calibrated."""
    known = {"white_balance": [1.5, 1, 2], "colour_matrix": MATRIX, "defects": [[3, 4]], "flat_field": FLAT_FIELD}
    frames = [pack(each, FORMAT) for each in moving(4)]
    return write_recording(tmp_path / "run.h5", FORMAT, frames, calibration=known)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes what isp-build would have, for a GPU that this machine then has."""
    why_not = module.why_not
    monkeypatch.setattr(module, "gpu_or_none", lambda: GPU)
    monkeypatch.setattr(module, "why_not", lambda *a, **k: why_not(*a, version=lambda name: "10.9", **k))

    def write(content: bytes = b"a plan", **built_in: object) -> Path:
        path = tmp_path / "net.plan"
        path.write_bytes(content)
        info = PlanInfo(
            name="net",
            core=CoreInfo("net", 8, "srgb", 4, ("wb_r", "wb_g", "wb_b"), sha256="cd" * 32).to_json(),
            backend="tensorrt",
            version="10.9",
            precision="fp16",
            raw_format=FORMAT.to_json(),
            batches=(1, 2, 3),
            compute_capabilities=("8.6",),
            flags=(),
            tensors=(Tensor("raw", "input", "uint8", (-1, 48, 64, 2)),),
            plan_sha256=file_sha256(path),
            plan_bytes=len(content),
            onnx_sha256="00" * 32,
            quality={"psnr": 60.0},
        )
        write_plan_info(path, replace(info, **built_in))
        return path

    return write


def test_the_matrix_of_a_file_is_left_out_where_an_engine_takes_none(recording: Path, tmp_path: Path) -> None:
    assert settled(recording, "-o", tmp_path, "--engine", "classic").colour_matrix == MATRIX
    job = settled(recording, "-o", tmp_path, "--engine", "light-unpaired")
    assert (job.colour_matrix, job.defects, job.flat_field) == (None, [[3, 4]], FLAT_FIELD)
    config = tmp_path / "mine.yaml"
    config.write_text(f"colour_matrix: {MATRIX}\n")  # one that the user gives is not passed over
    with pytest.raises(UserError, match="leave the colour matrix"):
        settled(recording, "-o", tmp_path, "--engine", "light-unpaired", "--config", config)
    config.write_text("colour_matrix: []\n")
    assert settled(recording, "-o", tmp_path, "--engine", "classic", "--config", config).colour_matrix is None


def test_a_plan_with_the_calibration_of_the_recording_is_taken(
    recording: Path, tmp_path: Path, plan: Callable[..., Path]
) -> None:
    path = plan(defects=((3, 4),), flat_field=FLAT_FIELD)
    job = settled(recording, "-o", tmp_path, "--engine", path)
    assert (job.engine, job.backend, job.threads, job.colour_matrix) == (str(path), "tensorrt", None, None)
    plan(defects=((5, 5),), flat_field=FLAT_FIELD)
    with pytest.raises(UserError, match="built with other defect pixels"):
        settled(recording, "-o", tmp_path, "--engine", path)


def test_auto_is_the_classic_engine_where_the_plan_does_not_take_the_calibration(
    recording: Path, tmp_path: Path, plan: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plan()
    monkeypatch.setattr(settling, "fitting_plan", lambda *args: path)
    assert settled(recording, "-o", tmp_path, "--engine", "auto").engine == "classic"
    plan(defects=((3, 4),), flat_field=FLAT_FIELD)
    assert settled(recording, "-o", tmp_path, "--engine", "auto").engine == str(path)
    config = tmp_path / "mine.yaml"
    config.write_text(f"colour_matrix: {MATRIX}\n")
    assert settled(recording, "-o", tmp_path, "--engine", "auto", "--config", config).engine == "classic"


def test_a_plan_that_was_built_anew_is_another_engine(
    recording: Path, tmp_path: Path, plan: Callable[..., Path]
) -> None:
    built_in = {"defects": ((3, 4),), "flat_field": FLAT_FIELD}
    before = settled(recording, "-o", tmp_path, "--engine", plan(**built_in))
    assert settled(recording, "-o", tmp_path, "--engine", plan(**built_in)).digest == before.digest
    again = settled(recording, "-o", tmp_path, "--engine", plan(b"another", **built_in))
    assert again.digest != before.digest
    with pytest.raises(UserError, match="not the same everywhere"):
        before.open_engine()


def test_what_an_engine_is_told_of_the_frames_decides_on_the_bytes(tmp_path: Path, core_told_exposure: Path) -> None:
    np.save(tmp_path / "frames.npy", np.full((2, 48, 64), 500, np.uint16))
    told = [f"{tmp_path}/frames.npy?format=BayerRG12&exposure_us={exposure}" for exposure in (5, 5, 50)]
    jobs = [settled(each, "-o", tmp_path, "--engine", core_told_exposure) for each in told]
    assert jobs[0].digest == jobs[1].digest != jobs[2].digest
    untold = [settled(each, "-o", tmp_path, "--engine", "classic").digest for each in told]
    assert len(set(untold)) == 1


def test_an_engine_in_another_runtime_is_refused(recording: Path, tmp_path: Path) -> None:
    job = replace(settled(recording, "-o", tmp_path, "--engine", "light-paired"), backend="onnxruntime")
    with pytest.raises(UserError, match="runs in openvino here and in onnxruntime where the run began"):
        job.open_engine()


def test_a_worker_of_another_ispeed_says_so_whatever_its_jobs_are(recording: Path, tmp_path: Path) -> None:
    values = settled(recording, "-o", tmp_path, "--engine", "classic").to_json()
    assert Job.for_worker(values).to_json() == values
    with pytest.raises(UserError, match=r"not 0\.0\.1: install the same everywhere"):
        Job.for_worker({**values, "version": "0.0.1", "of_a_later_version": 1})


def test_a_cluster_has_room_for_what_fits_on_its_nodes() -> None:
    def nodes(*cpus: int, gpus: int = 0) -> list[dict[str, object]]:
        return [{"Alive": True, "Resources": {"CPU": float(n), "GPU": float(gpus)}} for n in cpus]

    assert _room(nodes(2, 3, 9), 4) == 2
    assert _room([*nodes(4, gpus=2), {"Alive": False, "Resources": {"CPU": 64.0}}], 4) == 1
    assert _room(nodes(1, 1, gpus=2), None) == 4
    with pytest.raises(UserError, match="no node of the Ray cluster has more than 3 processors, and a worker needs 4"):
        _room(nodes(2, 3), 4)
    with pytest.raises(UserError, match="more than 0 GPUs"):
        _room(nodes(8), None)
