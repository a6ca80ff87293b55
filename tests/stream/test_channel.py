"""The control connection of a stage."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from ispeed.engines.errors import UserError
from ispeed.stream.channel import Channel, ChannelClosed, check, close_fds
from ispeed.stream.stage import StageProcess


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    stage = Channel.from_fd(theirs.detach())
    yield ours, stage
    ours.close()
    stage.close()


def test_messages_keep_their_bounds_and_bring_descriptors(pair: tuple[Channel, Channel]) -> None:
    main, stage = pair
    reading, writing = os.pipe()
    main.send({"cmd": "attach", "text": "ü" * 1000}, (writing,))
    main.send({"cmd": "start"})
    first, second = stage.receive(), stage.receive()
    assert first is not None
    message, fds = first
    assert message == {"cmd": "attach", "text": "ü" * 1000}
    assert second == ({"cmd": "start"}, [])
    os.write(fds[0], b"same pipe")
    assert os.read(reading, 20) == b"same pipe"
    close_fds(fds)
    close_fds([reading, writing])


def test_descriptors_above_1023_can_be_waited_for() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 2048:
        pytest.skip("this machine allows no descriptor above 1023")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, limits[1]))
    held = [os.eventfd(0) for _ in range(1100)]
    try:
        ours, theirs = Channel.pair()
        assert ours.fileno() > 1023
        assert ours.receive(0) is None
        ours.close()
        theirs.close()
    finally:
        close_fds(held)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_stage_that_reads_nothing_holds_nobody_up() -> None:
    stage = StageProcess("record")
    try:
        os.kill(stage.pid, signal.SIGSTOP)
        calls = [stage.post("trigger", reason="key") for _ in range(2000)]
        assert calls == list(range(1, 2001))
        assert not stage.dead
    finally:
        assert stage.end()


def test_nothing_comes_in_time(pair: tuple[Channel, Channel]) -> None:
    assert pair[0].receive(0) is None
    assert pair[0].receive(0.01) is None


def test_a_call_gets_its_answer_and_keeps_the_events(pair: tuple[Channel, Channel]) -> None:
    main, stage = pair

    def serve() -> None:
        got = stage.receive(10)
        assert got is not None
        stage.send({"event": "warning", "text": "slow"})
        stage.answer(got[0], value=got[0]["value"] + 1)

    served = threading.Thread(target=serve)
    served.start()
    assert main.call("set", 10, value=41)["value"] == 42
    served.join()
    assert main.backlog == [{"event": "warning", "text": "slow"}]


def test_a_call_without_an_answer_ends(pair: tuple[Channel, Channel]) -> None:
    with pytest.raises(TimeoutError, match="'stop'"):
        pair[0].call("stop", 0.01)


def test_a_late_answer_is_not_taken_for_another_calls(pair: tuple[Channel, Channel]) -> None:
    main, stage = pair
    with pytest.raises(TimeoutError):
        main.call("first", 0.01)
    got = stage.receive(1)
    assert got is not None
    stage.answer(got[0], value="late")
    stage.send({"call": 2, "value": "right"})
    assert main.call("second", 1)["value"] == "right"


def test_the_stages_own_sentence_is_raised(pair: tuple[Channel, Channel]) -> None:
    pair[1].send({"call": 1, "user_error": "the camera is busy: close the other program"})
    with pytest.raises(UserError, match="the camera is busy"):
        pair[0].call("open", 1)
    assert check({"call": 1}) == {"call": 1}


def test_the_end_of_a_process_reads_as_the_end() -> None:
    main, theirs = Channel.pair()
    code = "import sys, socket; socket.socket(fileno=int(sys.argv[1])).send(b'{}')"
    subprocess.run([sys.executable, "-c", code, str(theirs.fileno())], pass_fds=[theirs.fileno()], check=True)
    theirs.close()
    assert main.receive(5) == ({}, [])
    with pytest.raises(ChannelClosed):
        main.receive(5)
    with pytest.raises(ChannelClosed):
        main.send({"cmd": "start"})
    main.close()


def test_unread_messages_do_not_hide_the_end() -> None:
    main, theirs = Channel.pair()
    main.send({"cmd": "start"})
    theirs.close()  # with a message unread, the kernel reports a reset, not an end of file
    with pytest.raises(ChannelClosed):
        main.receive(5)
    main.close()


def test_the_channel_can_be_polled(pair: tuple[Channel, Channel]) -> None:
    duplicate = socket.socket(fileno=os.dup(pair[0].fileno()))
    assert duplicate.type == socket.SOCK_SEQPACKET
    duplicate.close()
