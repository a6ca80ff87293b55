"""The noise level: from a frame's gain and exposure to the number that a network is told, in training and after."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ispeed.engines import UserError
from ispeed.engines.zoo import zoo_path
from ispeed.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ispeed.train.config import read_recipe
from ispeed.train.data.noise import SENSORS, draw_sensor, gain_db
from ispeed.train.data.sensor import FULL_WELL
from ispeed.train.export import export_checkpoint
from ispeed.train.fit import train
from ispeed.train.models import NETWORKS, CoreModule, make_lwisp, make_network
from ispeed.train.models.noise_level import NoiseInput, NoiseLevel

NOISE = {"gain_db": [6.0, 30.0], "exposure_us": 400.0}
RECIPE = """
model: {name: liteisp-s, noise: {gain_db: [0, 18]}}
data:
  train: [{source: scenes, count: 8, crop: 32, scenes: 2}]
  validation: [{source: scenes, count: 1, crop: 32, scenes: 1}]
  batch: 2
schedule: {steps: 2, warmup: 1}
device: cpu
threads: 1
"""


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(4)


@given(
    st.tuples(st.floats(-20, 60), st.floats(0.5, 60)),
    st.none() | st.floats(1, 1e6),
    st.floats(-20, 80),
    st.just(0.0) | st.floats(0.5, 1e6),
)
def test_it_follows_from_gain_and_exposure(span: Any, reference: Any, gain: float, exposure: float):
    low, high = span[0], span[0] + span[1]
    level = NoiseInput(NoiseLevel((low, high), reference))
    columns = [gain] if reference is None else [exposure, gain]
    z = level(torch.tensor([columns]))
    assert z.shape == (1, 1, 1, 1)
    missing = 20 * math.log10(reference / exposure) if reference and exposure else 0.0
    assert z.item() == pytest.approx(min(1.0, max(0.0, (gain + missing - low) / (high - low))), abs=1e-3)


@pytest.mark.parametrize(
    ("noise", "problem"),
    [
        ({"gain_db": [3, 3]}, "noise.gain_db is 3 to 3"),
        ({"gain_db": [0, math.nan]}, "must be above"),
        ({"gain_db": [0, 3, 4]}, "too many values"),
        ({"gain_db": 3}, "a mapping with gain_db, two numbers"),
        ({}, "a mapping with gain_db"),
        ({"gain_db": [0, 3], "exposure_us": 0}, "noise.exposure_us is 0"),
        ({"gain_db": [0, 3], "iso": 100}, "no option 'iso'"),
    ],
)
def test_what_is_no_noise_level(noise: dict[str, Any], problem: str):
    with pytest.raises(ValueError, match=problem):
        make_network("lwisp-xs", noise=noise)


@pytest.mark.parametrize("name", [name for name, known in NETWORKS.items() if known.noise])
def test_a_network_is_told_it(name: str):
    plain, told = make_network(name), make_network(name, noise=NOISE)
    assert (plain.noise, told.noise) == (None, NoiseLevel((6.0, 30.0), 400.0))
    cores = [CoreModule(network).eval() for network in (plain, told)]
    assert [core.inputs for core in cores] == [
        ("wb_r", "wb_g", "wb_b"),
        ("wb_r", "wb_g", "wb_b", "exposure_us", "gain_db"),
    ]
    assert [core.takes for core in cores] == [("planes", "gains"), ("planes", "gains", "camera")]


def test_it_is_a_fifth_plane_of_lwisp_and_nothing_else():
    for name in ("lwisp-s", "lwisp-xs"):
        plain, told = make_network(name), make_network(name, noise=NOISE)
        before, after = plain.state_dict(), told.state_dict()
        assert before.keys() == after.keys() == make_lwisp(name).state_dict().keys()
        differing = {key for key in before if before[key].shape != after[key].shape}
        assert differing == {"c0.1.weight"}
        assert after["c0.1.weight"].shape[1] == before["c0.1.weight"].shape[1] + 1


@pytest.mark.parametrize("form", ["rgb", "clean"])
def test_pictures_come_without(form: str):
    with pytest.raises(ValueError, match=f"lwisp of the form {form} is told no noise level"):
        make_network("lwisp", form=form, noise=NOISE)
    with pytest.raises(ValueError, match="not for the form"):
        make_lwisp(form=form, noise_plane=True)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("noise", [NOISE, {"gain_db": [6.0, 30.0]}])
def test_training_and_engines_tell_it_alike(noise: dict[str, Any]):
    """In training it comes with the sample, exposure and gain; in engines as columns behind the gains."""
    core = CoreModule(make_network("lwisp-xs", noise=noise)).eval()
    raw, gains = torch.rand(3, 4, 16, 16), torch.tensor([[2.0, 1.0, 1.5]]).repeat(3, 1)
    camera = torch.tensor([[0.0, 12.0], [100.0, 12.0], [100.0, 30.0]])
    columns = camera if "exposure_us" in noise else camera[:, 1:]
    with torch.inference_mode():
        trained, developed = core(raw, gains, camera), core(raw, torch.cat([gains, columns], 1))
        assert torch.equal(trained, developed)
        same = torch.cat([raw[:1], raw[:1]])
        pictures = core(same, gains[:2], camera[1:])
        assert (pictures[0] - pictures[1]).abs().max() > 1e-4, "another level, another picture"


def test_the_noise_of_photographs_as_a_gain():
    state = draw_sensor(SENSORS["camera"], 2000, torch.Generator().manual_seed(1))
    gains = gain_db(state.shot)
    electrons = FULL_WELL / 10 ** (gains / 20)
    torch.testing.assert_close(state.shot, 1 / electrons, rtol=1e-4, atol=0)
    assert gains.min() > -0.01
    assert gain_db(torch.tensor([2 / FULL_WELL, 0.0])).tolist() == pytest.approx([6.02, 0.0], abs=0.01)
    assert gain_db(torch.tensor([1e-4]), 40_000).item() == pytest.approx(12.04, abs=0.01)


# ---- files -------------------------------------------------------------------------------------------------


def test_checkpoint_round_trip(tmp_path: Path):
    made = make_network("liteisp-s", noise=NOISE).eval()
    save_checkpoint(tmp_path / "x.pt", Checkpoint(made, "liteisp-s", {"noise": NOISE}))
    loaded = load_checkpoint(tmp_path / "x.pt")
    assert (loaded.model, loaded.options, loaded.network.noise) == ("liteisp-s", {"noise": NOISE}, made.noise)
    assert all(torch.equal(a, b) for a, b in zip(loaded.network.parameters(), made.parameters(), strict=True))


@pytest.mark.parametrize("noise", [NOISE, {"gain_db": [0.1, 18.3]}])
def test_a_core_is_trained_on_from(tmp_path: Path, noise: dict[str, Any]):
    made = make_network("lwisp-xs", noise=noise)
    info = export_checkpoint(Checkpoint(made, "lwisp-xs", {"noise": noise}), tmp_path / "x.onnx")
    assert info.inputs[3:] == (("exposure_us", "gain_db") if "exposure_us" in noise else ("gain_db",))
    loaded = load_checkpoint(tmp_path / "x.onnx")
    assert loaded.options["noise"]["gain_db"] == pytest.approx(noise["gain_db"], abs=1e-5)
    assert loaded.options["noise"].get("exposure_us") == noise.get("exposure_us")
    assert loaded.network.noise.inputs == made.noise.inputs
    assert all(torch.equal(a, b) for a, b in zip(loaded.network.parameters(), made.parameters(), strict=True))


def test_training_is_told_the_level_and_another_camera_trains_on(tmp_path: Path):
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    begun = train(read_recipe(path, [f"run.folder={tmp_path}", "run.name=first"]))
    first = load_checkpoint(begun.checkpoint)
    assert first.options == {"noise": {"gain_db": [0.0, 18.0]}}
    begins = [f"model.weights={begun.checkpoint}", f"run.folder={tmp_path}", "schedule.steps=2"]
    other = train(read_recipe(path, [*begins, "run.name=other", "model.noise.gain_db=[0, 24]"]))
    assert load_checkpoint(other.checkpoint).options == {"noise": {"gain_db": [0.0, 24.0]}}
    with pytest.raises(UserError, match="is a checkpoint of liteisp-s"):
        train(read_recipe(path, [*begins, "run.name=none", "model.noise=null"]))


def test_the_level_of_samples_reaches_the_network(tmp_path: Path):
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE.replace("liteisp-s", "lwisp-xs"))
    seen: list[torch.Tensor] = []
    kept = NoiseInput.forward

    def spy(self: NoiseInput, columns: torch.Tensor) -> torch.Tensor:
        seen.append(columns)
        return kept(self, columns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NoiseInput, "forward", spy)
        train(read_recipe(path, [f"run.folder={tmp_path}"]))
    gains = torch.cat([columns[:, 0] for columns in seen])
    assert gains.min() >= 0
    assert gains.max() > 1, "scenes are taken at 0 to 18 dB"
    assert len(set(gains.tolist())) > 2


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("model.noise={gain_db: [10, 0]}", "noise.gain_db is 10 to 0"),
        ("model.noise={gain_db: [0]}", "gain_db"),
        ("model.noise={gain_db: [0, 9], exposure_us: -1}", "exposure_us"),
        ("model.noise={gain: [0, 9]}", "unknown setting"),
        ("data.train.0.crop=40", "liteisp-s takes crops in multiples of 16, 32 at least, not 40"),
    ],
)
def test_recipes_that_cannot_be(tmp_path: Path, change: str, problem: str):
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    with pytest.raises(UserError, match=problem) as caught:
        read_recipe(path, [change])
    assert "\n" not in str(caught.value)


def test_what_ships_is_told_nothing():
    loaded = load_checkpoint(zoo_path("lwisp-xs"))
    assert loaded.options == {}
    assert isinstance(loaded.network, nn.Module)
    assert loaded.network.noise is None
