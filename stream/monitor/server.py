"""The monitor's process: uvicorn on the socket that the main process holds, until that says stop or ends."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import nullcontext
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from ..channel import Channel, ChannelClosed
from .app import Monitor, make_app
from .feed import Feed
from .messages import MESSAGE_MAX
from .pictures import Pictures
from .security import Access, Guard, tell_fault

_CONNECTIONS_MORE = 48  # than pages may be connected, for all that is asked beside
_HEAD_MAX = 16 << 10  # bytes of a request's head
_ASKED_S = 10.0  # seconds in which a connection must have asked for something, at first and after each answer
_PINGS_MAX = 16  # of a client that takes nothing
_PING_S = 10.0
_LOOK_S = 1.0


def serve(channel: Channel) -> None:
    """Serves until the main process says stop. Raises ChannelClosed where it ended instead."""
    got = channel.receive()
    while got is None or got[0].get("cmd") != "open":
        got = channel.receive()
    request, fds = got
    listener = socket.socket(fileno=fds[0])
    asyncio.run(_serve(channel, request, listener))


async def _serve(channel: Channel, request: dict[str, Any], listener: socket.socket) -> None:
    settings = request["settings"]
    # The kernel drops a connection whose other end takes nothing for so long, whatever the application waits for.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings["patience_s"] * 1e3))
    listener.setblocking(False)
    pictures = Pictures(lambda error: tell_fault("at a picture", error))
    monitor = Monitor(settings, pictures)
    access = Access(settings["host"], settings["port"], settings["token"], settings.get("names", ()))
    _Http.most = settings["clients"] + _CONNECTIONS_MORE
    server = _Server(_config(Guard(make_app(monitor), access)))
    pictures.start()
    feed = Feed(settings["cameras"], settings.get("keys"), pictures.map, monitor.take)
    ended = _watch(channel, server)
    looks = asyncio.ensure_future(_look_around(monitor))
    try:
        channel.send({"event": "ready"})
        await server.serve(sockets=[listener])
    finally:
        looks.cancel()
        await feed.close()
        await asyncio.to_thread(pictures.stop)
    if ended:
        raise ChannelClosed


def _watch(channel: Channel, server: uvicorn.Server) -> list[bool]:
    """Ends the server when the main process says so, or is no more: the list that it returns is not empty then."""
    loop, ended = asyncio.get_running_loop(), list[bool]()

    def on_message() -> None:
        try:
            got = channel.receive(0)
        except ChannelClosed:
            ended.append(True)
            got = ({"cmd": "stop"}, [])
        if got and got[0].get("cmd") == "stop":
            loop.remove_reader(channel.fileno())
            server.should_exit = server.force_exit = True

    loop.add_reader(channel.fileno(), on_message)
    return ended


async def _look_around(monitor: Monitor) -> None:
    while True:
        await asyncio.sleep(_LOOK_S)
        monitor.look_around()


def _config(app: Any) -> uvicorn.Config:
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what clients do wrong is no news for the terminal
    return uvicorn.Config(
        app,
        http=_Http,
        ws=_WebSocket,
        log_config=None,
        access_log=False,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=_HEAD_MAX,
        ws_max_size=MESSAGE_MAX,
        ws_ping_interval=_PING_S,
        ws_ping_timeout=_PING_S,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=1,
    )


class _Server(uvicorn.Server):
    """uvicorn, which leaves signals to the stage."""

    def capture_signals(self) -> Any:
        """Takes none."""
        return nullcontext()


class _Http(H11Protocol):
    """HTTP from at most `most` connections, WebSockets among them, each of which must ask for something in time.

    uvicorn's own timeout ends with the first byte of a request, which then may take as long as it likes.
    """

    most = _CONNECTIONS_MORE

    def connection_made(self, transport: Any) -> None:
        """Counts it in, or sends it away."""
        super().connection_made(transport)
        self._due: asyncio.TimerHandle | None = None
        if len(self.connections) > self.most:
            transport.abort()
            return
        self._await_request()

    def handle_events(self) -> None:
        """Takes in what has come: nothing is due while a request is being answered."""
        super().handle_events()
        if self._due and self.cycle and not self.cycle.response_complete:
            self._due.cancel()

    def on_response_complete(self) -> None:
        """The next request is due, which may have come already."""
        self._await_request()
        super().on_response_complete()

    def _await_request(self) -> None:
        if self._due:
            self._due.cancel()
        self._due = self.loop.call_later(_ASKED_S, self._end)

    def _end(self) -> None:
        if self in self.connections:  # else it is a WebSocket by now, or gone
            self.transport.abort()


class _WebSocket(WebSocketsSansIOProtocol):
    """A WebSocket that the application can drop at once, and whose answers to pings do not pile up."""

    _pings = 0  # since something was last taken

    def resume_writing(self) -> None:
        """The other end takes something."""
        self._pings = 0
        super().resume_writing()

    def handle_ping(self) -> None:
        """Answers a ping, a few of them also where nothing is taken: a picture may be on its way."""
        if self.transport.is_closing():
            self.conn.data_to_send()  # nobody gets it
            return
        self._pings += not self.writable.is_set()
        if self._pings > _PINGS_MAX:
            self.transport.abort()
            return
        super().handle_ping()

    async def run_asgi(self) -> None:
        """Gives the application the means."""
        self.scope["ispeed.abort"] = self.transport.abort  # pyright: ignore[reportGeneralTypeIssues]
        await super().run_asgi()
