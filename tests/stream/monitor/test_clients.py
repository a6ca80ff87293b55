"""Pages and programs that look: each gets the newest picture when it asks, and a slow one costs nobody anything."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from .conftest import STARTED, UPGRADE, Stage, closed, eventually, picture, receive, send, status

Make = Callable[..., Stage]


def look(client: object, **values: object) -> None:
    send(client, **{"type": "view", "camera": 0, **values})  # type: ignore[arg-type]


def test_a_new_page_is_told_how_things_stand(make_stage: Make) -> None:
    stage = make_stage()
    stage.source.do("announce", **STARTED)
    for second in range(3):
        stage.source.do("announce", **status(100 + second, t_s=second))
    eventually(lambda: stage.get("/health").json()["ok"])  # it has subscribed
    stage.source.do("announce", event="warning", camera=0, text="a warning")
    eventually(lambda: stage.get("/metrics").text.count("warning"))
    with stage.socket() as client:
        hello = receive(client, "hello")
        assert (hello["cameras"], hello["fps"], hello["engines"]) == ([0], 10.0, ["classic"])
        assert receive(client, "started")["started"]["geometry"]["serial"] == "S"
        history = receive(client, "history")["entries"]
        assert history[-1]["p99"] == 2.0
        assert receive(client, "messages")["entries"][-1]["text"] == "a warning"
        camera = receive(client, "camera")
        assert (camera["state"], camera["status"]["rates"]["publish"]) == ("live", 102)
        stage.source.do("announce", event="camera_lost", camera=0, text="camera lost: unplugged")
        gone = receive(client, "camera", state="gone")
        assert gone["text"] == "unplugged"
        assert abs(gone["since_ms"] - time.time() * 1e3) < 60_000
        assert receive(client, "messages")["entries"][0]["level"] == "error"
        stage.source.do("announce", event="outage", camera=0, text="camera S is back")
        assert receive(client, "camera", state="live")["since_ms"] == 0


def test_one_picture_is_under_way_and_the_next_is_the_newest(make_stage: Make) -> None:
    stage = make_stage(fps=50.0)
    stage.await_frames()
    with stage.socket() as client:
        look(client)
        header, rest = picture(client)
        assert (header["camera"], header["sequence"], header["frame_id"]) == (0, 2, 102), "the newest, though it is old"
        assert (header["width"], header["height"], header["shown"]) == (64, 48, [64, 48])
        assert header["white_balance"] == [2, 1, 1]
        assert header["gain_db"] is None
        with Image.open(BytesIO(rest[3072 : 3072 + header["jpeg"]])) as jpeg:
            assert np.abs(np.asarray(jpeg).astype(int) - 2).max() <= 2
        stage.source.do("publish", count=5)
        with pytest.raises(TimeoutError):
            picture_within(client, 0.3)  # it has not said that it showed the first
        send(client, type="ack", sequence=99)  # of a picture that it never had
        with pytest.raises(TimeoutError):
            picture_within(client, 0.2)
        send(client, type="ack", sequence=2)
        assert picture(client)[0]["sequence"] == 7
        send(client, type="ack", sequence=7)
        with pytest.raises(TimeoutError):
            picture_within(client, 0.2)  # there is no newer one


def picture_within(client: object, timeout_s: float) -> None:
    while isinstance(client.recv(timeout_s), str):  # type: ignore[attr-defined]
        pass


def made(stage: Stage) -> int:
    """Pictures that were encoded so far."""
    name = "ispeed_monitor_pictures_total "
    lines = stage.get("/metrics").text.splitlines()
    return next(int(line.removeprefix(name)) for line in lines if line.startswith(name))


def test_a_picture_is_encoded_once_for_all_who_ask_the_same(make_stage: Make) -> None:
    stage = make_stage(fps=20.0)
    stage.await_frames()
    assert made(stage) == 0, "nobody looks"
    with ExitStack() as stack:
        clients = [stack.enter_context(stage.socket()) for _ in range(5)]
        for client in clients:
            look(client, camera=None)
        for client in clients[:4]:
            look(client, fps=0.5)
        look(clients[4], fps=0.5, overlay=True)
        first = [picture(client)[0] for client in clients]
        assert {header["sequence"] for header in first} == {2}
        assert [bool(header["mask"]) for header in first] == [False] * 4 + [True]
        before = made(stage)
        stage.source.do("publish", count=3)
        for client, header in zip(clients, first, strict=True):
            send(client, type="ack", sequence=header["sequence"])
        assert {picture(client)[0]["sequence"] for client in clients} == {5}
        assert made(stage) - before <= 4, "two kinds, on at most two turns"
    eventually(lambda: "ispeed_monitor_clients 0" in stage.get("/metrics").text)
    before = made(stage)
    stage.source.do("publish", count=3)
    time.sleep(0.2)
    assert made(stage) == before, "nobody looks any more"


def test_cameras_are_chosen_by_each_client(make_stage: Make) -> None:
    stage = make_stage(cameras=2)
    stage.await_frames(0)
    stage.await_frames(1)
    with stage.socket() as one, stage.socket() as two:
        assert receive(one, "hello")["cameras"] == [0, 1]
        look(one, camera=0)
        look(two, camera=1)
        assert picture(one)[0]["stream"].endswith("1")
        assert picture(two)[0]["stream"].endswith("2")
        send(two, type="ack", sequence=2)
        look(two, camera=0)
        assert picture(two)[0]["stream"].endswith("1")


def test_a_still_has_every_pixel(make_stage: Make) -> None:
    stage = make_stage(stream={"width": 1000, "height": 30})
    stage.await_frames()
    raw = stage.get("/still?camera=0&format=raw")
    (length,) = struct.unpack_from("<I", raw.content)
    pixels = np.frombuffer(raw.content[4 + length :], np.uint8).reshape(30, 1000, 3)
    assert (pixels == 2).all()
    png = stage.get("/still")
    assert png.headers["content-type"] == "image/png"
    assert "camera0-00000102.png" in png.headers["content-disposition"]
    with Image.open(BytesIO(png.content)) as image:
        assert image.size == (1000, 30)
        assert (np.asarray(image) == 2).all()
    for query, code in (("camera=7", 404), ("camera=x", 404), ("camera=-1", 404), ("format=gif", 400)):
        answer = stage.get(f"/still?{query}")
        assert answer.status_code == code
        assert answer.json()["error"]


def test_stills_that_nobody_takes_leave_the_memory_alone(make_stage: Make) -> None:
    stage = make_stage(stream={"width": 2000, "height": 1500})
    stage.await_frames()
    with ExitStack() as stack:
        for _ in range(4):
            deaf = stack.enter_context(socket.create_connection(("127.0.0.1", stage.port)))
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            deaf.sendall(b"GET /still?format=raw HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert deaf.recv(12) == b"HTTP/1.1 200"
        answer = stage.get("/still")
        assert answer.status_code == 503
        assert "4 stills are under way" in answer.json()["error"]
    stage.await_frames()


def test_there_is_no_still_before_the_first_frame(make_stage: Make) -> None:
    stage = make_stage(frames=0)
    answer = stage.get("/still")
    assert answer.status_code == 503
    assert answer.json()["error"] == "camera 0 has sent no frame yet"


def test_who_shows_nothing_or_reads_nothing_is_sent_away(make_stage: Make) -> None:
    stage = make_stage(patience_s=1.0, stream={"width": 960, "height": 720})
    stage.await_frames()
    with stage.socket() as mute:
        look(mute)
        picture(mute)
        assert closed(mute).reason == "it shows no picture"
    with socket.create_connection(("127.0.0.1", stage.port)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.sendall(UPGRADE)
        assert b"101" in deaf.recv(20)
        while "ispeed_monitor_clients 1" in stage.get("/metrics").text:  # until more waits than the sockets hold
            for _ in range(50):
                stage.source.do("announce", event="warning", camera=0, text="x" * 500)
    with stage.socket() as client:
        assert receive(client, "hello")


def test_it_ends_with_the_main_process_and_when_told(make_stage: Make) -> None:
    stage = make_stage()
    with stage.socket() as client:
        receive(client, "hello")
        stage.process.channel.close()
        closed(client)
    eventually(lambda: stage.process.ended)
    assert stage.process.how_it_ended() == "with exit code 0"
