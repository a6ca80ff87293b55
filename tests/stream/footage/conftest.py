"""Writers of the files that are read."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def makers() -> ModuleType:
    """tests/stream/footage/makers.py: writers of .cine and .mraw files."""
    spec = importlib.util.spec_from_file_location("ispeed_test_makers", Path(__file__).parent / "makers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
