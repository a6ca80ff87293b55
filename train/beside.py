"""Validation in a process of its own, beside training."""

from __future__ import annotations

import copy
import ctypes
import io
import pickle
import signal
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..engines.errors import UserError
from .devices import quicken_processor, steady
from .judging import Judge
from .models import Module

_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LAST_WORDS_S = 2.0
"""How long a process that has closed its channel may take to end, in seconds."""

_MOST = 2
"""Snapshots at a time."""


class Measured(NamedTuple):
    """A validation that is done: of which step, what was measured, and the weights, on the processor."""

    step: int
    values: dict[str, float]
    weights: Mapping[str, Tensor]


class Beside:
    """A process that measures snapshots of weights, one after the other. Use it as a context.

    It works on the device that training is on, and on one thread of the processor, which gives what training would
    measure on one thread, to the bit; a GPU needs memory for the network and for a CUDA context of its own. It begins
    with the first snapshot and ends with this context, or with the process that trains, however that ends; Ctrl-C and
    SIGTERM are left to that.

    At most two snapshots are there at a time, one that is measured and one that waits; whoever gives a third waits.

    Args:
        judge: What measures.
        module: Whose weights are measured; it is copied.
        device: Of training.
        deterministic: As of `devices.steady`.
    """

    def __init__(self, judge: Judge, module: Module, device: torch.device, deterministic: bool) -> None:
        self._work = judge, copy.deepcopy(module).cpu(), device, deterministic
        self._process: Any = None
        self._channel: Any = None
        self._given: deque[tuple[int, dict[str, Tensor]]] = deque()
        self._free = False  # it waits for something to do
        self._told = False  # it has what it works with

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process:
            self._channel.close()
            self._process.kill()
            self._process.join()
            self._process = None

    @property
    def pending(self) -> int | None:
        """The step of the last snapshot that was given, None when all are done."""
        return self._given[-1][0] if self._given else None

    def give(self, step: int, weights: Mapping[str, Tensor]) -> list[Measured]:
        """Have weights measured, which are copied. Returns what is done, by step, and raises as `done`."""
        if not self._process:
            self._start()
        done = self._collect(_MOST - 1)
        # a copy on the processor, even of what is there already
        self._given.append((step, {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}))
        return done + self._collect(_MOST)

    def done(self) -> list[Measured]:
        """What was done since the last call, by step; does not wait.

        Raises:
            UserError: A sample cannot be made, there is no memory for the work, or the process has ended.
        """
        return self._collect(_MOST)

    def rest(self) -> list[Measured]:
        """What is done once all is; waits, and raises as `done`."""
        return self._collect(0)

    def _start(self) -> None:
        context = get_context("spawn")
        self._channel, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        try:
            with _blocked():
                process.start()
        except OSError as error:
            raise UserError(
                f"no process can be started to validate beside training ({error.strerror}); set validation.beside to "
                "false"
            ) from error
        finally:
            theirs.close()
        self._process = process

    def _collect(self, most: int) -> list[Measured]:
        """What is done, when no more than `most` snapshots are left."""
        found = []
        while self._given:
            if self._free:
                self._send()
            if not self._channel.poll(None if len(self._given) > most else 0):
                break
            values = self._answer()
            self._free = True
            if values is not None:
                step, weights = self._given.popleft()
                found.append(Measured(step, values, weights))
        return found

    def _send(self) -> None:
        """Give it what it waits for, so that this process never waits for it to read."""
        content = _packed(self._given[0][1]) if self._told else pickle.dumps(self._work)
        self._told, self._free = True, False
        try:
            self._channel.send_bytes(content)
        except OSError as error:
            raise self._ended() from error

    def _answer(self) -> dict[str, float] | None:
        try:
            problem, values = self._channel.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if problem:
            raise UserError(problem)
        return values

    def _ended(self) -> UserError:
        self._process.join(_LAST_WORDS_S)
        if (code := self._process.exitcode) is not None and code >= 0:
            return UserError(
                f"the process that validates beside training ended with {code}, as where the program that trains "
                "cannot be started a second time; set validation.beside to false, and go on with --resume"
            )
        return UserError(
            "the process that validates beside training was killed, as when memory runs out; set validation.beside to "
            "false, or crop under data.validation lower, and go on with --resume"
        )


def _serve(channel: Connection) -> None:
    """What the process does: each message is answered by a problem, or None, and by values once there are some."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    try:
        for values in _measure(channel):
            channel.send((None, values))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # training has ended
        return
    except UserError as error:
        channel.send((str(error), None))
    except (MemoryError, torch.OutOfMemoryError):
        channel.send(
            ("memory is too small to validate beside training: set validation.beside to false, or crop lower", None)
        )
    except Exception as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        channel.send((f"validation beside training failed ({what}); set validation.beside to false", None))


def _measure(channel: Connection) -> Iterator[dict[str, float] | None]:
    quicken_processor()
    yield None
    judge, module, device, deterministic = pickle.loads(channel.recv_bytes())
    with steady(deterministic, 1):
        module.to(device)
        yield None
        while True:
            module.load_state_dict(torch.load(io.BytesIO(channel.recv_bytes()), weights_only=True))
            yield judge.measure(module, device)


def _packed(weights: Mapping[str, Tensor]) -> bytes:
    written = io.BytesIO()
    torch.save(weights, written)
    return written.getvalue()


@contextmanager
def _blocked() -> Iterator[None]:
    """A process that is started here does not see Ctrl-C and SIGTERM; this one does afterwards."""
    resource_tracker.ensure_running()  # else it is started within, which lets signals through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
