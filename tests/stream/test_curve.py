"""CURVE between real processes: who comes in, who does not and is told why, and what can be seen on the wire."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import zmq

from ispeed.stream import StreamError, StreamTimeout, Subscriber
from ispeed.stream.curve import Guard
from ispeed.stream.keys_cli import make_keys

TCP = "tcp://127.0.0.1:*"
ELSEWHERE = {"info": {"boot_id": "of another machine"}}  # so that pixels come in messages


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A publisher's keys, with a client ann that nobody takes away."""
    made = tmp_path_factory.mktemp("curve") / "keys"
    make_keys(made, ["ann"])
    return made


@pytest.fixture(scope="module")
def stream(source: ModuleType, folder: Path) -> Iterator[Any]:
    """A publisher in a process of its own, with those keys."""
    with source.RemoteSource([TCP], keys=str(folder), **ELSEWHERE) as remote:
        yield remote


def receive(stream: Any, subscriber: Subscriber) -> Any:
    """A frame, while the publisher goes on."""
    stream.run(100)
    try:
        return subscriber.receive(20_000)
    finally:
        stream.halt()


def refusal(stream: Any, keys: Path | None, endpoint: int = 0) -> str:
    """Why a subscriber with those keys got nothing."""
    with Subscriber(stream.endpoints[endpoint], keys=keys) as subscriber, pytest.raises(StreamError) as error:
        receive(stream, subscriber)
    return str(error.value)


def test_a_client_that_is_listed_gets_frames(stream: Any, folder: Path, source: ModuleType):
    with Subscriber(stream.endpoints[0], keys=folder / "ann") as subscriber:
        frame = receive(stream, subscriber)
        assert subscriber.transport == "message"
        assert source.whole(frame.copy(), frame.sequence)


def test_whoever_has_the_publishers_own_keys_comes_in(stream: Any, folder: Path):
    with Subscriber(stream.endpoints[0], keys=folder) as subscriber:
        receive(stream, subscriber)


def test_an_unknown_client_is_told(stream: Any, folder: Path, tmp_path: Path):
    make_keys(tmp_path / "others", ["eve"])
    shutil.copy(folder / "server.key", tmp_path / "others/eve/server.key")
    assert "refused our key" in refusal(stream, tmp_path / "others/eve")
    stream.do("publish")  # it told at once, or five seconds after what it told before
    while not (told := stream.do("publish")["warnings"]):
        pass
    assert "its key is not in" in told[-1]


def test_a_client_with_another_servers_key_is_told(stream: Any, tmp_path: Path):
    make_keys(tmp_path / "others", ["eve"])
    assert "ends every handshake: it has another key than" in refusal(stream, tmp_path / "others/eve")


def test_a_client_without_keys_is_told(stream: Any):
    assert "wants keys" in refusal(stream, None)


def test_a_client_with_keys_is_told_by_a_publisher_without(source: ModuleType, folder: Path):
    with source.RemoteSource([TCP]) as stream:
        told = refusal(stream, folder / "ann")
        assert "has no keys" in told or "or none" in told  # whichever side hangs up first


def test_ipc_is_kept_by_its_permission_alone(source: ModuleType, folder: Path, runtime_dir: Path):
    with source.RemoteSource([f"ipc://{runtime_dir}/cam", TCP], keys=str(folder), **ELSEWHERE) as stream:
        for keys in (None, folder / "ann"):
            with Subscriber(stream.endpoints[0], keys=keys) as subscriber:
                receive(stream, subscriber)
        assert "wants keys" in refusal(stream, None, endpoint=1)


def test_a_client_is_let_in_as_soon_as_its_key_is_there_and_goes_on(stream: Any, folder: Path, tmp_path: Path):
    make_keys(folder, ["late"])
    listed, aside = folder / "clients/late.key", tmp_path / "late.key"
    listed.rename(aside)
    with Subscriber(stream.endpoints[0], keys=folder / "late") as subscriber:
        with pytest.raises(StreamError, match="refused our key"):
            receive(stream, subscriber)
        aside.rename(listed)
        stream.run(100)
        for _ in range(100):
            try:
                subscriber.receive(20_000)
                break
            except StreamError:  # a refusal that was under way
                continue
        stream.halt()
    assert subscriber.received == 1


