"""The examples of the documentation, on small networks: what they print, what they keep, and wrong input."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ispeed.train.checkpoint import Checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]
CAMERAS = [str(ROOT / f"configs/cameras/{name}.yaml") for name in ("track", "lab")]


@pytest.fixture(scope="module")
def main() -> Callable[..., int]:
    spec = importlib.util.spec_from_file_location("steered", ROOT / "docs/examples/steered.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def given(tmp_path: Path, lively: Callable[..., Any]) -> dict[str, str]:
    """Names of networks and of a folder with one photograph."""
    (tmp_path / "photos").mkdir()
    picture = np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)
    PIL.Image.fromarray(picture).save(tmp_path / "photos/a.png")
    found = {"photos": str(tmp_path / "photos")}
    for form in ("raw", "inverse", "cycle"):
        path = tmp_path / f"{form}.pt"
        options = {"form": form, "width": 4}
        save_checkpoint(path, Checkpoint(lively(form), "paramisp", options, run="none", data="chance", licence="CC0"))
        found[form] = str(path)
    return found


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["hdr", "--network", "{inverse}"], {"sRGB curve undone", "canonical", "ParamISP"}),
        (["transfer", "--network", "{inverse}", "--forward", "{raw}"], {"as it is", "ParamISP"}),
        (["transfer", "--network", "{cycle}"], {"as it is", "ParamISP"}),
    ],
)
def test_means_and_pictures(
    words: list[str], kept: set[str], main: Any, given: dict[str, str], tmp_path: Path, capsys: Any
):
    more = ["--photos", "{photos}", "--crop", "32", "-o", str(tmp_path / "out"), "--cameras", *CAMERAS]
    assert main([word.format(**given) for word in (*words, *more)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["example"], result["pictures"]) == (words[0], 1)
    assert set(result["psnr_db"]) == kept
    assert all(0 < value < 99 for value in result["psnr_db"].values())
    with PIL.Image.open(tmp_path / "out/a.png") as picture:
        assert picture.size == (32 * (5 if words[0] == "hdr" else 3), 32)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["hdr", "--network", "/no.pt"], "cannot read the checkpoint /no.pt"),
        (["hdr", "--network", "{raw}"], "raw.pt makes no frames of pictures"),
        (["transfer", "--network", "{inverse}"], "name a forward network by --forward"),
        (["transfer", "--network", "{cycle}", "--forward", "{inverse}"], "inverse.pt makes no pictures of frames"),
        (["hdr", "--network", "{inverse}", "--photos", "/no"], "there is no folder /no"),
        (["hdr", "--network", "{inverse}", "--crop", "30"], "--crop 30: the networks take multiples of 4"),
        (["hdr", "--network", "{inverse}", "--crop", "400"], "leaves no room for a crop of 400"),
    ],
)
def test_wrong_input_is_one_sentence(words: list[str], says: str, main: Any, given: dict[str, str], capsys: Any):
    more = ["--photos", "{photos}", "--crop", "32", "--cameras", *CAMERAS]
    assert main([word.format(**given) for word in (words[0], *more, *words[1:])]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert says in captured.err
