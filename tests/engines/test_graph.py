"""The grafted graph against plain NumPy, in every runtime that is here."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ispeed.engines import PIXEL_FORMATS, RawFormat, UserError, pack
from ispeed.engines._openvino import openvino_core
from ispeed.engines.core import read_core, write_core
from ispeed.engines.graph import graft, make_head, padded_size, raw_shape
from ispeed.engines.graph_reference import graft_reference, planes_reference
from ispeed.engines.reference import srgb_curve

BAYER = [name for name in PIXEL_FORMATS if name != "Mono8"]
LAYOUTS = ["BayerRG8", "BayerGR12", "BayerGB16", "BayerBG10p", "BayerRG12p"]
MATRIX = [[1.6, -0.5, -0.1], [-0.2, 1.5, -0.3], [0.0, -0.6, 1.6]]
GAINS = (1.9, 1.0, 1.4)


def onnx_runtime(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


def openvino(model: onnx.ModelProto, feed: dict[str, np.ndarray], precision: str = "f32") -> np.ndarray:
    runtime = pytest.importorskip("openvino")
    core = openvino_core()
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings)
    request = compiled.create_infer_request()
    for name, value in feed.items():
        request.set_tensor(name, runtime.Tensor(value, shared_memory=True))
    shape = [len(feed["raw"]), *list(compiled.output(0).partial_shape)[1:]]
    result = np.full([int(str(size)) for size in shape], 0xA5, np.uint8)
    request.set_output_tensor(0, runtime.Tensor(result, shared_memory=True))
    request.infer()
    return result  # our own memory: written in place


def frames(fmt: RawFormat, count: int = 1, seed: int = 5) -> np.ndarray:
    """Noise with the smallest and the largest sample, uint8 [count, payload]."""
    rng = np.random.default_rng(seed)
    samples = rng.integers(0, 1 << fmt.depth, (count, fmt.height, fmt.width))
    samples[:, 0, 0], samples[:, -1, -1] = 0, (1 << fmt.depth) - 1
    return np.stack([pack(one, fmt) for one in samples])


def shaped(raw: np.ndarray, fmt: RawFormat) -> np.ndarray:
    return raw.reshape(-1, *raw_shape(fmt))


def difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    assert a.dtype == b.dtype == np.uint8
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def formats(name: str) -> list[RawFormat]:
    """Sizes that fit the core, odd and tiny ones as far as the format has them, and levels of a real camera."""
    white = None if name.endswith(("8", "16")) else 0.97 * ((1 << RawFormat(4, 2, name).depth) - 1)
    step = 4 if name.endswith("10p") else 2 if name.endswith("12p") else 1
    sizes = {(16, 8), (12, 7), (4, 2), (2, 2), (7, 5), (3, 2), (2, 9), (13, 6)}
    return [RawFormat(w, h, name, black_level=6.5, white_level=white) for w, h in sorted(sizes) if w % step == 0]


@pytest.mark.parametrize("name", BAYER)
def test_every_format_and_size_is_as_the_reference(name: str, make_core: Callable[..., Any]) -> None:
    small = make_core(multiple=8)
    for fmt in formats(name):
        raw = frames(fmt)
        model = graft(small.core, fmt)
        got = onnx_runtime(model, {"raw": shaped(raw, fmt), "params": np.array([GAINS], np.float32)})
        want = graft_reference(raw[0], fmt, small.run, small.core.info, GAINS)
        assert difference(got[0], want) <= 1, fmt
        assert len(np.unique(want)) > 4, "the picture is flat: the test would not see an error"


@pytest.mark.parametrize("name", BAYER)
def test_openvino_writes_the_reference_in_place(name: str, make_core: Callable[..., Any]) -> None:
    small = make_core(output="linear", multiple=4)
    fmt = formats(name)[-1]
    raw = frames(fmt)
    model = graft(small.core, fmt, colour_matrix=MATRIX, defects=[(0, 0), (3, 2)])
    got = openvino(model, {"raw": shaped(raw, fmt), "params": np.array([GAINS], np.float32)})
    options: dict[str, Any] = {"colour_matrix": MATRIX, "defects": [(0, 0), (3, 2)]}
    assert difference(got[0], graft_reference(raw[0], fmt, small.run, small.core.info, GAINS, **options)) <= 1


@st.composite
def cases(draw: st.DrawFn) -> tuple[RawFormat, dict[str, Any]]:
    name = draw(st.sampled_from(BAYER))
    step = 4 if name.endswith("10p") else 2 if name.endswith("12p") else 1
    width = draw(st.integers(max(1, 2 // step), 24 // step)) * step
    height = draw(st.integers(2, 24))
    full = (1 << RawFormat(4, 2, name).depth) - 1
    black = draw(st.floats(0, full / 3))
    fmt = RawFormat(width, height, name, black, draw(st.floats(full / 2, full)))
    place = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1))
    options: dict[str, Any] = {"defects": draw(st.lists(place, max_size=4, unique=True))}
    output = draw(st.sampled_from(["srgb", "linear"]))
    if output == "linear":
        options["tone"] = draw(st.sampled_from(["srgb", "linear"]))
        options["colour_matrix"] = draw(st.sampled_from([None, MATRIX]))
    gains = tuple(draw(st.floats(0.25, 4)) for _ in range(3))
    extras = {"output": output, "multiple": draw(st.sampled_from([2, 4, 32])), "gains": gains, "options": options}
    return fmt, extras


@given(case=cases(), batch=st.integers(1, 3), is_open=st.booleans(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_case_is_as_the_reference(
    make_core: Callable[..., Any], case: tuple[RawFormat, dict[str, Any]], batch: int, is_open: bool, seed: int
) -> None:
    fmt, extras = case
    small = make_core(output=extras["output"], multiple=extras["multiple"])
    raw = frames(fmt, batch, seed)
    model = graft(small.core, fmt, batch=None if is_open else batch, **extras["options"])
    params = (
        np.array([extras["gains"]] * batch, np.float32) * np.arange(1, batch + 1, dtype=np.float32)[:, None] / batch
    )
    got = onnx_runtime(model, {"raw": shaped(raw, fmt), "params": params})
    for one, its_params, picture in zip(raw, params, got, strict=True):
        want = graft_reference(one, fmt, small.run, small.core.info, its_params, **extras["options"])
        assert difference(picture, want) <= 1


@pytest.mark.parametrize("name", BAYER)
def test_head_is_exact(name: str) -> None:
    for fmt, multiple in itertools.product(formats(name), (2, 32)):
        raw = frames(fmt, 2)
        defects = [(0, 0), (1, 1), (fmt.width - 1, fmt.height - 1)]
        model = make_head(fmt, multiple, batch=None, defects=defects)
        onnx.checker.check_model(model, full_check=True)
        planes = onnx_runtime(model, {"raw": shaped(raw, fmt)})
        want = np.stack([planes_reference(one, fmt, multiple, defects) for one in raw])
        width, height = padded_size(fmt, multiple)
        assert planes.shape == (2, 4, height // 2, width // 2)
        np.testing.assert_allclose(planes, want, atol=1e-6)


def test_every_sample_of_a_packed_format_is_read() -> None:
    for name in ("BayerRG10p", "BayerRG12p", "BayerRG16"):
        depth = RawFormat(4, 2, name).depth
        fmt = RawFormat(256, (1 << depth) // 256, name)
        samples = np.arange(1 << depth).reshape(fmt.height, fmt.width)
        planes = onnx_runtime(make_head(fmt, 2), {"raw": shaped(pack(samples, fmt), fmt)})[0]
        mosaic = np.empty((fmt.height, fmt.width), np.float32)
        for place, plane in enumerate(planes):
            mosaic[place // 2 :: 2, place % 2 :: 2] = plane
        np.testing.assert_array_equal(np.rint(mosaic * fmt.white_level), samples)


def linear_core(make_core: Callable[..., Any]) -> Any:
    """A core that gives what it gets: each of the planes as R, G and B of its pixel."""
    core = make_core(output="linear", multiple=2).core
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        plain (float[B, 4, h, w] raw, float[B, 3] params) => (float[B, 3, H, W] rgb)
        {
            grey = DepthToSpace <blocksize = 2, mode = "CRD"> (raw)
            rgb = Concat <axis = 1> (grey, grey, grey)
        }
    """
    write_core(core.path, onnx.parser.parse_model(text), core.info)
    return read_core(core.path)


