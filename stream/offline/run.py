"""One run of `isp-develop`."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack

from ...engines._processor import processors
from ...engines.engine import EngineInfo
from ..footage import Footage, FootageOptions, open_footage
from .config import DevelopConfig
from .job import CHUNK, Job, RunFailed, make_job
from .pool import LocalPool, Pool
from .progress import Progress
from .schedule import Scheduler
from .sinks import make_sink
from .state import Folder

INTERRUPTED = 130
"""Exit code of a run that a signal has ended."""

_CHUNKS = 8  # for each worker, of a short run
_GPU_WORKERS = 4  # by default: what they share is the GPU, and what they do beside it is mostly to compress pictures


def run(config: DevelopConfig) -> int:
    """Develops what `config` names. Returns the exit code.

    Raises:
        UserError: Bad input.
        RunFailed: The run cannot go on.
        SystemExit: It was interrupted; everything is whole, and the same run goes on from there.
    """
    out = sys.stdout  # as it is now: a pool may have to keep others from it
    options = FootageOptions(config.cfa, config.black_level, config.white_level)
    with ExitStack() as stack:
        footage = stack.enter_context(open_footage(config.footage, options))
        workers, threads = _share(config)
        job, info = make_job(config, footage, threads)
        sink = make_sink(job)
        pool = _pool(config, job, workers)  # before anything is written: there may be no cluster
        stack.callback(pool.close)
        stack.enter_context(Folder(job)).claim(sink, force=config.force)
        stack.callback(sink.close)
        stack.callback(pool.close)  # and now before these, too
        sink.open(footage)
        done = sink.done()
        there = int(done.sum())
        chunks = sink.chunks(done, config.chunk or _chunk(job.count - there, pool.size))
        progress = stack.enter_context(Progress(out, _style(config), job.count, there))
        progress.say("started", _in_words(job, footage, info, there), total=job.count, there=there, job=job.to_json())
        died = 0
        if chunks:
            scheduler = Scheduler(pool, sink, chunks, progress)
            try:
                scheduler.run()
            except SystemExit:
                _say_interrupted(progress, int(sink.done().sum()), job.count)
                raise SystemExit(INTERRUPTED) from None  # Ray makes another number of it
            died = scheduler.died
        if not sink.done().all():
            raise RunFailed(f"not all frames are in {job.folder}: it must be the same folder on every node")
        sink.conclude()
        _report(progress, job, there, died)
    return 0


def _chunk(frames: int, workers: int) -> int:
    """Frames that a worker is given at once: several chunks for each, so that none waits long for the last one."""
    return max(1, min(CHUNK, frames // (_CHUNKS * workers)))


def _share(config: DevelopConfig) -> tuple[int | None, int]:
    """Workers, None where the cluster decides, and threads of each."""
    cores, workers, threads = processors(), config.workers, config.threads
    if config.ray is not None:
        return workers, threads or 1
    workers = workers or max(1, cores // (threads or 1))
    return workers, threads or max(1, cores // workers)


def _pool(config: DevelopConfig, job: Job, workers: int | None) -> Pool:
    """Raises UserError: there is no cluster, or Ray is not installed."""
    if config.ray is not None:
        from .ray_pool import RayPool

        return RayPool(config.ray, workers, job)
    if job.threads is None and config.workers is None:
        workers = min(_GPU_WORKERS, processors())
    return LocalPool(workers or 1, job)


def _style(config: DevelopConfig) -> str:
    if config.quiet or config.json_lines:
        return "quiet" if config.quiet else "json"
    return "bar" if os.isatty(1) else "lines"


def _in_words(job: Job, footage: Footage, info: EngineInfo, there: int) -> str:
    fmt, gains = footage.raw_format, job.white_balance
    return (
        f"{footage.path.name}: {job.count} frames of {fmt.width}x{fmt.height} {fmt.pixel_format}"
        + (f", {there} of them done before" if there else "")
        + f" | engine {info.name} ({info.backend} {info.precision})"
        + ("" if gains is None else " | white balance " + " ".join(f"{gain:.3f}" for gain in gains))
        + f" | {job.format} to {job.output}"
    )


def _say_interrupted(progress: Progress, done: int, total: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # what is left to do is quick, and must not be left half done
        signal.signal(number, signal.SIG_IGN)
    progress.stop()
    sys.stderr.write(f"isp-develop: stopped with {done} of {total} frames done; the same command goes on from there\n")


def _report(progress: Progress, job: Job, there: int, died: int) -> None:
    new = job.count - there
    seconds = progress.seconds if new else 0.0
    rate = new / seconds if seconds else 0.0
    text = f"all {job.count} frames were done before"
    if new:
        text = f"{new} frames developed in {seconds:.1f} s, {rate:.1f} a second"
        text += f"; {died} workers died, and their frames were done again" if died else ""
    facts = {"frames": job.count, "developed": new, "seconds": round(seconds, 3), "rate": round(rate, 3), "died": died}
    progress.say("final", text, **facts)
