"""The five-level network: what it counts, what each level runs and learns, and that engines show what it makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from ispeed.engines import RawFormat, open_engine, pack
from ispeed.engines._openvino import openvino_core
from ispeed.engines.core import read_core
from ispeed.engines.errors import UserError
from ispeed.engines.graph_reference import graft_reference
from ispeed.engines.half import rounded_to_half
from ispeed.engines.slots import Slots
from ispeed.train import cli
from ispeed.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ispeed.train.models import NETWORKS, CoreModule, form_of, make_network
from ispeed.train.models.hdrisp import (
    LEVELS,
    MULTIPLE,
    ChannelPlaceAttention,
    HdrISP,
    Illumination,
    InstanceNorm,
    NeighbourAttention,
    SimAM,
    Up,
)

Array = npt.NDArray[Any]
HALF = MULTIPLE // 2
TOLERANCE = 1e-4
GAINS = np.array([1.8, 1.0, 1.5], np.float32)
EACH_LEVEL = pytest.mark.parametrize("level", range(LEVELS))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)


def striking(network: HdrISP) -> HdrISP:
    """With pictures that have contrast, because no layer weakens what it sees."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return network.eval()


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def multiply_adds(network: nn.Module, *seen: Tensor) -> int:
    """Of convolutions, among them those that connect fully, on a device that computes no numbers."""
    total = 0

    def count(module: Any, inputs: Any, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    hooks = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear))
    ]
    network(*seen)
    for hook in hooks:
        hook.remove()
    return total


# ---- what it counts ----------------------------------------------------------------------------------------


def test_parameters_of_the_published_one():
    assert parameters(make_network("hdrisp")) == 6_473_474
    assert {parameters(HdrISP(level, 4)) for level in range(LEVELS)} == {parameters(HdrISP(0, 4))}
    assert parameters(HdrISP(0, 16)) < parameters(HdrISP()) / 3.9


def test_operations_of_the_published_one():
    with torch.device("meta"):
        network, planes = HdrISP(), torch.empty(1, 4, 224, 224)
        assert network(planes).shape == (1, 3, 448, 448)
        sizes = {"1": (32, 224), "2": (64, 112), "3": (128, 56), "4": (256, 28)}
        heads = sum(multiply_adds(network.heads[k], torch.empty(1, c, n, n)) for k, (c, n) in sizes.items())
        counted = multiply_adds(network, planes)
        assert multiply_adds(HdrISP(4), planes) < counted / 5
    assert counted / 1e9 == pytest.approx(31.51, abs=0.005)
    assert (counted + heads) / 1e9 == pytest.approx(31.6, abs=0.05), "the published count has pictures of all levels"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"level": 5}, "level is 5: it is 0, the full size, to 4"),
        ({"level": -1}, "level is -1"),
        ({"level": 2.0}, r"level is 2\.0"),
        ({"width": 3}, "width is 3: it is an even number of channels, 2 or more"),
        ({"width": 0}, "width is 0"),
        ({"form": "rgb"}, "hdrisp has no form rgb; it has raw alone"),
        ({"noise": {"gain_db": [0, 24]}}, "is told no noise level"),
    ],
)
def test_what_cannot_be_made(options: dict[str, Any], problem: str):
    with pytest.raises(ValueError, match=problem):
        make_network("hdrisp", **options)


# ---- its parts, written down once more ---------------------------------------------------------------------


def maps(*sizes: int) -> Tensor:
    return torch.randn(*sizes, dtype=torch.float64)


