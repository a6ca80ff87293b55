"""How good a picture looks without another to compare it with: NIMA, MUSIQ and LIQE, through the package pyiqa.

Neither pyiqa nor the weights come with ispeed. Weights are read from files that are there already; nothing is ever
fetched from a network: while a measure is made, none can be reached. What is missing is told, and not measured.

- NIMA: Talebi, Milanfar, "NIMA: Neural Image Assessment", TIP 2018.
- MUSIQ: Ke et al., "MUSIQ: Multi-scale Image Quality Transformer", ICCV 2021.
- LIQE: Zhang et al., "Blind Image Quality Assessment via Vision-Language Correspondence", CVPR 2023.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ...engines.errors import UserError, reason
from .pictures import unit

PYIQA, CLIP = "pyiqa", "clip"
"""Folders that pyiqa makes in torch's folder of weights: of its own, and of CLIP's."""


class Kind(NamedTuple):
    """A measure: the file of weights that pyiqa calls its own, others beside it, and the least edge of a picture."""

    file: str
    others: tuple[str, ...] = ()
    least: int = 1


KINDS = {
    "nima": Kind("NIMA_InceptionV2_ava-b0c77c00.pth"),
    "musiq": Kind("musiq_koniq_ckpt-e95806b9.pth"),
    "liqe": Kind("liqe_koniq.pt", (f"{CLIP}/ViT-B-32.pt",), 224),
}
"""By name, as pyiqa knows them. More is better in all: 1 to 10 (NIMA), about 0 to 100 (MUSIQ), 1 to 5 (LIQE)."""


class Quality:
    """One measure.

    Args:
        name: A key of `KINDS`.
        network: What pyiqa made: float32 [1, 3, H, W] in [0, 1] to a score.
    """

    def __init__(self, name: str, network: Any) -> None:
        self.name, self._network, self._least = name, network, KINDS[name].least

    def __call__(self, picture: npt.ArrayLike) -> float:
        """Of a picture [H, W, 3], uint8 or in [0, 1].

        Raises:
            ValueError: No such picture, smaller than the measure takes, or one that it fails on.
        """
        values = unit(picture)
        if values.ndim != 3 or min(values.shape[:2]) < self._least:
            least = f"{self._least} x {self._least} and up"
            raise ValueError(f"{self.name} is measured in colour pictures of {least}, not {[*values.shape]}")
        planes = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1), np.float32))[None]
        try:
            with torch.no_grad():  # which also undoes what pyiqa sets for the whole program
                return float(torch.as_tensor(self._network(planes)).mean())
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"{self.name} cannot be measured in {[*values.shape]}: {error}") from error


@dataclass(frozen=True)
class Found:
    """What `load_no_reference` found.

    Attributes:
        measures: Those that can be measured, by name.
        missing: Why the others cannot, by name.
        files: The weights of the first, by name.
    """

    measures: dict[str, Quality]
    missing: dict[str, str]
    files: dict[str, str]

    def lines(self) -> list[str]:
        """A sentence for each that is missing."""
        return [f"not measured: {name}: {why}" for name, why in self.missing.items()]


def load_no_reference(names: Sequence[str], folder: Path | None = None) -> Found:
    """Measures, as far as their weights are here.

    Args:
        names: Of `KINDS`.
        folder: Of the weights, laid out as torch and pyiqa lay theirs out: `pyiqa/FILE` or `FILE`, and for LIQE
            `clip/ViT-B-32.pt`; None is torch's own, where pyiqa keeps what it once fetched.

    Raises:
        UserError: An unknown name, or a folder that does not exist.
    """
    for name in names:
        if name not in KINDS:
            raise UserError(f"there is no measure {name!r} without reference; choose from {', '.join(KINDS)}")
    if folder is not None and not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give the one that holds the weights of {', '.join(names)}")
    folder = Path(torch.hub.get_dir()) if folder is None else folder
    found = Found({}, {}, {})
    for name in dict.fromkeys(names):
        try:
            found.measures[name], found.files[name] = _load(name, folder)
        except _Missing as why:
            found.missing[name] = str(why)
    return found


class _Missing(Exception):
    pass


def _load(name: str, folder: Path) -> tuple[Quality, str]:
    kind = KINDS[name]
    if importlib.util.find_spec(PYIQA) is None:
        raise _Missing("it needs the package pyiqa, which is not installed; run pip install pyiqa")
    path = next((path for path in (folder / PYIQA / kind.file, folder / kind.file) if path.is_file()), None)
    lacking = ([kind.file] if path is None else []) + [each for each in kind.others if not (folder / each).is_file()]
    if path is None or lacking:
        raise _Missing(f"{folder} lacks {' and '.join(lacking)}; put there what pyiqa publishes under that name")
    before = torch.hub.get_dir()
    try:
        torch.hub.set_dir(str(folder))
        with offline(), contextlib.redirect_stdout(sys.stderr):
            pyiqa = importlib.import_module(PYIQA)
            network = pyiqa.create_metric(name, device=torch.device("cpu"), pretrained_model_path=str(path))
    except Exception as error:  # of pyiqa, of what it imports, or of weights that are damaged: any of its many kinds
        raise _Missing(f"pyiqa could not make it of {path}: {reason(error)}") from error
    finally:
        torch.hub.set_dir(before)
    return Quality(name, network), path.name


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """No network can be reached from this process, and timm makes backbones without fetching weights for them, which
    those of the measure replace.

    Raises, where something tries:
        OSError: It says that weights come from files alone.
    """

    def refused(*_: Any, **__: Any) -> Any:
        raise OSError("it asks for the network, and weights are read from files alone")

    with contextlib.ExitStack() as stack:
        for owner, name in ((socket.socket, "connect"), (socket.socket, "connect_ex"), (socket, "getaddrinfo")):
            stack.enter_context(_replaced(owner, name, refused))
        with contextlib.suppress(ImportError):
            timm: Any = importlib.import_module("timm")
            bare = functools.partial(_bare, timm.create_model)
            stack.enter_context(_replaced(timm, "create_model", bare))
        yield


def _bare(create_model: Any, *args: Any, **options: Any) -> Any:
    return create_model(*args, **options | {"pretrained": False})


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = owner.__dict__.get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)  # it was inherited
        else:
            setattr(owner, name, before)
