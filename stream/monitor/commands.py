"""Commands of the page, handed on to the main process over its control socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from .messages import Engine

_AT_ONCE = 4
_CHANGES_AT_ONCE = 2  # of engines, which take long and must not hold up the others
_TIMEOUT_MS = 5_000
_SWAP_TIMEOUT_MS = 180_000  # an engine that is compiled for a GPU first
_NOT_OFFERED = (
    "the page changes to an engine that it offers, and to no other: "
    "for a file of your own use isp-stream control engine engine=FILE"
)

Call = Callable[..., dict[str, Any]]


class Commands:
    """Asks the main process, a few commands at a time, each in a thread because the answer may take seconds.

    Others wait for their turn: when a camera is back, every page asks for its settings at once.

    Of engines only `engines` may be asked for: whoever sees the page is no user who may run code, and a file of an
    engine may be code.
    """

    def __init__(self, endpoint: str | None, keys: str | None = None, engines: Collection[str] = ()) -> None:
        self._endpoint, self._engines = endpoint, frozenset(engines)
        self._keys: dict[str, Any] = {"keys": keys} if keys and endpoint and endpoint.startswith("tcp:") else {}
        self._room, self._changes = asyncio.Semaphore(_AT_ONCE), asyncio.Semaphore(_CHANGES_AT_ONCE)

    async def run(self, command: Any) -> dict[str, Any]:
        """{"ok": true, ...} or {"ok": false, "error": one sentence}."""
        if isinstance(command, Engine) and command.engine is not None and command.engine not in self._engines:
            return {"ok": False, "error": _NOT_OFFERED}
        room = self._changes if isinstance(command, Engine) else self._room
        try:
            await asyncio.wait_for(room.acquire(), _TIMEOUT_MS / 1e3)
        except asyncio.TimeoutError:
            return {"ok": False, "error": "too many commands are under way: ask again later"}
        call = asyncio.ensure_future(asyncio.to_thread(self._call, command))

        def end(call: asyncio.Future[dict[str, Any]]) -> None:
            room.release()
            if not call.cancelled():
                call.exception()  # nobody may be left who takes it

        # Whoever asked may leave: the thread waits on, and keeps its place until it has its answer.
        call.add_done_callback(end)
        return await asyncio.shield(call)

    def _call(self, command: Any) -> dict[str, Any]:
        from ..control import Control, ControlError

        timeout_ms = _SWAP_TIMEOUT_MS if isinstance(command, Engine) else _TIMEOUT_MS
        try:
            with Control(self._endpoint, camera=command.camera, timeout_ms=timeout_ms, **self._keys) as control:
                answer = control.call(command.cmd, **command.arguments())
                return {name: value for name, value in answer.items() if name != "id"}
        except ControlError as error:
            return {"ok": False, "error": str(error)}
        except TimeoutError:
            return {"ok": False, "error": "isp-stream did not answer in time"}
