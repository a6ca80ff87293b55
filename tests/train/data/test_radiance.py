"""Light of scenes with a large range: what is added to photographs, each by itself, and how it is drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ispeed.engines.errors import UserError
from ispeed.train.curves import linear_from_srgb
from ispeed.train.data.hdr_frames import SceneLight
from ispeed.train.data.radiance import Extension, extended, light_of, stops_of

NOTHING: dict[str, Any] = {
    "highlight_stops": (0.0, 0.0),
    "uneven_rate": 0.0,
    "spark_rate": 0.0,
    "lamp_rate": 0.0,
}


def chance(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def only(**values: Any) -> Extension:
    return Extension(**{**NOTHING, **values})


def ramp() -> Tensor:
    """Grey light from black to white, float32 [3, 8, 200]."""
    return torch.linspace(0, 1, 200).expand(3, 8, 200)


def test_photographs_become_light_and_light_stays():
    codes = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).repeat(3, 1, 1)
    torch.testing.assert_close(light_of(codes), linear_from_srgb(codes / 255))
    assert light_of(ramp()) is not None
    torch.testing.assert_close(light_of(ramp()), ramp())


def test_without_rates_and_stops_it_is_the_photograph():
    torch.testing.assert_close(extended(ramp(), only(), chance()), ramp())


def test_highlights_go_on_smoothly_above_the_knee():
    light = extended(ramp(), only(knee=(0.5, 0.5), highlight_stops=(3.0, 3.0)), chance())[0, 0]
    torch.testing.assert_close(light[:100], ramp()[0, 0, :100])
    assert light[-1] == pytest.approx(8.0, rel=1e-5)
    rises = light.diff()
    assert (rises > 0).all()
    assert rises[99:102].max() < 3 * rises[98], "no step at the knee"


def test_highlights_keep_their_colours():
    photo = torch.tensor([1.0, 0.9, 0.3])[:, None, None].repeat(1, 8, 8)
    light = extended(photo, only(knee=(0.2, 0.2), highlight_stops=(4.0, 4.0)), chance())
    torch.testing.assert_close(light / light[:1], photo, atol=1e-5, rtol=0)
    assert light.max() > 4


def test_uneven_light_is_smooth_and_has_its_stops():
    stops = extended(torch.ones(3, 96, 128), only(uneven_rate=1.0, uneven_stops=(5.0, 5.0), knee=(1, 1)), chance())
    stops = stops.log2()
    assert torch.equal(stops[0], stops[2]), "light, not colour"
    assert 4.0 < stops.max() - stops.min() <= 5.0 + 1e-4
    assert -2.5 - 1e-4 <= stops.min() < 0 < stops.max() <= 2.5 + 1e-4
    assert stops.diff(dim=1).abs().max() < 0.5


@pytest.mark.parametrize(("kind", "share"), [("spark", 0.05), ("lamp", 0.2)])
def test_sources_add_light_of_their_brightness(kind: str, share: float):
    values = {f"{kind}_rate": 1.0, f"{kind}s": (4, 4), f"{kind}_stops": (6.0, 6.0)}
    dark = torch.zeros(3, 96, 96)
    light = extended(dark, only(**values), chance(2))
    assert 20 < light.max() <= 4 * 64 + 1e-3
    assert light.min() >= 0
    assert 0 < (light.amax(0) > 1).float().mean() < share
    assert torch.equal(dark, torch.zeros(3, 96, 96)), "what was given stays"
    none = extended(dark, only(**{**values, f"{kind}s": (0, 0)}), chance(2))
    assert none.max() == 0


def test_sparks_are_thin_and_lamps_have_halos():
    dark = torch.zeros(3, 96, 96)
    sparks = [
        extended(dark, only(spark_rate=1.0, sparks=(1, 1), spark_stops=(0.0, 0.0)), chance(k))[0] for k in range(9)
    ]
    areas = [float((spark > 0.3).sum()) for spark in sparks]
    assert all(area < 150 for area in areas)
    assert max(areas) > 10
    lamp = extended(dark, only(lamp_rate=1.0, lamps=(1, 1), lamp_stops=(4.0, 4.0)), chance(1))
    assert lamp.min() > 0, "a halo reaches everywhere"
    assert lamp.amax() / lamp.amin() > 100


def test_chance_is_all_there_is():
    photo = (torch.rand(3, 40, 48, generator=chance(5)) * 255).to(torch.uint8)
    first, same, other = (extended(photo, Extension(), chance(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_how_often_things_happen():
    photo = torch.full((3, 16, 16), 0.3)
    rate = only(uneven_rate=0.3)
    uneven = [not torch.equal(extended(photo, rate, chance(seed)), photo) for seed in range(200)]
    assert sum(uneven) / 200 == pytest.approx(0.3, abs=0.1)


def test_scenes_have_a_large_range():
    scenes = SceneLight(24, 96, scenes=8, seed=1)
    ranges = torch.tensor([stops_of(extended(*_order(scenes.photo(k)))) for k in range(24)])
    plain = torch.tensor([stops_of(scenes.photo(k)[0]) for k in range(24)])
    assert ranges.median() > plain.median() + 2
    assert 8 <= ranges.median() <= 15
    assert stops_of(torch.zeros(3, 8, 8)) == 0


def _order(drawn: tuple[Tensor, torch.Generator]) -> tuple[Tensor, Extension, torch.Generator]:
    return drawn[0], Extension(), drawn[1]


def test_the_range_of_a_scene_is_that_of_its_places():
    light = torch.ones(3, 100, 100)
    light[:, :10] = 16.0
    light[:, 50:] = 0.25
    assert stops_of(light) == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"spark_rate": 1.5}, "spark_rate is 1.5: it is a share of the scenes, from 0 to 1"),
        ({"knee": (0.8, 0.4)}, "knee is .*: it is two numbers from 0 to 1, the lower one first"),
        ({"lamps": (0.5, 2)}, "lamps is .*: it is two whole numbers from 0 to 20"),
        ({"uneven_stops": 3.0}, "uneven_stops is 3.0: it is two numbers from 0 to 12"),
        ({"lamp_rate": -1, "sparks": (0, 900)}, "sparks is .*; lamp_rate is -1"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, Any], says: str):
    with pytest.raises(UserError, match=says):
        Extension(**values)
