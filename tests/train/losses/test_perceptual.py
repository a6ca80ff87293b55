"""The perceptual loss: VGG-19 against the same layers written out, any encoder, and files that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d

from ispeed.engines import UserError
from ispeed.train.losses import VGG19, Perceptual, load_vgg19

CHANNELS = [64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512]
# Places of the convolutions in torchvision's `features`, counted by hand from its configuration "E".
PLACES = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]


def random_weights(convolutions: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    state, inputs = {"classifier.0.bias": torch.zeros(7)}, 3
    for place, outputs in zip(PLACES[:convolutions], CHANNELS, strict=False):
        spread = (2 / (9 * inputs)) ** 0.5
        state[f"features.{place}.weight"] = spread * torch.randn(outputs, inputs, 3, 3, generator=generator)
        state[f"features.{place}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
        inputs = outputs
    return state


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(random_weights(4), path)
    return path


def written_out(picture: Tensor, state: dict[str, Tensor]) -> list[Tensor]:
    """relu1_2 and conv2_2."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (picture - mean[:, None, None]) / std[:, None, None]

    def conv(x: Tensor, place: int) -> Tensor:
        return conv2d(x, state[f"features.{place}.weight"], state[f"features.{place}.bias"], padding=1)

    first = conv(conv(x, 0).relu(), 2).relu()
    return [first, conv(conv(max_pool2d(first, 2), 5).relu(), 7)]


def test_features_of_vgg19(weights_file: Path):
    network = load_vgg19(weights_file, ["conv2_2", "relu1_2"])
    picture = torch.rand(2, 3, 18, 21, generator=torch.Generator().manual_seed(1))
    for seen, expected in zip(network(picture), written_out(picture, random_weights(4)), strict=True):
        torch.testing.assert_close(seen, expected)


def test_layout_of_all_of_vgg19():
    network = VGG19()
    convolutions = {i: layer for i, layer in enumerate(network.features) if isinstance(layer, nn.Conv2d)}
    assert list(convolutions) == PLACES
    assert [layer.out_channels for layer in convolutions.values()] == CHANNELS
    assert sum(p.numel() for p in network.parameters()) == 20_024_384, "torchvision's features, all convolutions"
    assert network.taps == [3, 8, 17, 26, 35]
    assert network.least == 16
    with pytest.raises(ValueError, match="at least 16 x 16 pixels"):
        network(torch.zeros(1, 3, 15, 40))


def test_both_distances_of_known_features(weights_file: Path):
    shown, wanted = torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    state = random_weights(4)
    pairs = [
        (a.numpy().astype(np.float64), b.numpy().astype(np.float64))
        for a, b in zip(written_out(shown, state), written_out(wanted, state), strict=True)
    ]
    units = [(a / np.linalg.norm(a, axis=1)[:, None], b / np.linalg.norm(b, axis=1)[:, None]) for a, b in pairs]
    unit = [((a - b) ** 2).sum(1).mean() for a, b in units]
    absolute = [np.abs(a - b).mean() for a, b in pairs]
    network = load_vgg19(weights_file, ["relu1_2", "conv2_2"])
    assert float(Perceptual(network)(shown, wanted)) == pytest.approx(np.mean(unit), rel=1e-4)
    assert float(Perceptual(network, "l1")(shown, wanted)) == pytest.approx(np.mean(absolute), rel=1e-4)
    weighted = Perceptual(network, "l1", [3, 1])(shown, wanted)
    assert float(weighted) == pytest.approx((3 * absolute[0] + absolute[1]) / 4, rel=1e-4)


def test_bf16_comes_close(weights_file: Path):
    """The encoder may run in few bits; the distance is float32."""
    loss = Perceptual(load_vgg19(weights_file, ["relu1_2", "relu2_2"]))
    shown, wanted = torch.rand(2, 1, 3, 24, 24, generator=torch.Generator().manual_seed(3))
    shown.requires_grad_()
    exact = loss(shown, wanted)
    with torch.autocast("cpu", torch.bfloat16):
        result = loss(shown, wanted)
    assert result.dtype == torch.float32
    assert float(result.detach()) == pytest.approx(float(exact.detach()), rel=0.05)
    result.backward()
    assert shown.grad is not None
    assert torch.isfinite(shown.grad).all()


def test_the_encoder_stays_as_it_is():
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5))
    loss = Perceptual(Listed(encoder)).train()
    assert not encoder.training
    assert not any(p.requires_grad for p in loss.parameters())
    shown, wanted = torch.rand(2, 1, 3, 8, 8)
    shown.requires_grad_()
    first, second = loss(shown, wanted), loss(shown, wanted)
    assert torch.equal(first, second), "no dropout"
    first.backward()
    assert all(p.grad is None for p in encoder.parameters())


class Listed(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, picture: Tensor) -> list[Tensor]:
        return [self.network(picture)]


def test_wrong_settings():
    with pytest.raises(ValueError, match="choose one of unit, l1"):
        Perceptual(nn.Identity(), "l2")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="positive number"):
        Perceptual(nn.Identity(), weights=[1.0, 0.0])
    with pytest.raises(ValueError, match="2 weights for 1 features"):
        Perceptual(Listed(nn.Identity()), weights=[1.0, 1.0])(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))
    for taps in ([], ["relu6_1"], "relu1_1"):
        with pytest.raises(ValueError, match="give a list of names"):
            VGG19(taps)


def test_files_that_cannot_be_used(tmp_path: Path, weights_file: Path):
    path = tmp_path / "weights.pth"
    with pytest.raises(UserError, match=r"No such file.*torchvision's vgg19"):
        load_vgg19(path)
    path.write_bytes(weights_file.read_bytes()[:5000])
    with pytest.raises(UserError, match="cut off or damaged"):
        load_vgg19(path)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="is no state dict; give the state dict"):
        load_vgg19(path)
    torch.save(nn.Conv2d(3, 3, 3), path)
    with pytest.raises(UserError, match="may hold code"):
        load_vgg19(path)
    with pytest.raises(UserError, match=r"features\.10\.weight is missing or of another shape"):
        load_vgg19(weights_file)  # four convolutions, sixteen asked for
