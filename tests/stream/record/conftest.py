"""What the tests of recordings share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for recorded_rings.py and recorder_rig.py

from recorded_rings import Clock
from recorder_rig import Rig


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rig]]:
    """Makes a recorder. The clock is played: the test turns it."""
    clock = Clock()
    for module in ("recorder", "take"):
        monkeypatch.setattr(f"ispeed.stream.record.{module}.time", clock)
    rigs: list[Rig] = []

    def make(slots: int = 40, **settings: Any) -> Rig:
        rigs.append(Rig(clock, tmp_path / "recordings", slots, **settings))
        return rigs[-1]

    yield make
    for made in rigs:
        made.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Callable[[str, int], str]:
    """Runs a program with the path of a file system of so many bytes as its argument; returns what it prints.

    The file system is a tmpfs in a mount namespace of the program's own, which goes with it. Skips, visibly, where the
    kernel lets nobody have one.
    """
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine permits no mount namespace, so there is no small disk")
    folder = tmp_path / "disk"
    folder.mkdir()

    def run(program: str, size: int) -> str:
        mount = 'mount -t tmpfs -o size=$1 none "$2" && exec "$3" -c "$4" "$2"'
        command = ["unshare", "-rm", "sh", "-c", mount, "sh", str(size), str(folder), sys.executable, program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
