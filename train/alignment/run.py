"""All pairs of a data set, several at a time."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

from ...engines.errors import UserError
from ..data.raw_pair import PairFiles, PairReader
from ..protocols import opencv
from .align import AlignedPair, Aligner, Record
from .checks import Refused
from .flow import Flow
from .look import Look
from .settings import AlignSettings

if TYPE_CHECKING:
    from ..losses.phase import PhaseMask

T = TypeVar("T")

_AHEAD = 1
"""Pairs that wait finished or to be begun, for each worker: what bounds memory."""


class _Stopped(Exception):
    """Nobody waits for the result any more."""


def align_all(
    reader: PairReader,
    files: Sequence[PairFiles],
    settings: AlignSettings,
    flow: Flow,
    finish: Callable[[PairFiles, AlignedPair], T],
    look: Look | None = None,
    phases: PhaseMask | None = None,
) -> Iterator[tuple[Record, T | None]]:
    """Align pairs, in their order, whatever the number of workers.

    Args:
        reader: Of the data set.
        files: Its pairs.
        settings: How.
        flow: What finds displacements; it is called from several threads.
        finish: What is made of an aligned pair in its thread, so that the pair need not be kept.
        look: A trained mapper.
        phases: Tells which blocks count.

    Yields:
        The record of each pair, and what `finish` made of it; None where it was refused.
    """
    stop = threading.Event()

    def step() -> None:
        if stop.is_set():
            raise _Stopped

    def one(each: PairFiles) -> tuple[Record, T | None]:
        record = Record(each.name)
        try:
            step()
            return record, finish(each, aligner.align(reader.load(each), record))
        except Refused as refused:
            record.reason = str(refused)
        except UserError as error:  # a damaged file is no reason to give up the others
            record.reason = f"it cannot be read: {error}"
        return record, None

    aligner = Aligner(settings, flow, look, phases, step)
    workers = settings.workers or len(os.sched_getaffinity(0))
    with _one_thread_each(), ThreadPoolExecutor(workers) as pool:
        try:
            yield from _in_order(pool, one, files, workers * (1 + _AHEAD))
        finally:
            stop.set()  # what has begun ends after its step, also after Ctrl-C
            pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[PairFiles], T], files: Sequence[PairFiles], most: int
) -> Iterator[T]:
    """Results in the order of the files, so many of them begun or waiting at most."""
    waiting: list[Future[T]] = []
    for each in files:
        while len(waiting) >= most:
            yield _result(waiting.pop(0))
        waiting.append(pool.submit(work, each))
    while waiting:
        yield _result(waiting.pop(0))


def _result(future: Future[T]) -> T:
    while not future.done():  # in short pieces, because a lock that is waited for keeps signals away
        wait([future], timeout=0.2, return_when=FIRST_COMPLETED)
    return future.result()


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Libraries that calculate in one thread: pairs share out the processors better, and results do not depend on how
    a picture was cut into stripes."""
    import torch

    cv2 = opencv("isp-align")
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])