def same(given: Tensor, expected: Array, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(given.detach().numpy(), expected, atol=tolerance, rtol=0)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(("channels", "size"), [(256, 5), (128, 5), (16, 3), (2, 1)])
def test_attention_of_neighbours(channels: int, size: int):
    part, x = NeighbourAttention(channels).double(), maps(2, channels, 3, 4)
    weights, means = part.mix.weight.detach().numpy()[0, 0], x.numpy().mean((2, 3))
    assert len(weights) == size
    around = np.pad(means, ((0, 0), (size // 2, size // 2)))
    factors = np.stack([around[:, k : k + channels] for k in range(size)], 2) @ weights
    same(part(x), x.numpy() * sigmoid(factors)[..., None, None])


def through(layers: nn.Module, x: Array) -> Array:
    """Fully connected layers on [B, C]."""
    rows = [layer for layer in layers.modules() if isinstance(layer, nn.Conv2d)]
    for k, layer in enumerate(rows):
        weight, bias = (p.detach().numpy() for p in layer.parameters())
        x = (np.maximum(x, 0) if k else x) @ weight[:, :, 0, 0].T + bias
    return x


def test_attention_of_channels_and_places():
    part, x = ChannelPlaceAttention(8, 2).double(), maps(2, 8, 5, 6)
    means, maxima = x.numpy().mean((2, 3)), x.numpy().max((2, 3))
    y = x.numpy() * sigmoid(through(part.of_means, means) + through(part.of_maxima, maxima))[..., None, None]
    around = np.pad(np.stack([y.max(1), y.mean(1)], 1), ((0, 0), (0, 0), (3, 3), (3, 3)))
    windows = np.lib.stride_tricks.sliding_window_view(around, (7, 7), (2, 3))
    factors = np.einsum("bcyxij,cij->byx", windows, part.places.weight.detach().numpy()[0])
    same(part(x), x.numpy() + y * sigmoid(factors)[:, None])


def test_illumination():
    part, x = Illumination(4).double(), maps(2, 4, 5, 6)
    around = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3), (2, 3))
    convolution = next(m for m in part.local if isinstance(m, nn.Conv2d))
    assert convolution.bias is None
    places = sigmoid(np.einsum("bcyxij,ocij->boyx", windows, convolution.weight.detach().numpy()))
    channels = sigmoid(through(part.whole, x.numpy().mean((2, 3))))
    same(part(x), x.numpy() * places * channels[..., None, None], 1e-6)


def test_simam():
    x = 3 * maps(2, 3, 4, 5) + 1
    squares = (x.numpy() - x.numpy().mean((2, 3), keepdims=True)) ** 2
    e = squares / (4 * (squares.sum((2, 3), keepdims=True) / (4 * 5 - 1) + 1e-4)) + 0.5
    same(SimAM()(x), x.numpy() * sigmoid(e), 1e-5)


def test_norm_and_its_slopes():
    """A flat channel stops them; in others they are those of torch."""
    ours, theirs = InstanceNorm(3).train(), nn.InstanceNorm2d(3, affine=True)
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(torch.tensor([1.5, -0.5, 2.0]))
            norm.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    x = torch.randn(2, 3, 4, 5)
    x[1, 2] = 0.7
    towards, slopes = torch.randn_like(x), []
    for norm in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y = norm(leaf)
        y.backward(towards)
        slopes.append(leaf.grad)
        same(y, theirs(x).detach().numpy(), 1e-6)
    flat, usual = slopes[0][1, 2], slopes[1][1, 2]
    assert usual.abs().max() > 300 > 1e-3 > flat.abs().max()
    slopes[1][1, 2] = flat
    torch.testing.assert_close(*slopes, atol=1e-4, rtol=1e-4)


def test_upsampling_keeps_corners_on_corners():
    ramp = torch.linspace(0, 9, 12).expand(1, 4, 3, 12)
    same(Up(4, 2)[0](ramp), np.broadcast_to(np.linspace(0, 9, 24), (1, 4, 6, 24)), 1e-5)


# ---- levels ------------------------------------------------------------------------------------------------


@EACH_LEVEL
@pytest.mark.parametrize(("batch", "rows", "columns"), [(1, 2, 2), (2, 3, 2)])
def test_picture_of_the_size_of_the_level(level: int, batch: int, rows: int, columns: int):
    """From the smallest on that an engine gives: there the deepest maps are 2 x 2."""
    network = striking(HdrISP(level, 4))
    height, width = rows * HALF, columns * HALF
    with torch.inference_mode():
        picture = network(torch.rand(batch, 4, height, width))
    assert network.scale == 2**level
    assert picture.shape == (batch, 3, 2 * height // network.scale, 2 * width // network.scale)
    assert 0 <= picture.min() < picture.max() <= 1


@EACH_LEVEL
def test_only_what_a_level_needs_runs_and_learns(level: int):
    network, ran = HdrISP(level, 4), set()
    for name, module in network.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.register_forward_hook(lambda module, inputs, output, name=name: ran.add(name))
    network(torch.rand(1, 4, 16, 24)).square().sum().backward()
    learning = {name.rpartition(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert learning == ran
    assert all(p.requires_grad == (p.grad is not None) for p in network.parameters())


def test_the_gradient_reaches_every_weight():
    network = HdrISP(0, 16)
    network(torch.rand(2, 4, 32, 32)).square().sum().backward()
    before_norms = {
        f"{name}.1.bias" for name, m in network.named_modules() if isinstance(m, nn.Sequential) and _has_norm(m)
    }
    assert len(before_norms) == 20, "which take a mean that is the same everywhere away again"
    learn = {n: p.grad for n, p in network.named_parameters() if p.requires_grad and n not in before_norms}
    assert [name for name, grad in learn.items() if grad is None or not grad.abs().sum() > 0] == []


def _has_norm(layers: nn.Sequential) -> bool:
    return any(isinstance(layer, InstanceNorm) for layer in layers)


def test_weights_of_one_level_begin_the_next():
    coarse, fine, planes = striking(HdrISP(3, 4)), HdrISP(2, 4).eval(), torch.rand(1, 4, 16, 16)
    fine.load_state_dict(coarse.state_dict())
    seen: list[Tensor] = []
    for network in (coarse, fine):
        network.bodies["3"].register_forward_hook(lambda module, inputs, output: seen.append(output))
        network(planes)
    assert torch.equal(*seen)


def test_frames_of_a_batch_do_not_touch_each_other():
    network, planes = striking(HdrISP(0, 4)), torch.rand(3, 4, 16, 24)
    with torch.inference_mode():
        torch.testing.assert_close(network(planes)[1], network(planes[1:2])[0], atol=1e-5, rtol=0)


# ---- numbers of few bits, and frames without contrast ------------------------------------------------------


def test_bfloat16_is_near_float32():
    network = striking(HdrISP(0, 8))
    planes = torch.rand(1, 4, 16, 16).repeat_interleave(8, 2).repeat_interleave(8, 3)
    with torch.inference_mode():
        exact = network(planes)
        with torch.autocast("cpu", torch.bfloat16):
            near = network(planes)
    assert exact.std() > 0.03
    assert (near - exact).abs().mean() < 3e-3
    assert (near - exact).abs().max() < 0.03


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("level", [0, 4])
def test_black_and_white_frames_are_no_harm(level: int, half: bool):
    for value in (0.0, 1.0):
        network = HdrISP(level, 4)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            picture = network(torch.full((1, 4, 32, 32), value))
        picture.float().square().sum().backward()
        assert torch.isfinite(picture).all()
        slopes = [p.grad for p in network.parameters() if p.grad is not None]
        assert all(torch.isfinite(slope).all() for slope in slopes)
        assert max(float(slope.abs().max()) for slope in slopes) < 1e4


# ---- export ------------------------------------------------------------------------------------------------


def stored(network: HdrISP, path: Path, **options: Any) -> Path:
    save_checkpoint(path, Checkpoint(network, "hdrisp", options, run="none", data="chance", licence="CC0"))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A network, and its core as isp-export writes it."""
    torch.manual_seed(4)
    network = striking(HdrISP(0, 4))
    checkpoint = stored(network, tmp_path_factory.mktemp("hdrisp") / "hdrisp.pt", width=4)
    path = checkpoint.with_suffix(".onnx")
    assert cli.export([str(checkpoint), "-o", str(path)]) == 0
    return SimpleNamespace(network=load_checkpoint(checkpoint).network, core=path, checkpoint=checkpoint)


def example(batch: int, height: int, width: int) -> tuple[Array, Array]:
    chance = np.random.default_rng(2)
    blocks = chance.uniform(-0.02, 1, (batch, 4, height // 4, width // 4)).astype(np.float32)
    return blocks.repeat(4, 2).repeat(4, 3), np.tile(GAINS, (batch, 1))


def by_torch(network: nn.Module, raw: Array, params: Array) -> Array:
    with torch.inference_mode():
        return CoreModule(network).eval()(torch.from_numpy(raw), torch.from_numpy(params)).numpy()


def by_onnx_runtime(model: Any) -> Callable[[Array, Array], Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda raw, params: session.run(None, {"raw": raw, "params": params})[0]


def test_runtimes_calculate_what_torch_does(made: SimpleNamespace):
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino_core().compile_model(made.core, "CPU", exact)
    runners = [by_onnx_runtime(made.core), lambda raw, params: compiled([raw, params])[0]]
    for batch, height, width in ((1, 80, 48), (2, 16, 24)):
        raw, params = example(batch, height, width)
        expected = by_torch(made.network, raw, params)
        assert expected.std() > 0.02
        for run in runners:
            np.testing.assert_allclose(run(raw, params), expected, atol=TOLERANCE, rtol=0)


def test_the_core_says_what_it_is(made: SimpleNamespace):
    core = read_core(made.core)
    assert (core.info.model, core.info.width, core.info.multiple) == ("hdrisp", 4, MULTIPLE)
    assert (core.info.output, core.info.precision, core.info.inputs) == ("srgb", "fp32", ("wb_r", "wb_g", "wb_b"))
    assert [(o.domain, o.version) for o in core.model.opset_import] == [("", 17)]
    known = {tensor.name for tensor in core.model.graph.initializer}
    assert [node.name for node in core.model.graph.node if known.issuperset(node.input)] == []
    casts = [node for node in core.model.graph.node if node.op_type == "Cast"]
    assert len(casts) == 4, "of the sizes, for SimAM"
    assert (NETWORKS["hdrisp"].width, form_of(made.network)) == (32, "raw")


def test_float16_holds_the_number_of_places(made: SimpleNamespace):
    """Of which the maps of level 1 have more than its largest number."""
    run = by_onnx_runtime(rounded_to_half(read_core(made.core).model).SerializeToString())
    raw, params = example(1, 256, 264)
    given, expected = run(raw, params), by_torch(made.network, raw, params)
    assert raw.shape[2] * raw.shape[3] > 65504
    assert np.abs(given - expected).mean() < 2e-3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_engine_shows_what_it_makes(
    made: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fmt, chance = RawFormat(50, 46, "BayerGR12", 64), np.random.default_rng(3)
    raw, srgb = Slots(1, fmt.payload_size), Slots(1, 3 * fmt.width * fmt.height)
    samples = chance.integers(40, 4096, (fmt.height // 2, fmt.width // 2)).astype(np.uint16)
    raw.slot(0)[:] = pack(samples.repeat(2, 0).repeat(2, 1), fmt)
    try:
        engine = open_engine(str(made.core), precision=precision, threads=1)
    except UserError as error:
        if precision == "fp32":
            raise
        pytest.skip(str(error))
    try:
        engine.prepare(fmt, 1, raw, srgb)
        engine.develop([0], [0], GAINS[None]).wait()
    finally:
        engine.close()

    def run_core(planes: Array, params: Array) -> Array:
        return by_torch(made.network, planes[None].astype(np.float32), params[None].astype(np.float32))[0]

    shown = srgb.slot(0).reshape(fmt.height, fmt.width, 3).astype(int)
    expected = graft_reference(raw.slot(0), fmt, run_core, read_core(made.core).info, GAINS)
    away = np.abs(shown - expected)
    assert expected.std() > 5
    assert away.max() <= (1 if precision == "fp32" else 8)
    assert away.mean() < (0.1 if precision == "fp32" else 1)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_coarse_levels_are_not_exported(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]):
    checkpoint = stored(HdrISP(2, 2), tmp_path / "coarse.pt", level=2, width=2)
    assert cli.export([str(checkpoint), "-o", str(tmp_path / f"coarse{suffix}")]) == 2
    shown = capsys.readouterr()
    assert shown.err == (
        "isp-export: error: a network at level 2 gives pictures of 1/4 of the size, for training alone; train on to "
        "level 0 and export that\n"
    )
    assert list(tmp_path.iterdir()) == [checkpoint]
