"""Subscribing: every frame is received, or missed and counted; and what a publisher sends is not trusted."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

import ispeed.stream
from ispeed.engines.errors import UserError
from ispeed.stream import (
    Frame,
    FrameHeader,
    FrameOverwritten,
    Ring,
    StreamError,
    StreamInfo,
    StreamTimeout,
    Subscriber,
    default_endpoint,
)
from ispeed.stream.endpoint import boot_id
from ispeed.stream.frame import topic
from ispeed.stream.reader import MappedRing
from ispeed.stream.ring import RingLayout

WAIT_MS = 20000


def rest(frames: Subscriber) -> list[int]:
    """Sequences of all frames that still come."""
    got = []
    while True:
        try:
            got.append(frames.receive(1000 if not got else 300).sequence)
        except StreamTimeout:
            return got


# -- the package ------------------------------------------------------------------------------------------------


def test_a_subscriber_loads_numpy_and_zmq_and_nothing_else() -> None:
    code = """
import sys
before = set(sys.modules)
from ispeed.stream import Subscriber
Subscriber("tcp://127.0.0.1:1").close()
loaded = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
inside = sorted(name for name in sys.modules if name.startswith("ispeed.stream."))
print(sorted(name for name in loaded if "cython" not in name), inside)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names = ("curve", "endpoint", "frame", "key_files", "reader", "ring", "sockets", "subscribe")
    ours = [f"ispeed.stream.{name}" for name in names]
    assert told.strip() == f"{['ispeed', 'numpy', 'zmq']} {ours}"


