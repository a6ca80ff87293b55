"""isp-build as it is typed: real builds by TensorRT-RTX, which needs no GPU, and everything it refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ispeed.engines.build_cli import main
from ispeed.engines.core import read_core
from ispeed.engines.plan import read_plan_info

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="needs tensorrt_rtx: pip install 'ispeed[rtx]'"
)
MATRIX = ["1.3972", "-0.4002", "0.0030", "-0.2267", "1.4838", "-0.2571", "0.0181", "-0.4987", "1.4806"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs isp-build in an empty folder with a cache of its own; gives exit code, stdout and stderr."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def rtx(core_file: Path, frames_file: Path, reference_file: Path) -> list[object]:
    """Words that build the small core for two kinds of GPU."""
    words: list[object] = [core_file, "--backend", "tensorrt_rtx", "--pixel-format", "BayerRG12p"]
    return [*words, "--frames", frames_file, "--reference", reference_file, "--compute-capability", "8.9,12.0"]


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "fp8"])
def test_a_real_plan_for_two_gpus(precision: str, run: Run, rtx: list[object]) -> None:
    import tensorrt_rtx

    allowed = (
        ["--max-drop", "1"] if precision == "fp8" else []
    )  # three bits of mantissa, and few channels to average them out
    code, out, err = run(*rtx, "--precision", precision, *allowed, "-o", "small.plan")
    assert code == 0, err
    info = read_plan_info(Path("small.plan"))
    assert (info.name, info.precision, info.backend) == ("small", precision, "tensorrt_rtx")
    assert info.version == tensorrt_rtx.__version__
    assert info.compute_capabilities == ("8.9", "12.0")
    assert info.flags == ("REQUIRE_USER_ALLOCATION",)
    assert [(t.mode, t.name, t.dtype, t.shape) for t in info.tensors] == [
        ("input", "raw", "uint8", (1, 32, 72)),
        ("input", "params", "float32", (1, 3)),
        ("output", "srgb", "uint8", (1, 32, 48, 3)),
    ]
    assert info.format.pixel_format == "BayerRG12p"
    assert info.format.black_level == 64, "from the frames"
    assert info.plan_bytes == Path("small.plan").stat().st_size > 10_000
    assert info.core["precision"] == precision
    assert info.quality is not None
    assert info.quality["drop_db"] <= info.quality["max_drop_db"]
    assert info.quality["frames"] == (3 if precision in ("int8", "fp8") else 6)
    assert "ONNX Runtime" in info.measured
    assert info.command.startswith("isp-build ")
    assert "small.plan\n" in out
    assert sorted(path.name for path in Path().iterdir()) == ["small.plan", "small.plan.json"]


@needs_rtx
def test_batch_profile_cache_and_inspection(run: Run, rtx: list[object]) -> None:
    assert run(*rtx, "--batch", "1,2,4", "-o", "a.plan")[0] == 0
    info = read_plan_info(Path("a.plan"))
    assert info.batches == (1, 2, 4)
    assert [t.shape[0] for t in info.tensors] == [-1, -1, -1]
    code, out, err = run(*rtx, "--batch", "1,2,4", "-o", "b.plan")
    assert (code, out.splitlines()[0]) == (0, "b.plan (from the cache of plans)")
    assert "building with" not in err
    assert Path("b.plan").read_bytes() == Path("a.plan").read_bytes()
    assert "building with" in run(*rtx, "--batch", "1,2,4", "--no-cache", "-o", "b.plan")[2]
    code, out, _ = run("--inspect", "a.plan")
    assert code == 0
    assert "a.plan: whole, checksum right" in out
    assert "48x32 BayerRG12p, black 64, white 4095, batches 1 to 4, best 2" in out
    assert "runs here: " in out
    values = json.loads(run("--inspect", "a.plan", "--json")[1])
    assert values["onnx_sha256"] == info.onnx_sha256
    Path("a.plan").write_bytes(Path("a.plan").read_bytes()[:-7])
    code, _, err = run("--inspect", "a.plan")
    assert (code, err.count("\n")) == (2, 1)
    assert "plan a.plan is cut off" in err


@needs_rtx
def test_defects_and_flat_field_of_a_calibration_are_built_in(run: Run, rtx: list[object]) -> None:
    Path("camera.yaml").write_text(
        "black_level: 64\ndefects: [[3, 4], [8, 9]]\nflat_field: {R: &a [[1, 1.5], [1.25, 1]], Gr: *a, Gb: *a, B: *a}\n"
    )
    code, _, err = run(*rtx[:-4], *rtx[-2:], "--calibration", "camera.yaml", "-o", "a.plan")
    assert code == 0, err
    info = read_plan_info(Path("a.plan"))
    assert info.defects == ((3, 4), (8, 9))
    assert info.unlike([(8, 9), (3, 4)], {name: [[1, 1.5], [1.25, 1]] for name in ("R", "Gr", "Gb", "B")}) == []
    assert info.unlike((), None) == ["defect pixels", "flat field"]
    assert info.quality is not None
    assert "built in: 2 defect pixels, a flat field of 2x2 gains" in run("--inspect", "a.plan")[1]
    assert run(*rtx[:-4], *rtx[-2:], "-o", "b.plan")[0] == 0
    assert read_plan_info(Path("b.plan")).onnx_sha256 != info.onnx_sha256


@needs_rtx
def test_levels_and_colour_matrix_of_a_calibration_are_as_those_of_flags(
    run: Run, rtx: list[object], linear_core_file: Path
) -> None:
    Path("camera.yaml").write_text(
        "black_level: 60\nwhite_level: 4000\ncolour_matrix: [[1.5, -0.5, 0], [0, 1, 0], [0, -0.25, 1.25]]\n"
        "measured: {pixel_format: BayerRG12, width: 48, height: 32}\n"
    )
    build = [linear_core_file, *rtx[1:-4], *rtx[-2:], "--calibration", "camera.yaml"]
    code, _, err = run(*build, "-o", "a.plan")
    assert code == 0, err
    info = read_plan_info(Path("a.plan"))
    assert (info.format.black_level, info.format.white_level) == (60, 4000)
    assert info.colour_matrix == [[1.5, -0.5, 0], [0, 1, 0], [0, -0.25, 1.25]]
    assert "the colour matrix 1.5 -0.5 0, 0 1 0, 0 -0.25 1.25" in run("--inspect", "a.plan")[1]
    assert run(*build, "--white-level", "4095", "-o", "b.plan")[0] == 0
    assert read_plan_info(Path("b.plan")).format.white_level == 4095
    text = Path("camera.yaml").read_text()
    Path("camera.yaml").write_text(text.replace("width: 48", "width: 640"))
    code, _, err = run(*build, "-o", "c.plan")
    assert (code, Path("c.plan").exists()) == (2, False)
    assert "the calibration is of 640x32 pixels" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fps: 100", "camera.yaml has nothing that a build takes, such as defects"),
        ("defects: [3, 4]", "camera.yaml: defects.0: "),
        ("colour_matrix: [[1, 0], [0, 1]]", "camera.yaml: the colour matrix is not usable"),
        ("flat_field: {R: [[1, 1], [1, 1]]}", "no mesh for Gr, Gb, B"),
        ("[1, 2]", "the config camera.yaml must hold"),
    ],
)
def test_a_calibration_that_is_none_is_one_sentence(text: str, message: str, run: Run, core_file: Path) -> None:
    Path("camera.yaml").write_text(text)
    code, out, err = run(core_file, "--calibration", "camera.yaml")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


@needs_rtx
def test_the_gate_refuses_with_the_figure_and_leaves_nothing(run: Run, rtx: list[object]) -> None:
    code, out, err = run(*rtx, "--precision", "int8", "--max-drop", "-1", "-o", "small.plan")
    assert (code, out) == (1, "")
    last = err.strip().splitlines()[-1]
    assert last.startswith("isp-build: small in int8 loses ")
    assert "where -1 dB are allowed; nothing was built" in last
    assert list(Path().iterdir()) == []
    code, _, err = run(*rtx, "--precision", "int8", "--max-drop", "-1", "--no-gate", "-o", "small.plan")
    assert code == 0, err
    info = read_plan_info(Path("small.plan"))
    assert (info.quality, info.measured) == (None, "")


@needs_rtx
def test_nothing_of_a_format_that_is_given_is_asked_for(run: Run, core_file: Path) -> None:
    words = ["--backend", "tensorrt_rtx", "--no-gate", "--compute-capability", "8.6", "--size", "40x24"]
    code, _, err = run(core_file, *words, "--pixel-format", "BayerGB10p", "--white-level", 1000)
    assert code == 0, err
    info = read_plan_info(Path("small.plan"))
    assert info.format.to_json() == {
        "width": 40,
        "height": 24,
        "pixel_format": "BayerGB10p",
        "black_level": 0,
        "white_level": 1000,
    }
    assert info.tensors[0].shape == (1, 24, 50)


@needs_rtx
def test_a_model_that_ships_from_the_camera(run: Run, runtime_dir: Path) -> None:
    """The format comes from the simulated camera, and the frames too."""
    from ispeed.engines.zoo.catalogue import names

    if "lwisp-xs" not in names():
        pytest.skip("lwisp-xs is not in the zoo of this installation")
    words = ["--backend", "tensorrt_rtx", "--precision", "int8", "--compute-capability", "8.6,8.9", "--json"]
    code, out, err = run("lwisp-xs", *words, "--size", "320x240", "--colour-matrix", *MATRIX)
    assert code == 0, err
    values = json.loads(out)
    assert values["raw_format"]["pixel_format"].startswith("BayerRG")
    assert values["tensors"][2]["shape"] == [1, 240, 320, 3]
    assert values["quality"]["frames"] == 8
    assert values["quality"]["drop_db"] <= 0.3


def test_a_core_in_int8_for_the_cpu_engine(run: Run, core_file: Path, frames_file: Path, reference_file: Path) -> None:
    pytest.importorskip("openvino")
    words = ["--backend", "openvino", "--precision", "int8", "--frames", frames_file, "--reference", reference_file]
    code, out, err = run(core_file, *words)
    assert code == 0, err
    core = read_core(Path("small-int8.onnx"))
    assert core.info.precision == "int8"
    assert sum(node.op_type == "QuantizeLinear" for node in core.model.graph.node) == 4
    assert "by the engine itself (openvino)" in out
    assert [path.name for path in Path().iterdir()] == ["small-int8.onnx"]
    code, out, _ = run("--inspect", "small-int8.onnx")
    assert code == 0
    assert "small in int8, width 8, gives srgb" in out
    code, _, err = run("small-int8.onnx", *words[2:], "--backend", "openvino", "-o", "again.onnx")
    assert code == 2
    assert "is in int8 already; give the float32 core" in err


def test_a_core_that_is_told_the_gain_is_measured_at_that_of_the_frames(
    run: Run, told_core_file: Path, frames_file: Path
) -> None:
    pytest.importorskip("openvino")
    words = ["--backend", "openvino", "--precision", "int8", "--frames", frames_file, "--max-drop", "9", "--json"]
    note = "note: told is told the gain_db of frames, which nothing says of these, and 0 is taken; give --gain-db"
    figures = []
    for flags in ([], ["--gain-db", "12"]):
        code, out, err = run(told_core_file, *words, *flags)
        assert code == 0, err
        assert (note in err) == (not flags)
        figures.append(json.loads(out)["score"]["fp32_db"])
    assert abs(figures[0] - figures[1]) > 0.1


def test_a_core_that_is_told_iso_and_colour_matrix(
    run: Run, make_matrix_core: Callable[..., Any], frames_file: Path
) -> None:
    pytest.importorskip("openvino")
    core, matrix = make_matrix_core().path, ["0.5", "0", "0", "0", "1", "0", "0", "0", "0.7"]
    words = ["--backend", "openvino", "--precision", "int8", "--frames", frames_file, "--max-drop", "9", "--json"]
    code, out, err = run(core, *words, "--colour-matrix", *matrix)
    assert code == 0, err
    assert "note: coloured is told the iso of frames, which nothing says of these, and 0 is taken; give --iso" in err
    # the built file is measured with the same matrix as the float32 core, and a matrix that is left out would show
    assert json.loads(out)["score"]["to_fp32_db"] > 30
    code, out, err = run(core, *words, "--iso", "400")
    assert code == 0, err
    assert "coloured is told" not in err
    code, _, err = run(core, *words, "--colour-matrix", *["1"] * 9)
    assert code == 2
    assert "the colour matrix cannot be inverted" in err


def test_the_camera_tells_the_gain_of_its_frames(run: Run, told_core_file: Path, runtime_dir: Path) -> None:
    pytest.importorskip("openvino")
    words = ["--backend", "openvino", "--precision", "int8", "--max-drop", "9", "--size", "64x48"]
    code, _, err = run(told_core_file, *words)
    assert code == 0, err
    assert "taking 16 frames from camera 0" in err
    assert "note: " not in err.replace("note: the fp32 picture", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent"], "there is no model 'absent'; use one of "),
        (["absent.onnx"], "cannot read the model absent.onnx: No such file"),
        (["MODEL", "--precision", "bf16"], "runs a core in bf16 or fp32 as it is"),
        (["MODEL", "--backend", "openvino"], "runs a core in bf16 or fp32 as it is"),
        (["MODEL", "--backend", "openvino", "--precision", "fp8"], "OpenVINO has no fp8"),
        (["MODEL", "-o", "small.onnx"], "small.onnx must end in .plan"),
        (["MODEL", "-o", "nowhere/small.plan"], "there is no folder "),
        (["MODEL", "--batch", "4,2,8"], "batches 4,2,8 are not in order"),
        (["--inspect", "absent.plan"], "plan absent.plan does not exist"),
        (["--inspect", "absent.onnx"], "cannot read the model absent.onnx"),
    ],
)
def test_wrong_words_are_one_sentence(words: list[str], message: str, run: Run, core_file: Path) -> None:
    code, out, err = run(*(core_file if word == "MODEL" else word for word in words))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("isp-build: error: ")
    assert message in err


@needs_rtx
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compute-capability", "9.0"], "not for 9.0; correct --compute-capability"),
        (["--compute-capability", "8.6,8.9", "--precision", "fp8"], "compute capability 8.6 have no fp8"),
        (["--frames", "absent.npy"], "there is no file absent.npy"),
        (["--size", "47x32"], "a row of 47 pixels ends inside a byte in BayerRG12p"),
        (["--pixel-format", "RGB8"], "pixel format 'RGB8' is not supported"),
        (["--pixel-format", "Mono8"], "develops Bayer frames, and Mono8 is none"),
        (["--white-balance", "1", "1", "0"], "white balance (1.0, 1.0, 0.0) is not usable"),
        (["--black-level", "5000"], "black level 5000"),
    ],
)
def test_wrong_values_are_one_sentence(words: list[str], message: str, run: Run, rtx: list[object]) -> None:
    code, out, err = run(*rtx, *words)
    assert (code, out) == (2, "")
    last = err.strip().splitlines()[-1]
    assert last.startswith("isp-build: error: ")
    assert message in last
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "text", "other"])
def test_a_damaged_core_is_one_sentence(damage: str, run: Run, core_file: Path) -> None:
    content = core_file.read_bytes()
    other = onnx.load_model_from_string(content)
    del other.metadata_props[:]
    broken = {"cut": content[: len(content) // 2], "text": b"no network", "other": other.SerializeToString()}[damage]
    core_file.write_bytes(broken)
    code, _, err = run(core_file, "--backend", "tensorrt_rtx", "--size", "48x32", "--pixel-format", "BayerRG8")
    assert (code, err.count("\n")) == (2, 1)
    assert str(core_file) in err


@pytest.mark.parametrize(
    "flag",
    [["--size", "640"], ["--batch", "0"], ["--compute-capability", "ada"], ["--gain-db", "inf"], ["--iso", "0"], []],
)
def test_words_that_the_parser_refuses(flag: list[str], run: Run, core_file: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*([core_file] if flag else []), *flag)
    assert caught.value.code == 2


def test_tensorrt_without_a_driver_is_a_message_and_no_crash(core_file: Path, tmp_path: Path) -> None:
    """In a process of its own, with the real package where it is installed: without a driver it ends the process."""
    from ispeed.engines.cuda.driver import NoGpu, gpu

    try:
        gpu()
    except NoGpu:
        pass
    else:
        pytest.skip("this machine has a driver and a GPU")
    words = [str(core_file), "--backend", "tensorrt", "--size", "48x32", "--pixel-format", "BayerRG8", "-o", "x.plan"]
    script = "import sys; from ispeed.engines.entry import build; sys.exit(build())"
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "this machine has no NVIDIA GPU with a driver" in done.stderr


def test_no_camera_is_one_sentence(run: Run, core_file: Path, runtime_dir: Path) -> None:
    words: list[Any] = ["--backend", "openvino", "--precision", "int8", "--camera", "no-such-serial"]
    code, _, err = run(core_file, *words)
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert last.startswith("isp-build: error: no frames from camera no-such-serial: ")
    assert last.endswith("; give frames with --frames FILE")


def test_a_missing_package_is_told_before_a_camera_is_asked(
    run: Run, core_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _, err = run(core_file, "--backend", "openvino", "--precision", "int8", "--camera", "no-such-serial")
    assert code == 2
    assert err == "isp-build: error: isp-build needs ONNX Runtime; run: pip install 'ispeed[onnxruntime]'\n"


def test_one_frame_cannot_both_calibrate_and_be_measured(run: Run, core_file: Path, tmp_path: Path) -> None:
    single = tmp_path / "single.npy"
    np.save(single, np.full((32, 48), 500, np.uint16))
    words = ["--backend", "openvino", "--precision", "int8", "--frames", f"{single}?format=BayerRG12"]
    code, _, err = run(core_file, *words)
    assert code == 2
    assert "there is one frame only; give two or more" in err