def test_curve_is_off_by_a_quarter_of_a_code_before_rounding(make_core: Callable[..., Any]) -> None:
    fmt = RawFormat(256, 256, "BayerRG16")
    samples = np.arange(1 << 16).reshape(256, 256)
    feed = {"raw": shaped(pack(samples, fmt), fmt), "params": np.ones((1, 3), np.float32)}
    core = linear_core(make_core)
    codes = onnx_runtime(graft(core, fmt), feed)[0, :, :, 1]
    exact = 255 * srgb_curve(samples / 65535)
    assert np.abs(codes - exact).max() < 0.75  # half a code of rounding, a quarter of the polynomial
    assert np.all(np.diff(codes.reshape(-1).astype(int)) >= 0)
    assert (codes[0, 0], codes[-1, -1]) == (0, 255)
    straight = onnx_runtime(graft(core, fmt, tone="linear"), feed)[0, :, :, 1]
    np.testing.assert_array_equal(straight, np.floor(255 * (samples / 65535) + 0.5))


def test_dark_samples_above_a_high_black_level_survive_bfloat16(make_core: Callable[..., Any]) -> None:
    pytest.importorskip("openvino")
    if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bf16")
    small = make_core(multiple=4)
    # of 11 bits and more bfloat16 keeps 8: with the black level still in, these would fall into four steps
    for name in ("BayerRG12", "BayerRG12p", "BayerGB10p", "BayerGR16"):
        depth = RawFormat(4, 2, name).depth
        black = (1 << depth) // 2
        fmt = RawFormat(32, 16, name, black, black + 64)
        samples = black + np.random.default_rng(1).integers(0, 64, (16, 32))
        feed = {"raw": shaped(pack(samples, fmt), fmt), "params": np.ones((1, 3), np.float32)}
        model = graft(small.core, fmt)
        exact, rough = (openvino(model, feed, precision).astype(float) for precision in ("f32", "bf16"))
        assert np.sqrt(np.mean((exact - rough) ** 2)) < 1.0, name