def test_a_client_whose_key_is_taken_away_does_not_come_back(stream: Any, folder: Path):
    make_keys(folder, ["gone"])
    with Subscriber(stream.endpoints[0], keys=folder / "gone") as subscriber:
        receive(stream, subscriber)
    (folder / "clients/gone.key").unlink()
    assert "refused our key" in refusal(stream, folder / "gone")


def test_refusals_again_and_again_leave_no_descriptor_open(stream: Any, folder: Path):
    make_keys(folder, ["never"])
    (folder / "clients/never.key").unlink()
    with Subscriber(stream.endpoints[0], keys=folder / "never") as subscriber:
        stream.run(100)
        counts = []
        for _ in range(12):
            with pytest.raises(StreamError):
                subscriber.receive(20_000)
            counts.append(len(os.listdir("/proc/self/fd")))
        stream.halt()
    assert max(counts) - min(counts) <= 4  # connections come and go meanwhile


def test_async_subscribers_are_told_too(stream: Any):
    import asyncio

    async def ask() -> None:
        with Subscriber(stream.endpoints[0]) as subscriber:
            await subscriber.receive_async(20_000)

    stream.run(100)
    with pytest.raises(StreamError, match="wants keys"):
        asyncio.run(ask())
    stream.halt()


def test_nobody_comes_in_while_nobody_answers(source: ModuleType, folder: Path):
    with source.Source([TCP], keys=str(folder)) as stream:
        stream.guard.poll = lambda: None  # a main process that is busy with something else
        with Subscriber(stream.publisher.endpoints[0], keys=folder / "ann", timeout_ms=300) as subscriber:
            with pytest.raises(StreamTimeout):
                subscriber.receive()
            stream.attend()
            assert stream.publisher.subscribers() == {"descriptors": 0, "pixels": 0}
            del stream.guard.poll
            stream.await_subscribers(descriptors=1)


# -- the guard --------------------------------------------------------------------------------------------------


def ask(guard: Guard, *credentials: bytes, domain: bytes = b"stream", mechanism: bytes = b"CURVE") -> bytes:
    """The status that libzmq would get for a client."""
    with guard.context.socket(zmq.REQ) as asking:
        asking.linger = 0
        asking.connect("inproc://zeromq.zap.01")
        asking.send_multipart([b"1.0", b"7", domain, b"192.0.2.1", b"", mechanism, *credentials])
        guard.poll()
        version, number, status, *_ = asking.recv_multipart()
        assert (version, number) == (b"1.0", b"7")
        return status


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """Keys of a publisher, and of clients of which ann reads and ben controls."""
    made = tmp_path / "keys"
    make_keys(made, ["ann"])
    make_keys(made, ["ben"], control=True)
    return made


@pytest.fixture
def guard(own_folder: Path) -> Iterator[Guard]:
    made = Guard(own_folder)
    yield made
    made.close()


def raw(path: Path) -> bytes:
    from zmq.utils import z85

    return z85.decode(path.read_text().split('"')[1])


def test_reading_is_one_right_and_control_another(guard: Guard, own_folder: Path):
    ann, ben = raw(own_folder / "clients/ann.key"), raw(own_folder / "clients/ben.key")
    told = []
    guard.on_warning = told.append
    assert [ask(guard, key) for key in (ann, ben)] == [b"200", b"200"]
    assert [ask(guard, key, domain=b"control") for key in (ann, ben)] == [b"400", b"200"]
    assert told == ["refused a connection from 192.0.2.1: client ann may read, but not control"]


@pytest.mark.parametrize(
    ("credentials", "asked"),
    [
        ((), {}),
        ((bytes(32),), {}),
        ((b"",), {}),
        ((b"name", b"password"), {"mechanism": b"PLAIN"}),
        ((), {"mechanism": b"NULL"}),
        ("ann", {"mechanism": b"NULL"}),
        ("ann", {"domain": b""}),
        ("ann", {"domain": b"other"}),
    ],
)
def test_all_else_is_refused(guard: Guard, own_folder: Path, credentials: Any, asked: dict[str, bytes]):
    given = (raw(own_folder / "clients/ann.key"),) if credentials == "ann" else credentials
    assert ask(guard, *given, **asked) == b"400"
    assert guard.refused == 1


