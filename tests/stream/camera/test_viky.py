"""A producer that is not ours, viky.cti from the genicam wheel, through our acquisition.

It has no chunks worth reading, no time stamps, no frame rate that we set, and starts in a pixel format that we do not
read: all that a first foreign camera may bring.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ispeed.stream.ring import Word


@pytest.fixture
def cti():
    genicam = pytest.importorskip("genicam")
    return [str(Path(genicam.__file__).with_name("viky.cti"))]


@pytest.mark.parametrize("acquisition", ["zero-copy", "copy"])
def test_mono8_frames_come_through_whole_and_in_order(driver, cti, acquisition):
    spreads = []

    def look(record):
        pixels = driver.ring.slot(record.slot)[: geometry["width"] * geometry["height"]]
        spreads.append(float(pixels.std()))

    geometry = driver.begin(slots=8, config={"cti": cti, "acquisition": acquisition}, timeout_ms=2000)
    assert geometry["vendor"] == "Machine Vision Games Ltd."
    assert (geometry["pixel_format"], geometry["device_clock_is_host"]) == ("Mono8", False)
    assert "stood at RGBa8" in driver.event("warning", 10)["text"]
    records = driver.develop(20, look)
    ids = [record.frame_id for record in records]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert all(record.flags == 0 and math.isnan(record.exposure_us) for record in records)
    assert all(record.size >= geometry["width"] * geometry["height"] for record in records)
    assert min(spreads) > 1
    driver.stop(drain=True)
    assert driver.unaccounted() == 0
    assert driver.count(Word.CAMERA_GAP) == driver.count(Word.INCOMPLETE) == 0
    assert driver.close() == 0