def test_the_core_is_left_as_it_was_and_names_do_not_meet(make_core: Callable[..., Any]) -> None:
    core = make_core().core
    before = core.model.SerializeToString(deterministic=True)
    model = graft(core, RawFormat(8, 8, "BayerGB12p"), batch=None, defects=[(2, 2)])
    assert core.model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(model, full_check=True)
    types = {v.name: v.type.tensor_type for v in [*model.graph.input, *model.graph.output]}
    shapes = {name: [d.dim_param or d.dim_value for d in kind.shape.dim] for name, kind in types.items()}
    assert shapes == {"raw": ["B", 8, 12], "params": ["B", 3], "srgb": ["B", 8, 8, 3]}


def test_a_grafted_file_is_no_core(make_core: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "grafted.onnx"
    path.write_bytes(graft(make_core().core, RawFormat(8, 8, "BayerRG8")).SerializeToString())
    with pytest.raises(UserError, match=r"grafted\.onnx has a head and a tail"):
        read_core(path)


def test_what_cannot_be_grafted_is_refused(make_core: Callable[..., Any]) -> None:
    learned, linear = make_core().core, make_core(output="linear").core
    fmt = RawFormat(8, 8, "BayerRG8")
    with pytest.raises(UserError, match="Mono8 is none; use --engine classic"):
        graft(learned, RawFormat(8, 8, "Mono8"))
    with pytest.raises(UserError, match="Mono8 is none"):
        make_head(RawFormat(8, 8, "Mono8"), 2)
    with pytest.raises(UserError, match="has learned its colours"):
        graft(learned, fmt, colour_matrix=MATRIX)
    with pytest.raises(UserError, match="has learned its colours"):
        graft(learned, fmt, tone="linear")
    with pytest.raises(UserError, match="nine finite numbers"):
        graft(linear, fmt, colour_matrix=[1, 2])
    with pytest.raises(UserError, match=r"\(8, 0\) lies outside"):
        graft(linear, fmt, defects=[(8, 0)])


@pytest.mark.parametrize("name", LAYOUTS)
def test_tensorrt_takes_every_layout(name: str, make_core: Callable[..., Any]) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    core = make_core(output="linear", multiple=8).core
    fmt = RawFormat(20, 10, name, black_level=3)
    model = graft(core, fmt, batch=None, colour_matrix=MATRIX, defects=[(3, 3), (9, 9)])
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(model.SerializeToString())
    assert parsed, [parser.get_error(k).desc() for k in range(parser.num_errors)]
    raw, srgb = network.get_input(0), network.get_output(0)
    assert (raw.name, raw.dtype, tuple(raw.shape)) == ("raw", trt.uint8, (-1, *raw_shape(fmt)))
    assert (srgb.name, srgb.dtype) == ("srgb", trt.uint8)
    assert tuple(srgb.shape)[1:] == (10, 20, 3)
