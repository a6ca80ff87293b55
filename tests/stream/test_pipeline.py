"""The whole pipeline, from the simulated camera through real Harvesters to subscribers, as a user runs it."""

import json
import os
import signal
import time
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from ispeed.stream import Subscriber


def test_a_number_of_frames_is_exact_and_each_is_saved(isp_stream, tmp_path):
    run = isp_stream("--frames", "12", "--save", str(tmp_path / "out"))
    ledger = run.finish()
    assert ledger["published"] == 12
    files = sorted((tmp_path / "out").glob("*.png"))
    assert [file.name for file in files] == [f"{n:08d}.png" for n in range(1, 13)]
    pictures = [np.asarray(Image.open(file)) for file in files]
    assert {picture.shape for picture in pictures} == {(120, 160, 3)}
    assert all(picture.std() > 20 for picture in pictures)
    assert any((a != b).any() for a, b in pairwise(pictures))


def test_a_subscriber_sees_every_frame_in_order(isp_stream):
    run = isp_stream("--frames", "300", "--slots", "300")
    started = run.until("started")
    with Subscriber(started["endpoint"][0], mode="every", timeout_ms=10_000) as subscriber:
        frame = subscriber.receive()
        sequences, ids = [frame.header.sequence], [frame.header.frame_id]
        while sequences[-1] < 299:
            frame = subscriber.receive()
            with frame as picture:
                assert picture.shape == (120, 160, 3)
            sequences.append(frame.header.sequence)
            ids.append(frame.header.frame_id)
    assert run.finish()["published"] == 300
    assert sequences == list(range(sequences[0], 300))
    assert ids == sorted(ids)


def test_losses_are_counted_by_reason_and_told_in_every_header(isp_stream):
    run = isp_stream("--set", "SimSkipEvery=10", "--set", "SimIncompleteEvery=15", "--seconds", "3")
    started = run.until("started")
    with Subscriber(started["endpoint"][0], mode="every", timeout_ms=10_000) as subscriber:
        headers = [subscriber.receive().header for _ in range(200)]
    ledger = run.finish()
    assert ledger["lost"]["camera_gap"] == ledger["missing"] > 15
    assert ledger["lost"]["incomplete"] > 10
    first, last = headers[0], headers[-1]
    gaps = last.frame_id - first.frame_id - (last.sequence - first.sequence)
    told = sum(last.losses.values()) - sum(first.losses.values())
    assert abs(gaps - told) <= 6  # what is lost while a frame waits is told with it, and comes after it


@pytest.mark.parametrize("policy", ["every", "latest", "block"])
def test_an_engine_that_is_too_slow_loses_by_policy(isp_stream, policy):
    run = isp_stream("--policy", policy, "--seconds", "2.5", "--threads", "1", size="1600x1200", fps=3000)
    ledger = run.finish()
    assert ledger["published"] > 0
    if policy == "block":
        assert ledger["lost"]["superseded"] == 0
        assert ledger["lost"]["no_free_buffer"] > 0
    else:
        assert ledger["lost"]["superseded"] > 0
    limits = [message["bottleneck"] for message in run.messages if message["event"] == "status"]
    assert any(limit.startswith(("engine", "ring")) for limit in limits)


def test_both_cameras_stream_side_by_side(isp_stream):
    runs = [isp_stream("--camera", name, "--frames", "50") for name in ("SIM0001", "1")]
    started = [run.until("started") for run in runs]
    assert [s["geometry"]["serial"] for s in started] == ["SIM0001", "SIM0002"]
    assert [s["endpoint"][0].rsplit("/", 1)[1] for s in started] == ["0", "1"]
    assert [run.finish()["published"] for run in runs] == [50, 50]


@pytest.mark.parametrize("acquisition", ["zero-copy", "copy"])
@pytest.mark.parametrize("pixel_format", ["BayerRG8", "BayerGB10p", "BayerBG12", "BayerGR16", "Mono8"])
def test_formats_and_data_paths(isp_stream, acquisition, pixel_format):
    run = isp_stream("--acquisition", acquisition, "--pixel-format", pixel_format, "--frames", "20", fps=100)
    assert run.until("started")["geometry"]["acquisition"] == acquisition
    assert run.finish()["published"] == 20


def test_exposure_is_told_with_every_frame(isp_stream):
    run = isp_stream("--exposure-us", "321", "--gain-db", "6", "--seconds", "2")
    started = run.until("started")
    with Subscriber(started["endpoint"][0], timeout_ms=10_000) as subscriber:
        header = subscriber.receive().header
    assert (header.exposure_us, header.gain_db) == (321.0, 6.0)
    run.finish()


