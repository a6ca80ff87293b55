"""Workers on a Ray cluster: an actor each, wherever the cluster puts it.

Actors read the footage and write what they make themselves, so both must be at the same paths on every node, and the
same ispeed be installed there. An actor that dies, or whose node is lost, is replaced as any worker is.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ...engines.errors import UserError, reason
from .job import Job, RunFailed
from .pool import Event, Kind, Pool
from .worker import limit_threads, sentence_of

_CONNECT_S = 5.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of terminals, which Ray puts into what it says
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is told to anybody
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # GPUs stay visible to actors that ask for none; and no warning
}


class RayWorker:
    """What runs in an actor. Answers are (kind, frames, text), as in `Event`."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job, self._developer = job, None

    def open(self) -> tuple[str, int, str]:
        """Opens footage and engine."""
        limit_threads(self._job["threads"])
        return self._answer(self._open)

    def develop(self, positions: Sequence[int], places: Sequence[int]) -> tuple[str, int, str]:
        """Develops a chunk."""
        return self._answer(lambda: self._develop(positions, places))

    def _open(self) -> tuple[str, int, str]:
        from .work import FrameDeveloper

        self._developer = FrameDeveloper(Job.for_worker(self._job))
        return "ready", 0, ""

    def _develop(self, positions: Sequence[int], places: Sequence[int]) -> tuple[str, int, str]:
        if self._developer is None:
            raise RuntimeError("open() comes first")
        self._developer.develop(positions, places, lambda _: None)
        return "done", len(positions), ""

    def _answer(self, work: Any) -> tuple[str, int, str]:
        try:
            return work()
        except UserError as error:
            return "user_error", 0, f"{error} (on node {socket.gethostname()})"
        except Exception as error:  # as a worker process does: one sentence
            return "fault", 0, f"{sentence_of(error)} (on node {socket.gethostname()})"


class RayPool(Pool):
    """See `Pool`."""

    def __init__(self, address: str, size: int | None, job: Job) -> None:
        """Connects to the cluster.

        Args:
            address: auto, local, or that of the cluster's head.
            size: Workers; None is one for each processor of the cluster that their threads leave, or for each GPU.
            job: Theirs.

        Raises:
            UserError: Ray is not installed, there is no cluster, or it has too few processors for one worker.
        """
        self._actors: dict[int, Any] = {}
        self._answers: dict[Any, int] = {}  # worker of what is awaited
        self._started = 0
        if address not in ("auto", "local"):
            _require_listener(address)
        self._ray = ray = _import_ray()
        self._quiet = _Quiet()
        try:
            with _own_signals():
                _connect(ray, address)
            room = _room(ray.nodes(), job.threads)
            super().__init__(size or room)
            self._job = ray.put(job.to_json())
            # Actors are replaced here, as others are, and not by Ray: a chunk must count how many it has killed.
            needs = {"num_cpus": job.threads} if job.threads else {"num_cpus": 1, "num_gpus": 1}
            self._kind = ray.remote(**needs, max_restarts=0, max_task_retries=0)(RayWorker)
        except BaseException:
            self.close()
            raise

    def start(self) -> int:
        """See `Pool.start`."""
        number, self._started = self._started, self._started + 1
        actor = self._actors[number] = self._kind.remote(self._job)
        self._answers[actor.open.remote()] = number
        return number

    def give(self, worker: int, positions: Sequence[int], places: Sequence[int]) -> None:
        """See `Pool.give`."""
        answer = self._actors[worker].develop.remote(list(positions), list(places))
        self._answers[answer] = worker

    def events(self, timeout_s: float) -> list[Event]:
        """See `Pool.events`."""
        ready, _ = self._ray.wait(list(self._answers), num_returns=1, timeout=timeout_s)
        return [self._event(answer, self._answers.pop(answer)) for answer in ready]

    def close(self) -> None:
        """See `Pool.close`."""
        for actor in self._actors.values():
            with suppress(Exception):  # the cluster may be gone
                self._ray.kill(actor)
        self._actors.clear()
        self._answers.clear()
        with suppress(Exception):
            self._ray.shutdown()
        self._quiet.close()

    def _event(self, answer: Any, worker: int) -> Event:
        errors = self._ray.exceptions
        try:
            kind, count, text = self._ray.get(answer)
        except (errors.RayActorError, errors.WorkerCrashedError, errors.ObjectLostError) as error:
            del self._actors[worker]
            return Event("died", worker, text=f"({_first_line(error)})")
        except errors.RayTaskError as error:  # what runs in an actor catches all of its own: it could not be loaded
            raise RunFailed(
                f"a Ray node cannot run ispeed: {_last_line(error)}; install the same ispeed on all nodes"
            ) from error
        except errors.RayError as error:
            raise RunFailed(f"the Ray cluster failed: {_first_line(error)}; run the same command again") from error
        found: Kind = kind
        return Event(found, worker, count, text)


