"""`isp-bench fuzz`: a million wrong inputs for everything that reads what others wrote.

Each target takes bytes and must give a value or the exception that is documented for wrong input, in one sentence.
Anything else is a finding: another exception, an input that takes longer than some seconds, a process that dies or
hangs, memory or descriptors that stay when the same inputs are fed again. The input of a finding is kept, and
`--replay` feeds it again.
"""

from __future__ import annotations

import importlib.util
import json
import math
import mmap
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..engines.errors import UserError
from .fuzz_target import NOTE_BYTES, Target, read_note, save
from .fuzz_worker import Job, targets
from .machine import describe, in_words
from .pipeline import PipelineError
from .rate import write_report

ENGINES = ("both", "atheris", "hypothesis", "mutator")
LEAK_BYTES = 1 << 20
HANG_S = 60.0  # without another input, on a machine that has other things to do as well
_START_S = 900.0  # until the first: atheris looks at every module that is imported
_MOST_DEATHS = 5  # of one target's worker, after which it is given up


def run_fuzz(inputs: int, engine: str, only: Sequence[str], seed: int, keep: Path, out: Path | None) -> int:
    """Feeds `inputs` inputs in all, prints, writes `out`, and returns 0 without a finding, else 1. Raises UserError."""
    chosen = _choose(only)
    engines = _engines(engine)
    machine = describe()
    print(f"machine    {in_words(machine)}")
    print(f"{'target':10s} {'engine':10s} {'inputs':>8s} {'values':>8s} {'refused':>8s} {'findings':>8s} {'s':>7s}")
    start_s = time.monotonic()
    accounts = list(_run(plan(chosen, engines, inputs, seed), keep))
    fed = sum(account["inputs"] for account in accounts)
    why = [f"{account['target']}: {finding['what']}" for account in accounts for finding in account["findings"]]
    spent_s = round(time.monotonic() - start_s, 1)
    report = {"command": "fuzz", "ok": not why, "missed_target": why, "machine": machine, "inputs": fed, "seed": seed}
    report |= {"engines": {name: _version(name) for name in engines}, "seconds": spent_s, "targets": accounts}
    write_report(report, out)
    print(f"inputs     {fed} in {spent_s:g} s")
    print("target     " + ("reached: no finding" if not why else f"MISSED: {len(why)} findings"))
    return 0 if not why else 1


def plan(chosen: Sequence[Target], engines: Sequence[str], inputs: int, seed: int) -> list[Job]:
    """Shares the inputs among targets, by their shares, and engines."""
    whole = sum(target.share for target in chosen) * len(engines)
    return [Job(t.name, name, max(50, math.ceil(inputs * t.share / whole)), seed) for name in engines for t in chosen]


