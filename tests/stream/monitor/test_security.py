"""Who may ask, and who may not: the real process against wrong tokens, foreign pages and floods."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection

from ispeed.stream.monitor.security import Access, Refusal

from .conftest import UPGRADE, Stage, closed, eventually, receive, send

TOKEN = "a-token-that-nobody-guesses"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
FOREIGN = {"Origin": "http://evil.example"}
Make = Callable[..., Stage]


def refused(stage: Stage, headers: dict[str, str] | None = None) -> bool:
    """Whether the WebSocket is not opened to whoever sends these headers."""
    try:
        with stage.socket(headers):
            return False
    except InvalidStatus as error:
        return error.response.status_code == 403


def test_a_token_is_asked_for_once_and_kept_in_a_cookie(make_stage: Make) -> None:
    stage = make_stage(token=TOKEN)
    for path in ("/", "/static/monitor.js", "/still", "/metrics", "/health", "/ws"):
        answer = stage.get(path)
        assert answer.status_code == 401, path
        assert "token" in answer.json()["error"]
        assert answer.headers["www-authenticate"] == "Bearer"
    for wrong in (TOKEN[:-1], TOKEN + "x", "", "%00"):
        assert stage.get(f"/?token={wrong}").status_code == 401
        assert stage.get("/health", headers={"Authorization": f"Bearer {wrong or 0}"}).status_code == 401
    assert stage.get(f"/metrics?token={TOKEN}").status_code == 401, "in the address of the page alone"
    assert refused(stage)
    with httpx.Client(base_url=stage.url) as browser:
        page = browser.get(f"/?token={TOKEN}")
        assert page.status_code == 200
        cookie = page.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert browser.get("/static/monitor.js").status_code == 200
        kept = {"Cookie": '{"not": a cookie}; other="x; ' + cookie.split(";")[0]}
    assert not refused(stage, kept)
    assert stage.get("/metrics", headers=BEARER).status_code == 200
    assert not refused(stage, BEARER)


def test_other_names_pages_and_sites_are_refused(stage: Stage) -> None:
    for host in ("evil.example", f"evil.example:{stage.port}", "192.0.2.1", "localhost.evil.example", "[::", ""):
        assert stage.get("/health", headers={"Host": host}).status_code in (400, 421), host
        if host:
            assert stage.get("/", headers={"Host": host}).status_code in (400, 421), host
    for host in (f"localhost:{stage.port}", "127.0.0.1:1", f"[::1]:{stage.port}", "LOCALHOST"):
        assert stage.get("/", headers={"Host": host}).status_code == 200, host
    command = json.dumps({"cmd": "trigger"})
    for headers in (FOREIGN, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}, {"Sec-Fetch-Site": "cross-site"}):
        assert refused(stage, headers), headers
        for path in ("/still", "/health", "/metrics"):
            assert stage.get(path, headers=headers).status_code == 403
        answer = stage.ask("POST", "/control", content=command, headers=headers)
        assert answer.status_code == 403
        assert "another site" in answer.json()["error"]
    assert stage.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200, "a link to the page"
    assert not refused(stage, {"Origin": stage.url})


def test_a_public_monitor_takes_addresses_and_its_own_name(make_stage: Make) -> None:
    stage = make_stage(address="0.0.0.0:0", token=TOKEN)
    names = {"192.0.2.9:80": 200, socket.gethostname(): 200, "localhost": 200, "evil.example": 421}
    for host, code in names.items():
        assert stage.get("/", headers={**BEARER, "Host": host}).status_code == code, host


@pytest.mark.parametrize("kept", [True, False], ids=["host kept", "host rewritten"])
def test_a_proxy_that_was_named_hands_the_page_on(make_stage: Make, kept: bool) -> None:
    stage = make_stage(token=TOKEN, names=["Camera.Example", "lab.example:8443"])
    local = f"127.0.0.1:{stage.port}"
    for name in ("camera.example", "lab.example:8443"):
        proxied = {"Host": name if kept else local, "Origin": f"https://{name}", "Sec-Fetch-Site": "same-origin"}
        assert stage.get("/still", headers=proxied).status_code == 401, "a token is asked for as ever"
        assert stage.get("/still", headers={**BEARER, **proxied}).status_code in (200, 503)
        assert stage.ask("POST", "/control", content="{", headers={**BEARER, **proxied}).status_code == 400
        assert upgraded(stage, **BEARER, **proxied) == 101
        for origin in ("https://evil.example", "https://camera.example:1", "https://lab.example", "null"):
            foreign = {**BEARER, **proxied, "Origin": origin}
            assert stage.get("/health", headers=foreign).status_code == 403, origin
            assert upgraded(stage, **foreign) == 403, origin
    assert stage.get("/", headers={**BEARER, "Host": "evil.example"}).status_code == 421


def upgraded(stage: Stage, **headers: str) -> int:
    """The status that a WebSocket is answered with."""
    lines = [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
    with socket.create_connection(("127.0.0.1", stage.port), timeout=30) as connection:
        connection.sendall(UPGRADE.replace(b"Host: localhost\r\n", b"".join(lines)))
        return int(connection.recv(4096).split()[1])


def test_the_name_that_a_server_tells_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()
    monkeypatch.setattr(socket, "getfqdn", lambda: told.wait(60) and "Camera.Lab.Example")
    access = Access("0.0.0.0", 80, "")
    scope = {"type": "http", "path": "/", "headers": [(b"host", b"camera.lab.example")]}
    with pytest.raises(Refusal):
        access.check(scope)
    told.set()

    def is_known() -> bool:
        with suppress(Refusal):
            return access.check(scope) == []
        return False

    eventually(is_known)


def test_every_answer_has_a_policy(stage: Stage) -> None:
    for path in ("/", "/static/monitor.css", "/health", "/nothing"):
        headers = stage.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers
    page = stage.get("/").text
    assert "http://" not in page
    assert "https://" not in page
    assert "style=" not in page
    assert "onclick" not in page


def test_there_are_no_other_files(stage: Stage) -> None:
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/x", "/static/", "/a"):
        assert stage.get(path).status_code == 404, path


def test_messages_that_are_none_are_refused_and_in_the_end_the_client(stage: Stage) -> None:
    with stage.socket() as client:
        receive(client, "hello")
        for text in ("{", "[]", '{"type": "view"}', '{"type": "command", "cmd": "set", "feature": "X", "value": 1}'):
            client.send(text)
            assert receive(client, "refused")["error"]
        send(client, type="command", id=7, camera=5, cmd="trigger")
        assert receive(client, "answer", id=7)["error"] == "there is no camera 5"
        client.send('{"type": "command", "id": 8, "cmd": "set", "feature": "X", "value": 1}')
        assert "feature" in receive(client, "answer", id=8)["error"]
        flood(client, "{", 60)
        assert closed(client).reason == "nothing that it sends is understood"
    with stage.socket() as client:
        client.send("x" * 5000)
        assert closed(client).code == 1009, "too big"
    with stage.socket() as client:
        client.send(b"bytes")
        closed(client)
    with stage.socket() as client:
        flood(client, '{"type": "ack", "sequence": 1}', 2000)
        assert closed(client).reason in ("it sends too much", "")
    assert stage.get("/").status_code == 200


def flood(client: ClientConnection, text: str, count: int) -> None:
    """Sends a message many times at once, as far as that goes."""
    frame = Frame(Opcode.TEXT, text.encode()).serialize(mask=True)
    with suppress(OSError):
        client.socket.sendall(frame * count)


def test_commands_by_post_are_checked(stage: Stage) -> None:

    def post(content: str) -> httpx.Response:
        return stage.ask("POST", "/control", content=content)

    assert post("{").status_code == 400
    assert post('{"cmd": "stop"}').status_code == 400
    assert post('{"cmd": "set", "feature": "Gain", "value": 1, "more": 2}').status_code == 400
    assert post('{"cmd": "trigger", "camera": 9}').status_code == 404
    assert post('{"cmd": "trigger"' + " " * 5000 + "}").status_code == 413
    assert stage.get("/control").status_code == 405


def test_a_hundred_connections_leave_room_for_nobody_and_then_for_all(make_stage: Make) -> None:
    stage = make_stage(clients=5)
    with ExitStack() as stack:
        clients = [stack.enter_context(stage.socket()) for _ in range(5)]
        assert refused(stage), "the sixth page"
        for client in clients:
            receive(client, "hello")
        raw = [socket.create_connection(("127.0.0.1", stage.port)) for _ in range(100)]
        for connection in raw:
            stack.enter_context(connection)
        send(clients[0], type="command", id=1, camera=9, cmd="trigger")
        assert receive(clients[0], "answer", id=1)["ok"] is False, "who is in stays in"
        with pytest.raises(httpx.HTTPError):
            stage.get("/health")
    assert eventually(lambda: _answers(stage))
    assert not refused(stage)


def test_more_pages_than_a_few_may_be_connected(make_stage: Make) -> None:
    stage = make_stage(clients=70)
    with ExitStack() as stack:
        for _ in range(70):
            stack.enter_context(stage.socket())
        assert stage.get("/health").status_code in (200, 503), "there is room beside them"
        assert refused(stage), "the seventy-first page"


def test_a_request_that_is_begun_and_not_ended_keeps_no_place(make_stage: Make) -> None:
    stage = make_stage(token=TOKEN)
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    with ExitStack() as stack:
        begun = [stack.enter_context(socket.create_connection(("127.0.0.1", stage.port))) for _ in range(4)]
        for connection in begun:
            connection.settimeout(60)
        begun[0].sendall(request)
        for connection, rest in zip(begun[1:], (b"G", request, request + b"Content-Length: 9\r\n\r\n"), strict=True):
            connection.sendall(request + b"\r\n")
            assert b" 401 " in connection.recv(4096)
            connection.sendall(rest)
        for connection in begun:
            with suppress(ConnectionResetError):
                while connection.recv(4096):
                    pass


def test_pings_of_a_client_that_reads_nothing_do_not_pile_up(stage: Stage) -> None:
    pings = Frame(Opcode.PING, bytes(125)).serialize(mask=True) * 1000
    with socket.create_connection(("127.0.0.1", stage.port)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.settimeout(60)
        deaf.sendall(UPGRADE)
        assert b"101" in deaf.recv(20)
        with pytest.raises(ConnectionError):
            deaf.sendall(pings * 500)  # 65 MB, of which the kernel holds a few
    with stage.socket(ping_interval=None) as client:
        receive(client, "hello")
        for _ in range(100):
            assert client.ping().wait(30), "who reads is answered"


def _answers(stage: Stage) -> bool:
    try:
        return stage.get("/").status_code == 200
    except httpx.HTTPError:
        return False


def test_heads_that_never_end_and_no_http_are_dropped(stage: Stage) -> None:
    for data in (b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 40_000, b"\x16\x03\x01" + bytes(600), b"\r\n" * 10):
        with socket.create_connection(("127.0.0.1", stage.port), timeout=30) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer: Any = b""
            try:
                while part := connection.recv(4096):
                    answer += part
            except ConnectionResetError:
                pass
            assert answer == b"" or b"400" in answer.splitlines()[0]
    for headers in ([], [b"Host: a", b"Host: localhost"]):
        with socket.create_connection(("127.0.0.1", stage.port), timeout=30) as connection:
            connection.sendall(b"GET /health HTTP/1.0\r\n" + b"".join(h + b"\r\n" for h in headers) + b"\r\n")
            assert b" 400 " in connection.recv(4096).splitlines()[0]
    assert stage.get("/").status_code == 200
