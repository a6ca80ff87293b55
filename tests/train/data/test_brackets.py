"""Exposure brackets: merging gives back the light they were made of; what is said about those that are none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.ExifTags
import PIL.Image
import pytest
import torch

from ispeed.engines.errors import UserError
from ispeed.train.curves import srgb_from_linear
from ispeed.train.data.bracket_merge import Merging, Shown, merged
from ispeed.train.data.brackets import Brackets, exposure_times, find_brackets, read_scene
from ispeed.train.data.splits import hold_out, manifest_hash

Array = np.ndarray[Any, Any]
TIMES = (1 / 256, 1 / 64, 1 / 16, 1 / 4)
MIDDLE = TIMES[2]


def scene(height: int = 72, width: int = 96, seed: int = 4) -> Array:
    """Smooth light of about 10 stops with colours, 1 is the white of the exposure of `MIDDLE` seconds."""
    rng = np.random.default_rng(seed)
    stops = cv2.resize(
        rng.uniform(-6.5, 3.5, (7, 9)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    colours = cv2.resize(rng.uniform(0.6, 1, (5, 6, 3)).astype(np.float32), (width, height))
    return np.exp2(np.clip(stops, -7, 3.8))[..., None] * colours


def codes_of(light: Array, seconds: float, noise: float = 0.0, curve: str = "srgb", bits: int = 8) -> Array:
    """The picture at an exposure."""
    rng = np.random.default_rng(int(seconds * 1e6))
    exposed = light * (seconds / MIDDLE) + noise * rng.standard_normal(light.shape)
    shown = np.clip(exposed, 0, 1).astype(np.float32)
    if curve == "srgb":
        shown = srgb_from_linear(torch.from_numpy(shown)).numpy()
    elif curve == "camera":
        shown = shown**0.35 * (1.3 - 0.3 * shown)
    codes = np.rint(np.clip(shown, 0, 1) * (2**bits - 1))
    return codes.astype(np.uint8 if bits == 8 else np.uint16)


def shown(light: Array, times: tuple[float, ...] = TIMES, **values: Any) -> list[Shown]:
    return [Shown(f"{k}.png", seconds, codes_of(light, seconds, **values)) for k, seconds in enumerate(times)]


def recovered(light: Array, wanted: Array, limit: float = 3.0) -> Array:
    """The ratio of the two where light is neither nearly black in the longest exposure nor white in the shortest."""
    seen = ((wanted > 0.02) & (wanted < limit)).all(2)
    assert seen.mean() > 0.5
    return light[seen] / wanted[seen]


def said(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# ---- merging -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("merge", ["debevec", "robertson"])
@pytest.mark.parametrize(("curve", "bits"), [("srgb", 8), ("linear", 8), ("srgb", 16), ("linear", 16)])
def test_light_is_recovered(merge: Any, curve: Any, bits: int):
    light = scene()
    given = merged("s", shown(light, curve=curve, bits=bits), Merging(merge, curve))
    assert (given.shape, given.dtype) == (light.shape, np.float32)
    assert given.min() >= 0
    ratio = recovered(given, light)
    assert np.median(ratio) == pytest.approx(1, abs=0.05), "1 is the white of the middle exposure"
    low, high = np.quantile(ratio, [0.02, 0.98])
    assert 0.85 < low < high < 1.15
    bright = (light > 4).any(2)
    assert bright.mean() > 0.02
    assert np.median(given[bright] / light[bright]) == pytest.approx(1, abs=0.05), "which the shortest shows alone"


def test_the_response_of_a_camera_is_estimated():
    light = scene()
    given = shown(light, curve="camera")
    ratio = recovered(merged("s", given, Merging(response="estimated")), light)
    assert ratio.std() / ratio.mean() < 0.1
    wrong = recovered(merged("s", given, Merging(response="srgb", most_moved=1)), light)
    assert wrong.std() / wrong.mean() > 2 * ratio.std() / ratio.mean()


def test_order_does_not_matter_and_black_and_white_places_are_sane():
    light = scene()
    light[:8, :8], light[-8:, -8:] = 0, 500
    given = shown(light)
    one, other = merged("s", given), merged("s", given[::-1])
    np.testing.assert_array_equal(one, other)
    assert np.isfinite(one).all()
    assert one[2, 2].max() < 0.01
    assert one[-2, -2].min() == pytest.approx(16, rel=0.01), "white in the shortest"


# ---- motion and shifts -------------------------------------------------------------------------------------


def moving() -> list[Shown]:
    """A patch of a fifth of the picture is somewhere else in the second picture."""
    light = np.full((72, 96, 3), 0.12, np.float32) * (1 + 0.3 * scene() / scene().max())
    other = light.copy()
    other[20:50, 50:85] *= 2.2
    pair = (1 / 32, 1 / 16)
    return [Shown(f"{k}.png", pair[k], codes_of(each, pair[k], 0.002)) for k, each in enumerate((light, other))]


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_noise_is_no_motion(noise: float):
    merged("s", shown(scene(), noise=noise))


def test_a_moving_bracket_is_refused():
    with pytest.raises(UserError) as error:
        merged("the bracket x", moving())
    text = said(error)
    found = re.match(
        r"the bracket x moves: 0\.png and 1\.png differ over (\d+)% of what both show well, "
        r"most of it in columns (\d+) to (\d+), rows (\d+) to (\d+)",
        text,
    )
    assert found, text
    share, *box = (int(value) for value in found.groups())
    assert 10 <= share <= 25
    assert np.abs(np.array(box) - (50, 84, 20, 49)).max() <= 4
    assert np.isfinite(merged("x", moving(), Merging(most_moved=0.5))).all()


def texture(down: int, across: int) -> Array:
    light = np.random.default_rng(3).uniform(0.03, 0.5, (220, 240, 3)).astype(np.float32)
    light = cv2.GaussianBlur(light.mean(2, keepdims=True).repeat(3, 2), (0, 0), 1.5)
    light = (light - light.min()) / np.ptp(light) * 0.4 + 0.02
    return light[10 + down : 210 + down, 10 + across : 230 + across]


def test_a_small_shift_is_undone_when_asked():
    times = (1 / 32, 1 / 16, 1 / 8)
    places = ((0, 0), (2, -3), (4, 1))
    given = [
        Shown(f"{k}.png", each, codes_of(texture(*at), each))
        for k, (each, at) in enumerate(zip(times, places, strict=True))
    ]
    with pytest.raises(UserError, match=r"moved by up to [2-5] pixels, which align: true undoes"):
        merged("s", given)
    light = merged("s", given, Merging(align=True))
    assert light.shape[0] < 200
    assert light.shape[1] < 220
    still = merged("s", [each._replace(codes=codes_of(texture(2, -3), each.seconds)) for each in given])
    best = cv2.matchTemplate(still, light, cv2.TM_CCOEFF_NORMED).max()
    assert best > 0.99


def test_times_that_the_pictures_do_not_have():
    given = shown(scene())
    with pytest.raises(
        UserError, match=r"3\.png of s is 2\.0 stops brighter than 2\.png and their exposure times tell"
    ):
        merged("s", [*given[:3], given[3]._replace(seconds=given[2].seconds * 1.01)])


# ---- pictures that are no bracket --------------------------------------------------------------------------


def even(code: int) -> Array:
    return np.full((72, 96, 3), code, np.uint8)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s[:1], r"s has 1 picture\(s\): a bracket has two or more"),
        (lambda s: [*s, s[1]._replace(name="again.png")], r"1\.png and again\.png of s have the same exposure time"),
        (lambda s: [s[0]._replace(seconds=0.0), *s[1:]], r"0\.png of s has an exposure time of 0 s: it is above 0"),
        (
            lambda s: [*s[:3], s[3]._replace(codes=s[3].codes[:60])],
            r"3\.png of s is 96x60 of 8 bits, but 0\.png is 96x72",
        ),
        (
            lambda s: [*s[:3], s[3]._replace(codes=s[3].codes * np.uint16(257))],
            r"3\.png of s is 96x72 of 16 bits, but",
        ),
        (lambda s: [s[0]._replace(codes=even(1)), *s[1:]], r"0\.png of s is all black .* with a longer exposure"),
        (lambda s: [*s[:3], s[3]._replace(codes=even(255))], r"3\.png of s is all white .* with a shorter exposure"),
    ],
)
def test_pictures_that_are_no_bracket(change: Callable[[list[Shown]], list[Shown]], says: str):
    with pytest.raises(UserError, match=says) as error:
        merged("s", change(shown(scene())))
    said(error)


def test_a_response_that_cannot_be_estimated():
    flat = [Shown(f"{k}.png", time, even(code)) for k, (time, code) in enumerate(((0.1, 100), (0.2, 101)))]
    with pytest.raises(UserError, match="cannot be estimated from s: set response to srgb or linear"):
        merged("s", flat, Merging(response="estimated"))


@pytest.mark.parametrize("values", [{"merge": "mean"}, {"response": "gamma"}, {"most_moved": 2.0}])
def test_settings_that_cannot_be(values: dict[str, Any]):
    with pytest.raises(UserError, match=f"{next(iter(values))} is "):
        Merging(**values)


# ---- folders -----------------------------------------------------------------------------------------------


def write(folder: Path, times: Mapping[str, float] | None = None, exif: bool = False, suffix: str = "png") -> Path:
    """A bracket; times are listed, in EXIF, or nowhere."""
    folder.mkdir(parents=True)
    for number, seconds in enumerate(TIMES):
        tags = PIL.Image.Exif()
        if exif:
            tags[PIL.ExifTags.Base.ExposureTime.value] = seconds
        picture = PIL.Image.fromarray(codes_of(scene(), seconds))
        picture.save(folder / f"{number}.{suffix}", exif=tags, quality=95)
    if times is not None:
        (folder / "exposures.json").write_text(json.dumps(dict(times)))
    return folder


NAMED = {f"{k}.png": seconds for k, seconds in enumerate(TIMES)}


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_times_of_exif(tmp_path: Path, suffix: str):
    write(tmp_path / "one", exif=True, suffix=suffix)
    (found,) = find_brackets(tmp_path)
    assert found.name == "one"
    assert [path.name for path in found.files] == [f"{k}.{suffix}" for k in range(4)]
    assert list(exposure_times(found).values()) == pytest.approx(TIMES)
    ratio = recovered(read_scene(found), scene())
    assert np.median(ratio) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("form", ["json", "txt"])
def test_times_of_a_list(tmp_path: Path, form: str):
    folder = write(tmp_path / "one", exif=True)
    texts = {f"{k}.png": text for k, text in enumerate(("1/100", "0.02", "4e-2", "1/10"))}
    lines = "\n".join(["# seconds", "", *(f"{name} {text}" for name, text in texts.items())])
    (folder / f"exposures.{form}").write_text(json.dumps(texts) if form == "json" else lines)
    (found,) = find_brackets(tmp_path)
    assert list(exposure_times(found).values()) == pytest.approx([0.01, 0.02, 0.04, 0.1]), "before that of EXIF"
    assert folder / f"exposures.{form}" in found.paths, "a changed list changes the manifest"


def test_missing_times(tmp_path: Path):
    write(tmp_path / "one")
    with pytest.raises(
        UserError, match=r"one has no exposure time for 0\.png and 3 more: the EXIF tells none; write .*json"
    ):
        read_scene(find_brackets(tmp_path)[0])
    (tmp_path / "one/exposures.json").write_text(json.dumps({"0.png": 1, "1.png": 2, "3.png": 4}))
    with pytest.raises(UserError, match=r"one has no exposure time for 2\.png: .*exposures\.json tells none") as error:
        read_scene(find_brackets(tmp_path)[0])
    said(error)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read"),
        ("[1, 2]", r'is not as it should be: it is \{"1.png"'),
        (json.dumps({**NAMED, "0.png": "soon"}), r"gives 0\.png an exposure time of 'soon'"),
        (
            json.dumps({**NAMED, "0.png": -1}),
            r"gives 0\.png an exposure time of -1: it is a number of seconds above 0, or 1/60",
        ),
        (json.dumps({**NAMED, "0.png": None}), r"gives 0\.png an exposure time of None"),
        (json.dumps({**NAMED, "0.png": "1/0"}), r"gives 0\.png an exposure time of '1/0'"),
        (json.dumps({**NAMED, "9.png": 1}), r"names 9\.png, which is not there"),
    ],
)
def test_lists_that_are_wrong(tmp_path: Path, text: str, says: str):
    (write(tmp_path / "one") / "exposures.json").write_text(text)
    with pytest.raises(UserError, match=says) as error:
        read_scene(find_brackets(tmp_path)[0])
    said(error)


def test_radiance_files(tmp_path: Path):
    (tmp_path / "one").mkdir()
    light = scene()
    for place in ("a.hdr", "one/b.hdr"):
        cv2.imwrite(str(tmp_path / place), light[..., ::-1] * 40)
    first, second = find_brackets(tmp_path)
    assert [first.name, second.name, second.group] == ["a.hdr", "one/b.hdr", "one"]
    given = read_scene(first)
    ratio = given / light
    assert ratio.std() / ratio.mean() < 0.02, "the file has 8 bits of mantissa"
    luminance = given @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    assert np.exp(np.log(luminance).mean()) == pytest.approx(0.18, rel=1e-3)
    cv2.imwrite(str(tmp_path / "a.hdr"), np.zeros((8, 8, 3), np.float32))
    with pytest.raises(UserError, match=r"a\.hdr is all black"):
        read_scene(first)
    first.path.write_bytes(b"#?RADIANCE")
    with pytest.raises(UserError, match=r"a\.hdr cannot be read: .*copy it again"):
        read_scene(first)


def test_exr_that_this_opencv_does_not_read(tmp_path: Path):
    (tmp_path / "x.exr").write_bytes(b"v/1\x01 no picture")
    with pytest.raises(
        UserError, match=r"x\.exr cannot be read: this OpenCV reads no OpenEXR.* convert it to \.hdr"
    ) as error:
        read_scene(find_brackets(tmp_path)[0])
    said(error)


def test_folders_without_brackets(tmp_path: Path):
    with pytest.raises(UserError, match=r"there is no folder .*nowhere: give one that holds a folder of pictures"):
        find_brackets(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no brackets: folders with \*\.png, .* are looked for"):
        find_brackets(tmp_path)
    write(tmp_path / "one", NAMED)
    with pytest.raises(
        UserError, match=r"one holds pictures itself, such as 0\.png: each bracket is a folder of its own"
    ):
        find_brackets(tmp_path / "one")
    (tmp_path / "one/0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"0\.png cannot be read: it is damaged"):
        read_scene(find_brackets(tmp_path)[0])


class TestPieces:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for name in ("one", "two"):
            write(tmp_path / name, NAMED)
        return tmp_path

    def test_pieces_are_light_by_seed_epoch_and_index(self, root: Path):
        one, other = (Brackets(root, crop=32, repeats=2, seed=3) for _ in range(2))
        assert len(one) == 4
        light, _ = one.photo(1)
        assert (light.shape, light.dtype) == ((3, 32, 32), torch.float32)
        assert light.max() > 1.2 or light.min() < 0.1
        assert torch.equal(light, other.photo(1)[0])
        assert not torch.equal(light, one.photo(3)[0])
        one.set_epoch(1)
        assert not torch.equal(light, one.photo(1)[0])

    def test_whole_scenes_are_cut_and_made_smaller(self, root: Path):
        light, _ = Brackets(root, multiple=32).photo(0)
        assert light.shape == (3, 64, 96)
        np.testing.assert_allclose(light.numpy(), read_scene(find_brackets(root)[0]).transpose(2, 0, 1)[:, 4:68])
        assert Brackets(root, downscale=2).photo(0)[0].shape == (3, 36, 48)
        with pytest.raises(UserError, match="one is 96x72, made smaller as asked, and leaves no room for 80x80"):
            Brackets(root, crop=80).photo(0)

    def test_scenes_are_held_out_and_changes_told(self, root: Path):
        scenes = find_brackets(root)
        trained, held = hold_out(scenes, 0.5)
        assert len(trained) == len(held) == 1
        before = manifest_hash(scenes)
        (root / "one/exposures.json").write_text(json.dumps({**NAMED, "0.png": 0.001}))
        assert manifest_hash(find_brackets(root)) != before
