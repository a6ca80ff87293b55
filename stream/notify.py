"""Notifier: tells systemd how the run stands, where it is started as a service with `Type=notify`.

Datagrams of a few words to the socket that `NOTIFY_SOCKET` names, as sd_notify(3) describes them. Without that
variable all of it does nothing. Nobody is waited for: what systemd cannot take at once is dropped.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

_NEVER = float("inf")


class Notifier:
    """Used by the main loop.

    Args:
        environment: Where the variables are.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # a name without a file
            self._address = "\0" + self._address[1:]
        self._socket: socket.socket | None = None
        self._period_s = self._next_s = _NEVER
        if not self._address:
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        microseconds, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        if microseconds.isdecimal() and int(microseconds) and pid in ("", str(os.getpid())):
            self._period_s = int(microseconds) * 1e-6 / 2
            self._next_s = 0.0

    @property
    def due_at(self) -> float:
        """When the next sign of life is due, in time.monotonic seconds; infinite where nobody waits for one."""
        return self._next_s

    def ready(self) -> None:
        """The first acquisition has started."""
        self._send("READY=1")

    def alive(self) -> None:
        """Gives a sign of life, if one is due. To be called from the main loop, as often as it likes."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + self._period_s
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """What `systemctl status` shows: one line."""
        self._send(f"STATUS={' '.join(text.split())}")

    def stopping(self) -> None:
        """The run is ending."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Says nothing more. Harmless when called twice."""
        if self._socket:
            self._socket.close()
        self._socket, self._next_s = None, _NEVER

    def _send(self, text: str) -> None:
        if self._socket:
            with suppress(OSError):
                self._socket.sendto(text.encode(), self._address)
