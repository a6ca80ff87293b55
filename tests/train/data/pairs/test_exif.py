"""A camera's raw frames with its own pictures: what EXIF tells of them, wherever it stands, and what is refused."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import PIL.ExifTags
import PIL.Image
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ispeed.engines.errors import UserError
from ispeed.train.cli import train as isp_train
from ispeed.train.data.camera_pairs import MOST_MARGIN, CameraPairs
from ispeed.train.data.exif import QUANTITIES, Exif, Told, read_exif
from ispeed.train.data.pairs import RawPairs

pytest.importorskip("rawpy")
pytest.importorskip("exifread")

Array = np.ndarray[Any, Any]
Write = Callable[..., None]
HEIGHT, WIDTH = 48, 64
FILTERS = {"RGGB": (0, 1, 1, 2), "GRBG": (1, 0, 2, 1), "GBRG": (1, 2, 0, 1), "BGGR": (2, 1, 1, 0)}
XTRANS = [int(site) for site in "112110110112021201110112112110201021"]
PHONE = ((1.0234, -0.2969, -0.2266), (-0.5625, 1.6328, -0.0469), (-0.0703, 0.2188, 0.6406))
XYZ_FROM_SRGB = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)

_SHORT, _RATIONAL = 3, 5
TAKEN = {
    33434: (_RATIONAL, [(1, 250)]),
    33437: (_RATIONAL, [(28, 10)]),
    34855: (_SHORT, [800]),
    37386: (_RATIONAL, [(50, 1)]),
}
"""1/250 s, f/2.8, ISO 800, 50 mm."""


@pytest.fixture
def samples(rng: np.random.Generator) -> Array:
    return rng.integers(600, 15000, (HEIGHT, WIDTH)).astype(np.uint16)


@pytest.fixture
def write_pair(samples: Array, write_dng: Write) -> Write:
    """Writes ROOT/raw/NAME.dng, whose keywords it takes, and a grey ROOT/rgb/NAME.jpg with some EXIF."""

    def write(root: Path, name: str = "a", *, told: dict[int, Any] | None = None, **dng: Any) -> None:
        values = {"samples": samples, "pattern": FILTERS["RGGB"], "neutral": (0.5, 1, 0.8), "matrix": PHONE, **dng}
        write_dng(root / f"raw/{name}.dng", **values)
        exif = PIL.Image.Exif()
        exif.get_ifd(PIL.ExifTags.IFD.Exif).update(told or {})
        (root / "rgb").mkdir(exist_ok=True)
        PIL.Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(root / f"rgb/{name}.jpg", exif=exif)

    return write


def load(root: Path, **options: Any) -> Any:
    reader = CameraPairs(root, **options)
    return reader.load(reader.files()[0])


def write_list(root: Path, **tags: Any) -> None:
    (root / "exif.json").write_text(json.dumps([{"SourceFile": "./raw/a.dng", **tags}]))


def test_all_that_a_frame_tells(tmp_path: Path, write_pair: Write, samples: Array):
    write_pair(tmp_path, exif=TAKEN, pattern=FILTERS["GBRG"])
    pair = load(tmp_path)
    assert pair.camera() == pytest.approx((4000, 0, 800, 2.8, 50))
    assert (pair.raw_format.cfa, pair.raw_format.black_level, pair.raw_format.white_level) == ("GBRG", 512, 14992)
    assert (pair.samples[::2] == samples[::2]).all()
    np.testing.assert_allclose(pair.gains, [2, 1, 1.25], rtol=1e-3)
    camera = np.array(PHONE) @ np.array(XYZ_FROM_SRGB)
    np.testing.assert_allclose(pair.matrix @ (camera / camera.sum(1, keepdims=True)), np.eye(3), atol=1e-5)
    np.testing.assert_allclose(pair.matrix.sum(1), 1, atol=1e-5)
    sample = RawPairs(CameraPairs(tmp_path), crop=16)[0]
    torch.testing.assert_close(sample["camera"], torch.tensor([4000.0, 0.0, 800.0, 2.8, 50.0]))
    np.testing.assert_array_equal(sample["matrix"], pair.matrix)


def test_nothing_but_the_frame(tmp_path: Path, write_pair: Write):
    write_pair(tmp_path)
    assert load(tmp_path).camera() == (0, 0, 0, 0, 0)
    assert RawPairs(CameraPairs(tmp_path), crop=16, camera=(7.0, 3.0))[0]["camera"].tolist() == [7, 3, 0, 0, 0]


def test_colours_that_only_libraw_knows(tmp_path: Path, write_pair: Write):
    write_pair(tmp_path, matrix=None, model=("NIKON CORPORATION", "NIKON D7000"))
    np.testing.assert_allclose(load(tmp_path).matrix.sum(1), 1, atol=1e-5)
    write_pair(tmp_path, model=("NIKON CORPORATION", "NIKON D7000"))
    own = load(tmp_path).matrix
    write_pair(tmp_path)
    np.testing.assert_array_equal(own, load(tmp_path).matrix, "a DNG's own come first")


def test_both_in_one_folder_and_in_splits(tmp_path: Path, write_pair: Write):
    write_pair(tmp_path / "val", "s1_a", exif=TAKEN)
    write_pair(tmp_path / "val", "s1_b")
    for path in [*tmp_path.glob("val/raw/*"), *tmp_path.glob("val/rgb/*")]:
        path.rename(tmp_path / "val" / path.name.upper())
    (tmp_path / "val/raw").rmdir()
    (tmp_path / "val/rgb").rmdir()
    files = CameraPairs(tmp_path, split="val", group=2).files()
    assert [(file.name, file.group) for file in files] == [("S1_A", "S1"), ("S1_B", "S1")]
    assert load(tmp_path, split="val").iso == 800
    with pytest.raises(UserError, match=r"holds no \*\.dng or .*: a folder of a camera's frames .* all in one folder"):
        CameraPairs(tmp_path).files()


# ---- where it stands ---------------------------------------------------------------------------------------


def test_of_each_tag_the_first_place_counts(tmp_path: Path, write_pair: Write):
    write_pair(tmp_path, told={33434: 1.0, 33437: 16.0, 34855: 12800, 37386: 500.0})
    assert load(tmp_path).camera() == pytest.approx((1e6, 0, 12800, 16, 500)), "the picture"
    write_pair(tmp_path, told={37386: 500.0}, exif={tag: TAKEN[tag] for tag in (33434, 33437, 34855)})
    assert load(tmp_path).camera() == pytest.approx((4000, 0, 800, 2.8, 500)), "the raw file before it"
    (tmp_path / "raw/a.json").write_text(json.dumps([{"ExposureTime": 0.5, "FNumber": 4}]))
    assert load(tmp_path).camera() == pytest.approx((5e5, 0, 800, 4, 500)), "its sidecar before both"
    write_list(tmp_path, ExposureTime="1/8000", FocalLength=None)
    assert load(tmp_path).camera() == pytest.approx((125, 0, 800, 4, 0)), "the list before all, and null is not known"
    assert [path.name for path in CameraPairs(tmp_path).files()[0].extra] == ["exif.json", "a.json"]


def test_a_list_as_exiftool_writes_it(tmp_path: Path, write_pair: Write):
    for split in ("train", "val"):
        write_pair(tmp_path / split, exif=TAKEN)
    entries = [
        {"SourceFile": "train/raw/a.dng", "EXIF:ExposureTime": "1/4", "EXIF:ISO": 100, "Composite:ISO": 50},
        {"SourceFile": "val/raw/a.dng", "ExposureTime": 0.125},
        {"SourceFile": "val/rgb/a.jpg", "ExposureTime": 9, "FNumber": 11.0, "FocalLength": "35.0 mm"},
        {"SourceFile": "val/raw/b.dng", "ExposureTime": 8},
    ]
    (tmp_path / "exif.json").write_text(json.dumps(entries))
    assert load(tmp_path, split="train").camera() == pytest.approx((250_000, 0, 100, 2.8, 50))
    assert load(tmp_path, split="val").camera() == pytest.approx((125_000, 0, 800, 11, 35))
    (tmp_path / "val/exif.json").write_text(json.dumps([{"SourceFile": "/moved/since/raw/a.dng", "ExposureTime": 2}]))
    assert load(tmp_path, split="val").exposure_us == 2_000_000, "that of the split comes first"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("exif.json", "[", "exif.json cannot be read"),
        ("exif.json", "{}", "exif.json is not as it should be: write it with exiftool -json"),
        ("exif.json", '[{"ISO": 1}]', "exif.json is not as it should be"),
        ("exif.json", '[{"SourceFile": "raw/b.dng"}]', "exif.json names no file of .*: write it again, in that"),
        (
            "exif.json",
            '[{"SourceFile": "raw/a.dng"}, {"SourceFile": "./raw/a.dng"}]',
            "exif.json tells of .*a.dng twice",
        ),
        ("raw/a.json", "[{}, {}]", "a.json is not as it should be"),
        ("raw/a.json", "\0", "a.json cannot be read"),
        ("raw/a.json", "[" * 100_000, "a.json cannot be read"),
    ],
)
def test_wrong_lists(tmp_path: Path, write_pair: Write, name: str, text: str, words: str):
    write_pair(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words):
        load(tmp_path)


def test_without_the_package_for_exif(tmp_path: Path, write_pair: Write, monkeypatch: pytest.MonkeyPatch):
    write_pair(tmp_path, exif=TAKEN)
    monkeypatch.setitem(sys.modules, "exifread", None)
    with pytest.raises(UserError, match=r"EXIF of a.dng needs the package exifread; run: pip install exifread"):
        load(tmp_path)
    write_list(tmp_path, ExposureTime=1, ISO=100, FNumber=8, FocalLength=20)
    assert load(tmp_path).iso == 100, "nothing else is opened for it"


def test_damaged_exif_of_a_picture(tmp_path: Path, write_pair: Write):
    write_pair(tmp_path, told={33434: 1.0})
    path = tmp_path / "rgb/a.jpg"
    data = bytearray(path.read_bytes())
    at = data.index(b"MM\0*") + 4
    data[at : at + 4] = (60_000).to_bytes(4, "big")  # its tags stand behind the end
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"the EXIF of .*a.jpg cannot be read: .*; copy it again, or write exif.json"):
        load(tmp_path)


# ---- what it means -----------------------------------------------------------------------------------------


def exif_of(**tags: Any) -> Exif:
    """What is read of these tags; there are no files."""
    names = {"ExposureTime": None, "ISO": None, "FNumber": None, "FocalLength": None}
    return read_exif(Path("none.dng"), Path("none.jpg"), [Told("x.json", {**tags}), Told("y.json", names)])


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"ExposureTime": "1/250"}, Exif(exposure_us=4000)),
        ({"ExposureTime": "1/1000000 s"}, Exif(exposure_us=1)),
        ({"ExposureTime": "2.5 sec"}, Exif(exposure_us=2.5e6)),
        ({"ExposureTime": "1e-06"}, Exif(exposure_us=1)),
        ({"ExposureTime": [Fraction(1, 50)]}, Exif(exposure_us=20_000)),
        ({"ExposureTime": "undef", "FNumber": "0/0", "ISO": "", "FocalLength": []}, Exif()),
        ({"FNumber": "f/1.4"}, Exif(f_number=1.4)),
        ({"FNumber": 0, "FocalLength": "0.0 mm"}, Exif()),
        ({"FocalLength": "4.2 mm"}, Exif(focal_length_mm=4.2)),
        ({"PhotographicSensitivity": "640"}, Exif(iso=640)),
        ({"ISO": 65535, "RecommendedExposureIndex": 102_400}, Exif(iso=102_400)),
        ({"ISO": 65535}, Exif(iso=65535)),
    ],
)
def test_how_values_are_written(tags: dict[str, Any], expected: Exif):
    assert vars(exif_of(**tags)) == pytest.approx(vars(expected))


@pytest.mark.parametrize(
    ("tag", "value", "words"),
    [
        ("ExposureTime", 0, "x.json has ExposureTime 0, which does not lie from 1e-09 to 3600 s: correct it, or write"),
        ("ExposureTime", "-1/60", "ExposureTime '-1/60', which does not lie from"),
        ("ExposureTime", 3601.0, "ExposureTime 3601.0, which"),
        ("ExposureTime", "quick", "ExposureTime 'quick', which is no number"),
        ("ExposureTime", True, "ExposureTime True, which is no number"),
        ("ISO", math.nan, "ISO nan, which does not lie from 1 to 1e[+]07: .* into an exif.json"),
        ("ISO", "NaN", "ISO 'NaN', which does not lie"),
        ("ISO", "inf", "ISO 'inf', which does not lie"),
        ("ISO", 0, "ISO 0, which does not lie"),
        ("ISO", {"speed": 3}, "ISO .*, which is no number"),
        ("ISO", 10**400, "ISO 10*, which is too large for a number: correct it"),
        ("FNumber", 0.4, "FNumber 0.4, which does not lie from 0.5 to 128:"),
        ("FNumber", -2.8, "FNumber -2.8, which"),
        ("FNumber", "28/0", "FNumber '28/0', which does not lie"),
        ("FocalLength", "50000 mm", "FocalLength '50000 mm', which does not lie from 0.5 to 5000 mm"),
    ],
)
def test_values_that_no_camera_has(tag: str, value: Any, words: str):
    with pytest.raises(UserError, match=words) as error:
        exif_of(**{tag: value})
    assert "\n" not in str(error.value)


@settings(max_examples=60)
@given(st.floats() | st.text(max_size=8) | st.fractions(), st.sampled_from(sorted(QUANTITIES)))
def test_whatever_is_written_is_in_range_or_refused(value: Any, name: str):
    quantity = QUANTITIES[name]
    try:
        known = getattr(exif_of(**{quantity.names[0]: value}), name)
    except UserError:
        return
    assert known is None or quantity.low * quantity.scale <= known <= quantity.high * quantity.scale


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ({"exif": {**TAKEN, 33434: (_RATIONAL, [(0, 1)])}}, r"a\.dng has ExposureTime 0, which"),
        ({"exif": {**TAKEN, 37386: (_RATIONAL, [(9, 0)])}}, r"a\.dng has FocalLength 9/0, which"),
        ({"told": {33437: 200.0}}, r"a\.jpg has FNumber 200.0, which"),
    ],
)
def test_they_are_refused_in_the_files_too(tmp_path: Path, write_pair: Write, place: dict[str, Any], words: str):
    write_pair(tmp_path, **place)
    with pytest.raises(UserError, match=words):
        load(tmp_path)
    write_list(tmp_path, ExposureTime=1, FocalLength=20, FNumber=4)
    assert load(tmp_path).exposure_us == 1e6, "what a list says comes first"


# ---- one camera --------------------------------------------------------------------------------------------


def test_frames_of_one_camera(tmp_path: Path, write_pair: Write):
    write_pair(tmp_path, "a", model=("NIKON CORPORATION", "NIKON D90"))
    write_pair(tmp_path, "b", model=("SONY", "ILCE-7RM3"))
    write_pair(tmp_path, "c", model=("NIKON CORPORATION", "NIKON D90"))
    (tmp_path / "raw/c.json").write_text(json.dumps({"Model": "NIKON D40"}))
    for name in ("D90", "nikon d90", "NIKON CORPORATION NIKON D90", "Nikon Corporation D90"):
        assert [file.name for file in CameraPairs(tmp_path, camera=name).files()] == ["a"], name
    assert [file.name for file in CameraPairs(tmp_path, camera="Sony ILCE-7RM3").files()] == ["b"]
    with pytest.raises(UserError, match=r"no frames of the camera 'D9': choose one of NIKON CORPORATION NIKON D40, N"):
        CameraPairs(tmp_path, camera="D9").files()


def test_no_frame_tells_its_camera(tmp_path: Path, write_pair: Write):
    write_pair(tmp_path)
    write_list(tmp_path, Model=None, Make=None)
    with pytest.raises(UserError, match="no frames of the camera 'D90': no file tells its camera, leave the option"):
        CameraPairs(tmp_path, camera="D90").files()


# ---- sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfa", FILTERS)
@pytest.mark.parametrize(("rows", "columns"), [(4, 6), (3, 7), (2, 9), (-4, 2)])
def test_a_margin_is_left_out(
    cfa: str, rows: int, columns: int, tmp_path: Path, rng: np.random.Generator, write_dng: Write, mosaic_of: Any
):
    """Each sample is the very value of its picture, so that what lies beside it, or under another filter, shows."""
    scene = rng.integers(8, 256, (40, 40, 3)).astype(np.uint8)
    samples = (mosaic_of(scene, cfa) * 50 + 512).astype(np.uint16)
    samples[1::2, 1::2] += 8  # the site with a black level of its own
    top, left = max(rows, 0) // 2, columns // 2
    picture = np.pad(scene, ((max(-rows, 0) // 2,) * 2, (0, 0), (0, 0)))
    picture = picture[top : top + 40 - rows, left : left + 40 - columns]
    write_dng(tmp_path / "a.dng", samples, FILTERS[cfa], (1, 1, 1))
    PIL.Image.fromarray(picture).save(tmp_path / "a.png")
    pair = load(tmp_path)
    assert pair.target.shape == (40 - max(rows, 0), 40 - columns, 3)
    assert (pair.raw_format.width, pair.raw_format.height) == pair.target.shape[1::-1]
    np.testing.assert_array_equal(pair.samples, mosaic_of(pair.target, pair.raw_format.cfa) * 50.0 + 512)


@pytest.mark.parametrize(
    ("height", "width", "words"),
    [(HEIGHT // 4, WIDTH // 4, None), (20, WIDTH + MOST_MARGIN + 1, "made smaller or cut"), (200, 48, "was turned")],
)
def test_pictures_of_another_size(
    tmp_path: Path, write_pair: Write, rng: np.random.Generator, height: int, width: int, words: str | None
):
    write_pair(tmp_path, samples=rng.integers(600, 15000, (HEIGHT, 200 if words == "was turned" else WIDTH)))
    PIL.Image.new("RGB", (width, height)).save(tmp_path / "rgb/a.jpg")
    if words is None:
        assert load(tmp_path).target.shape[:2] == (height, width)
        return
    with pytest.raises(UserError, match=rf"a\.dng is .*, but its picture .*a\.jpg is {width}x{height}: .*{words}"):
        load(tmp_path)


# ---- isp-train ---------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Callable[[], int]:
    """isp-train for one step on the pairs in the folder `data`."""
    data = {"source": "pairs", "data_set": "exif", "root": str(tmp_path / "data"), "crop": 32}
    recipe = {
        "model": {"name": "lwisp-xs"},
        "data": {"train": [data], "validation": [data], "batch": 1},
        "loss": {"l1": 1},
        "schedule": {"steps": 1, "warmup": 0},
        "device": "cpu",
        "threads": 1,
        "run": {"folder": str(tmp_path / "runs"), "name": "tiny"},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return lambda: isp_train([str(tmp_path / "tiny.yaml")])


def test_a_training(tmp_path: Path, write_pair: Write, run: Callable[[], int]):
    write_pair(tmp_path / "data", exif=TAKEN)
    assert run() == 0


@pytest.mark.parametrize(
    ("dng", "listed", "words"),
    [
        ({}, {"ExposureTime": 0}, "of raw/a.dng, has ExposureTime 0, which does not lie from"),
        ({}, {"ISO": math.nan}, "of raw/a.dng, has ISO nan, which does not lie from"),
        ({}, {"FNumber": 500}, "of raw/a.dng, has FNumber 500, which does not lie from"),
        ({"pattern": XTRANS}, {}, "without a Bayer filter, with X-Trans filters: only Bayer"),
        ({"pattern": (1, 5, 3, 4)}, {}, "without a Bayer filter, with YGMC filters: only Bayer"),
        ({"linear": True}, {}, "with three colours at every place, as of Foveon: only Bayer"),
        ({"matrix": None}, {}, "a.dng has no colour matrix, and LibRaw knows none of its camera: convert it"),
        ({"matrix": np.zeros((3, 3))}, {}, "a.dng has no colour matrix"),
        (
            {"matrix": ((1, 0, 0), (1, 0, 0), (0, 0, 1))},
            {},
            "the colour matrix of  ... a.dng cannot be inverted (camera to sRGB is -0.2052 ",
        ),
        (
            {"matrix": ((1, 0, 0), (0, 1, 0), (0, 0, -1))},
            {},
            "a.dng cannot be inverted ... : correct its ColorMatrix tags, or leave the file out",
        ),
    ],
)
def test_what_is_refused(
    dng: dict[str, Any],
    listed: dict[str, Any],
    words: str,
    tmp_path: Path,
    write_pair: Write,
    samples: Array,
    run: Callable[[], int],
    capsys: pytest.CaptureFixture[str],
):
    if dng.get("linear"):
        dng = {"samples": np.repeat(samples[..., None], 3, axis=2), **dng}
    write_pair(tmp_path / "data", exif=TAKEN, **dng)
    write_list(tmp_path / "data", **listed)
    assert run() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("isp-train: ")
    assert all(part in line for part in words.split(" ... ")), line
