"""Publishing: endpoints are held and checked, and no subscriber can hold up, starve or crash the publisher."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import psutil
import pytest
import zmq

from ispeed.engines.errors import UserError
from ispeed.stream import FrameHeader, Publisher, Ring, Subscriber, default_endpoint, endpoint, publish
from ispeed.stream.frame import topic


@contextlib.contextmanager
def raw_socket(kind: int, address: str) -> Iterator[zmq.Socket]:
    """A socket of somebody else's program."""
    with zmq.Context() as context, context.socket(kind) as made:
        made.set(zmq.LINGER, 0)
        made.set(zmq.RCVTIMEO, 10000)
        made.connect(address)
        yield made


@contextlib.contextmanager
def consumer(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A subscriber in a process of its own that prints the sequence of each frame."""
    code = """
import sys
from ispeed.stream import Subscriber
with Subscriber(mode=sys.argv[1], pixels=sys.argv[2]) as frames:
    for frame in frames:
        print(frame.sequence, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# -- endpoints --------------------------------------------------------------------------------------------------


def test_the_default_endpoint_is_the_users_alone(runtime_dir: Path, source: ModuleType) -> None:
    folder = runtime_dir / "ispeed"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with source.Source(camera=3) as stream:
        assert stream.publisher.endpoints == [default_endpoint(3)] == [f"ipc://{folder}/3"]
        assert mode_of(folder) == 0o700
        assert mode_of(folder / "3") == 0o600
        assert mode_of(folder / "3.lock") == 0o600
        assert (folder / "3.lock").read_text().strip() == str(os.getpid())
    assert list(folder.iterdir()) == []
    stream.publisher.close()


def test_without_a_runtime_folder_it_lies_in_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "relative/path"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert default_endpoint(0) == f"ipc:///tmp/ispeed-{os.geteuid()}/0"


def test_a_runtime_folder_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
    with pytest.raises(UserError, match=r"XDG_RUNTIME_DIR is /nonexistent.*--publish"):
        Publisher([], 0)


def test_a_folder_that_is_somebody_elses_is_not_used(
    runtime_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runtime_dir / "ispeed").symlink_to(tmp_path)
    with pytest.raises(UserError, match="somebody else"):
        Publisher([], 0)
    (runtime_dir / "ispeed").unlink()
    (runtime_dir / "ispeed").mkdir()
    monkeypatch.setattr(endpoint.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UserError, match="somebody else"):
        Publisher([], 0)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("udp://127.0.0.1:5555", "no known transport"),
        ("inproc://here", "no known transport"),
        ("/tmp/socket", "no known transport"),
        ("ipc://relative/path", "absolute path"),
        ("ipc://@abstract", "absolute path"),
        ("ipc://*", "absolute path"),
        ("ipc:///tmp/", "absolute path"),
        ("ipc:///tmp/a\0b", "absolute path"),
        ("ipc:///tmp/" + "x" * 103, r"108 bytes.*at most 107"),
        ("ipc:///nonexistent/folder/cam", "make /nonexistent/folder first"),
        ("tcp://127.0.0.1", "host and a port"),
        ("tcp://:5555", "host and a port"),
        ("tcp://127.0.0.1:65536", "host and a port"),
        ("tcp://127.0.0.1:x", "host and a port"),
        ("tcp://127.0.0.1:" + "9" * 5001, "host and a port"),
        ("tcp://0.0.0.0:5555", "reached from other hosts: use 127.0.0.1, give --keys FOLDER"),
        ("tcp://*:5555", "reached from other hosts"),
        ("tcp://192.168.1.1:5555", "reached from other hosts"),
        ("tcp://eth0:5555", "reached from other hosts"),
        ("tcp://[::]:5555", "reached from other hosts"),
    ],
)
def test_endpoints_that_cannot_be_are_refused_in_a_sentence(address: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Publisher([address], 0)


def test_the_longest_path_is_taken(runtime_dir: Path, source: ModuleType) -> None:
    path = str(runtime_dir / "x").ljust(endpoint.IPC_PATH_MAX, "x")
    with source.Source([f"ipc://{path}"]):
        assert Path(path).is_socket()


def test_a_port_that_is_taken_meanwhile_is_named(source: ModuleType) -> None:
    with Publisher(["tcp://127.0.0.1:*"], 0) as publisher:
        port = publisher.endpoints[0].rpartition(":")[2]
        ring = Ring.create("srgb", 2, 100, 1)
        with (
            socket.create_server(("127.0.0.1", int(port))),
            pytest.raises(UserError, match="in use by another program"),
        ):
            publisher.attach(ring, {"stride": 3, "height": 1})
        ring.close()


def test_insecure_allows_a_public_address_of_this_machine_only() -> None:
    with Publisher(["tcp://0.0.0.0:*"], 0, insecure=True) as publisher:
        assert publisher.endpoints[0].startswith("tcp://0.0.0.0:")
        assert not publisher.endpoints[0].endswith("*")
    with pytest.raises(UserError, match="no address of this machine"):
        Publisher(["tcp://192.0.2.1:5555"], 0, insecure=True)  # an address reserved for documentation


def test_any_other_reason_is_told() -> None:
    assert endpoint.why_not_bound("tcp://127.0.0.1:80", errno.EACCES) == (
        "cannot publish on tcp://127.0.0.1:80: permission denied; choose another one with --publish"
    )


def test_a_tcp_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(UserError, match=f"{address} is in use by another program"):
            Publisher([address], 0)


def test_an_endpoint_is_held_against_another_process(runtime_dir: Path, source: ModuleType) -> None:
    with source.RemoteSource() as other:
        words = rf"taken by another isp-stream \(process {other.process.pid}\): stop it, or .*--publish"
        with pytest.raises(UserError, match=words):
            Publisher([], 0)
        with Subscriber(mode="every", timeout_ms=10000) as frames:  # and its holder has not noticed
            other.do("await", descriptors=1)
            other.do("publish", count=1)
            assert frames.receive().sequence == 0


def test_a_killed_publisher_leaves_its_endpoint_free(runtime_dir: Path, source: ModuleType) -> None:
    with source.RemoteSource() as other:
        other.kill()
    assert (runtime_dir / "ispeed" / "0").is_socket()
    with Publisher([], 0) as publisher:
        assert publisher.endpoints == [default_endpoint(0)]


def test_another_programs_socket_is_not_stolen(runtime_dir: Path) -> None:
    path = runtime_dir / "cam"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(UserError, match="in use by another program"):
            Publisher([f"ipc://{path}"], 0)
        assert path.is_socket()


def test_a_file_is_not_taken_for_a_socket(runtime_dir: Path) -> None:
    path = runtime_dir / "precious.txt"
    path.write_text("data")
    with pytest.raises(UserError, match="no socket"):
        Publisher([f"ipc://{path}"], 0)
    assert path.read_text() == "data"
    assert not Path(f"{path}.lock").exists()


def test_one_bad_endpoint_frees_the_others(runtime_dir: Path) -> None:
    with pytest.raises(UserError, match="no known transport"):
        Publisher([f"ipc://{runtime_dir}/good", "bad"], 0)
    assert list(runtime_dir.iterdir()) == []


def test_one_socket_serves_several_endpoints(runtime_dir: Path, source: ModuleType) -> None:
    with socket.socket(socket.AF_INET6) if socket.has_ipv6 else contextlib.nullcontext() as probe:
        six = probe is not None and probe.connect_ex(("::1", 9)) == errno.ECONNREFUSED  # and not: no such address
    endpoints = [f"ipc://{runtime_dir}/cam", "tcp://127.0.0.1:*", *(["tcp://[::1]:*"] if six else [])]
    with source.Source(endpoints) as stream:
        subscribers = [Subscriber(e, mode="every", timeout_ms=10000) for e in stream.publisher.endpoints]
        stream.await_subscribers(descriptors=len(endpoints))
        stream.publish(2)
        for one in subscribers:
            assert [one.receive().sequence for _ in range(2)] == [0, 1]
            one.close()


# -- subscriptions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "counted"),
    [
        (topic("d", 0), (1, 0)),
        (topic("p", 0), (0, 1)),
        (topic("i", 0), (0, 0)),
        (b"", (1, 1)),
        (b"p", (0, 1)),
        (b"d/", (1, 0)),
        (topic("d", 0) + b"ISPF", (1, 0)),
        (topic("d", 1), (0, 0)),
        (b"x", (0, 0)),
    ],
)
def test_subscriptions_are_counted_by_what_they_match(
    runtime_dir: Path, source: ModuleType, prefix: bytes, counted: tuple[int, int]
) -> None:
    with source.Source() as stream:
        with raw_socket(zmq.SUB, default_endpoint(0)) as other, raw_socket(zmq.SUB, default_endpoint(0)) as probe:
            other.subscribe(prefix)
            stream.await_subscribers(*counted)
            probe.subscribe(topic("d", 0))
            stream.await_subscribers(counted[0] + 1, counted[1])
        stream.await_subscribers(0, 0)


