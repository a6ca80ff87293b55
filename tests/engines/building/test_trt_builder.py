"""What the builder does with the features that a TensorRT has. The modules are stand-ins, because one environment
holds one version only; `test_isp_build.py` builds with the real one that is here."""

from __future__ import annotations

import enum
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from ispeed.engines.errors import UserError
from ispeed.engines.trt_builder import Builder, chosen_capabilities, load_builder


def _module(version: str, flags: str, creation: str, capabilities: str = "") -> Any:
    def names(kind: str, text: str) -> Any:
        return enum.IntEnum(kind, text.split(), start=0)

    module = SimpleNamespace(
        __version__=version,
        BuilderFlag=names("BuilderFlag", flags),
        NetworkDefinitionCreationFlag=names("NetworkDefinitionCreationFlag", creation),
    )
    if capabilities:
        module.ComputeCapability = names("ComputeCapability", capabilities)
    return module


OLD = Builder("tensorrt", _module("8.6.0", "FP16 INT8 PREFER_PRECISION_CONSTRAINTS TF32", "EXPLICIT_BATCH"))
NEWER = Builder("tensorrt", _module("10.9", "FP16 INT8 PREFER_PRECISION_CONSTRAINTS", "EXPLICIT_BATCH STRONGLY_TYPED"))
NEWEST = Builder("tensorrt", _module("11.0", "TF32", "STRONGLY_TYPED"))
RTX = Builder(
    "tensorrt_rtx", _module("1.7", "REQUIRE_USER_ALLOCATION", "STRONGLY_TYPED", "NONE CURRENT SM120 SM86 SM89 SM75")
)


def test_typing_and_flags_follow_the_features() -> None:
    assert [builder.strongly_typed for builder in (OLD, NEWER, NEWEST, RTX)] == [False, True, True, True]
    assert OLD.flags("fp32") == ()
    assert OLD.flags("fp16") == ("FP16", "PREFER_PRECISION_CONSTRAINTS")
    assert OLD.flags("int8") == ("FP16", "PREFER_PRECISION_CONSTRAINTS", "INT8")
    assert NEWER.flags("int8") == NEWEST.flags("fp16") == ()
    assert RTX.flags("int8") == ("REQUIRE_USER_ALLOCATION",)


def test_capabilities() -> None:
    assert RTX.capabilities == ("7.5", "8.6", "8.9", "12.0")
    assert OLD.capabilities == ()
    assert chosen_capabilities(RTX, (), "fp16", None) == RTX.capabilities
    assert chosen_capabilities(RTX, (), "fp8", None) == ("8.9", "12.0")
    assert chosen_capabilities(RTX, (), "fp32", None) == ("8.6", "8.9", "12.0")
    assert chosen_capabilities(RTX, (), "fp16", "8.6") == ("8.6",)
    assert chosen_capabilities(RTX, (), "fp16", "9.0") == RTX.capabilities, "for another machine, then"
    assert chosen_capabilities(RTX, ("8.6", "8.9"), "fp16", "8.9") == ("8.6", "8.9")
    assert chosen_capabilities(OLD, (), "fp16", "9.0") == ("9.0",)
    with pytest.raises(UserError, match=r"tensorrt_rtx 1.7 builds for 7.5, .*, not for 9.0; correct --compute-cap"):
        chosen_capabilities(RTX, ("9.0",), "fp16", None)
    with pytest.raises(UserError, match=r"builds for the GPU here, 9.0, not for 8.6"):
        chosen_capabilities(OLD, ("8.6",), "fp16", "9.0")


def test_fp8_only_where_it_exists() -> None:
    RTX.check("fp8", ("8.9", "12.0"))
    RTX.check("int8", ("7.5",))
    with pytest.raises(UserError, match=r"compute capability 7.5, 8.6 have no fp8, which begins with 8.9"):
        RTX.check("fp8", ("7.5", "8.6", "8.9"))
    with pytest.raises(UserError, match=r"tensorrt 8.6.0 builds no fp8; use --precision int8"):
        OLD.check("fp8", ("9.0",))


def test_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(UserError, match=r"tensorrt_rtx is not installed; run: pip install 'ispeed\[rtx\]'"):
        load_builder("tensorrt_rtx")


def test_tensorrt_is_not_imported_without_a_driver() -> None:
    """In a process of its own, with a `tensorrt` that ends the process when it is imported."""
    script = """
import os, sys, types
from ispeed.engines import trt_builder
from ispeed.engines.cuda import driver
class Crash:
    def find_spec(self, name, path=None, target=None):
        if name == "tensorrt":
            os._exit(139)
sys.meta_path.insert(0, Crash())
def none():
    raise driver.NoGpu("no driver")
driver.gpu = none
try:
    trt_builder.load_builder("tensorrt")
except trt_builder.UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "this machine has no NVIDIA GPU with a driver; build there, or use --backend tensorrt_rtx" in done.stdout
