"""Core files: what is written is read back, and what is no core is refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ispeed.engines import UserError
from ispeed.engines.core import INPUTS, CoreInfo, read_core, weights_sha256, write_core
from ispeed.engines.inputs import CCM

INFO = CoreInfo("small", 12, "srgb", 4, ("wb_r", "wb_g", "wb_b"), run="7", data="none", licence="Apache-2.0")


def test_round_trip(make_core: Callable[..., Any], tmp_path: Path) -> None:
    model = make_core().core.model
    before = model.SerializeToString(deterministic=True)
    path = tmp_path / "again.onnx"
    written = write_core(path, model, INFO)
    core = read_core(path)
    assert core.info == written
    assert core.path == path
    assert len(written.sha256) == 64
    assert CoreInfo(**{**written.to_json(), "inputs": INFO.inputs, "sha256": ""}) == INFO
    assert core.model.graph == model.graph
    assert model.SerializeToString(deterministic=True) == before
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".part"] == []


def test_the_run_time_inputs_that_a_core_may_name() -> None:
    assert (
        *("wb_r", "wb_g", "wb_b", "exposure_us", "gain_db", "iso", "f_number", "focal_length_mm"),
        *("ccm_rr", "ccm_rg", "ccm_rb", "ccm_gr", "ccm_gg", "ccm_gb", "ccm_br", "ccm_bg", "ccm_bb"),
    ) == INPUTS
    for inputs in (INPUTS, INPUTS[:8], CCM):
        info = replace(INFO, inputs=inputs)
        assert CoreInfo.from_json(info.to_json()) == info


def test_the_checksum_is_of_the_weights_alone(make_core: Callable[..., Any]) -> None:
    model = make_core().core.model
    before = weights_sha256(model)
    model.graph.initializer.append(model.graph.initializer[0])
    del model.graph.initializer[0]  # another order
    model.doc_string = "something else"
    assert weights_sha256(model) == before
    model.graph.initializer[0].name += "x"
    assert weights_sha256(model) != before


def test_a_core_that_cannot_be_written_is_one_sentence(make_core: Callable[..., Any], tmp_path: Path) -> None:
    model = make_core().core.model
    with pytest.raises(UserError, match=r"cannot write .*No such file or directory"):
        write_core(tmp_path / "nowhere" / "core.onnx", model, INFO)
    folder = tmp_path / "folder.onnx"
    folder.mkdir()
    with pytest.raises(UserError, match="cannot write"):
        write_core(folder, model, INFO)
    assert not list(tmp_path.rglob("*.part"))


def restamped(core: Any, **properties: str) -> bytes:
    known = {entry.key: entry.value for entry in core.model.metadata_props}
    del core.model.metadata_props[:]
    onnx.helper.set_model_props(core.model, known | properties)
    return core.model.SerializeToString()


def other_info(core: Any, **changes: object) -> bytes:
    return restamped(core, **{"ispeed.info": json.dumps(core.info.to_json() | changes)})


def heavier(core: Any) -> bytes:
    weights = core.model.graph.initializer[0]
    changed = onnx.numpy_helper.to_array(weights) + np.float32(0.5)
    weights.CopyFrom(onnx.numpy_helper.from_array(changed, weights.name))
    return core.model.SerializeToString()


def outside(core: Any) -> bytes:
    weights = core.model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="/etc/passwd")
    return core.model.SerializeToString()


def of_no_type(core: Any) -> bytes:
    core.model.graph.initializer[0].data_type = 65
    return core.model.SerializeToString()


def without_a_node(core: Any) -> bytes:
    del core.model.graph.node[0]
    return core.model.SerializeToString()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda core: core.model.SerializeToString()[:-40], "is no ONNX file, or is cut off"),
        (lambda core: b"PK\x03\x04 something else", "is no ONNX file, or is cut off"),
        (lambda core: b"", "has no metadata of a model core"),
        (lambda core: restamped(core, **{"ispeed.core": "9"}), "is a model core of version 9"),
        (lambda core: restamped(core, **{"ispeed.info": "{"}), "metadata of .* is damaged"),
        (lambda core: restamped(core, **{"ispeed.info": "{}"}), "metadata of .* is damaged"),
        (lambda core: restamped(core, **{"ispeed.info": "[]"}), "metadata of .* is damaged"),
        (lambda core: restamped(core, **{"ispeed.info": "[" * 100_000}), "metadata of .* is damaged"),
        (lambda core: other_info(core, multiple=float("inf")), "metadata of .* is damaged"),
        (outside, "has its weights in another file"),
        (lambda core: other_info(core, output="grey"), "output must be srgb or linear"),
        (lambda core: other_info(core, multiple=3), "multiple an even number"),
        (lambda core: other_info(core, inputs=["flash"]), "run-time input flash is none that this version knows"),
        (lambda core: other_info(core, inputs=["iso", *CCM[:-1]]), "names some numbers but not ccm_bb"),
        (lambda core: other_info(core, inputs=[]), "its network does not match its metadata"),
        (lambda core: other_info(core, sha256="0" * 64), "its network does not match its metadata"),
        (heavier, "its network does not match its metadata"),
        (of_no_type, "its network does not match its metadata"),
        (without_a_node, "its network does not match its metadata"),
    ],
)
def test_what_is_no_core_is_one_sentence(
    damage: Callable[[Any], bytes], message: str, make_core: Callable[..., Any]
) -> None:
    core = make_core().core
    core.path.write_bytes(damage(core))
    with pytest.raises(UserError, match=message) as caught:
        read_core(core.path)
    assert "\n" not in str(caught.value)
    assert core.path.name in str(caught.value)


def test_a_missing_core_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the model .*none\.onnx: No such file"):
        read_core(tmp_path / "none.onnx")


def test_newer_metadata_may_say_more(make_core: Callable[..., Any]) -> None:
    core = make_core().core
    core.path.write_bytes(other_info(core, teacher="large"))
    assert read_core(core.path).info == core.info
