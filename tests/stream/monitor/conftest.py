"""The monitor's real process on a made stream, and clients of it."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close
from websockets.sync.client import ClientConnection, connect

from ispeed.stream.monitor.address import listen, read_address
from ispeed.stream.monitor.pictures import unpack
from ispeed.stream.stage import StageProcess

STARTED = {
    "event": "started",
    "camera": 0,
    "geometry": {"fps": 100.0, "vendor": "V", "model": "M", "serial": "S", "width": 64, "height": 48},
    "engine": {"name": "none"},
}

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def status(rate: float = 100.0, **values: Any) -> dict[str, Any]:
    """A status message as the main process sends it."""
    return {
        "event": "status",
        "camera": 0,
        "rates": dict.fromkeys(("camera", "grab", "develop", "publish"), rate),
        "account": {
            "seen": 10,
            "missing": 2,
            "published": 9,
            "lost": {"camera_gap": 2, "superseded": 1},
            "in_flight": 0,
        },
        "latency_ms": {"from": "device", "p50": 0.5, "p99": 2.0, "p999": 3.0, "max": 4.0, "count": 9},
        "bottleneck": "none",
        "subscribers": {"descriptors": 1, "pixels": 0},
        **values,
    }


class Stage:
    """`python -m ispeed.stream.monitor`, as the main process starts it, on streams of `source`."""

    def __init__(self, sources: list[Any], address: str = "127.0.0.1:0", token: str = "", **settings: Any) -> None:
        self.source = sources[0]
        where = read_address(address)
        self._listener = listen(where)
        self.port = self._listener.getsockname()[1]
        self.token = token
        self.process = StageProcess("monitor")
        self.process.post(
            "open",
            fds=(self._listener.fileno(),),
            settings={
                "cameras": [{"camera": n, "endpoint": s.endpoints[0]} for n, s in enumerate(sources)],
                "control": None,
                "engines": ["classic"],
                "fps": 10.0,
                "clients": 16,
                "patience_s": 60.0,
                "silent_s": 60.0,
                "host": where.host,
                "port": self.port,
                "token": token,
                **settings,
            },
        )
        self._client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)
        got = self.process.channel.receive(60)
        assert got is not None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.ask("GET", path, **options)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        self._client.cookies.clear()
        return self._client.request(method, path, **options)

    def socket(self, headers: dict[str, str] | None = None, **options: Any) -> ClientConnection:
        return connect(
            f"ws://127.0.0.1:{self.port}/ws", additional_headers=headers, proxy=None, open_timeout=30, **options
        )

    def await_frames(self, camera: int = 0) -> None:
        """Until the monitor has found the ring and a frame in it."""
        eventually(lambda: self.get(f"/still?camera={camera}").status_code == 200)

    def end(self) -> None:
        self.process.post("stop")
        eventually(lambda: self.process.ended)
        self.process.end()
        self._listener.close()
        self._client.close()


def eventually(holds: Callable[[], Any], timeout_s: float = 30) -> Any:
    """Waits until something is true, and returns it."""
    deadline = time.monotonic() + timeout_s
    while not (got := holds()):
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.02)
    return got


def receive(socket: ClientConnection, kind: str, **wanted: Any) -> dict[str, Any]:
    """The next JSON message of a type (and those values), past all others."""
    while True:
        data = socket.recv(30)
        if isinstance(data, str):
            message = json.loads(data)
            if message["type"] == kind and all(message.get(key) == value for key, value in wanted.items()):
                return message


def picture(socket: ClientConnection) -> tuple[dict[str, Any], bytes]:
    """The next picture."""
    while isinstance(data := socket.recv(30), str):
        pass
    return unpack(data)


def closed(socket: ClientConnection) -> Close:
    """Reads until the monitor closes the connection, and returns what it said."""
    try:
        while True:
            socket.recv(30)
    except ConnectionClosed as error:
        return error.rcvd or Close(1006, "")


def send(socket: ClientConnection, **message: Any) -> None:
    """Sends a JSON message."""
    socket.send(json.dumps(message))


@pytest.fixture(scope="module")
def stage(source: ModuleType) -> Iterator[Stage]:
    """A monitor on one made stream, for tests that leave it as it is."""
    with _stages(source) as make:
        yield make()


@pytest.fixture
def make_stage(source: ModuleType) -> Iterator[Callable[..., Stage]]:
    """Starts a monitor on `cameras` made streams."""
    with _stages(source) as make:
        yield make


@contextmanager
def _stages(source: ModuleType) -> Iterator[Callable[..., Stage]]:
    made: list[Any] = []
    folder = Path(tempfile.mkdtemp(prefix="isp-"))

    def make(cameras: int = 1, frames: int = 3, stream: dict[str, Any] | None = None, **settings: Any) -> Stage:
        sources = [
            source.RemoteSource([f"ipc://{folder}/{n}"], camera=n, stream_id=n + 1, **(stream or {}))
            for n in range(cameras)
        ]
        made.extend(sources)
        for one in sources:
            one.do("publish", count=frames)
        stage = Stage(sources, **settings)
        made.insert(0, stage)
        return stage

    try:
        yield make
    finally:
        for thing in made:
            thing.end() if isinstance(thing, Stage) else thing.close()
        shutil.rmtree(folder)
