"""Highlights of the models that ship: ramps of light that a frame clips, colour by colour, become white, and neither
magenta nor grey."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ispeed.engines import RawFormat, open_engine, pack
from ispeed.engines.core import read_core
from ispeed.engines.quality import develop_all
from ispeed.engines.reference import srgb_curve
from ispeed.engines.zoo import names, zoo_path
from ispeed.train.data import CAMERA_FROM_SRGB

Floats = npt.NDArray[np.float64]

COLOURS = {
    "white": (1.0, 1.0, 1.0),
    "glow": (1.0, 0.62, 0.28),
    "arc": (0.72, 0.85, 1.0),
    "red": (1.0, 0.1, 0.05),
    "green": (0.1, 1.0, 0.1),
    "blue": (0.08, 0.12, 1.0),
}
"""Of the light of each ramp, linear sRGB: hot metal and an electric arc among them."""

BAND, WIDTH = 64, 768
"""Height of a ramp and its width, in pixels."""

LIGHT = np.exp2(np.linspace(-5, 4, WIDTH))
"""Along a ramp; 1 is white, and two stops above it all colours of the sensor are clipped but for the purest."""

BALANCE = CAMERA_FROM_SRGB.sum(1)
"""What the camera sees of white."""

GREY, MAGENTA, DARKER = 18.0, 14.0, 12.0
"""In codes of 8 bits: by how much clipped white may have a colour; by how much green may lie below both of the others;
and how far a ramp may fall where its light rises."""


KNOWN = {"light-unpaired": {"green: darker where there is more light"}}
"""What is said on the card: no photograph that it was held against has such a green."""


def sensor(colours: dict[str, tuple[float, float, float]]) -> Floats:
    """What the camera sees of the ramps before it clips, [H, W, 3]; 1 is white level."""
    light = np.stack([np.outer(LIGHT, colour) for colour in colours.values()])
    return np.repeat(light @ CAMERA_FROM_SRGB.T / BALANCE.max(), BAND, 0)


def frame(fmt: RawFormat) -> npt.NDArray[np.uint8]:
    """Bytes of 10 bits."""
    seen, samples = np.minimum(sensor(COLOURS), 1.0), np.empty((fmt.height, fmt.width), np.uint16)
    for place, colour in enumerate(fmt.cfa):
        y, x = divmod(place, 2)
        samples[y::2, x::2] = np.rint(1023 * seen[y::2, x::2, "RGB".index(colour)])
    return pack(samples, fmt)


def faults(picture: npt.NDArray[np.uint8]) -> Iterator[str]:
    """What is wrong with a picture of the ramps, each as NAME: WHAT."""
    unclipped = sensor(COLOURS)
    for place, name in enumerate(COLOURS):
        middle = slice(place * BAND + BAND // 4, (place + 1) * BAND - BAND // 4)
        red, green, blue = codes = picture[middle].astype(float).mean(0).T
        lit = codes.max(0) > 24
        if ((np.minimum(red, blue) - green)[lit] > MAGENTA).any():
            yield f"{name}: magenta"
        luma = np.array([0.299, 0.587, 0.114]) @ codes
        if (np.maximum.accumulate(luma) - luma).max() > DARKER:
            yield f"{name}: darker where there is more light"
        gone = unclipped[middle].mean(0).min(1) > 1.02  # all three colours are white in the frame
        if gone.any() and (codes.max(0) - codes.min(0))[gone][8:].max(initial=0) > GREY:
            yield f"{name}: white has a colour"
        held = (unclipped[middle].mean(0).max(1) < 0.9) & (LIGHT > 0.1)  # none of the three is
        true = srgb_curve(np.minimum(LIGHT[:, None] * np.array(COLOURS[name]), 1.0))
        wanted, shown = (1 - values.min(-1) / values.max(-1) for values in (true, codes.T + 1e-3))
        if (shown[held] < wanted[held] / 2 - 0.02).any():
            yield f"{name}: grey before it is clipped"


@pytest.mark.parametrize("name", names())
def test_highlights_are_neither_magenta_nor_grey(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fmt = RawFormat(WIDTH, BAND * len(COLOURS), "BayerRG10")
    matrix = np.linalg.inv(CAMERA_FROM_SRGB / BALANCE[:, None])
    gains = (BALANCE[1] / BALANCE)[None].astype(np.float32)
    known = matrix if read_core(zoo_path(name)).info.output == "linear" else None
    opened = lambda: open_engine(name, precision="fp32", colour_matrix=known)  # noqa: E731
    found = set(faults(develop_all(opened, [frame(fmt)], fmt, gains)[0]))
    assert found <= KNOWN.get(name, set())


def naive(limit: float) -> Floats:
    """White balance, matrix and curve of clipped samples, limited to so much after white balance."""
    balanced = np.minimum(np.minimum(sensor(COLOURS), 1.0) * BALANCE[1] / BALANCE, limit)
    return srgb_curve(np.clip(balanced @ np.linalg.inv(CAMERA_FROM_SRGB / BALANCE[:, None]).T, 0, 1)) * 255


def test_what_is_wrong_is_found():
    right = naive(1.0)
    assert list(faults(right.astype(np.uint8))) == []
    burnt = list(faults(naive(9.0).astype(np.uint8)))  # as of an ISP that forgets where the sensor ends
    assert {f"{name}: magenta" for name in COLOURS} - {"arc: magenta"} <= set(burnt)
    assert {"white: white has a colour", "arc: white has a colour"} <= set(burnt)
    folded = np.where(right > 200, 400 - right, right)
    assert "arc: darker where there is more light" in list(faults(folded.astype(np.uint8)))
    pale = right.mean(2, keepdims=True) + 0.2 * (right - right.mean(2, keepdims=True))
    assert "glow: grey before it is clipped" in list(faults(pale.astype(np.uint8)))
