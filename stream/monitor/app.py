"""The monitor's web application: the page, its WebSocket, stills, commands, `/metrics` and `/health`."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from ...engines.errors import UserError
from ..reader import StreamError
from .cameras import Camera
from .clients import Client, Clients
from .commands import Commands
from .messages import FEATURES, MESSAGE_MAX, BadMessage, read_command
from .metrics import CONTENT_TYPE, write_metrics
from .pictures import Pictures, describe, pack

_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_STILLS_AT_ONCE = 4  # being made or sent: so many frames are held in memory
_PART = 256 << 10  # bytes
_STILL_S = 120.0  # in which one must have been taken
_PNG_LEVEL = 1


class Monitor:
    """What the routes share."""

    def __init__(self, settings: dict[str, Any], pictures: Pictures) -> None:
        self.cameras = {c["camera"]: Camera(c["camera"], settings["silent_s"]) for c in settings["cameras"]}
        self.pictures = pictures
        self.clients = Clients(settings["clients"])
        self._engines = settings.get("engines", [])
        self.commands = Commands(settings.get("control"), settings.get("keys"), self._engines)
        self.fps, self.patience_s = settings["fps"], settings["patience_s"]
        self._stills = asyncio.Semaphore(_STILLS_AT_ONCE)
        self._files = _read_files()
        self.version = _version()

    def take(self, index: int, message: dict[str, Any]) -> None:
        """A message of the pipeline: kept, and told to every page."""
        for told in self.cameras[index].take(message):
            self.clients.tell(told)

    def look_around(self) -> None:
        """Once a second: ends clients that take nothing, and tells of cameras that fell silent."""
        self.clients.end_late()
        for camera in self.cameras.values():
            if camera.stuck == "main":
                self.clients.tell(camera.to_json())

    def greeting(self) -> Iterator[dict[str, Any]]:
        """What a new page is told."""
        yield {
            "type": "hello",
            "version": self.version,
            "fps": self.fps,
            "cameras": list(self.cameras),
            "engines": self._engines,
            "features": list(FEATURES),
        }
        for index, camera in self.cameras.items():
            yield {"type": "started", "camera": index, "started": camera.started}
            yield {"type": "history", "camera": index, "entries": list(camera.history)}
            yield {"type": "messages", "camera": index, "entries": list(camera.messages)}
            yield camera.to_json()

    # -- routes -------------------------------------------------------------------------------------------------

    async def file(self, request: Request) -> Response:
        """The page and its parts."""
        name = request.path_params.get("name", "index.html")
        if name not in self._files:
            return _error(404, "there is no such page")
        return Response(self._files[name], media_type=_TYPES[name.rsplit(".", 1)[1]])

    async def still(self, request: Request) -> Response:
        """The newest frame in full: PNG, or with ?format=raw the bytes of its pixels behind their description."""
        query = request.query_params
        index, kind = query.get("camera", "0"), query.get("format", "png")
        if not (index.isascii() and index.isdigit() and len(index) < 7 and int(index) in self.cameras):
            return _error(404, f"there is no camera {index[:20]!r}: there are {', '.join(map(str, self.cameras))}")
        if kind not in ("png", "raw"):
            return _error(400, "format must be png or raw")
        if self._stills.locked():
            return _error(503, f"{_STILLS_AT_ONCE} stills are under way: ask again")
        await self._stills.acquire()
        try:
            header, body = await asyncio.to_thread(self._read_still, int(index), kind)
        except BaseException as error:
            self._stills.release()
            if isinstance(error, StreamError):
                return _error(503, str(error))
            raise
        name = f"camera{header['camera']}-{header['frame_id']:08d}.{kind}"
        headers = {"x-ispeed-frame": json.dumps(header), "content-disposition": f'inline; filename="{name}"'}
        media = "application/octet-stream" if kind == "raw" else "image/png"
        return _Still(self._stills, body, media_type=media, headers=headers)

    def _read_still(self, index: int, kind: str) -> tuple[dict[str, Any], bytes]:
        frame, pixels = self.pictures.frame(index)
        header = describe(frame)
        if kind == "raw":
            return header, pack(header, pixels.data)
        from PIL import Image

        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG", compress_level=_PNG_LEVEL)
        return header, out.getvalue()

    async def control(self, request: Request) -> Response:
        """A command, as the page sends it over its WebSocket."""
        try:
            body = await asyncio.wait_for(_read_body(request), self.patience_s)
            if len(body) > MESSAGE_MAX:
                return _error(413, f"a command has at most {MESSAGE_MAX} bytes", close=True)
            command = read_command(body)
        except (ClientDisconnect, asyncio.TimeoutError):
            return _error(408, "the command did not come whole", close=True)
        except BadMessage as error:
            return _error(400, str(error))
        if command.camera not in self.cameras:
            return _error(404, f"there is no camera {command.camera}")
        answer = await self.run(command)
        return JSONResponse(answer, 200 if answer.get("ok") else 409)

    async def run(self, command: Any) -> dict[str, Any]:
        """Has a command done."""
        if command.camera not in self.cameras:
            return {"ok": False, "error": f"there is no camera {command.camera}"}
        try:
            return await self.commands.run(command)
        except UserError as error:  # an endpoint that cannot be
            return {"ok": False, "error": str(error)}

    async def socket(self, socket: WebSocket) -> None:
        """A page's connection."""
        if self.clients.full:
            await socket.close(1013)  # before it is accepted: HTTP 403
            return
        await socket.accept()
        await self.clients.serve(Client(socket, self.pictures, self.fps, self.patience_s), self.greeting(), self.run)

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        text = write_metrics(self.cameras.values(), len(self.clients), self.pictures.made, self.version)
        return Response(text, headers={"content-type": CONTENT_TYPE})

    async def health(self, request: Request) -> Response:
        """200 where every camera delivers, else 503. `full`: no further page is served, which browsers tell no page."""
        cameras = [camera.health() for camera in self.cameras.values()]
        ok = all(camera["ok"] for camera in cameras)
        return JSONResponse({"ok": ok, "full": self.clients.full, "cameras": cameras}, 200 if ok else 503)


