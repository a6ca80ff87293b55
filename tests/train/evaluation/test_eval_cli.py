"""isp-eval as a user runs it: tables, the folder that it leaves, wrong input."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest
import torch

from ispeed.train.eval_cli import main
from ispeed.train.evaluation.developers import make_developer
from ispeed.train.evaluation.opening import open_set
from ispeed.train.evaluation.page import safe
from ispeed.train.evaluation.settings import read_config
from ispeed.train.metrics.lpips import AlexNet

pytestmark = pytest.mark.usefixtures("cache")

SCENES = {"name": "some scenes", "kind": "scenes", "crop": 192, "limit": 1, "shown": 1}
SMALL = {"name": "small", "kind": "scenes", "crop": 32, "limit": 1, "shown": 1}


def test_the_folder_holds_all(write_config, tmp_path: Path, capsys):
    config, folder = write_config(SCENES, {"name": "edge", "kind": "edge", "size": 64, "frames": 1}), tmp_path / "out"
    assert main(["lwisp-xs", "--on", str(config), "-o", str(folder), "--pictures"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "some scenes: scenes, 1 frame, protocol plain",
        "PSNR dB",
        "MS-SSIM",
        "MTF50",
        "LPIPS was not measured",
    ):
        assert part in shown
    report = json.loads((folder / "results.json").read_text())
    assert list(report["engines"]) == ["classic", "lwisp-xs"]
    assert len(report["engines"]["lwisp-xs"]["weights_sha256"]) == 64
    assert report["machine"]["cores"] >= 1
    rows = report["sets"][0]["rows"]
    assert [row["engine"] for row in rows] == ["classic", "lwisp-xs"]
    assert f"{rows[1]['mean']['psnr']:.2f}" in shown
    assert rows[1]["frames"][0]["psnr"] == rows[1]["mean"]["psnr"]
    assert sorted(path.name for path in folder.iterdir()) == ["crops", "index.html", "pictures", "results.json"]
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")]


def test_the_page_is_well_formed_and_needs_nothing_else(write_config, tmp_path: Path):
    folder = tmp_path / "out"
    assert main(["lwisp-xs", "--on", str(write_config(SCENES)), "-o", str(folder)]) == 0
    text = (folder / "index.html").read_text()
    page = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))  # noqa: S314 - our own
    space = "{http://www.w3.org/1999/xhtml}"
    captions = [figure.findtext(f"{space}figcaption") for figure in page.iter(f"{space}figure")]
    assert captions == ["input", "classic", "lwisp-xs", "reference"]
    for image in page.iter(f"{space}img"):
        crop = np.asarray(PIL.Image.open(folder / image.attrib["src"]))
        assert crop.shape[:2] == (160, 160)
        assert crop.std() > 0
        assert image.attrib["width"] == "320"
        assert image.attrib["alt"].startswith("scene 0: ")
    assert "http" not in text.replace("http://www.w3.org/1999/xhtml", "")
    assert "<script" not in text
    heads = [cell.text for cell in page.iter(f"{space}th")]
    explained = [word.text for word in page.iter(f"{space}dt")]
    assert set(heads[heads.index("PSNR dB") :]) <= set(explained), "every measure of the table is explained"
    assert "Only the first frames" not in text


def test_a_quick_look_says_so_and_phases_are_told_apart(write_config, tmp_path: Path):
    folder = tmp_path / "out"
    config = write_config({**SMALL, "cfa": "all"})
    assert main(["cv2-ea", "--on", str(config), "-o", str(folder), "--quick"]) == 0
    text = (folder / "index.html").read_text()
    assert "Only the first frames of each set were taken (--quick)" in text
    assert text.count('<tr class="first">') == 4, "the other three phases, and the mean"


def test_pictures_whose_names_would_be_one(write_config, tmp_path: Path):
    """Endings but PNG's stay in the name; what a file system would take for the same name gets a number."""
    root, folder = tmp_path / "photos", tmp_path / "out"
    root.mkdir()
    rng = np.random.default_rng(1)
    for name in ("x.jpg", "x.png", "a b.png", "a_b.png"):
        PIL.Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(root / name)
    photos = {"name": "p", "kind": "photos", "folder": str(root), "crop": 32, "downscale": 1, "shown": 0}
    assert main(["cv2-ea", "--on", str(write_config(photos)), "-o", str(folder), "--pictures"]) == 0
    for engine in ("classic", "cv2-ea"):
        found = {path.name: path.read_bytes() for path in (folder / "pictures" / "p_RGGB" / engine).iterdir()}
        assert sorted(found) == ["a_b-2.png", "a_b.png", "x.jpg.png", "x.png"]
        assert len(set(found.values())) == 4


