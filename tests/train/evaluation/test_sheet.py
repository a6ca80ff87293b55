"""Sheets: whole pictures of frames beside each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from ispeed.train.eval_cli import main
from ispeed.train.evaluation.crops import Strip
from ispeed.train.evaluation.opening import open_set
from ispeed.train.evaluation.settings import read_config
from ispeed.train.evaluation.sheet import GAP, LINE, WIDEST, sheet

pytestmark = pytest.mark.usefixtures("cache")

TOP = GAP + LINE


def grey(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width), value, np.uint8)


def colour(height: int, width: int, *values: int) -> np.ndarray:
    return np.broadcast_to(np.array(values, np.uint8), (height, width, 3)).copy()


def test_rows_of_frames_and_columns_of_engines():
    first = Strip("a", {"input": grey(20, 60, 40), "classic": colour(20, 60, 200, 10, 20)})
    second = Strip("b", {"input": grey(30, 50, 80), "lwisp": colour(30, 50, 1, 2, 3)})
    page = sheet([first, second])
    assert page.shape == (TOP + 20 + GAP + 30 + GAP, GAP + 60 + GAP + 60 + GAP + 50 + GAP, 3)
    lefts, tops = (GAP, GAP + 66, GAP + 132), (TOP, TOP + 20 + GAP)
    places = {(0, 0): (20, 60, 40), (1, 0): (30, 50, 80)}
    for (row, column), (height, width, value) in places.items():
        piece = page[tops[row] : tops[row] + height, lefts[column] : lefts[column] + width]
        assert (piece == value).all()
    assert (page[tops[0] : tops[0] + 20, lefts[1] : lefts[1] + 60] == [200, 10, 20]).all()
    assert (page[tops[1] : tops[1] + 30, lefts[2] : lefts[2] + 50] == [1, 2, 3]).all()
    assert (page[tops[0] : tops[0] + 20, lefts[2] :] == 255).all(), "lwisp made no picture of the first"
    for left, width in zip(lefts, (60, 60, 50), strict=True):
        assert page[GAP:TOP, left : left + width].min() < 128, "a caption stands above each column"
        assert (page[GAP:TOP, left - GAP : left] == 255).all(), "and stays in it"


def test_wide_pictures_become_means_of_their_pixels():
    wide = np.zeros((4, 2 * WIDEST), np.uint8)
    wide[:, ::2] = 100
    page = sheet([Strip("a", {"input": wide})])
    assert page.shape == (TOP + 2 + GAP, GAP + WIDEST + GAP, 3)
    assert (page[TOP : TOP + 2, GAP : GAP + WIDEST] == 50).all()


def test_a_long_caption_is_cut_off():
    page = sheet([Strip("a", {"an engine whose name is longer than its picture is wide": grey(8, 24, 9)})])
    assert page.shape[1] == 24 + 2 * GAP


def test_nothing_to_show():
    with pytest.raises(ValueError, match="one frame at least"):
        sheet([])


def test_isp_eval_writes_one_for_each_set_that_shows_frames(write_config, tmp_path: Path):
    sets = [{"kind": "scenes", "crop": 64, "limit": 3, "shown": shown, "name": f"set {shown}"} for shown in (2, 0)]
    config, folder = write_config(*sets), tmp_path / "out"
    assert main(["cv2-ea", "--on", str(config), "-o", str(folder), "--sheets"]) == 0
    assert [path.name for path in (folder / "sheets").iterdir()] == ["set_2.png"]
    assert 'href="sheets/set_2.png"' in (folder / "index.html").read_text()
    page = np.asarray(PIL.Image.open(folder / "sheets/set_2.png"))
    assert page.shape == (TOP + 2 * (64 + GAP), GAP + 4 * (64 + GAP), 3), "input, two engines and the reference"
    frames = open_set(read_config(config).sets[0], 1).frames("RGGB", 2)
    for row, frame in enumerate(frames):
        assert frame.reference is not None
        top = TOP + row * (64 + GAP)
        np.testing.assert_array_equal(page[top : top + 64, -64 - GAP : -GAP], frame.reference)


def test_sheets_need_a_folder(write_config, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--on", str(write_config({"name": "a", "kind": "scenes"})), "--sheets"])
    assert ended.value.code == 2
    assert "--sheets and --force say what becomes of the folder of -o" in capsys.readouterr().err
