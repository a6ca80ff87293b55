"""Photron's .mraw: what an independent writer wrote comes back; what is broken is one sentence."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ispeed.engines import RawFormat, UserError, unpack
from ispeed.stream.footage import FootageOptions, open_footage

WIDTH, HEIGHT, FRAMES = 16, 10, 4


def _samples(depth: int) -> np.ndarray:
    return np.random.default_rng(depth).integers(0, 1 << depth, (FRAMES, HEIGHT, WIDTH)).astype(np.uint16)


@pytest.mark.parametrize("xml", [True, False])
@pytest.mark.parametrize(
    ("bits", "effective", "side", "wanted"),
    [
        (8, 12, "Lower", RawFormat(WIDTH, HEIGHT, "BayerRG8", 0, 255)),
        (10, 10, "Lower", RawFormat(WIDTH, HEIGHT, "BayerRG10p", 0, 1023)),
        (12, 12, "Lower", RawFormat(WIDTH, HEIGHT, "BayerRG12p", 0, 4095)),
        (16, 10, "Lower", RawFormat(WIDTH, HEIGHT, "BayerRG10", 0, 1023)),
        (16, 12, "Lower", RawFormat(WIDTH, HEIGHT, "BayerRG12", 0, 4095)),
        (16, 14, "Lower", RawFormat(WIDTH, HEIGHT, "BayerRG16", 0, 16383)),
        (16, 12, "Higher", RawFormat(WIDTH, HEIGHT, "BayerRG16", 0, 65520)),
    ],
)
def test_samples_come_back(
    makers: ModuleType, tmp_path: Path, bits: int, effective: int, side: str, wanted: RawFormat, xml: bool
) -> None:
    samples = _samples(min(bits, effective)) << (4 if side == "Higher" else 0)
    path = makers.write_mraw(tmp_path / "a", samples, bits, effective=effective, side=side, xml=xml)
    with open_footage(path) as footage:
        assert footage.raw_format == wanted
        assert (footage.kind, footage.count, footage.fps) == ("mraw", FRAMES, 2000)
        assert footage.about.model == "FASTCAM test"
        np.testing.assert_allclose(footage.frames["exposure_us"], 250)
        out = np.empty(wanted.payload_size, np.uint8)
        for index in range(FRAMES):
            footage.read(index, out)
            np.testing.assert_array_equal(unpack(out, wanted), samples[index])
    with open_footage(path.with_suffix(".cihx" if xml else ".cih")) as footage:  # either of the two files
        assert footage.count == FRAMES


def test_the_filter_array_and_levels_of_the_user(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.write_mraw(tmp_path / "a", _samples(12), colour="Raw")
    with pytest.raises(UserError, match="--cfa RG, GR, GB or BG"):
        open_footage(path)
    with open_footage(path, FootageOptions("GR", 32, 4000)) as footage:
        assert footage.raw_format == RawFormat(WIDTH, HEIGHT, "BayerGR12p", 32, 4000)


def test_a_file_that_is_cut_off_has_its_whole_frames(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.write_mraw(tmp_path / "a", _samples(12), frames=9)
    with open_footage(path) as footage:
        assert (footage.count, footage.about.cut_off) == (FRAMES, 5)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="holds no whole frame of 240 bytes"):
        open_footage(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Image Width : 16", "Image Width : 1e99", "Image Width must be a whole number"),
        ("Image Width : 16", "Image Width : 16.5", "not 16.5"),
        ("Image Height : 10", "Image Height : ", "not nothing"),
        ("Total Frame : 4", "Total Frame : 99999999999999", "Total Frame"),
        ("Start Frame : -5", "Start Frame : 1e300", "Start Frame must be a whole number"),
        ("Color Bit : 12", "Color Bit : 36", "three colours"),
        ("Color Type : Bayer(RGGB)", "Color Type : Mono", "grey frames of 12 bits"),
        ("File Format : MRaw", "File Format : TIFF", "save the frames as MRAW"),
        ("#Camera", "#", "nothing"),
    ],
)
def test_one_sentence(makers: ModuleType, tmp_path: Path, old: str, new: str, said: str) -> None:
    path = makers.write_mraw(tmp_path / "a", _samples(12), xml=False)
    text = path.with_suffix(".cih").read_text()
    assert old in text
    path.with_suffix(".cih").write_text(text.replace(old, new) if said != "nothing" else "")
    with pytest.raises(UserError, match="describes no frames" if said == "nothing" else said):
        open_footage(path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<cih></cih>",
        b"<cih><a></cih>",
        b"<cih><!ENTITY a 'b'>&a;</cih>",
        b"\xff" * 999,
        b"<cih>" + b"<a>" * 100_000 + b"</cih>",
        b"<cih>" + b"<a>" * 3000 + b"</a>" * 3000 + b"</cih>",
    ],
    ids=range(7),
)
def test_xml_that_is_none(makers: ModuleType, tmp_path: Path, text: bytes) -> None:
    path = makers.write_mraw(tmp_path / "a", _samples(12))
    path.with_suffix(".cihx").write_bytes(text)
    with pytest.raises(UserError) as caught:
        open_footage(path)
    assert "\n" not in str(caught.value)


def test_half_of_a_pair(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.write_mraw(tmp_path / "a", _samples(12))
    path.with_suffix(".cihx").rename(tmp_path / "b.cihx")
    for half in (path, tmp_path / "b.cihx"):
        with pytest.raises(UserError, match="lie side by side"):
            open_footage(half)