def test_pictures_are_those_that_were_measured(write_config, tmp_path: Path):
    config, folder = write_config(SMALL), tmp_path / "out"
    assert main(["cv2-ea", "--on", str(config), "-o", str(folder), "--pictures"]) == 0
    made = open_set(read_config(config).sets[0], 1)
    frame = next(made.frames("RGGB"))
    for spec in ("classic", "cv2-ea"):
        developer = make_developer(spec)
        developer.prepare(frame, made.matrix)
        wanted = developer.develop(frame)
        developer.close()
        saved = np.asarray(PIL.Image.open(folder / "pictures" / "small_RGGB" / spec / "scene_0.png"))
        np.testing.assert_array_equal(saved, wanted)


def test_a_folder_is_replaced_only_if_asked_and_only_if_it_holds_results(write_config, tmp_path: Path, capsys):
    folder, other = tmp_path / "out", tmp_path / "other"
    folder.mkdir()
    arguments = ["cv2-ea", "--on", str(write_config(SMALL)), "-o"]
    assert main([*arguments, str(folder)]) == 0, "an empty folder is as good as none"
    before = (folder / "results.json").read_text()
    assert main([*arguments, str(folder)]) == 2
    assert "holds results already" in capsys.readouterr().err
    assert (folder / "results.json").read_text() == before
    (folder / "note").write_text("old")
    assert main([*arguments, str(folder), "--force"]) == 0
    assert not (folder / "note").exists()
    other.mkdir()
    (other / "thesis.tex").write_text("all of it")
    assert main([*arguments, str(other), "--force"]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert (other / "thesis.tex").exists()


def test_what_fails_leaves_no_folder(write_config, tmp_path: Path):
    config = write_config(SMALL, {"name": "b", "kind": "photos", "folder": "/nowhere"})
    assert main(["cv2-ea", "--on", str(config), "-o", str(tmp_path / "out")]) == 2
    assert main(["nobody", "--on", str(write_config(SMALL)), "-o", str(tmp_path / "new" / "out")]) == 2
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["eval.yaml"]


def test_tuning_adds_the_baseline(write_config, tmp_path: Path, capsys):
    config = write_config(SMALL, tune={"name": "t", "kind": "scenes", "crop": 32, "limit": 1})
    assert main(["cv2-ea", "--on", str(config), "--tune-nlm", "-o", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    name = report["tuning"]["name"]
    assert list(report["engines"]) == ["classic", "cv2-ea", name]
    assert f"best of {len(report['tuning']['grid'])} strengths on 1 frames: {name}" in capsys.readouterr().out
    assert main(["cv2-ea", "--on", str(write_config(SMALL)), "--tune-nlm"]) == 2
    assert "has no tune" in capsys.readouterr().err


def test_lpips_is_measured_where_there_are_weights(write_config, tmp_path: Path, capsys):
    torch.manual_seed(2)
    channels = (64, 192, 384, 256, 256)
    torch.save(AlexNet().state_dict(), tmp_path / "alexnet.pth")
    torch.save({f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1) for k, c in enumerate(channels)}, tmp_path / "lin.pth")
    weights = ["--lpips", str(tmp_path / "alexnet.pth"), "--lpips-linear", str(tmp_path / "lin.pth")]
    assert main(["cv2-ea", "--on", str(write_config(SMALL)), *weights]) == 0
    shown = capsys.readouterr().out
    assert "LPIPS" in shown
    assert "LPIPS was not measured" not in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--on", "/nowhere.yaml"], "cannot read the config /nowhere.yaml"),
        (["nobody", "--on", "{config}"], "there is no engine 'nobody'"),
        (["--on", "{config}", "--set", "sets.0.crop=1"], "crop"),
        (["--on", "{config}", "--set", "sets.7.crop=64"], "no place in a list of 1"),
        (["--on", "{config}", "--lpips", "/no.pth", "--lpips-linear", "/no.pth"], "/no.pth"),
        (["--on", "{config}", "-o", "/proc/out"], "cannot write the results to /proc/out"),
        (["--on", "{config}", "-o", "{config}"], "eval.yaml is a file, and results fill a folder"),
        (["--on", "{config}", "-o", "{config}/out"], "there is a file where a folder should be"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(write_config, capsys, arguments: list[str], says: str):
    config = str(write_config(SMALL))
    assert main([argument.format(config=config) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert captured.err.startswith("isp-eval: error: ")


@pytest.mark.parametrize(
    "arguments", [[], ["--on", "x", "--lpips", "y"], ["--on", "x", "--force"], ["--on", "x", "--iqa-weights", "y"]]
)
def test_options_that_do_not_go_together(arguments: list[str], capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "isp-eval: error: " in capsys.readouterr().err


def test_the_settings_are_listed(capsys):
    assert main(["--settings"]) == 0
    assert "sets.N (photos) folder: " in capsys.readouterr().out


@pytest.mark.parametrize(("name", "wanted"), [("runs/a/last.pt", "runs_a_last.pt"), ("../..", "_.."), ("é", "_")])
def test_names_for_files(name: str, wanted: str):
    assert safe(name) == wanted
