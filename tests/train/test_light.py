"""The smallest ISPs: what they count, what they see, and that engines show what they make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ispeed.engines import RawFormat, open_engine, pack
from ispeed.engines.core import read_core
from ispeed.engines.graph_reference import graft_reference
from ispeed.engines.slots import Slots
from ispeed.train import cli
from ispeed.train.checkpoint import Checkpoint, save_checkpoint
from ispeed.train.data.cfa import mosaic
from ispeed.train.models import NETWORKS, CoreModule, make_network
from ispeed.train.models.light import MULTIPLES, WIDTHS, RetinexBlock, by_colour

GAINS = np.array([1.8, 1.0, 1.5], np.float32)
EACH = pytest.mark.parametrize("name", list(WIDTHS))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(5)


def operations(network: nn.Module, seen: Tensor) -> int:
    """Multiply-adds of convolutions, on a device that computes no numbers."""
    total = 0

    def count(module: Any, inputs: Any, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    network(seen)
    return total


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [("efficientisp", 3060, 0.152), ("robustisp", 1616, 0.079), ("rmfa-tiny", 29223, 3.39)],
)
def test_counts_of_the_published_ones(name: str, parameters: int, gmacs: float):
    with torch.device("meta"):
        network = make_network(name)
        assert sum(p.numel() for p in network.parameters()) == parameters
        counted = operations(network, torch.empty(1, 4, 224, 224)) / 1e9
    assert counted == pytest.approx(gmacs, abs=0.012 if name == "rmfa-tiny" else 0.001)


@EACH
@pytest.mark.parametrize("batch", [1, 3])
def test_picture_of_twice_the_packed_size(name: str, batch: int):
    network, half = make_network(name).eval(), MULTIPLES[name] // 2
    with torch.inference_mode():
        for height, width in ((4 * half, 6 * half), (3 * half, 2 * half)):
            planes = torch.rand(batch, 4, height, width)
            picture = network(planes)
            assert picture.shape == (batch, 3, 2 * height, 2 * width)
            assert 0 <= picture.min() <= picture.max() <= 1
            torch.testing.assert_close(network(planes[-1:])[0], picture[-1], atol=1e-5, rtol=0)


@EACH
def test_the_gradient_reaches_every_weight(name: str):
    network = make_network(name)
    for module in network.modules():
        if isinstance(module, RetinexBlock):
            module.channels[0].weight.data.abs_()  # a single squeezed channel may rest by chance
    network(torch.rand(2, 4, 16, 16)).square().sum().backward()
    for which, weights in network.named_parameters():
        assert weights.grad is not None, which
        assert weights.grad.abs().max() > 0, which


def test_white_is_no_end_in_training():
    network = make_network("efficientisp")
    nn.init.constant_(network.layers[4].bias, 3.0)
    planes = torch.rand(1, 4, 8, 8)
    assert network(planes).max() > 1
    assert network.eval()(planes).max() == 1


def test_samples_stand_in_the_plane_of_their_colour():
    picture = torch.rand(1, 3, 6, 8)
    frame = mosaic(picture, "RGGB")[0]
    packed = torch.stack([frame[y::2, x::2] for y, x in ((0, 0), (0, 1), (1, 0), (1, 1))])[None]
    spread = by_colour(packed)[0]
    for colour, places in enumerate((((0, 0),), ((0, 1), (1, 0)), ((1, 1),))):
        for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
            wanted = picture[0, colour, y::2, x::2] if (y, x) in places else torch.ones(3, 4)
            torch.testing.assert_close(spread[colour, y::2, x::2], wanted)


def test_what_a_retinex_block_adds():
    block, x = RetinexBlock(16).eval(), torch.randn(1, 16, 8, 12)
    nn.init.zeros_(block.fuse.weight)
    nn.init.zeros_(block.fuse.bias)
    torch.testing.assert_close(block(x), x, msg="where nothing is fused, what came in")


@pytest.mark.parametrize("width", [3, 0, 2, 6, True, 4.0])
def test_widths_that_cannot_be(width: Any):
    with pytest.raises(ValueError, match="a multiple of 4 channels"):
        make_network("efficientisp", width=width)


@EACH
def test_the_engine_shows_what_it_makes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From the checkpoint over isp-export and the engine on the processor, of a frame of another phase and odd size."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = make_network(name)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    checkpoint = tmp_path / "light.pt"
    save_checkpoint(checkpoint, Checkpoint(network.eval(), name, {}, run="none", data="chance", licence="CC0"))
    core = checkpoint.with_suffix(".onnx")
    assert cli.export([str(checkpoint), "-o", str(core)]) == 0
    info = read_core(core).info
    assert (info.model, info.width, info.multiple) == (name, WIDTHS[name], NETWORKS[name].multiple)
    fmt, chance = RawFormat(50, 46, "BayerGR12", 64), np.random.default_rng(3)
    raw, srgb = Slots(1, fmt.payload_size), Slots(1, 3 * fmt.width * fmt.height)
    raw.slot(0)[:] = pack(chance.integers(40, 4096, (fmt.height, fmt.width)).astype(np.uint16), fmt)
    engine = open_engine(str(core), precision="fp32", threads=1)
    try:
        engine.prepare(fmt, 1, raw, srgb)
        engine.develop([0], [0], GAINS[None]).wait()
    finally:
        engine.close()

    def run_core(planes: np.ndarray, params: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            given = CoreModule(network).eval()(
                torch.from_numpy(planes[None]).float(), torch.from_numpy(params[None]).float()
            )
        return given.numpy()[0]

    shown = srgb.slot(0).reshape(fmt.height, fmt.width, 3).astype(int)
    expected = graft_reference(raw.slot(0), fmt, run_core, info, GAINS)
    assert expected.std() > 5
    assert np.abs(shown - expected).max() <= 1