def test_the_trace_is_chrome_json_with_every_stage_of_every_frame(isp_stream, tmp_path):
    isp_stream("--frames", "30", "--trace", str(tmp_path / "trace.json")).finish()
    events = [e for e in json.loads((tmp_path / "trace.json").read_text())["traceEvents"] if e["ph"] == "X"]
    assert len(events) == 30 * 4
    assert all(event["dur"] >= 0 for event in events)
    names = {event["name"].rsplit(" ", 1)[0] for event in events}
    assert names == {"camera to grab", "wait for develop", "develop", "wait for publish"}


def test_software_trigger_mode_is_idle_without_being_a_fault(isp_stream):
    run = isp_stream("--trigger", "--timeout-ms", "300", "--seconds", "2")
    ledger = run.finish()
    assert (ledger["seen"], ledger["published"], len(ledger["segments"])) == (0, 0, 1)


@pytest.mark.parametrize("stage", ["grab", "develop"])
def test_a_killed_stage_is_started_again_and_every_frame_accounted_for(isp_stream, stage):
    run = isp_stream()
    started = run.until("started")
    with Subscriber(started["endpoint"][0], mode="every", timeout_ms=10_000) as subscriber:
        run.published(100)
        os.kill(started["pids"][stage], signal.SIGKILL)
        died = run.until("stage_died")
        assert died["stage"] == stage
        before = run.messages[-2]["account"]["published"] if "account" in run.messages[-2] else 100
        run.published(before + 100)
        last = None
        while (header := subscriber.receive().header).sequence < before + 50:
            assert last is None or header.sequence > last
            last = header.sequence
        assert subscriber.restarts == 0  # rings and subscribers stay
    run.signal()
    ledger = run.finish()
    assert len(ledger["segments"]) == (2 if stage == "grab" else 1)
    assert len(ledger["outages"]) == (1 if stage == "grab" else 0)


def test_a_camera_that_vanishes_is_taken_up_again(isp_stream):
    run = isp_stream("--set", "SimVanishAt=150", "--set", "SimVanish=700")
    assert "camera" in run.until("camera_lost")["text"]
    outage = run.until("outage")
    assert outage["text"] == "camera SIM0001 is back"  # and not the other one, whose index is 0 meanwhile
    assert outage["duration_s"] >= 0.7
    assert outage["estimated_frames"] > 100
    run.published(200)
    run.signal()
    ledger = run.finish()
    assert len(ledger["segments"]) >= 2
    assert ledger["segments"][0]["ended_by"].startswith("camera lost")


def test_a_silent_camera_counts_as_lost(isp_stream):
    run = isp_stream("--set", "SimStallMs=60000", "--timeout-ms", "300", "--seconds", "4")
    assert "silent" in run.until("camera_lost")["text"]
    run.finish()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_and_prints_the_ledger(isp_stream, number):
    run = isp_stream("--slots", "400")
    run.published(50)
    run.signal(number)
    ledger = run.finish()
    assert ledger["lost"]["stopped"] == 0
    assert ledger["seen"] == ledger["published"]


def test_a_second_signal_forces(isp_stream):
    run = isp_stream("--policy", "block", size="1600x1200", fps=2000)
    run.published(5)
    run.signal()
    time.sleep(0.02)
    run.signal()
    start = time.monotonic()
    run.finish()
    assert time.monotonic() - start < 5


def test_a_hostile_and_a_stopped_subscriber_disturb_nobody(isp_stream):
    import zmq

    run = isp_stream("--slots", "500")
    started = run.until("started")
    endpoint = started["endpoint"][0]
    context = zmq.Context()
    hostile = context.socket(zmq.XSUB)
    hostile.setsockopt(zmq.LINGER, 0)
    hostile.connect(endpoint)
    stopped = Subscriber(endpoint, mode="every", timeout_ms=5000)
    try:
        for size in (1, 7, 100, 5000, 200_000):
            # Long ones not as subscriptions: libzmq keeps those in a trie in which our own hostile client would drown.
            hostile.send((b"\x01" if size < 1000 else b"\x07") + os.urandom(size))
            hostile.send(b"\x07" + os.urandom(size))
        with Subscriber(endpoint, mode="every", timeout_ms=10_000) as subscriber:
            sequences = [subscriber.receive().header.sequence for _ in range(400)]
        assert sequences == list(range(sequences[0], sequences[0] + 400))
    finally:
        hostile.close()
        stopped.close()
        context.term()
    run.signal()
    ledger = run.finish()
    assert sum(ledger["lost"].values()) == 0
