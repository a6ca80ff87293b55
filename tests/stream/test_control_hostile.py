"""The control socket against askers that mean harm, or know no better: nothing they send holds up a frame."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from ispeed.stream import Control, ControlError, Subscriber
from ispeed.stream.control_server import _AT_ONCE, _MOST_WAITING, _PARTS_AT_ONCE, ControlServer
from ispeed.stream.curve import Guard
from ispeed.stream.keys_cli import make_keys

STATUS = b'{"id": 1, "cmd": "status"}'


@pytest.fixture
def server(runtime_dir: Path) -> Iterator[ControlServer]:
    with ControlServer([f"ipc://{runtime_dir}/control"]) as made:
        yield made


@pytest.fixture
def connect() -> Iterator[Callable[..., zmq.Socket]]:
    """Makes askers at an endpoint."""
    context, made = zmq.Context(), []

    def new(endpoint: str, name: bytes = b"") -> zmq.Socket:
        made.append(context.socket(zmq.DEALER))
        made[-1].set(zmq.LINGER, 0)
        if name:
            made[-1].set(zmq.ROUTING_ID, name)
        made[-1].connect(endpoint)
        return made[-1]

    yield new
    for asking in made:
        asking.close()
    context.term()


def turns(server: ControlServer, done) -> None:
    """Polls as the main process does, until `done`; what has come was all read in turns of bounded length."""
    poller = zmq.Poller()
    poller.register(server.fileno(), zmq.POLLIN)
    for _ in range(10_000):
        if done():
            return
        if not server.poll():
            poller.poll(20)
    raise AssertionError("it never came")


def test_a_flood_is_read_in_bounded_turns_and_every_message_is_accounted_for(server, connect):
    askers = [connect(server.endpoints[0]) for _ in range(5)]
    for one in askers:
        for _ in range(40):
            one.send(STATUS)
    before = 0
    while server.refused + len(server.waiting) < 200:
        server.poll()
        now = server.refused + len(server.waiting)
        assert now - before <= _AT_ONCE
        before = now
    assert len(server.waiting) == _MOST_WAITING
    answers = [json.loads(one.recv()) for one in askers for _ in range(40) if one.poll(100)]
    assert {answer["error"] for answer in answers} == {
        f"too many commands at once: {_MOST_WAITING} wait already; ask again later"
    }


def test_a_message_of_many_parts_is_read_in_bounded_turns_too(server, connect):
    hostile, honest = connect(server.endpoints[0]), connect(server.endpoints[0])
    hostile.send_multipart([b""] * 5000)
    polls = 0
    while not server.refused:
        server.poll()
        polls += 1
    assert polls > 5000 // _PARTS_AT_ONCE
    assert "a request has one part" in json.loads(hostile.recv())["error"]
    honest.send(STATUS)
    turns(server, lambda: server.waiting)


def test_what_comes_while_an_answer_leaves_is_not_left_lying(server, connect):
    first, second = connect(server.endpoints[0]), connect(server.endpoints[0])
    first.send(STATUS)
    turns(server, lambda: server.waiting)
    asked = server.waiting.popleft()
    second.send(STATUS)
    for _ in range(2000):  # sending takes the edge that would have woken the poll
        server.answer(asked)
        if server.waiting:
            return
        time.sleep(0.005)
    raise AssertionError("it would wait for the next wake-up")


def test_an_asker_that_reads_no_answer_holds_nobody_up(server, connect):
    deaf, honest = connect(server.endpoints[0]), connect(server.endpoints[0])
    deaf.set(zmq.RCVHWM, 1)
    for _ in range(3000):
        while not deaf.poll(0, zmq.POLLOUT):
            server.poll()
        deaf.send(b"{")
    turns(server, lambda: server.refused == 3000)
    honest.send(STATUS)
    turns(server, lambda: server.waiting)
    server.answer(server.waiting.popleft(), cameras=["x" * 1000])
    assert honest.poll(20_000)
    assert json.loads(honest.recv())["cameras"] == ["x" * 1000]


def test_an_asker_that_is_gone_gets_no_answer_and_nothing_else_happens(server, connect):
    gone = connect(server.endpoints[0])
    gone.send(STATUS)
    turns(server, lambda: server.waiting)
    gone.close(linger=0)
    for _ in range(200):
        server.answer(server.waiting[0], cameras=[])
    server.refuse(server.waiting[0], "no")


def test_nobody_takes_over_the_name_of_another(server, connect):
    first = connect(server.endpoints[0])
    first.send(STATUS)
    turns(server, lambda: server.waiting)
    thief = connect(server.endpoints[0], server.waiting[0].who)
    thief.send(STATUS)
    server.answer(server.waiting.popleft(), cameras=[])
    assert first.poll(20_000)
    assert not thief.poll(50)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 4096,
        b"\xff\xfe",
        b'{"id": 1, "cmd": "set", "feature": "A", "value": NaN}',
        b'{"id": 1, "cmd": "set", "feature": "A", "value": 1e999}',
        b'{"id": 1, "cmd": "set", "feature": "A", "value": ' + b"9" * 4000 + b"}",
        b'{"id": 1, "cmd": "set", "feature": "A", "value": {"a": 1}}',
        b'{"id": 1, "cmd": "set", "feature": "\\ud800", "value": 1}',
        b'{"id": 1, "cmd": "\\u001b[2J"}',
        b'{"id": 1.5, "cmd": "status"}',
        b'{"id": true, "cmd": "status", "id": []}',
        b'{"id": 1, "cmd": ["status"]}',
        b'{"a":' * 800,
        b"[" * 4096,
        b'{"id": 1, "cmd": "status", "' + b"k" * 3000 + b'": 1}',
    ],
)
def test_what_is_no_request_gets_one_sentence(server, connect, data: bytes):
    one = connect(server.endpoints[0])
    one.send(data)
    turns(server, lambda: server.refused)
    answer = json.loads(one.recv())
    assert (answer["id"], answer["ok"]) == (None, False)
    assert answer["error"].startswith("no command of isp-stream: ")
    assert answer["error"].isprintable()
    assert len(answer["error"]) <= 2100


def test_what_is_too_long_ends_the_connection_and_not_the_server(server, connect):
    hostile, honest = connect(server.endpoints[0]), connect(server.endpoints[0])
    hostile.send(b" " * 5000)
    hostile.send_multipart([b"{}", b" " * 5000])
    honest.send(STATUS)
    turns(server, lambda: server.waiting)
    assert server.refused == 0


def test_frames_go_on_under_a_flood(isp_stream, connect):
    run = isp_stream("--slots", "200")
    run.published(20)
    endpoint = run.messages[0]["endpoint"][0] + ".control"
    askers = [connect(endpoint) for _ in range(4)]
    with Subscriber(mode="every", timeout_ms=20_000) as frames, Control(timeout_ms=20_000) as control:
        first = frames.receive().sequence
        while frames.receive().sequence < first + 200:
            for one in askers:
                for data in (b"{", STATUS, b'{"id": 2, "cmd": "features", "names": ["Gain"]}'):
                    try:
                        one.send(data, zmq.NOBLOCK)  # and reads no answer
                    except zmq.Again:
                        pass
        busy, answer = "", {}
        while not answer:
            try:
                answer = control.call("set", feature="Gain", value=3)
            except ControlError as error:
                busy = str(error)
        assert answer["value"] == 3.0
        assert busy == "" or "ask again later" in busy
        assert frames.missed == frames.lapped == 0
    run.signal()
    assert sum(run.finish()["lost"].values()) == 0


# -- keys -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Keys of a publisher, and of clients of which ann reads and ben controls."""
    made = tmp_path / "keys"
    make_keys(made, ["ann"])
    make_keys(made, ["ben"], control=True)
    return made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def test_whoever_may_read_may_not_control(isp_stream, folder: Path):
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    arguments = ["--publish", "tcp://127.0.0.1:*", "--control", endpoint, "--keys", str(folder)]
    run = isp_stream(*arguments)
    stream = run.until("started")["endpoint"][0]
    for name in ("ann", "ben"):
        with Subscriber(stream, keys=folder / name, timeout_ms=20_000) as frames:
            frames.receive()
    command = "isp-stream keys FOLDER --client NAME --control"
    for keys, part in (
        (folder / "ann", f"refused our key: .* as {command} makes"),
        (None, f"wants keys: .* {command}"),
    ):
        with Control(endpoint, keys=keys, timeout_ms=20_000) as control:
            for _ in range(2):  # it knocks again
                with pytest.raises(ControlError, match=part):
                    control.call("stop")
    assert "client ann may read, but not control" in run.until("warning")["text"]
    with Control(endpoint, keys=folder / "ben", timeout_ms=20_000) as control:
        control.call("stop")
    run.finish()


