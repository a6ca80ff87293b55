"""TensorRT plans on a GPU, with whichever TensorRT is here: the picture, graphs, and what does not fit."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ispeed.engines import RawFormat, UserError, open_engine
from ispeed.engines.cuda.driver import gpu

from .conftest import GAINS, develop

pytestmark = pytest.mark.gpu

FORMAT = RawFormat(640, 480, "BayerRG12p", 64, 4000)
BATCHES = (1, 2, 3)


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def backend(request: pytest.FixtureRequest) -> str:
    """A TensorRT that is here and builds for this GPU."""
    pytest.importorskip("pycuda.driver", exc_type=ImportError)
    found = pytest.importorskip(request.param)
    if request.param == "tensorrt_rtx":
        name = "SM" + gpu().compute_capability.replace(".", "")
        if name not in found.ComputeCapability.__members__:
            pytest.skip(f"TensorRT-RTX {found.__version__} does not build for {name}")
    return request.param


@pytest.fixture
def make_plan(backend: str, core_file: Path, tmp_path: Path):
    """Builds a plan of the test core."""
    from ispeed.engines.build import BuildRequest, build

    def make(precision: str, fmt: RawFormat = FORMAT, batches: tuple[int, int, int] = BATCHES) -> Path:
        request = BuildRequest(
            model=str(core_file),
            backend=backend,
            precision=precision,
            output=tmp_path / f"{precision}.plan",
            pixel_format=fmt.pixel_format,
            size=(fmt.width, fmt.height),
            black_level=fmt.black_level,
            white_level=fmt.white_level,
            batches=batches,
            gate=False,
            cache=False,
        )
        return build(request).path

    return make


@pytest.fixture
def open_plan() -> Iterator:
    opened = []

    def make(path: Path, **options):
        opened.append(open_engine(str(path), white_balance=GAINS, **options))
        return opened[-1]

    yield make
    for engine in opened:
        engine.close()


@pytest.mark.parametrize(("precision", "codes"), [("fp32", 2), ("fp16", 3)])
def test_the_picture_is_that_of_the_reference(make_plan, open_plan, rings, reference, precision, codes):
    engine, pair = open_plan(make_plan(precision)), rings(FORMAT, 9)
    raw, srgb = pair
    engine.prepare(FORMAT, 3, raw, srgb)
    develop(engine, [[0, 1, 2], [3], [4, 5], [6, 7, 8]])
    assert engine.host_copies == 0
    assert engine.captured
    for slot in (0, 2, 3, 5, 8):
        got = srgb.slot(slot).reshape(FORMAT.height, FORMAT.width, 3)
        off = np.abs(got.astype(int) - reference(raw.slot(slot), FORMAT))
        assert off.max() <= codes
        assert off.mean() < 0.5


def test_a_graph_gives_what_the_plain_run_gives(make_plan, open_plan, rings, monkeypatch):
    path, batches = make_plan("fp16"), [[0, 1, 2], [3], [4, 5]]
    raw, replayed = rings(FORMAT, 6)
    _, plain = rings(FORMAT, 6)
    engine = open_plan(path)
    engine.prepare(FORMAT, 3, raw, replayed)
    develop(engine, batches)
    engine.close()
    monkeypatch.setattr("ispeed.engines.cuda.pycuda_device.try_capture", lambda *arguments: None)
    engine.prepare(FORMAT, 3, raw, plain)
    assert not engine.captured
    develop(engine, batches)
    for slot in range(6):
        assert np.array_equal(replayed.slot(slot), plain.slot(slot))


def test_every_pixel_format_reads_the_same(make_plan, open_plan, rings, reference):
    for pixel_format in ("BayerGB8", "BayerGR10p", "BayerBG16"):
        fmt = RawFormat(640, 478, pixel_format)
        raw, srgb = rings(fmt, 1)
        engine = open_plan(make_plan("fp32", fmt, (1, 1, 1)))
        engine.prepare(fmt, 1, raw, srgb)
        develop(engine, [[0]])
        off = np.abs(srgb.slot(0).reshape(fmt.height, fmt.width, 3).astype(int) - reference(raw.slot(0), fmt))
        assert off.max() <= 2
        engine.close()


def test_a_plan_for_another_gpu_or_version_is_one_sentence(make_plan, open_plan):
    path = make_plan("fp16")
    side = path.with_name(path.name + ".json")
    good = json.loads(side.read_text())
    for change, says in [
        ({"compute_capabilities": ["5.2"]}, r"was built for GPUs of compute capability 5.2, and the .* run: isp-build"),
        ({"version": "8.0.0"}, r"was built by tensorrt\w* 8.0.0, and .* is installed here; run: isp-build"),
    ]:
        side.write_text(json.dumps(good | change))
        with pytest.raises(UserError, match=says):
            open_plan(path)
    damaged = path.read_bytes()[:-1000]
    path.write_bytes(damaged)
    side.write_text(json.dumps(good))
    with pytest.raises(UserError, match="is cut off"):
        open_plan(path)


def test_frames_of_another_format_are_one_sentence(make_plan, open_plan, rings):
    engine = open_plan(make_plan("fp16"))
    fmt = RawFormat(640, 480, "BayerGB12p", 64, 4000)
    with pytest.raises(UserError, match=r"develops 640x480 BayerRG12p.* run: isp-build"):
        engine.prepare(fmt, 1, *rings(fmt, 1))


def test_a_plan_that_tensorrt_refuses_is_one_sentence(make_plan, open_plan, rings, backend):
    from ispeed.engines.plan import file_sha256

    path = make_plan("fp16")
    content = bytearray(path.read_bytes())
    content[:64] = bytes(64)
    path.write_bytes(content)
    side = path.with_name(path.name + ".json")
    side.write_text(json.dumps(json.loads(side.read_text()) | {"plan_sha256": file_sha256(path)}))
    engine = open_plan(path)
    with pytest.raises(UserError, match=rf"{backend} .* does not load .*; run: isp-build") as caught:
        engine.prepare(FORMAT, 1, *rings(FORMAT, 1))
    assert "\n" not in str(caught.value)


def test_a_full_gpu_is_one_sentence(make_plan, open_plan, rings):
    cuda = importlib.import_module("pycuda.driver")
    from ispeed.engines.cuda.pycuda_device import PycudaDevice

    fmt = RawFormat(4096, 4096, "BayerRG8")
    path = make_plan("fp16", fmt, (1, 2, 4))
    engine, device = open_plan(path), PycudaDevice()
    free, _ = device.memory()
    taken = cuda.mem_alloc(free - (128 << 20))
    try:
        with pytest.raises(UserError, match="GPU memory") as caught:
            engine.prepare(fmt, 4, *rings(fmt, 1))
        assert "\n" not in str(caught.value)
    finally:
        taken.free()
        device.close()
