"""What goes wrong with cores on the processor, and the cache of compiled models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from ispeed.engines import RawFormat, UserError, open_engine
from ispeed.engines.core import CoreInfo, write_core
from ispeed.engines.cpu import CpuEngine
from ispeed.engines.cpu_onnxruntime import OnnxRuntimeEngine

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

FORMAT = RawFormat(64, 48, "BayerRG8")
NOTHING_GIVEN = np.full((1, 3), np.nan, np.float32)
BOTH = pytest.mark.parametrize("kind", [CpuEngine, OnnxRuntimeEngine])


def one_sentence(error: pytest.ExceptionInfo[UserError], *parts: str) -> None:
    sentence = str(error.value)
    assert "\n" not in sentence
    for part in parts:
        assert part in sentence


@pytest.mark.parametrize("spoil", ["empty", "cut", "text", "weights", "other"])
def test_a_file_that_is_no_whole_core_is_one_sentence(core_file, spoil: str):
    path = core_file()
    whole = path.read_bytes()
    parts = {"empty": ("no metadata",), "cut": ("cut off",), "text": ("no ONNX file",), "weights": ("damaged",)}
    if spoil == "other":
        plain = onnx.load(path)
        del plain.metadata_props[:]
        onnx.save(plain, path)
    else:
        at = whole.index(
            np.float32(onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[-1]).flat[0]).tobytes()
        )
        path.write_bytes(
            {
                "empty": b"",
                "cut": whole[: len(whole) // 2],
                "text": b"this is no network " * 100,
                "weights": whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
            }[spoil]
        )
    with pytest.raises(UserError) as error:
        open_engine(str(path))
    one_sentence(error, str(path), *parts.get(spoil, ("isp-export",)))


@BOTH
def test_a_network_that_the_runtime_does_not_take_is_one_sentence(kind, tmp_path: Path, closing, rings, small):
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Mystery", ["raw"], ["rgb"], domain="nobody")],
        "odd",
        [onnx.helper.make_tensor_value_info("raw", onnx.TensorProto.FLOAT, ["B", 4, "h", "w"])],
        [onnx.helper.make_tensor_value_info("rgb", onnx.TensorProto.FLOAT, ["B", 3, "H", "W"])],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("nobody", 1)]
    path = tmp_path / "odd.onnx"
    write_core(path, onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), CoreInfo("odd", 1, "srgb", 2))
    raw, srgb = rings(FORMAT, small.frames(FORMAT, 1))
    engine = closing(kind(path))
    with pytest.raises(UserError) as error:
        engine.prepare(FORMAT, 1, raw, srgb)
    one_sentence(error, str(path), "Mystery")


@BOTH
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threads": 0}, "threads is 0"),
        ({"mode": "eco"}, "mode 'eco'"),
        ({"white_balance": (0, 1, 1)}, "white balance"),
        ({"tone": "filmic"}, "tone 'filmic'"),
        ({"tone": "linear"}, "learned its colours"),
        ({"colour_matrix": np.eye(3)}, "learned its colours"),
    ],
)
def test_options_out_of_range(kind, core_file, options: dict, says: str):
    with pytest.raises(UserError, match=says) as error:
        kind(core_file(), **options)
    one_sentence(error)


@BOTH
def test_precisions_out_of_range(kind, core_file):
    with pytest.raises(UserError, match="precision 'fp16' is unknown; use one of fp32, bf16"):
        kind(core_file(), precision="fp16")


def test_onnx_runtime_has_no_bf16(core_file):
    with pytest.raises(UserError, match="no bf16"):
        OnnxRuntimeEngine(core_file(), precision="bf16")


@BOTH
def test_frames_that_it_cannot_take(kind, core_file, closing, rings, small: SimpleNamespace):
    raw, srgb = rings(FORMAT, small.frames(FORMAT, 1))
    engine = closing(kind(core_file()))
    with pytest.raises(UserError, match="a batch of 2 frames is out of range"):
        engine.prepare(FORMAT, 2, raw, srgb)
    with pytest.raises(UserError, match="Mono8"):
        engine.prepare(RawFormat(64, 48, "Mono8"), 1, raw, srgb)
    with pytest.raises(ValueError, match="slots of the ring need"):
        engine.prepare(RawFormat(128, 48, "BayerRG8"), 1, raw, srgb)
    engine.prepare(FORMAT, 1, raw, srgb)
    for slots in ([], [0, 0]):
        with pytest.raises(ValueError, match="a batch holds 1 raw slot"):
            engine.develop(slots, slots, np.zeros((len(slots), 3), np.float32))


@pytest.mark.parametrize(("kind", "which"), [(CpuEngine, "raw"), (CpuEngine, "srgb"), (OnnxRuntimeEngine, "srgb")])
def test_read_only_slots_are_refused(kind, core_file, closing, rings, small: SimpleNamespace, which: str):
    pair = dict(zip(("raw", "srgb"), rings(FORMAT, small.frames(FORMAT, 1)), strict=True))
    pair[which].memory.flags.writeable = False
    engine = closing(kind(core_file()))
    with pytest.raises(ValueError, match="writ"):
        engine.prepare(FORMAT, 1, pair["raw"], pair["srgb"])


BLOCKED = """
import sys
for name in {blocked}:
    sys.modules[name] = None
import logging
logging.disable()
from ispeed.engines import UserError, open_engine
try:
    engine = open_engine({path!r})
    print(engine.info.backend)
    engine.close()
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("blocked", "says"),
    [
        ([], "openvino"),
        (["openvino"], "onnxruntime"),
        (["openvino", "onnxruntime"], "needs OpenVINO; run: pip install openvino"),
    ],
)
def test_without_openvino_onnx_runtime_takes_over(core_file, blocked: list[str], says: str):
    code = BLOCKED.format(blocked=blocked, path=str(core_file()))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert says in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(("module", "kind"), [("openvino", CpuEngine), ("onnxruntime", OnnxRuntimeEngine)])
def test_an_engine_names_the_package_it_lacks(core_file, monkeypatch: pytest.MonkeyPatch, module: str, kind):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"pip install.*onnxruntime"):
        kind(core_file())


def develop_once(path: Path, rings, small: SimpleNamespace) -> np.ndarray:
    raw, srgb = rings(FORMAT, small.frames(FORMAT, 1))
    engine = CpuEngine(path, precision="fp32", white_balance=(1, 1, 1))
    try:
        engine.prepare(FORMAT, 1, raw, srgb)
        engine.develop([0], [0], NOTHING_GIVEN).wait()
    finally:
        engine.close()
    return srgb.slot(0).copy()


def test_compiled_models_are_kept_and_a_damaged_one_does_no_harm(core_file, cache_folder: Path, rings, small):
    path, folder = core_file(), cache_folder / "ispeed" / "openvino"
    expected = develop_once(path, rings, small)
    kept = list(folder.glob("*.blob"))
    assert len(kept) == 1
    whole = kept[0].read_bytes()
    written = kept[0].stat().st_mtime_ns
    np.testing.assert_array_equal(develop_once(path, rings, small), expected)
    assert [f.stat().st_mtime_ns for f in folder.glob("*.blob")] == [written]  # read, not made again
    for damage in (b"", whole[: len(whole) // 2], b"\xff" * len(whole)):
        kept[0].write_bytes(damage)
        np.testing.assert_array_equal(develop_once(path, rings, small), expected)


def test_without_a_folder_to_write_to_every_start_compiles(
    core_file, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rings, small
):
    path = core_file()
    expected = develop_once(path, rings, small)
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    np.testing.assert_array_equal(develop_once(path, rings, small), expected)
    assert blocked.read_bytes() == b""
