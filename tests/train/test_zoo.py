"""The models that ship, as training sees them: their cards, and that grey stays grey."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from ispeed.engines import RawFormat, open_engine, pack
from ispeed.engines.core import read_core
from ispeed.engines.quality import develop_all
from ispeed.engines.zoo import names, zoo_path
from ispeed.train.data import CAMERA_FROM_SRGB
from ispeed.train.models import VARIANTS, make_network

SHIPPED = [*VARIANTS, "light-paired"]
CARDS = [*SHIPPED, "lwisp-hdr", "light-unpaired"]


@pytest.mark.parametrize("name", SHIPPED)
def test_grey_is_grey(name: str, tmp_path, monkeypatch: pytest.MonkeyPatch):
    """At every brightness, of a picture far larger than those that it was trained on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sees = CAMERA_FROM_SRGB.sum(1)
    fmt, ramp = RawFormat(512, 384, "BayerRG16"), np.linspace(0.02, 0.95, 256)
    samples = np.empty((384, 512), np.uint16)
    for place, colour in enumerate(fmt.cfa):
        samples[place // 2 :: 2, place % 2 :: 2] = np.rint(65535 * ramp * sees["RGB".index(colour)])
    gains = (sees[1] / sees)[None].astype(np.float32)
    pictures = [
        develop_all(opened, [pack(samples, fmt)], fmt, gains)[0][64:-64, 64:-64] / 255.0
        for opened in (lambda: open_engine(name, precision="fp32"), lambda: open_engine("classic"))
    ]
    away = np.abs(pictures[0] - pictures[1])
    assert away.mean() < 0.02
    assert away.max() < 0.08


@pytest.mark.parametrize("name", CARDS)
def test_card(name: str):
    core, card = read_core(zoo_path(name)), zoo_path(name).with_suffix(".md").read_text()
    parameters = sum(p.numel() for p in make_network(core.info.model).parameters())
    assert core.info.name == name
    assert core.info.licence == "Apache-2.0"
    assert "Apache-2.0" in card
    assert f"{parameters:,}" in card
    assert core.info.sha256 in card
    assert hashlib.sha256(core.path.read_bytes()).hexdigest() in card


def test_all_that_ships_is_known():
    assert set(CARDS) == set(names())
