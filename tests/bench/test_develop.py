"""`isp-bench develop`, with a few frames: real runs by one worker and by two, without a cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ispeed.bench import cli
from ispeed.bench.develop import _Way

TINY = ["develop", "--engine", "light-paired", "--width", "64", "--height", "48", "--frames", "16", "--repeat", "1"]


def test_one_worker_and_two(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    out = tmp_path / "develop.json"
    assert cli.run([*TINY, "--only", "processes", "--out", str(out)]) == 0
    shown = capfd.readouterr()
    assert shown.err == ""
    assert "the same in all runs" in shown.out
    report = json.loads(out.read_text())
    assert (report["command"], report["frames"], report["threads"]) == ("develop", 16, 1)
    assert report["identical_bytes"]
    (way,) = report["ways"].values()
    (one,), (two,) = way["runs"]["1"], way["runs"]["2"]
    assert way["rate"] == {"1": one["rate"], "2": two["rate"]}
    assert way["gain"]["median"] == two["rate"] / one["rate"] > 0


def test_the_gain_is_that_of_each_round():
    way = _Way("ray", [])
    way.runs = {1: [{"rate": 10.0}, {"rate": 20.0}, {"rate": 5.0}], 2: [{"rate": 20.0}, {"rate": 30.0}, {"rate": 9.0}]}
    assert way.gains == [2, 1.5, 1.8]
    assert way.to_json()["gain"] == {"median": 1.8, "least": 1.5, "most": 2}


def test_what_isp_develop_refuses(capfd: pytest.CaptureFixture[str]):
    assert cli.run([*TINY, "--only", "processes", "--engine", "nonsense"]) == 2
    assert "there is no engine 'nonsense'" in capfd.readouterr().err
