"""Camera profiles: those that ship, and that what is wrong with one is said in a sentence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from ispeed.engines import UserError
from ispeed.train.data.profile import CameraProfile, Look, between, read_profile

SHIPPED = sorted((Path(__file__).parents[3] / "configs/cameras").glob("*.yaml"))


def written(folder: Path, values: Any) -> Path:
    path = folder / "camera.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_what_ships():
    assert {path.stem for path in SHIPPED} == {"lab", "line", "rhid", "track"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_those_that_ship(path: Path):
    profile = read_profile(path)
    assert profile.name == path.stem
    assert profile.codes == 2**profile.bits - 1
    assert [sum(row) for row in profile.colour_matrix] == pytest.approx([1, 1, 1])
    look = profile.look.model_dump()
    assert look.keys() == Look().model_dump().keys()
    if profile.measured is None:
        assert all(first != last for first, last in look.values()), "its pictures depend on all four parameters"
    assert CameraProfile.model_validate(profile.model_dump(mode="json")) == profile


def test_a_name_is_enough(tmp_path: Path):
    profile = read_profile(written(tmp_path, {"name": "plain"}))
    assert profile == CameraProfile(name="plain")
    assert profile.look == Look()
    assert profile.vignetting == 0


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"colour": 1}, "unknown setting 'colour'"),
        ({"look": {"tint": [1, 1]}}, "unknown setting 'look.tint'"),
        ({"name": ""}, "name: "),
        ({"cfa": "RGBG"}, "cfa: input should be 'RGGB', 'GRBG', 'GBRG' or 'BGGR' (got 'RGBG')"),
        ({"bits": 11}, "bits: "),
        ({"black_level": 0.5}, "black_level: "),
        ({"vignetting": 1}, "vignetting: "),
        ({"read_noise": -1}, "read_noise: "),
        ({"full_well": 0}, "full_well: "),
        ({"base_iso": math.nan}, "base_iso: "),
        ({"iso": [100, math.nan]}, "iso.1: "),
        ({"iso": [100, math.inf]}, "iso.1: "),
        ({"iso": "high"}, "iso: "),
        ({"iso": [100]}, "iso"),
        ({"exposure_us": [0, 100]}, "exposure_us.0: input should be greater than 0 (got 0)"),
        ({"exposure_us": [-5, 100]}, "exposure_us.0: "),
        ({"exposure_us": [100, 10]}, "exposure_us is 100 to 10: it is a range between 0.001 and 3.6e+09, the lower"),
        ({"exposure_us": [1e-5, 10]}, "exposure_us is 1e-05 to 10"),
        ({"iso": [100, 1e9]}, "iso is 100 to 1e+09"),
        ({"f_number": [0.01, 16]}, "f_number is 0.01 to 16"),
        ({"focal_length_mm": [12, 1e6]}, "focal_length_mm is 12 to 1e+06"),
        ({"light": [1, 0.4]}, "light is 1 to 0.4: it is a range between 1e-06 and 1000, the lower one first"),
        ({"light": [1e-300, 1]}, "light is 1e-300 to 1"),
        ({"base_iso": 1e-300}, "base_iso: "),
        ({"full_well": 1e-300}, "full_well: "),
        ({"read_noise": 1e300}, "read_noise: "),
        ({"white_balance": [[1e-9, 2], [1, 2]]}, "white_balance.0.0: input should be greater than or equal to 0.25"),
        ({"white_balance": [[1, 2], [2, 1]]}, "white_balance is 2 to 1: the lower one comes first"),
        ({"white_balance": [[0, 2], [1, 2]]}, "white_balance.0.0: "),
        ({"colour_matrix": [[1, 0, 0], [0, 1, 0]]}, "colour_matrix is three rows of three numbers"),
        ({"colour_matrix": [[1, 0], [0, 1], [1, 1]]}, "colour_matrix is three rows of three numbers"),
        ({"colour_matrix": [[1, 0, 0], [0.5, 0.5, 0], [1.5, -0.5, 0]]}, "colour_matrix cannot be inverted"),
        ({"colour_matrix": [[1, 0, 0], [1, 1e-9, 0], [0, 0, 1]]}, "colour_matrix cannot be inverted"),
        ({"colour_matrix": [[1, 0, 0], [0, math.nan, 0], [0, 0, 1]]}, "colour_matrix.1.1: "),
        ({"colour_matrix": [[1, 0, 0], [0, math.inf, 0], [0, 0, 1]]}, "colour_matrix.1.1: "),
        ({"colour_matrix": [[162, -48, -14], [-22, 146, -24], [2, -52, 150]]}, "rows of colour_matrix sum to 1"),
        ({"colour_matrix": [[1, 0, 0], [1, 1e-4, 0], [1, 0, 1e-4]]}, "colour_matrix cannot be inverted"),
        ({"colour_matrix": [[1e200, 0, 0], [0, 1e200, 0], [0, 0, 1e200]]}, "rows of colour_matrix sum to 1"),
        ({"look": {"brighten": [0, 1]}}, "look.brighten.0: "),
        ({"look": {"brighten": [1e300, 1]}}, "look.brighten.0: "),
        ({"look": {"sharpen": [0, 1e300]}}, "look.sharpen.1: "),
        ({"look": {"contrast": [0, 1.5]}}, "look.contrast.1: "),
        ({"look": {"sharpen": [-1, 0]}}, "look.sharpen.0: "),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path, values: dict[str, Any], problem: str):
    path = written(tmp_path, {"name": "wrong", **values})
    with pytest.raises(UserError) as caught:
        read_profile(path)
    said = str(caught.value)
    assert said.startswith(f"the camera profile {path}: ")
    assert problem in said
    assert "\n" not in said


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path):
    with pytest.raises(UserError) as caught:
        read_profile(written(tmp_path, {"bits": 11, "iso": [0, 1], "colour": 1}))
    assert all(part in str(caught.value) for part in ("name: ", "bits: ", "iso.0: ", "'colour'"))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"- a\n- b\n", b"name: [1", b"name: &a [*a]", None])
def test_what_is_no_profile(tmp_path: Path, content: bytes | None):
    path = tmp_path / "camera.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_profile(path)
    assert str(caught.value).startswith(f"the camera profile {path}: ")
    assert "\n" not in str(caught.value)


def test_between_by_the_logarithm():
    assert between((1.0, 3.0), 10.0, (1.0, 100.0)) == pytest.approx(2.0)
    assert between((3.0, 1.0), 10.0, (1.0, 1000.0)) == pytest.approx(3 - 2 / 3)
    for at, wanted in ((1.0, 1.0), (0.01, 1.0), (100.0, 3.0), (1e6, 3.0)):
        assert between((1.0, 3.0), at, (1.0, 100.0)) == pytest.approx(wanted)
    assert between((1.0, 3.0), 5.0, (5.0, 5.0)) == 1.0
