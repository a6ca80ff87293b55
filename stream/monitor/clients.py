"""Client: one WebSocket connection, and Clients: all of them.

A client has at most one picture under way. It gets the next, which is the newest, when it says that it has shown the
last, at its own rate. What it does not take in time ends it, so a slow one costs nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from .messages import Ack, BadMessage, Look, read_message
from .pictures import Encoded, Pictures, View

_WAITING_MAX = 256  # messages that may wait for a client
_BAD_MAX = 50  # messages that were not understood
_RATE_MAX = 200  # messages a second, of a picture's ack and some
_COMMANDS_MAX = 4  # of one client that may be under way

Run = Callable[[Any], Any]


class Client:
    """One connection, from its acceptance to its end."""

    def __init__(self, socket: WebSocket, pictures: Pictures, most_fps: float, patience_s: float) -> None:
        self._socket, self._pictures = socket, pictures
        self._most_fps, self._patience_s = most_fps, patience_s
        self._loop = asyncio.get_running_loop()
        self._view = View(self._deliver, fps=most_fps)
        self._texts: deque[str] = deque()
        self._picture: Encoded | None = None
        self._awaited: tuple[int, float] | None = None  # sequence of the picture under way, and when it was made
        self._news = asyncio.Event()
        self._bad = 0
        self._tokens, self._tokens_at = float(_RATE_MAX), self._loop.time()
        self._commands: set[asyncio.Task[None]] = set()
        self._over, self._why = False, ""

    def tell(self, message: dict[str, Any]) -> None:
        """Sends a JSON message, soon."""
        self.tell_text(json.dumps(message))

    def tell_text(self, text: str) -> None:
        """The same, of a message that is JSON already."""
        if len(self._texts) >= _WAITING_MAX:
            self._end("too many messages wait for it")
            return
        self._texts.append(text)
        self._news.set()

    def end_if_late(self) -> None:
        """Ends it where it has not shown a picture for too long."""
        if self._awaited and self._loop.time() - self._awaited[1] > self._patience_s:
            self._end("it shows no picture")

    async def run(self, run: Run) -> None:
        """Serves it until it leaves or is sent away."""
        self._pictures.add(self._view)
        sender = asyncio.ensure_future(self._send())
        receiver = asyncio.ensure_future(self._receive(run))
        try:
            await asyncio.wait([sender, receiver], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._over = True  # before it is cancelled, which asyncio.wait_for may swallow until Python 3.12
            self._news.set()
            self._pictures.remove(self._view)
            for task in (sender, receiver, *self._commands):
                task.cancel()
            await asyncio.gather(sender, receiver, *self._commands, return_exceptions=True)
            await self._close()

    # -- out ----------------------------------------------------------------------------------------------------

    def _deliver(self, picture: Encoded) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._offer, picture)

    def _offer(self, picture: Encoded) -> None:
        self._picture, self._awaited = picture, (picture.key[1], self._loop.time())
        self._news.set()

    async def _send(self) -> None:
        while not self._over:
            await self._news.wait()
            self._news.clear()
            while self._texts and not self._over:
                await asyncio.wait_for(self._socket.send_text(self._texts.popleft()), self._patience_s)
            picture, self._picture = self._picture, None
            if picture and not self._over:
                await asyncio.wait_for(self._socket.send_bytes(picture.data), self._patience_s)

    def _end(self, why: str) -> None:
        self._over, self._why = True, self._why or why
        self._news.set()

    async def _close(self) -> None:
        """Says goodbye where that is possible at once, and else drops the connection."""
        with suppress(Exception):  # whatever is wrong with it, it is over
            await asyncio.wait_for(self._socket.close(1008 if self._why else 1000, self._why), 1)
            return
        self._socket.scope.get("ispeed.abort", lambda: None)()

    # -- in -----------------------------------------------------------------------------------------------------

    async def _receive(self, run: Run) -> None:
        while not self._over:
            try:
                text = await self._socket.receive_text()
            except (WebSocketDisconnect, KeyError):  # KeyError: bytes, which nobody sends here
                return
            if not self._may_send():
                self._end("it sends too much")
                return
            try:
                message = read_message(text)
            except BadMessage as error:
                self._refuse(error)
                continue
            if isinstance(message, Ack):
                self._take_ack(message.sequence)
            elif isinstance(message, Look):
                self._look(message)
            else:
                self._command(message, run)

    def _may_send(self) -> bool:
        now = self._loop.time()
        self._tokens = min(_RATE_MAX, self._tokens + (now - self._tokens_at) * _RATE_MAX) - 1
        self._tokens_at = now
        return self._tokens >= 0

    def _refuse(self, error: BadMessage) -> None:
        self._bad += 1
        if self._bad > _BAD_MAX:
            self._end("nothing that it sends is understood")
        elif error.id is not None:
            self.tell({"type": "answer", "id": error.id, "ok": False, "error": str(error)})
        else:
            self.tell({"type": "refused", "error": str(error)})

    def _take_ack(self, sequence: int) -> None:
        if self._awaited and self._awaited[0] == sequence:
            self._awaited = None
            self._pictures.update(self._view, ready=True)

    def _look(self, look: Look) -> None:
        changed = look.camera != self._view.camera or look.overlay != self._view.overlay
        values: dict[str, Any] = {
            "camera": look.camera,
            "width": look.width,
            "overlay": look.overlay,
            "fps": min(look.fps, self._most_fps),
        }
        if changed or look.width != self._view.width:
            values["last"] = None  # also of a camera that sends no other one
        self._pictures.update(self._view, **values)

    def _command(self, command: Any, run: Run) -> None:
        if len(self._commands) >= _COMMANDS_MAX:
            self.tell({"type": "answer", "id": command.id, "ok": False, "error": "wait for the commands before this"})
            return
        task = asyncio.ensure_future(self._answer(command, run))
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)

    async def _answer(self, command: Any, run: Run) -> None:
        answer = await run(command)
        self.tell({"type": "answer", "id": command.id, "cmd": command.cmd, "camera": command.camera, **answer})


class Clients:
    """All connections. At most `most` at a time."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._clients: set[Client] = set()

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def full(self) -> bool:
        """Whether no other one is taken."""
        return len(self._clients) >= self.most

    async def serve(self, client: Client, greeting: Iterable[dict[str, Any]], run: Run) -> None:
        """Greets a client and serves it to its end."""
        self._clients.add(client)
        try:
            for message in greeting:
                client.tell(message)
            await client.run(run)
        finally:
            self._clients.discard(client)

    def tell(self, message: dict[str, Any]) -> None:
        """Sends a message to all."""
        if self._clients:
            text = json.dumps(message)
            for client in list(self._clients):
                client.tell_text(text)

    def end_late(self) -> None:
        """Ends those that take nothing."""
        for client in list(self._clients):
            client.end_if_late()
