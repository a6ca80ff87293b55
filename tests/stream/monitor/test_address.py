"""Where the monitor listens, and its token: every wrong input is one sentence."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ispeed.engines.errors import UserError
from ispeed.stream.monitor.address import Address, listen, make_token, page_url, read_address, read_token

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        (":8080", "127.0.0.1", 8080, True),
        ("127.0.0.1:0", "127.0.0.1", 0, True),
        ("localhost:1", "localhost", 1, True),
        ("[::1]:8080", "::1", 8080, True),
        ("0.0.0.0:8080", "0.0.0.0", 8080, False),
        ("[::]:8080", "::", 8080, False),
        ("192.0.2.7:65535", "192.0.2.7", 65535, False),
        ("camera-host.local:80", "camera-host.local", 80, False),
    ],
)
def test_addresses(text: str, host: str, port: int, loopback: bool) -> None:
    assert read_address(text) == Address(host, port)
    assert read_address(text).loopback is loopback


@pytest.mark.parametrize(
    "text", ["", "8080", ":", ":x", ":65536", ":-1", "::1:80", "[::1]", "a b:80", "http://x:80", ":８０"]
)
def test_no_addresses(text: str) -> None:
    with pytest.raises(UserError, match="monitor address"):
        read_address(text)


def test_an_address_in_use_or_of_nobody() -> None:
    in_use = pytest.raises(UserError, match=r"in use: choose another port, or --monitor :0")
    with listen(Address("127.0.0.1", 0)) as held, in_use:
        listen(Address("127.0.0.1", held.getsockname()[1]))
    with pytest.raises(UserError, match="no address of this machine"):
        listen(Address("192.0.2.1", 0))
    with pytest.raises(UserError, match="knows no host"):
        listen(Address("no.such.host.invalid", 0))


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6() -> None:
    try:
        held = listen(Address("::1", 0))
    except UserError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    with held:
        assert held.family == socket.AF_INET6
    assert page_url("::1", 80, "") == "http://[::1]:80/"


def test_the_page_has_an_address_of_this_machine() -> None:
    assert page_url("127.0.0.1", 8080, "") == "http://127.0.0.1:8080/"
    assert page_url("0.0.0.0", 8080, "abc").endswith(":8080/?token=abc")
    assert "0.0.0.0" not in page_url("0.0.0.0", 8080, "abc")


def test_tokens_are_long_and_differ() -> None:
    assert len(make_token()) >= 32
    assert make_token() != make_token()


def token_file(path: Path, text: str | bytes = TOKEN, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def test_a_token_file(tmp_path: Path) -> None:
    assert read_token(token_file(tmp_path / "token", TOKEN + "\n")) == TOKEN


@pytest.mark.parametrize(
    ("text", "mode", "part"),
    [
        (TOKEN, 0o640, "chmod 600"),
        (TOKEN, 0o602, "chmod 600"),
        ("short", 0o600, "16 to 256 characters"),
        ("x" * 257, 0o600, "16 to 256 characters"),
        ("two words of length", 0o600, "without spaces"),
        (b"\xff" * 20, 0o600, "without spaces"),
        ("", 0o600, "16 to 256"),
    ],
)
def test_token_files_that_are_none(tmp_path: Path, text: str | bytes, mode: int, part: str) -> None:
    with pytest.raises(UserError, match=part):
        read_token(token_file(tmp_path / "token", text, mode))


def test_places_that_hold_no_token(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: no such file"):
        read_token(tmp_path / "nothing")
    with pytest.raises(UserError, match="token file"):
        read_token(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is no file"):
        read_token(tmp_path / "pipe")
