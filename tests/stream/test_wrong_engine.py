"""Every engine that cannot run here is one clear sentence of the real isp-stream, exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from ispeed.engines import RawFormat, UserError
from ispeed.engines.cuda.driver import gpu
from ispeed.engines.plan import PlanInfo, Tensor, file_sha256, write_plan_info
from ispeed.engines.zoo.catalogue import names


def no_gpu() -> bool:
    try:
        gpu()
    except UserError:
        return True
    return False


without_gpu = pytest.mark.skipif(not no_gpu(), reason="this machine has a GPU")


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    """A plan by its looks: no plan can run without a GPU, so what is in it does not matter."""
    path = tmp_path / "tiny.plan"
    path.write_bytes(bytes(range(256)) * 16)
    core = {"model": "tiny", "width": 4, "output": "srgb", "multiple": 2, "inputs": ["wb_r", "wb_g", "wb_b"]}
    info = PlanInfo(
        name="tiny",
        core=core,
        backend="tensorrt_rtx",
        version="1.7.1.116",
        precision="fp16",
        raw_format=RawFormat(160, 120, "BayerRG8", 4).to_json(),
        batches=(1, 1, 1),
        compute_capabilities=("8.6", "8.9"),
        flags=(),
        tensors=(Tensor("raw", "input", "uint8", (1, 120, 160)),),
        plan_sha256=file_sha256(path),
        plan_bytes=path.stat().st_size,
        onnx_sha256="0" * 64,
    )
    write_plan_info(path, info)
    return path


def test_the_names_that_exist_are_told(isp_stream_fails):
    sentence = isp_stream_fails("--engine", "lwips")
    for part in ("'lwips'", "classic", "auto", *names(), ".onnx", ".plan", ".pt2"):
        assert part in sentence


@pytest.mark.parametrize("name", ["a.onnx", "a.plan", f"{'a' * 300}.onnx"])
def test_a_missing_file(isp_stream_fails, name):
    sentence = isp_stream_fails("--engine", f"/nowhere/{name}")
    assert f"/nowhere/{name} does not exist" in sentence


def test_a_core_that_is_no_onnx_file(isp_stream_fails, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no model at all, by any means")
    sentence = isp_stream_fails("--engine", str(tmp_path / "x.onnx"))
    assert str(tmp_path / "x.onnx") in sentence


def test_a_core_that_is_cut_off(isp_stream_fails, core_file):
    core_file.write_bytes(core_file.read_bytes()[:-40])
    sentence = isp_stream_fails("--engine", str(core_file))
    assert "cut off" in sentence or "damaged" in sentence


def test_a_core_whose_weights_were_changed(isp_stream_fails, core_file):
    import onnx

    model = onnx.load(core_file)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "mix")
    tensor.raw_data = bytes(len(tensor.raw_data))
    onnx.save(model, core_file)
    assert "damaged" in isp_stream_fails("--engine", str(core_file))


def test_an_onnx_file_that_is_no_core(isp_stream_fails, core_file):
    import onnx

    model = onnx.load(core_file)
    del model.metadata_props[:]
    onnx.save(model, core_file)
    assert "isp-export" in isp_stream_fails("--engine", str(core_file))


def test_a_pixel_format_that_a_core_does_not_develop(isp_stream_fails, core_file):
    sentence = isp_stream_fails("--engine", str(core_file), "--pixel-format", "Mono8")
    assert "Mono8" in sentence
    assert "classic" in sentence


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--white-balance", "9", "1", "1"], "white balance"),
        (["--engine-mode", "fast"], "engine_mode"),
        (["--engine-precision", "half"], "engine_precision"),
        (["--engine", "classic", "--engine-precision", "bf16"], "classic engine computes in fp32 alone"),
    ],
)
def test_options_out_of_range(isp_stream_fails, core_file, arguments, part):
    assert part in isp_stream_fails("--engine", str(core_file), *arguments)


def test_a_colour_matrix_for_a_core_that_has_its_own_colours(isp_stream_fails, core_file, tmp_path):
    (tmp_path / "cam.yaml").write_text("colour_matrix: [[1, 0, 0], [0, 1, 0], [0, 0, 1]]\n")
    sentence = isp_stream_fails("--engine", str(core_file), "--config", str(tmp_path / "cam.yaml"))
    assert "colour" in sentence


def test_missing_packages_are_named_with_what_installs_them(isp_stream_fails, core_file, tmp_path, monkeypatch):
    for name in ("openvino", "onnxruntime"):
        (tmp_path / "blocked" / name).mkdir(parents=True)
        (tmp_path / "blocked" / name / "__init__.py").write_text("raise ImportError('not installed, for a test')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "blocked"))
    sentence = isp_stream_fails("--engine", str(core_file))
    assert "pip install" in sentence
    assert "openvino" in sentence


@without_gpu
def test_a_plan_on_a_machine_without_a_gpu_says_what_it_needs(isp_stream_fails, plan_file):
    sentence = isp_stream_fails("--engine", str(plan_file))
    for part in (str(plan_file), "8.6 or 8.9", "GPU"):
        assert part in sentence


def test_a_plan_that_is_cut_off(isp_stream_fails, plan_file):
    plan_file.write_bytes(plan_file.read_bytes()[:-1])
    sentence = isp_stream_fails("--engine", str(plan_file))
    assert "cut off" in sentence
    assert "isp-build" in sentence


def test_a_plan_that_is_damaged(isp_stream_fails, plan_file):
    content = bytearray(plan_file.read_bytes())
    content[100] ^= 1
    plan_file.write_bytes(content)
    assert "checksum" in isp_stream_fails("--engine", str(plan_file))


def test_a_plan_without_its_sidecar(isp_stream_fails, plan_file):
    plan_file.with_name("tiny.plan.json").unlink()
    assert "tiny.plan.json" in isp_stream_fails("--engine", str(plan_file))


def test_threads_for_a_plan(isp_stream_fails, plan_file):
    assert "--threads" in isp_stream_fails("--engine", str(plan_file), "--threads", "2")


@without_gpu
def test_a_torch_program_on_a_machine_without_a_gpu(isp_stream_fails, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "x.pt2").write_bytes(b"never read")
    sentence = isp_stream_fails("--engine", str(tmp_path / "x.pt2"))
    assert "x.pt2" in sentence
    assert "GPU" in sentence