def test_requests_that_are_none_are_refused(guard: Guard):
    with guard.context.socket(zmq.REQ) as asking:
        asking.linger = 0
        asking.connect("inproc://zeromq.zap.01")
        asking.send(b"1.0")
        guard.poll()
        assert asking.recv_multipart()[2] == b"400"


def test_the_list_is_read_anew_where_it_has_changed_and_bad_files_are_told_once(guard: Guard, own_folder: Path):
    told: list[str] = []
    guard.on_warning = told.append
    clients = own_folder / "clients"
    key = raw(clients / "ann.key")
    (clients / "bad.key").write_text("no key")
    (clients / "note.txt").write_text("no key either")
    assert [ask(guard, key), ask(guard, key)] == [b"200", b"200"]
    assert [line.split(" is ")[0] for line in told] == [str(clients / "bad.key")]
    assert guard.clients == ["ann", "ben", "server"]
    (clients / "bad.key").write_bytes((clients / "ben.key").read_bytes())
    (clients / "ann.key").unlink()
    assert ask(guard, key) == b"400"


def link_to_store(own_folder: Path, name: str) -> Path:
    """Puts a client's key where all keys of a site are, with a link to it in the list. Returns where."""
    listed, store = own_folder / f"clients/{name}.key", own_folder.parent / "store"
    store.mkdir(0o700, exist_ok=True)
    kept = listed.rename(store / listed.name)
    listed.symlink_to(kept)
    return kept


def test_what_is_taken_away_behind_a_link_is_noticed(guard: Guard, own_folder: Path):
    ann, ben = (link_to_store(own_folder, name) for name in ("ann", "ben"))
    keys = [raw(ann), raw(own_folder / "clients/ben.key")]
    assert ask(guard, keys[1], domain=b"control") == b"200"
    ben.write_text(ben.read_text().replace("may = control", ""))
    assert ask(guard, keys[1], domain=b"control") == b"400"
    assert [ask(guard, key) for key in keys] == [b"200", b"200"]
    ann.unlink()
    assert [ask(guard, key) for key in keys] == [b"400", b"200"]


def test_a_link_to_nothing_keeps_no_publisher_from_starting(own_folder: Path):
    kept = link_to_store(own_folder, "ann")
    kept.unlink()
    guard = Guard(own_folder)
    assert guard.clients == ["ben", "server"]
    guard.close()


@pytest.mark.parametrize("twin", ["ann", "zoe"])
def test_a_key_that_is_listed_twice_has_the_smaller_right_and_is_told(guard: Guard, own_folder: Path, twin: str):
    told: list[str] = []
    guard.on_warning = told.append
    ben = own_folder / "clients/ben.key"
    key = raw(ben)
    assert ask(guard, key, domain=b"control") == b"200"
    (own_folder / f"clients/{twin}.key").write_text(ben.read_text().replace("may = control", ""))
    assert [ask(guard, key, domain=domain) for domain in (b"control", b"stream")] == [b"400", b"200"]
    first, second = sorted(["ben", twin])
    assert any(line.endswith(f"lists one key for {first} and {second}: take one of the files away") for line in told)


@pytest.mark.parametrize("spoil", [lambda c: c.chmod(0o777), shutil.rmtree])
def test_a_list_that_cannot_be_trusted_lets_nobody_in(guard: Guard, own_folder: Path, spoil: Callable[[Path], None]):
    told: list[str] = []
    guard.on_warning = told.append
    key = raw(own_folder / "clients/ann.key")
    spoil(own_folder / "clients")
    assert ask(guard, key) == b"400"
    assert str(own_folder / "clients") in told[0]
    assert ask(guard, raw(own_folder / "server.key")) == b"200"


def test_a_flood_of_handshakes_takes_a_bounded_time_of_a_turn(guard: Guard):
    waiting = [guard.context.socket(zmq.REQ) for _ in range(100)]
    for asking in waiting:
        asking.linger = 0
        asking.connect("inproc://zeromq.zap.01")
        asking.send_multipart([b"1.0", b"1", b"stream", b"192.0.2.1", b"", b"CURVE", bytes(32)])
    guard.poll()
    assert guard.refused == 32
    while guard.refused < 100:
        guard.poll()
    for asking in waiting:
        asking.close()