def test_a_killed_subscriber_is_counted_out(runtime_dir: Path, source: ModuleType) -> None:
    with source.Source() as stream, consumer("newest", "auto") as first, consumer("newest", "message"):
        stream.await_subscribers(1, 1)
        first.kill()
        stream.await_subscribers(0, 1)


def test_every_new_subscriber_is_told_where_the_ring_is(runtime_dir: Path, source: ModuleType) -> None:
    with source.Source() as stream:
        for prefix in (topic("i", 0), b""):
            with raw_socket(zmq.SUB, default_endpoint(0)) as other:
                other.subscribe(prefix)
                while not other.poll(10):
                    stream.publisher.poll_subscriptions()
                message = other.recv()
                assert len(message) <= 8 + 4096
                assert message[:8] == topic("i", 0)
                info = json.loads(message[8:])
        layout = stream.ring.layout
        assert info["pid"] == os.getpid()
        assert os.path.samestat(os.stat(f"/proc/{info['pid']}/fd/{info['ring_fd']}"), os.fstat(stream.ring.fd))
        for name in ("slots", "slot_stride", "payload", "data_offset", "headers_offset", "generations_offset", "total"):
            assert info[name] == getattr(layout, name)
        assert (info["stream_id"], info["serial"], info["version"]) == (f"{0x1234:016x}", "TEST", 1)


