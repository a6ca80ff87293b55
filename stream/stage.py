"""What a stage process does first, and how the main process starts, calls and ends one."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..engines.errors import UserError
from .channel import Channel, ChannelClosed

_PR_SET_PDEATHSIG = 1


def become_stage(channel_fd: str) -> Channel:
    """Makes this process one that cannot outlive its parent and leaves Ctrl-C to it. Returns the control channel."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return Channel.from_fd(int(channel_fd))


def run_stage(name: str, body: Callable[[Channel], None]) -> int:
    """Runs a stage's `body` with the channel that was given on the command line. Returns the exit code.

    The end of the main process is a clean end. An unexpected exception becomes one line on stderr that says where.
    """
    try:
        body(become_stage(sys.argv[1]))
    except ChannelClosed:
        return 0
    except BaseException as error:  # the last line of defence: one line, no traceback, an exit code
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
        sys.stderr.write(f"isp-stream: the {name} stage failed: {type(error).__name__}: {error} ({place})\n")
        return 1
    return 0


class StageProcess:
    """A stage as the main process sees it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.channel, theirs = Channel.pair()
        command = [sys.executable, "-m", f"ispeed.stream.{name}", str(theirs.fileno())]
        # A session of its own: a terminal's Ctrl-C would end it in the moment before it can ignore the signal.
        self._process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
        )
        theirs.close()
        self.pid = self._process.pid
        self.dead = False
        self._calls = 0

    def post(self, command: str, fds: tuple[int, ...] = (), **arguments: Any) -> int:
        """Sends a command and returns the number that its answer will carry. A dead stage is noticed elsewhere.

        What a stage has no room for, because it reads nothing, is never answered.
        """
        self._calls += 1
        if self.dead:
            return self._calls
        try:
            self.channel.send({"cmd": command, "call": self._calls, **arguments}, fds, wait=False)
        except ChannelClosed:
            self.dead = True
        except BlockingIOError:
            pass
        return self._calls

    def kill(self) -> None:
        """Kills the process, if it has not ended."""
        self._process.kill()

    def dismiss(self) -> bool:
        """Has it end at once; whether it is a process of its own, whose end is then to be seen."""
        self._process.kill()
        return True

    def how_it_ended(self) -> str:
        """ "by SIGSEGV" or "with exit code 1", of a process whose channel has ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        code = self._process.returncode
        if code is None:
            return "without leaving"
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"

    @property
    def ended(self) -> bool:
        """Whether the process is no more."""
        return self._process.poll() is not None

    def end(self) -> bool:
        """Kills the process, if it has not ended, and closes its channel; whether it has ended. Harmless when repeated.

        One that the kernel holds, such as at a disk that does not answer, is waited for no longer than a second.
        """
        if not self.ended:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
        self.channel.close()
        return self.ended


def answer_user_error(channel: Channel, request: dict[str, Any], error: UserError) -> None:
    """Tells the main process that what the user asked for cannot be, in the stage's own sentence."""
    channel.answer(request, user_error=str(error))
