"""Sidecars of plans, why a plan does not run, and the cache."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ispeed.engines import RawFormat
from ispeed.engines import plan as plans
from ispeed.engines.build_cli import make_parser
from ispeed.engines.cuda.driver import Gpu
from ispeed.engines.errors import UserError
from ispeed.engines.plan import (
    PlanInfo,
    Tensor,
    cache_key,
    cached_plan,
    find_plan,
    read_plan_info,
    rebuild,
    sidecar,
    store_plan,
    why_not,
    write_plan_info,
)

CONTENT = bytes(range(256)) * 40
FORMAT = RawFormat(640, 480, "BayerRG12p", 64)
INFO = PlanInfo(
    name="lwisp",
    core={"model": "lwisp", "width": 16, "output": "srgb", "multiple": 32, "inputs": ["wb_r", "wb_g", "wb_b"]},
    backend="tensorrt_rtx",
    version="1.7.1",
    precision="fp16",
    raw_format=FORMAT.to_json(),
    batches=(1, 4, 8),
    compute_capabilities=("8.6", "8.9"),
    flags=("REQUIRE_USER_ALLOCATION",),
    tensors=(Tensor("raw", "input", "uint8", (-1, 480, 960)), Tensor("srgb", "output", "uint8", (-1, 480, 640, 3))),
    plan_sha256=hashlib.sha256(CONTENT).hexdigest(),
    plan_bytes=len(CONTENT),
    onnx_sha256="0" * 64,
    quality={"drop_db": 0.01},
    measured="ONNX Runtime",
    command="isp-build lwisp",
)
ADA = Gpu("NVIDIA GeForce RTX 4090", "8.9", 24 << 30, "13.0")
HOPPER = Gpu("NVIDIA H200", "9.0", 141 << 30, "13.0")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "lwisp.plan"
    path.write_bytes(CONTENT)
    write_plan_info(path, INFO)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ispeed" / "plans"


def test_round_trip(plan: Path) -> None:
    assert read_plan_info(plan) == INFO
    assert INFO.format == FORMAT
    assert INFO.core_info.inputs == ("wb_r", "wb_g", "wb_b")
    assert sorted(path.name for path in plan.parent.iterdir()) == ["lwisp.plan", "lwisp.plan.json"]


def _json(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def damage(path: Path) -> object:
        values = json.loads(sidecar(path).read_text())
        change(values)
        return sidecar(path).write_text(json.dumps(values))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: sidecar(path).unlink(), r"lwisp\.plan\.json, which says what lwisp\.plan is for, is missing"),
        (lambda path: path.write_bytes(CONTENT[:-1]), "is cut off: it has 10239 bytes instead of 10240"),
        (lambda path: path.write_bytes(CONTENT + b"x"), "is not the plan of its sidecar"),
        (lambda path: path.write_bytes(CONTENT[::-1]), "is damaged: its checksum"),
        (lambda path: sidecar(path).write_text("{"), r"lwisp\.plan\.json is damaged"),
        (lambda path: sidecar(path).write_text("[]"), "is damaged"),
        (_json(lambda values: values.pop("version")), r"is damaged \('version' is missing\)"),
        (_json(lambda values: values.update({"ispeed.plan": 9})), "version 9 is none that this release knows"),
        (_json(lambda values: values.update(backend="os")), "its values are none"),
        (_json(lambda values: values.update(batches=[2, 1, 4])), "its values are none"),
        (_json(lambda values: values.update(compute_capabilities=[])), "its values are none"),
        (_json(lambda values: values.update(plan_bytes="many")), "its values are none"),
        (_json(lambda values: values["raw_format"].update(black_level=[])), "is damaged"),
        (_json(lambda values: values["raw_format"].update(width=float("inf"))), "is damaged"),
        (lambda path: sidecar(path).write_text("[" * 100_000), "is damaged"),
        (_json(lambda values: values["raw_format"].update(width=-1)), "width -1 is out of range"),
        (_json(lambda values: values.update(tensors=[{"name": "raw"}])), "is damaged"),
    ],
)
def test_damage_is_one_sentence(damage: Callable[[Path], object], message: str, plan: Path) -> None:
    damage(plan)
    with pytest.raises(UserError, match=message) as caught:
        read_plan_info(plan)
    assert "\n" not in str(caught.value)


def test_what_a_sidecar_says_of_the_core_is_checked_when_it_is_asked_for(plan: Path) -> None:
    _json(lambda values: values.update(core={"width": 16}))(plan)
    with pytest.raises(UserError, match="does not say what core is inside"):
        _ = read_plan_info(plan).core_info


def _has(version: str | None) -> Callable[[str], str | None]:
    return lambda backend: version


def test_a_plan_that_fits() -> None:
    assert why_not(INFO, ADA, FORMAT, _has("1.7.1")) is None
    assert why_not(INFO, ADA, None, _has("1.7.1")) is None


@pytest.mark.parametrize(
    ("gpu", "fmt", "version", "message"),
    [
        (None, None, "1.7.1", "needs an NVIDIA GPU of compute capability 8.6 or 8.9, and this machine has none"),
        (
            HOPPER,
            None,
            "1.7.1",
            "was built for GPUs of compute capability 8.6 or 8.9, and the NVIDIA H200 here has 9.0",
        ),
        (ADA, None, None, r"needs tensorrt_rtx 1.7.1, which is not installed; run: pip install 'ispeed\[rtx\]'"),
        (ADA, None, "1.8", "was built by tensorrt_rtx 1.7.1, and 1.8 is installed here; run: isp-build lwisp"),
        (ADA, RawFormat(800, 480, "BayerRG12p", 64), "1.7.1", "640x480 BayerRG12p, and the frames are 800x480"),
        (ADA, RawFormat(640, 480, "BayerGR8"), "1.7.1", "the frames are 640x480 BayerGR8; run: isp-build .*BayerGR8"),
        (ADA, RawFormat(640, 480, "BayerRG12p", 60), "1.7.1", "black level 64 and .* with black level 60"),
    ],
)
def test_why_not(gpu: Gpu | None, fmt: RawFormat | None, version: str | None, message: str) -> None:
    reason = why_not(INFO, gpu, fmt, _has(version), file="lwisp.plan")
    assert reason is not None
    assert reason.startswith("lwisp.plan ")
    assert "\n" not in reason
    with pytest.raises(UserError, match=message):
        raise UserError(reason)


@pytest.mark.parametrize("gpu", [None, ADA, HOPPER])
def test_the_line_that_builds_a_fitting_plan_is_understood(gpu: Gpu | None) -> None:
    fmt = RawFormat(1280, 1024, "BayerGB10", 16, 1000)
    command, *argv = shlex.split(rebuild(INFO, fmt, gpu))
    assert command == "isp-build"
    options = make_parser().parse_args(argv)
    assert RawFormat(*options.size, options.pixel_format, options.black_level, options.white_level) == fmt
    assert (options.precision, options.batch, options.output) == ("fp16", (1, 4, 8), Path("lwisp.plan"))
    assert options.backend == ("tensorrt" if gpu is HOPPER else "tensorrt_rtx"), "RTX builds for no data centre's GPU"
    assert options.compute_capability == (("8.9",) if gpu is ADA else ())


def test_cache_keys_differ_in_every_part() -> None:
    parts = ("0" * 64, "tensorrt", "10.1", ("8.9",), ("FP16",), (1, 1, 1))
    others = ("1" * 64, "tensorrt_rtx", "10.2", ("8.6",), (), (1, 4, 8))
    keys = {cache_key(*parts)} | {cache_key(*parts[:k], others[k], *parts[k + 1 :]) for k in range(6)}  # type: ignore[arg-type]
    assert len(keys) == 7


def test_cache_finds_what_fits(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "module_version", _has("1.7.1"))
    assert find_plan(None, FORMAT, ADA) is None
    store_plan("a", CONTENT, INFO)
    store_plan("b", CONTENT, replace(INFO, compute_capabilities=("9.0",)))
    store_plan("c", CONTENT, replace(INFO, quality=None, measured=""))
    assert cached_plan("a") == cache / "a.plan"
    assert find_plan("lwisp", FORMAT, ADA) == find_plan(None, FORMAT, ADA) == cache / "a.plan"
    assert find_plan("lwisp-xs", FORMAT, ADA) is None
    flat_field = {name: [[1.0, 2.0], [1.0, 1.0]] for name in ("R", "Gr", "Gb", "B")}
    assert find_plan(None, FORMAT, ADA, [(1, 2)], flat_field) == cache / "a.plan", "nothing fits better"
    store_plan("d", CONTENT, replace(INFO, defects=((1, 2),), flat_field=flat_field))
    assert find_plan(None, FORMAT, ADA, [(1, 2)], flat_field) == cache / "d.plan"
    assert find_plan(None, FORMAT, ADA) == cache / "a.plan"
    assert find_plan(None, RawFormat(640, 480, "BayerRG8"), ADA) is None
    monkeypatch.setattr(plans, "module_version", _has(None))
    assert find_plan(None, FORMAT, ADA) is None


def test_a_cache_that_is_damaged_or_cannot_be_written_is_none(cache: Path) -> None:
    store_plan("a", CONTENT, INFO)
    (cache / "a.plan").write_bytes(b"")
    assert cached_plan("a") is None
    assert cached_plan("absent") is None
    cache.rename(cache.with_name("moved"))
    cache.write_text("a file where the folder should be")
    store_plan("a", CONTENT, INFO)
    assert cached_plan("a") is None
