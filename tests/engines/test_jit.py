"""Where the machine code is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Develops one grey frame in a fresh interpreter and says where its machine code came from.
PROGRAM = """
import json, numba, numpy as np
from ispeed.engines import RawFormat, open_engine
from ispeed.engines import _kernels
class Slots:
    slots = 1
    def __init__(self, size): self.memory = np.zeros(size, np.uint8)
    def slot(self, index): return self.memory
engine = open_engine("classic")
engine.prepare(RawFormat(4, 4, "Mono8"), 1, Slots(16), Slots(48))
engine.close()
hits = sum(_kernels.develop_mono.stats.cache_hits.values())
print(json.dumps({"hits": hits, "setting": numba.config.CACHE_DIR}))
"""


def run(**environment: str) -> dict:
    kept = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


def test_machine_code_is_kept_in_the_users_cache_folder(tmp_path: Path):
    first = run(XDG_CACHE_HOME=str(tmp_path))
    assert first == {"hits": 0, "setting": ""}
    assert list((tmp_path / "ispeed" / "numba").rglob("*develop_mono*.nbc"))
    assert run(XDG_CACHE_HOME=str(tmp_path)) == {"hits": 1, "setting": ""}


def test_the_users_own_setting_of_numba_wins(tmp_path: Path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    report = run(NUMBA_CACHE_DIR=str(mine), XDG_CACHE_HOME=str(other))
    assert report["setting"] == str(mine)
    assert list(mine.rglob("*develop_mono*.nbc"))
    assert not other.exists()


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody may write to")
def test_without_a_folder_to_write_to_it_still_runs():
    assert run(XDG_CACHE_HOME="/proc/self/nowhere", HOME="/proc/self/nowhere")["hits"] == 0
