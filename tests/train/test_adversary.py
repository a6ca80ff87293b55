"""Discriminators, what they see, how they and an ISP learn from each other, and what is balanced."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import torch
from torch import Tensor, nn

from ispeed.engines.errors import UserError
from ispeed.train.adversary import Adversary, balanced
from ispeed.train.adversary_settings import TERMS, AdversarySettings
from ispeed.train.metrics.lpips import AlexNet
from ispeed.train.models.discriminators import ColourDiscriminator, TextureDiscriminator
from ispeed.train.sight import load_colour, load_texture

EDGE = 64


def picture(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def settings(clean: Path, **values: Any) -> AdversarySettings:
    return AdversarySettings.model_validate({"photographs": "p", "texture": clean, "colour": clean, **values})


def adversary(clean: Path, **values: Any) -> Adversary:
    return Adversary(settings(clean, **values), EDGE, 3)


# ---- discriminators ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(8, 8), (13, 5)])
def test_texture_has_all_its_layers_from_the_start(height: int, width: int):
    judge = TextureDiscriminator(6, height, width)
    assert judge(torch.rand(3, 6, height, width)).shape == (3,)
    kernels = [layer for layer in judge.layers if isinstance(layer, nn.Conv2d)]
    assert [(k.out_channels, k.kernel_size[0], k.stride[0]) for k in kernels] == [
        *((48, 5, 2), (128, 3, 2), (192, 3, 1), (192, 3, 1), (128, 3, 2))
    ]
    assert [layer.out_features for layer in judge.judge if isinstance(layer, nn.Linear)] == [1024, 1]
    optimiser = torch.optim.SGD(judge.parameters(), 1.0)
    before = judge.judge[0].weight.detach().clone()
    judge(torch.rand(3, 6, height, width)).sum().backward()
    optimiser.step()
    assert (judge.judge[0].weight != before).any(), "what is made with the rest learns with it"


def test_colour_is_the_mean_over_places():
    judge, features = ColourDiscriminator(5), torch.rand(2, 5, 3, 4)
    tokens = features.flatten(2).mT
    torch.testing.assert_close(judge(features), judge(tokens))
    torch.testing.assert_close(judge(tokens), judge.layers(tokens)[..., 0].mean(1))


# ---- what they see -------------------------------------------------------------------------------------------


def test_without_a_file_colour_is_the_chroma_of_places(clean: Path):
    sight = load_colour(None)
    grey = picture(1, 1, EDGE, EDGE).expand(-1, 3, -1, -1)
    assert sight(grey)[0].abs().max() < 1e-6, "how bright pictures are is not seen"
    warm = (0.5 * grey + 0.25) * torch.tensor([1.2, 1.0, 0.8]).view(3, 1, 1)
    seen = sight(warm)[0]
    assert seen.shape == (1, 2, EDGE // 16, EDGE // 16)
    assert (seen[:, 0] < -0.1).all()
    assert (seen[:, 1] > 0.1).all()
    game = adversary(clean, texture=None, colour=None, weights={"colour": 1})
    made = grey.clone().requires_grad_()
    game.terms(made, warm)["colour"].backward()
    assert made.grad is not None
    assert made.grad.abs().max() > 0
    with pytest.raises(UserError, match="pictures of 8 pixels cannot be judged"):
        Adversary(settings(clean, colour=None, weights={"colour": 1}), 8, 3)


def test_texture_is_seen_in_grey_and_colour_without_texture(clean: Path):
    texture, colour = load_texture(clean), load_colour(clean)
    shown = picture(1, 3, EDGE, EDGE)
    grey = (shown * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    for seen, same in zip(texture(shown), texture(grey), strict=True):
        torch.testing.assert_close(seen, same, atol=1e-4, rtol=1e-4)
    assert [seen.shape[2] for seen in texture(shown)] == [EDGE // 4, EDGE // 8]
    flat = shown.mean((2, 3), keepdim=True).expand_as(shown)
    fine, coarse = (float((f(shown)[-1] - f(flat)[-1]).std()) for f in (texture, colour))
    assert coarse < fine / 2, "the blur takes texture away"
    red = flat * torch.tensor([1.2, 0.9, 0.9]).view(3, 1, 1)
    assert (colour(red)[0] - colour(flat)[0]).abs().max() > 1e-3


def test_alexnet_is_looked_through_where_its_weights_are_given(tmp_path: Path):
    torch.manual_seed(2)
    network, path = AlexNet(), tmp_path / "alexnet.pth"
    torch.save(network.state_dict(), path)
    seen = load_texture(path)(picture(1, 3, EDGE, EDGE))
    assert [each.shape[1] for each in seen] == [64, 256]
    grey = torch.full((1, 3, EDGE, EDGE), 0.5)
    torch.testing.assert_close(load_texture(path)(grey), [network(grey)[0], network(grey)[3]])
    with pytest.raises(UserError, match="holds neither a ViT"):
        load_colour(path)


# ---- the game ------------------------------------------------------------------------------------------------


def test_terms_are_relativistic(clean: Path):
    game = adversary(clean)
    made, photos = picture(4, 3, EDGE, EDGE), picture(4, 3, EDGE, EDGE, seed=2)
    assert tuple(game.terms(made, photos)) == TERMS
    for name, value in game.terms(made, photos).items():
        judge = game.judges[name]
        apart = judge(game.see(made)[name]) - judge(game.see(photos)[name])
        torch.testing.assert_close(value, torch.nn.functional.softplus(-apart).mean())
    for value in game.terms(made, made).values():
        assert float(value.detach()) == pytest.approx(math.log(2), rel=1e-5)
    assert set(adversary(clean, weights={"colour": 2}).terms(made, photos)) == {"colour"}


def test_slopes_reach_pictures_and_not_the_networks_that_see(clean: Path):
    game, made = adversary(clean), picture(2, 3, EDGE, EDGE).requires_grad_()
    torch.stack([*game.terms(made, picture(2, 3, EDGE, EDGE, seed=2)).values()]).sum().backward()
    assert made.grad is not None
    assert made.grad.abs().max() > 0
    assert all(weight.grad is None for name, weight in game.named_parameters() if not name.startswith("judges"))


def test_the_discriminators_learn_to_tell(clean: Path):
    game = adversary(clean, lr=3e-3, penalty=0.0)
    photos = picture(4, 3, EDGE, EDGE)
    made = photos.flip(0) * torch.tensor([1.0, 0.2, 0.2]).view(3, 1, 1)
    first = game.update(made, photos)
    for _ in range(60):
        last = game.update(made, photos)
    assert set(first) == {f"judge_{name}" for name in TERMS}
    assert all(float(first[name]) == pytest.approx(math.log(2), abs=0.2) for name in first)
    assert float(last["judge_colour"]) < 0.5
    assert float(game.terms(made, photos)["colour"].detach()) > 0.8, "and the ISP has to make up for it"


def test_penalties_are_squared_slopes_at_what_is_seen(clean: Path, monkeypatch: pytest.MonkeyPatch):
    """One step of plain descent on a single linear judge, whose slope is its weight whatever it sees."""
    game = adversary(clean, weights={"colour": 1}, penalty=2.0, clip=1e9)
    judge = _Line(game.see(picture(1, 3, EDGE, EDGE))["colour"].shape[1])
    game.judges["colour"] = judge
    game.optimiser = torch.optim.SGD(judge.parameters(), 0.1)  # pyright: ignore[reportAttributeAccessIssue]
    weight, same = judge.weight.detach().clone(), picture(3, 3, EDGE, EDGE)
    places = (EDGE // 8) ** 2
    game.update(same, same)  # nothing is told apart, so the penalty alone has a slope
    # the mean over places: the squared slope of one picture is weight**2 / places; at both, five times, weight 2
    wanted = weight - 0.1 * 5 * 2.0 * 2 * 2 * weight / places
    torch.testing.assert_close(judge.weight.detach(), wanted)


class _Line(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, channels))

    def forward(self, features: Tensor) -> Tensor:
        return torch.einsum("c,bchw->bhw", self.weight, features).mean((1, 2))


def test_it_goes_on_as_it_would_have(clean: Path):
    made, photos = picture(2, 3, EDGE, EDGE), picture(2, 3, EDGE, EDGE, seed=2)
    one, other = adversary(clean), Adversary(settings(clean), EDGE, 99)
    one.update(made, photos)
    other.restore(copy.deepcopy(one.state()))
    for game in (one, other):
        game.update(made, photos)
    for a, b in zip(one.judges.parameters(), other.judges.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_every_tenth_step(clean: Path):
    game = adversary(clean)
    assert [step for step in range(25) if game.due(step)] == [0, 10, 20]


# ---- balance -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_each_term_counts_by_its_weight_whatever_its_scale(scale: float):
    torch.manual_seed(1)
    network = nn.Conv2d(3, 3, 3, padding=1)
    seen = picture(2, 3, 8, 8)

    def terms(made: Tensor) -> dict[str, tuple[float, Tensor]]:
        return {"a": (2.0, scale * made.square().mean()), "b": (1.0, (made - 0.3).abs().mean())}

    made, weights = network(seen), [*network.parameters()]
    total = balanced(terms(made), made, weights)
    assert float(total.detach()) == pytest.approx(sum(w * float(v.detach()) for w, v in terms(made).values()), rel=1e-4)
    found = torch.cat([g.flatten() for g in torch.autograd.grad(total, weights)])
    wanted = torch.zeros_like(found)
    for weight, value in terms(network(seen)).values():
        slope = torch.cat([g.flatten() for g in torch.autograd.grad(value, weights, retain_graph=True)])
        wanted += weight * slope / slope.norm()
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_a_term_without_slope_is_no_harm():
    network, seen = nn.Conv2d(3, 3, 1), picture(1, 3, 4, 4)
    made = network(seen)
    total = balanced({"flat": (1.0, 0 * made.sum()), "b": (1.0, made.mean())}, made, [*network.parameters()])
    slopes = torch.autograd.grad(total, [*network.parameters()])
    assert all(torch.isfinite(slope).all() for slope in slopes)
    assert np.sqrt(sum(float(slope.square().sum()) for slope in slopes)) == pytest.approx(1, rel=1e-3)


# ---- wrong input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"weights": {"shape": 1}}, "there is no shape: give weights to some of texture, texture_deep, colour"),
        ({"weights": {"colour": 0}}, "nothing is judged: give weights"),
        ({"every": 0}, "greater than or equal to 1"),
        ({"lr": 0}, "greater than 0"),
        ({"nope": 1}, "nope"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, Any], says: str, clean: Path):
    with pytest.raises(pydantic.ValidationError, match=says):
        settings(clean, **values)


def test_pictures_that_are_too_small(clean: Path):
    with pytest.raises(UserError, match=r"pictures of 8 pixels cannot be judged: .*; choose a larger crop"):
        Adversary(settings(clean), 8, 1)
