"""`isp-bench soak`: its schedule, its eyes, and 20,000 frames of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ispeed.bench import cli
from ispeed.bench.soak import soak
from ispeed.bench.soak_checks import (
    LEAST_SAMPLES,
    MAIN_GROWTH,
    Sample,
    check_ledger,
    check_left,
    check_subscriber,
    judge_memory,
    take_sample,
)
from ispeed.bench.soak_faults import FAULTS, schedule
from ispeed.bench.soak_report import in_short, print_report, sums
from ispeed.bench.soak_subscriber import burnt_number

pytestmark = pytest.mark.alone

LOST = {"camera_gap": 1, "superseded": 2}


def account(seen: int, published: int) -> dict[str, Any]:
    return {"seen": seen, "missing": 1, "published": published, "lost": dict(LOST)}


def ledger(*segments: dict[str, Any], **changes: Any) -> dict[str, Any]:
    sums = {name: sum(s[name] for s in segments) for name in ("seen", "missing", "published")}
    lost = {reason: count * len(segments) for reason, count in LOST.items()}
    told = {**sums, "lost": lost, "segments": [{"account": s} for s in segments], "in_flight": 0, "balanced": True}
    return told | changes


def test_a_seed_makes_the_same_schedule_and_each_fault_comes():
    first, again, other = (schedule(seed, 100_000, 1000, 2, list(FAULTS)) for seed in (5, 5, 6))
    assert first == again != other
    assert {step.fault for step in first} == set(FAULTS)
    assert [step.at_frame for step in first] == sorted(step.at_frame for step in first)
    assert first[-1].at_frame < 99_000
    assert {step.camera for step in first} == {0, 1}
    assert all(0 <= step.amount < 1 for step in first)


def test_a_ledger_that_is_off_by_one_frame_shows():
    assert check_ledger(0, ledger(account(10, 8), account(5, 3))) == []
    assert check_ledger(0, ledger(account(10, 8), account(5, 4)))  # a segment
    assert check_ledger(0, ledger(account(10, 8), account(5, 3), seen=16, published=12))  # more than its segments
    assert check_ledger(0, ledger(account(10, 8), lost={"camera_gap": 2, "superseded": 1}))  # by another reason
    assert check_ledger(0, ledger(account(10, 8), balanced=False))
    assert check_ledger(0, {**ledger(account(10, 8), account(9, 7)), "segments": [{"account": account(9, 7)}]})
    folded = ledger(account(10, 8), account(9, 7))
    folded |= {"segments": folded["segments"][1:], "earlier": {"account": account(10, 8)}}
    assert check_ledger(0, folded) == []


def test_a_subscribers_account_that_is_off_shows():
    good = {"first": 10, "last": 19, "received": 7, "missed": 2, "lapped": 1, "wrong": 0}
    assert check_subscriber("x", good, 20) == []
    assert check_subscriber("x", {**good, "missed": 1}, 20)
    assert check_subscriber("x", {**good, "wrong": 1}, 20)
    assert check_subscriber("x", good, 19)


def test_growth_shows_and_noise_does_not():
    def samples(main: int, descriptors: int) -> list[Sample]:
        count = 2 * LEAST_SAMPLES
        return [
            Sample(i * 1000, (8 << 20) + main * i // count, 64 << 20, 30 + descriptors * i // count, 5)
            for i in range(count)
        ]

    assert judge_memory(samples(MAIN_GROWTH // 2, 0))[1] == []
    assert "main grew" in judge_memory(samples(MAIN_GROWTH * 2, 0))[1][0]
    told, problems = judge_memory(samples(0, 10))
    assert "descriptors grew" in problems[0]
    assert told["descriptors"]["per_million_frames"] > 0
    assert judge_memory(samples(MAIN_GROWTH * 2, 0)[:1]) == ({"samples": 1}, [])
    assert take_sample("no such run", os.getpid(), 0) is not None


def test_what_is_left_shows(tmp_path: Path):
    assert check_left("no such run", set(), set(), tmp_path) == []
    (tmp_path / "soak.lock").touch()
    assert "soak.lock" in check_left("no such run", set(), set(), tmp_path)[0]


def test_the_number_in_a_frame_is_read():
    picture = np.zeros((8, 160, 3), np.uint8)
    for cell, bit in enumerate(f"{123_456_789:032b}"):
        picture[:4, 4 * cell : 4 * cell + 4] = 255 * int(bit)
    assert burnt_number(picture) == 123_456_789


def test_what_is_told_of_a_soak(capsys: pytest.CaptureFixture[str]):
    account = {"received": 7, "missed": 2, "lapped": 1, "wrong": 0, "overwritten": 0}
    whole = ledger({"seen": 10, "missing": 1, "published": 8}, outages=[{"duration_s": 1.26}])
    report = {
        "seed": 5,
        "frames": 11,
        "seconds": 2.5,
        "faults": {"unplug": 1},
        "cameras": {0: in_short(whole)},
        "subscribers": {"steady 0": sums([account, account])},
        "memory": {"samples": 2, "main": {"first": 1.0, "last": 2.0, "highest": 3}},
    }
    assert report["cameras"][0]["outage_s"] == 1.3
    print_report(report, ["it rained"])
    told = capsys.readouterr().out
    for part in (
        "frames     11 in 2.5 s, seed 5",
        "faults     unplug 1",
        "seen 10 + missing 1 = published 8 + lost (camera_gap 1, superseded 2): balances; 1 segments",
        "steady 0   processes 2, received 14, missed 4",
        "main         1 at first, 2 at last, highest 3",
        "PROBLEM: it rained",
    ):
        assert part in told


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--only", "earthquake"], "there is no fault 'earthquake'"),
        (["--cameras", "3"], "there are two simulated cameras"),
        (["--width", "64"], "needs 128"),
    ],
)
def test_wrong_input(argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["soak", *argv]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.timeout(600)
def test_twenty_thousand_frames_of_faults():
    report = soak(20_000, seed=3, cameras=2, every=900)
    assert report["problems"] == []
    assert report["frames"] >= 20_000
    assert sum(report["faults"].values()) > 10
    assert report["subscribers"]["steady 0"]["received"] > 1000
