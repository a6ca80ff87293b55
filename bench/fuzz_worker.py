"""`python -m ispeed.bench.fuzz_worker`: feeds targets in a process of its own, which may die of it.

Prints one JSON object a line: for each job its account. Input that is under way stands in a shared file, so that it can
be told which one killed the process.
"""

from __future__ import annotations

import argparse
import importlib
import json
import mmap
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from .fuzz_mutate import MOST_EDITS, PLACES, VALUES, apply, mutated
from .fuzz_target import LONGEST, NOTE_BYTES, Harness, Target, leaks

MEMORY_LIMIT = 6 << 30  # bytes of address space, so that an input that asks for too much ends itself alone
_BATCH = 500  # Hypothesis remembers what it has tried, within a batch
_LEAK_INPUTS = 400


class Job(NamedTuple):
    """What is to be done: `inputs` inputs for `target`, made by `engine` from `seed`."""

    target: str
    engine: str
    inputs: int
    seed: int


def targets() -> dict[str, Target]:
    """All targets by name."""
    from .fuzz_files import FILES
    from .fuzz_footage import FOOTAGE
    from .fuzz_messages import MESSAGES

    return {target.name: target for target in (*MESSAGES, *FILES, *FOOTAGE)}


def run_job(
    job: Job, target: Target, keep: Path, current: mmap.mmap | None, report: Callable[[dict[str, Any]], None]
) -> None:
    """Feeds a target, then looks for leaks, and reports its account. With atheris the process ends with it.

    Args:
        job: What to do.
        target: Its target.
        keep: Folder for the inputs of findings.
        current: Where to note the input that is under way.
        report: Takes the account.
    """
    start_s = time.monotonic()
    with ExitStack() as stack:
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 (files that take no disk)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isp-fuzz-", dir=memory)))
        read, seeds = target.prepare(scratch, stack)
        harness = Harness(target, read, keep, current)
        for data in seeds:
            harness.feed(data)
        if harness.findings or not harness.outcomes["value"]:
            raise RuntimeError(f"the seeds of {target.name} are not right: {harness.outcomes} {harness.findings}")

        def finish() -> None:
            account = {**job._asdict(), "inputs": harness.inputs, "seconds": round(time.monotonic() - start_s, 1)}
            account |= {"outcomes": dict(harness.outcomes.most_common())}
            account |= {"leaks": _leaks(harness, job, seeds), "findings": list(harness.findings.values())}
            report(account)

        if job.engine == "atheris":
            _guide(harness, job, seeds, scratch, lambda: (finish(), stack.close()))
        elif job.engine == "hypothesis":
            _hypothesise(harness, job, seeds)
        else:
            generator = random.Random(job.seed)
            while harness.inputs < job.inputs:
                harness.feed(mutated(generator, target.words, seeds))
        finish()


def _leaks(harness: Harness, job: Job, seeds: Sequence[bytes]) -> dict[str, int]:
    generator = random.Random(job.seed + 1)
    count = max(10, min(_LEAK_INPUTS, job.inputs // 50))
    return leaks(harness.feed, [*seeds, *(mutated(generator, harness.target.words, seeds) for _ in range(count))])


def _hypothesise(harness: Harness, job: Job, seeds: Sequence[bytes]) -> None:
    import hypothesis
    from hypothesis import strategies as st

    words = harness.target.words
    edit = st.tuples(st.integers(0, 255), st.integers(0, PLACES - 1), st.integers(0, VALUES - 1))
    edits = st.lists(edit, min_size=1, max_size=MOST_EDITS)
    almost_right = st.builds(lambda data, made: apply(data, made, words, seeds), st.sampled_from(seeds), edits)
    batch = 0
    while harness.inputs < job.inputs:

        @hypothesis.seed(job.seed + batch)
        @hypothesis.settings(
            max_examples=min(_BATCH, job.inputs - harness.inputs),
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=tuple(hypothesis.HealthCheck),  # type: ignore[arg-type]
        )
        @hypothesis.given(almost_right | st.binary(max_size=512))
        def feed(data: bytes) -> None:
            if harness.inputs < job.inputs:
                harness.feed(data)

        feed()
        batch += 1


def _guide(harness: Harness, job: Job, seeds: Sequence[bytes], scratch: Path, finish: Callable[[], object]) -> None:
    """Guided by coverage: libFuzzer's mutations and ours in turn. It does not return."""
    atheris: Any = importlib.import_module("atheris")
    corpus = scratch / "corpus"
    corpus.mkdir()
    for number, data in enumerate(seeds):
        (corpus / str(number)).write_bytes(data)

    def feed(data: bytes) -> None:
        harness.feed(data)
        if harness.inputs >= job.inputs:
            finish()
            os._exit(0)  # libFuzzer knows no other end

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        generator = random.Random(seed)
        if not data or generator.getrandbits(1):
            return atheris.Mutate(data, longest)
        return mutated(generator, harness.target.words, [data, *seeds])[:longest]

    options = [f"-seed={job.seed}", f"-max_len={LONGEST}", "-rss_limit_mb=0", "-timeout=3600"]
    options += [f"-artifact_prefix={scratch}/", "-verbosity=0"]
    atheris.Setup(["fuzz", str(corpus), *options], feed, custom_mutator=mutate)
    atheris.Fuzz()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the worker."""
    parser = argparse.ArgumentParser(prog="python -m ispeed.bench.fuzz_worker")
    parser.add_argument("jobs", help="JSON: [[target, engine, inputs, seed], ...]")
    parser.add_argument("keep", type=Path, help="folder for the inputs of findings")
    parser.add_argument("current", type=Path, help="file for the input that is under way")
    options = parser.parse_args(argv)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    jobs = [Job(*job) for job in json.loads(options.jobs)]
    out = os.dup(1)
    os.dup2(2, 1)  # where libFuzzer and others talk

    def report(account: dict[str, Any]) -> None:
        os.write(out, json.dumps(account).encode() + b"\n")

    with _instrumented(jobs):
        known = targets()
    with open(options.current, "r+b") as file, mmap.mmap(file.fileno(), NOTE_BYTES) as current:
        for job in jobs:
            run_job(job, known[job.target], options.keep, current, report)
    return 0


def _instrumented(jobs: Sequence[Job]) -> Any:
    """What makes coverage of our modules visible to atheris, where it is asked for."""
    if all(job.engine != "atheris" for job in jobs):
        return nullcontext()
    atheris: Any = importlib.import_module("atheris")
    return atheris.instrument_imports(include=["ispeed"], enable_loader_override=False)


if __name__ == "__main__":
    sys.exit(main())
