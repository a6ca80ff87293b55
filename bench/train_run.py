"""One training run, measured in a process of its own: `python -m ispeed.bench.train_run JOB.json`.

It is the loop of isp-train with its feed, its log and its checkpoint, but for the measurements on validation samples.
Prints one JSON object.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..engines.errors import UserError
from ..train import fit
from ..train.config import TrainConfig
from ..train.feed import Batch, Feed


class OneBatch(Feed):
    """The first batch again and again: what the network could do if samples cost nothing."""

    def __init__(self, *arguments: Any, **loader: Any) -> None:
        super().__init__(*arguments, **loader | {"workers": 0})

    def batches(self, step: int) -> Iterator[Batch]:
        """The first batch, without end. Raises UserError as `Feed.batches` does."""
        return itertools.repeat(next(super().batches(0)))


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job: {config, fixed}; `fixed` trains on one batch.

    Returns the device, the threads on the processor, and for each line of the run's log but the first, until which
    workers start and fill their queues, `samples_per_s` and `data_wait`, the share of the time spent waiting.

    Raises:
        UserError, fit.TrainingFault: As `fit.train`.
    """
    config = TrainConfig.model_validate(job["config"])
    if job["fixed"]:
        fit.Feed = OneBatch
    fit.validate = lambda job: math.nan
    with contextlib.redirect_stderr(io.StringIO()):  # where the run says how it goes on
        fit.train(config)
    log = (config.run.folder / config.run.name / "metrics.jsonl").read_text().splitlines()
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "processor",
        "threads": config.threads or torch.get_num_threads(),
        "parts": [{name: line[name] for name in ("samples_per_s", "data_wait")} for line in map(json.loads, log[1:])],
    }


def _end_with_the_benchmark() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)  # at which a run ends its workers


def main(arguments: list[str]) -> int:
    """Measures the job in the file named, prints the result, {refused} or {why}, and returns 0."""
    threading.Thread(target=_end_with_the_benchmark, daemon=True).start()
    job = json.loads(Path(arguments[0]).read_text())
    try:
        answer = measure(job)
    except UserError as error:
        answer = {"refused": str(error)}
    except fit.TrainingFault as error:
        answer = {"why": str(error)}
    print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
