"""`isp-bench fuzz`: 20,000 inputs over all targets, always the same ones, and that it sees what it is for."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from ispeed.bench import cli, fuzz
from ispeed.bench.fuzz_mutate import apply, mutated
from ispeed.bench.fuzz_target import Harness, Target, leaks
from ispeed.bench.fuzz_worker import Job, run_job, targets
from ispeed.engines.errors import UserError


@pytest.mark.timeout(600)
def test_20000_inputs(tmp_path: Path):
    out = tmp_path / "fuzz.json"
    keep = ["--findings", str(tmp_path / "findings"), "--out", str(out)]
    assert cli.run(["fuzz", "--inputs", "20000", "--engine", "mutator", *keep]) == 0
    report = json.loads(out.read_text())
    assert report["ok"]
    assert report["inputs"] >= 20_000
    assert {account["target"] for account in report["targets"]} == set(targets())
    for account in report["targets"]:
        assert sum(account["outcomes"].values()) == account["inputs"]
        assert account["leaks"]["descriptors"] == 0


def test_the_same_seed_makes_the_same_inputs():
    seeds = [b"a: 1", b"b: [2, 3]"]
    made = [[mutated(random.Random(seed), (b"w",), seeds) for _ in range(5)] for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    assert apply(b"abc", [(6, 32768, 0)], (), seeds) == b"ab"


def test_engines_take_turns_with_the_same_target(tmp_path: Path):
    accounts: list[dict[str, Any]] = []
    run_job(Job("endpoint", "hypothesis", 60, 1), targets()["endpoint"], tmp_path, None, accounts.append)
    assert accounts[0]["inputs"] == 60
    assert accounts[0]["findings"] == []


# -- targets with faults on purpose -----------------------------------------------------------------------------


def broken(read) -> Target:
    return Target("broken", "", (UserError,), lambda folder, stack: (read, [b"fine"]))


def harness(read, folder: Path) -> Harness:
    return Harness(broken(read), read, folder)


def test_another_exception_is_a_finding_with_its_input(tmp_path: Path):
    def read(data: bytes) -> None:
        if data == b"bad":
            raise ValueError("oh")

    fed = harness(read, tmp_path)
    for data in (b"good", b"bad", b"bad"):
        fed.feed(data)
    (finding,) = fed.findings.values()
    assert (finding["what"], finding["times"]) == ("ValueError: oh", 2)
    assert Path(finding["input"]).read_bytes() == b"bad"


def test_an_input_that_takes_too_long_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ispeed.bench.fuzz_target.LIMIT_S", 0.05)

    def read(data: bytes) -> None:
        while True:
            pass

    fed = harness(read, tmp_path)
    fed.feed(b"slow")
    assert next(iter(fed.findings.values()))["what"].startswith("took more than")


def test_what_stays_is_seen_beside_much_that_was_freed():
    ceiling = bytearray(31 << 20)  # freed, it makes glibc serve what is smaller from its heap, which keeps it
    del ceiling
    freed = [bytearray(1 << 20) for _ in range(64)]
    pin = bytearray(1 << 20)  # at the heap's end, so that nothing below is given back by itself
    del freed
    kept: list[Any] = []
    grown = leaks(lambda data: kept.append((bytearray(1 << 20), os.open(os.devnull, os.O_RDONLY))), [b""] * 2)
    for _, fd in kept:
        os.close(fd)
    assert grown["descriptors"] == 8
    assert grown["memory_bytes"] > fuzz.LEAK_BYTES
    assert len(pin) == 1 << 20


def test_a_process_that_dies_or_hangs_leaves_the_input_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fuzz, "HANG_S", 0.5)
    code = """
import json, mmap, os, sys, time
from ispeed.bench.fuzz_target import note, NOTE_BYTES
with open(sys.argv[3], "r+b") as file:
    note(mmap.mmap(file.fileno(), NOTE_BYTES), "header", 7, b"last words")
time.sleep(60) if json.loads(sys.argv[1])[0][3] == 1 else os.abort()
"""
    real = fuzz.subprocess.Popen

    def start(command: list[str], **options: Any):  # a worker whose target kills it, which none of ours does
        return real([command[0], "-c", code, *command[command.index("ispeed.bench.fuzz_worker") + 1 :]], **options)

    monkeypatch.setattr(fuzz.subprocess, "Popen", start)
    for seed, what in ((1, "no answer for"), (2, "killed the process (exit code -6)")):
        with fuzz.Worker([Job("header", "mutator", 10, seed)], tmp_path) as worker:
            assert list(worker.accounts()) == []
            finding, number = worker.death(Job("header", "mutator", 10, seed))
        assert finding["what"].startswith(what)
        assert number == 7
        assert Path(finding["input"]).read_bytes() == b"last words"


def test_a_kept_input_is_fed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "endpoint-0123"
    file.write_bytes(b"udp://x")
    assert cli.run(["fuzz", "--replay", str(file)]) == 0
    assert "endpoint: UserError: endpoint 'udp://x' is of no known transport" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["fuzz", "--target", "moon"], "there is no target 'moon'"),
        (["fuzz", "--replay", "/nowhere/header-1"], "cannot read /nowhere/header-1"),
        (["fuzz", "--replay", "/nowhere"], "cannot read /nowhere"),
        (["fuzz", "--replay", __file__], "does not tell what it was fed to: add --target"),
    ],
)
def test_wrong_options_are_one_sentence(argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]):
    assert cli.run(argv) == 2
    assert sentence in capsys.readouterr().err
