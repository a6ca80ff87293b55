"""isp-align as a user runs it: what it leaves, what it refuses, wrong input, and Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest

from ispeed.engines import RawFormat
from ispeed.train.align_cli import align_folder, main
from ispeed.train.alignment.page import file_name
from ispeed.train.alignment.settings import AlignSettings
from ispeed.train.data.folder import PairFolder
from ispeed.train.data.misaligned import Misaligned
from ispeed.train.data.pairs import RawPairs
from ispeed.train.data.raw_pair import RawPair

Take = Callable[..., Misaligned]
AsRead = Callable[..., RawPair]
WritePair = Callable[[Path, str, RawPair], None]

EDGE = 128
SPACE = "{http://www.w3.org/1999/xhtml}"


@pytest.fixture
def good(take: Take, as_read: AsRead) -> RawPair:
    return as_read(take(EDGE, 2, (3.0, 6.0)))


@pytest.fixture
def folder(tmp_path: Path, good: RawPair, take: Take, as_read: AsRead, write_pair: WritePair) -> Path:
    """Two pairs that can be aligned, and one of each kind that cannot."""
    root = tmp_path / "pairs"
    other = as_read(take(EDGE, 6))
    fmt = good.raw_format
    wrong = RawFormat(EDGE, EDGE, "BayerGR16", fmt.black_level)
    write_pair(root, "a_good", good)
    write_pair(root, "b_another_scene", replace(good, target=other.target))
    write_pair(root, "c_blank", replace(good, samples=np.full_like(good.samples, 4096)))
    write_pair(root, "d_wrong_phase", replace(good, raw_format=wrong))
    write_pair(root, "e_good", other)
    return root


def test_what_it_leaves(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "aligned"
    assert main([str(folder), "-o", str(out), "--set", "workers=2"]) == 0
    told = capsys.readouterr()
    assert f"{out}/index.html: 2 of 5 pairs aligned" in told.out
    refused = [line.split(" is refused: ")[0].removeprefix("isp-align: ") for line in told.err.splitlines()]
    assert refused == ["b_another_scene", "c_blank", "d_wrong_phase"]
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".aligned")]
    assert sorted(path.name for path in (out / "mask").iterdir()) == ["a_good.png", "e_good.png"]

    report = json.loads((out / "alignment.json").read_text())
    assert report["flow"]["flow"] == "dis"
    assert report["settings"]["workers"] == 2
    assert [each["name"] for each in report["pairs"]] == sorted(path.stem for path in (folder / "rgb").iterdir())
    reasons = [each["refused"] for each in report["pairs"]]
    assert reasons[0] is reasons[4] is None
    for reason, words in zip(reasons[1:4], ("reference", "blank", "hardly GRBG: .*; RGGB would fit"), strict=True):
        assert re.search(words, reason)
    assert report["pairs"][0]["flow"]["median"] > 1
    assert 0.3 < report["pairs"][0]["valid"] <= 1


def test_it_is_read_back_with_masks(folder: Path, good: RawPair, tmp_path: Path):
    out = tmp_path / "aligned"
    assert main([str(folder), "-o", str(out)]) == 0
    reader = PairFolder(out)
    files = reader.files()
    assert [file.name for file in files] == ["a_good", "e_good"]
    assert [file.group for file in files] == ["a_good", "e_good"]
    pair = reader.load(files[0])
    np.testing.assert_array_equal(pair.samples, good.samples)
    assert pair.raw_format == good.raw_format
    assert pair.mask is not None
    assert set(np.unique(pair.mask)) <= {0, 255}
    sample = RawPairs(reader, files, crop=64)[0]
    assert sample["mask"].shape == (1, 64, 64)
    assert sample["target"].shape == (3, 64, 64)


def test_the_page_is_well_formed_and_its_pictures_flicker(folder: Path, tmp_path: Path):
    out = tmp_path / "aligned"
    assert main([str(folder), "-o", str(out), "--set", "shown=1"]) == 0
    text = (out / "index.html").read_text()
    page = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))  # noqa: S314 - our own
    images = [image.attrib["src"] for image in page.iter(f"{SPACE}img")]
    assert images == [f"shown/a_good-{kind}.png" for kind in ("before", "after", "mask")]
    assert sorted(path.name for path in (out / "shown").iterdir()) == sorted(Path(image).name for image in images)
    frames = [_frames(out / image) for image in images]
    assert [len(each) for each in frames] == [2, 2, 1]
    np.testing.assert_array_equal(frames[0][0], frames[1][0])  # the frame, which does not move
    assert np.abs(frames[0][1] - frames[1][1]).mean() > 1, "the reference does"
    cells = [cell.text for cell in page.iter(f"{SPACE}td")]
    assert {"a_good", "e_good", "b_another_scene", "c_blank", "d_wrong_phase"} <= set(cells)
    bars = list(page.iter("{http://www.w3.org/2000/svg}rect"))
    assert len(bars) == 32
    heads = {cell.text for cell in page.iter(f"{SPACE}th")} - {"pair", "reason"}
    assert heads == {word.text for word in page.iter(f"{SPACE}dt")}, "every column is explained"
    assert all(image.attrib["alt"].startswith("a_good: ") for image in page.iter(f"{SPACE}img"))
    assert "Pictures of 1 of them follow; --set shown=2 shows all." in text
    assert "<script" not in text
    assert "http" not in text.replace("http://www.w3.org/1999/xhtml", "").replace("http://www.w3.org/2000/svg", "")


def _frames(path: Path) -> list[np.ndarray[Any, Any]]:
    """The pictures of a PNG that may flicker."""
    with PIL.Image.open(path) as image:
        found = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            found.append(np.asarray(image.convert("RGB")).astype(float))
        return found


def test_workers_change_nothing(folder: Path, tmp_path: Path):
    found = []
    for workers in (1, 3):
        out = tmp_path / str(workers)
        assert main([str(folder), "-o", str(out), "--set", f"workers={workers}"]) == 0
        pairs = json.loads((out / "alignment.json").read_text())["pairs"]
        found.append((pairs, (out / "rgb" / "a_good.png").read_bytes(), (out / "mask" / "a_good.png").read_bytes()))
    assert found[0] == found[1]


def test_gains_groups_and_gain_go_on(folder: Path, tmp_path: Path):
    notes = {"a_good": {"group": "s1", "gains": [2.0, 1.0, 1.5], "exposure_us": 250, "gain_db": 12.5}}
    (folder / "pairs.json").write_text(json.dumps(notes))
    out = tmp_path / "aligned"
    assert main([str(folder), "-o", str(out)]) == 0
    written = json.loads((out / "pairs.json").read_text())
    assert written["a_good"] == notes["a_good"]
    assert written["e_good"] == {"group": "e_good"}
    reader = PairFolder(out)
    pair = reader.load(reader.files()[0])
    np.testing.assert_allclose(pair.gains, [2, 1, 1.5])
    assert (pair.exposure_us, pair.gain_db) == (250, 12.5)


def test_a_damaged_file_is_a_reason_too(folder: Path, tmp_path: Path):
    path = folder / "rgb" / "a_good.png"
    path.write_bytes(path.read_bytes()[:500])
    records = align_folder(folder, tmp_path / "aligned", AlignSettings())
    assert records[0].reason is not None
    assert "it cannot be read: " in records[0].reason
    assert "a_good.png" in records[0].reason
    assert records[4].reason is None


def test_all_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "aligned"
    assert main([str(folder), "-o", str(out), "--set", "least_valid=1", "--set", "least_agreement=1"]) == 1
    assert "every pair was refused" in capsys.readouterr().err
    assert (out / "index.html").is_file()
    assert not (out / "raw").exists()


def test_a_folder_is_replaced_only_if_asked_and_only_if_it_is_ours(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out, other = tmp_path / "aligned", tmp_path / "other"
    out.mkdir()
    for name in ("b_another_scene", "c_blank", "d_wrong_phase", "e_good"):
        for path in folder.glob(f"*/{name}*"):
            path.unlink()
    assert main([str(folder), "-o", str(out)]) == 0, "an empty folder is as good as none"
    (out / "note").write_text("old")
    assert main([str(folder), "-o", str(out)]) == 2
    assert "holds results already" in capsys.readouterr().err
    assert (out / "note").exists()
    assert main([str(folder), "-o", str(out), "--force"]) == 0
    assert not (out / "note").exists()
    other.mkdir()
    (other / "thesis.tex").write_text("all of it")
    assert main([str(folder), "-o", str(other), "--force"]) == 2
    assert "holds other files than results of isp-align" in capsys.readouterr().err
    assert (other / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/nowhere"], "there is no folder /nowhere"),
        (["{folder}", "--data-set", "imagenet"], "there is no data set 'imagenet'"),
        (["{folder}", "--data-set", "rhid", "--set", "options.exposure=2"], "the data set rhid has no option"),
        (["/nowhere", "--flow", "raft"], "flow by raft needs weights"),
        (["/nowhere", "--flow", "raft", "--features", "/no.pt"], "flow by raft needs weights"),
        (["{folder}", "--flow", "optical"], "flow: "),
        (["{folder}", "--features", "/no.pt"], "cannot read the network for features /no.pt"),
        (["{folder}", "--set", "options.keys=3"], "the data set folder has keys 3: it takes a text"),
        (["{folder}", "-o", "{folder}/raw/a.png"], "is a file, and results fill a folder"),
        (["{folder}", "--set", "least=1"], "unknown setting 'least': isp-align --settings lists"),
        (["{folder}", "--set", "least_valid=2"], "least_valid: "),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    write_pair: WritePair, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
):
    folder, out = tmp_path / "pairs", tmp_path / "aligned"
    blank = RawPair("a", np.zeros((32, 32), np.uint16), RawFormat(32, 32, "BayerRG12"), np.zeros((32, 32, 3), np.uint8))
    write_pair(folder, "a", blank)
    assert main(["-o", str(out), *(argument.format(folder=folder) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("isp-align: error: ")
    assert says in captured.err
    assert not out.exists()


def test_a_missing_package_is_told_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    wanted = ["--flow", "raft", "--flow-weights", "/no.pth", "--features", "/no.pt"]
    assert main(["/nowhere", *wanted, "-o", str(tmp_path / "out")]) == 2
    assert "flow by raft needs the package torchvision" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["pairs"], ["-o", "aligned"]])
def test_what_must_be_named(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "isp-align: error: " in capsys.readouterr().err


def test_the_settings_are_listed(capsys: pytest.CaptureFixture[str]):
    assert main(["--settings"]) == 0
    assert "least_inliers: features that must agree" in capsys.readouterr().out


def test_names_that_would_be_one_file(tmp_path: Path, good: RawPair, write_pair: WritePair, capsys: Any):
    for name in ("a b", "a_b"):
        write_pair(tmp_path / "pairs", name, good)
    assert main([str(tmp_path / "pairs"), "-o", str(tmp_path / "out")]) == 2
    assert "would both be written as a_b" in capsys.readouterr().err
    assert file_name("set4/2066_9") == "set4_2066_9"


def test_ctrl_c_leaves_nothing(tmp_path: Path, good: RawPair, write_pair: WritePair):
    root = tmp_path / "pairs"
    for number in range(40):
        write_pair(root, f"p{number:02d}", good)
    command = [sys.executable, "-c", "from ispeed.train.entry import align; raise SystemExit(align())"]
    process = subprocess.Popen([*command, str(root), "-o", str(tmp_path / "out")], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not any(path.name.startswith(".out.") and any(path.rglob("*.png")) for path in tmp_path.iterdir()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs"]
    assert len(os.listdir(root / "raw")) == 80