def test_ipc_and_tcp_side_by_side(runtime_dir: Path, folder: Path, connect):
    guard = Guard(folder)
    try:
        with ControlServer(["tcp://127.0.0.1:*", f"ipc://{runtime_dir}/control"], guard=guard) as server:
            assert [endpoint[:3] for endpoint in server.endpoints] == ["tcp", "ipc"]
            connect(server.endpoints[1]).send(STATUS)
            turns(server, lambda: server.waiting)
    finally:
        guard.close()


def test_a_saver_has_the_keys_of_the_publisher(isp_stream, folder: Path, tmp_path: Path):
    pictures = tmp_path / "pictures"
    run = isp_stream("--publish", "tcp://127.0.0.1:*", "--keys", str(folder), "--save", str(pictures), "--frames", "8")
    run.finish()
    assert len(list(pictures.glob("*.png"))) == 8


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--keys", "{folder}", "--insecure"], "--keys and --insecure contradict each other"),
        (["--keys", "{folder}/nowhere"], "isp-stream keys makes keys"),
        (["--keys", "{folder}/ann"], "cannot read the key"),
        (["--publish", "tcp://0.0.0.0:5599"], "give --keys FOLDER (isp-stream keys makes one), or --insecure"),
        (["--control", "tcp://0.0.0.0:5599"], "give --keys FOLDER (isp-stream keys makes one), or --insecure"),
    ],
)
def test_wrong_keys_are_one_sentence(isp_stream_fails, folder: Path, arguments: list[str], part: str):
    assert part in isp_stream_fails(*(argument.format(folder=folder) for argument in arguments))
