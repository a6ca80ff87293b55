"""The recipe `unpaired`, shortened, on the layouts of published data sets, on folders of raw frames, with other
networks, and from pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from ispeed.train import cli
from ispeed.train.checkpoint import load_checkpoint

RECIPE = Path(__file__).parents[2] / "configs/train/unpaired.yaml"

SHORT = [
    *("run.checkpoint_every=2", "data.batch=2", "stages.isp.data.batch=2", "data.train.0.repeats=2"),
    *("stages.encoder.data.batch=2", "stages.encoder.data.train.0.crop=64", "stages.encoder.data.train.0.repeats=1"),
    *("stages.encoder.data.validation.0.crop=64", "stages.encoder.data.validation.0.hold_out=0.5"),
    *(f"stages.{stage}.schedule.{what}" for stage in ("encoder", "begin", "isp") for what in ("steps=2", "warmup=0")),
    *(f"stages.{stage}.validation.improve_db=null" for stage in ("encoder", "begin")),
    *("stages.isp.validation.improve_db=-50", "stages.isp.validation.beside=false"),
]
"""Two steps of each stage, of two samples."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chance = np.random.default_rng(1)
    for number in range(3):
        _save(tmp_path / f"photos/{number}.png", chance.integers(0, 256, (128, 160, 3)))


def _save(path: Path, values: np.ndarray, kind: type = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(values.astype(kind)).save(path)


def lay_out(layout: str, root: Path) -> str:
    """Two frames to train on and one held out, in such a layout. Returns the name of the held-out split."""
    chance = np.random.default_rng(2)
    held_out = "test" if layout == "zrr" else "val"
    for split, count in (("train", 2), (held_out, 1)):
        for number in range(count):
            mosaic, picture = chance.integers(64, 1000, (96, 96)), chance.integers(0, 256, (96, 96, 3))
            if layout == "raws":
                folder = root / split
                folder.mkdir(parents=True, exist_ok=True)
                mosaic.astype("<u2").tofile(folder / f"{number}.raw")
                (folder / f"{number}.raw.yaml").write_text("width: 96\nheight: 96\nformat: BayerBG10\nblack: 64\n")
                continue
            raw, target, end = {
                "zrr": ("huawei_raw", "canon", "jpg"),
                "ultraisp": ("mediatek_raw", "fujifilm", "png"),
            }[layout]
            _save(root / f"{split}/{raw}/{number}.png", mosaic, np.uint16)
            _save(root / f"{split}/{target}/{number}.{end}", picture)
    return held_out


def train(tmp_path: Path, layout: str, *changes: str) -> Path:
    """Runs it; the folder of the run."""
    held_out = lay_out(layout, tmp_path / "frames")
    variables = [f"variables.layout={layout}", "variables.photographs=photos"]
    changes = (*variables, f"variables.held_out={held_out}", *SHORT, *changes)
    asked = [part for change in changes for part in ("--set", change)]
    assert cli.train([str(RECIPE), "--data", "frames", *asked]) == 0
    return tmp_path / "runs/unpaired"


@pytest.mark.parametrize("layout", ["zrr", "ultraisp", "raws"])
def test_layouts(layout: str, tmp_path: Path):
    run = train(tmp_path, layout, "stages.isp.validation.beside=true")
    assert "against 3 photographs of photos" in load_checkpoint(run / "isp/last.pt").data
    assert "pictures of the classic engine" in load_checkpoint(run / "isp/last.pt").data
    lines = [json.loads(line) for line in (run / "isp/metrics.jsonl").read_text().splitlines()]
    measured = [line for line in lines if "likeness" in line]
    assert [line["step"] for line in measured] == [0, 2]
    assert load_checkpoint(run / "isp/best.pt").training is None


@pytest.mark.parametrize("network", ["robustisp", "rmfa-tiny", "lwisp-xs"])
def test_networks(network: str, tmp_path: Path):
    run = train(tmp_path, "ultraisp", f"variables.network={network}")
    begun, trained = (load_checkpoint(run / stage / "last.pt") for stage in ("begin", "isp"))
    assert (begun.model, trained.model) == (network, network)
    before = begun.network.state_dict()
    assert any((before[name] != weights).any() for name, weights in trained.network.state_dict().items())


@pytest.mark.parametrize("plain", [False, True])
def test_from_pairs(plain: bool, tmp_path: Path):
    """With discriminators and without."""
    changes = ["variables.target=picture", "variables.choose=psnr", *["stages.isp.adversary=null"] * plain]
    run = train(tmp_path, "ultraisp", *changes)
    trained = load_checkpoint(run / "isp/last.pt")
    assert "classic engine" not in trained.data
    assert ("against 3 photographs" in trained.data) is not plain
    begun = load_checkpoint(run / "begin/last.pt").network.state_dict()
    assert any((begun[name] != weights).any() for name, weights in trained.network.state_dict().items())
    assert all(torch.isfinite(weights).all() for weights in trained.network.state_dict().values())
    assert "chosen by" in load_checkpoint(run / "isp/best.pt").run


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("no photographs", "holds no photographs"),
        ("grey photographs", "all 3 photographs of photos are grey"),
        ("no frames", "holds no raw frames"),
        ("no held-out frames", "has no folder val"),
    ],
)
def test_what_is_missing_is_one_sentence(spoil: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    lay_out("raws", tmp_path / "frames")
    for path in sorted((tmp_path / "photos").iterdir()) * ("photographs" in spoil):
        path.unlink()
        if spoil.startswith("grey"):
            _save(path, np.full((128, 160), 90))
    folder = {"no frames": "train", "no held-out frames": "val"}.get(spoil)
    for path in sorted((tmp_path / "frames" / folder).iterdir()) if folder else []:
        path.unlink()
    if spoil == "no held-out frames":
        (tmp_path / "frames/val").rmdir()
    given = ["--data", "frames", "--set", "variables.layout=raws", "--set", "variables.photographs=photos"]
    short = [part for change in SHORT for part in ("--set", change)]
    assert cli.train([str(RECIPE), *given, *short]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert says in told[-1]
    assert [line for line in told if "error" in line] == told[-1:]
