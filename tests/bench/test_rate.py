"""`isp-bench --fps`: the judgement, and real runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ispeed.bench import cli
from ispeed.bench.rate import RATE_TOLERANCE, _stage_rates, missed_target

STAGES = ("camera", "grab", "develop", "publish")


def run_of(**changes: Any) -> dict[str, Any]:
    good = {
        "published_fps": 1000.0,
        "lost_outside_stalls": 0,
        "ledger": {"balanced": True, "in_flight": 0},
        "exit": 0,
        "subscribers": [{"torn": 0}],
    }
    return {**good, **changes}


def test_a_run_within_the_tolerance_reaches_the_target():
    assert missed_target(run_of(published_fps=1000 * (1 - RATE_TOLERANCE)), 1000) == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"published_fps": 989.9}, "published 989.9 fps of 1000"),
        ({"lost_outside_stalls": 3}, "3 frames lost"),
        ({"ledger": {"balanced": False, "in_flight": 0}}, "balance"),
        ({"ledger": {"balanced": True, "in_flight": 1}}, "balance"),
        ({"exit": 1}, "exit code 1"),
        ({"subscribers": [{"torn": 0}, {"torn": 2}]}, "2 frames were overwritten"),
    ],
)
def test_each_flaw_misses_the_target(changes: dict[str, Any], word: str):
    (why,) = missed_target(run_of(**changes), 1000)
    assert word in why


def test_stage_rates_are_those_of_intervals_inside_the_window():
    def status(t_s: float, rate: float) -> dict[str, Any]:
        return {"t_s": t_s, "received_ns": int(t_s * 1e9), "rates": dict.fromkeys(STAGES, rate)}

    statuses = [status(1, 5.0), status(2, 100.0), status(4, 400.0), status(5, 5.0)]
    rates = _stage_rates(statuses, {"start_ns": int(0.9e9), "end_ns": int(4.5e9)})
    assert rates == dict.fromkeys(STAGES, 300.0)
    assert _stage_rates(statuses, {"start_ns": int(1.5e9), "end_ns": int(1.9e9)}) == {}


@pytest.mark.usefixtures("runtime_dir")
def test_a_short_run_reports_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "run.json"
    size = ["--width", "320", "--height", "240"]
    code = cli.run(["--fps", "100", *size, "--seconds", "5", "--warm-up", "1", "--subscribers", "2", "--out", str(out)])
    report = json.loads(out.read_text())
    printed = capsys.readouterr().out
    # A machine that stands still can cost the rate; what the run says about itself must then agree.
    assert code == (0 if report["ok"] else 1)
    assert report["ok"] == (not report["missed_target"])
    assert ("reached" in printed) == report["ok"]
    assert report["frame"]["srgb_bytes"] == 320 * 240 * 3
    assert report["frame"]["pixel_format"] == "BayerRG8"
    assert report["engine"]["name"] == "classic"
    assert {"cpu", "cores", "ram_gib", "kernel", "python", "packages"} <= report["machine"].keys()
    (run,) = report["runs"]
    assert {*STAGES, "subscriber"} == run["rates"].keys()
    assert {"main", "grab", "develop", "subscriber 0", "subscriber 1"} == run["processes"].keys()
    assert all(use["pss_mib"] > 0 and use["cpu_percent"] >= 0 for use in run["processes"].values())
    assert run["latency_ms"]["from"] == "device"
    assert (
        0
        < run["latency_ms"]["p50"]
        <= run["latency_ms"]["p99"]
        <= run["latency_ms"]["p999"]
        <= run["latency_ms"]["max"]
    )
    assert run["latency_read_ms"]["count"] == sum(subscriber["frames"] for subscriber in run["subscribers"])
    assert run["ledger"]["balanced"]
    assert run["ledger"]["published"] > run["frames"] > 0
    assert run["lost_inside_stalls"] + run["lost_outside_stalls"] == sum(run["lost"].values())
    assert run["witness"]["half_slack_ms"] == pytest.approx(run["slack_ms"] / 2)


@pytest.mark.usefixtures("runtime_dir")
def test_a_rate_that_no_machine_holds_gives_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "run.json"
    code = cli.run(["--fps", "100000", "--seconds", "2", "--warm-up", "0.5", "--slots", "16", "--out", str(out)])
    assert code == 1
    report = json.loads(out.read_text())
    assert not report["ok"]
    assert any("published" in why for why in report["missed_target"])
    assert "MISSED" in capsys.readouterr().out
    assert report["runs"][0]["ledger"]["balanced"]
