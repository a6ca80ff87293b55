"""The monitor's real process on a made stream, and clients of it; real runs with a monitor, and a browser."""

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

from ..conftest import Run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-breakpad"),
)
PATIENCE_MS = 60_000  # a loaded machine

Start = Callable[..., tuple[Run, str]]

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


def until(page: Any, script: str, arg: Any = None) -> Any:
    """Waits until a script's value is true, and returns it. `wait_for_function` needs eval, which the page forbids."""
    deadline = time.monotonic() + PATIENCE_MS / 1e3
    while not (got := page.evaluate(script, arg)):
        assert time.monotonic() < deadline, f"{script} {arg}: {page.text_content('body')}"
        page.wait_for_timeout(20)
    return got


def await_picture(page: Any, more_than: int = 0) -> None:
    until(page, f"Number(document.getElementById('live').dataset.shown) > {more_than}")


def await_text(page: Any, selector: str, part: str) -> str:
    return until(
        page,
        "([s, t]) => { const e = document.querySelector(s); return e?.textContent.includes(t) && e.textContent; }",
        [selector, part],
    )


def child_of(main: int, name: str) -> int:
    """Process id of a stage."""
    for child in Path(f"/proc/{main}/task/{main}/children").read_text().split():
        if f"ispeed.stream.{name}".encode() in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError(f"there is no {name} process")


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS), timeout=90_000)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page in a fresh context, or the one that is given; an error in its scripts fails the test."""
    contexts: list[Any] = []
    errors: list[str] = []

    def open_one(url: str, width: int = 1280, height: int = 800, context: Any = None) -> Any:
        if context is None:
            context = browser.new_context(viewport={"width": width, "height": height})
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if "Content Security Policy" in m.text else None)
        page.goto(url)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Starts isp-stream with a monitor, and returns the run and the address of its page."""
    runs: list[Run] = []
    folders: list[str] = []
    patch = pytest.MonkeyPatch()

    def begin(*arguments: str, fps: float = 50) -> tuple[Run, str]:
        folders.append(tempfile.mkdtemp(prefix="isp-"))
        patch.setenv("XDG_RUNTIME_DIR", folders[-1])
        small = ("--width", "160", "--height", "120", "--fps", str(fps), "--slots", "64")
        run = Run(*small, "--monitor", ":0", *arguments)
        runs.append(run)
        return run, run.until("monitor")["url"]

    yield begin
    for run in runs:
        run.close()
    patch.undo()
    for folder in folders:
        shutil.rmtree(folder)
