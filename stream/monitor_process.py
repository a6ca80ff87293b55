"""MonitorProcess: the monitor as the main process sees it.

The address is taken here and the socket handed to the process, so that a monitor that is started again has the same
one, and no request is refused meanwhile.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import Any

from ..engines.errors import UserError
from .config import StreamConfig
from .hub import Hub
from .liveness import Activity
from .monitor.address import listen, make_token, page_url, read_address, read_token, require_packages
from .stage import StageProcess

_BACK_OFF_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_WELL_S = 60.0  # after so long the next death counts as the first
_NEVER = float("inf")
_LAST_BREATH_S = 1.0  # from the end of its channel to that of its process


class MonitorProcess:
    """Starts `python -m ispeed.stream.monitor`, and starts it again where it ends.

    Args:
        config: Of the run.
        engines: What its cameras begin with.

    Attributes:
        url: The address of its page, with the token where one is needed.
        due_at: When `turn` has something to do, in time.monotonic seconds.

    Raises:
        UserError: The address or the token cannot be used, or a package is missing.
    """

    def __init__(self, config: StreamConfig, engines: Sequence[str]) -> None:
        require_packages()
        address = read_address(config.monitor or "")
        token = read_token(config.monitor_token) if config.monitor_token else ""
        if not token and (config.monitor_host or not address.loopback):
            if config.quiet:
                raise UserError(
                    "--quiet would keep the token of the monitor's page from everybody: give --monitor-token FILE with "
                    "one of your own"
                )
            token = make_token()
        self._socket: socket.socket | None = listen(address)
        port = self._socket.getsockname()[1]
        self.url = page_url(address.host, port, token if config.monitor_token is None else "")
        self.due_at = _NEVER
        self._stage: StageProcess | None = None
        self._hub: Hub | None = None
        self._settings: dict[str, Any] = {
            "host": address.host,
            "port": port,
            "names": config.monitor_host,
            "token": token,
            "fps": config.monitor_fps,
            "clients": config.monitor_clients,
            "patience_s": 15.0,
            "silent_s": 4.0,
            "keys": str(config.keys) if config.keys else None,
        }
        self._engines = engines
        self._tries, self._started_s = 0, 0.0
        self._state = Activity(0)

    def begin(self, hub: Hub) -> None:
        """Starts the process, which loads what it needs while the others start up. Where it cannot be, `turn` does."""
        self._hub = hub
        try:
            self._spawn()
        except OSError:
            self.due_at = time.monotonic() + self._back_off()

    def open(self, cameras: Sequence[int], endpoints: Sequence[str], control: Sequence[str]) -> None:
        """Lets it serve cameras that are published on all of `endpoints` and commanded on all of `control`."""
        from ..engines.zoo.catalogue import names

        self._settings |= {
            "cameras": [{"camera": camera, "endpoint": _nearest(endpoints)} for camera in cameras],
            "control": _nearest(control),
            # What the run began with was named by its user, and may be gone back to.
            "engines": list(dict.fromkeys(["classic", *names(), *self._engines])),
        }
        self._tell()

    def owns(self, stage: StageProcess) -> bool:
        """Whether a stage is the monitor, as it is now."""
        return stage is self._stage

    def handle(self, message: dict[str, Any]) -> str:
        """Takes a message of the stage. Returns a sentence where it has ended, else nothing."""
        stage = self._stage
        if stage is None or self._hub is None or message["event"] != "died":
            return ""
        self._stage = None
        self._hub.retire(stage, _LAST_BREATH_S)
        sentence = f"the monitor ended {stage.how_it_ended()}; starting it again"
        now = time.monotonic()
        if now - self._started_s > _WELL_S:
            self._tries = 0
        self.due_at = now + self._back_off()
        return sentence

    def state(self) -> dict[str, Any]:
        """How it gets on: `idle` while it is there, for what it serves is no work of the stream's, or `gone`."""
        return self._state.state("idle" if self._stage else "gone")

    def turn(self) -> str:
        """Starts it again when that is due. Returns a sentence where that is not possible now, else nothing."""
        now = time.monotonic()
        if now < self.due_at:
            return ""
        self.due_at = _NEVER
        try:
            self._spawn()
        except OSError as error:  # too little memory, too many processes or files: the stream goes on without a page
            self.due_at = now + self._back_off()
            return f"the monitor cannot be started: {(error.strerror or str(error)).lower()}; trying again"
        self._tell()
        return ""

    def end(self) -> None:
        """Ends it and gives the address back. Harmless when repeated."""
        self.due_at = _NEVER
        stage, self._stage = self._stage, None
        if stage and self._hub:
            stage.post("stop")
            self._hub.retire(stage, grace_s=2)
        if self._socket:
            self._socket.close()
            self._socket = None

    def _back_off(self) -> float:
        """Seconds until the next try, more with each."""
        self._tries += 1
        return _BACK_OFF_S[min(self._tries, len(_BACK_OFF_S)) - 1]

    def _spawn(self) -> None:
        if self._hub:
            self._started_s = time.monotonic()
            self._stage = self._hub.spawn("monitor")

    def _tell(self) -> None:
        if self._stage and self._socket:
            self._stage.post("open", fds=(self._socket.fileno(),), settings=self._settings)


def _nearest(endpoints: Sequence[str]) -> str:
    """The endpoint that this machine reaches best: a file, else the first, at the loopback where it is everywhere."""
    chosen = next((endpoint for endpoint in endpoints if endpoint.startswith("ipc://")), endpoints[0])
    return chosen.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:").replace("//*:", "//127.0.0.1:")
