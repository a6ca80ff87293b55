"""`isp-bench monitor`: the judgement, and a real round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ispeed.bench import cli
from ispeed.bench.monitor import ALONE, RECORDED, WATCHED, judge

pytestmark = pytest.mark.alone


def run_of(lost: int = 0, fps: float = 1000.0, code: int = 0) -> dict[str, Any]:
    return {
        "published_fps": fps,
        "lost_outside_stalls": lost,
        "ledger": {"balanced": True, "in_flight": 0},
        "exit": code,
        "subscribers": [{"torn": 0}],
    }


@pytest.mark.parametrize(
    ("alone", "watched", "words"),
    [
        ([run_of()], [run_of()], []),
        ([run_of(lost=3)], [run_of(lost=3)], []),
        ([run_of(lost=3), run_of()], [run_of(), run_of(lost=4)], ["4 frames were lost, without it 3"]),
        ([run_of()], [run_of(fps=980)], ["1 runs did not reach 1000 fps, without it 0"]),
        ([run_of(fps=900)], [run_of(fps=980)], []),
        ([run_of()], [run_of(code=1)], ["round 1: isp-stream ended with exit code 1"]),
    ],
)
def test_what_the_monitor_costs_is_judged_by_what_happens_without(
    alone: list[dict[str, Any]], watched: list[dict[str, Any]], words: list[str]
) -> None:
    why = judge({ALONE: alone, WATCHED: watched}, 1000)
    assert len(why) == len(words)
    for sentence, word in zip(why, words, strict=True):
        assert sentence.startswith("with monitor")
        assert word in sentence


@pytest.mark.usefixtures("runtime_dir")
def test_a_short_round_reports_all_and_leaves_no_recording(tmp_path: Path) -> None:
    out, recordings = tmp_path / "monitor.json", tmp_path / "recordings"
    recordings.mkdir()
    size = ["--fps", "50", "--width", "160", "--height", "120", "--slots", "64"]
    rounds = ["--seconds", "2", "--warm-up", "0.5", "--repeat", "1"]
    code = cli.run(["monitor", *size, *rounds, "--record", str(recordings), "--out", str(out)])
    report = json.loads(out.read_text())
    assert code == (0 if report["ok"] else 1)
    (alone,), (watched,) = report["runs"][ALONE], report["runs"][WATCHED]
    assert alone["clients"] == []
    assert len(watched["clients"]) == 5
    assert all(client["pictures"] > 0 for client in watched["clients"])
    assert {"monitor", "clients"} <= watched["processes"].keys()
    (recorded,) = report["runs"][RECORDED]
    assert "record" in recorded["processes"]
    assert all(run["ledger"]["balanced"] for run in (alone, watched, recorded))
    assert list(recordings.iterdir()) == []


def test_a_folder_that_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["monitor", "--record", "/nowhere"]) == 2
    assert "/nowhere" in capsys.readouterr().err