def replay(file: Path, only: Sequence[str]) -> int:
    """Feeds one kept input to its target, and prints what comes of it. Returns 0 for a value or a documented error."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    name = only[0] if len(only) == 1 else file.name.rpartition("-")[0]
    if not name:
        raise UserError(f"the name of {file} does not tell what it was fed to: add --target")
    if not (chosen := _choose([name])):
        raise UserError(f"{file} cannot be fed to {name}: install what it needs first")
    target = chosen[0]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isp-fuzz-")))
        read, _ = target.prepare(scratch, stack)
        try:
            read(data)
            print(f"{name}: a value")
        except target.allowed as error:
            print(f"{name}: {type(error).__name__}: {error}")
        except Exception:
            traceback.print_exc(file=sys.stdout)
            return 1
    return 0


def _choose(only: Sequence[str]) -> list[Target]:
    known = targets()
    if unknown := sorted(set(only) - set(known)):
        raise UserError(f"there is no target {unknown[0]!r}: use {', '.join(known)}")
    chosen = [target for name, target in known.items() if not only or name in only]
    ready = [target for target in chosen if all(importlib.util.find_spec(package) for package in target.needs)]
    for target in chosen:
        if target not in ready:
            print(f"left out   {target.name}: needs {' and '.join(target.needs)}, which is not installed")
    return ready


def _engines(engine: str) -> list[str]:
    asked = ["atheris", "hypothesis"] if engine == "both" else [engine]
    ready = [name for name in asked if name == "mutator" or importlib.util.find_spec(name)]
    for name in asked:
        if name not in ready:
            sentence = f"{name} is not installed: pip install 'ispeed[fuzz]'"
            if not ready:
                raise UserError(f"{sentence}, or use --engine mutator")
            print(f"left out   {sentence}")
    return ready


def _version(engine: str) -> str:
    return version("ispeed" if engine == "mutator" else engine)


# ---- workers -------------------------------------------------------------------------------------------------


def _run(jobs: Sequence[Job], keep: Path) -> Iterator[dict[str, Any]]:
    """Does the jobs one after the other, and prints each. Those for atheris have a process each, which it ends."""
    alone = [[job] for job in jobs if job.engine == "atheris"]
    for group in (*alone, [job for job in jobs if job.engine != "atheris"]):
        for account in _work(group, keep):
            _judge(account)
            _print(account)
            yield account


def _work(jobs: Sequence[Job], keep: Path) -> Iterator[dict[str, Any]]:
    """Accounts of `jobs`, from one process, or from several where inputs kill it."""
    left, deaths, lost = list(jobs), 0, []
    while left:
        with ExitStack() as stack:
            worker = stack.enter_context(Worker(left, keep))
            for account in worker.accounts():
                account["findings"] += lost
                lost = []
                left.pop(0)
                yield account
            if not left:
                return
            finding, number = worker.death(left[0])
        lost.append(finding)
        deaths += 1
        job = left[0]
        if deaths >= _MOST_DEATHS or number >= job.inputs or not number:
            yield {**job._asdict(), "inputs": number, "seconds": 0.0, "outcomes": {}, "leaks": {}, "findings": lost}
            left, deaths, lost = left[1:], 0, []
        else:  # on with other inputs
            left[0] = job._replace(seed=job.seed + 1_000_003)


class Worker:
    """A process of `fuzz_worker`, watched: one that feeds no other input for a minute is killed."""

    def __init__(self, jobs: Sequence[Job], keep: Path) -> None:
        self._keep = keep
        self._note, self._errors = os.memfd_create("isp-fuzz-note"), os.memfd_create("isp-fuzz-errors")
        os.ftruncate(self._note, NOTE_BYTES)
        self._current = mmap.mmap(self._note, NOTE_BYTES)
        arguments = [json.dumps(jobs), str(keep), f"/proc/{os.getpid()}/fd/{self._note}"]
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "ispeed.bench.fuzz_worker", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        self._hung = False

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._current.close()
        os.close(self._note)
        os.close(self._errors)

    def accounts(self) -> Iterator[dict[str, Any]]:
        """What it prints, until it ends."""
        stdout = self._process.stdout
        if stdout is None:
            return
        seen, since_s = ("", 0), time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while True:
                if selector.select(1.0):
                    line = stdout.readline()
                    if not line:
                        break
                    yield json.loads(line)
                now = read_note(self._current)[:2]
                if now != seen:
                    seen, since_s = now, time.monotonic()
                elif time.monotonic() - since_s > (HANG_S if now[0] else _START_S):
                    self._hung = True
                    self._process.kill()
        self._process.wait()

    def death(self, job: Job) -> tuple[dict[str, Any], int]:
        """(finding, number of the input) where it ended before its time. Raises PipelineError where no input did it."""
        name, number, data = read_note(self._current)
        said = os.pread(self._errors, 1 << 20, 0).decode(errors="replace").strip()[-2000:]
        code = self._process.returncode
        if name != job.target or (code == 1 and not self._hung):
            raise PipelineError(f"the worker for {job.target} failed with exit code {code}: {said}")
        what = f"no answer for {HANG_S:g} s" if self._hung else f"killed the process (exit code {code})"
        return {"what": what, "where": "", "input": save(self._keep, name, data), "times": 1}, number


def _judge(account: dict[str, Any]) -> None:
    """Adds what the leaks say to the findings."""
    grown = account["leaks"]
    if grown.get("memory_bytes", 0) > LEAK_BYTES:
        what = f"{grown['memory_bytes']} bytes stay after {grown['inputs']} inputs that were fed before"
        account["findings"].append({"what": what, "where": "", "input": "", "times": 1})
    if grown.get("descriptors", 0) > 0:
        what = f"{grown['descriptors']} descriptors stay open after {grown['inputs']} inputs"
        account["findings"].append({"what": what, "where": "", "input": "", "times": 1})


def _print(account: dict[str, Any]) -> None:
    outcomes = account["outcomes"]
    values, findings = outcomes.get("value", 0), len(account["findings"])
    refused = sum(count for name, count in outcomes.items() if name not in ("value", "finding"))
    head = f"{account['target']:10s} {account['engine']:10s} {account['inputs']:8d}"
    print(f"{head} {values:8d} {refused:8d} {findings:8d} {account['seconds']:7.1f}", flush=True)
    for finding in account["findings"]:
        times = f" ({finding['times']} times)" if finding["times"] > 1 else ""
        print(f"  {finding['what']}{times}, {finding['where']} {finding['input']}", flush=True)