def make_app(monitor: Monitor) -> Starlette:
    """The application, without its guard."""
    return Starlette(
        routes=[
            Route("/", monitor.file),
            Route("/static/{name}", monitor.file),
            Route("/still", monitor.still),
            Route("/control", monitor.control, methods=["POST"]),
            Route("/metrics", monitor.metrics),
            Route("/health", monitor.health),
            WebSocketRoute("/ws", monitor.socket),
        ]
    )


class _Still(Response):
    """A still, which gives its place back when it was sent, or its client has gone or takes too long."""

    def __init__(self, room: asyncio.Semaphore, body: bytes, **options: Any) -> None:
        super().__init__(body, **options)
        self._room = room

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Sends it."""
        try:
            await asyncio.wait_for(self._send(send), _STILL_S)
        except asyncio.TimeoutError:
            pass  # uvicorn ends a connection whose answer is not whole
        finally:
            self._room.release()

    async def _send(self, send: Any) -> None:
        body = bytes(self.body)
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for at in range(0, len(body), _PART):  # in parts, before each of which uvicorn waits for the client
            more = at + _PART < len(body)
            await send({"type": "http.response.body", "body": body[at : at + _PART], "more_body": more})


async def _read_body(request: Request) -> bytes:
    """The body, or just more than a command may have."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MESSAGE_MAX:
            break
    return body


def _error(status: int, sentence: str, *, close: bool = False) -> JSONResponse:
    headers = {"connection": "close"} if close else None
    return JSONResponse({"ok": False, "error": sentence}, status, headers)


def _read_files() -> dict[str, bytes]:
    folder = resources.files("ispeed.stream.monitor") / "static"
    files = (entry for entry in folder.iterdir() if entry.name.rsplit(".", 1)[-1] in _TYPES)
    return {entry.name: entry.read_bytes() for entry in files}


def _version() -> str:
    try:
        return version("ispeed")
    except PackageNotFoundError:
        return "unknown"
