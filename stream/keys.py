"""Keys: Enter in the terminal of isp-stream, noticed by the main process's poll without ever waiting for it."""

from __future__ import annotations

import os
import select
from contextlib import suppress

from .hub import Hub

_STDIN = 0


class Keys:
    """Watches the terminal, where it is `wanted` and there is one.

    Attributes:
        watching: Whether anything can be typed: there is a terminal, and this process is in its foreground.
    """

    def __init__(self, hub: Hub, *, wanted: bool) -> None:
        self._hub = hub
        self.watching = wanted and _is_terminal()
        self._pressed = False
        if self.watching:
            hub.watch(_STDIN)

    def poll(self) -> None:
        """Reads what was typed. To be called whenever the hub wakes."""
        if not self.watching or not select.select([_STDIN], [], [], 0)[0]:
            return
        if _in_foreground():
            with suppress(OSError):  # the terminal was closed
                if typed := os.read(_STDIN, 4096):
                    self._pressed |= b"\n" in typed or b"\r" in typed
                    return
        # In the background, reading would stop this process: what is typed is for another one.
        self.watching = False
        self._hub.unwatch(_STDIN)

    def pressed(self) -> bool:
        """Whether Enter was pressed since the last call."""
        pressed, self._pressed = self._pressed, False
        return pressed


def _is_terminal() -> bool:
    try:
        return os.isatty(_STDIN)
    except OSError:
        return False


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(_STDIN) == os.getpgrp()
    except OSError:  # not our controlling terminal, so nobody stops us
        return True
