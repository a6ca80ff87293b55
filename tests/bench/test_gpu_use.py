"""How busy the GPU is. A script stands in for nvidia-smi, because this needs no GPU to be wrong."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ispeed.bench.gpu_use import GpuUse


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts an nvidia-smi that prints these lines, and then waits to be ended, in front of any other."""

    def put(*lines: str) -> None:
        script = tmp_path / "nvidia-smi"
        script.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines) + "touch said; exec sleep 60\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        monkeypatch.chdir(tmp_path)

    return put


def used(tmp_path: Path) -> float | None:
    with GpuUse() as use:
        deadline = time.monotonic() + 10
        while not (tmp_path / "said").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    return use.percent


def test_the_median_without_the_time_before(answers, tmp_path: Path):
    answers("0", "3", "94", "96", "95")
    assert used(tmp_path) == 95


def test_a_gpu_that_tells_nothing_gives_no_figure(answers, tmp_path: Path):
    answers("[N/A]", "[N/A]", "[N/A]")
    assert used(tmp_path) is None


def test_without_nvidia_smi_there_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with GpuUse() as use:
        pass
    assert use.percent is None


def test_nothing_is_asked_where_it_is_not_wanted(answers, tmp_path: Path):
    answers("50", "50", "50", "50")
    with GpuUse(wanted=False) as use:
        time.sleep(0.1)
    assert use.percent is None
    assert not (tmp_path / "said").exists()
