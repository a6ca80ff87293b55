"""`python -m ispeed.bench.fuzz_worker`: feeds targets in a process of its own, which may die of it.

Prints one JSON object a line: for each target its account. Ends with its standard input.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .fuzz_mutate import MOST_EDITS, PLACES, VALUES, apply, mutated
from .fuzz_target import NOTE_BYTES, Harness, Target, leaks

MEMORY_LIMIT = 6 << 30  # bytes of address space, so that an input that asks for too much ends itself alone
_BATCH = 500  # Hypothesis remembers what it has tried, within a batch
_LEAK_INPUTS = 400
_CORPUS_BYTES = 1 << 14


def targets() -> dict[str, Target]:
    """All targets by name."""
    from .fuzz_files import FILES
    from .fuzz_messages import MESSAGES

    return {target.name: target for target in (*MESSAGES, *FILES)}


def fuzz(target: Target, engine: str, inputs: int, seed: int, keep: Path, current: mmap.mmap | None) -> dict[str, Any]:
    """Feeds `inputs` inputs to a target, then looks for leaks. Returns its account.

    Args:
        target: Which.
        engine: "mutator", "hypothesis" or "atheris".
        inputs: How many.
        seed: Of the generator.
        keep: Folder for the inputs of findings.
        current: Where to note the input that is under way.
    """
    start_s = time.monotonic()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isp-fuzz-", dir=_memory())))
        run, seeds = target.prepare(scratch, stack)
        harness = Harness(target, run, keep, current)
        for data in (*seeds, b""):
            harness.feed(data)
        if harness.findings or not harness.outcomes["value"]:
            raise RuntimeError(f"the seeds of {target.name} are not right: {harness.outcomes} {harness.findings}")
        _ENGINES[engine](harness, target, seeds, inputs - harness.inputs, seed)
        spent_s = time.monotonic() - start_s
        generator = random.Random(seed + 1)
        again = [*seeds, *(mutated(generator, target.words, seeds) for _ in range(min(_LEAK_INPUTS, inputs)))]
        fed = harness.inputs
        grown = leaks(harness.feed, again)
    return {
        "target": target.name,
        "engine": engine,
        "inputs": fed,
        "outcomes": dict(harness.outcomes.most_common()),
        "findings": list(harness.findings.values()),
        "leaks": grown,
        "seconds": round(spent_s, 1),
    }


def _memory() -> str | None:
    """A folder whose files are in memory, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108


def _mutate(harness: Harness, target: Target, seeds: Sequence[bytes], inputs: int, seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(inputs):
        harness.feed(mutated(generator, target.words, seeds))


def _hypothesise(harness: Harness, target: Target, seeds: Sequence[bytes], inputs: int, seed: int) -> None:
    import hypothesis
    from hypothesis import strategies as st

    edit = st.tuples(st.integers(0, 255), st.integers(0, PLACES - 1), st.integers(0, VALUES - 1))
    edits = st.lists(edit, min_size=1, max_size=MOST_EDITS)
    almost_right = st.builds(lambda data, made: apply(data, made, target.words, seeds), st.sampled_from(seeds), edits)
    until = harness.inputs + inputs
    batch = 0
    while harness.inputs < until:

        @hypothesis.seed(seed + batch)
        @hypothesis.settings(
            max_examples=min(_BATCH, until - harness.inputs),
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(almost_right | st.binary(max_size=512))
        def feed(data: bytes) -> None:
            if harness.inputs < until:
                harness.feed(data)

        feed()
        batch += 1


def _guide(harness: Harness, target: Target, seeds: Sequence[bytes], inputs: int, seed: int) -> None:
    """Coverage-guided by libFuzzer, which does not return: at the last input the process ends inside of it."""
    raise NotImplementedError


_ENGINES: dict[str, Callable[..., None]] = {"mutator": _mutate, "hypothesis": _hypothesise, "atheris": _guide}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the worker."""
    parser = argparse.ArgumentParser(prog="python -m ispeed.bench.fuzz_worker")
    parser.add_argument("jobs", help="JSON: [[target, engine, inputs, seed], ...]")
    parser.add_argument("keep", type=Path)
    parser.add_argument("current", type=Path)
    options = parser.parse_args(argv)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    known = targets()
    with open(options.current, "r+b") as file, mmap.mmap(file.fileno(), NOTE_BYTES) as current:
        for name, engine, inputs, seed in json.loads(options.jobs):
            account = fuzz(known[name], engine, inputs, seed, options.keep, current)
            sys.stdout.write(json.dumps(account) + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
