"""How close cores come to the classic engine: the measure itself, and the models that ship."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from ispeed.engines import UserError
from ispeed.engines.core import read_core
from ispeed.engines.zoo import names, zoo_path
from ispeed.train import evaluate
from ispeed.train.data import Batches, expose, render_scene
from ispeed.train.metrics import mean_psnr
from ispeed.train.models import VARIANTS, make_lwisp

SHIPPED = list(VARIANTS)


@pytest.fixture
def frames(tmp_path: Path) -> tuple[str, str]:
    """Files with raw frames as `isp-stream --snap` writes them: with noise, and without."""
    rng, black, full = np.random.default_rng(6), 256, 4095
    clean = [expose(rng, render_scene(rng, 96, 128)).clean for _ in range(2)]
    noisy = [planes + rng.normal(0, 0.02, planes.shape) for planes in clean]
    paths = tmp_path / "noisy.npy", tmp_path / "clean.npy"
    for path, pictures in zip(paths, (noisy, clean), strict=True):
        mosaics = np.empty((2, 96, 128), np.uint16)
        for mosaic, planes in zip(mosaics, pictures, strict=True):
            codes = np.clip(np.rint(black + planes * (full - black)), 0, full)
            for plane, (y, x) in zip(codes, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
                mosaic[y::2, x::2] = plane
        np.save(path, mosaics)
        meaning = {"width": 128, "height": 96, "format": "BayerRG12", "black": black, "white": full}
        path.with_name(path.name + ".yaml").write_text(yaml.safe_dump(meaning))
    return str(paths[0]), str(paths[1])


def test_the_classic_engine_is_its_own_equal_without_noise(frames: tuple[str, str]):
    noisy, clean = frames
    assert evaluate.on_frames(evaluate.classic, clean, clean) == float("inf")
    assert 20 < evaluate.on_frames(evaluate.classic, noisy, clean) < 45


def test_the_command(frames: tuple[str, str], capsys: pytest.CaptureFixture[str]):
    evaluate.main(["lwisp-xs", "--frames", frames[0], "--reference", frames[1]])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["lwisp-xs", "classic"]
    assert all(15 < float(line.split()[1]) < 45 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["lwisp", "--frames", "x.npy"], "together, or neither"),
        (["lwisp", "--frames", "x.npy", "--reference", "y.npy"], "no file x.npy"),
        (["lwisp-xxl"], "cannot read the model lwisp-xxl"),
    ],
)
def test_wrong_input(arguments: list[str], problem: str):
    with pytest.raises(UserError, match=problem):
        evaluate.main(arguments)


def test_frames_that_do_not_match(frames: tuple[str, str]):
    noisy, clean = frames
    np.save(clean, np.load(clean)[:1])
    with pytest.raises(UserError, match="differ in number or size"):
        evaluate.on_frames(evaluate.classic, noisy, clean)
    with pytest.raises(UserError, match="take BayerRG frames"):
        evaluate.on_frames(evaluate.classic, noisy + "?format=BayerGB12", clean)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_comes_close(name: str):
    score = mean_psnr(evaluate_tensors(evaluate.open_core(name)), Batches(8, pool=4), count=1)
    assert score > 26, "dB on scenes that it has not seen"


def evaluate_tensors(develop: evaluate.Develop) -> Callable[..., np.ndarray]:
    return lambda planes, gains: develop(planes.numpy(), gains.numpy())


@pytest.mark.parametrize("name", SHIPPED)
def test_grey_is_grey(name: str):
    """At every brightness, of a picture far larger than those that it was trained on."""
    develop = evaluate.open_core(name)
    sees = evaluate.CAMERA_FROM_SRGB.sum(1)
    gains = (sees[1] / sees)[None].astype(np.float32)
    ramp = np.linspace(0.02, 0.95, 512, dtype=np.float32)
    planes = np.stack([np.broadcast_to(ramp * sees[channel], (384, 512)) for channel in (0, 1, 1, 2)])[None]
    shown = develop(planes, gains)[0, :, 32:-32, 32:-32]
    wanted = evaluate.classic(planes, gains)[0, :, 32:-32, 32:-32]
    assert np.abs(shown - wanted).mean() < 0.02
    assert np.abs(shown - wanted).max() < 0.08


@pytest.mark.parametrize("name", SHIPPED)
def test_card(name: str):
    core, card = read_core(zoo_path(name)), zoo_path(name).with_suffix(".md").read_text()
    parameters = sum(p.numel() for p in make_lwisp(name).parameters())
    assert core.info.model == name
    assert core.info.licence == "Apache-2.0"
    assert "Apache-2.0" in card
    assert f"{parameters:,}" in card
    assert core.info.sha256 in card
    assert hashlib.sha256(core.path.read_bytes()).hexdigest() in card
    assert core.info.run.split("; ")[-1] in " ".join(card.split()), "the run that made these weights"


def test_all_that_ships_is_known():
    assert set(SHIPPED) <= set(names())
