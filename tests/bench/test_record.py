"""The benchmarks of recording, in a small size: what they check is checked, whatever the machine's speed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ispeed.bench import cli
from ispeed.bench.pipeline import Settings
from ispeed.bench.pretrigger import measure
from ispeed.bench.record import FullRing, measure_record
from ispeed.engines import RawFormat
from ispeed.stream.record import write_recording


def test_the_write_rate_of_a_small_recording(tmp_path: Path) -> None:
    result = measure_record(RawFormat(320, 240, "BayerRG12p"), 8, 2, tmp_path)
    assert list(result["mb_per_s"]) == ["recorder", "dd_direct", "dd_fdatasync"]
    assert all(len(column) == 2 for column in result["mb_per_s"].values())
    assert result["mb_per_s"]["recorder"][0] > 0
    assert result["frames"] == (8 << 20) // 115_200
    json.dumps(result)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_byte_in_a_recording_is_found(tmp_path: Path) -> None:
    fmt = RawFormat(64, 48, "BayerRG8")
    ring = FullRing(fmt, 16)
    frames = np.stack([ring.raw.slot(i) for i in range(16)])
    assert ring.matches(write_recording(tmp_path / "a.h5", fmt, frames))
    frames[7, 100] ^= 1
    assert not ring.matches(write_recording(tmp_path / "a.h5", fmt, frames))
    del frames
    ring.close()


@pytest.mark.usefixtures("runtime_dir")
def test_every_frame_around_each_of_some_triggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(fps=200, width=160, height=120, pixel_format="BayerRG12p")
    result = measure(settings, 3, 0.5, 0.1, Path())
    assert len(result["recordings"]) == 3
    for one in result["recordings"]:
        assert one["frames"] > 50
        assert (one["missing_ids"], one["wrong_frames"], one["lapped"], one["complete"]) == (0, 0, 0, True)
    assert result["ledger"]["balanced"]
    assert list(tmp_path.iterdir()) == []


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    code = cli.run(
        ["record", "--mib", "4", "--repeat", "1", "--folder", str(tmp_path), "--out", str(out), "--width", "320"]
    )
    report = json.loads(out.read_text())
    assert report["command"] == "record"
    assert code == (0 if report["ok"] else 1)
    assert "the recorder writes at" in capsys.readouterr().out
