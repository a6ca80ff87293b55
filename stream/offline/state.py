"""What stands in the folder of a run: its settings, so that a later run goes on with it, or keeps its hands off."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

from ...engines.errors import UserError, reason
from ...engines.files import write_whole
from .config import Format
from .job import Job
from .sinks import Sink, make_sink

NAME = ".isp-develop.json"
_VERSION = 1
_FORMATS = get_args(Format)
_MOST_FRAMES = 1 << 32


class Folder:
    """The folder of one run, which no other run uses meanwhile. A context manager."""

    def __init__(self, job: Job) -> None:
        """Makes the folder where it is missing. Raises UserError: that cannot be, or another run is at work in it."""
        self._job, self._path = job, job.folder / NAME
        self._claimed: Sink | None = None  # the sink of a job that is new here
        try:
            self._made = not job.folder.exists()
            job.folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(job.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UserError(f"{job.folder} cannot be used for the output: {reason(error)}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                self.close()
                raise UserError(
                    f"another isp-develop is at work in {job.folder}: wait, or use another folder"
                ) from error
            # a file system without locks: the user has to see to it

    def claim(self, sink: Sink, *, force: bool) -> None:
        """Sees that what is in the folder is of a run with the same settings, or nothing that would be overwritten.

        Args:
            sink: Of the job.
            force: Remove what is not.

        Raises:
            UserError: There is something else, or the folder cannot be written.
        """
        before = self._read()
        if before is not None and before.digest == self._job.digest:
            return
        if not force:
            self._refuse(sink, before)
        try:
            if before is not None:
                make_sink(before).remove()
            sink.remove()
        except OSError as error:
            raise UserError(f"{self._job.folder} cannot be cleared: {reason(error)}") from error
        content = {"version": _VERSION, "digest": self._job.digest, "job": self._job.to_json()}
        self._claimed = sink
        write_whole(self._path, json.dumps(content, indent=1).encode(), "the settings")

    def close(self) -> None:
        """Lets others use it. Harmless when called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, UserError):
                self._give_up()
        finally:
            self.close()

    def _give_up(self) -> None:
        """Where a job could not even begin, leaves nothing of it: not the folder either, if it was made for it."""
        with suppress(OSError):
            if self._claimed is not None and not self._claimed.done().any():
                self._claimed.remove()
                self._path.unlink(missing_ok=True)
            if self._made:
                self._job.folder.rmdir()

    def _refuse(self, sink: Sink, before: Job | None) -> None:
        folder = self._job.folder
        if before is not None:
            mine, theirs = self._job.facts(), before.facts()
            differing = [name for name in mine if mine[name] != theirs.get(name)]
            raise UserError(
                f"{folder} holds what isp-develop made with other settings ({', '.join(differing) or 'older'}): use "
                "another folder, or --force to begin anew"
            )
        for name in sink.names():
            if (folder / name).exists():
                raise UserError(f"{folder} holds a {name} already: use another folder, or --force to overwrite it")

    def _read(self) -> Job | None:
        """The job of the run before; None without one. Raises UserError: what stands there is damaged."""
        try:
            content: Any = json.loads(self._path.read_bytes())
            # Of a folder that was moved or copied since, the job knows only the place before, whose files stay.
            job = Job.from_json({**content["job"], "output": str(self._job.folder)})
            _require_usable(job)
            return job
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(
                f"{Path(self._path)} is not what isp-develop wrote: remove it, or use another folder"
            ) from error


def _require_usable(job: Job) -> None:
    """Raises TypeError or ValueError where a job from a file cannot be asked what was made of it."""
    numbers, texts = (job.first, job.step, job.count, job.segment), (job.footage, job.format)
    if not all(type(number) is int for number in numbers) or not all(isinstance(text, str) for text in texts):
        raise TypeError
    if min(numbers) < 0 or not job.step or not job.segment or job.count > _MOST_FRAMES or job.format not in _FORMATS:
        raise ValueError