def test_the_package_itself_loads_nothing_and_offers_its_names() -> None:
    code = (
        "import sys, ispeed.stream; print([m for m in sys.modules if m.startswith(('ispeed.stream.', 'numpy', 'zmq'))])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"[]"
    assert set(ispeed.stream.__all__) <= set(dir(ispeed.stream))
    for name in ispeed.stream.__all__:
        assert getattr(ispeed.stream, name).__name__ == name if name != "LOSS_REASONS" else True
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ispeed.stream.nothing


# -- frames -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", ["auto", "shared", "message"])
def test_every_frame_comes_in_order_with_all_that_is_known_of_it(
    runtime_dir: Path, source: ModuleType, pixels: Any
) -> None:
    with source.RemoteSource() as stream, Subscriber(mode="every", timeout_ms=WAIT_MS, pixels=pixels) as frames:
        stream.do("await", descriptors=pixels != "message", pixels=pixels == "message")
        stream.do("publish", count=10)
        for sequence in range(10):
            frame = next(frames)
            with frame as image:
                assert image.shape == (48, 64, 3)
                assert image.dtype == np.uint8
                assert source.whole(image, sequence)
            assert not image.flags.writeable
            assert (frame.sequence, frame.frame_id, frame.camera, frame.segment) == (sequence, sequence + 100, 0, 1)
            assert (frame.exposure_us, frame.white_balance) == (250.0, (2.0, 1.0, 1.0))
            assert np.isnan(frame.gain_db)
            assert frame.device_timestamp == 0
            assert frame.grabbed_ns < frame.published_ns < time.monotonic_ns()
            assert abs(frame.time_ns - time.time_ns()) < 60e9
            assert sum(frame.losses.values()) == 0
            assert repr(frame) == f"<Frame {sequence + 100} of camera 0, sequence {sequence}, 64x48>"
        assert (frames.received, frames.missed, frames.lapped, frames.restarts) == (10, 0, 0, 0)
        assert frames.transport == ("message" if pixels == "message" else "shared")
        assert frames.info is not None
        assert (frames.info.serial, frames.info.width) == ("TEST", 64)


@pytest.mark.parametrize("pixels", ["shared", "message"])
def test_newest_skips_and_counts(runtime_dir: Path, source: ModuleType, pixels: Any) -> None:
    with source.Source() as stream, Subscriber(timeout_ms=WAIT_MS, pixels=pixels) as frames:
        stream.await_subscribers(pixels == "shared", pixels == "message")
        stream.publish(1)
        assert frames.receive().sequence == 0
        stream.publish(9)
        frame = frames.receive()
        while frame.sequence < 9:  # what came meanwhile
            frame = frames.receive()
        assert frame.sequence == 9
        assert source.whole(frame.copy(), 9)
        assert (frames.received + frames.missed, frames.lapped) == (10, 0)


def test_every_skips_what_was_overwritten_and_counts_it(runtime_dir: Path, source: ModuleType) -> None:
    with source.Source(slots=16) as stream, Subscriber(mode="every", timeout_ms=WAIT_MS) as frames:
        stream.await_subscribers(1)
        stream.publish(1)
        assert frames.receive().sequence == 0
        stream.publish(50)
        assert rest(frames) == list(range(35, 51))
        assert (frames.received, frames.missed, frames.lapped) == (17, 0, 34)


def test_what_is_received_missed_and_lapped_adds_up(runtime_dir: Path, source: ModuleType) -> None:
    with (
        source.RemoteSource(slots=4) as stream,
        Subscriber(mode="every", timeout_ms=WAIT_MS) as every,
        Subscriber(timeout_ms=WAIT_MS) as newest,
    ):
        stream.do("await", descriptors=2)
        stream.run(fps=5000)
        for _ in range(300):
            every.receive()
            last = newest.receive()
            time.sleep(0.0005)
        stream.halt()
        first = last.sequence + 1 - newest.received - newest.missed - newest.lapped
        assert 0 <= first < 100
        assert newest.missed > 0
        published = stream.do("publish", count=1)["published"]
        assert rest(every)[-1] == published - 1
        assert every.received + every.missed + every.lapped == published
        assert every.lapped > 0


def test_an_overwritten_frame_says_so(runtime_dir: Path, source: ModuleType) -> None:
    with source.Source(slots=4) as stream, Subscriber(mode="every", timeout_ms=WAIT_MS) as frames:
        stream.await_subscribers(1)
        stream.publish(1)
        frame = frames.receive()
        frame.check()
        out = np.empty((48, 64, 3), np.uint8)
        assert frame.copy(out) is out
        assert source.whole(out, 0)
        kept = frame.copy()
        kept[0, 0, 0] = 9  # it is the caller's own
        stream.publish(4)
        for look in (frame.check, frame.copy):
            with pytest.raises(FrameOverwritten, match="frame 100 was overwritten"):
                look()
        with pytest.raises(FrameOverwritten), frame as image:
            assert source.whole(image, 4), "the live view shows what is there now"
        with pytest.raises(KeyError), frame:
            raise KeyError("the caller's own error is not hidden")


def test_sent_frames_are_never_overwritten(runtime_dir: Path, source: ModuleType) -> None:
    with source.Source(slots=2) as stream, Subscriber(mode="every", timeout_ms=WAIT_MS, pixels="message") as frames:
        stream.await_subscribers(0, 1)
        stream.publish(1)
        frame = frames.receive()
        stream.publish(5)
        frame.check()
        assert source.whole(frame.array, 0)


def test_timeouts(runtime_dir: Path, source: ModuleType) -> None:
    with Subscriber(timeout_ms=20) as frames:
        with pytest.raises(TimeoutError, match=f"no frame came from {default_endpoint(0)} in time"):
            next(frames)
        with pytest.raises(StreamTimeout):
            frames.receive(0)
        with source.Source() as stream:  # it may begin later, and be found
            stream.await_subscribers(1)
            stream.publish(1)
            assert frames.receive(None).sequence == 0
    frames.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mode": "all"}, "newest or every"),
        ({"pixels": "no"}, "auto, shared or message"),
        ({"endpoint": "cam"}, "no known transport"),
        ({"endpoint": "ipc://" + "/x" * 60}, "120 bytes"),
        ({"endpoint": "tcp://127.0.0.1:*"}, "cannot connect"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Subscriber(**arguments)


def test_cameras_do_not_mix(runtime_dir: Path, source: ModuleType) -> None:
    address = f"ipc://{runtime_dir}/cam"
    with (
        source.Source([address], camera=10) as stream,
        Subscriber(address, mode="every") as any_camera,
        Subscriber(address, mode="every", camera=10) as right,
        Subscriber(address, mode="every", camera=1) as wrong,
    ):
        stream.await_subscribers(2)
        stream.publish(3)
        assert rest(any_camera) == rest(right) == [0, 1, 2]
        assert rest(wrong) == []
    with source.Source(camera=2) as stream, Subscriber(camera=2, mode="every") as frames:
        stream.await_subscribers(1)
        stream.publish(1)
        assert rest(frames) == [0]


def test_a_named_ring_is_found(runtime_dir: Path, source: ModuleType) -> None:
    name = f"ispeed-test-{os.getpid()}"
    with source.Source(name=name) as stream, Subscriber(mode="every", pixels="shared") as frames:
        stream.await_subscribers(1)
        stream.publish(2)
        assert rest(frames) == [0, 1]
        assert frames.info is not None
        assert frames.info.ring_path == f"/dev/shm/{name}"


# -- asyncio ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", ["shared", "message"])
def test_asyncio(runtime_dir: Path, source: ModuleType, pixels: Any) -> None:
    async def read(frames: Subscriber, count: int) -> list[int]:
        got: list[int] = []
        async for frame in frames:
            assert source.whole(frame.copy(), frame.sequence)
            got.append(frame.sequence)
            if len(got) == count:
                break
        return got

    async def run() -> None:
        with (
            source.Source(slots=256) as stream,
            Subscriber(mode="every", pixels=pixels) as first,
            Subscriber(mode="every", pixels=pixels) as second,
        ):
            stream.await_subscribers(2 * (pixels == "shared"), 2 * (pixels == "message"))
            reading = asyncio.gather(read(first, 200), read(second, 200))
            for _ in range(200):
                stream.publish(1)
                await asyncio.sleep(0.0005)
            assert await asyncio.wait_for(reading, 20) == [list(range(200))] * 2
            with pytest.raises(StreamTimeout):
                await first.receive_async(20)
            waiting = asyncio.create_task(second.receive_async())
            await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            stream.publish(1)
            assert (await second.receive_async(WAIT_MS)).sequence == 200

    asyncio.run(run())


# -- restarts and other machines --------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", ["auto", "message"])
def test_a_restarted_stream_is_followed(runtime_dir: Path, source: ModuleType, pixels: Any) -> None:
    awaited = {"descriptors": pixels == "auto", "pixels": pixels == "message"}
    with Subscriber(mode="every", timeout_ms=WAIT_MS, pixels=pixels) as frames:
        with source.RemoteSource(stream_id=1) as stream:
            stream.do("await", **awaited)
            stream.do("publish", count=5)
            old = frames.receive()
            for _ in range(4):
                frames.receive()
            stream.kill()
        with source.RemoteSource(stream_id=2, width=32, height=16, slots=8) as stream:
            stream.tell("await", **awaited)
            while not stream.answered():  # ZeroMQ subscribes anew only while somebody receives
                assert rest(frames) == []
            stream.answer()
            stream.do("publish", count=3)
            got = [frames.receive() for _ in range(3)]
            assert [frame.sequence for frame in got] == [0, 1, 2]
            assert all(source.whole(frame.copy(), frame.sequence) for frame in got)
            assert got[0].array.shape == (16, 32, 3)
        assert (frames.received, frames.missed, frames.lapped, frames.restarts) == (8, 0, 0, 1)
        gc.collect()
        old.check()
        assert source.whole(old.array, 0), "a view keeps the memory of a stream that has ended"


@pytest.mark.parametrize("mode", ["newest", "every"])
def test_from_another_machine_the_pixels_are_sent(runtime_dir: Path, source: ModuleType, mode: Any) -> None:
    elsewhere = {"info": {"boot_id": "00000000-0000-0000-0000-000000000000"}}
    with source.RemoteSource(["tcp://127.0.0.1:*"], stream_id=1, **elsewhere) as stream:
        address = stream.endpoints[0]
        with Subscriber(address, mode=mode, timeout_ms=WAIT_MS) as frames:
            stream.do("await", descriptors=1)  # what it tries first
            stream.run(fps=200)
            for _ in range(10):
                frame = frames.receive()
                assert source.whole(frame.copy(), frame.sequence)
            assert frames.transport == "message"
            stream.halt()
        with Subscriber(address, timeout_ms=WAIT_MS, pixels="shared") as frames:
            stream.do("await", descriptors=1)
            with pytest.raises(StreamError, match="another machine"):
                frames.receive()


def test_it_returns_to_shared_memory_where_a_new_stream_has_it(runtime_dir: Path, source: ModuleType) -> None:
    with Subscriber(mode="every", timeout_ms=WAIT_MS) as frames:
        with source.RemoteSource(stream_id=1, info={"pid": 1 << 30}) as stream:
            stream.run(fps=200)
            frames.receive()
            assert frames.transport == "message"
            stream.kill()
        with source.RemoteSource(stream_id=2) as stream:
            stream.run(fps=200)
            while frames.transport == "message" or not frames.restarts:
                frame = frames.receive()
            assert source.whole(frame.copy(), frame.sequence)
            stream.halt()


def test_a_strangers_unsubscription_does_not_silence_the_others(runtime_dir: Path, source: ModuleType) -> None:
    with (
        source.RemoteSource() as stream,
        Subscriber(mode="every", timeout_ms=WAIT_MS, pixels="message") as frames,
        zmq.Context() as context,
        context.socket(zmq.XSUB) as stranger,
    ):
        stream.do("await", pixels=1)
        stranger.set(zmq.LINGER, 0)
        stranger.connect(default_endpoint(0))
        stream.run(fps=100)
        frames.receive()
        stranger.send(b"\0" + topic("p", 0))
        for _ in range(20):  # at some of these the publisher believed that nobody listened
            frames.receive()
        stream.halt()


# -- hostile publishers -----------------------------------------------------------------------------------------


class Hostile:
    """A publisher that sends what it likes."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.XPUB_VERBOSE, 1)
        self._socket.bind(address)

    def await_subscriptions(self, count: int) -> None:
        for _ in range(count):
            assert self._socket.poll(WAIT_MS)
            self._socket.recv()

    def send(self, kind: str, *parts: bytes) -> None:
        self._socket.send_multipart([topic(kind, 0) + parts[0], *parts[1:]])

    def close(self) -> None:
        self._socket.close()
        self._context.term()


@pytest.fixture
def hostile(runtime_dir: Path) -> Iterator[Hostile]:
    (runtime_dir / "ispeed").mkdir()
    made = Hostile(default_endpoint(0))
    yield made
    made.close()


@pytest.fixture
def ring() -> Iterator[Ring]:
    made = Ring.create("srgb", 4, 60 * 10, 7)
    yield made
    made.close()


def info_of(ring: Ring, **changes: Any) -> dict[str, Any]:
    """An honest info for `ring`, with changes; a change to `None` leaves the key out."""
    layout = ring.layout
    honest = {
        "version": 1,
        "camera": 0,
        "stream_id": f"{7:016x}",
        "boot_id": boot_id(),
        "pid": os.getpid(),
        "ring_fd": ring.fd,
        "slots": layout.slots,
        "slot_stride": layout.slot_stride,
        "payload": layout.payload,
        "data_offset": layout.data_offset,
        "headers_offset": layout.headers_offset,
        "generations_offset": layout.generations_offset,
        "total": layout.total,
        "width": 20,
        "height": 10,
        "stride": 60,
        "engine": "x",
        "fps": 0,
        "serial": "s",
    }
    return {name: value for name, value in (honest | changes).items() if value is not None}


def header_of(ring: Ring, number: int = 0, **changes: Any) -> bytes:
    """A header for frame `number`, which then lies in `ring`, with changes."""
    slot = number % ring.slots
    ring.end_write(slot, number)
    honest = FrameHeader(
        stream_id=7, slot=slot, sequence=number, generation=2 * number + 2, width=20, height=10, stride=60
    )
    return honest._replace(**changes).pack()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 4000, "no JSON"),
        (b"1" * 4096, "no JSON"),
        (b"[1]", "no JSON object"),
        (b"{}", "version None"),
        (b'{"version": 2}', "version 2"),
        (b'{"version": 1}', "no valid 'camera'"),
        (b" " * 5000, "at most 4096"),
    ],
)
def test_infos_that_are_none_are_refused(hostile: Hostile, text: bytes, words: str) -> None:
    with Subscriber(timeout_ms=WAIT_MS) as frames:
        hostile.await_subscriptions(2)
        hostile.send("i", text)
        with pytest.raises(StreamError, match=words):
            frames.receive()


@pytest.mark.parametrize(
    "changes",
    [
        {"camera": -2},
        {"camera": "0"},
        {"camera": True},
        {"stream_id": "7"},
        {"stream_id": "x" * 16},
        {"stream_id": 7},
        {"boot_id": None},
        {"pid": 1.5},
        {"slots": 1 << 70},
        {"fps": "fast"},
        {"total": None},
    ],
    ids=str,
)
def test_infos_with_wrong_values_are_refused(ring: Ring, changes: dict[str, Any]) -> None:
    text = json.dumps({**info_of(ring, **changes)}).encode()
    with pytest.raises(StreamError, match=f"stream_id is not 16|no valid '{next(iter(changes))}'"):
        StreamInfo.parse(text)


def _unsealed(ring: Ring) -> dict[str, Any]:
    fd = os.memfd_create("ispeed-srgb")
    os.write(fd, bytes(ring.memory))
    return {"ring_fd": fd}


def _not_reserved(ring: Ring) -> dict[str, Any]:
    huge = 1 << 40  # a file of holes: reading them would reserve memory
    stale = Ring.create("srgb", 4, 600, 7)
    fd = os.memfd_create("ispeed-srgb", os.MFD_ALLOW_SEALING)
    head = bytearray(stale.memory[:4096])
    head[72:80] = huge.to_bytes(8, "little")
    os.write(fd, head)
    os.ftruncate(fd, huge)
    import fcntl

    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    stale.close()
    return {"ring_fd": fd, "total": huge}


def _device(ring: Ring) -> dict[str, Any]:
    return {"ring_fd": os.open("/dev/null", os.O_RDWR)}


def _pipe(ring: Ring) -> dict[str, Any]:
    reading, writing = os.pipe()
    os.close(writing)
    return {"ring_fd": reading}


def _raw_ring(ring: Ring) -> dict[str, Any]:
    raw = Ring.create("raw", 4, 600, 7)
    fd = os.dup(raw.fd)
    raw.close()
    return {"ring_fd": fd}


def _changed(**changes: Any) -> Callable[[Ring], dict[str, Any]]:
    return lambda ring: changes


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_changed(boot_id="x"), "another machine"),
        (_changed(pid=1 << 22), "cannot be opened"),
        (_changed(pid=-1), "does not name a ring"),
        (_changed(ring_fd=-1), "does not name a ring"),
        (_changed(ring_fd=9999), "cannot be opened"),
        (_changed(ring_path="/etc/passwd"), "does not name a ring in /dev/shm"),
        (_changed(ring_path="/dev/shm/../../etc/passwd"), "does not name a ring in /dev/shm"),
        (_changed(ring_path="/dev/shm/nothing-there"), "cannot be opened"),
        (_changed(ring_path="/dev/shm/a\0b"), "cannot be opened"),
        (_changed(stream_id=f"{8:016x}"), "no ring of this stream"),
        (_changed(slots=5), "does not fit its ring"),
        (_changed(payload=1 << 40), "does not fit its ring"),
        (_changed(data_offset=0), "does not fit its ring"),
        (_changed(generations_offset=0), "does not fit its ring"),
        (_changed(total=1 << 50), "does not fit its ring"),
        (_device, "does not name a ring"),
        (_pipe, "does not name a ring"),
        (_unsealed, "not sealed"),
        (_not_reserved, "do not fit its memory"),
        (_raw_ring, "does not name a ring"),
    ],
)
def test_rings_that_cannot_be_are_not_mapped(ring: Ring, make: Callable[[Ring], dict[str, Any]], words: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    changes = make(ring)
    with pytest.raises(StreamError, match=words):
        MappedRing(StreamInfo.parse(json.dumps(info_of(ring, **changes)).encode()))
    if make.__name__ != "<lambda>":
        os.close(changes["ring_fd"])
    assert len(os.listdir("/proc/self/fd")) == before


@given(data=st.data())
def test_rings_with_any_header_are_mapped_whole_or_refused(data: st.DataObject) -> None:
    """Info and file agree, but lie: nothing outside the file is ever read."""
    layout = RingLayout.plan("srgb", 4, 600)
    names = ("slots", "payload", "slot_stride", "generations_offset", "headers_offset", "data_offset", "queue", "total")
    numbers = dict.fromkeys(names, 0) | {n: getattr(layout, n) for n in names if n != "queue"}
    for name in data.draw(st.lists(st.sampled_from(names), max_size=3)):
        near = [max(0, numbers[name] + step) for step in range(-160, 168, 8)]
        numbers[name] = data.draw(st.one_of(st.sampled_from(near), st.integers(0, (1 << 62) - 1)))
    honest = Ring.create("srgb", 4, 600, 7)
    for at, name in enumerate(names):
        honest.memory[16 + 8 * at : 24 + 8 * at] = numbers[name].to_bytes(8, "little")
    told = {name: numbers[name] for name in names if name != "queue"}
    try:
        mapped = MappedRing(StreamInfo.parse(json.dumps(info_of(honest, **told)).encode()))
    except StreamError:
        return
    finally:
        honest.close()
    slots, payload = numbers["slots"], numbers["payload"]
    width = min(payload // 3, 65535)
    if not width:
        return
    for slot in (0, slots - 1):
        header = FrameHeader(slot=slot, sequence=slot, generation=2 * slot + 2, width=width, height=1, stride=width * 3)
        frame = mapped.frame(header)
        assert frame.array.sum() >= 0
        assert isinstance(frame.overwritten, bool)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"slot": 4}, "names a slot"),
        ({"slot": 1}, "names a slot"),
        ({"sequence": 1}, "names a slot"),
        ({"generation": 3}, "names a slot"),
        ({"height": 11}, "more bytes than a slot"),
        ({"stride": 61}, "more bytes than a slot"),
        ({"stride": 2**32 - 1, "height": 65535}, "more bytes than a slot"),
        ({"width": 21}, "impossible frame size"),
        ({"version": 9}, "version 9"),
        ({"magic": b"EVIL"}, "no ispeed frame header"),
    ],
    ids=str,
)
def test_descriptors_that_cannot_be_are_refused_and_the_next_is_read(
    hostile: Hostile, ring: Ring, changes: dict[str, Any], words: str
) -> None:
    with Subscriber(mode="every", timeout_ms=WAIT_MS, pixels="shared") as frames:
        hostile.await_subscriptions(2)
        hostile.send("i", json.dumps(info_of(ring)).encode())
        hostile.send("d", header_of(ring, **changes))
        with pytest.raises(StreamError, match=words):
            frames.receive()
        hostile.send("d", header_of(ring, 1))
        assert frames.receive().sequence == 1


@pytest.mark.parametrize("mode", ["newest", "every"])
@pytest.mark.parametrize("size", [0, 255, 257, 60000])
def test_descriptors_of_another_length_are_refused(hostile: Hostile, ring: Ring, mode: Any, size: int) -> None:
    with Subscriber(mode=mode, timeout_ms=WAIT_MS) as frames:
        hostile.await_subscriptions(2)
        hostile.send("d", b"x" * size)
        with pytest.raises(StreamError, match=f"descriptor has {size + 8} bytes"):
            frames.receive()
        hostile.send("i", json.dumps(info_of(ring)).encode())
        hostile.send("d", header_of(ring, 2))
        assert frames.receive().sequence == 2


def test_old_and_repeated_descriptors_are_not_frames(hostile: Hostile, ring: Ring) -> None:
    with Subscriber(mode="every", timeout_ms=WAIT_MS) as frames:
        hostile.await_subscriptions(2)
        hostile.send("i", json.dumps(info_of(ring)).encode())
        headers = [header_of(ring, sequence) for sequence in range(4)]
        for sequence in (2, 2, 1, 3, 0):
            hostile.send("d", headers[sequence])
        hostile.send("d", header_of(ring, 3, camera=5))
        assert rest(frames) == [2, 3]
        assert (frames.missed, frames.lapped) == (0, 0)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (lambda header: [header], "two parts"),
        (lambda header: [header, b"x" * 600, b""], "two parts"),
        (lambda header: [header[:-1], b"x" * 600], "two parts"),
        (lambda header: [header, b"x" * 599], "599 bytes of pixels, not 600"),
        (lambda header: [header, b""], "0 bytes of pixels, not 600"),
        (lambda header: [b"\0" * 256, b"x" * 600], "no ispeed frame header"),
    ],
)
def test_sent_frames_that_cannot_be_are_refused_and_the_next_is_read(
    hostile: Hostile, ring: Ring, parts: Callable[[bytes], list[bytes]], words: str
) -> None:
    with Subscriber(mode="every", timeout_ms=WAIT_MS, pixels="message") as frames:
        hostile.await_subscriptions(2)
        hostile.send("p", *parts(header_of(ring)))
        with pytest.raises(StreamError, match=words):
            frames.receive()
        hostile.send("p", header_of(ring, 1), b"y" * 600)
        assert (frames.receive().array == ord("y")).all()


def test_descriptors_without_an_info_end_in_pixels_by_message(hostile: Hostile, ring: Ring) -> None:
    with Subscriber(mode="every", timeout_ms=WAIT_MS) as frames, Subscriber(pixels="shared") as strict:
        hostile.await_subscriptions(4)
        hostile.send("d", header_of(ring))
        assert rest(frames) == []
        assert frames.transport == "shared"
        with pytest.raises(StreamError, match="nothing that says where"):
            strict.receive(WAIT_MS)
        assert rest(frames) == []
        assert frames.transport == "message"


def test_a_flood_of_new_streams_keeps_few_maps(hostile: Hostile, ring: Ring) -> None:
    with Subscriber(mode="every", timeout_ms=WAIT_MS) as frames:
        hostile.await_subscriptions(2)
        before = len(Path("/proc/self/maps").read_text().splitlines())
        for number in range(50):
            other = Ring.create("srgb", 4, 600, number)
            changes = {"stream_id": f"{number:016x}", "ring_fd": other.fd}
            hostile.send("i", json.dumps(info_of(other, **changes)).encode())
            with pytest.raises(StreamTimeout):
                frames.receive(5)
            other.close()
        assert len(Path("/proc/self/maps").read_text().splitlines()) < before + 20


def test_frames_are_cheap_objects(ring: Ring) -> None:
    frame = Frame(FrameHeader(width=20, height=10, stride=60), np.zeros((10, 20, 3), np.uint8))
    assert not hasattr(frame, "__dict__")
    assert not frame.overwritten
