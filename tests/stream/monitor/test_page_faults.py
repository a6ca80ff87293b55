"""The page in a real browser when something goes: the camera, a stage, the monitor, or its token."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import Start, await_picture, await_text, child_of, until

pytestmark = pytest.mark.alone


def test_a_killed_monitor_comes_back_and_the_page_with_it(start: Start, open_page: Callable[..., Any]) -> None:
    run, url = start()
    page = open_page(url)
    await_picture(page)
    os.kill(child_of(run.process.pid, "monitor"), signal.SIGKILL)
    await_text(page, "#banner-title", "No connection")
    assert "SIGKILL" in run.until("monitor_died")["text"]
    shown = int(page.get_attribute("#live", "data-shown"))
    await_picture(page, shown)
    await_text(page, "#state", "live")
    assert page.is_hidden("#banner")
    run.signal()
    ledger = run.finish()
    assert (len(ledger["segments"]), ledger["outages"], ledger["lost"]["stage_died"]) == (1, [], 0)


def test_a_camera_that_goes_is_shown_gone_until_it_is_back(start: Start, open_page: Callable[..., Any]) -> None:
    run, url = start("--set", "SimVanishAt=150", "--set", "SimVanish=5000")
    page = open_page(url)
    await_picture(page)
    title = await_text(page, "#banner-title", "Camera gone since")
    assert page.text_content("#state") == "camera gone"
    assert "grayscale" in page.evaluate("getComputedStyle(document.getElementById('live')).filter")
    assert page.request.get(url + "health").status == 503
    assert len(title) == len("Camera gone since 00:00:00")
    shown = int(page.get_attribute("#live", "data-shown"))
    await_picture(page, shown)
    await_text(page, "#messages", "is back")
    run.close()


def test_a_saver_that_is_stuck_is_told_and_the_stream_is_live(
    start: Start, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    run, url = start("--save", str(tmp_path))
    page = open_page(url)
    await_picture(page)
    saver = child_of(run.process.pid, "save")
    os.kill(saver, signal.SIGSTOP)
    await_text(page, "#beside", "saver stuck")
    assert page.text_content("#state") == "live"
    assert page.is_hidden("#banner")
    assert page.request.get(url + "health").status == 200
    os.kill(saver, signal.SIGCONT)
    until(page, "document.getElementById('beside').hidden")
    run.close()


def test_a_token_that_has_changed_is_told_and_the_new_one_opens(start: Start, open_page: Callable[..., Any]) -> None:
    run, url = start("--monitor", "0.0.0.0:0")
    old = local(url)
    page = open_page(str(old))
    await_picture(page)
    run.close()
    await_text(page, "#banner-title", "No connection")
    run, url = start("--monitor", f"0.0.0.0:{old.port}")
    await_text(page, "#banner-title", "The token has changed")
    await_text(page, "#banner-text", "open the address that isp-stream printed")
    open_page(str(local(url)), context=page.context)  # whose cookie is the page's too
    await_text(page, "#state", "live")
    run.close()


def local(url: str) -> httpx.URL:
    """The same page, at the loopback."""
    return httpx.URL(url).copy_with(host="127.0.0.1")


def test_a_monitor_that_is_full_says_so_until_there_is_room(start: Start, open_page: Callable[..., Any]) -> None:
    run, url = start("--monitor-clients", "1")
    first = open_page(url)
    await_picture(first)
    second = open_page(url)
    await_text(second, "#banner-title", "The monitor is full")
    first.close()
    await_picture(second)
    assert second.is_hidden("#banner")
    run.close()
