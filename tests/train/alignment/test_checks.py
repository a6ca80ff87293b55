"""Pairs that are refused, each for its own reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ispeed.engines import RawFormat
from ispeed.engines.quality import grey_world
from ispeed.train.alignment.align import Aligner, Record
from ispeed.train.alignment.checks import Refused, check_phase, check_shown, check_valid, unregistered
from ispeed.train.alignment.flow import make_flow
from ispeed.train.alignment.settings import AlignSettings
from ispeed.train.data.misaligned import MARGIN, Misaligned, Misalignment, misalign
from ispeed.train.data.raw_pair import RawPair
from ispeed.train.data.readers import open_data_set
from ispeed.train.evaluation.frames import rendered

PHASES = ("RGGB", "GRBG", "GBRG", "BGGR")
Take = Callable[..., Misaligned]
AsRead = Callable[..., RawPair]


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner(AlignSettings(), make_flow())


def declared(pair: RawPair, cfa: str) -> RawPair:
    """The same samples, said to be of another filter array."""
    fmt = pair.raw_format
    name = f"Bayer{cfa[:2]}{fmt.depth}"
    return replace(pair, raw_format=RawFormat(fmt.width, fmt.height, name, fmt.black_level, fmt.white_level))


@pytest.mark.parametrize("cfa", PHASES)
def test_every_phase_but_the_right_one(cfa: str, take: Take, as_read: AsRead):
    pair = as_read(take(192, 2, cfa=cfa))
    for said in PHASES:
        given = declared(pair, said)
        gains = grey_world(given.samples, given.raw_format)
        if said == cfa:
            check_phase(given.samples, given.raw_format, gains, given.target)
            continue
        with pytest.raises(Refused, match=f"the filter array is hardly {said}: .*; {cfa} would fit"):
            check_phase(given.samples, given.raw_format, gains, given.target)


def test_real_frames_with_every_phase(data_dir: Any):
    reader = open_data_set("rhid", data_dir / "paired" / "rhid", split="train")
    for files in reader.files():
        pair = reader.load(files)
        for said in PHASES:
            given = declared(pair, said)
            gains = grey_world(given.samples, given.raw_format)
            if said == "RGGB":
                check_phase(given.samples, given.raw_format, gains, given.target)
                continue
            with pytest.raises(Refused, match="; RGGB would fit"):
                check_phase(given.samples, given.raw_format, gains, given.target)


def test_a_grey_scene_tells_nothing_of_the_phase():
    rng = np.random.default_rng(3)
    grey = np.repeat(np.repeat(rng.integers(40, 200, (12, 16)), 16, 0), 16, 1).astype(np.uint16)
    reference = np.repeat(grey[..., None].astype(np.uint8), 3, axis=2)
    for cfa in PHASES:
        fmt = RawFormat(256, 192, f"Bayer{cfa[:2]}8")
        check_phase(grey, fmt, np.ones(3, np.float32), reference)


@pytest.mark.parametrize(
    ("value", "words"), [(0, "the frame is blank"), (90, "the frame is blank"), (255, "the frame is burnt out: 100%")]
)
def test_blank_and_burnt(value: int, words: str):
    noise = np.random.default_rng(1).integers(0, 6, (96, 96, 3))
    picture = np.clip(value + noise, 0, 255).astype(np.uint8)
    with pytest.raises(Refused, match=words):
        check_shown(picture, "the frame")


def test_dark_and_bright_pictures_are_not_blank():
    picture = rendered(128, 2)
    check_shown(picture // 8, "the frame")
    check_shown(255 - (255 - picture) // 4, "the frame")


def test_another_scene(aligner: Aligner, take: Take, as_read: AsRead):
    pair, other = as_read(take(160, 2)), as_read(take(160, 6))
    record = Record("a")
    with pytest.raises(Refused, match=r"is found again in the reference|correlates by"):
        aligner.align(replace(pair, target=other.target), record)
    assert record.facts["grid_kept"]
    larger = np.kron(other.target, np.ones((2, 2, 1), np.uint8))
    with pytest.raises(Refused, match=r"cannot be laid on each other: of .* are needed; is it another scene"):
        aligner.align(replace(pair, target=larger))


def test_blank_pairs(aligner: Aligner, take: Take, as_read: AsRead):
    pair = as_read(take(96, 2))
    black = np.full_like(pair.samples, int(pair.raw_format.black_level))
    with pytest.raises(Refused, match="the frame is blank"):
        aligner.align(replace(pair, samples=black))
    with pytest.raises(Refused, match="the reference is burnt out"):
        aligner.align(replace(pair, target=np.full_like(pair.target, 255)))


def test_a_wrong_phase(aligner: Aligner, take: Take, as_read: AsRead):
    pair = as_read(take(160, 2))
    with pytest.raises(Refused, match="the filter array is hardly GBRG"):
        aligner.align(declared(pair, "GBRG"))


def test_what_moved_is_masked_and_the_rest_is_kept(aligner: Aligner, as_read: AsRead):
    edge = 224
    scene, thing = (torch.from_numpy(rendered(edge + 2 * MARGIN, s).transpose(2, 0, 1).copy()) for s in (2, 6))
    moved = scene.clone()
    where = np.s_[:, MARGIN + 130 : MARGIN + 200, MARGIN + 20 : MARGIN + 90]
    moved[where] = thing[where]
    first, second = (misalign(photo, Misalignment((2.0, 4.0)), 5) for photo in (scene, moved))
    pair = replace(as_read(first), target=as_read(second).target)  # the camera moved, and so did a thing
    aligned = aligner.align(pair)
    assert aligned.mask[140:190, 30:80].mean() < 0.35
    assert aligned.mask[:110].mean() > 0.7
    assert aligned.record.facts["valid"] == pytest.approx(aligned.mask.mean())


def test_a_thing_that_moved_before_most_of_the_frame(aligner: Aligner, as_read: AsRead):
    edge = 160
    scene, thing = (torch.from_numpy(rendered(edge + 2 * MARGIN, s).transpose(2, 0, 1).copy()) for s in (2, 6))
    moved = scene.clone()
    moved[:, :, MARGIN + 30 :] = thing[:, :, MARGIN + 30 :]
    first, second = (misalign(photo, Misalignment((2.0, 4.0)), 5) for photo in (scene, moved))
    with pytest.raises(Refused, match="of the frame is found again in the reference, 30% are asked for"):
        aligner.align(replace(as_read(first), target=as_read(second).target))


def test_reasons():
    assert "25 features agree on a view that no two cameras" in str(unregistered(60, 25, 20))
    assert "of 12 features alike in both, 5 lie as in one scene, 20 are needed" in str(unregistered(12, 5, 20))
    check_valid(0.5, 0.5, 0.5, 0.5)
    with pytest.raises(Refused, match="only 49% of the frame is found again in the reference, 50% are asked for"):
        check_valid(0.9, 0.49, 0.5, 0.5)
    with pytest.raises(Refused, match=r"structure correlates by 0.40 after alignment, 0.50 is asked for"):
        check_valid(0.4, 0.9, 0.5, 0.5)
