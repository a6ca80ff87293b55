"""A tiny evaluation that needs no data."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled models go to a folder of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[..., Path]:
    """Writes what is measured: sets, and whatever else the file says."""

    def write(*sets: dict[str, Any], **others: Any) -> Path:
        path = tmp_path / "eval.yaml"
        path.write_text(yaml.safe_dump({"sets": list(sets), **others}))
        return path

    return write


@pytest.fixture
def score_pairs(data_dir: Path) -> ModuleType:
    """The tool that the scores of the protocol `colour` are held against."""
    path = data_dir.parent / "tools" / "score_pairs.py"
    if not path.is_file():
        pytest.skip("needs tools/score_pairs.py beside the folder of ISPEED_DATA")
    spec = importlib.util.spec_from_file_location("score_pairs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["score_pairs"] = module
    spec.loader.exec_module(module)
    return module
