"""The page in a real browser, on real runs of isp-stream with the simulated camera."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ispeed.stream import Control, Subscriber

from ..conftest import Run
from .conftest import PATIENCE_MS, Start, await_picture, await_text, until

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def live(start: Start) -> tuple[Run, str]:
    """A run that most tests look at."""
    return start("--camera", "1", "--exposure-us", "400", "--white-balance", "2", "1", "1.5")


def pixels_of(page: Any, canvas: str) -> np.ndarray:
    """uint8 [height, width, 4] of a canvas as it is shown."""
    script = """id => {
        const c = document.getElementById(id), d = c.getContext('2d').getImageData(0, 0, c.width, c.height);
        return [c.width, c.height, Array.from(d.data)];
    }"""
    width, height, data = page.evaluate(script, canvas)
    return np.array(data, np.uint8).reshape(height, width, 4)


def test_the_picture_lives_and_figures_are_beside_it(live: tuple[Run, str], open_page: Callable[..., Any]) -> None:
    page = open_page(live[1])
    await_picture(page)
    first = pixels_of(page, "live")
    assert first.shape == (120, 160, 4)
    assert first[..., :3].std() > 20
    await_picture(page, 5)
    assert (pixels_of(page, "live") != first).any()
    await_text(page, "#state", "live")
    assert "SIM0002" in page.text_content("#what")
    assert pixels_of(page, "histogram")[..., 3].any()
    await_text(page, "[data-stage=publish]", "Hz")
    await_text(page, "#latency-now", "p99")
    assert page.text_content("[data-count=lost] td + td") == "0"
    assert "400 µs" in page.text_content("#readout")
    assert page.get_by_label("Live picture: click for a still").is_visible()


def test_a_still_has_the_very_values_of_the_frame(live: tuple[Run, str], open_page: Callable[..., Any]) -> None:
    endpoint = live[0].messages[0]["endpoint"][0]
    frames: dict[int, np.ndarray] = {}
    done = threading.Event()

    def collect() -> None:
        with Subscriber(endpoint, mode="every", timeout_ms=30_000) as subscriber:
            while not done.is_set():
                frame = subscriber.receive()
                frames[frame.frame_id] = frame.copy()

    page = open_page(live[1])
    await_picture(page)
    collector = threading.Thread(target=collect)
    collector.start()
    try:
        while not frames:
            page.wait_for_timeout(20)
        page.click("#live", position={"x": 300, "y": 200})
        number = int(await_text(page, "#tag", "still: frame").split()[-1])
        while max(frames) <= number:
            page.wait_for_timeout(20)
    finally:
        done.set()
        collector.join()
    frame = frames[number]
    assert (pixels_of(page, "live")[..., :3] == frame).all()
    for key in ("ArrowLeft", "ArrowUp", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
        x, y, *rgb = (int(value) for value in page.locator("#readout b").all_text_contents())
        assert tuple(rgb) == tuple(frame[y, x])
    loupe = pixels_of(page, "loupe")
    assert tuple(loupe[66, 66, :3]) == tuple(frame[y, x]), "the pixel in the middle of the magnifier"
    page.click("#clipping")
    clipped = (frame == 0).any(2) | (frame == 255).any(2)
    marked = pixels_of(page, "live")[..., :3] != frame
    assert (marked.any(2) <= clipped).all()
    assert clipped.any() <= marked.any()
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == f"camera1-{number:08d}.png"
    from PIL import Image

    with Image.open(download.value.path()) as saved:
        assert (np.asarray(saved.convert("RGB")) == frame).all(), "without the marks"
    page.keyboard.press("Escape")
    shown = int(page.get_attribute("#live", "data-shown"))
    await_picture(page, shown)
    assert page.is_hidden("#loupe")


def test_settings_reach_the_camera_and_refusals_are_its_own_words(
    live: tuple[Run, str], open_page: Callable[..., Any]
) -> None:
    run, url = live
    page = open_page(url)
    until(page, "document.getElementById('set-ExposureTime')?.value === '400'")
    page.fill("#set-ExposureTime", "300")
    page.press("#set-ExposureTime", "Enter")
    await_text(page, "[data-setting=ExposureTime] .hint", "done")
    assert run.until("changed", feature="ExposureTime")["value"] == 300
    await_text(page, "#readout", "300 µs")
    await_text(page, "#messages", "ExposureTime 300")
    page.fill("#set-ExposureTime", "1e12")
    page.click("[data-setting=ExposureTime] button")
    refusal = await_text(page, "[data-setting=ExposureTime] .hint", "SIM0002")
    assert "ExposureTime" in refusal
    page.fill("#set-ExposureTime", "1e300")
    page.click("[data-setting=ExposureTime] button")
    await_text(page, "[data-setting=ExposureTime] .hint", "value: ")
    page.fill("#set-Gain", "many")
    page.press("#set-Gain", "Enter")
    await_text(page, "[data-setting=Gain] .hint", "write a number")
    page.select_option("#set-white_balance", "gains")
    page.fill("[data-setting=white_balance] .triple input:nth-child(3)", "1.25")
    page.click("[data-setting=white_balance] button")
    assert run.until("engine")
    await_text(page, "[data-setting=white_balance] .hint", "now 2.00 · 1.00 · 1.25")


def test_buttons_say_what_came_of_them(live: tuple[Run, str], open_page: Callable[..., Any]) -> None:
    page = open_page(live[1])
    await_picture(page)
    page.keyboard.press("Space")
    await_text(page, "#action-said", "--record")
    page.click("#record")
    await_text(page, "#action-said", "--record")


def test_a_recording_is_triggered_and_stopped_from_the_page(
    start: Start, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    run, url = start("--record", str(tmp_path), "--record-on", "key", "--post-trigger-s", "0.2")
    page = open_page(url)
    await_text(page, "#recording", "armed")
    page.keyboard.press("Space")
    assert run.until("recording", change="recording")["reason"] == "page"
    await_text(page, "#messages", "page")
    run.until("recording", change="ended")
    await_text(page, "#recording", "armed")
    page.click("#record")
    await_text(page, "#recording", "frames")
    assert 'ispeed_recording{camera="0"} 1' in page.request.get(url + "metrics").text()
    page.click("text=Stop recording")
    assert run.until("recording", change="ended")["frames"]["raw"] > 0
    assert len(list(tmp_path.glob("*.h5"))) == 2
    run.close()


def test_a_phone_has_no_sideways_scroll(live: tuple[Run, str], open_page: Callable[..., Any]) -> None:
    page = open_page(live[1], 390, 844)
    await_picture(page)
    await_text(page, "#latency-now", "p99")
    page.evaluate("document.getElementById('recording').hidden = false")
    page.evaluate("document.getElementById('recording').textContent = 'recording (page) · 123456 frames · 12345 MB'")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390


def test_the_run_ends_and_knew_of_nothing(live: tuple[Run, str], open_page: Callable[..., Any]) -> None:
    run, url = live
    page = open_page(url)
    await_picture(page)
    run.signal()
    ledger = run.finish()
    assert (len(ledger["segments"]), ledger["outages"], ledger["lost"]["stage_died"]) == (1, [], 0)
    await_text(page, "#banner-title", "No connection")


CHOOSE_THE_OTHER = """() => {
    document.querySelectorAll("#cameras button")[1].click();
    const c = document.getElementById("histogram"), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
    return [
        ...["set-ExposureTime", "set-engine"].map((id) => document.getElementById(id).value),
        ...["clipped", "readout", "settings"].map((id) => document.getElementById(id).textContent),
        Array.from(d).filter((value, at) => at % 4 < 3 && value > 100).length,
    ];
}"""


def test_nothing_of_a_camera_is_shown_as_of_another_one(start: Start, open_page: Callable[..., Any]) -> None:
    run, url = start("--camera", "0", "--camera", "1", "--exposure-us", "400")
    page = open_page(url)
    await_picture(page)
    until(page, "document.getElementById('set-ExposureTime').value === '400'")
    await_text(page, "#clipped", "at 255")
    stills: list[Any] = []
    page.route("**/still?camera=0*", lambda route: stills.append(route))
    page.click("#still")
    while not stills:
        page.wait_for_timeout(20)
    main = run.process.pid
    os.kill(main, signal.SIGSTOP)  # what is asked now is answered later
    try:
        page.fill("#set-ExposureTime", "300")
        page.press("#set-ExposureTime", "Enter")
        exposure, _, clipped, readout, settings, inked = page.evaluate(CHOOSE_THE_OTHER)
        assert (exposure, clipped, readout, inked) == ("", "", "", 0)
        assert "now" not in settings
    finally:
        os.kill(main, signal.SIGCONT)
    with page.expect_response("**/still?camera=0*"):
        stills[0].continue_()
    run.until("changed", camera=0, feature="ExposureTime")
    page.wait_for_timeout(300)  # for the answers that must not show
    assert page.input_value("#set-ExposureTime") in ("", "400")
    assert page.text_content("[data-setting=ExposureTime] .hint") == ""
    assert page.get_attribute("body", "data-mode") is None
    page.click("#cameras button >> nth=1")
    until(page, "document.getElementById('set-ExposureTime').value === '400'")
    page.click("#still")
    await_text(page, "#tag", "still: frame")
    run.close()


def test_a_triggered_camera_waits_and_is_triggered_from_the_page(start: Start, open_page: Callable[..., Any]) -> None:
    run, url = start("--trigger", "--set", "TriggerSource=Software")
    page = open_page(url)
    await_text(page, "#banner-title", "Waiting for a trigger")
    assert page.request.get(url + "health").status == 200
    page.click("#trigger")
    await_picture(page)
    assert page.get_attribute("#live", "data-frame") == "1"
    await_text(page, "#action-said", "was triggered")
    run.close()


def test_two_cameras_are_chosen_by_tabs(start: Start, open_page: Callable[..., Any]) -> None:
    run, url = start("--camera", "0", "--camera", "1")
    page = open_page(url)
    await_picture(page)
    assert page.locator("#cameras button").all_text_contents() == ["camera 0", "camera 1"]
    await_text(page, "#what", "SIM0001")
    shown = int(page.get_attribute("#live", "data-shown"))
    page.click("#cameras button >> nth=1")
    await_text(page, "#what", "SIM0002")
    await_picture(page, shown)
    page.click("#still")
    await_text(page, "#tag", "still: frame")
    assert page.request.get(url + "still?camera=1").headers["content-type"] == "image/png"
    page.reload()
    await_text(page, "#what", "SIM0002")
    with Control(timeout_ms=PATIENCE_MS) as control:
        control.call("set", feature="SimVanish", value=3_600_000)
    await_text(page, "#cameras", "camera 0 gone")  # also while the other one is looked at
    page.click("#cameras button >> nth=0")
    await_text(page, "#banner-title", "Camera 0 gone since")
    assert page.title() == "camera 0 gone – ispeed monitor"
    run.close()
