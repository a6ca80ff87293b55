"""Measures without reference: what is done with pyiqa, and what is told without it.

pyiqa and its weights are not among what the tests need; a package that stands for it has the one function that is used
of it, and a measure that can be worked out by hand.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ispeed.engines import UserError
from ispeed.train.metrics.no_reference import KINDS, load_no_reference, offline

STANDS_FOR_PYIQA = '''
"""Stands for pyiqa: a score is 10 times the mean of the picture, plus what the file of weights says."""

import pathlib
import socket

import torch

made = []


def create_metric(name, device=None, **options):
    import timm

    print("Loading pretrained model")
    backbone = timm.create_model("some backbone", pretrained=True)
    made.append((name, str(device), options, backbone, torch.hub.get_dir()))
    offset = pathlib.Path(options["pretrained_model_path"]).read_text()
    if offset == "fetch":
        socket.create_connection(("203.0.113.1", 80), 1)

    def measure(picture):
        torch.set_grad_enabled(False)
        assert picture.dtype == torch.float32 and picture.ndim == 4
        if picture.mean() > 0.99:
            raise RuntimeError("too bright")
        return 10 * picture.mean()[None, None] + float(offset)

    return measure
'''

STANDS_FOR_TIMM = """
def create_model(name, pretrained=False, **options):
    return "with weights of the network" if pretrained else "bare"
"""


@pytest.fixture
def pyiqa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages that stand for pyiqa and timm are installed; returns a folder for weights."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages/pyiqa.py").write_text(STANDS_FOR_PYIQA)
    (tmp_path / "packages/timm.py").write_text(STANDS_FOR_TIMM)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    for name in ("pyiqa", "timm"):
        monkeypatch.setitem(sys.modules, name, None)  # so that it is as before in the end
        monkeypatch.delitem(sys.modules, name)
    folder = tmp_path / "weights"
    (folder / "pyiqa").mkdir(parents=True)
    (folder / "clip").mkdir()
    return folder


def put(folder: Path, text: str, *names: str) -> None:
    for name in names:
        (folder / "pyiqa" / KINDS[name].file).write_text(text)


def test_measures_are_those_of_pyiqa(pyiqa: Path, capsys: pytest.CaptureFixture[str]):
    put(pyiqa, "3", "nima", "liqe")
    (pyiqa / "clip/ViT-B-32.pt").write_text("")
    before = torch.hub.get_dir()
    found = load_no_reference(["nima", "liqe", "nima"], pyiqa)
    assert (list(found.measures), found.missing, found.lines()) == (["nima", "liqe"], {}, [])
    assert found.files == {name: KINDS[name].file for name in ("nima", "liqe")}
    assert found.measures["nima"](np.full((8, 9, 3), 51, np.uint8)) == pytest.approx(5.0)
    assert found.measures["liqe"](np.full((224, 230, 3), 0.5)) == pytest.approx(8.0)
    assert torch.is_grad_enabled(), "the whole program goes on as before"
    assert torch.hub.get_dir() == before
    name, device, options, backbone, hub = sys.modules["pyiqa"].made[0]
    path = pyiqa / "pyiqa" / KINDS["nima"].file
    assert (name, device, options) == ("nima", "cpu", {"pretrained_model_path": str(path)})
    assert (backbone, hub) == ("bare", str(pyiqa))
    assert capsys.readouterr().out == "", "tables are printed there"


def test_weights_may_lie_in_the_folder_itself_or_in_that_of_torch(pyiqa: Path, monkeypatch: pytest.MonkeyPatch):
    (pyiqa / KINDS["musiq"].file).write_text("1")
    assert list(load_no_reference(["musiq"], pyiqa).measures) == ["musiq"]
    monkeypatch.setattr(torch.hub, "_hub_dir", str(pyiqa))
    assert list(load_no_reference(["musiq"]).measures) == ["musiq"]


def test_what_is_missing_is_told(pyiqa: Path):
    put(pyiqa, "1", "liqe")
    found = load_no_reference(["nima", "liqe"], pyiqa)
    assert found.measures == {}
    assert found.lines() == [
        f"not measured: nima: {pyiqa} lacks {KINDS['nima'].file}; put there what pyiqa publishes under that name",
        f"not measured: liqe: {pyiqa} lacks clip/ViT-B-32.pt; put there what pyiqa publishes under that name",
    ]


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "pyiqa", raising=False)
    (line,) = load_no_reference(["musiq"], tmp_path).lines()
    assert line == "not measured: musiq: it needs the package pyiqa, which is not installed; run pip install pyiqa"


def test_the_network_is_never_asked(pyiqa: Path):
    put(pyiqa, "fetch", "nima")
    (line,) = load_no_reference(["nima"], pyiqa).lines()
    assert "it asks for the network, and weights are read from files alone" in line
    with offline():
        with pytest.raises(OSError, match="files alone"):
            socket.getaddrinfo("localhost", 80)
        with socket.socket() as one, pytest.raises(OSError, match="files alone"):
            one.connect(("127.0.0.1", 9))
    assert socket.getaddrinfo("127.0.0.1", 80)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass


def test_damaged_weights_are_told(pyiqa: Path):
    (pyiqa / "pyiqa" / KINDS["musiq"].file).write_bytes(b"\xff\xfe\xff")
    (line,) = load_no_reference(["musiq"], pyiqa).lines()
    assert "pyiqa could not make it of" in line


def test_pictures_that_cannot_be_measured(pyiqa: Path):
    put(pyiqa, "1", "liqe", "nima")
    (pyiqa / "clip/ViT-B-32.pt").write_text("")
    measures = load_no_reference(["liqe", "nima"], pyiqa).measures
    with pytest.raises(ValueError, match="of 224 x 224 and up"):
        measures["liqe"](np.zeros((223, 300, 3)))
    with pytest.raises(ValueError, match=r"nima cannot be measured in \[8, 8, 3\]: too bright"):
        measures["nima"](np.ones((8, 8, 3)))
    with pytest.raises(ValueError, match="colour pictures"):
        measures["nima"](np.ones((8, 8)))


def test_wrong_names_and_folders(tmp_path: Path):
    with pytest.raises(UserError, match="no measure 'brisque' without reference; choose from nima, musiq, liqe"):
        load_no_reference(["nima", "brisque"], tmp_path)
    with pytest.raises(UserError, match="there is no folder /nowhere"):
        load_no_reference(["nima"], Path("/nowhere"))