def test_an_info_that_is_too_long_is_the_callers_fault(runtime_dir: Path, source: ModuleType) -> None:
    with source.Source() as stream, pytest.raises(ValueError, match="at most 4096"):
        stream.publisher.attach(stream.ring, {"engine": "x" * 4096, "stride": 3, "height": 1})


def test_hostile_subscriptions_do_no_harm(runtime_dir: Path, source: ModuleType) -> None:
    with source.Source() as stream, raw_socket(zmq.XSUB, default_endpoint(0)) as hostile:
        for message in (
            b"",
            b"\2odd",
            b"\1" + b"x" * 900,
            b"\0never subscribed",
            b"\0" + topic("d", 0),
            os.urandom(99),
        ):
            hostile.send(message)
        hostile.send_multipart([b"\1d", b"\0p", b"\1p"])
        for number in range(500):
            hostile.send(b"\1d/0\0\0\0\0\0" + number.to_bytes(2, "little"))
        with Subscriber(mode="every", timeout_ms=10000) as frames:
            deadline = time.monotonic() + 10
            while stream.publisher.subscribers()["descriptors"] < 500 and time.monotonic() < deadline:
                stream.publisher.poll_subscriptions()
            assert all(count >= 0 for count in stream.publisher.subscribers().values())
            while not frames.received:
                stream.publish(1)
                with contextlib.suppress(TimeoutError):
                    assert frames.receive(5)
        hostile.send(b"\1" + b"x" * 100_000)  # too long: it is shown the door
    with source.Source() as stream, Subscriber(timeout_ms=10000) as frames:
        stream.await_subscribers(1)
        stream.publish(1)
        assert frames.receive().sequence == 0


# -- frames -----------------------------------------------------------------------------------------------------


def test_frames_are_stamped_in_the_ring_and_on_the_wire(runtime_dir: Path, source: ModuleType) -> None:
    with source.Source() as stream, raw_socket(zmq.SUB, default_endpoint(0)) as other:
        other.subscribe(topic("d", 0))
        stream.await_subscribers(1)
        before = time.monotonic_ns()
        stream.publish(3)
        after = time.monotonic_ns()
        stamps = []
        for slot in range(3):
            message = other.recv()
            header = FrameHeader.unpack(message, 8)
            assert message == topic("d", 0) + bytes(stream.ring.memory[stream.ring.header_offset(slot) :][:256])
            assert (header.sequence, header.slot, header.generation) == (slot, slot, 2 * slot + 2)
            stamps.append(header.published_ns)
        assert [before, *stamps, after] == sorted([before, *stamps, after])


def test_pixels_travel_only_while_somebody_wants_them(runtime_dir: Path, source: ModuleType) -> None:
    with source.Source() as stream, raw_socket(zmq.SUB, default_endpoint(0)) as other:
        other.subscribe(topic("p", 0))
        stream.await_subscribers(0, 1)
        stream.publish(1)
        head, pixels = other.recv_multipart()
        assert head[:8] == topic("p", 0)
        assert FrameHeader.unpack(head, 8).nbytes == len(pixels) == 64 * 48 * 3
        assert source.whole(np.frombuffer(pixels, np.uint8), 0)
        other.unsubscribe(topic("p", 0))
        stream.await_subscribers(0, 0)
        stream.publish(1)
        assert not other.poll(50)


