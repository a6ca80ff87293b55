"""One pair from two cameras to a frame with a reference that lies on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ispeed.engines import RawFormat
from ispeed.train.alignment import align as module
from ispeed.train.alignment.align import Aligner, Record
from ispeed.train.alignment.checks import Refused
from ispeed.train.alignment.flow import make_flow
from ispeed.train.alignment.look import developed, mapped
from ispeed.train.alignment.mask import in_phase
from ispeed.train.alignment.register import Region
from ispeed.train.alignment.settings import AlignSettings, describe_settings, make_align_settings
from ispeed.train.data.cfa import PHASES, planes
from ispeed.train.data.misaligned import Misaligned
from ispeed.train.data.raw_pair import RawPair
from ispeed.train.losses.phase import DEPTH, PhaseMask
from ispeed.train.metrics import psnr

Array = np.ndarray[Any, Any]
Take = Callable[..., Misaligned]
AsRead = Callable[..., RawPair]


def aligner(**settings: Any) -> Aligner:
    return Aligner(AlignSettings(**settings), make_flow())


@pytest.mark.parametrize("cfa", ["RGGB", "GBRG"])
def test_the_reference_comes_to_lie_on_the_frame(cfa: str, take: Take, as_read: AsRead, pixels: Callable[..., Array]):
    truth = take(224, 2, (5.0, 8.0), cfa)
    pair = as_read(truth)
    aligned = aligner().align(pair)
    facts = aligned.record.facts
    assert facts["grid_kept"]
    assert aligned.region == (0, 0, 224, 224)
    assert aligned.raw_format == pair.raw_format
    np.testing.assert_array_equal(aligned.samples, pair.samples)
    np.testing.assert_array_equal(aligned.before, pair.target)
    wanted = pixels(truth.truth)
    before, after = (psnr(p[aligned.mask], wanted[aligned.mask], 255) for p in (pair.target, aligned.reference))
    assert after > before + 6
    off = np.hypot(*(aligned.flow - truth.flow.numpy())[aligned.mask].T)
    assert np.median(off) < 0.5
    assert facts["flow"]["median"] == pytest.approx(np.median(np.hypot(*aligned.flow[aligned.mask].T)), abs=1e-4)
    assert sum(facts["flow"]["histogram"]) == pytest.approx(1, abs=1e-4)
    assert facts["agreement"] > 0.6


def test_two_cameras(take: Take, as_read: AsRead, pixels: Callable[..., Array]):
    """The reference is finer, turned and shows more on one side and less on the other: it is still brought to lie on
    what both see, and the frame keeps its filter array."""
    truth = take(288, 0, (2.0, 4.0), "GRBG")
    pair = as_read(truth)
    scale, angle = 1.7, np.deg2rad(4)
    to_reference = np.array(
        [[scale * np.cos(angle), -scale * np.sin(angle), -40], [scale * np.sin(angle), scale * np.cos(angle), 15]]
    )
    size = (470, 520)
    turn = {"flags": cv2.INTER_CUBIC, "borderMode": cv2.BORDER_CONSTANT}
    target = cv2.warpAffine(pair.target, to_reference, size, **turn)
    aligned = aligner().align(replace(pair, target=target))
    region, facts = aligned.region, aligned.record.facts
    assert not facts["grid_kept"]
    assert region.top % 2 == region.left % 2 == 0
    assert region.height % 32 == region.width % 32 == 0
    assert region.height * region.width > 0.4 * 288**2
    assert aligned.raw_format.cfa == "GRBG"
    assert (aligned.raw_format.width, aligned.raw_format.height) == (region.width, region.height)
    np.testing.assert_array_equal(aligned.samples, region.of(pair.samples))
    wanted = region.of(pixels(truth.truth))
    assert aligned.mask.mean() > 0.5
    assert psnr(aligned.reference[aligned.mask], wanted[aligned.mask], 255) > 24
    rough = psnr(aligned.before[aligned.mask], wanted[aligned.mask], 255)
    assert psnr(aligned.reference[aligned.mask], wanted[aligned.mask], 255) > rough + 2


def test_registered_pairs(take: Take, as_read: AsRead):
    pair = as_read(take(128, 2, (1.0, 2.0)))
    aligned = aligner(registered="yes").align(pair)
    assert aligned.record.facts["matches"] == 0
    assert aligned.record.facts["grid_kept"]
    with pytest.raises(Refused, match="are said to be registered, but are 128x128 and 120x128"):
        aligner(registered="yes").align(replace(pair, target=pair.target[:, :120]))


def test_packed_formats_become_plain_ones():
    fmt = RawFormat(128, 128, "BayerRG12p", 256, 4000)
    assert module._of_region(fmt, Region(2, 4, 64, 96)) == RawFormat(96, 64, "BayerRG12", 256, 4000)


def test_a_mapper_makes_the_look(take: Take, as_read: AsRead, pixels: Callable[..., Array]):
    """Any callable is taken; this one knows the truth."""
    truth = take(128, 2, (2.0, 4.0))
    pair, seen = as_read(truth), []

    def look(given: Tensor, gains: Tensor, reference: Tensor) -> Tensor:
        seen.append((given.shape, gains.shape, reference.shape))
        torch.testing.assert_close(given[0], truth.planes, atol=1e-4, rtol=0)
        torch.testing.assert_close(gains[0], truth.gains)
        return truth.truth[None]

    aligned = Aligner(AlignSettings(), make_flow(), look).align(pair)
    assert seen == [((1, 4, 64, 64), (1, 3), (1, 3, 128, 128))]
    np.testing.assert_array_equal(aligned.shown, pixels(truth.truth))
    off = np.hypot(*(aligned.flow - truth.flow.numpy())[aligned.mask].T)
    assert np.median(off) < 0.3


@pytest.mark.parametrize("cfa", PHASES)
def test_a_mapper_sees_planes_that_begin_with_red(cfa: str, take: Take, as_read: AsRead):
    truth = take(96, 2, cfa=cfa)
    pair = as_read(truth)

    def look(given: Tensor, gains: Tensor, reference: Tensor) -> Tensor:
        torch.testing.assert_close(given, planes(truth.frame.mosaic, cfa), atol=1e-4, rtol=0)
        assert reference.shape[2:] == (2 * given.shape[2], 2 * given.shape[3])
        return reference

    gains = truth.gains.numpy()
    shown = mapped(look, pair.samples, pair.raw_format, gains, pair.target)
    assert shown.shape == pair.target.shape
    np.testing.assert_allclose(shown[1:-1, 1:-1], pair.target[1:-1, 1:-1] / 255, atol=1e-6)


def test_without_flow_references_stay(take: Take, as_read: AsRead):
    pair = as_read(take(128, 2, (1.0, 2.0)))
    aligned = Aligner(AlignSettings(registered="yes"), make_flow("none")).align(pair)
    np.testing.assert_array_equal(aligned.reference, pair.target)
    assert not aligned.flow.any()


def test_references_may_take_the_colours_of_the_frame(take: Take, as_read: AsRead):
    pair = as_read(take(128, 2, (1.0, 2.0)))
    own, given = (aligner(colours=colours).align(pair) for colours in ("reference", "frame"))
    frame = developed(pair.samples, pair.raw_format, pair.gains)
    np.testing.assert_array_equal(given.shown, frame)
    apart, near = (float(np.abs(each.reference.mean((0, 1)) - frame.mean((0, 1))).max()) for each in (own, given))
    assert near < 1 < 4 < apart
    np.testing.assert_array_equal(given.flow, own.flow)
    np.testing.assert_array_equal(given.mask, own.mask)


def test_blocks_out_of_phase_do_not_count(take: Take, as_read: AsRead):
    pair = as_read(take(128, 2, (1.0, 2.0)))

    def features(picture: Tensor) -> dict[str, Tensor]:
        return {DEPTH: avg_pool2d(picture, 4)}

    plain = aligner().align(pair)
    for threshold, most in ((-1.0, 1.0), (0.3, 0.95), (1.0, 0.0)):
        record = Record("a")
        phases = PhaseMask(features, 48, threshold)
        settings = AlignSettings(least_valid=0, least_agreement=-1)
        if threshold == 1.0:
            with pytest.raises(Refused, match="only 0% of the frame"):
                Aligner(settings, make_flow(), phases=phases).align(pair, record)
        else:
            aligned = Aligner(settings, make_flow(), phases=phases).align(pair, record)
            assert not (aligned.mask & ~plain.mask).any()
            kept = in_phase(phases, aligned.shown / np.float32(255), aligned.reference)
            np.testing.assert_array_equal(aligned.mask, plain.mask & kept)
            np.testing.assert_array_equal(kept[:96, 96:], kept[:96, 95:96].repeat(32, 1))
        assert record.facts["in_phase"] <= most
        assert (record.facts["in_phase"] == 1.0) == (threshold == -1.0)


def test_what_was_found_before_a_refusal_is_noted(take: Take, as_read: AsRead):
    record = Record("a")
    with pytest.raises(Refused):
        aligner(least_valid=1.0).align(as_read(take(96, 2)), record)
    assert {"homography", "matches", "inliers", "region", "valid", "agreement", "flow"} <= record.facts.keys()


def test_it_ends_between_steps(take: Take, as_read: AsRead):
    steps = []

    def step() -> None:
        steps.append(None)
        if len(steps) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Aligner(AlignSettings(), make_flow(), step=step).align(as_read(take(96, 2)))
    assert len(steps) == 3


def test_settings():
    settings = make_align_settings({"flow": "dis"}, ["least_valid=0.5", "options.split=val", "workers=3"])
    assert (settings.least_valid, settings.options, settings.workers) == (0.5, {"split": "val"}, 3)
    lines = describe_settings()
    assert len(lines) == len(AlignSettings.model_fields)
    assert any(line.startswith("least_valid: part of a frame") and line.endswith("(default 0.3)") for line in lines)
