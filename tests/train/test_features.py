"""Feature maps of VGG-19 and of our clean encoder behind one interface, and files that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d

from ispeed.engines import UserError
from ispeed.train.checkpoint import Checkpoint, save_checkpoint
from ispeed.train.features import DEPTHS, CleanEncoder, FeatureMaps, load_encoder, load_features
from ispeed.train.losses import make_loss
from ispeed.train.models import make_lwisp
from ispeed.train.models.core import CleanModule, Output

CHANNELS = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 16: 256, 19: 512, 21: 512}
"""Of VGG-19's convolutions up to conv4_2, by their place in torchvision's `features`."""


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator, state, inputs = torch.Generator().manual_seed(4), {}, 3
    for place, outputs in CHANNELS.items():
        spread = (2 / (9 * inputs)) ** 0.5
        state[f"features.{place}.weight"] = spread * torch.randn(outputs, inputs, 3, 3, generator=generator)
        state[f"features.{place}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
        inputs = outputs
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(state, path)
    return path


def write(folder: Path, form: str = "clean", model: str = "lwisp-s", output: Output = "srgb") -> tuple[Path, nn.Module]:
    torch.manual_seed(6)
    network, path = make_lwisp(model, form=form), folder / f"{model}-{form}-{output}.pt"  # pyright: ignore[reportArgumentType]
    save_checkpoint(path, Checkpoint(network, model, {"form": form} if form != "raw" else {}, output=output))
    return path, network.eval()


def picture(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_vgg19_written_out(vgg_file: Path):
    state, shown = torch.load(vgg_file), picture(2, 3, 18, 25)
    x = (shown - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    expected = {}
    for place in CHANNELS:
        if place in (5, 10, 19):
            x = max_pool2d(x, 2)
        x = conv2d(x, state[f"features.{place}.weight"], state[f"features.{place}.bias"], padding=1)
        expected[place] = x
        x = x.relu()
    found = load_features(vgg_file)(shown)
    assert list(found) == ["conv2_2", "conv3_1", "conv4_2"]
    for features, place in zip(found.values(), (7, 10, 21), strict=True):
        torch.testing.assert_close(features, expected[place])


@pytest.mark.parametrize("output", ["srgb", "linear"])
def test_the_clean_encoder_is_that_of_the_auto_encoder(tmp_path: Path, output: Output):
    """What its layers give when the whole auto-encoder runs as training runs it, for a camera with the colours of
    sRGB."""
    path, network = write(tmp_path, output=output)
    seen: list[Tensor] = []
    for name in ("c1", "c2", "c3"):
        network.get_submodule(name).register_forward_hook(lambda layer, given, features: seen.append(features))
    shown = picture(1, 3, 64, 96)
    CleanModule(network, output)(shown, torch.eye(3)[None])
    found = load_features(path)(shown)
    assert list(found) == list(DEPTHS)
    for features, expected in zip(found.values(), seen, strict=True):
        torch.testing.assert_close(features, expected, atol=2e-6, rtol=1e-4)


def test_both_give_features_of_the_same_sizes(tmp_path: Path, vgg_file: Path):
    shown = picture(1, 3, 30, 46)
    for path in vgg_file, write(tmp_path)[0]:
        for depth, features in load_features(path)(shown).items():
            assert features.shape[2:] == (30 // DEPTHS[depth], 46 // DEPTHS[depth])


def test_only_what_is_asked_for(tmp_path: Path, vgg_file: Path):
    for path in vgg_file, write(tmp_path)[0]:
        whole, some = load_features(path), load_features(path, ["conv3_1", "conv2_2", "conv3_1"])
        shown = picture(1, 3, 16, 16)
        found = some(shown)
        assert list(found) == ["conv2_2", "conv3_1"]
        assert all(torch.equal(features, whole(shown)[name]) for name, features in found.items())
        assert sum(p.numel() for p in some.parameters()) < sum(p.numel() for p in whole.parameters())
        some(shown[:, :, :8, :8])


def test_both_look_for_the_perceptual_loss(tmp_path: Path, vgg_file: Path):
    """Of VGG-19 the taps are those of its own layers; of a checkpoint the depths."""
    a, b = picture(1, 3, 32, 32), picture(1, 3, 32, 32, seed=2)
    ours = write(tmp_path)[0]
    for path, taps in (vgg_file, ["relu1_2", "conv3_1"]), (ours, ["conv2_2"]), (ours, None):
        see = load_encoder(path, taps)
        squared = torch.stack([(x - y).square().mean() for x, y in zip(see(a), see(b), strict=True)]).mean()
        loss = make_loss({"perceptual": {"file": str(path), "taps": taps, "distance": "mse"}})
        torch.testing.assert_close(loss(a, b)[0], squared)
    assert len(load_encoder(ours)(a)) == len(DEPTHS)
    with pytest.raises(ValueError, match="depths are"):
        load_encoder(ours, ["relu1_2"])


@pytest.mark.parametrize("output", ["srgb", "linear"])
def test_slopes_reach_the_picture_alone(tmp_path: Path, output: Output):
    features = load_features(write(tmp_path, output=output)[0]).train()
    assert not any(module.training for module in features.encoder.modules())
    for shown in picture(1, 3, 16, 16), torch.zeros(1, 3, 16, 16), 2 * picture(1, 3, 16, 16) - 0.5:
        shown.requires_grad_()
        sum(found.square().sum() for found in features(shown).values()).backward()  # pyright: ignore[reportAttributeAccessIssue]
        assert shown.grad is not None
        assert torch.isfinite(shown.grad).all()
    assert all(p.grad is None for p in features.parameters())


def test_slopes_of_the_clean_encoder(tmp_path: Path):
    features = load_features(write(tmp_path, output="linear")[0], ["conv2_2"]).double()
    shown = 0.1 + 0.8 * picture(1, 3, 4, 4).double()
    assert torch.autograd.gradcheck(lambda x: features(x)["conv2_2"], shown.requires_grad_())


def test_pictures_that_cannot_be_seen(tmp_path: Path, vgg_file: Path):
    clean, vgg = load_features(write(tmp_path)[0]), load_features(vgg_file)
    for shape in (1, 3, 16, 17), (1, 3, 14, 16), (1, 1, 16, 16), (3, 16, 16):
        with pytest.raises(ValueError, match="at least 16 x 16 pixels, H and W even"):
            clean(torch.zeros(shape))
    with pytest.raises(ValueError, match="at least 8 x 8"):
        vgg(torch.zeros(1, 3, 7, 9))


def test_one_name_for_each(vgg_file: Path):
    for depths in ([], "conv2_2", ["conv5_1"], [3]):
        with pytest.raises(ValueError, match="give a list of some of conv2_2, conv3_1, conv4_2"):
            load_features(vgg_file, depths)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="zip"):
        FeatureMaps(CleanEncoder(make_lwisp("lwisp-s", form="clean"), "srgb", ["conv2_2"]), list(DEPTHS))(  # pyright: ignore[reportArgumentType]
            torch.zeros(1, 3, 16, 16)
        )


def test_files_that_cannot_be_used(tmp_path: Path, vgg_file: Path):
    for path, problem in (
        (tmp_path / "none.pt", "cannot read the network for features .*; give a checkpoint of the form clean"),
        (write(tmp_path, "raw")[0], "holds a network of the form raw; give a checkpoint of the form clean, .* or the"),
        (write(tmp_path, "rgb")[0], "form rgb"),
        (write(tmp_path, model="lwisp-xs")[0], "holds lwisp-xs, which has no layer at half the size; train lwisp or"),
        (tmp_path / "core.onnx", "is a model core, which develops raw frames"),
    ):
        with pytest.raises(UserError, match=problem):
            load_features(path)
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(vgg_file.read_bytes()[:5000])
    with pytest.raises(UserError, match="cut off or damaged"):
        load_features(damaged)
    torch.save([1, 2], damaged)
    with pytest.raises(UserError, match="is no state dict"):
        load_features(damaged)
    torch.save({"features.0.weight": torch.zeros(2)}, damaged)
    with pytest.raises(UserError, match=r"features\.0\.weight is missing or of another shape"):
        load_features(damaged)
