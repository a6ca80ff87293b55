"""What the tests of recordings share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for recorded_rings.py


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
