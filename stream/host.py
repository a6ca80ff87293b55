"""DevelopHost: one process for the develop stages of several cameras, as the main process sees it."""

from __future__ import annotations

from typing import Any

from .channel import Channel, ChannelClosed
from .stage import StageProcess


class DevelopHost:
    """Starts the process when the first stage is wanted, again after it died, and ends it with the last one."""

    def __init__(self) -> None:
        self._process: StageProcess | None = None
        self._stages: list[HostedStage] = []  # of this process and of those before it

    def spawn(self) -> StageProcess:
        """A new stage in the process. It does not wait for that to answer."""
        process = self._process
        if process is None or _gone(process):
            process = self._process = StageProcess("develop_host")
        ours, theirs = Channel.pair()
        process.post("host", (theirs.fileno(),))  # of one that has died meanwhile, the new channel reads as ended
        theirs.close()
        stage = HostedStage(self, process, ours)
        self._stages.append(stage)
        return stage

    def leave(self, stage: HostedStage, process: StageProcess, *, failed: bool) -> None:
        """A stage has ended; with its last one the process does.

        Where it has `failed`, the process may be what is broken (a GPU's context is): it gets no new stage.
        """
        if stage not in self._stages:
            return
        self._stages.remove(stage)
        if failed and process is self._process:
            self._process = None
        if not any(other.is_in(process) for other in self._stages):
            process.end()
            if process is self._process:
                self._process = None


class HostedStage(StageProcess):
    """A stage that is a thread of a process with others."""

    def __init__(self, host: DevelopHost, process: StageProcess, channel: Channel) -> None:
        self.name, self.channel = "develop", channel
        self.pid, self.dead, self._calls = process.pid, False, 0
        self._host, self._whole, self._process = host, process, process._process
        self._over = self._asked = False

    def is_in(self, process: StageProcess) -> bool:
        """Whether it is a thread of this process."""
        return process is self._whole

    def post(self, command: str, fds: tuple[int, ...] = (), **arguments: Any) -> int:
        """See StageProcess."""
        self._asked |= command == "stop"
        return super().post(command, fds, **arguments)

    @property
    def ended(self) -> bool:
        """Whether it is no more: its thread, or the process."""
        try:
            while not self._over and self.channel.receive(0) is not None:
                pass
        except (ChannelClosed, OSError, ValueError):  # ValueError: we have closed our end
            self._over = True
        return self._over or super().ended

    def dismiss(self) -> bool:
        """Nothing: a thread ends when its channel does, and others go on beside it."""
        return False

    def how_it_ended(self) -> str:
        """As of a process, or "by its own fault" where the process goes on."""
        return super().how_it_ended() if _gone(self._whole) else "by its own fault"

    def end(self) -> bool:
        """Ends it, and with the last one the process; whether it has ended. Harmless when repeated."""
        failed = self.ended and not self._asked
        self.channel.close()
        self._host.leave(self, self._whole, failed=failed)
        return True  # as far as we are concerned: a thread has nothing that could be waited for


def _gone(process: StageProcess) -> bool:
    """Whether a process has ended, or is about to: then the first channel that it had has ended before any other."""
    try:
        while process.channel.receive(0) is not None:
            pass
    except (ChannelClosed, OSError, ValueError):  # ValueError: we have closed our end
        return True
    return process.ended
