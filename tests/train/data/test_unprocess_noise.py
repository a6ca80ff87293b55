"""Noise has the variance, shape and cut-offs that were asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ispeed.train.data.cfa import PHASES, mosaic
from ispeed.train.data.noise import SENSORS, SensorModel, SensorState, add_noise, draw_even, draw_log, draw_sensor

EDGE = 128


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def state_of(count: int = 1, **values: object) -> SensorState:
    """No noise but what is given, for `count` equal frames."""
    state = {name: torch.zeros(count) for name in ("shot", "read", "row", "hot_pixels")}
    steps = torch.full((count,), torch.inf)
    quiet = SensorState(**state, digital_gains=torch.ones(count, 3), steps=steps, pedestal=1.0)
    given = {n: torch.full((count,), v) if n in state and isinstance(v, float) else v for n, v in values.items()}
    return quiet._replace(**given)  # pyright: ignore[reportArgumentType]


def field(value: float, count: int = 1) -> Tensor:
    return torch.full((count, EDGE, EDGE), value)


@settings(max_examples=20, deadline=None)
@given(
    signal=st.floats(0.02, 0.6),
    shot=st.floats(1e-4, 3e-3),
    read=st.floats(0, 1e-4),
    gain=st.floats(1, 3),
    seed=st.integers(0, 2**31),
)
def test_variance_is_on_the_line(signal: float, shot: float, read: float, gain: float, seed: int):
    state = state_of(shot=shot, read=read, digital_gains=torch.tensor([[gain, gain, gain]]), pedestal=9.0)
    frame = add_noise(field(signal).double() / 4, state, "RGGB", chance(seed))
    expected = gain * shot * signal / 4 + gain**2 * read
    assert frame.var().item() == pytest.approx(expected, rel=0.06)
    assert frame.mean().item() == pytest.approx(signal / 4, abs=5 * expected**0.5 / EDGE)


@pytest.mark.parametrize("cfa", PHASES)
def test_each_colour_has_the_noise_of_its_gain(cfa: str):
    gains = torch.tensor([[2.5, 2.0, 5.0]])
    frame = add_noise(field(0.2), state_of(shot=1.5e-3, read=2e-6, digital_gains=gains), cfa, chance())
    for place, colour in enumerate(cfa):
        gain = float(gains[0, "RGB".index(colour)])
        plane = frame[0, place // 2 :: 2, place % 2 :: 2]
        assert plane.var().item() == pytest.approx(gain * 1.5e-3 * 0.2 + gain**2 * 2e-6, rel=0.1)


def test_electrons_are_counted():
    """The skewness of a Poisson distribution is 1 over the root of its mean."""
    frame = add_noise(field(0.05).double(), state_of(shot=2e-3), "RGGB", chance())[0]
    skewness = (((frame - frame.mean()) / frame.std()) ** 3).mean().item()
    assert skewness == pytest.approx((0.05 / 2e-3) ** -0.5, abs=0.06)
    counted = (frame / 2e-3).numpy()
    np.testing.assert_allclose(counted, np.rint(counted), atol=1e-6)


def test_noise_is_independent_from_sample_to_sample():
    frame = add_noise(field(0.3), state_of(shot=1e-3, read=1e-5), "RGGB", chance())[0]
    noise = (frame - frame.mean()) / frame.std()
    for shifted in (noise[1:] * noise[:-1], noise[:, 1:] * noise[:, :-1], noise[2:] * noise[:-2]):
        assert abs(shifted.mean().item()) < 5 / EDGE


def test_rows_share_an_offset():
    frame = add_noise(field(0.3), state_of(read=1e-6, row=0.01), "RGGB", chance())[0]
    assert frame.mean(1).std().item() == pytest.approx(0.01, rel=0.2)
    assert (frame - frame.mean(1, keepdim=True)).std().item() == pytest.approx(1e-3, rel=0.05)


def test_hot_pixels_are_as_many_as_asked_for_and_brighter():
    frame = add_noise(field(0.2, 8), state_of(8, hot_pixels=0.01), "RGGB", chance())
    lit = frame > 0.2001
    assert lit.float().mean().item() == pytest.approx(0.01, rel=0.1)
    assert (frame[~lit] - 0.2).abs().max() < 1e-4
    assert frame.max() == 1


def test_frames_of_a_batch_have_their_own_noise():
    state = state_of(2, shot=0.0)._replace(shot=torch.tensor([0.0, 2e-3]), read=torch.tensor([1e-4, 0.0]))
    frames = add_noise(field(0.4, 2), state, "RGGB", chance())
    assert frames[0].var().item() == pytest.approx(1e-4, rel=0.05)
    assert frames[1].var().item() == pytest.approx(8e-4, rel=0.05)


def test_conversion_before_the_gain_leaves_gaps():
    gains = torch.tensor([[2.5, 2.0, 5.0]])
    state = state_of(shot=1.5e-3, digital_gains=gains, steps=torch.tensor([4095.0]), pedestal=0.0)
    ramp = torch.linspace(0, 0.5, EDGE).expand(1, EDGE, EDGE)
    codes = add_noise(ramp, state, "RGGB", chance())[0].double() * 4095
    np.testing.assert_allclose(codes, codes.round(), atol=1e-3)
    green = codes[0::2, 1::2].round().long()
    assert (green % 2 == 0).all()
    for plane, gain in ((codes[0::2, 0::2], 2.5), (codes[1::2, 1::2], 5.0)):
        original = plane / gain
        assert (original - original.round()).abs().max() <= 0.5 / gain + 1e-3


def test_white_and_black_are_cut_off():
    bright, dark = (torch.full((1, EDGE, EDGE), value) for value in (1.0, 0.0))
    noisy = state_of(shot=2e-3, read=1e-3, pedestal=1 / 64)
    assert add_noise(bright, noisy, "RGGB", chance()).max() == 1
    lowest = add_noise(dark, noisy, "RGGB", chance()).min().item()
    assert lowest == pytest.approx(-1 / 64)
    assert add_noise(dark, noisy._replace(pedestal=0.0), "RGGB", chance()).min() == 0


def test_without_noise_light_is_what_it_was():
    light = torch.rand(2, 16, 16, generator=chance())
    state = draw_sensor(SENSORS["none"], 2, chance())
    assert torch.equal(add_noise(light, state, "RGGB", chance()), light)


# ---- what is drawn -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rhid", "camera"])
def test_presets_draw_within_their_ranges(name: str):
    model = SENSORS[name]
    state = draw_sensor(model, 1000, chance())
    for drawn, (low, high) in ((state.shot, model.shot), (state.hot_pixels, model.hot_pixels)):
        assert drawn.min() >= low * 0.999
        assert drawn.max() <= high * 1.001
    for colour, (low, high) in enumerate(model.digital_gains):
        assert state.digital_gains[:, colour].min() >= low * 0.999
        assert state.digital_gains[:, colour].max() <= high * 1.001
    assert set(state.steps.tolist()) == {2.0**bits - 1 for bits in model.bits}
    assert (state.row <= model.row[1] * state.read.sqrt()).all()


def test_read_noise_rises_with_shot_noise():
    """log(read) = 2.18 log(shot) + 1.20, with a standard deviation of 0.26 (Brooks et al., figure 3)."""
    state = draw_sensor(SENSORS["camera"], 4000, chance())
    beside = state.read.log() - (2.18 * state.shot.log() + 1.20)
    assert beside.mean().item() == pytest.approx(0, abs=0.02)
    assert beside.std().item() == pytest.approx(0.26, rel=0.05)


def test_the_high_speed_camera_is_noisier_than_the_simulated_one():
    """By its shot noise in green, where the simulated camera counts 10,000 electrons at white."""
    low, high = (2.0 * shot / 1e-4 for shot in SENSORS["rhid"].shot)
    assert 10 < low < high < 50


def test_ranges_on_both_scales():
    drawn = draw_log((1e-4, 1e-2), 4000, chance())
    assert drawn.log10().mean().item() == pytest.approx(-3, abs=0.05)
    assert draw_log((0.0, 0.0), 3, chance()).tolist() == [0, 0, 0]
    assert draw_even((1.0, 3.0), 4000, chance()).mean().item() == pytest.approx(2, abs=0.05)


def test_whether_anything_is_added():
    assert not SensorModel().noisy
    assert replace(SensorModel(), hot_pixels=(0.0, 0.1)).noisy
    assert {name for name, model in SENSORS.items() if model.noisy} == {"rhid", "camera"}


def test_mosaic_and_gains_agree_on_where_colours_are():
    light = torch.tensor([0.2, 0.4, 0.1])[None, :, None, None].expand(1, 3, EDGE, EDGE)
    gains = torch.tensor([[2.0, 1.0, 4.0]])
    for cfa in PHASES:
        samples = mosaic(light, cfa)
        frame = add_noise(samples, state_of(shot=1e-3, digital_gains=gains), cfa, chance())
        spread = (frame - samples).square().reshape(EDGE // 2, 2, EDGE // 2, 2).mean((0, 2)).reshape(-1)
        wanted = {"R": 2.0 * 1e-3 * 0.2, "G": 1e-3 * 0.4, "B": 4.0 * 1e-3 * 0.1}
        np.testing.assert_allclose(spread, [wanted[colour] for colour in cfa], rtol=0.1)
