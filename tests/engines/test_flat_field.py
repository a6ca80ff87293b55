"""Flat fields: what is a mesh and what is not, what lies between its nodes, and that all engines agree on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ispeed.engines import PIXEL_FORMATS, RawFormat, UserError, open_engine, pack
from ispeed.engines.classic import ClassicEngine
from ispeed.engines.flat_field import SITES, checked_mesh, gain_map, row_tables, to_json
from ispeed.engines.graph import graft, make_head
from ispeed.engines.graph_reference import graft_reference
from ispeed.engines.reference import classic_reference
from ispeed.engines.white_balance import world_gains

BAYER = [name for name in PIXEL_FORMATS if name != "Mono8"]
GAINS = (1.8, 1.0, 1.4)
NOTHING_GIVEN = np.zeros((1, 3), np.float32)


def field(rows: int = 4, columns: int = 5, seed: int = 2) -> dict[str, list[list[float]]]:
    """Gains on all sides of 1, other ones for each site."""
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0.5, 2.5, (rows, columns)).tolist() for name in SITES}


def samples_of(fmt: RawFormat, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << fmt.depth, (fmt.height, fmt.width))


def between(mesh: np.ndarray, x: float, y: float) -> float:
    """The gain at (x, y), in nodes, from the four around it."""
    rows, columns = mesh.shape
    left, top = min(int(x), columns - 2), min(int(y), rows - 2)
    u, v = x - left, y - top
    upper = (1 - u) * mesh[top, left] + u * mesh[top, left + 1]
    lower = (1 - u) * mesh[top + 1, left] + u * mesh[top + 1, left + 1]
    return (1 - v) * upper + v * lower


@pytest.mark.parametrize(("name", "sites"), [("BayerRG8", "R Gr Gb B"), ("BayerGB8", "Gb B R Gr")])
@pytest.mark.parametrize("size", [(14, 10), (9, 7), (2, 2), (3, 2)])
def test_gains_lie_between_the_nodes_around_a_pixel(name: str, sites: str, size: tuple[int, int]) -> None:
    fmt, flat = RawFormat(*size, name), field()
    gains = gain_map(checked_mesh(flat), fmt)
    tables = row_tables(checked_mesh(flat), fmt)
    by_place = tables.gains.reshape(4, tables.nodes, tables.half)
    for y, x in np.ndindex(gains.shape):
        place = y % 2 * 2 + x % 2
        mesh = np.array(flat[sites.split()[place]])
        last = [(count - 1 - start) // 2 for count, start in zip(size, (x % 2, y % 2), strict=True)]
        at = [k // 2 / end * (nodes - 1) if end else 0 for k, end, nodes in zip((x, y), last, (5, 4), strict=True)]
        assert gains[y, x] == pytest.approx(between(mesh, *at), rel=1e-12)
        above, below = by_place[place, tables.before[y] : tables.before[y] + 2, x // 2]
        assert above + tables.share[y] * (below - above) == pytest.approx(gains[y, x], rel=1e-5)


def test_json_values_are_the_same_mesh() -> None:
    mesh = checked_mesh(field())
    assert mesh.shape == (4, 4, 5)
    np.testing.assert_array_equal(checked_mesh(to_json(mesh)), mesh)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"Gb": None}, ["no mesh for Gb"]),
        ({"Gr": None, "Gb": None, "B": None}, ["no mesh for Gr, Gb, B"]),
        ({"G": [[1, 1], [1, 1]]}, ["'G'", "no colour site"]),
        ({"B": [[1, 1], [1, 1]]}, ["not of one size", "R has 4x5", "B 2x2"]),
        ({"R": [[1, 1], [1]]}, ["mesh R", "as many numbers each"]),
        ({"R": [[1, "2"], [1, 1]]}, ["mesh R", "as many numbers each"]),
        ({"R": 1.5}, ["mesh R", "as many numbers each"]),
        ({"Gr": [[1.0] * 5]}, ["mesh Gr", "1x5 gains", "2 to 65 rows"]),
        ({"Gr": [[1.0] * 66] * 4}, ["4x66 gains"]),
        ({"B": [[1.0, 0.2], [1, 1]]}, ["gain 0.2 in row 0, column 1 of the mesh B", "0.25 to 16"]),
        ({"B": [[1.0, 1.0], [16.5, 1]]}, ["gain 16.5 in row 1, column 0"]),
        ({"B": [[1.0, 1.0], [1, math.nan]]}, ["gain nan"]),
        ({"B": [[1.0, 1.0], [1, math.inf]]}, ["gain inf"]),
    ],
)
def test_what_is_no_flat_field_is_refused_in_a_sentence(changes: dict[str, Any], parts: list[str]) -> None:
    flat = {name: mesh for name, mesh in {**field(), **changes}.items() if mesh is not None}
    with pytest.raises(UserError) as refused:
        open_engine("classic", flat_field=flat)
    for part in parts:
        assert part in str(refused.value)


def test_mono_frames_have_none(rings) -> None:
    fmt = RawFormat(16, 8, "Mono8")
    engine = open_engine("classic", flat_field=field())
    with pytest.raises(UserError, match="Mono8 is none; leave flat_field out"):
        engine.prepare(fmt, 1, *rings(fmt, [samples_of(fmt)]))
    engine.close()


def develop(rings, fmt: RawFormat, samples: np.ndarray, engine: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture, payload, and gains."""
    raw, srgb = rings(fmt, [samples])
    try:
        engine.prepare(fmt, 1, raw, srgb)
        ticket = engine.develop([0], [0], np.tile(NOTHING_GIVEN, (1, max(1, len(engine.info.inputs) // 3))))
        ticket.wait()
        gains = ticket.white_balance[0].copy()
    finally:
        engine.close()
    assert raw.untouched()
    assert srgb.untouched()
    return srgb.slot(0).reshape(fmt.height, fmt.width, 3).copy(), raw.slot(0), gains


def off_by(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("name", BAYER)
def test_classic_is_as_the_reference(rings, name: str) -> None:
    for size, clamp in (((76, 53), False), ((44, 31), True), ((4, 2), False), ((37, 29), False)):
        if name.endswith("p") and size[0] % 4:
            continue
        fmt = RawFormat(*size, name, 7.5, 230)
        options: dict[str, Any] = {"flat_field": field(), "defects": [(0, 0), (3, 1)], "clamp_outliers": clamp}
        engine = ClassicEngine(white_balance=GAINS, threads=2, **options)
        shown, raw, _ = develop(rings, fmt, samples_of(fmt), engine)
        assert off_by(shown, classic_reference(raw, fmt, GAINS, **options)) <= 2


def onnx_runtime(model: Any, raw: np.ndarray) -> np.ndarray:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    feed = {"raw": raw.reshape(shape), "params": np.array([GAINS], np.float32)}
    feed = {value.name: feed[value.name] for value in session.get_inputs()}
    return session.run(None, feed)[0][0]


@pytest.mark.parametrize("defects", [[], [(0, 0), (3, 2), (7, 5)]])
def test_grafted_graphs_are_as_the_reference(make_core: Callable[..., Any], defects: list[tuple[int, int]]) -> None:
    small = make_core(multiple=8)
    options: dict[str, Any] = {"flat_field": field(), "defects": defects}
    for name in BAYER:
        for size in ((16, 8), (12, 7), (20, 13)):
            if name.endswith("p") and size[0] % 4:
                continue
            fmt = RawFormat(*size, name, 6.5, 200)
            raw = pack(samples_of(fmt), fmt)
            want = graft_reference(raw, fmt, small.run, small.core.info, GAINS, **options)
            assert off_by(onnx_runtime(graft(small.core, fmt, **options), raw), want) <= 1, fmt
            assert len(np.unique(want)) > 4


def shaded(fmt: RawFormat, light: float = 0.6) -> tuple[np.ndarray, dict[str, list[list[float]]]]:
    """An even surface behind a lens that darkens the corners, red more than blue and about another centre, as samples;
    and what makes up for it."""

    def kept(x: np.ndarray, y: np.ndarray, name: str) -> np.ndarray:
        strength, centre = {"R": (0.45, 0.1), "Gr": (0.35, 0), "Gb": (0.35, 0), "B": (0.25, -0.1)}[name]
        return 1 - strength * ((x - centre) ** 2 + (y - centre) ** 2) / 2.5

    flat, samples = {}, np.empty((fmt.height, fmt.width))
    for place, name in enumerate(["Gr", "R", "B", "Gb"] if "GR" in fmt.pixel_format else ["R", "Gr", "Gb", "B"]):
        at = np.s_[place // 2 :: 2, place % 2 :: 2]
        rows, columns = samples[at].shape
        v, u = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
        samples[at] = light * kept(u, v, name)
        nodes = np.meshgrid(np.linspace(-1, 1, 17), np.linspace(-1, 1, 13))
        flat[name] = (1 / kept(*nodes, name)).tolist()
    span = fmt.white_level - fmt.black_level
    return np.rint(fmt.black_level + samples * span).astype(np.uint16), flat


def spread(picture: np.ndarray) -> float:
    """By how much linear light lies around its mean at most, in parts of it, of any colour."""
    linear = picture / 255.0
    return float(np.abs(linear / linear.mean((0, 1)) - 1).max())


@pytest.mark.parametrize("name", ["BayerRG12", "BayerGR16"])
def test_a_shaded_frame_becomes_flat_whatever_develops_it(rings, make_core: Callable[..., Any], name: str) -> None:
    torch = pytest.importorskip("torch")
    from ispeed.engines.torch_gpu import TorchEngine

    class Light(torch.nn.Module):
        def forward(self, raw: Any, params: Any) -> Any:
            return torch.nn.functional.interpolate(raw[:, [0, 1, 3]], scale_factor=2)

    torch.set_num_threads(1)
    fmt = RawFormat(128, 96, name, 64)
    samples, flat = shaded(fmt)
    code = 1 / 153  # of 0.6
    options: dict[str, Any] = {"tone": "linear", "white_balance": (1.0, 1.0, 1.0)}
    info = make_core(output="linear", multiple=4).core.info
    assert spread(develop(rings, fmt, samples, ClassicEngine(**options))[0]) > 0.2
    options["flat_field"] = flat
    by_torch = TorchEngine(None, core=(Light(), info), device="cpu", **options)
    shown = [
        classic_reference(pack(samples, fmt), fmt, tone="linear", flat_field=flat),
        *(develop(rings, fmt, samples, engine)[0] for engine in (ClassicEngine(**options), by_torch)),
    ]
    for picture in shown:
        assert spread(picture) <= code * 1.01
        assert off_by(picture, shown[0]) <= 1
    planes = onnx_runtime(make_head(fmt, 4, flat_field=flat), pack(samples, fmt))
    assert np.abs(planes / 0.6 - 1).max() < 0.008  # what lies between the nodes is no straight line


def test_the_grey_world_is_that_of_the_even_frame(rings) -> None:
    for name in ("BayerRG12", "BayerGR12p", "BayerBG10p"):
        fmt = RawFormat(128, 96, name, 16, 1000)
        flat = field(3, 3)
        gains = gain_map(checked_mesh(flat), fmt)
        even = np.full((fmt.height, fmt.width), 150.0)
        for place, colour in enumerate(fmt.cfa):
            even[place // 2 :: 2, place % 2 :: 2] *= {"R": 1.0, "G": 2.0, "B": 1.5}[colour]
        samples = np.rint(16 + even / gains).astype(np.uint16)
        found = develop(rings, fmt, samples, ClassicEngine(flat_field=flat))[2]
        np.testing.assert_allclose(found, [2, 1, 4 / 3], rtol=2e-3)
        raw = pack(samples, fmt)
        np.testing.assert_allclose(world_gains([raw], fmt, checked_mesh(flat)), found, rtol=1e-6)
        assert np.abs(world_gains([raw], fmt) - found).max() > 0.02


def test_burnt_out_stays_white(rings) -> None:
    fmt = RawFormat(32, 24, "BayerRG8")
    flat = {name: [[1.0, 1.5], [2.0, 1.0]] for name in SITES}
    shown, _, _ = develop(rings, fmt, np.full((24, 32), 255), ClassicEngine(white_balance=GAINS, flat_field=flat))
    assert (shown == 255).all()