def _room(nodes: Sequence[Mapping[str, Any]], threads: int | None) -> int:
    """How many workers of so many threads, or of a GPU each, the nodes have room for. Raises UserError: none."""
    kind, needed, what = ("CPU", threads, "processors") if threads else ("GPU", 1, "GPUs")
    there = [int(node["Resources"].get(kind, 0)) for node in nodes if node["Alive"]]
    if not (room := sum(each // needed for each in there)):
        raise UserError(
            f"no node of the Ray cluster has more than {max(there, default=0)} {what}, and a worker needs {needed}: "
            "add a node that has them"
        )
    return room


def _import_ray() -> Any:
    os.environ.update(_QUIET)
    try:
        import ray
    except ImportError as error:
        raise UserError("developing on a cluster needs Ray: pip install 'ispeed[ray]'") from error
    return ray


def _connect(ray: Any, address: str) -> None:
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": None}
    if address == "local":
        quiet["include_dashboard"] = False
    try:
        ray.init(address=address, namespace="isp-develop", **quiet)
    except Exception as error:  # Ray raises whatever it likes; of an address that is none, a ValueError
        if address == "auto":
            raise UserError(
                "no Ray cluster runs on this machine: start one with ray start --head, give its address, or --ray local"
            ) from error
        raise UserError(f"there is no Ray cluster at {address}: {_first_line(error)}") from error


def _require_listener(address: str) -> None:
    """Raises UserError where nobody listens at HOST:PORT, which Ray itself takes minutes to find out."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16 or "/" in host:
        raise UserError(f"--ray {address!r} is no address: use auto, local, or HOST:PORT of the head of a cluster")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except (OSError, UnicodeError) as error:
        raise UserError(f"there is no Ray cluster at {address}: {reason(error)}") from error


class _Quiet:
    """Keeps the user's screen for this program. What goes wrong on the cluster is told in sentences of our own, and Ray
    would write it to sys.stdout, and its core to descriptor 2; neither has a switch for that."""

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self._streams, self._saved = (sys.stdout, sys.stderr), os.dup(2)
        self._nothing = open(os.devnull, "w")  # noqa: SIM115  # until `close`
        os.dup2(self._nothing.fileno(), 2)
        sys.stdout = self._nothing
        sys.stderr = os.fdopen(os.dup(self._saved), "w", buffering=1, errors="backslashreplace")

    def close(self) -> None:
        """Undoes it. Harmless when called twice."""
        if self._saved < 0:
            return
        ours = sys.stderr
        sys.stdout, sys.stderr = self._streams
        ours.close()
        self._nothing.close()
        os.dup2(self._saved, 2)
        os.close(self._saved)
        self._saved = -1


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray sets handlers of its own: ours are put back."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _first_line(error: Exception) -> str:
    return _lines(error)[0][:200]


def _last_line(error: Exception) -> str:
    """That which says what was raised, behind a traceback."""
    return _lines(error)[-1][:200]


def _lines(error: Exception) -> list[str]:
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines()]
    return [line for line in lines if line] or [reason(error) or type(error).__name__]