# -- the wire ---------------------------------------------------------------------------------------------------


class Wiretap:
    """A TCP proxy that keeps what passes."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        self._server, self._target = socket.create_server(("127.0.0.1", 0)), (host, int(port))
        self.endpoint = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self.seen = bytearray()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, job: Callable[..., None], *arguments: Any) -> None:
        self._threads.append(threading.Thread(target=job, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):  # shut down
            while True:
                near, far = self._server.accept()[0], socket.create_connection(self._target)
                closing = threading.Barrier(2, action=lambda near=near, far=far: (near.close(), far.close()))
                self._start(self._pump, near, far, closing)
                self._start(self._pump, far, near, closing)

    def _pump(self, near: socket.socket, far: socket.socket, closing: threading.Barrier) -> None:
        with suppress(OSError):  # the other end is gone
            while data := near.recv(1 << 16):
                self.seen += data
                far.sendall(data)
        with suppress(OSError):  # one end may have reset the connection: then the other must be told as well
            far.shutdown(socket.SHUT_WR)
        closing.wait()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:  # the first makes no more of them once it has ended
            thread.join()
        self._server.close()


def tapped(stream: Any, keys: Path | None) -> bytes:
    """All that passed on the wire while a subscriber got five frames."""
    tap = Wiretap(stream.endpoints[0])
    with Subscriber(tap.endpoint, keys=keys, mode="every", pixels="message") as subscriber:
        stream.run(100)
        for _ in range(5):
            subscriber.receive(20_000)
        stream.halt()
    tap.close()
    return bytes(tap.seen)


def test_no_pixel_header_or_topic_can_be_seen_on_the_wire(source: ModuleType, folder: Path):
    clear = (b"ISPF", b"boot_id", b"p/0\0", *(bytes([value]) * 64 for value in range(1, 20)))
    with source.RemoteSource([TCP]) as stream:
        seen = tapped(stream, None)
    assert all(part in seen for part in clear[:3])
    assert any(part in seen for part in clear[3:])  # every byte of frame n is n
    with source.RemoteSource([TCP], keys=str(folder)) as stream:
        seen = tapped(stream, folder / "ann")
    assert len(seen) > 5 * 64 * 48 * 3
    assert not any(part in seen for part in clear)


# -- two hosts --------------------------------------------------------------------------------------------------


@pytest.fixture
def other_host() -> Iterator[tuple[str, list[str]]]:
    """(our address, prefix of a command that runs on another host): a network namespace behind a veth pair."""
    name = f"isp{os.getpid()}"
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("needs root and ip, for a network namespace")
    setup = [
        ["netns", "add", name],
        ["link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name],
        ["addr", "add", "198.18.77.1/30", "dev", f"{name}a"],
        ["link", "set", f"{name}a", "up"],
        ["-n", name, "addr", "add", "198.18.77.2/30", "dev", f"{name}b"],
        ["-n", name, "link", "set", f"{name}b", "up"],
    ]
    try:
        for command in setup:
            done = subprocess.run(["ip", *command], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"needs network namespaces: ip {' '.join(command)}: {done.stderr.strip()}")
        yield "198.18.77.1", ["ip", "netns", "exec", name]
    finally:
        subprocess.run(["ip", "link", "del", f"{name}a"], capture_output=True)
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


_READER = """
import sys
from ispeed.stream import StreamError, Subscriber
with Subscriber(sys.argv[1], keys=sys.argv[2] or None, timeout_ms=20000) as frames:
    try:
        print("frame", frames.receive().copy().min())
    except StreamError as error:
        print(error)
"""


def test_from_another_host(other_host: tuple[str, list[str]], source: ModuleType, folder: Path, tmp_path: Path):
    address, there = other_host
    moved = tmp_path / "moved"  # as scp leaves it on the other host
    shutil.copytree(folder / "ann", moved)
    with source.RemoteSource([f"tcp://{address}:*"], keys=str(folder), **ELSEWHERE) as stream:
        stream.run(100)
        said = [
            subprocess.run(
                [*there, sys.executable, "-c", _READER, stream.endpoints[0], keys],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            ).stdout
            for keys in (str(moved), "")
        ]
        stream.halt()
    assert said[0].startswith("frame")
    assert "wants keys" in said[1]
