"""The engine benchmark on small frames: what it says, and that both sides do the same work."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ispeed.bench import engine_compare
from ispeed.engines import RawFormat, UserError
from ispeed.engines.reference import classic_reference


@pytest.mark.parametrize("name", ["BayerRG12", "BayerGB8", "BayerBG10p"])
def test_report_says_under_which_conditions_it_was_measured(name: str):
    report = json.loads(json.dumps(engine_compare.compare_engine(64, 48, name, repeats=2, seconds=0.01, threads=1)))
    fmt = RawFormat(64, 48, name)
    assert (report["width"], report["height"], report["pixel_format"]) == (64, 48, name)
    assert (report["depth"], report["threads"], report["repeats"]) == (fmt.depth, 1, 2)
    assert len(report["classic"]["fps"]) == len(report["opencv"]["fps"]) == 2
    assert report["ratio"] == pytest.approx(report["classic"]["median_fps"] / report["opencv"]["median_fps"])
    assert report["against_reference"]["psnr_db"] >= 50
    assert report["against_reference"]["max_codes"] <= 2
    assert set(report["versions"]) == {"python", "numpy", "numba", "opencv"}


@pytest.mark.parametrize("name", ["BayerRG8", "BayerGR12", "BayerGB16", "BayerBG10"])
def test_opencv_develops_the_same_picture(name: str):
    fmt = RawFormat(96, 64, name)
    raw = engine_compare.Slots(1, fmt.payload_size)
    mosaics = engine_compare._fill(raw, fmt)
    shown = np.asarray(engine_compare._opencv_chain(mosaics, fmt)(0))
    ours = classic_reference(raw.slot(0), fmt, engine_compare.WHITE_BALANCE, engine_compare.COLOUR_MATRIX)
    # the demosaic differs and OpenCV keeps more highlights, but a wrong phase or order of channels is far off
    assert np.median(np.abs(shown.astype(int) - ours)[4:-4, 4:-4]) <= 6


def test_mono_has_nothing_to_compare():
    with pytest.raises(UserError, match="use a Bayer format"):
        engine_compare.compare_engine(64, 48, "Mono8")