def test_an_overwritten_frame_is_left_out(runtime_dir: Path, source: ModuleType) -> None:
    with source.Source(slots=2) as stream, Subscriber(mode="every", timeout_ms=10000) as frames:
        stream.await_subscribers(1)
        for sequence in range(3):
            stream.write(sequence)
        stream.ring.begin_write(1, 3)  # and one of them is being overwritten
        stream.publisher.publish(0, 3)
        assert stream.publisher.lapped == 2
        assert frames.receive().sequence == 2


def test_publishing_needs_a_ring(runtime_dir: Path) -> None:
    with Publisher([], 0) as publisher, pytest.raises(RuntimeError, match="attach"):
        publisher.publish(0, 1)
    with pytest.raises(ValueError, match="topic"):
        Publisher([], 1_000_000)


def test_slow_stopped_and_killed_subscribers_disturb_nobody(runtime_dir: Path, source: ModuleType) -> None:
    """A reader of every frame misses none while others are slow, stopped or killed beside it."""
    with (
        source.RemoteSource(slots=64) as stream,
        consumer("every", "auto") as stopped,
        consumer("every", "message") as stopped_remote,
        consumer("every", "auto") as killed,
        Subscriber(mode="every", timeout_ms=20000) as slow,
        Subscriber(mode="every", timeout_ms=20000) as frames,
    ):
        stream.do("await", descriptors=4, pixels=1)
        for process in (stopped, stopped_remote):
            process.send_signal(signal.SIGSTOP)
        for first in range(0, 3000, 20):
            stream.tell("publish", count=20)
            got = [frames.receive() for _ in range(20)]
            assert [frame.sequence for frame in got] == list(range(first, first + 20))
            assert source.whole(got[-1].copy(), first + 19)
            stream.answer()
            if first == 1000:
                killed.kill()
        assert (frames.received, frames.missed, frames.lapped) == (3000, 0, 0)
        assert slow.receive().sequence > 1000  # it finds what still lies in the ring
        assert slow.lapped + slow.missed > 1000
        stopped.send_signal(signal.SIGCONT)


def test_a_stopped_subscriber_to_pixels_holds_bounded_memory(runtime_dir: Path, source: ModuleType) -> None:
    with (
        source.RemoteSource(width=640, height=480) as stream,
        consumer("every", "message") as stopped,
        Subscriber(timeout_ms=10000, pixels="message") as other,
    ):
        stream.do("await", pixels=2)
        stopped.send_signal(signal.SIGSTOP)
        before = psutil.Process(stream.process.pid).memory_info().rss
        stream.do("publish", count=400)  # 350 MiB
        grown = psutil.Process(stream.process.pid).memory_info().rss - before
        assert grown < 200 << 20
        assert other.receive().sequence > 0  # meanwhile it served whoever still listened


def test_a_burst_after_a_stall_reaches_everybody(
    runtime_dir: Path, source: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More frames at once than a queue holds, as when the publisher was held up."""
    monkeypatch.setattr(publish, "_QUEUE_MOST", 64)
    monkeypatch.setattr(publish, "_BREATH_S", 0.5)  # enough for a machine with much else to do
    with source.Source(slots=256) as stream, Subscriber(mode="every", timeout_ms=10000) as frames:
        stream.await_subscribers(1)
        stream.burst(250)
        assert [frames.receive().sequence for _ in range(250)] == list(range(250))


def test_subscribers_that_come_and_go_do_no_harm(runtime_dir: Path, source: ModuleType) -> None:
    with source.RemoteSource() as stream:
        stream.run(fps=2000)
        for kind in (b"d/", b"p/", b"i/", b"") * 40:
            with raw_socket(zmq.SUB, default_endpoint(0)) as other:
                other.subscribe(kind)
                assert other.poll(10000)
        assert stream.halt()["published"] > 0


def test_a_smaller_ring_can_take_the_place_of_the_first(runtime_dir: Path, source: ModuleType) -> None:
    with source.Source() as stream, Subscriber(mode="every", timeout_ms=10000) as frames:
        stream.await_subscribers(1)
        stream.publish(2)
        assert [frames.receive().array.shape for _ in range(2)] == [(48, 64, 3)] * 2
        old, stream.ring = stream.ring, Ring.create("srgb", 4, 8 * 6 * 3, 0x9999)
        stream.width, stream.height, stream.stream_id, stream.published = 8, 6, 0x9999, 0
        stream.publisher.attach(
            stream.ring, {"stream_id": f"{0x9999:016x}", "width": 8, "height": 6, "stride": 24, "engine": "e"}
        )
        old.close()
        stream.publish(2)
        assert [frames.receive().array.shape for _ in range(2)] == [(6, 8, 3)] * 2
        assert (frames.restarts, frames.missed) == (1, 0)
