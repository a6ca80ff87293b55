"""The page in a real browser, behind a proxy with TLS that has another name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import Start, await_picture, await_text

pytestmark = pytest.mark.alone

NAME = "camera.localhost"  # browsers know that it is this machine


@pytest.fixture(params=["keep", "rewrite"])
def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Which keeps the Host header, or writes its own; see tls_proxy.py."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    made, key = str(tmp_path / "made.pem"), str(tmp_path / "key.pem")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}"]
    subprocess.run([*make, "-out", made, "-keyout", key], check=True, capture_output=True)
    command = [sys.executable, str(Path(__file__).parent / "tls_proxy.py"), made, key, request.param]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        yield running
        running.communicate(timeout=30)


def test_the_page_lives_behind_a_proxy_that_was_named(
    start: Start, open_page: Callable[..., Any], browser: Any, proxy: subprocess.Popen[str]
) -> None:
    assert proxy.stdin
    assert proxy.stdout
    port = int(proxy.stdout.readline())
    run, url = start("--monitor-host", f"{NAME}:{port}")
    printed = httpx.URL(url)
    assert len(printed.params["token"]) >= 32, "whoever reaches the proxy comes from this machine"
    assert httpx.get(printed.copy_with(query=None), timeout=60).status_code == 401
    proxy.stdin.write(f"{printed.port}\n")
    proxy.stdin.flush()
    context = browser.new_context(ignore_https_errors=True)
    page = open_page(str(printed.copy_with(scheme="https", host=NAME, port=port)), context=context)
    await_picture(page)
    await_text(page, "#state", "live")
    page.click("#still")
    await_text(page, "#tag", "still: frame")
    context.close()
    run.close()
